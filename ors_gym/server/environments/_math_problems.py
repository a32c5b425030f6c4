"""Arithmetic word problems: the sentences of each kind, and its answer."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from typing import Final

from ors_gym.server.environments._templates import Template

NAMES: Final = ("Ada", "Ben", "Chen", "Dana", "Emil", "Fatou", "Goran", "Hana")
THINGS: Final = ("apples", "books", "coins", "marbles", "pencils", "stamps")


@dataclass(frozen=True)
class Problem:
    """A kind of word problem with three numbers."""

    # Its gaps are name, thing, a, b and c.
    template: Template
    # Computes the answer from a, b and c; never negative.
    answer: Callable[[int, int, int], int]

    def question(self, generator: Random, numbers: tuple[int, int, int]) -> str:
        """Write a problem of this kind, with a random name and thing."""
        a, b, c = numbers
        name, thing = generator.choice(NAMES), generator.choice(THINGS)
        return self.template.fill(name=name, thing=thing, a=a, b=b, c=c)


PROBLEMS: Final = (
    Problem(
        Template(
            "{name} has {a} {thing}, buys {b} more and finds another {c}. "
            "How many are there now?"
        ),
        lambda a, b, c: a + b + c,
    ),
    Problem(
        Template(
            "{name} packs {a} boxes of {b} {thing} each and has {c} left over. "
            "How many were there to begin with?"
        ),
        lambda a, b, c: a * b + c,
    ),
    Problem(
        Template(
            "On each of {a} days {name} collects {b} {thing}, and on the last day "
            "{c} more. How many are collected in all?"
        ),
        lambda a, b, c: a * b + c,
    ),
    Problem(
        Template(
            "{name} shares {thing} with friends: {a} people get {b} each, then "
            "everybody gets {c} more. How many are given away?"
        ),
        lambda a, b, c: a * (b + c),
    ),
)


def solve(text: str) -> int | None:
    """Answer the problem in a text, or return None if it holds none of `PROBLEMS`.

    Example:
        >>> solve("Ada has 2 coins, buys 3 more and finds another 4. How many are "
        ...       "there now?")
        9
    """
    for problem in PROBLEMS:
        values = problem.template.read(text)
        if values:
            return problem.answer(*(int(values[gap]) for gap in "abc"))
    return None
