"""The guarded database of sql, and the credit for fixing it."""

import asyncio
from collections.abc import Iterator
from contextlib import closing, contextmanager
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ors_gym.server import PlayerMistakeError
from ors_gym.server.environments._sql_database import CITIES, ShopDatabase, make_rows
from ors_gym.server.environments.sql import Answers, Sql, Statement

pytestmark = pytest.mark.unit

TABLES = ("customers", "products", "orders", "order_items")
FRAGMENTS = [
    "SELECT", "*", "FROM", "customers", "orders", "WHERE", "UPDATE", "SET", "city",
    "=", "'x'", "DELETE", "DROP", "TABLE", "ATTACH", "PRAGMA", "WITH", "AS", "(", ")",
    ",", ";", "1", "VACUUM", "INTO", "CREATE", "INSERT", "VALUES", "RETURNING",
    "EXPLAIN", "BEGIN", "COMMIT", "writable_schema", "--", "'", "\0", "\ud800",
]  # fmt: skip


@contextmanager
def open_sql(repair: str | None = "Oslo") -> Iterator[Sql]:
    question = {"city": "Oslo", "month": "2024-03", "category": "toys"}
    questions = [{"kind": kind, **question} for kind in (0, 2, 5)]
    sql = Sql({"data_seed": 4, "questions": questions, "repair": repair})
    sql.setup()
    try:
        yield sql
    finally:
        sql.teardown()


def credit_for_fixing(*updates: str) -> float:
    with open_sql() as sql:
        for update in updates:
            asyncio.run(sql.update(Statement(sql=update)))
        return float(sql.submit(Answers(answer="")).reward)


def open_shop() -> closing[ShopDatabase]:
    return closing(ShopDatabase(make_rows(Random(1))))


@given(sql=st.one_of(st.text(), st.lists(st.sampled_from(FRAGMENTS)).map(" ".join)))
@settings(max_examples=150, deadline=None)
def test_no_query_changes_anything_or_fails_otherwise(sql: str):
    with open_shop() as database:
        before = [database.snapshot(table) for table in TABLES]
        try:
            assert isinstance(database.query(sql), str)
        except PlayerMistakeError as error:
            assert str(error).startswith("SQL error")
        assert [database.snapshot(table) for table in TABLES] == before


@given(sql=st.lists(st.sampled_from(FRAGMENTS)).map(" ".join))
@settings(max_examples=80, deadline=None)
def test_no_update_does_anything_but_update(sql: str):
    with open_shop() as database:
        sizes = [len(database.snapshot(table)) for table in TABLES]
        try:
            assert database.update(sql) >= 0
        except PlayerMistakeError as error:
            assert str(error)
        assert [len(database.snapshot(table)) for table in TABLES] == sizes


@pytest.mark.parametrize(
    "expression",
    [
        "printf('%.*c', 900000000, 'x')",
        "format('%.*c', 900000000, 'x')",
        "fts3_tokenizer('simple')",
        "load_extension('x')",
        "randomblob(9)",
    ],
)
def test_a_function_that_is_not_known_to_be_cheap_is_refused(expression: str):
    with open_shop() as database, pytest.raises(PlayerMistakeError, match="function"):
        database.query(f"SELECT {expression}")


def test_functions_that_players_use_are_there():
    used = "round(avg(price_cents) / 100.0, 2), group_concat(name), upper(min(name))"
    window = "SELECT row_number() OVER (ORDER BY id), lag(name) OVER (ORDER BY id)"
    with open_shop() as database:
        assert "(1 row)" in database.query(f"SELECT {used} FROM products")
        assert "(36 rows)" in database.query(f"{window} FROM products")
        assert "2024" in database.query("SELECT strftime('%Y', '2024-03-01')")


def test_the_shop_is_made_by_its_seed():
    assert make_rows(Random(3)) == make_rows(Random(3))
    assert make_rows(Random(3)) != make_rows(Random(4))


FIX = "UPDATE customers SET city = 'Oslo' WHERE city = 'OSLO'"


def test_fixing_is_one_part_of_four_and_fixing_some_is_the_share_of_the_rows():
    assert credit_for_fixing(FIX) == 0.25
    with open_sql() as sql:
        spoilt = sql._database.query("SELECT id FROM customers WHERE city = 'OSLO'")
    ids = spoilt.splitlines()[1:-1]
    assert len(ids) > 1
    one = f"UPDATE customers SET city = 'Oslo' WHERE id = {ids[0]}"
    assert credit_for_fixing(one) == pytest.approx(1 / len(ids) / 4)


@pytest.mark.parametrize(
    "damage",
    [
        "UPDATE customers SET city = 'Oslo'",
        "UPDATE products SET price_cents = 1",
        "UPDATE customers SET id = id + 100",
    ],
)
def test_changing_anything_else_pays_nothing_for_the_fix(damage: str):
    assert credit_for_fixing(FIX, damage) == 0.0


def test_an_update_says_how_many_rows_it_changed_and_a_query_is_none():
    with open_sql() as sql:
        update = Statement(sql="UPDATE customers SET city = city WHERE id < 4")
        changed = asyncio.run(sql.update(update))
        assert changed.blocks[0].text == "3 rows changed."
        with pytest.raises(PlayerMistakeError, match="no UPDATE"):
            asyncio.run(sql.update(Statement(sql="SELECT 1")))


def test_the_answers_are_those_of_the_clean_data():
    with open_sql(None) as clean, open_sql("Oslo") as spoilt:
        assert clean._answers == spoilt._answers
        customers = "SELECT * FROM customers"
        assert clean._database.query(customers) != spoilt._database.query(customers)


def test_the_tool_of_a_task_is_described_like_the_others():
    with open_sql("Oslo") as sql:
        [tool] = sql.list_task_tools().tools
    assert tool.name == "update"
    assert "UPDATE" in tool.description
    with open_sql(None) as sql:
        assert sql.list_task_tools().tools == []


def test_a_city_without_customers_is_fixed_from_the_start():
    assert "Atlantis" not in CITIES
    with open_sql("Atlantis") as sql:
        answers = ";".join(sql._answers)
        assert sql.submit(Answers(answer=answers)).reward == 1.0
