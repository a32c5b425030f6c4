"""The questions of ``math`` and ``sql``: their sentences, and how to answer each.

An environment fills a sentence with values. A reference player sees only the sentence,
and reads the values back. So this module does without the SDK.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from random import Random
from string import Formatter
from typing import Final

_VALUE: Final = r"[^\s.,;:?][^.,;:?]*?"


class Template:
    """A sentence with gaps as in `str.format`; each has a name and occurs once.

    Example:
        >>> template = Template("{name} has {count} apples.")
        >>> template.fill(name="Ada", count=3)
        'Ada has 3 apples.'
        >>> template.read("Question: Ada has 3 apples.")
        {'name': 'Ada', 'count': '3'}
    """

    def __init__(self, text: str) -> None:
        self.text = text

    def fill(self, **values: object) -> str:
        return self.text.format(**values)

    def read(self, text: str) -> dict[str, str] | None:
        """Give what stands in each gap, or None if the text lacks the sentence."""
        found = self._pattern.search(text)
        return found.groupdict() if found else None

    @cached_property
    def _pattern(self) -> re.Pattern[str]:
        parts = [
            re.escape(literal) + (f"(?P<{gap}>{_VALUE})" if gap else "")
            for literal, gap, _, _ in Formatter().parse(self.text)
        ]
        return re.compile("".join(parts))


_NAMES: Final = ("Ada", "Ben", "Chen", "Dana", "Emil", "Fatou", "Goran", "Hana")
_THINGS: Final = ("apples", "books", "coins", "marbles", "pencils", "stamps")


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
        name, thing = generator.choice(_NAMES), generator.choice(_THINGS)
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


def solve_problem(text: str) -> int | None:
    """Answer the problem in a text, or return None if it holds none of `PROBLEMS`."""
    for problem in PROBLEMS:
        values = problem.template.read(text)
        if values:
            return problem.answer(*(int(values[gap]) for gap in "abc"))
    return None


@dataclass(frozen=True)
class Question:
    """A kind of question with one answer."""

    # Its gaps are among city, month and category.
    template: Template
    # A query for the one value that is the answer, with the same gaps.
    sql: str


# The first sentence of a task that asks to fix data.
REPAIR: Final = Template(
    "Some customers have the city {wrong}; write {right} there instead, and change "
    "nothing else."
)
# A statement that does what `REPAIR` asks.
REPAIR_SQL: Final = "UPDATE customers SET city = '{right}' WHERE city = '{wrong}'"

QUESTIONS: Final = (
    Question(
        Template("How many orders did customers from {city} place in {month}?"),
        "SELECT count(*) FROM orders JOIN customers ON customers.id = customer_id "
        "WHERE city = '{city}' AND substr(ordered_on, 1, 7) = '{month}'",
    ),
    Question(
        Template("What did the delivered orders of {month} come to, in cents?"),
        "SELECT coalesce(sum(quantity * price_cents), 0) FROM orders "
        "JOIN order_items ON order_id = orders.id "
        "JOIN products ON products.id = product_id "
        "WHERE status = 'delivered' AND substr(ordered_on, 1, 7) = '{month}'",
    ),
    Question(
        Template(
            "Which product of the category {category} sold the most pieces, the first "
            "by name if several did?"
        ),
        "SELECT name FROM products JOIN order_items ON product_id = products.id "
        "WHERE category = '{category}' GROUP BY products.id "
        "ORDER BY sum(quantity) DESC, name LIMIT 1",
    ),
    Question(
        Template("How many customers from {city} have never ordered?"),
        "SELECT count(*) FROM customers WHERE city = '{city}' "
        "AND id NOT IN (SELECT customer_id FROM orders)",
    ),
    Question(
        Template(
            "Which customer cancelled the most orders in {month}, the first by name if "
            "several did?"
        ),
        "SELECT name FROM customers JOIN orders ON customer_id = customers.id "
        "WHERE status = 'cancelled' AND substr(ordered_on, 1, 7) = '{month}' "
        "GROUP BY customers.id ORDER BY count(*) DESC, name LIMIT 1",
    ),
    Question(
        Template("How many pieces were sold to customers from {city} in all?"),
        "SELECT coalesce(sum(quantity), 0) FROM order_items "
        "JOIN orders ON orders.id = order_id "
        "JOIN customers ON customers.id = customer_id WHERE city = '{city}'",
    ),
)


def find_questions(text: str) -> list[str]:
    """Give the SQL for each question of a prompt, in order."""
    found = []
    for line in text.splitlines():
        for question in QUESTIONS:
            values = question.template.read(line)
            if values is not None:
                found.append(question.sql.format(**values))
    return found
