"""``eval`` and what is done with its output: ``show``, ``replay``, ``report``."""

from __future__ import annotations

import html.parser
import json
from pathlib import Path
from typing import Any

import pytest

from tests.cli.running import HELLO, run
from tests.conftest import CURRENT
from tests.rollout.chat_server import running_chat_server
from tests.support.servers.process import RunningServer

POLICY = '''
def answer(episode):
    """Be right about two tasks of three."""
    right = 2 * episode.task_index
    return {"tool": "submit", "input": {"answer": str(right + right % 3 % 2)}}


def one(episode):
    return {"tool": "submit", "input": {"answer": "0"}}


def broken(episode):
    raise RuntimeError("no idea")
'''


@pytest.fixture
def evaluated(server: RunningServer, tmp_path: Path) -> Path:
    """Give the output of an evaluation of six tasks, in a folder with policies."""
    (tmp_path / "players.py").write_text(POLICY)
    evaluate(server, tmp_path, "answer", "run.jsonl")
    return tmp_path / "run.jsonl"


def evaluate(
    server: RunningServer, folder: Path, policy: str, output: str, code: int = 0
) -> dict[str, Any]:
    done = run(
        *("eval", "contract", "--url", server.base_url, "--tasks", "6"),
        *("--policy", f"players:{policy}", "--output", output, "--json"),
        cwd=folder,
        code=code,
    )
    value: dict[str, Any] = json.loads(done.stdout)
    return value


def test_eval_again_plays_nothing_twice(server: RunningServer, evaluated: Path) -> None:
    assert server.runs("submit") == 6
    again = evaluate(server, evaluated.parent, "answer", "run.jsonl")
    assert server.runs("submit") == 6
    assert again["head"]["policy"] == "players:answer"
    assert again["metrics"]["outcomes"] == 6
    assert 0 < again["metrics"]["success_rate"] < 1
    assert again["by_tool"][0]["calls"] == 6
    assert server.open_sessions() == set()


def test_eval_without_an_outcome_fails(server: RunningServer, evaluated: Path) -> None:
    found = evaluate(server, evaluated.parent, "broken", "other.jsonl", code=1)
    assert found["metrics"]["errors/policy"] == 6


def test_eval_of_a_split_and_a_range(server: RunningServer) -> None:
    done = run(
        *("eval", "ors/contract", "--url", server.base_url, "--split", "test"),
        *("--tasks", "1:3", "--max-turns", "1", "--episodes-per-task", "2"),
        *("--policy", "tests.cli.test_evaluate:submit"),
        fresh=True,
    )
    assert "contract, split test" in done.stdout
    tasks = [entry["task"] for entry in server.log("run")]
    assert sorted(tasks) == ["test-1", "test-1", "test-2", "test-2"]


def submit(episode: Any) -> dict[str, Any]:
    return {"tool": "submit", "input": {"answer": "4"}}


def test_eval_serves_a_class_of_this_folder(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(HELLO)
    done = run("eval", "mine:Hello", "--policy", "mine:greet", cwd=tmp_path, fresh=True)
    assert "success rate    100.0%" in done.stdout


@pytest.mark.parametrize("policy", ["random", "reference"])
def test_eval_of_a_bundled_environment(policy: str) -> None:
    done = run("eval", "math", "--policy", policy, "--tasks", "4", "--json")
    rate = json.loads(done.stdout)["metrics"]["success_rate"]
    assert rate == (1.0 if policy == "reference" else 0.0)


def test_eval_of_a_chat_model(server: RunningServer) -> None:
    answer = ["c1", "submit", json.dumps({"answer": "0"})]
    with running_chat_server() as chat:
        model = chat.script({"calls": [answer]})
        done = run(
            *("eval", "contract", "--url", server.base_url, "--tasks", "1", "--json"),
            *("--policy", f"openai:{model}", "--model-url", chat.base_url),
        )
        assert len(chat.requests(model)) == 1
    value = json.loads(done.stdout)
    assert value["head"]["policy"] == f"openai:{model}"
    assert value["metrics"]["success_rate"] == 1.0


def test_show_writes_an_episode_down(evaluated: Path) -> None:
    row = json.loads(run("show", str(evaluated), "--row", "2", "--json").stdout)
    text = run("show", str(evaluated), "--row", "2").stdout
    assert f"task_index    {row['task_index']}\n" in text
    assert f"{row['task_index']} + {row['task_index']} = ?" in text
    assert '> submit(answer="' in text
    assert "finished]" in text
    assert "has no row 6" in run("show", str(evaluated), "--row", "6", code=1).stderr


def test_replay_finds_what_is_no_longer_the_same(
    server: RunningServer, evaluated: Path
) -> None:
    assert run("replay", str(evaluated)).stdout == "the same in all 1 steps\n"
    head, *rows = evaluated.read_text().splitlines()
    row = json.loads(rows[0])
    row["trajectory"]["steps"][0]["reward"] = 0.25
    evaluated.write_text("\n".join([head, json.dumps(row), *rows[1:], ""]))
    done = run("replay", str(evaluated), "--json", code=1)
    value = json.loads(done.stdout)
    assert not value["same"]
    assert (value["difference"]["what"], value["difference"]["before"]) == (
        "reward",
        0.25,
    )
    assert server.open_sessions() == set()


class Links(html.parser.HTMLParser):
    """Collects what a page refers to."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []
        self.tags: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.found += [
            v or "" for name, v in attrs if name in ("src", "srcset", "href")
        ]


@pytest.mark.parametrize(
    "server",
    [CURRENT[0], pytest.param(CURRENT[1], marks=pytest.mark.slow)],
    indirect=True,
)
def test_report_compares_and_writes_a_page_of_its_own(
    server: RunningServer, evaluated: Path
) -> None:
    evaluate(server, evaluated.parent, "one", "one.jsonl")
    page = evaluated.parent / "report.html"
    files = (str(evaluated), str(evaluated.parent / "one.jsonl"))
    done = run("report", *files, "--html", str(page), "--json")
    comparison = json.loads(done.stdout)["comparison"]
    assert comparison["tasks"] == 6
    assert comparison["wins"] > comparison["losses"]
    links = Links()
    links.feed(page.read_text(encoding="utf-8"))
    assert links.found
    assert all(link.startswith("data:") for link in links.found)
    assert "script" not in links.tags
    assert "success rate" in page.read_text(encoding="utf-8")
    assert "6 in both" in run("report", *files).stdout
