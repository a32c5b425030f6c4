"""A row of the table of budgets: a promise, what was measured, whether it is met."""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Sequence
from typing import Any

__all__ = ["Row", "quartiles"]


@dataclasses.dataclass(frozen=True, slots=True)
class Row:
    """A promise and what was measured.

    Args:
        what: The promise.
        value: The figure.
        limit: What it may be.
        at_least: Whether it has to be at least the limit, rather than at most.
        unit: What follows the figure.
        spread: The first and the third quartile, where many ratios were taken.

    Example:
        >>> row = Row("CPU of a call to a raw socket", 1.81, 2)
        >>> row.figure, row.budget, row.met
        ('1.81 x', '<= 2', True)
    """

    what: str
    value: float
    limit: float
    at_least: bool = False
    unit: str = "x"
    spread: tuple[float, float] | None = None

    @property
    def met(self) -> bool:
        """Whether the promise is kept."""
        return (self.value >= self.limit) if self.at_least else self.value <= self.limit

    @property
    def figure(self) -> str:
        """The figure with its unit and its spread."""
        text = f"{self.value:.2f} {self.unit}"
        if self.spread is not None:
            low, high = self.spread
            text += f" ({low:.2f} to {high:.2f})"
        return text

    @property
    def budget(self) -> str:
        """The limit with its sign."""
        return f"{'>=' if self.at_least else '<='} {self.limit:g}"

    def as_json(self) -> dict[str, Any]:
        """Return the row for a file."""
        return {**dataclasses.asdict(self), "met": self.met}


def quartiles(values: Sequence[float]) -> tuple[float, float]:
    """Return the first and the third quartile.

    Args:
        values: At least two figures.

    Example:
        >>> quartiles([1, 2, 3, 4, 5])
        (1.5, 4.5)
    """
    low, _, high = statistics.quantiles(values, n=4)
    return low, high
