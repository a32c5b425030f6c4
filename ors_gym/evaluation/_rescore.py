"""Score the episodes of a run anew, without playing them."""

from __future__ import annotations

import contextlib
import dataclasses
import math
import os
from collections.abc import Awaitable, Callable, Iterator
from datetime import UTC, datetime
from typing import Any, Final, SupportsFloat, TypeAlias

from ors_gym.client.background import run_and_wait
from ors_gym.errors import InvalidRequestError
from ors_gym.evaluation._collector import ProgressBar
from ors_gym.evaluation._figures import check_range, write_range
from ors_gym.evaluation._read_run import Row, Run, open_run
from ors_gym.evaluation._result import Evaluation
from ors_gym.rollout import Episode
from ors_gym.rollout._output import (
    Output,
    Record,
    Success,
    is_success,
    name_success,
    read_planned,
)
from ors_gym.rollout._policies import PolicyCaller, name_policy
from ors_gym.rollout._scheduler import run_together
from ors_gym.types import JSONObject

Scorer: TypeAlias = Callable[[Episode], SupportsFloat | Awaitable[SupportsFloat]]
"""Takes an episode that ended; returns its reward."""

_USUAL: Final = name_success(None)


def rescore(
    run: str | os.PathLike[str] | Evaluation,
    scorer: Scorer,
    output: str | os.PathLike[str] | None = None,
    *,
    success: Success = None,
    reward_range: tuple[float, float] | None = None,
    max_concurrent: int = 8,
    progress: bool | None = None,
) -> Evaluation:
    """Give the episodes of a run another reward, without playing them again.

    The run stays as it is, and so do the rewards of the steps. Episodes without an
    outcome are not scored, and remain without one.

    Args:
        run: The output file of an evaluation, or an evaluation.
        scorer: Called with each `Episode`; returns its reward, a finite number. A plain
            function runs in threads, an async one on an event loop.
        output: The path of a new output file. The same call again scores only what is
            missing.
        success: The least reward of a success, or a function of the episode. If None,
            success is finished with a reward above 0.
        reward_range: The least and the greatest reward that the scorer can give.
        max_concurrent: The most episodes that are scored at once.
        progress: Whether a bar is shown; if None, where tqdm is installed.

    Returns:
        The evaluation with the new rewards, in the order of the run.

    Raises:
        InvalidRequestError: If the run cannot be read, if it judged success in another
            way and ``success`` is not given, or if a reward is no finite number.
        Exception: What the scorer raises. What was scored before is in the output.

    Example:
        >>> from ors_gym.evaluation import evaluate
        >>> from ors_gym.rollout import reference_policy
        >>> run = evaluate(None, "math", range(3), reference_policy(), progress=False)
        >>> def terse(episode):
        ...     return episode.total_reward - 0.25 * len(episode.steps)
        >>> rescore(run, terse, progress=False).avg_reward
        0.75
    """
    check_range(reward_range)
    if max_concurrent < 1:
        raise InvalidRequestError("max_concurrent must be at least 1")
    with open_run(run) as opened, contextlib.ExitStack() as stack:
        head = _describe(opened.head, scorer, success, reward_range)
        written: Output | None = None
        if output is not None:
            planned = {row.key for row in opened.rows}
            final = {row.key for row in opened.rows if row.reward is None}
            written = Output(output, head, planned, final=final)
            stack.enter_context(written)
        bar = ProgressBar(len(opened.rows), "rescore", shown=progress)
        stack.callback(bar.close)
        job = _Job(opened, scorer, success, written, bar)
        run_and_wait(job.run(max_concurrent))
        records = [job.records[row.key] for row in opened.rows]
    if isinstance(run, Evaluation):
        return Evaluation(
            records,
            head=head,
            planned=run.planned,
            stopped=run.stopped,
            confidence=run.confidence,
        )
    return Evaluation(records, head=head, planned=read_planned(head))


class _Job:
    """The records that were scored so far, and those that are left."""

    def __init__(
        self,
        run: Run,
        scorer: Scorer,
        success: Success,
        output: Output | None,
        bar: ProgressBar,
    ) -> None:
        self._run, self._scorer, self._success = run, scorer, success
        self._output, self._bar = output, bar
        self.records = {} if output is None else dict(output.records)
        for record in self.records.values():
            bar.add(record, done_before=True)
        done = frozenset(self.records)
        self._left: Iterator[Row] = (row for row in run.rows if row.key not in done)

    async def run(self, max_concurrent: int) -> None:
        await run_together([self._work] * max_concurrent)

    async def _work(self) -> None:
        caller = PolicyCaller()
        try:
            for row in self._left:
                record = await self._score(caller, self._run.read(row))
                if self._output is not None:
                    [record] = self._output.append(record)
                self.records[row.key] = record
                self._bar.add(record)
        finally:
            caller.close()

    async def _score(self, caller: PolicyCaller, record: Record) -> Record:
        if not record.has_outcome:
            return record
        # The episode of an evaluation in memory keeps its reward.
        episode = dataclasses.replace(record.episode)
        reward = await caller.call(self._scorer, episode)
        episode.total_reward = _read_reward(reward, record)
        return Record(episode, is_success(self._success, episode), record.task)


def _read_reward(value: Any, record: Record) -> float:
    with contextlib.suppress(TypeError, ValueError, OverflowError):
        if not isinstance(value, str) and math.isfinite(reward := float(value)):
            return reward
    episode = record.episode
    where = f"task {episode.task_index} of split {episode.split!r}"
    raise InvalidRequestError(
        f"the scorer returned {value!r:.100} for episode {episode.number} of {where}; "
        "a reward is a finite number"
    )


def _describe(
    head: JSONObject,
    scorer: Scorer,
    success: Success,
    reward_range: tuple[float, float] | None,
) -> JSONObject:
    """Return the head of the new file."""
    limits = dict(head["limits"]) if isinstance(head.get("limits"), dict) else {}
    judged = limits.get("success", _USUAL)
    if success is None and judged != _USUAL:
        raise InvalidRequestError(
            f"the run judged success by {judged!r}; pass success= to judge it anew"
        )
    limits |= {"success": name_success(success)}
    limits.pop("reward_range", None)
    if reward_range is not None:
        limits["reward_range"] = write_range(reward_range)
    return {
        **head,
        "limits": limits,
        "scorer": name_policy(scorer),
        "created": datetime.now(UTC).isoformat(),
    }
