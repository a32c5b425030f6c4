"""Infos of plain values only."""

import json
from typing import Any

import gymnasium as gym

from ors_gym.wrappers import NativeSpaces, PlainInfo


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


def test_beside_the_info_of_an_environment_all_is_json(native_url, closing):
    remote = gym.make("ors/remote", env_name="cartpole-v1", base_url=native_url)
    env = closing(PlainInfo(NativeSpaces(remote)))
    for info in (env.reset(seed=1)[1], env.step(1)[4]):
        assert info.keys() == {"ors"}
        assert json.loads(json.loads(info["ors"])["blocks"])[0]["type"] == "text"
