"""The database of a task of ``sql``: a shop, and what a player may do to it."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from random import Random
from typing import Any, Final

from ors_gym.server.environments import PlayerMistakeError

Rows = dict[str, list[tuple[int | str, ...]]]

CITIES: Final = ("Lisbon", "Oslo", "Prague", "Quito", "Riga", "Seoul")
CATEGORIES: Final = ("books", "garden", "kitchen", "music", "toys")
MONTHS: Final = tuple(f"2024-{month:02}" for month in range(1, 7))

SCHEMA: Final = """\
CREATE TABLE customers (id INTEGER PRIMARY KEY, name TEXT, city TEXT, joined TEXT);
CREATE TABLE products (id INTEGER PRIMARY KEY, name TEXT, category TEXT,
    price_cents INTEGER);
CREATE TABLE orders (id INTEGER PRIMARY KEY,
    customer_id INTEGER REFERENCES customers, ordered_on TEXT, status TEXT);
CREATE TABLE order_items (order_id INTEGER REFERENCES orders,
    product_id INTEGER REFERENCES products, quantity INTEGER);
"""

_FIRST: Final = ("Ana", "Bo", "Carla", "Dag", "Eva", "Finn", "Gita", "Hugo")
_LAST: Final = ("Aalto", "Berg", "Costa", "Diaz", "Endo", "Fox")
_ADJECTIVES: Final = ("Blue", "Folding", "Large", "Little", "Old", "Silver")
_NOUNS: Final = ("Bell", "Bowl", "Lamp", "Rake", "Stool", "Tin")
_STATUSES: Final = ("delivered", "delivered", "delivered", "cancelled", "open")


def make_rows(generator: Random) -> Rows:
    """Make the rows of each table of a shop.

    There are 48 customers, 36 products, 300 orders and about 750 order items. Some
    customers never order.
    """
    names = [f"{first} {last}" for first in _FIRST for last in _LAST]
    goods = [f"{adjective} {noun}" for adjective in _ADJECTIVES for noun in _NOUNS]
    generator.shuffle(names)
    generator.shuffle(goods)
    buyers = generator.sample(range(1, len(names) + 1), 36)
    orders: list[tuple[int | str, ...]] = []
    items: list[tuple[int | str, ...]] = []
    for number in range(1, 301):
        day = f"{generator.choice(MONTHS)}-{generator.randint(1, 28):02}"
        buyer, status = generator.choice(buyers), generator.choice(_STATUSES)
        orders.append((number, buyer, day, status))
        for product in generator.sample(range(1, 37), generator.randint(1, 4)):
            items.append((number, product, generator.randint(1, 9)))  # noqa: PERF401
    return {
        "customers": [
            (number, name, generator.choice(CITIES), f"2023-{number % 12 + 1:02}-01")
            for number, name in enumerate(names, 1)
        ],
        "products": [
            (number, name, generator.choice(CATEGORIES), generator.randint(99, 9999))
            for number, name in enumerate(goods, 1)
        ],
        "orders": orders,
        "order_items": items,
    }


# What of a result a player is shown.
MOST_ROWS: Final = 200
_LONGEST_CELL: Final = 200
# The time of a query is limited to some tens of milliseconds. It is counted in SQLite's
# instructions, so that the same query has the same result on any machine.
_INSTRUCTIONS_PER_CHECK: Final = 10_000
_MOST_CHECKS: Final = 200
_LIMITS: Final = {
    sqlite3.SQLITE_LIMIT_LENGTH: 20_000,
    sqlite3.SQLITE_LIMIT_SQL_LENGTH: 10_000,
    sqlite3.SQLITE_LIMIT_COLUMN: 50,
    sqlite3.SQLITE_LIMIT_EXPR_DEPTH: 100,
    sqlite3.SQLITE_LIMIT_ATTACHED: 0,
}
# Functions whose cost SQLite's limits bound. `printf` and `format` are not among them:
# with `%.*c` one call writes gigabytes before its result is refused.
_FUNCTIONS: Final = frozenset(
    """
    abs avg ceil ceiling changes char coalesce concat concat_ws count cume_dist date
    datetime dense_rank exp first_value floor glob group_concat hex ifnull iif instr
    julianday lag last_value lead length like ln log log10 log2 lower ltrim max min mod
    nth_value ntile nullif octet_length percent_rank pow power quote rank replace round
    row_number rtrim sign sqrt strftime string_agg substr substring sum time timediff
    total trim trunc typeof unicode unixepoch upper zeroblob
    """.split()  # noqa: SIM905 - a list takes a line a name
)
_READING: Final = frozenset(
    {
        sqlite3.SQLITE_SELECT,
        sqlite3.SQLITE_READ,
        sqlite3.SQLITE_FUNCTION,
        sqlite3.SQLITE_RECURSIVE,
    }
)


class ShopDatabase:
    """A shop in memory."""

    def __init__(self, rows: Rows) -> None:
        # Statements of players run in threads, one at a time.
        self._connection = sqlite3.connect(
            ":memory:", isolation_level=None, check_same_thread=False
        )
        self._guard = threading.Lock()
        self._connection.text_factory = lambda text: text.decode("utf-8", "replace")
        self._connection.executescript(SCHEMA)
        for table, values in rows.items():
            gaps = ", ".join("?" * len(values[0]))
            statement = f"INSERT INTO {table} VALUES ({gaps})"  # noqa: S608 - our names
            self._connection.executemany(statement, values)
        for limit, value in _LIMITS.items():
            self._connection.setlimit(limit, value)

    def close(self) -> None:
        with self._guard:
            self._connection.close()

    def value(self, sql: str) -> str:
        """Give the first value of our own query as text, or "none" without rows."""
        row = self._connection.execute(sql).fetchone()
        return "none" if row is None else str(row[0])

    def snapshot(self, table: str) -> list[tuple[Any, ...]]:
        """Give the rows of a table, in order."""
        query = f"SELECT * FROM {table} ORDER BY rowid"  # noqa: S608 - our names
        return self._connection.execute(query).fetchall()

    def change(self, sql: str, *values: int | str) -> None:
        self._connection.execute(sql, values)

    def describe(self) -> str:
        """Give the statement that made each table, and its number of rows."""
        tables = self._connection.execute("SELECT name, sql FROM sqlite_master")
        return "\n".join(
            f"{sql};  -- {self.value(f'SELECT count(*) FROM {name}')} rows"  # noqa: S608
            for name, sql in tables.fetchall()
        )

    def query(self, sql: str) -> str:
        """Run a player's statement, which may only read, and give its result."""
        with self._guarded(_READING):
            cursor = self._connection.execute(sql)
            rows = cursor.fetchmany(MOST_ROWS + 1)
        return _table([column[0] for column in cursor.description or ()], rows)

    def update(self, sql: str) -> int:
        """Run a player's UPDATE statement, and count the rows that it changed."""
        with self._guarded(_READING | {sqlite3.SQLITE_UPDATE}):
            cursor = self._connection.execute(sql)
            cursor.fetchall()
        if cursor.rowcount < 0:
            raise PlayerMistakeError("This is no UPDATE statement.")
        return cursor.rowcount

    @contextmanager
    def _guarded(self, allowed: frozenset[int]) -> Iterator[None]:
        """Raise `PlayerMistakeError` for a wrong, forbidden or slow statement."""

        def authorize(action: int, _: str | None, name: str | None, *__: object) -> int:
            is_function = action == sqlite3.SQLITE_FUNCTION
            if action not in allowed or (is_function and name not in _FUNCTIONS):
                return sqlite3.SQLITE_DENY
            return sqlite3.SQLITE_OK

        checks = iter(range(_MOST_CHECKS))
        with self._guard:
            self._connection.set_authorizer(authorize)
            self._connection.set_progress_handler(
                lambda: next(checks, None) is None, _INSTRUCTIONS_PER_CHECK
            )
            try:
                yield
            except (sqlite3.Error, sqlite3.Warning, ValueError, OverflowError) as error:
                raise PlayerMistakeError(_explain(error)) from error
            finally:
                self._connection.set_progress_handler(None, 0)
                self._connection.set_authorizer(None)


def _explain(error: Exception) -> str:
    message = str(error)
    if "interrupted" in message:
        return "SQL error: the statement takes too long."
    if "not authorized" in message or "prohibited" in message:
        return f"SQL error: {message}; this tool does not allow such a statement."
    return f"SQL error: {message}"


def _table(names: list[str], rows: list[tuple[Any, ...]]) -> str:
    if not names:
        return "No result."
    shown = rows[:MOST_ROWS]
    lines = [" | ".join(_cell(value) for value in row) for row in (names, *shown)]
    if len(rows) > MOST_ROWS:
        lines.append(f"(only the first {MOST_ROWS} rows are shown)")
    else:
        lines.append(f"({len(rows)} {'row' if len(rows) == 1 else 'rows'})")
    return "\n".join(lines)


def _cell(value: object) -> str:
    if value is None:
        return "NULL"
    text = f"x'{value.hex()}'" if isinstance(value, bytes) else str(value)
    if len(text) <= _LONGEST_CELL:
        return text
    return f"{text[:_LONGEST_CELL]}... ({len(text)} characters)"
