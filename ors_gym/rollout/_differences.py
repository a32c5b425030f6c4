"""Whether an episode that is played again answers as it did before."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any

from ors_gym.rollout._episode import Episode, Step, Turn, turns_with_steps
from ors_gym.rollout._episode_rules import OUTAGES

_COMPARED = ("blocks", "reward", "reward_is_null", "finished", "error", "metadata")
_SHOWN = 200


@dataclasses.dataclass(frozen=True)
class Difference:
    """The first difference between an episode and its replay.

    Args:
        step: The number of the step, from 0; -1 for the prompt and the set-up.
        what: ``set-up``, ``prompt``, a field of the step, or ``steps`` for their
            number.
        before: The value in the episode.
        now: The value in the replay.

    Example:
        >>> print(Difference(2, "reward", 1.0, 0.0))
        step 2: reward was 1.0, is now 0.0
    """

    step: int
    what: str
    before: Any
    now: Any

    def __str__(self) -> str:
        where = f"step {self.step}: " if self.step >= 0 else ""
        before, now = (f"{value!r:.{_SHOWN}}" for value in (self.before, self.now))
        return f"{where}{self.what} was {before}, is now {now}"


def repeated_turns(episode: Episode, count: int | None = None) -> Iterator[Turn]:
    """Yield the turns with the actions that led to the first ``count`` steps, or all.

    A cut turn is given without message and tokens, since those belong to all of its
    actions.
    """
    left = len(episode.steps) if count is None else count
    for turn, steps in turns_with_steps(episode):
        actions = [
            {"tool": step.tool, "input": step.input} if step.tool else kept
            for step, kept in zip(steps[:left], turn.actions, strict=False)
        ]
        left -= len(actions)
        if not actions:
            continue
        if len(actions) < len(steps):
            yield Turn(actions)
        else:
            yield Turn(
                actions,
                turn.message,
                turn.extra,
                version=turn.version,
                tokens=turn.tokens,
            )


def compare_steps(
    before: Sequence[Step], now: Sequence[Step]
) -> tuple[Difference | None, str]:
    """Return the first difference, and which outage ended the comparison, or ``""``."""
    for number, (old, new) in enumerate(zip(before, now, strict=False)):
        if old.error_kind in OUTAGES:
            # Nobody knows what it would have been.
            return None, ""
        if new.error_kind in OUTAGES:
            return None, f"step {number}: {new.error}"
        for name in _COMPARED:
            was, is_now = _value(old, name), _value(new, name)
            if was != is_now:
                return Difference(number, name, was, is_now), ""
    if len(before) != len(now):
        counts = len(before), len(now)
        return Difference(min(counts), "steps", *counts), ""
    return None, ""


def _value(step: Step, name: str) -> Any:
    # The error of an unreadable action is our own words, not the server's.
    if name == "error" and step.error_kind == "invalid_action" and not step.tool:
        return ""
    return getattr(step, name)
