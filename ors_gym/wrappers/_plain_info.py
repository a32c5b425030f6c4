"""Infos of nothing but numbers and text."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, SupportsFloat

import gymnasium
from gymnasium.utils import RecordConstructorArgs


class PlainInfo(gymnasium.Wrapper[Any, Any, Any, Any], RecordConstructorArgs):
    """Writes the info's ``blocks`` and ``metadata`` as JSON text.

    Around `NativeSpaces` it writes ``ors``, which holds both, and leaves what else the
    environment tells as it is.

    Use it where infos go into columns of one type, which hold neither lists of blocks
    nor mappings: a table, a logger,
    ``minari.DataCollector(PlainInfo(env), record_infos=True)``. For a vector env, wrap
    each env that it is made of.

    Args:
        env: An ORS env, wrapped or not.

    Example:
        >>> import gymnasium as gym
        >>> import ors_gym
        >>> env = PlainInfo(gym.make("ors/guess"))
        >>> observation, info = env.reset(seed=7)
        >>> info["blocks"][:40], info["metadata"]
        ('[{"text": "I am thinking of a number. It', '{}')
        >>> env.close()
    """

    def __init__(self, env: gymnasium.Env[Any, Any]) -> None:
        RecordConstructorArgs.__init__(self)
        gymnasium.Wrapper.__init__(self, env)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        """Start an episode, as the env does, with the plain info."""
        observation, info = self.env.reset(seed=seed, options=options)
        return observation, _write(info)

    def step(
        self, action: Any
    ) -> tuple[Any, SupportsFloat, bool, bool, dict[str, Any]]:
        """Take a step, as the env does, with the plain info."""
        observation, reward, terminated, truncated, info = self.env.step(action)
        return observation, reward, terminated, truncated, _write(info)


def _write(info: Mapping[str, Any]) -> dict[str, Any]:
    if isinstance(info.get("ors"), Mapping):
        return {**info, "ors": json.dumps(_write(info["ors"]))}
    written = {
        "blocks": json.dumps(info["blocks"]),
        "metadata": json.dumps(dict(info["metadata"])),
    }
    return {**info, **written}
