"""A bar with the running figures of an evaluation."""

from __future__ import annotations

from typing import Any

from ors_gym.errors import MissingExtraError, import_extra
from ors_gym.evaluation._output import Record

__all__ = ["Progress"]


class Progress:
    """Counts episodes, and shows them in a terminal or a notebook.

    Args:
        total: How many episodes there are.
        label: What is shown before the bar.
        shown: Whether there is a bar; None for one if tqdm is installed.

    Raises:
        MissingExtraError: If there is to be a bar and tqdm is not installed.

    Example:
        >>> Progress(10, "math", shown=False).figures()
        {}
    """

    def __init__(self, total: int, label: str, *, shown: bool | None) -> None:
        self._outcomes = self._successes = self._errors = 0
        self._reward = 0.0
        self._bar: Any = None
        if shown is not None and not shown:
            return
        try:
            bar = import_extra(
                "tqdm.auto", "eval", "The progress bar", "pass progress=False"
            ).tqdm
        except MissingExtraError:
            if shown:
                raise
            return
        self._bar = bar(total=total, desc=label, unit="episode", smoothing=0.1)

    def add(self, record: Record, *, done_before: bool = False) -> None:
        """Count an episode.

        Args:
            record: The episode.
            done_before: Whether an earlier run played it; the estimate of the time
                that is left must not count it.
        """
        if record.episode.total_reward is None:
            self._errors += 1
        else:
            self._outcomes += 1
            self._successes += bool(record.success)
            self._reward += record.episode.total_reward
        if self._bar is None:
            return
        if done_before:
            self._bar.initial += 1
            self._bar.n += 1
        else:
            self._bar.set_postfix(self.figures(), refresh=False)
            self._bar.update()

    def figures(self) -> dict[str, str]:
        """Return the running figures as they are shown."""
        shown = {}
        if self._outcomes:
            shown["success"] = f"{self._successes / self._outcomes:.1%}"
            shown["reward"] = f"{self._reward / self._outcomes:.3f}"
        if self._errors:
            shown["errors"] = str(self._errors)
        return shown

    def close(self) -> None:
        """Leave the bar as it is."""
        if self._bar is not None:
            self._bar.set_postfix(self.figures(), refresh=False)
            self._bar.close()
