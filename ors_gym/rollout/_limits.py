"""The limits of a run: what it may use, what it has used, and whether it goes on."""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable, Mapping
from typing import Any, Final, Literal, TypeAlias, TypedDict

from ors_gym.errors import InvalidRequestError
from ors_gym.rollout._episode import Episode, Turn
from ors_gym.rollout._usage import (
    Prices,
    Usage,
    count_tokens,
    find_cost,
    read_usage,
    usage_of_turn,
)

PricesOption: TypeAlias = Mapping[str, Mapping[str, float]] | Literal["genai-prices"]
"""``{model: {"input": ..., "output": ..., "cached_input": ...}}`` per million tokens,
the last one optional, with ``*`` for any other model; or the library of that name."""

RUN_LIMIT: Final = "run_limit"
"""The kind of error of an episode that a limit of the run ended."""


class LimitOptions(TypedDict, total=False):
    """The limits of a run, as keyword arguments."""

    max_cost: float | None
    """What the run may cost, in the unit of ``prices``, or as the policy reports it."""
    max_tokens: int | None
    """How many tokens its models may read and write, over all episodes."""
    max_seconds: float | None
    """Seconds that this call may take."""
    max_outages: int | None
    """How many attempts at an episode may end without an outcome in this call."""
    prices: PricesOption | None
    """What tokens cost, by model; if None, the cost is what the policy reports."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class RunLimits:
    """The limits of a run, checked; see `LimitOptions`."""

    max_cost: float | None = None
    max_tokens: int | None = None
    max_seconds: float | None = None
    max_outages: int | None = None
    prices: PricesOption | None = None

    def __post_init__(self) -> None:
        for name in ("max_cost", "max_tokens", "max_seconds", "max_outages"):
            value = getattr(self, name)
            is_number = isinstance(value, int | float) and not isinstance(value, bool)
            if value is not None and not (is_number and value > 0):
                raise InvalidRequestError(f"{name} must be a number above 0")
        if self.prices is not None:
            Prices(self.prices)


def take_limits(arguments: dict[str, Any]) -> RunLimits:
    """Take the limits out of keyword arguments that hold other arguments too."""
    names = LimitOptions.__annotations__.keys() & arguments.keys()
    return RunLimits(**{name: arguments.pop(name) for name in names})


class Budget:
    """What a run has used of its limits, and why it goes on no longer.

    No episode and no turn begins once ``stopped`` is set. So a run exceeds a limit only
    by what was in flight: for each episode one turn, or the whole episode if its policy
    reports its use only at the end.

    Args:
        limits: The limits.
        used: What earlier calls used that this one goes on from.
        clock: Gives seconds.
    """

    def __init__(
        self,
        limits: RunLimits | None = None,
        used: Mapping[str, float] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.limits = limits or RunLimits()
        self._prices: Prices | None = None
        if self.limits.prices is not None:
            self._prices = Prices(self.limits.prices)
        self._clock, self._began = clock, clock()
        self.cost: float = find_cost(used or {}) or 0.0
        self.tokens = count_tokens(used or {})
        self.outages = 0
        self.stopped = ""
        """Why it goes on no longer; it names the limit and the numbers."""
        self._limit = ""
        self._is_measured = bool(used)
        self._unpriced: set[str] = set()
        self._callbacks: list[Callable[[], None]] = []
        self._look()

    @property
    def seconds_left(self) -> float | None:
        """The seconds until `max_seconds`; None without it."""
        most = self.limits.max_seconds
        return None if most is None else max(0.0, self._began + most - self._clock())

    @property
    def ends_what_is_in_flight(self) -> bool:
        """Whether what is under way is cut short, since waiting for it is no use."""
        return self._limit in ("max_seconds", "max_outages")

    def on_stop(self, callback: Callable[[], None]) -> None:
        """Have a function called when it stops; at once if it has."""
        self._callbacks.append(callback)
        if self.stopped:
            callback()

    def begin(self) -> Spending:
        """Begin an attempt at an episode."""
        return Spending(self)

    def look_at_clock(self) -> None:
        if self.seconds_left == 0:
            self._stop("max_seconds", f"{self.limits.max_seconds:g} s are over")

    def _stop(self, limit: str, why: str) -> None:
        """Stop the run.

        If this same limit stopped it already, only update the numbers in the message.
        """
        if self._limit and self._limit != limit:
            return
        is_news = not self.stopped
        self._limit, self.stopped = limit, f"{limit}: {why}"
        if is_news:
            for callback in self._callbacks:
                callback()

    def price(self, used: Usage, model: str) -> float | None:
        """Return a cost by the prices, else as it was reported; None if unknown."""
        cost = None if self._prices is None else self._prices.find_cost(used, model)
        cost = find_cost(used) if cost is None else cost
        if cost is None and count_tokens(used):
            self._unpriced.add(model)
        return cost

    def add(self, cost: float, tokens: int) -> None:
        self.cost += cost
        self.tokens += tokens
        self._look()

    def lose(self, used: Usage) -> None:
        """Count an attempt that came to no outcome in a process of its own."""
        self.outages += 1
        self.add(find_cost(used) or 0.0, count_tokens(used))

    def end(self, episode: Episode, used: Usage) -> None:
        """Count an attempt that ended: outages, and whether its use is known."""
        if episode.total_reward is None:
            self.outages += episode.error_kind != RUN_LIMIT
        elif episode.turns and episode.stop_reason != "deadline" and not used:
            self._note_unmeasured()
        self._is_measured = self._is_measured or bool(used)
        self._look()

    def _note_unmeasured(self) -> None:
        """Stop where a limit cannot be watched: nobody says what is used."""
        limits = self.limits
        if self._is_measured or limits.max_cost is limits.max_tokens is None:
            return
        name = "max_tokens" if limits.max_cost is None else "max_cost"
        self._stop(
            name,
            "it cannot be watched, as the policy does not say what it uses. Return a "
            'Turn with extra={"usage": {"input_tokens": ..., "output_tokens": ...}}',
        )

    def _look(self) -> None:
        limits = self.limits
        if limits.max_cost is not None:
            if self._unpriced:
                named = ", ".join(repr(one) for one in sorted(self._unpriced))
                self._stop(
                    "max_cost",
                    "it cannot be watched, as the policy reports tokens and no cost, "
                    f"and prices= does not tell what the model {named} costs",
                )
            elif self.cost >= limits.max_cost:
                self._stop("max_cost", f"{self.cost:.6g} of {limits.max_cost:g} used")
        if limits.max_tokens is not None and self.tokens >= limits.max_tokens:
            used = f"{self.tokens:,} of {limits.max_tokens:,} used"
            self._stop("max_tokens", used)
        if limits.max_outages is not None and self.outages >= limits.max_outages:
            self._stop(
                "max_outages",
                f"{self.outages} attempts ended without an outcome, of "
                f"{limits.max_outages} allowed",
            )
        self.look_at_clock()


class Spending:
    """What one attempt at an episode has used so far."""

    def __init__(self, budget: Budget) -> None:
        self._budget = budget
        self._cost = 0.0
        self._tokens = 0

    @property
    def stopped(self) -> str:
        """Why the run goes on no longer; empty while it does."""
        return self._budget.stopped

    def add_turn(self, answer: Any) -> None:
        """Count a turn as soon as the policy returned it."""
        if isinstance(answer, Turn):
            used = usage_of_turn(answer.extra, answer.tokens)
            cost = self._budget.price(used, _model_of(answer.extra)) or 0.0
            tokens = count_tokens(used)
            self._cost += cost
            self._tokens += tokens
            self._budget.add(cost, tokens)

    def end(self, episode: Episode) -> None:
        """Count what was told at the end only, and note what the episode cost."""
        used, cost = self._measure(episode)
        if self._budget.limits.prices is not None:
            episode.cost = cost
        tokens = count_tokens(used)
        self._budget.add(
            max(0.0, (cost or 0.0) - self._cost), max(0, tokens - self._tokens)
        )
        self._budget.end(episode, used)

    def _measure(self, episode: Episode) -> tuple[Usage, float | None]:
        extra = episode.extra
        if isinstance(extra, Mapping) and (used := read_usage(extra.get("usage"))):
            return used, self._budget.price(used, _model_of(extra))
        if not (told := episode.usage):
            return told, None
        costs = [
            self._budget.price(used, _model_of(turn.extra))
            for turn in episode.turns
            if (used := usage_of_turn(turn.extra, turn.tokens))
        ]
        known = [cost for cost in costs if cost is not None]
        return told, math.fsum(known) if known else None


def _model_of(extra: Any) -> str:
    model = extra.get("model") if isinstance(extra, Mapping) else None
    return model if isinstance(model, str) else ""
