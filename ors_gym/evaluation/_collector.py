"""Collects the episodes of an evaluation as they end, and says when to stop."""

from __future__ import annotations

import asyncio
import inspect
import sys
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

from ors_gym._shown_text import clean
from ors_gym.errors import (
    AuthenticationError,
    ConnectionFailedError,
    InvalidRequestError,
    MissingExtraError,
    ORSError,
    import_extra,
)
from ors_gym.evaluation._loggers import Loggers
from ors_gym.evaluation._plan import Plan
from ors_gym.rollout import Episode
from ors_gym.rollout._limits import RUN_LIMIT, Budget
from ors_gym.rollout._output import OUTPUT, Output, Record
from ors_gym.rollout._planned_rollout import Key, Planned

_PATIENCE: Final = 2
"""The run stops after this many times ``max_concurrent`` episodes in a row that found
no server, or were forbidden."""


class Collector:
    """The state of an evaluation under way: its records, and the episodes left.

    ``done`` holds the records of an earlier run, which are not played again.
    """

    def __init__(
        self,
        plan: Plan,
        max_concurrent: int,
        *,
        output: Output | None,
        progress: ProgressBar,
        done: Mapping[Key, Record],
        loggers: Loggers,
        on_episode: Callable[[Episode], Any] | None,
        budget: Budget | None = None,
    ) -> None:
        self.records: dict[Key, Record] = {
            one.key: done[one.key] for one in plan if one.key in done
        }
        """The episodes that ended so far."""
        self.reason = ""
        """Why no further episode is played, other than a limit of the run."""
        self._limit_reached = False
        self.left: Iterator[Planned] = (one for one in plan if one.key not in done)
        """The episodes that are still to be played."""
        self.budget = budget or Budget()
        self._refusal: ORSError | None = None
        self._output = output
        self._progress = progress
        self._loggers = loggers
        self._on_episode = on_episode
        self._patience = _PATIENCE * max_concurrent
        self._unreachable = self._forbidden = 0
        for record in self.records.values():
            progress.add(record, done_before=True)
        if self.records:
            progress.say(f"{len(self.records)} of {len(plan)} already played")

    @property
    def stopped(self) -> str:
        """Why episodes are missing, if some are."""
        return self.reason or (self.budget.stopped if self._limit_reached else "")

    def note_limit(self) -> None:
        """Note that episodes are missing if a limit of the run is reached."""
        self._limit_reached = bool(self.budget.stopped)

    def next(self) -> Planned | None:
        """Return the next episode to be played, or None to play no more."""
        planned = None if self.stopped else next(self.left, None)
        if planned is not None:
            self.note_limit()
        return None if self._limit_reached else planned

    async def keep(self, planned: Planned, record: Record | None) -> None:
        """Write an episode down, and tell the loggers and ``on_episode`` of it.

        ``record`` is None if a limit of the run kept the episode from beginning.

        Raises:
            BaseException: What the policy raised to end more than its episode:
                SystemExit, KeyboardInterrupt and the like.
        """
        if record is None or record.episode.error_kind == RUN_LIMIT:
            self.note_limit()
        if record is None:
            return
        output, cause = self._output, record.episode.cause
        self.records[planned.key] = record
        self._stop_if_pointless(record.episode)
        if output is not None:
            try:
                [record] = output.append(record)
                self.records[planned.key] = record
                if output.needs_sync:
                    await asyncio.to_thread(output.sync)
            except OSError as error:
                # Stop rather than raise, so that what was played so far is returned.
                self.reason = self.reason or OUTPUT.describe_failure(output.path, error)
        self._progress.add(record)
        await self._loggers.log_episode(record)
        if self._on_episode is not None:
            told = self._on_episode(record.episode)
            if inspect.isawaitable(told):
                await told
        if cause is not None and not isinstance(cause, Exception):
            raise cause

    def raise_if_refused(self) -> None:
        """Raise the error that made every episode fail: a wrong key, or no such model.

        Where some episodes have an outcome, the error is only why the run stopped.
        """
        outcomes = any(record.has_outcome for record in self.records.values())
        if self._refusal is not None and not outcomes:
            raise self._refusal

    def _stop_if_pointless(self, episode: Episode) -> None:
        """Stop where every further episode would fail in the same way."""
        lost = episode.error_kind == ConnectionFailedError.kind and not episode.prompt
        self._unreachable = self._unreachable + 1 if lost else 0
        if self._unreachable >= self._patience:
            self.reason = f"the server could not be reached: {episode.error}"
        cause = episode.cause
        forbidden = isinstance(cause, AuthenticationError)
        self._forbidden = self._forbidden + 1 if forbidden else 0
        if isinstance(cause, ORSError) and (
            _is_final(cause, episode.error_kind) or self._forbidden >= self._patience
        ):
            self._refusal = self._refusal or cause
            self.reason = self.reason or str(cause)


def _is_final(error: ORSError, kind: str) -> bool:
    """Say whether no episode can do better: a wrong key, no such model or program."""
    if isinstance(error, MissingExtraError):
        return kind == "policy"
    if isinstance(error, AuthenticationError):
        # A 403 may concern one conversation only, as gateways filter its content.
        return error.status in (0, 401)
    # A 400 may concern one conversation, and the environment's own 404 one task.
    is_refusal = isinstance(error, InvalidRequestError) and error.status == 404
    return is_refusal and kind == "policy"


class ProgressBar:
    """A bar with running figures, in a terminal or a notebook.

    ``shown`` is None for a bar where tqdm is installed.
    """

    def __init__(
        self,
        total: int,
        label: str,
        *,
        shown: bool | None,
        budget: Budget | None = None,
    ) -> None:
        self._budget = budget or Budget()
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
        self._bar = bar(total=total, desc=clean(label), unit="episode", smoothing=0.1)

    def add(self, record: Record, *, done_before: bool = False) -> None:
        """Count an episode; one of an earlier run does not enter the time estimate."""
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
            self._bar.set_postfix(self._figures(), refresh=False)
            self._bar.update()

    def say(self, text: str) -> None:
        """Print a line above the bar."""
        if self._bar is not None:
            self._bar.write(text, file=sys.stderr)

    def close(self) -> None:
        if self._bar is not None:
            self._bar.set_postfix(self._figures(), refresh=False)
            self._bar.close()

    def _figures(self) -> dict[str, str]:
        shown = {}
        if self._outcomes:
            shown["success"] = f"{self._successes / self._outcomes:.1%}"
            shown["reward"] = f"{self._reward / self._outcomes:.3f}"
        if self._errors:
            shown["errors"] = str(self._errors)
        limits, budget = self._budget.limits, self._budget
        if budget.cost:
            most = "" if limits.max_cost is None else f"/{limits.max_cost:g}"
            shown["cost"] = f"{budget.cost:.4g}{most}"
        if budget.tokens:
            most = "" if limits.max_tokens is None else f"/{limits.max_tokens:,}"
            shown["tokens"] = f"{budget.tokens:,}{most}"
        return shown
