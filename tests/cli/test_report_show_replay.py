"""``report``, ``show`` and ``replay``."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from ors_gym.evaluation import Options
from ors_gym.evaluation import evaluate as evaluate_here
from tests.cli.running import HELLO, evaluate, run


def test_show_writes_an_episode_down(evaluated):
    row = json.loads(run("show", str(evaluated), "--row", "2", "--json").stdout)
    text = run("show", str(evaluated), "--row", "2").stdout
    assert f"task_index    {row['task_index']}\n" in text
    assert f"{row['task_index']} + {row['task_index']} = ?" in text
    assert '> submit(answer="' in text
    assert "finished]" in text
    assert "has no row 6" in run("show", str(evaluated), "--row", "6", code=1).stderr


def test_replay_finds_what_is_no_longer_the_same(server, evaluated):
    assert run("replay", str(evaluated)).stdout == "the same: the prompt and 1 step\n"
    head, *rows = evaluated.read_text().splitlines()
    row = json.loads(rows[0])
    row["trajectory"]["steps"][0]["reward"] = 0.25
    evaluated.write_text("\n".join([head, json.dumps(row), *rows[1:], ""]))
    done = run("replay", str(evaluated), "--json", code=1)
    value = json.loads(done.stdout)
    assert not value["same"]
    difference = value["difference"]
    assert (difference["what"], difference["before"]) == ("reward", 0.25)
    assert server.open_sessions() == set()


def head_of(path: Path) -> dict[str, Any]:
    return dict(json.loads(path.read_text().splitlines()[0]))


@pytest.mark.slow
def test_what_was_played_is_started_again(tmp_path, monkeypatch):
    (tmp_path / "mine.py").write_text(HELLO)
    for played, served in (
        ("math --policy reference", "bundled"),
        ("mine:Hello --policy mine:greet", ["mine:Hello"]),
    ):
        evaluation = ("eval", *played.split(), "--tasks", "1", "--output", "a.jsonl")
        run(*evaluation, cwd=tmp_path, fresh=True)
        head = head_of(tmp_path / "a.jsonl")
        assert head["served"] == served
        with monkeypatch.context() as patch:
            patch.setenv("ORS_BASE_URL", "http://127.0.0.1:9")
            done = run("replay", "a.jsonl", cwd=tmp_path)
        assert done.stdout == "the same: the prompt and 1 step\n"
        (tmp_path / "a.jsonl").unlink()


@pytest.mark.slow
def test_a_server_that_is_gone_is_no_difference(server, evaluated, monkeypatch):
    head, *rows = evaluated.read_text().splitlines()
    assert json.loads(head)["served"] is None
    gone = json.loads(head) | {"server": "http://127.0.0.1:9"}
    evaluated.write_text("\n".join([json.dumps(gone), *rows, ""]))
    done = run("replay", str(evaluated), code=2)
    assert done.stdout == ""
    assert done.stderr.startswith("could not be replayed: ")
    assert "127.0.0.1:9" in done.stderr
    told = json.loads(run("replay", str(evaluated), "--json", code=2).stdout)
    assert (told["same"], told["difference"]) == (False, None)
    assert "127.0.0.1:9" in told["error"]
    # Another server of the same environment can be named, in both ways.
    run("replay", str(evaluated), "--url", server.base_url)
    monkeypatch.setenv("ORS_BASE_URL", server.base_url)
    assert run("replay", str(evaluated)).stdout == "the same: the prompt and 1 step\n"
    monkeypatch.setenv("ORS_BASE_URL", "http://127.0.0.1:9")
    run("replay", str(evaluated), code=2)


def test_an_episode_that_is_not_there_is_no_difference(evaluated, tmp_path):
    done = run("replay", str(tmp_path / "no.jsonl"), code=2)
    assert "no.jsonl cannot be read" in done.stderr
    done = run("replay", str(evaluated), "--row", "6", code=2)
    assert "has no row 6" in done.stderr


def test_a_replay_has_the_arguments_of_the_run(server, tmp_path):
    output = tmp_path / "run.jsonl"
    arguments: Options = {"invalid_action_reward": -1.0, "max_episode_steps": 2}
    arguments |= {"output": output, "split": "train", "progress": False}
    call = {"tool": "nobody", "input": {}}
    evaluate_here(server.base_url, "contract", [0], lambda _: call, **arguments)
    assert run("replay", str(output)).stdout == "the same: the prompt and 2 steps\n"


@pytest.mark.slow
def test_report_compares_and_writes_a_page_of_its_own(server, evaluated):
    evaluate(server, evaluated.parent, "one", "one.jsonl")
    page = evaluated.parent / "report.html"
    files = (str(evaluated), str(evaluated.parent / "one.jsonl"))
    done = run("report", *files, "--html", str(page), "--json")
    assert done.stderr == f"wrote {page}\n"
    comparison = json.loads(done.stdout)["comparison"]
    assert comparison["tasks"] == 6
    assert comparison["wins"] > comparison["losses"]
    text = page.read_text(encoding="utf-8")
    links = re.findall(r'<[^>]*(?:src|srcset|href)="([^"]*)', text)
    assert links
    assert all(link.startswith(("data:", "#")) for link in links)
    assert text.count("<script") == 2
    assert "success rate" in text
    said = run("report", *files).stdout
    assert said.index("6 in both") < said.index("success rate    ")


def test_a_page_takes_no_runs_place(evaluated, tmp_path):
    before = evaluated.read_bytes()
    link = tmp_path / "page.html"
    link.symlink_to(evaluated)
    for page in (evaluated, link):
        done = run("report", str(evaluated), "--html", str(page), code=1)
        assert "would take the place of the run" in done.stderr
    assert evaluated.read_bytes() == before
