"""Raises errors in other processes, which import this by its name."""

from __future__ import annotations

from typing import Any

import gymnasium

from ors_gym import errors

__all__ = ["RaisingEnv", "make_error", "raise_error"]

_FIELDS = {"status": 503, "task_id": "7f", "reason": "not_found"}


def make_error(name: str) -> errors.ORSError:
    """Return an error of the class of this name, with all its fields set."""
    kind: type[errors.ORSError] = getattr(errors, name)
    fields = {key: value for key, value in _FIELDS.items() if hasattr(kind, key)}
    return kind(f"a message\nof {name}", **fields)  # type: ignore[arg-type]


def raise_error(name: str) -> None:
    """Raise such an error."""
    raise make_error(name)


class RaisingEnv(gymnasium.Env[Any, Any]):
    """An env whose step raises."""

    observation_space = gymnasium.spaces.Discrete(2)
    action_space = gymnasium.spaces.Discrete(2)

    def __init__(self, name: str) -> None:
        self._name = name

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[int, dict[str, Any]]:
        """Start."""
        return 0, {}

    def step(self, action: object) -> tuple[int, float, bool, bool, dict[str, Any]]:
        """Raise."""
        raise make_error(self._name)
