"""The page of runs in Chromium, frozen and live."""

import contextlib
import socket
from pathlib import Path
from typing import Any

import pytest

from ors_gym.cli import main
from ors_gym.evaluation import Evaluation, Record, _live_page, _page, view
from ors_gym.rollout import Episode, Turn
from ors_gym.rollout._episode import Step
from ors_gym.rollout._output import FORMAT, Output
from ors_gym.types import Block
from tests.formats.images import RED, image_block
from tests.support.browser import Page

pytestmark = pytest.mark.slow

HOSTILE = "</td></script><script>document.title = 'owned'</script><img src=x onerror=a>"


def record(index: int, reward: float, split: str = "test", number: int = 0) -> Record:
    steps = [Step(0, "c", HOSTILE, {}, [], 0.0, seconds=0.5)] * (1 + index % 3)
    prompt: list[Block] = [{"type": "text", "text": f"{HOSTILE} {index}"}]
    if index % 8 == 0:
        prompt.append(image_block(RED))
    call = {"tool": HOSTILE, "input": {}}
    turns = [Turn([call] * len(steps), f"Word{index}.", call_ids=["c"] * len(steps))]
    parts: dict[str, Any] = {"prompt": prompt, "steps": steps, "turns": turns}
    episode = Episode("math", index, split, number, **parts)
    if index == 7:
        episode.end_without_outcome(f"gone {HOSTILE}", "connection")
        return Record(episode, None)
    episode.stop_reason, episode.total_reward = "finished", reward
    return Record(episode, reward > 0)


def begin(path: Path, planned: int) -> Output:
    head = {"format": FORMAT, "environment": HOSTILE, "policy": "mine", "split": None}
    return Output(path, head | {"planned": planned}, ())


def write_run(path: Path, shift: int) -> Path:
    with begin(path, 60) as output:
        for index in range(30):
            for split in ("train", "test"):
                output.append(record(index, float((index + shift) % 4 > 0), split))
    return path


@pytest.fixture(scope="module")
def paths(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("report")
    one = write_run(folder / "a run & more.jsonl", 0)
    return one, write_run(folder / "other.jsonl", 1)


@pytest.fixture(scope="module")
def page_path(paths: tuple[Path, Path]) -> Path:
    page = paths[0].with_name("report.html")
    assert main(["report", *map(str, paths), "--html", str(page)]) == 0
    return page


def press(page: Page, *keys: str) -> None:
    def press_all(tab: Any) -> None:
        for key in keys:
            tab.keyboard.press(key)

    page.do(press_all)


def choose(page: Page, label: str, value: str) -> None:
    name = f"select[aria-label='{label}']"
    page.do(lambda tab: tab.select_option(name, value))


def said(page: Page, section: str) -> str:
    return page.text(f"#{section} .said")


def test_a_frozen_page_shows_figures_and_plots_and_asks_for_nothing(
    chromium, page_path
):
    with chromium.open(page_path) as page:
        text = page.text()
        for words in (
            "a run & more.jsonl",
            "success rate",
            "72.4%",
            "95% [59.8%, 82.2%]",
            "2 episodes without one",
            "connection 2; not in the figures",
            "58 in both",
            HOSTILE,
        ):
            assert words in text
        # What two runs differ by is what a reader of two came for.
        assert text.index("58 in both") < text.index("72.4%")
        pictures = page.evaluate(
            "[...document.querySelectorAll('.plots img')]"
            ".map(i => [i.complete, i.naturalWidth, i.alt])"
        )
        assert len(pictures) == 8
        assert all(whole and width > 100 and alt for whole, width, alt in pictures)
        assert page.evaluate("document.title") == f"Evaluation of {HOSTILE}"
        assert (page.requests, page.errors) == ([], [])


def test_its_episodes_are_filtered_searched_and_opened(chromium, page_path):
    """60 episodes in each run: 16 and 12 of reward 0, and 2 without an outcome."""
    with chromium.open(page_path) as page:
        assert said(page, "episodes") == "120 episodes"
        for kind, count in (("won", 88), ("lost", 28), ("without", 4)):
            choose(page, "Which outcomes", kind)
            assert said(page, "episodes") == f"{count} of 120 episodes"
        choose(page, "Ended by", "kind connection")
        assert said(page, "episodes") == "4 of 120 episodes"
        choose(page, "Ended by", "all")
        choose(page, "Which outcomes", "all")
        choose(page, "Of which run", "1")
        find = "input[aria-label^=Search]"
        page.do(lambda tab: tab.fill(find, "task 24 TRAIN"))
        assert said(page, "episodes") == "1 of 120 episodes"
        page.do(lambda tab: tab.click("#episodes .row"))
        # The episode of the other run is beside it.
        assert page.count("#reader .column .ors-card") == 2
        assert page.count("#reader .ors-image") == 2
        assert f"{HOSTILE} 24" in page.text("#reader")
        press(page, "Escape")
        assert not page.evaluate("document.getElementById('reader').open")
        page.do(lambda tab: tab.fill(find, "WORD24. train"))
        assert said(page, "episodes") == "1 of 120 episodes"
        page.do(lambda tab: tab.fill(find, "task 20 TRAIN"))
        page.do(lambda tab: tab.click("#episodes .row"))
        assert "--row 40" in page.text("#reader .column:last-child")
        press(page, "Escape")
        assert page.evaluate("document.title") == f"Evaluation of {HOSTILE}"
        assert page.overflow() == 0
        assert (page.requests, page.errors) == ([], [])


def test_tasks_where_two_runs_differ_come_first(chromium, page_path):
    with chromium.open(page_path) as page:
        assert said(page, "tasks") == "28 of 58 tasks"
        choose(page, "Which tasks", "all")
        assert said(page, "tasks") == "58 tasks"
        page.do(lambda tab: tab.click("button[aria-label='sort by difference']"))
        first = page.evaluate("document.querySelector('#tasks .row').ariaLabel")
        assert "a run & more.jsonl mean reward 0 in 1 episode" in first
        assert "other.jsonl mean reward 1 in 1 episode" in first


def test_keys_are_enough(chromium, page_path):
    active = "document.activeElement.getAttribute('aria-activedescendant')"
    with chromium.open(page_path) as page:
        page.evaluate("document.querySelector('#episodes .box').focus()")
        press(page, "End")
        assert page.evaluate(active) == "episodes-119"
        press(page, "PageUp", "ArrowUp", "ArrowDown", "Home", "ArrowDown")
        assert page.evaluate(active) == "episodes-1"
        option = "document.getElementById('episodes-1')"
        role = f"[{option}.role, {option}.ariaSelected, {option}.ariaSetSize]"
        assert page.evaluate(role) == ["option", "true", "120"]
        press(page, "Enter")
        title = page.text("#reading")
        press(page, "ArrowRight", "ArrowRight")
        assert page.text("#reading") != title
        press(page, "ArrowLeft", "ArrowLeft")
        assert page.text("#reading") == title
        press(page, "Escape")
        assert page.evaluate("document.activeElement.className") == "box"
        unnamed = page.evaluate(
            "[...document.querySelectorAll('button, select, input, progress, img')]"
            ".filter(e => !(e.ariaLabel || e.alt || e.innerText)).length"
        )
        assert unnamed == 0


@pytest.mark.parametrize("width", [1280, 390])
def test_it_fits_a_screen_and_a_phone(chromium, page_path, width):
    with chromium.open(page_path, width=width) as page:
        assert page.overflow() == 0
        columns = page.evaluate(
            "getComputedStyle(document.querySelector('.runs')).gridTemplateColumns"
        )
        assert len(columns.split()) == (2 if width == 1280 else 1)
        page.do(lambda tab: tab.click("#tasks .row >> nth=1"))
        assert page.overflow() == 0
        wide = "document.getElementById('reader').scrollWidth"
        assert page.evaluate(wide) <= width


def test_it_is_dark_for_those_who_want_that(chromium, page_path):
    seen = "document.images[0].currentSrc"
    ground = "getComputedStyle(document.body).backgroundColor"
    with chromium.open(page_path) as page:
        light = page.evaluate(f"[{seen}, {ground}]")
        page.set_dark(True)
        page.wait(f"{seen} !== {light[0]!r}")
        dark = page.evaluate(f"[{seen}, {ground}]")
    assert light[1] == "rgb(255, 255, 255)"
    assert sum(map(int, dark[1][4:-1].split(","))) < 150
    assert dark[0].startswith("data:image/svg+xml")


def test_a_live_page_follows_a_run(chromium, tmp_path):
    path = tmp_path / "run.jsonl"
    with view(path) as address, chromium.open(address) as page:
        page.wait("document.body.innerText.includes('waiting for')")
        with begin(path, 40) as output:
            for index in range(20):
                output.append(record(index, float(index % 2)))
            page.wait("document.querySelector('progress').value === 20")
            page.wait("document.body.innerText.includes('47.4%')")
            page.wait("document.querySelectorAll('.plots img').length === 4")
            assert "20 of 40 episodes" in page.text(".progress")
            choose(page, "Which outcomes", "lost")
            # An open transcript stays open, and a filter stays chosen.
            page.do(lambda tab: tab.click("#episodes .row"))
            page.do(lambda tab: tab.wait_for_selector("#reader .ors-image"))
            for index in range(20, 40):
                output.append(record(index, float(index % 2)))
        page.wait("document.body.innerText.includes('complete')")
        assert said(page, "episodes") == "20 of 40 episodes"
        assert page.count("#reader[open] .ors-card") == 1
        path.unlink()
        page.wait("document.body.innerText.includes('is gone')")
        write_run(path, 0)
        page.wait("document.querySelector('progress').value === 60")
        assert f"{HOSTILE} 0" in page.text("#reader")
        assert page.evaluate("document.title") == f"Runs: {path}"
        assert page.errors == []
        assert all(one.startswith(address) for one in page.requests)


def test_a_live_page_says_when_it_is_served_no_longer(chromium, paths):
    serving = contextlib.ExitStack()
    address = serving.enter_context(view(*paths))
    with serving, chromium.open(address) as page:
        page.wait("document.querySelector('#tasks .row')")
        serving.close()
        page.wait("document.querySelector('#status.lost')")
        assert "58 in both" in page.text()
        page.do(lambda tab: tab.click("#episodes .row"))
        page.wait("document.querySelector('#reader').innerText.includes('has ended')")


def test_what_would_not_be_escaped_could_not_run(chromium, paths, monkeypatch):
    """The policy of the page holds even where its escaping would not."""
    hostile = (
        "<img src=x onerror=\"document.title = 'owned'\"><b onclick=owned() id=b>b</b>"
        "<script>document.title = 'owned'</script><style>body { opacity: 0 }</style>"
        "<iframe srcdoc=\"<script>parent.document.title = 'owned'</script>\"></iframe>"
        "<img src=http://127.0.0.1:{}/stolen>"
    )
    listener = socket.create_server(("127.0.0.1", 0))
    hostile = hostile.replace("{}", str(listener.getsockname()[1]))
    monkeypatch.setattr(_live_page, "show_figures", lambda _: hostile)
    monkeypatch.setattr(_page, "show_figures", lambda _: hostile)
    frozen = paths[0].with_name("hostile.html")
    frozen.write_text(_page.as_page("x", {"run": Evaluation.load(paths[0])}))
    with listener, view(paths[0]) as address:
        for target, title in ((frozen, "x"), (address, f"Runs: {paths[0]}")):
            with chromium.open(target) as page:
                page.wait("document.getElementById('b')")
                page.do(lambda tab: tab.click("#b"))
                assert page.evaluate("document.title") == title
                shown = page.evaluate("getComputedStyle(document.body).opacity")
                assert shown == "1"
                assert any("Content Security Policy" in one for one in page.errors)
        listener.setblocking(False)
        with pytest.raises(BlockingIOError):
            listener.accept()


def test_a_page_of_another_origin_reads_nothing(chromium, paths):
    attack = """address => Promise.all([
        fetch(address + 'state').then(r => r.text(), () => 'refused'),
        fetch(address + 'state', { mode: 'no-cors' }).then(r => r.text(), () => ''),
        new Promise(done => {
            const script = document.createElement('script')
            Object.assign(script, { src: address + 'state', onload: () => done('ran') })
            script.onerror = () => done('refused')
            document.head.append(script)
        }),
    ])"""
    # A file has an origin of its own, and this one no policy.
    other = paths[0].with_name("other.html")
    other.write_text("<!DOCTYPE html><title>Elsewhere</title>")
    with view(*paths) as address, chromium.open(other) as page:
        assert page.evaluate(attack, address) == ["refused", "", "refused"]


def test_ten_thousand_episodes_are_listed_and_few_are_drawn(chromium, tmp_path):
    path = tmp_path / "run.jsonl"
    with begin(path, 10_000) as output:
        for index in range(10_000):
            output.append(record(index + 8, float(index % 2)))
    with view(path) as address, chromium.open(address) as page:
        page.wait("document.querySelector('progress').value === 10000", 60_000)
        page.wait("document.querySelector('.plots img')", 60_000)
        assert said(page, "episodes") == "10,000 episodes"
        assert page.count("*") < 1000
        page.evaluate("document.querySelector('#episodes .box').scrollTop = 1e9")
        page.wait("document.getElementById('episodes-9999')")
        assert page.count("#episodes .row") < 50
        # The file is searched, since the page has no transcripts.
        page.do(lambda tab: tab.fill("input[aria-label^=Search]", "WORD10007 reward"))
        page.do(lambda tab: tab.fill("input[aria-label^=Search]", "WORD10007"))
        page.wait("document.body.innerText.includes('1 of 10,000 episodes')")
        page.do(lambda tab: tab.click("#episodes .row"))
        page.do(lambda tab: tab.wait_for_selector("#reader .ors-card"))
        assert f"{HOSTILE} 10007" in page.text("#reader")
        assert page.errors == []
