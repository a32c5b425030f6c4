"""The live page: how it follows files, what it sends, and to whom."""

import contextlib
import http.client
import json
import os
import re
import signal
import subprocess
import urllib.parse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ors_gym.errors import InvalidRequestError
from ors_gym.evaluation import Evaluation, Record, view
from ors_gym.evaluation import _live_page as module
from ors_gym.evaluation._live_page import Viewer, WatchedRun
from ors_gym.evaluation._page import list_episode, list_tasks, show_figures
from ors_gym.rollout import Turn
from ors_gym.rollout._output import FORMAT, Output
from tests.cli.running import COMMAND
from tests.evaluation.contract_evaluations import make_record, play
from tests.formats.images import RED, image_block

HEAD = {"format": FORMAT, "environment": "math", "policy": "mine", "planned": 4}


@pytest.fixture(autouse=True)
def _no_plots(monkeypatch: pytest.MonkeyPatch) -> None:
    """Draw nothing, which takes long; the browser's tests look at the plots."""
    monkeypatch.setattr(module, "show_plots", lambda _: "plots")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "run.jsonl"


def write(path: Path, *records: Record) -> None:
    with Output(path, HEAD, ()) as output:
        for record in records:
            output.append(record)


def update_all(viewer: Viewer, cursor: str = "") -> dict[str, Any]:
    """Ask until there is no more, and return all news as one."""
    news: dict[str, Any] = viewer.update(cursor)
    while news["more"]:
        more = viewer.update(news["cursor"])
        for run, before in zip(more["runs"], news["runs"], strict=True):
            more_rows = [*before["rows"], *run["rows"]]
            before.update(run, rows=more_rows)
        news |= {**more, "runs": news["runs"]}
    return news


def make_malformed_row() -> bytes:
    row = make_record(1).row()
    row["trajectory"]["turns"] = [{"actions": 7}]
    return json.dumps(row).encode() + b"\n"


def rows_of(news: dict[str, Any]) -> list[int]:
    return [row[0] for row in news["runs"][0]["rows"]]


@pytest.mark.unit
def test_a_growing_file_is_followed_and_a_torn_row_waited_for(path):
    viewer = Viewer([WatchedRun(str(path))])
    news = update_all(viewer)
    assert "waiting for" in news["runs"][0]["progress"]["problem"]
    write(path, make_record(0), make_record(1, 0.0))
    news = update_all(viewer, news["cursor"])
    assert rows_of(news) == [0, 1]
    progress = news["runs"][0]["progress"]
    shown = [progress[name] for name in ("done", "planned", "problem")]
    assert shown == [2, 4, ""]
    _, line = make_record(2).encode()
    for part in (line[:1], line[1:-1], line[-1:]):
        assert rows_of(viewer.update(news["cursor"])) == []
        with path.open("ab") as file:
            file.write(part)
    news = update_all(viewer, news["cursor"])
    assert rows_of(news) == [2]
    # A page that is opened now is told everything.
    assert rows_of(update_all(viewer)) == [0, 1, 2]


@pytest.mark.unit
def test_what_is_found_is_what_a_report_finds(path):
    said = make_record(5, 0.0)
    said.episode.steps, said.episode.stop_reason = [], "policy_stopped"
    said.episode.turns = [Turn(["no call"], "no call")]
    refused = make_record(6, 0.0)
    refused.episode.extra = {"usage": {"input_tokens": 12}, "more": "x"}
    refused.episode.steps[0].error_kind = "invalid_action"
    refused.episode.turns = [Turn([{"tool": "a", "input": {}}], "x", seconds=0.25)]
    listed = [make_record(0), make_record(1, None), make_record(0, 0.5, number=1)]
    records = [
        *listed,
        said,
        refused,
        *(make_record(7, 0.25, number=n) for n in (0, 1)),
    ]
    write(path, *records)
    news = update_all(Viewer([WatchedRun(str(path))]))
    found = Evaluation.load(path)
    assert len(found.records) == 7
    assert news["runs"][0]["figures"] == show_figures(found)
    assert "input_tokens 12" in news["runs"][0]["figures"]
    assert "without a readable call" in news["runs"][0]["figures"]
    assert news["tasks"] == list_tasks([found])
    rows = [list_episode(*row) for row in enumerate(found.records)]
    assert news["runs"][0]["rows"] == rows


@pytest.mark.unit
@pytest.mark.parametrize("how", ["replaced", "cut", "written anew"])
def test_a_file_that_is_no_longer_the_same_is_read_anew(path, how):
    write(path, make_record(0), make_record(1))
    viewer = Viewer([WatchedRun(str(path))])
    before = update_all(viewer)
    if how == "replaced":
        beside = path.with_name("beside")
        write(beside, make_record(5), make_record(6), make_record(7))
        beside.replace(path)
    elif how == "cut":
        os.truncate(path, 0)
        write(path, make_record(5))
    else:
        text = path.read_text().replace('"mine"', '"other"')
        path.write_text(text + text.splitlines(keepends=True)[1])
    news = viewer.update(before["cursor"])
    [run] = news["runs"]
    assert run["of"] == before["runs"][0]["of"] + 1
    tasks = [row[1] for row in run["rows"]]
    expected = {"replaced": ["5", "6", "7"], "cut": ["5"], "written anew": ["0", "1"]}
    assert tasks == expected[how]
    assert viewer.transcript(0, 0, before["runs"][0]["of"]) is None
    assert "ors-card" in str(viewer.transcript(0, 0, run["of"]))


@pytest.mark.unit
def test_the_last_row_of_an_episode_counts(path):
    write(path, make_record(0, None), make_record(1))
    viewer = Viewer([WatchedRun(str(path))])
    before = update_all(viewer)
    with path.open("ab") as file:
        file.write(make_record(0, 0.25).encode()[1])
    news = viewer.update(before["cursor"])
    [row] = news["runs"][0]["rows"]
    assert row == list_episode(0, Evaluation.load(path).records[0])
    assert "reward 0.25" in str(viewer.transcript(0, 0, news["runs"][0]["of"]))


@pytest.mark.unit
@pytest.mark.parametrize(
    ("line", "said"),
    [
        (b"no json\n", "line 3 is no"),
        (b"[]\n", "a row is no object"),
        (b'{"task_index":1,"trajectory":3}\n', "the row holds no episode"),
        (make_malformed_row(), "line 3 holds no whole episode"),
        (b"rubbish without an end", "line 3 is no row"),
    ],
)
def test_a_damaged_file_is_told_and_what_is_there_is_kept(path, line, said):
    write(path, make_record(0))
    with path.open("ab") as file:
        file.write(line)
    viewer = Viewer([WatchedRun(str(path))])
    news = update_all(viewer)
    assert rows_of(news) == [0]
    assert said in news["runs"][0]["progress"]["problem"]
    path.unlink()
    news = update_all(viewer, news["cursor"])
    assert "is gone" in news["runs"][0]["progress"]["problem"]


@pytest.mark.unit
def test_another_file_is_no_run(path):
    path.write_text("{}\n")
    [run] = update_all(Viewer([WatchedRun(str(path))]))["runs"]
    assert "is no output file of an evaluation" in run["progress"]["problem"]


@pytest.mark.unit
@given(cursor=st.text() | st.from_regex(r"[0-9.]{0,20}"))
def test_any_cursor_is_answered(cursor):
    viewer = Viewer([WatchedRun("/nowhere/run.jsonl")])
    assert viewer.update(cursor)["runs"][0]["rows"] == []


@pytest.mark.unit
def test_transcripts_are_searched(path):
    record = make_record(0)
    record.episode.prompt = [{"type": "text", "text": 'Où est "Ł", 5 > 4?\nHere.'}]
    record.episode.steps[0].input = {"answer": "Over there"}
    record.episode.steps[0].metadata = {"expected": "secret"}
    call = {"tool": "submit", "input": {"answer": "Over there"}}
    record.episode.turns = [Turn([call], "I THINK so", call_ids=["c"])]
    with_task = Record(make_record(-1).episode, success=True, task={"a": "secret"})
    write(path, record, make_record(1), with_task)
    viewer = Viewer([WatchedRun(str(path))])
    update_all(viewer)
    for query, rows in (
        ('où "ł" 5 > HERE', [0]),
        ('submit(answer="over there")', [0]),
        ("think", [0]),
        ("submit", [0]),
        ("submit nowhere", []),
        ("secret", []),
        ("expected", []),
        ("", [0, 1, 2]),
    ):
        assert viewer.search(query) == [rows], query
    path.write_text("x")
    assert viewer.search("submit") == [[]]


@pytest.mark.unit
def test_runs_of_different_environments_are_not_compared(path):
    write(path, make_record(0))
    other = path.with_name("other.jsonl")
    with Output(other, HEAD | {"environment": "maze"}, ()) as output:
        output.append(make_record(0, 0.0))
    news = update_all(Viewer([WatchedRun(str(path)), WatchedRun(str(other))]))
    assert "math and maze are different environments" in news["comparison"]
    assert news["tasks"] is None
    assert all("success rate" in run["figures"] for run in news["runs"])


@pytest.mark.unit
def test_two_runs_are_compared(path):
    write(path, make_record(0), make_record(1))
    other = path.with_name("other.jsonl")
    write(other, make_record(0, 0.0), make_record(1))
    news = update_all(Viewer([WatchedRun(str(path)), WatchedRun(str(other))]))
    assert "1 better, 0 worse, 1 equal" in news["comparison"]
    assert [row[2:] for row in news["tasks"]] == [
        [(1, 1.0, 1.0), (1, 0.0, 0.0)],
        [(1, 1.0, 1.0), (1, 1.0, 1.0)],
    ]


def ask(
    address: str, path: str = "", **headers: str
) -> tuple[int, dict[str, str], str]:
    parts = urllib.parse.urlsplit(address)
    connection = http.client.HTTPConnection(parts.netloc, timeout=30)
    with contextlib.closing(connection):
        target = path if path.startswith("/") else parts.path + path
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        connection.request("GET", target, headers=named)
        reply = connection.getresponse()
        return reply.status, dict(reply.getheaders()), reply.read().decode()


@pytest.fixture
def served(path: Path) -> Iterator[str]:
    record = make_record(0, 0.5)
    record.episode.prompt = [
        {"type": "text", "text": "<i>2 + 2?</i>"},
        image_block(RED),
    ]
    record.episode.steps[0].metadata = {"expected": "the answer"}
    with_task = make_record(-1)
    secret = Record(with_task.episode, success=True, task={"answer": "the answer"})
    write(path, record, secret)
    with view(path) as address:
        yield address


def test_the_page_is_served_with_a_policy_and_without_answers(served):
    status, headers, page = ask(served)
    assert status == 200
    policy = headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert headers["Cross-Origin-Resource-Policy"] == "same-origin"
    assert "Access-Control-Allow-Origin" not in headers
    status, _, state = ask(served, "state?cursor=")
    [run] = json.loads(state)["runs"]
    of = run["of"]
    status, _, card = ask(served, f"transcript?run=0&row=0&of={of}")
    assert status == 200
    assert "&lt;i&gt;2 + 2?" in card
    assert "data:image/png;base64," in card
    assert "<style" not in card
    _, _, other = ask(served, f"transcript?run=0&row=1&of={of}")
    assert "the answer" not in page + state + card + other
    status, _, rows = ask(served, "search?for=2+%2B+2")
    assert (status, json.loads(rows)) == (200, [[0]])
    for query in ("", "?run=0&row=9&of=1", "?run=7&row=0&of=1", "?run=x&row=0&of=1"):
        assert ask(served, f"transcript{query}")[0] == 404


def test_nobody_else_is_answered(served):
    port = urllib.parse.urlsplit(served).port
    own = f"127.0.0.1:{port}"
    assert ask(served, "state", Host=own, Origin=f"http://{own}")[0] == 200
    assert ask(served, "state", Host=f"localhost:{port}")[0] == 200
    for headers in (
        {"Host": f"evil.example:{port}"},
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
        {"Origin": f"http://127.0.0.1:{port - 1}"},
        {"Sec_Fetch_Site": "cross-site"},
        {"Sec_Fetch_Site": "same-site"},
    ):
        status, _, said = ask(served, "state", **headers)
        assert (status, "rows" in said) == (403, False), headers
    # A link from elsewhere may lead to the page.
    assert ask(served, Sec_Fetch_Site="cross-site")[0] == 200
    secret = urllib.parse.urlsplit(served).path
    for path in ("/", "/state", secret[:-2] + "/state", secret[:-1], secret + "x"):
        assert ask(served, path)[0] == 404, path
    assert len(secret) > 30


def test_a_run_is_followed_while_it_is_played(server, path):
    viewer = Viewer([WatchedRun(str(path))])
    cursor, seen = "", []

    def look(record: Record) -> None:
        nonlocal cursor
        news = viewer.update(cursor)
        cursor = news["cursor"]
        seen.append(rows_of(news))
        assert news["runs"][0]["progress"]["planned"] == 4

    found = play(server, output=path, on_episode=look, max_concurrent=1)
    assert seen == [[0], [1], [2], [3]]
    news = update_all(Viewer([WatchedRun(str(path))]))
    assert news["runs"][0]["figures"] == show_figures(Evaluation.load(path))
    assert found.success_rate == Evaluation.load(path).success_rate


def test_the_command_serves_until_it_is_interrupted(path):
    write(path, make_record(0))
    process = subprocess.Popen(
        [*COMMAND, "view", str(path)], stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None
        with process.stdout as lines:
            address = re.findall(r"http://\S+", lines.readline())[0]
            assert ask(address)[0] == 200
            process.send_signal(signal.SIGINT)
            assert process.wait(timeout=30) == 0
    finally:
        process.kill()
        process.wait()


def test_a_directory_is_refused(path):
    directory = str(path.parent)
    for files in ((directory,), (str(path), directory)):
        with pytest.raises(InvalidRequestError, match="is a directory"), view(*files):
            pass


def test_a_port_that_is_taken_is_told(served, path):
    port = urllib.parse.urlsplit(served).port
    with (
        pytest.raises(InvalidRequestError, match="cannot be used"),
        view(path, port=port or 0),
    ):
        pass
