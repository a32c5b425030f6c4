"""One episode of an evaluation as a record: the episode and whether it succeeded."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

from ors_gym.errors import InvalidRequestError
from ors_gym.evaluation._plan import Key, identify
from ors_gym.rollout import Episode
from ors_gym.types import JSONObject

__all__ = ["Record", "Success", "is_success", "name_success"]

Success: TypeAlias = float | Callable[[Episode], bool] | None
"""The least reward of a success, or a function that judges the episode; None for
finished with a reward above 0."""


@dataclasses.dataclass(frozen=True)
class Record:
    """An episode and whether it was a success.

    Args:
        episode: The episode.
        success: Whether it was a success; None where it has no outcome.
        task: The task itself, only where it has no index.
    """

    episode: Episode
    success: bool | None
    task: JSONObject | None = None

    @property
    def key(self) -> Key:
        """The episode's identity: split, index or digest of the task, and number."""
        episode = self.episode
        return identify(episode.split, episode.task_index, self.task, episode.number)

    @property
    def has_outcome(self) -> bool:
        """Whether it counts: False where an outage or the policy's error ended it."""
        return self.episode.total_reward is not None

    def result(self) -> JSONObject:
        """Return the row without the episode's turns and steps."""
        episode = self.episode
        if self.task is None:
            row: JSONObject = {"task_index": episode.task_index}
        else:
            row = {"task": self.task}
        return row | {
            "split": episode.split,
            "episode": episode.number,
            "total_reward": episode.total_reward,
            "steps": len(episode.steps),
            "success": self.success,
            "stop_reason": episode.stop_reason,
            "error": episode.error,
            "error_kind": episode.error_kind,
            "seconds": episode.seconds,
        }

    def row(self) -> JSONObject:
        """Return the row of an output file, with the whole episode."""
        return self.result() | {"trajectory": self.episode.to_dict()}

    @classmethod
    def from_row(cls, row: Mapping[str, Any]) -> Record:
        """Read a row of an output file.

        Args:
            row: The row.

        Returns:
            The record.

        Raises:
            InvalidRequestError: If it is no such row.
        """
        trajectory, success = row.get("trajectory"), row.get("success")
        task = row.get("task")
        if not isinstance(trajectory, Mapping) or not isinstance(success, bool | None):
            raise InvalidRequestError("the row holds no episode")
        if not isinstance(task, dict | None):
            raise InvalidRequestError("the row's task is no object")
        return cls(Episode.from_dict(trajectory), success, task)


def is_success(success: Success, episode: Episode) -> bool | None:
    """Judge an episode; None if it has no outcome."""
    if episode.total_reward is None:
        return None
    if success is None:
        return episode.finished and episode.total_reward > 0
    if callable(success):
        return bool(success(episode))
    return episode.total_reward >= success


def name_success(success: Success) -> str:
    """Describe how success is judged, for the head of an output file."""
    if success is None:
        return "finished and total_reward > 0"
    if callable(success):
        return str(getattr(success, "__qualname__", type(success).__qualname__))
    return f"total_reward >= {float(success):g}"
