"""The figures of episodes as plain numbers and rows, and those of two evaluations."""

from __future__ import annotations

import dataclasses
import html
import math
from collections import Counter, defaultdict
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from typing import Any, Final, NamedTuple, TypeAlias

import numpy as np

from ors_gym._shown_text import shorten
from ors_gym.errors import InvalidRequestError
from ors_gym.evaluation._statistics import (
    ANYTHING,
    Interval,
    interval_if_possible,
    mean_interval,
    rate_interval,
)
from ors_gym.registration import BUNDLED_REWARDS
from ors_gym.rollout import Step
from ors_gym.rollout._output import Record
from ors_gym.types import JSONObject

Value: TypeAlias = Callable[[Record], float]
Range: TypeAlias = tuple[float, float]
_PERCENTILES: Final = (50, 90, 99)
_NO_TOOL: Final = "(no tool call)"
_LEAST_WRONG_CALLS: Final = 3
"""Fewer refused or failed calls than this raise no warning."""
_LONGEST_WORDS: Final = 200
_DIGEST: Final = 12
"""Characters shown of the digest that names a task without an index."""
_MOST_VALUES: Final = 6
"""Rewards with more distinct values than this are told by their quartiles."""


def success_of(record: Record) -> float:
    return float(bool(record.success))


def reward_of(record: Record) -> float:
    """Return the reward of an episode that has an outcome."""
    return record.episode.total_reward or 0.0


def mean(values: Iterable[float]) -> float:
    listed = list(values)
    if not listed:
        return math.nan  # the mean of nothing
    try:
        return math.fsum(listed) / len(listed)
    except (OverflowError, ValueError):
        # The sum is too large for a float, or infinities are in it. The mean
        # itself may still fit into a float.
        return sum(value / len(listed) for value in listed)


def _percentiles(values: Sequence[float]) -> dict[str, float]:
    """Return the median, the 90th and the 99th percentile, NaN of nothing."""
    if not values:
        return {f"p{q}": math.nan for q in _PERCENTILES}
    found = np.percentile(values, _PERCENTILES)
    return {f"p{q}": float(value) for q, value in zip(_PERCENTILES, found, strict=True)}


def by_task(
    records: Iterable[Record], value: Value
) -> dict[tuple[str, int | str], tuple[float, int]]:
    """Return each task's sum of a value, and its number of episodes with an outcome."""
    values: dict[tuple[str, int | str], list[float]] = defaultdict(list)
    for record in records:
        if record.has_outcome:
            values[record.key[:2]].append(value(record))
    # Sorted: the order in which episodes ended must not change a sum's last digit.
    return {task: (sum(sorted(one)), len(one)) for task, one in values.items()}


def name_task(key: tuple[Any, ...]) -> str:
    """Return a task's index, or the beginning of its digest."""
    return str(key[1])[:_DIGEST]


class TaskFigures(NamedTuple):
    """What came of one task in one run.

    Args:
        episodes: Those that have an outcome.
        reward: Their mean reward.
        success: Their success rate.
    """

    episodes: int
    reward: float
    success: float


def compare_tasks(
    runs: Sequence[Iterable[Record]],
) -> dict[tuple[str, int | str], list[TaskFigures | None]]:
    """Return the figures of each task in each run, None where it has no outcome."""
    found: dict[tuple[str, int | str], list[TaskFigures | None]] = {}
    for place, records in enumerate(map(list, runs)):
        rewards, won = by_task(records, reward_of), by_task(records, success_of)
        for task, (total, count) in rewards.items():
            row = found.setdefault(task, [None] * len(runs))
            row[place] = TaskFigures(count, total / count, won[task][0] / count)
    return found


def by_split(records: Iterable[Record], confidence: float) -> list[JSONObject]:
    """Return a row of figures for each split."""
    groups: dict[str, list[Record]] = defaultdict(list)
    for record in records:
        groups[record.episode.split].append(record)
    return [_row_of_split(one, groups[one], confidence) for one in sorted(groups)]


def _row_of_split(
    split: str, records: Sequence[Record], confidence: float
) -> JSONObject:
    outcomes = [record for record in records if record.has_outcome]
    tasks = by_task(records, success_of).values()
    won, played = [k for k, _ in tasks], [n for _, n in tasks]
    interval = interval_if_possible(lambda: rate_interval(won, played, confidence))
    return {
        "split": split,
        "tasks": len({record.key[:2] for record in records}),
        "episodes": len(records),
        "outcomes": len(outcomes),
        "success_rate": mean(map(success_of, outcomes)),
        "success_low": interval.low,
        "success_high": interval.high,
        "avg_reward": mean(map(reward_of, outcomes)),
        "avg_steps": mean(len(record.episode.steps) for record in outcomes),
    }


def by_tool(records: Iterable[Record]) -> list[JSONObject]:
    """Return a row for each tool that was called, the most called first.

    ``invalid`` calls were refused or could not be read, ``failed`` ones raised in the
    tool, and ``null_rewards`` counts those that ran and were given no reward.
    """
    groups: dict[str, list[Step]] = defaultdict(list)
    for record in records:
        for step in record.episode.steps:
            groups[step.tool].append(step)
    rows = [
        {
            "tool": tool or _NO_TOOL,
            **count_calls(steps),
            "errors": sum(bool(step.error) for step in steps),
            "avg_reward": mean(step.reward for step in steps if step.is_paid),
            **_percentiles([step.seconds for step in steps]),
        }
        for tool, steps in groups.items()
    ]
    return sorted(rows, key=lambda row: -int(row["calls"]))


def count_calls(steps: Sequence[Step]) -> dict[str, int]:
    kinds = Counter(step.error_kind for step in steps)
    return {
        "calls": len(steps),
        "invalid": kinds["invalid_action"],
        "failed": kinds["tool_failed"],
        "null_rewards": sum(s.reward_is_null for s in steps if not s.error_kind),
    }


def find_warnings(records: Sequence[Record], known: Range | None) -> list[str]:
    """Say what makes figures doubtful: the set-up may be broken, not the policy."""
    calls = [step for one in records for step in one.episode.steps if step.tool]
    return [
        *_doubt_turns(records),
        *_doubt_calls(calls),
        *_doubt_rewards(_rewards(records), calls, known),
    ]


def _doubt_turns(records: Sequence[Record]) -> Iterator[str]:
    said_in = [one.episode.unreadable_text for one in records]
    unreadable = [said for said in said_in if said is not None]
    if unreadable:
        words = one_line(unreadable[0])
        yield (
            f"{len(unreadable)} of {len(records)} episodes ended without a readable "
            f'call; the first was "{words}". A call is '
            '{"tool": ..., "input": {...}}, or text with one'
        )
    if records and all(one.episode.gave_up_at_once for one in records):
        yield (
            f"the policy returned None in place of a first call in all {len(records)} "
            "episodes, which gives up. Does it return its call?"
        )
    ends = {(one.episode.stop_reason, len(one.episode.turns)) for one in records}
    if ends == {("max_tokens", 0)}:
        yield (
            f"the prompt left the model no room for a turn in all {len(records)} "
            "episodes. Is max_tokens the length of its context?"
        )


def _doubt_calls(calls: Sequence[Step]) -> Iterator[str]:
    """Doubt all calls together, else those of each tool that never went right."""
    if said := _describe_failures(calls, "calls"):
        yield said
        return
    by_name: dict[str, list[Step]] = defaultdict(list)
    for step in calls:
        by_name[step.tool].append(step)
    for tool, steps in by_name.items():
        said = _describe_failures(steps, f"calls of {tool}")
        if said and all(map(_went_wrong, steps)):
            yield said


def _doubt_rewards(
    rewards: Sequence[float], calls: Sequence[Step], known: Range | None
) -> Iterator[str]:
    ran = [step for step in calls if not step.error_kind]
    if ran and all(step.reward_is_null for step in ran):
        yield (
            f"no reward was ever given: it was null in all {len(ran)} replies, which "
            "counts as 0"
        )
    outside = [reward for reward in rewards if not _is_in(reward, known)]
    if known and outside:
        yield (
            f"a reward of {outside[0]:g} is outside reward_range, {known[0]:g} to "
            f"{known[1]:g}, which is therefore not used"
        )


def _went_wrong(step: Step) -> bool:
    return step.error_kind in ("invalid_action", "tool_failed")


def _describe_failures(steps: Sequence[Step], what: str) -> str:
    """Say so if most calls were refused or raised, with the words of the first."""
    wrong = [step for step in steps if _went_wrong(step)]
    if len(wrong) < _LEAST_WRONG_CALLS or 2 * len(wrong) <= len(steps):
        return ""
    refused = sum(step.error_kind == "invalid_action" for step in wrong)
    counts = [f"{refused} of {len(steps)} {what} were refused"] if refused else []
    if failed := len(wrong) - refused:
        who = "" if refused else f" of {len(steps)} {what}"
        counts.append(f"{failed}{who} failed in the tool")
    words = one_line(wrong[0].error)
    return f"{' and '.join(counts)}. The first, of {wrong[0].tool}: {words}"


def one_line(text: str, longest: int = _LONGEST_WORDS) -> str:
    """Put a text into one line, and cut it where it is longer."""
    return shorten(" ".join(text.split()), longest)


def tool_metrics(records: Sequence[Record]) -> dict[str, int]:
    """Return the counts of each tool, by ``tools/NAME/COUNT``.

    All names that a model made up count as ``unknown``: a logger charts each name.
    """
    listed = {tool["name"] for one in records for tool in one.episode.tools}
    groups: dict[str, list[Step]] = defaultdict(list)
    for record in records:
        for step in record.episode.steps:
            groups[_name_chart(step, listed)].append(step)
    return {
        f"tools/{tool}/{name}": count
        for tool, steps in groups.items()
        for name, count in count_calls(steps).items()
    }


def _name_chart(step: Step, listed: Container[str]) -> str:
    if not step.tool:
        return "none"
    is_made_up = step.error_kind == "invalid_action" and step.tool not in listed
    return "unknown" if is_made_up else step.tool


def check_confidence(confidence: float) -> None:
    """Raise `InvalidRequestError` unless this is a probability of an interval."""
    if not 0 < confidence < 1:
        raise InvalidRequestError(
            f"confidence is {confidence!r}; it must be between 0 and 1, such as 0.95"
        )


def name_interval(confidence: float) -> str:
    return f"{100 * confidence:.6g}% interval"


def check_range(known: Any) -> None:
    """Raise `InvalidRequestError` unless these are two bounds, or None."""
    match known:
        case None:
            return
        case [int() | float() as low, int() | float() as high] if low < high:
            return
    raise InvalidRequestError(
        f"reward_range is {known!r}; it must be two numbers, the lower one first"
    )


def write_range(known: Range) -> list[float | None]:
    """Return bounds as the head of a file has them, where JSON has no infinities."""
    return [bound if math.isfinite(bound) else None for bound in known]


def known_range(head: Mapping[str, Any]) -> Range | None:
    """Return the range of an episode's reward, as far as the head of a file tells it.

    That of a bundled environment is known, where the run adds no reward of its own and
    was not scored anew.
    """
    limits = head.get("limits")
    limits = limits if isinstance(limits, Mapping) else {}
    match limits.get("reward_range"):
        case [int() | float() | None as low, int() | float() | None as high]:
            return (
                -math.inf if low is None else float(low),
                math.inf if high is None else float(high),
            )
    adds = ("nonterminal_reward", "invalid_action_reward")
    if head.get("served") != "bundled" or any(limits.get(name) for name in adds):
        return None
    if head.get("scorer") or limits.get("reward_reduction") != "sum":
        return None
    return BUNDLED_REWARDS.get(str(head.get("environment")))


def _rewards(records: Iterable[Record]) -> list[float]:
    return [reward_of(record) for record in records if record.has_outcome]


def _is_in(reward: float, known: Range | None) -> bool:
    return known is None or known[0] <= reward <= known[1]


def reward_interval(
    records: Sequence[Record], known: Range | None, confidence: float
) -> tuple[Interval, str]:
    """Return the interval of the mean reward, and how it was found."""
    tasks = by_task(records, reward_of).values()
    sums, counts = [total for total, _ in tasks], [count for _, count in tasks]
    rewards = _rewards(records)
    if is_binary(rewards):
        return rate_interval(sums, counts, confidence), "Wilson, rewards 0 and 1"
    low, high = bounds = _range_of(rewards, known)
    if len(set(rewards)) == 1:
        basis = "every reward is the same"
    elif bounds == ANYTHING:
        basis = "bootstrap, no range of rewards known"
    else:
        within = f"within {low:g} and {high:g}"
        if not math.isfinite(low):
            within = f"at most {high:g}"
        elif not math.isfinite(high):
            within = f"at least {low:g}"
        basis = f"bootstrap, rewards {within}"
    return mean_interval(sums, counts, confidence, bounds), basis


def is_binary(rewards: Iterable[float]) -> bool:
    return set(rewards) <= {0.0, 1.0}


def describe_rewards(rewards: Sequence[float]) -> str:
    """Say how rewards are distributed: each value, or quartiles where there are many.

    Example:
        >>> describe_rewards([0.5, 0.5, 1.0]), describe_rewards([0.5] * 9)
        ('0.5 in 2, 1 in 1', '0.5 in all 9')
    """
    counts = Counter(f"{reward:.6g}" for reward in sorted(rewards))
    if len(counts) == 1:
        return f"{next(iter(counts))} in all {len(rewards)}"
    if len(counts) <= _MOST_VALUES:
        return ", ".join(f"{value} in {count}" for value, count in counts.items())
    low, *quartiles, high = np.quantile(
        rewards, (0, 0.25, 0.5, 0.75, 1), method="nearest"
    )
    told = ", ".join(f"{quartile:.4g}" for quartile in quartiles)
    return f"{low:.4g} to {high:.4g}, quartiles {told}"


def count_errors(records: Iterable[Record]) -> dict[str, int]:
    """Count the episodes that an error ended, by its kind, the most frequent first."""
    kinds = (
        record.episode.error_kind
        for record in records
        if record.episode.stop_reason == "error"
    )
    return dict(Counter(kinds).most_common())


def count_attempts(records: Iterable[Record]) -> dict[str, int]:
    """Count the attempts that outages ended and that were made again, by kind."""
    kinds = (one.kind for record in records for one in record.episode.attempts)
    return dict(Counter(kinds).most_common())


def errors_by_kind(records: Iterable[Record]) -> list[JSONObject]:
    """Return a row for each kind of error that ended episodes, with the first one."""
    rows: dict[str, JSONObject] = {}
    for record in records:
        episode = record.episode
        if episode.stop_reason == "error":
            first = f"task {name_task(record.key)}: {one_line(episode.error)}"
            begun = {"error": episode.error_kind, "episodes": 0, "the first": first}
            rows.setdefault(episode.error_kind, begun)["episodes"] += 1
    return sorted(rows.values(), key=lambda row: -int(row["episodes"]))


def latencies(records: Sequence[Record]) -> dict[str, dict[str, float]]:
    """Return percentiles of seconds: of an episode, a set-up, a call, a turn."""
    episodes = [record.episode for record in records]
    steps = [step for one in episodes for step in one.steps]
    turns = [turn for one in episodes for turn in one.turns]
    return {
        "episode": _percentiles([one.seconds for one in episodes]),
        "setup": _percentiles([one.setup_seconds for one in episodes]),
        "tool": _percentiles([step.seconds for step in steps]),
        "policy": _percentiles([turn.seconds for turn in turns]),
    }


@dataclasses.dataclass(frozen=True)
class Comparison:
    """By how much one evaluation is better than another, on the tasks of both.

    Args:
        tasks: The number of tasks that both have outcomes of.
        only_first: The number of tasks that only the first has outcomes of.
        only_second: The number of tasks that only the second has outcomes of.
        wins: The number of tasks on which the first succeeds more often.
        losses: The number of tasks on which the second succeeds more often.
        success_rate: The mean over tasks of the difference in success rate.
        success_interval: Its confidence interval, over tasks.
        avg_reward: The mean over tasks of the difference in mean reward.
        reward_interval: Its confidence interval, over tasks.

    Example:
        >>> from ors_gym import evaluate
        >>> from ors_gym.rollout import random_policy, reference_policy
        >>> rules = {"split": "test", "max_turns": 3, "progress": False}
        >>> best = evaluate(None, "math", range(4), reference_policy(), **rules)
        >>> comparison = best.compare(
        ...     evaluate(None, "math", range(4), random_policy(0), **rules)
        ... )
        >>> comparison.wins, comparison.losses
        (4, 0)
    """

    tasks: int
    only_first: int
    only_second: int
    wins: int
    losses: int
    success_rate: float
    success_interval: Interval
    avg_reward: float
    reward_interval: Interval

    def __str__(self) -> str:
        return "\n".join(f"{name:14}{value}" for name, value in self._lines())

    def _repr_html_(self) -> str:
        rows = "".join(
            f"<tr><th>{html.escape(name)}</th><td>{html.escape(value)}</td></tr>"
            for name, value in self._lines()
        )
        return f"<table>{rows}</table>"

    def _lines(self) -> list[tuple[str, str]]:
        alone = ""
        if self.only_first or self.only_second:
            alone = f" (not compared: {self.only_first} and {self.only_second})"
        ties = self.tasks - self.wins - self.losses
        return [
            ("tasks", f"{self.tasks} in both{alone}"),
            ("success rate", _describe(self.success_rate, self.success_interval)),
            ("reward", _describe(self.avg_reward, self.reward_interval)),
            ("by task", f"{self.wins} better, {self.losses} worse, {ties} equal"),
        ]


def _describe(difference: float, interval: Interval) -> str:
    is_known = not math.isnan(difference)
    return f"{difference:+.3f} {interval:+.3f}" if is_known else "unknown"


def tell_apart(first: Mapping[str, Any], second: Mapping[str, Any]) -> str:
    """Say why evaluations with these heads cannot be compared, if so.

    Tasks of different environments only have the same numbers.
    """
    names = [head.get("environment") for head in (first, second)]
    if None in names or len({str(name).casefold() for name in names}) == 1:
        return ""
    return (
        f"{names[0]} and {names[1]} are different environments: their tasks cannot be "
        "compared"
    )


def compare(
    first: Sequence[Record],
    second: Sequence[Record],
    confidence: float,
    ranges: tuple[Range | None, Range | None] = (None, None),
) -> Comparison:
    """Return the differences of two evaluations, the first minus the second."""
    rates, only_first, only_second = _differences(first, second, success_of)
    rewards, _, _ = _differences(first, second, reward_of)
    ones = [1] * len(rates)
    of_first, of_second = (
        _range_of(_rewards(records), known)
        for records, known in zip((first, second), ranges, strict=True)
    )
    bounds = of_first[0] - of_second[1], of_first[1] - of_second[0]
    return Comparison(
        tasks=len(rates),
        only_first=only_first,
        only_second=only_second,
        wins=sum(difference > 0 for difference in rates),
        losses=sum(difference < 0 for difference in rates),
        success_rate=mean(rates),
        success_interval=mean_interval(rates, ones, confidence, (-1, 1)),
        avg_reward=mean(rewards),
        reward_interval=mean_interval(rewards, ones, confidence, bounds),
    )


def _range_of(rewards: Sequence[float], known: Range | None) -> Range:
    """Return the bounds of an episode's reward, as far as they are known."""
    if is_binary(rewards):
        return 0.0, 1.0
    if known is None or not all(_is_in(reward, known) for reward in rewards):
        return ANYTHING
    return known


def _differences(
    first: Sequence[Record], second: Sequence[Record], value: Value
) -> tuple[list[float], int, int]:
    """Return the differences of the tasks' means, and the tasks without a partner."""
    in_first, in_second = by_task(first, value), by_task(second, value)
    common = [task for task in in_first if task in in_second]
    differences = [
        in_first[task][0] / in_first[task][1] - in_second[task][0] / in_second[task][1]
        for task in common
    ]
    return differences, len(in_first) - len(common), len(in_second) - len(common)
