"""The sql environment over HTTP: tool failures, long results, tools of a task."""

from collections.abc import Iterator

import pytest

from ors_gym.client import ORSClient, Session
from ors_gym.errors import ToolFailedError, ToolRejectedError
from ors_gym.server import REFERENCE_PLAYERS
from tests.server.played_episodes import play, text_of


def task_indexes(client: ORSClient, *, repair: bool) -> list[int]:
    tasks = client.get_task_range("sql", "train", 0, 60)
    return [i for i, task in enumerate(tasks) if (task["repair"] is not None) == repair]


@pytest.fixture
def session(client: ORSClient) -> Iterator[Session]:
    [index, *_] = task_indexes(client, repair=False)
    with client.session("sql", split="train", index=index) as session:
        yield session


def query(session: Session, sql: str) -> str:
    return text_of(session.call_tool("query", {"sql": sql})["blocks"])


@pytest.mark.parametrize(
    ("sql", "message"),
    [
        ("SELECT * FROM customer", "no such table: customer"),
        ("SELEC 1", "syntax error"),
        ("DELETE FROM customers", "does not allow"),
        ("UPDATE customers SET city = 'x'", "does not allow"),
        ("DROP TABLE customers", "does not allow"),
        ("PRAGMA journal_mode", "does not allow"),
        ("ATTACH 'x' AS y", "does not allow"),
        ("BEGIN", "does not allow"),
        ("SELECT 1; SELECT 2", "one statement"),
        ("SELECT ?", "binding"),
        ("SELECT 'a\0b'", "null"),
        ("SELECT zeroblob(1000000)", "too big"),
        (
            "SELECT count(*) FROM order_items a, order_items b, order_items c",
            "too long",
        ),
        (
            "WITH n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n) SELECT max(i) FROM n",
            "too long",
        ),
        ("SELECT load_extension('x')", "SQL error"),
    ],
)
def test_a_wrong_statement_is_a_tool_that_fails(session, sql, message):
    with pytest.raises(ToolFailedError, match=message):
        session.call_tool("query", {"sql": sql})
    assert query(session, "SELECT count(*) FROM customers").splitlines()[1] == "48"


def test_a_long_result_arrives_whole_and_is_cut_at_200_rows(session: Session):
    text = query(session, "SELECT o.*, i.* FROM orders o, order_items i")
    lines = text.splitlines()
    assert len(text) > 2 * 4096
    assert len(lines) == 1 + 200 + 1
    assert lines[-1] == "(only the first 200 rows are shown)"
    whole = query(session, "SELECT id FROM orders LIMIT 200")
    assert whole.splitlines()[-1] == "(200 rows)"


@pytest.mark.parametrize(
    ("sql", "shown"),
    [
        ("SELECT NULL", "NULL"),
        ("SELECT x'00ff'", "x'00ff'"),
        ("SELECT CAST(x'ff41' AS TEXT)", "\ufffdA"),
        ("SELECT 'é\u2028'", "é\u2028"),
        (
            "SELECT replace(hex(zeroblob(150)), '0', 'a')",
            "a" * 200 + "... (300 characters)",
        ),
        ("SELECT 1e999", "inf"),
    ],
)
def test_any_value_is_shown_as_text(session: Session, sql: str, shown: str):
    assert query(session, sql).split("\n")[1] == shown


def test_no_rows_and_no_statement(session: Session):
    rows = query(session, "SELECT id FROM orders WHERE 0").splitlines()
    assert rows == ["id", "(0 rows)"]
    assert query(session, "-- nothing") == "No result."


def test_list_tables_shows_the_schema(session: Session):
    text = text_of(session.call_tool("list_tables", {})["blocks"])
    for table in ("customers", "products", "orders", "order_items"):
        assert f"CREATE TABLE {table} (" in text
    assert "-- 48 rows" in text


def test_update_is_there_only_where_data_is_to_be_fixed(client: ORSClient):
    everywhere = {"list_tables", "query", "submit"}
    assert {tool["name"] for tool in client.list_tools("sql")} == everywhere
    for repair, expected in ((False, everywhere), (True, everywhere | {"update"})):
        for index in task_indexes(client, repair=repair)[:3]:
            with client.session("sql", split="train", index=index) as session:
                tools = {tool["name"]: tool for tool in session.list_tools()}
            assert set(tools) == expected
    assert tools["update"]["input_schema"] == tools["query"]["input_schema"]


def test_update_fails_where_it_is_not_listed(session: Session):
    with pytest.raises(ToolFailedError, match="no tool 'update'"):
        session.call_tool("update", {"sql": "UPDATE customers SET city = 'x'"})
    count = query(session, "SELECT count(*) FROM customers WHERE city = 'x'")
    assert count == "count(*)\n0\n(1 row)"


@pytest.mark.parametrize("repair", [False, True])
def test_credit_is_the_share_of_the_parts(client: ORSClient, *, repair: bool):
    index = task_indexes(client, repair=repair)[0]
    best = play(client, "sql", "train", index, REFERENCE_PLAYERS["sql"]())
    parts = 4 if repair else 3
    assert best.rewards[-1] == sum(best.rewards) == 1.0
    assert f"{3} of 3 answers are right." in best.texts[-1]
    # The same again, with the second answer left out and nothing fixed.
    with client.session("sql", split="train", index=index) as session:
        plan = REFERENCE_PLAYERS["sql"]()
        text = text_of(session.get_prompt())
        while (call := plan(text, []))["tool"] != "submit":
            text = text_of(session.call_tool(call["tool"], call["input"])["blocks"])
        answers = call["input"]["answer"].split(";")
    with client.session("sql", split="train", index=index) as session:
        submission = {"answer": ";".join([answers[0], "no idea", answers[2]])}
        result = session.call_tool("submit", submission)
    assert result["finished"]
    assert result["reward"] == 2 / parts
    assert "2 of 3 answers are right." in text_of(result["blocks"])


def test_a_customer_that_was_replaced_is_a_fix_that_failed(client: ORSClient):
    index = task_indexes(client, repair=True)[0]
    with client.session("sql", split="train", index=index) as session:
        sql = "UPDATE OR REPLACE customers SET id = 1 WHERE id = 2"
        assert session.call_tool("update", {"sql": sql})["reward"] == 0.0
        result = session.call_tool("submit", {"answer": "x; y; z"})
    assert (result["reward"], result["finished"]) == (0.0, True)
    assert "0% of the data to fix is fixed." in text_of(result["blocks"])


def test_the_wrong_number_of_answers_is_no_failure(session: Session):
    result = session.call_tool("submit", {"answer": ";;;;;;"})
    assert (result["reward"], result["finished"]) == (0.0, True)


def test_the_episode_ends_after_thirty_calls(session: Session):
    for _ in range(30):
        assert not session.call_tool("list_tables", {})["finished"]
    result = session.call_tool("query", {"sql": "SELECT 1"})
    assert (result["reward"], result["finished"]) == (0.0, True)
    assert "all 30 calls" in text_of(result["blocks"])


def test_a_call_without_its_argument_is_refused(session: Session):
    with pytest.raises(ToolRejectedError, match="sql"):
        session.call_tool("query", {})
