"""Text in every script comes back from a real server, through every vector env."""

import functools
import json
from typing import Any

import gymnasium as gym
import pytest
from gymnasium.vector import AsyncVectorEnv, SyncVectorEnv

from ors_gym.vector import ORSVectorEnv
from tests.spaces.texts import TEXTS
from tests.support.slow_cases import mostly_slow

COUNT = 2


def make_one(base_url: str, mode: str) -> Any:
    return gym.make(
        "ors/remote", env_name="contract", base_url=base_url, action_mode=mode
    )


def make_sync(base_url: str, mode: str) -> Any:
    return SyncVectorEnv([functools.partial(make_one, base_url, mode)] * COUNT)


def make_async(base_url: str, mode: str) -> Any:
    return AsyncVectorEnv([functools.partial(make_one, base_url, mode)] * COUNT)


def make_ors(base_url: str, mode: str) -> Any:
    return ORSVectorEnv("contract", base_url, COUNT, action_mode=mode)


KINDS = {"sync": make_sync, "async": make_async, "ors": make_ors}
CASES = mostly_slow(
    [
        *(("sync", "tool_call"), ("async", "text"), ("ors", "text")),
        *(("sync", "text"), ("async", "tool_call"), ("ors", "tool_call")),
    ],
    usual=3,
)
"""Every kind with one mode; with the other one in the slow run."""


def echo(text: str, mode: str, *, ascii_only: bool = False) -> Any:
    call = {"tool": "echo", "input": {"text": text}}
    return call if mode == "tool_call" else json.dumps(call, ensure_ascii=ascii_only)


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "mode"), CASES)
def test_text_survives_exactly(server, kind, mode, closing):
    envs = closing(KINDS[kind](server.base_url, mode))
    envs.reset(seed=0)
    for one, two in zip(TEXTS, reversed(TEXTS), strict=True):
        observations, *_ = envs.step([echo(one, mode), echo(two, mode)])
        assert tuple(observations) == (one, two)


@pytest.mark.parametrize(("kind", "mode"), CASES)
def test_lone_surrogates_are_replaced_or_refused(server, kind, mode, closing):
    envs = closing(KINDS[kind](server.base_url, mode))
    envs.reset(seed=0)
    actions = [echo("a\ud800b", mode, ascii_only=True), echo("ü", mode)]
    observations, _, terminated, _, infos = envs.step(actions)
    # A server may take half of a surrogate pair or not; no observation holds one.
    if infos["error_kind"][0]:
        assert infos["error_kind"][0] in ("invalid_action", "tool_failed")
        assert observations[0]
    else:
        assert observations[0] == "a\ufffdb"
    observations[0].encode()
    assert observations[1] == "ü"
    assert not terminated.any()
    assert tuple(envs.step([echo("next", mode)] * 2)[0]) == ("next", "next")


@pytest.mark.parametrize("wrap", [gym.wrappers.FrameStackObservation, None])
def test_text_survives_single_envs_too(server, wrap):
    env = make_one(server.base_url, "tool_call")
    if wrap is not None:
        env = wrap(env, 2)
    env.reset(seed=0)
    before = None
    for text in TEXTS[:20]:
        observation = env.step(echo(text, "tool_call"))[0]
        if wrap is None:
            assert observation == text
        elif before is not None:
            assert tuple(observation) == (before, text)
        before = text
    env.close()
