"""Text, images of text and tool calls in Gymnasium's own vector envs."""

import contextlib
import copy
import json
import multiprocessing
import os
import pickle
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gymnasium.spaces import Box, Dict, Tuple
from gymnasium.vector import AsyncVectorEnv, SyncVectorEnv
from gymnasium.vector.utils import (
    batch_differing_spaces,
    batch_space,
    concatenate,
    create_empty_array,
    iterate,
)
from hypothesis import given
from hypothesis import strategies as st

from ors_gym.spaces import FreeText, ToolCallSpace, ToolCallText
from ors_gym.spaces._text import SharedText, SharedView
from tests.spaces.pydantic_tools import MODELS
from tests.spaces.texts import TEXTS, EchoEnv

KINDS: dict[str, Any] = {
    "sync": SyncVectorEnv,
    "async": AsyncVectorEnv,
    "async spawned": partial(AsyncVectorEnv, context="spawn"),
    "async forkserver": partial(AsyncVectorEnv, context="forkserver"),
    "async without shared memory": partial(AsyncVectorEnv, shared_memory=False),
    "async without copies": partial(AsyncVectorEnv, copy=False),
    "async different": partial(AsyncVectorEnv, observation_mode="different"),
}
TOOLS: list[dict[str, Any]] = [
    {"name": name, "description": "", "input_schema": MODELS[name].model_json_schema()}
    for name in ("discriminated", "nested", "tree", "unions")
]


def show_nested(text: str) -> dict[str, Any]:
    return {"text": text, "pair": (text[:40], np.full(2, 3, np.float32))}


def make_nested() -> EchoEnv:
    pair = Tuple([FreeText(max_length=40), Box(0, 9, (2,))])
    space = Dict({"text": FreeText(), "pair": pair})
    return EchoEnv(observations=space, show=show_nested)


def make_called() -> EchoEnv:
    return EchoEnv(actions=ToolCallSpace(TOOLS), show=json.dumps)


@pytest.mark.parametrize("kind", KINDS)
def test_text_survives_byte_for_byte(kind: str) -> None:
    with contextlib.closing(KINDS[kind]([EchoEnv] * 2)) as envs:
        observations, _ = envs.reset(seed=0)
        assert tuple(observations) == ("start", "start")
        for one, two in zip(TEXTS, reversed(TEXTS), strict=True):
            observations, *_ = envs.step((one, two))
            assert tuple(observations) == (one, two)
            if envs.copy:
                assert observations in envs.observation_space


def test_a_copy_does_not_change_with_the_next_step() -> None:
    with contextlib.closing(AsyncVectorEnv([EchoEnv] * 2)) as envs:
        first, _ = envs.reset()
        second, *_ = envs.step(("a", "b"))
        envs.step(("c", "d"))
        assert (first, second) == (("start", "start"), ("a", "b"))


@pytest.mark.parametrize("mode", ["NextStep", "SameStep"])
def test_text_survives_autoreset(mode: str) -> None:
    with contextlib.closing(AsyncVectorEnv([EchoEnv] * 2, autoreset_mode=mode)) as envs:
        envs.reset()
        observations, _, terminated, _, infos = envs.step(("end", "ü"))
        assert list(terminated) == [True, False]
        if mode == "SameStep":
            assert infos["final_obs"][0] == "end"
        else:
            assert observations == ("end", "ü")
            observations, *_ = envs.step(("ignored", "ü"))
        assert observations == ("start", "ü")


@pytest.mark.parametrize("kind", [SyncVectorEnv, AsyncVectorEnv])
def test_text_within_other_spaces(kind: Any) -> None:
    with contextlib.closing(kind([make_nested] * 2)) as envs:
        envs.reset()
        observations, *_ = envs.step(("日本" * 30, ""))
        assert observations["text"] == ("日本" * 30, "")
        assert observations["pair"][0] == ("日本" * 20, "")
        assert observations["pair"][1].tolist() == [[3, 3], [3, 3]]
        assert observations in envs.observation_space


@pytest.mark.parametrize("kind", [SyncVectorEnv, AsyncVectorEnv])
def test_tool_calls_arrive_as_they_were_sampled(kind: Any) -> None:
    with contextlib.closing(kind([make_called] * 3)) as envs:
        envs.action_space.seed(4)
        envs.reset()
        different = set()
        for _ in range(20):
            calls = envs.action_space.sample()
            assert calls in envs.action_space
            observations, *_ = envs.step(calls)
            assert [json.loads(text) for text in observations] == list(calls)
            different |= set(observations)
        assert len(different) > 30


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_text_that_is_too_long_is_an_error_and_not_garbage() -> None:
    envs = AsyncVectorEnv([partial(EchoEnv, 10)] * 2)
    try:
        envs.reset()
        with pytest.raises(ValueError, match=r"11 characters, but the space allows 10"):
            envs.step(("x" * 11, "y"))
    finally:
        envs.close(terminate=True)


def test_without_positioned_writes_gymnasium_says_what_to_do(monkeypatch):
    monkeypatch.delattr(os, "pwrite")
    with pytest.raises(ValueError, match="shared_memory=False"):
        AsyncVectorEnv([EchoEnv])


def test_batches_of_calls() -> None:
    space = ToolCallSpace(TOOLS, seed=1)
    batched = batch_space(space, 3)
    assert isinstance(batched, Tuple)
    assert [type(inner) for inner in batched.spaces] == [ToolCallSpace] * 3
    batched.seed(2)
    calls = batched.sample()
    assert calls in batched
    assert len({json.dumps(call) for call in calls}) == 3
    assert list(iterate(batched, calls)) == list(calls)
    empty: Any = create_empty_array(space, 3)
    assert concatenate(space, calls, empty) == calls
    mask = {"tree": 0, "nested": 0, "unions": 0}
    masked = batched.sample(mask=(mask, None, mask))
    assert {masked[0]["tool"], masked[2]["tool"]} == {"discriminated"}
    both: Any = batch_differing_spaces([space, ToolCallSpace(TOOLS[:1])])
    assert both.spaces == (space, ToolCallSpace(TOOLS[:1]))


def test_batches_of_call_text() -> None:
    batched: Any = batch_space(ToolCallText(ToolCallSpace(TOOLS, seed=1)), 3)
    batched.seed([1, 1, 2])
    one, two, three = batched.sample()
    assert one == two != three


@given(st.lists(st.text(alphabet=st.characters()), min_size=3, max_size=3))
def test_shared_text_keeps_any_text(texts: list[str]) -> None:
    shared = SharedText(3, max_length=10**9)
    for region, text in enumerate(["longer than what follows"] * 3):
        shared.write(region, text)
    for region, text in enumerate(texts):
        shared.write(region, text)
    assert SharedView(shared, decode=str) == tuple(texts)


def test_shared_text_keeps_lone_surrogates() -> None:
    shared = SharedText(1, max_length=3)
    shared.write(0, "a\ud800b")
    assert shared.read(0) == "a\ud800b"


def test_shared_text_takes_memory_only_for_what_is_there() -> None:
    shared = SharedText(1000, max_length=10**9)
    shared.write(999, "x")
    assert os.fstat(shared._descriptor).st_blocks * 512 < 2**20


def test_shared_text_whose_writer_was_killed_ends_where_its_file_does() -> None:
    shared = SharedText(1, max_length=100)
    shared.write(0, "a" * 50)
    os.ftruncate(shared._descriptor, 30)
    text = shared.read(0)
    assert text == "a" * len(text)
    assert 0 < len(text) < 50


def test_shared_text_travels_only_to_a_process_being_started() -> None:
    with pytest.raises(RuntimeError, match="inheritance"):
        pickle.dumps(SharedText(1, 1))


def test_a_closed_vector_env_leaves_no_descriptor_open() -> None:
    def open_texts() -> int:
        """Count the files of shared texts; other threads open and close others."""
        count = 0
        for link in Path(f"/proc/{os.getpid()}/fd").iterdir():
            # The descriptor that lists them is closed by now.
            with contextlib.suppress(OSError):
                count += "ors_gym_text" in str(link.readlink())
        return count

    if multiprocessing.get_start_method() != "fork":
        pytest.skip("counts what a forked vector env leaves")
    before = open_texts()
    envs = AsyncVectorEnv([EchoEnv])
    assert open_texts() > before
    envs.close()
    del envs
    for _ in range(3):
        envs = AsyncVectorEnv([EchoEnv] * 2)
        envs.reset()
        envs.close()
        del envs
    assert open_texts() <= before


def test_a_view_is_a_sequence() -> None:
    shared = SharedText(3, 10)
    for region, text in enumerate(("a", "b", "c")):
        shared.write(region, text)
    view = SharedView(shared, decode=str)
    assert (len(view), view[0], view[-1], view[1:]) == (3, "a", "c", ("b", "c"))
    assert list(reversed(view)) == ["c", "b", "a"]
    assert "b" in view
    assert repr(view) == "('a', 'b', 'c')"
    assert tuple(view) == ("a", "b", "c") == view
    assert view != ["a", "b", "c"]
    assert copy.copy(view) == copy.deepcopy(view) == pickle.loads(pickle.dumps(view))
    assert isinstance(copy.copy(view), tuple)
    with pytest.raises(IndexError):
        view[3]
