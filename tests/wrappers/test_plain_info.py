"""Infos of plain values only."""

from __future__ import annotations

import json
from typing import Any

import gymnasium as gym
from gymnasium.envs.registration import EnvSpec

from ors_gym.wrappers import DiscreteTools, PlainInfo


def test_blocks_and_metadata_become_json(server, closing):
    arguments: dict[str, Any] = {"env_name": "contract", "base_url": server.base_url}
    whole = closing(gym.make("ors/remote", **arguments))
    plain = closing(PlainInfo(gym.make("ors/remote", **arguments)))
    actions: list[Any] = [
        {"tool": "metadata", "input": {}},
        {"tool": "image", "input": {}},
        {"tool": "echo", "input": {"text": "é\0"}},
        "no call",
    ]
    infos = [whole.reset(seed=1)[1], *(whole.step(a)[4] for a in actions)]
    plains = [plain.reset(seed=1)[1], *(plain.step(a)[4] for a in actions)]
    assert plains[1]["metadata"] != "{}"
    for info, written in zip(infos, plains, strict=True):
        assert json.loads(written.pop("blocks")) == info.pop("blocks")
        assert json.loads(written.pop("metadata")) == info.pop("metadata")
        assert written == info
        assert all(isinstance(value, str | int | bool) for value in written.values())


def test_the_spec_makes_the_same_env_again(closing):
    env = closing(PlainInfo(DiscreteTools(gym.make("ors/blackjack"))))
    assert env.spec is not None
    again = closing(gym.make(EnvSpec.from_json(env.spec.to_json())))
    info = again.reset(seed=3)[1]
    expected = env.reset(seed=3)[1]
    assert info.pop("action_mask").tolist() == expected.pop("action_mask").tolist()
    assert info == expected
