"""Where an evaluation is recorded while it runs: W&B, MLflow, the platform, ..."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from ors_gym._shown_text import warn
from ors_gym.client.background import Completion
from ors_gym.errors import InvalidRequestError
from ors_gym.evaluation._result import Evaluation
from ors_gym.formats._actions import name_type
from ors_gym.rollout._output import Record
from ors_gym.types import JSONObject


class EvaluationLogger:
    """Where ``evaluate(..., log_to=...)`` records a run: override what you need.

    `ors_gym.integrations` has one for Weights & Biases, one for MLflow and one for the
    OpenReward platform. The methods are called one after the other in a thread of
    their own, so they may block. What `begin` raises ends the run before anything is
    played. What the others raise is warned of once, and the run goes on without this
    logger.

    Example:
        >>> from ors_gym.evaluation import evaluate
        >>> from ors_gym.rollout import reference_policy
        >>> class Printer(EvaluationLogger):
        ...     def log_episode(self, record):
        ...         print(record.key, record.success)
        >>> done = evaluate(
        ...     None, "math", [3], reference_policy(), log_to=Printer(), progress=False
        ... )
        ('train', 3, 0) True
    """

    def begin(self, run: JSONObject) -> None:
        """Begin a run.

        Args:
            run: What is evaluated: the first line of an output file, with
                ``environment``, ``split``, ``policy``, ``limits`` and ``server``.
        """

    def log_episode(self, record: Record) -> None:
        """Record an episode that just ended; not called for those of an earlier run.

        Args:
            record: The episode and whether it was a success.
        """

    def end(self, evaluation: Evaluation) -> None:
        """End the run, also one that was interrupted or failed.

        Args:
            evaluation: All episodes so far, those of an earlier run too;
                ``evaluation.stopped`` says why some are missing.
        """


class Loggers:
    """The loggers of one run, and the thread in which they are called."""

    def __init__(self, loggers: Sequence[EvaluationLogger]) -> None:
        self._active = list(loggers)
        self._thread = ThreadPoolExecutor(1, "ors_gym-loggers") if loggers else None

    @contextlib.asynccontextmanager
    async def run(
        self, head: JSONObject, evaluation: Callable[[str], Evaluation]
    ) -> AsyncIterator[None]:
        """Begin the loggers' runs, and end those that began, whatever happens."""
        if self._thread is None:
            yield
            return
        wanted, self._active = self._active, []
        stopped = ""
        try:
            for logger in wanted:
                (await self._call(logger.begin, head)).get()
                self._active.append(logger)
            yield
        except BaseException as error:
            cancelled = isinstance(error, asyncio.CancelledError)
            stopped = "interrupted" if cancelled else str(error) or type(error).__name__
            raise
        finally:
            try:
                await self._tell(lambda logger: logger.end(evaluation(stopped)))
            finally:
                self._thread.shutdown(wait=False)

    async def log_episode(self, record: Record) -> None:
        if self._active:
            await self._tell(lambda logger: logger.log_episode(record))

    async def _tell(self, what: Callable[[EvaluationLogger], None]) -> None:
        """Call each logger, and go on without one that fails."""
        for logger in list(self._active):
            error = (await self._call(what, logger)).error
            if isinstance(error, SystemExit | KeyboardInterrupt):
                raise error
            # Several episodes may be waiting for the same logger to fail.
            if error is not None and logger in self._active:
                self._active.remove(logger)
                warn(
                    f"{name_type(logger)} failed, so the rest of this run is not "
                    f"logged to it: {type(error).__name__}: {error}",
                )

    async def _call(
        self, function: Callable[..., object], *arguments: object
    ) -> Completion[object]:
        """Call a function in the thread; what it raised is in the completion.

        An asyncio future cannot hold a StopIteration, and a CancelledError in it would
        count as the cancellation of the task that waits.
        """

        def complete() -> Completion[object]:
            try:
                return Completion(function(*arguments))
            except BaseException as error:  # noqa: BLE001 - it is in the completion
                return Completion(None, error)

        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._thread, complete)


def read_loggers(log_to: Any) -> Loggers:
    """Read the argument ``log_to``."""
    listed = [] if log_to is None else log_to
    if not isinstance(listed, list | tuple):
        listed = [listed]
    for one in listed:
        if not isinstance(one, EvaluationLogger):
            raise InvalidRequestError(
                f"log_to is {name_type(one)}; it takes objects of EvaluationLogger, "
                "such as ors_gym.integrations.wandb.WandbLogger()"
            )
    return Loggers(listed)
