"""The errors of an evaluation in words: what went wrong first, and whether all did."""

from __future__ import annotations

import sysconfig
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from ors_gym.evaluation.records import Record

__all__ = ["describe_all_failed", "describe_first_error"]

_OURS: Final = str(Path(__file__).parents[1])
_STANDARD: Final = sysconfig.get_path("stdlib")
_LONGEST: Final = 400


def describe_first_error(records: Sequence[Record]) -> str:
    """Say what ended the first of the episodes that an error ended.

    Args:
        records: The episodes.

    Returns:
        Its task, the error, and the line of the caller's code that raised it, where
        that is known; ``""`` if there is none.

    Example:
        >>> from ors_gym.rollout import Episode
        >>> episode = Episode("math", 3)
        >>> episode.end_without_outcome("ZeroDivisionError: division by zero", "policy")
        >>> describe_first_error([Record(episode, None)])
        'task 3: ZeroDivisionError: division by zero'
    """
    for record in records:
        episode = record.episode
        if episode.stop_reason != "error":
            continue
        error = " ".join(episode.error.split())
        if len(error) > _LONGEST:
            error = error[:_LONGEST] + "..."
        place = _find_place(episode.cause) if episode.error_kind == "policy" else ""
        return f"task {record.key[1]}: {error}{place}"
    return ""


def describe_all_failed(records: Sequence[Record]) -> str:
    """Say so if the policy failed in the same way in every episode.

    Args:
        records: The episodes.

    Returns:
        A sentence, or ``""`` if some went otherwise.

    Example:
        >>> from ors_gym.rollout import Episode
        >>> episode = Episode("math", 3)
        >>> episode.end_without_outcome("KeyError: 'x'", "policy")
        >>> describe_all_failed([Record(episode, None)])
        'the policy raised KeyError in every episode, so there are no figures'
    """
    kinds = {record.episode.error.partition(":")[0].strip() for record in records}
    if len(kinds) != 1 or any(
        record.episode.stop_reason != "error" or record.episode.error_kind != "policy"
        for record in records
    ):
        return ""
    name = kinds.pop()
    what = f"raised {name}" if name.isidentifier() else "failed"
    return f"the policy {what} in every episode, so there are no figures"


def _find_place(cause: BaseException | None) -> str:
    """Return the innermost line of the caller's own code, in brackets."""
    if cause is None:
        return ""
    frames = traceback.extract_tb(cause.__traceback__)
    for frame in reversed(frames):
        name = frame.filename
        installed = "site-packages" in name or "dist-packages" in name
        if not installed and not name.startswith((_OURS, _STANDARD, "<frozen")):
            return f" ({name}:{frame.lineno})"
    return ""
