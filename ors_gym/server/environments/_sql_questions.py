"""The questions of ``sql``, and the SQL that answers each."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from ors_gym.server.environments._templates import Template


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
    """Give the SQL for each question of a prompt, in order.

    Example:
        >>> [sql] = find_questions("How many customers from Oslo have never ordered?")
        >>> sql.startswith("SELECT count(*) FROM customers WHERE city = 'Oslo'")
        True
    """
    found = []
    for line in text.splitlines():
        for question in QUESTIONS:
            values = question.template.read(line)
            if values is not None:
                found.append(question.sql.format(**values))
    return found
