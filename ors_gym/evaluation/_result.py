"""The result of an evaluation: its episodes, and figures that say how sure they are."""

from __future__ import annotations

import math
import os
import statistics
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any, Final

from ors_gym.errors import InvalidRequestError
from ors_gym.evaluation import _figures as figures
from ors_gym.evaluation._figures import Comparison, compare
from ors_gym.evaluation._statistics import (
    Interval,
    interval_if_possible,
    mean_interval,
    pass_at_k,
    pass_hat_k,
    rate_interval,
)
from ors_gym.rollout import Episode
from ors_gym.rollout._output import (
    Record,
    read_output,
    read_planned,
    read_used_before,
)
from ors_gym.rollout._usage import add_up
from ors_gym.types import JSONObject

_KEYS: Final = ("success_rate", "avg_reward", "avg_steps", "results")


class Evaluation(Mapping[str, Any]):
    """The episodes of an evaluation, their figures, and how certain these are.

    As a mapping it has ``success_rate``, ``avg_reward``, ``avg_steps`` and
    ``results``. Episodes that an outage or an error of the policy ended have no
    outcome: ``errors`` counts them, and no other figure does.

    Args:
        records: The episodes.
        head: What was evaluated: the head of an output file.
        planned: The number of episodes that were to be played; if None, as many as
            there are.
        stopped: Why some are missing.
        confidence: The probability that an interval should hold the true value.
        reward_range: The least and the greatest reward that an episode can have, for
            intervals; if None, what ``head`` says of it.

    Example:
        >>> empty = Evaluation([])
        >>> empty["success_rate"], empty["results"]
        (nan, [])
    """

    def __init__(
        self,
        records: Sequence[Record],
        *,
        head: Mapping[str, Any] | None = None,
        planned: int | None = None,
        stopped: str = "",
        confidence: float = 0.95,
        reward_range: tuple[float, float] | None = None,
    ) -> None:
        self.records = list(records)
        self.head = dict(head or {})
        self.planned = len(self.records) if planned is None else planned
        self.stopped = stopped
        self.confidence = confidence
        figures.check_confidence(confidence)
        figures.check_range(reward_range)
        self.reward_range = reward_range or figures.known_range(self.head)
        self._outcomes = [record for record in self.records if record.has_outcome]

    @classmethod
    def load(
        cls,
        path: str | os.PathLike[str],
        confidence: float = 0.95,
        reward_range: tuple[float, float] | None = None,
    ) -> Evaluation:
        """Read the output file of an evaluation, also of one that is not over.

        Args:
            path: Where it is.
            confidence: The probability that an interval should hold the true value.
            reward_range: As for an `Evaluation`.

        Raises:
            InvalidRequestError: If it is no output file, or damaged.
        """
        head, records = read_output(path)
        return cls(
            records,
            head=head,
            planned=read_planned(head),
            confidence=confidence,
            reward_range=reward_range,
        )

    def __getitem__(self, key: str) -> Any:
        if key not in _KEYS:
            raise KeyError(key)
        return getattr(self, key)

    def __iter__(self) -> Iterator[str]:
        return iter(_KEYS)

    def __len__(self) -> int:
        return len(_KEYS)

    def __eq__(self, other: object) -> bool:
        return self is other

    __hash__ = object.__hash__

    @property
    def success_rate(self) -> float:
        """The share of successes among the episodes that have an outcome."""
        return figures.mean(map(figures.success_of, self._outcomes))

    @property
    def avg_reward(self) -> float:
        """The mean reward of these episodes."""
        return figures.mean(self.rewards)

    @property
    def avg_steps(self) -> float:
        """The mean number of steps of these episodes."""
        return figures.mean(len(record.episode.steps) for record in self._outcomes)

    @cached_property
    def results(self) -> list[JSONObject]:
        """A row for each episode, those without an outcome too.

        With ``task_index`` (or ``task``, where it has no index), ``split``,
        ``episode``, ``total_reward``, ``steps``, ``success``, ``stop_reason``,
        ``error``, ``error_kind`` and ``seconds``, and with ``usage`` where the policy
        says what it used.
        """
        return [record.result() for record in self.records]

    @property
    def episodes(self) -> list[Episode]:
        """The episodes themselves, in the order of ``results``."""
        return [record.episode for record in self.records]

    @property
    def rewards(self) -> list[float]:
        """The rewards of the episodes that have an outcome."""
        return [figures.reward_of(record) for record in self._outcomes]

    @property
    def outcomes(self) -> int:
        """The number of episodes that have an outcome."""
        return len(self._outcomes)

    @cached_property
    def success_interval(self) -> Interval:
        """Wilson's confidence interval of the success rate."""
        return rate_interval(*self._per_task(figures.success_of), self.confidence)

    @cached_property
    def reward_interval(self) -> Interval:
        """A confidence interval of the mean reward.

        Wilson's where every reward is 0 or 1, else a bootstrap interval, which stays
        within ``reward_range`` where that is known.
        """
        return self._reward_interval[0]

    @property
    def reward_basis(self) -> str:
        """How `reward_interval` was found, in words."""
        return self._reward_interval[1]

    @cached_property
    def _reward_interval(self) -> tuple[Interval, str]:
        known = self.reward_range
        return figures.reward_interval(self.records, known, self.confidence)

    @cached_property
    def warnings(self) -> list[str]:
        """What makes the figures doubtful, such as calls that are mostly refused."""
        return figures.find_warnings(self.records, self.reward_range)

    @cached_property
    def steps_interval(self) -> Interval:
        """A bootstrap confidence interval of the mean number of steps."""
        steps = self._per_task(lambda record: float(len(record.episode.steps)))
        return mean_interval(*steps, self.confidence, bounds=(0, math.inf))

    @cached_property
    def errors(self) -> dict[str, int]:
        """The number of episodes that an error ended, by the error's kind."""
        return figures.count_errors(self.records)

    @cached_property
    def usage(self) -> dict[str, float]:
        """What the episodes used together, such as tokens, where policies say it.

        It includes attempts and episodes that were played again, and ``cost`` where the
        run had ``prices``.
        """
        now = (record.used for record in self.records)
        return add_up([read_used_before(self.head), *now])

    @property
    def stop_reasons(self) -> dict[str, int]:
        """The number of episodes by the reason why they ended."""
        ends = Counter(record.episode.stop_reason for record in self.records)
        return dict(ends.most_common())

    @cached_property
    def latency(self) -> dict[str, dict[str, float]]:
        """Percentiles of seconds: ``p50``, ``p90`` and ``p99`` of each part.

        The parts are ``episode``, ``setup``, ``tool`` (one call) and ``policy`` (one
        turn).
        """
        return figures.latencies(self.records)

    @cached_property
    def by_split(self) -> list[JSONObject]:
        """A row of figures for each split."""
        return figures.by_split(self.records, self.confidence)

    @cached_property
    def by_tool(self) -> list[JSONObject]:
        """A row of figures for each tool that was called."""
        return figures.by_tool(self.records)

    def pass_at_k(self, k: int) -> float:
        """Estimate how likely one of k episodes of a task succeeds, without bias.

        Args:
            k: The number of episodes. Tasks with fewer outcomes are left out; NaN if
                all are.
        """
        return pass_at_k(*self._successes(), k)

    def pass_hat_k(self, k: int) -> float:
        """Estimate how likely all of k episodes of a task succeed, without bias.

        Args:
            k: The number of episodes. Tasks with fewer outcomes are left out; NaN if
                all are.
        """
        return pass_hat_k(*self._successes(), k)

    def compare(self, other: Evaluation) -> Comparison:
        """Compare with another evaluation, task by task.

        Args:
            other: The other evaluation, of the same environment.

        Returns:
            The differences with intervals, this evaluation minus the other.

        Raises:
            InvalidRequestError: If the other one is of another environment, whose tasks
                only have the same numbers.
        """
        if why := figures.tell_apart(self.head, other.head):
            raise InvalidRequestError(why)
        ranges = self.reward_range, other.reward_range
        return compare(self.records, other.records, self.confidence, ranges)

    def metrics(self, prefix: str = "eval/") -> dict[str, float]:
        """Return flat figures, for Weights & Biases, TensorBoard and the like.

        Args:
            prefix: The beginning of each name.

        Returns:
            Floats by name. Unknown figures are left out, and without the extra ``eval``
            so are the ends of the intervals.

        Example:
            >>> sorted(Evaluation([]).metrics("test/"))[:3]
            ['test/calls', 'test/episodes', 'test/errors']
        """
        calls = figures.count_calls([s for one in self.episodes for s in one.steps])
        flat: dict[str, float] = {
            "success_rate": self.success_rate,
            "avg_reward": self.avg_reward,
            "avg_steps": self.avg_steps,
            "episodes": len(self.records),
            "outcomes": self.outcomes,
            "errors": sum(self.errors.values()),
            "calls": calls["calls"],
            "invalid_calls": calls["invalid"],
            "failed_calls": calls["failed"],
            "null_rewards": calls["null_rewards"],
        }
        for what, find in (
            ("success", lambda: self.success_interval),
            ("reward", lambda: self.reward_interval),
            ("steps", lambda: self.steps_interval),
        ):
            interval = interval_if_possible(find)
            flat |= {f"{what}_low": interval.low, f"{what}_high": interval.high}
        if rewards := self.rewards:
            flat |= {"reward_min": min(rewards), "reward_max": max(rewards)}
            flat["reward_median"] = statistics.median(rewards)
        flat |= {f"errors/{kind}": count for kind, count in self.errors.items()}
        flat |= figures.tool_metrics(self.records)
        flat |= {f"usage/{name}": value for name, value in self.usage.items()}
        for what, values in self.latency.items():
            flat |= {f"{what}_seconds_{q}": value for q, value in values.items()}
        return {
            prefix + name: float(value)
            for name, value in flat.items()
            if not math.isnan(value)
        }

    def to_records(self) -> list[JSONObject]:
        """Return the rows of ``results``, each with the figures of ``Episode.metrics``.

        They are flat, for ``pandas.DataFrame(...)``.
        """
        return [
            {**record.episode.metrics(), **record.result()} for record in self.records
        ]

    def plot(self) -> Any:
        """Draw rewards, success rates with intervals, steps and latencies.

        Returns:
            A ``matplotlib.figure.Figure``, which a notebook shows.

        Raises:
            MissingExtraError: If the extra ``eval`` is not installed.
        """
        # Imported when asked for, as everything that presents a result.
        from ors_gym.evaluation._plots import draw  # noqa: PLC0415

        return draw(self)

    def __str__(self) -> str:
        from ors_gym.evaluation._report import as_text  # noqa: PLC0415

        return as_text(self)

    def __repr__(self) -> str:
        rate = f"success_rate={self.success_rate:.3f}"
        return f"<Evaluation of {len(self.records)} episodes, {rate}>"

    def _repr_html_(self) -> str:
        from ors_gym.evaluation._report import as_html  # noqa: PLC0415

        return as_html(self)

    def _per_task(self, value: figures.Value) -> tuple[list[float], list[int]]:
        sums = figures.by_task(self.records, value).values()
        return [total for total, _ in sums], [count for _, count in sums]

    def _successes(self) -> tuple[list[int], list[int]]:
        won, played = self._per_task(figures.success_of)
        return [int(count) for count in won], played
