"""``report``, ``show`` and ``replay``; the page of ``report --html`` in a browser."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from ors_gym.cli import main
from ors_gym.evaluation import Options, Record
from ors_gym.evaluation import evaluate as evaluate_here
from ors_gym.rollout import Episode
from ors_gym.rollout._episode import Step
from ors_gym.rollout._output import FORMAT, Output
from ors_gym.types import Block
from tests.cli.running import HELLO, evaluate, run
from tests.conftest import CURRENT
from tests.formats.images import RED, image_block


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
def test_what_was_played_is_started_again(tmp_path):
    (tmp_path / "mine.py").write_text(HELLO)
    for played, served in (
        ("math --policy reference", "bundled"),
        ("mine:Hello --policy mine:greet", ["mine:Hello"]),
    ):
        evaluation = ("eval", *played.split(), "--tasks", "1", "--output", "a.jsonl")
        run(*evaluation, cwd=tmp_path, fresh=True)
        head = head_of(tmp_path / "a.jsonl")
        assert head["served"] == served
        done = run("replay", "a.jsonl", cwd=tmp_path)
        assert done.stdout == "the same: the prompt and 1 step\n"
        (tmp_path / "a.jsonl").unlink()


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


def test_a_replay_has_the_arguments_of_the_run(server, tmp_path):
    output = tmp_path / "run.jsonl"
    arguments: Options = {"invalid_action_reward": -1.0, "max_episode_steps": 2}
    arguments |= {"output": output, "split": "train", "progress": False}
    call = {"tool": "nobody", "input": {}}
    evaluate_here(server.base_url, "contract", [0], lambda _: call, **arguments)
    assert run("replay", str(output)).stdout == "the same: the prompt and 2 steps\n"


@pytest.mark.parametrize(
    "server",
    [CURRENT[0], pytest.param(CURRENT[1], marks=pytest.mark.slow)],
    indirect=True,
)
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
    links = re.findall(r'(?:src|srcset|href)="([^"]*)', text)
    assert links
    assert all(link.startswith("data:") for link in links)
    assert "<script" not in text
    assert "success rate" in text
    said = run("report", *files).stdout
    assert said.index("6 in both") < said.index("success rate    ")


HOSTILE = "</td><script>document.title = 'owned'</script><img src=x onerror=alert(1)>"


def record(index: int, reward: float, split: str) -> Record:
    steps = [Step(0, "c", HOSTILE, {}, [], 0.0, seconds=0.5)] * (1 + index % 3)
    prompt: list[Block] = [{"type": "text", "text": f"{HOSTILE} {index}"}]
    if index % 10 == 0:
        prompt.append(image_block(RED))
    episode = Episode("math", index, split, 0, prompt=prompt, steps=steps)
    if index == 7:
        episode.end_without_outcome("gone", "connection")
        return Record(episode, None)
    episode.stop_reason, episode.total_reward = "finished", reward
    return Record(episode, reward > 0)


def write_run(path: Path, shift: int) -> Path:
    head = {"format": FORMAT, "environment": HOSTILE, "policy": "mine", "split": None}
    with Output(path, head, ()) as output:
        for index in range(30):
            for split in ("train", "test"):
                output.append(record(index, float((index + shift) % 4 > 0), split))
    return path


@pytest.fixture(scope="module")
def page_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("report")
    one = write_run(folder / "a run & more.jsonl", 0)
    other = write_run(folder / "other.jsonl", 1)
    page = folder / "report.html"
    assert main(["report", str(one), str(other), "--html", str(page)]) == 0
    return page


def test_it_shows_figures_and_plots_and_asks_for_nothing(chromium, page_path):
    with chromium.open(page_path) as page:
        text = page.text()
        for said in (
            "a run & more.jsonl",
            "success rate",
            "72.4%",
            "95% [59.8%, 82.2%]",
            "2 episodes without one",
            "connection 2; not in the figures",
            "58 in both",
            HOSTILE,
        ):
            assert said in text
        # What two runs differ by is what a reader of two came for.
        assert text.index("58 in both") < text.index("72.4%")
        pictures = page.evaluate(
            "[...document.querySelectorAll('.plots img')]"
            ".map(i => [i.complete, i.naturalWidth, i.alt])"
        )
        assert len(pictures) == 8
        assert all(whole and width > 100 and alt for whole, width, alt in pictures)
        assert page.evaluate("document.scripts.length + document.title") == (
            f"0Evaluation of {HOSTILE}"
        )
        assert (page.requests, page.errors) == ([], [])


def test_its_episodes_are_folded_and_filtered(chromium, page_path):
    """60 episodes: 16 of 0 and 2 without an outcome are listed, and 20 of all."""
    visible = "[...document.querySelectorAll('.episodes')[0].querySelectorAll({})]"
    visible += ".filter(e => e.checkVisibility()).length"
    with chromium.open(page_path) as page:
        listed = page.evaluate(visible.format("'.episode'"))
        assert 18 + 4 < listed < 18 + 20
        assert page.evaluate(visible.format("'.ors-card'")) == 0
        for kind, count in (("lost", 16), ("without", 2), ("won", listed - 18)):
            page.do(lambda tab, kind=kind: tab.click(f".only-{kind} + label >> nth=0"))
            assert page.evaluate(visible.format(f"'.{kind}'")) == count
            assert page.evaluate(visible.format("'.episode'")) == count
        page.do(lambda tab: tab.click(".only-all + label >> nth=0"))
        page.do(lambda tab: tab.click(".episode summary >> nth=0"))
        assert page.evaluate(visible.format("'.ors-card'")) == 1
        seen = page.text(".episode .ors-card")
        assert f"{HOSTILE} 0" in seen
        assert page.evaluate(visible.format("'.ors-image'")) == 1
        assert page.overflow() == 0
        assert (page.requests, page.errors) == ([], [])


@pytest.mark.parametrize("width", [1280, 390])
def test_it_fits_a_screen_and_a_phone(chromium, page_path, width):
    with chromium.open(page_path, width=width) as page:
        assert page.overflow() == 0
        columns = page.evaluate(
            "getComputedStyle(document.querySelector('.plots')).gridTemplateColumns"
        )
        assert len(columns.split()) == (2 if width == 1280 else 1)


def test_it_is_dark_for_those_who_want_that(chromium, page_path):
    seen = "document.images[0].currentSrc"
    ground = "getComputedStyle(document.body).backgroundColor"
    with chromium.open(page_path) as page:
        light = page.evaluate(f"[{seen}, {ground}]")
        page.set_dark(True)
        page.do(lambda tab: tab.wait_for_function(f"{seen} !== {light[0]!r}"))
        dark = page.evaluate(f"[{seen}, {ground}]")
    assert light[1] == "rgb(255, 255, 255)"
    assert sum(map(int, dark[1][4:-1].split(","))) < 150
    assert dark[0].startswith("data:image/svg+xml")
