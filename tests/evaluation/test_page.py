"""The frozen page of runs, and what the script of every page is given."""

import json
import re
from typing import Any

import pytest
from PIL import Image

from ors_gym.evaluation import Evaluation, Record
from ors_gym.evaluation import _page as page_of_runs
from ors_gym.evaluation._page import as_page, list_tasks
from tests.evaluation.contract_evaluations import FOUND, make_record
from tests.formats.images import encode, image_block

pytestmark = pytest.mark.unit


def data_of(page: str) -> Any:
    [text] = re.findall(
        r'<script type="application/json" id="data">(.*?)</script>', page, re.DOTALL
    )
    return json.loads(text)


def test_a_page_without_its_pictures_has_its_figures(monkeypatch):
    def fail(*_, **__):
        raise ValueError("no <such> thing")

    monkeypatch.setattr(page_of_runs, "draw_parts", fail)
    page = as_page("x", {"run": FOUND})
    assert "The plots cannot be drawn: no &lt;such&gt; thing" in page
    assert "success rate" in page


@pytest.mark.slow
def test_a_page_has_all_failures_and_a_sample_as_far_as_there_is_room():
    records = [make_record(n, float(n % 4 > 0)) for n in range(200)]
    page = as_page("x", {"run": Evaluation(records)})
    kept = {int(row) for row in re.findall(r'<template data-of="0/(\d+)"', page)}
    failures = {row for row, record in enumerate(records) if not record.success}
    assert failures < kept
    assert len(failures) < len(kept) <= len(failures) + 20
    assert f"{len(kept)} of 200 transcripts are in this page, a sample and all" in page
    # Every episode is listed, and says whether its transcript is here.
    [run] = data_of(page)["update"]["runs"]
    assert [row[0] for row in run["rows"]] == list(range(200))
    assert {row[0] for row in run["rows"] if row[-1]} == kept
    # One style sheet for all cards, not one for each.
    assert page.count(".ors-head{") == 1
    picture = image_block(encode(Image.effect_noise((300, 300), 90)))
    text = {"type": "text", "text": "lost " * 9999}
    for record in records:
        record.episode.prompt = [text, picture]
    many = [*records[:4] * 300, *records[4:]]
    page = as_page("x", {"run": Evaluation(many), "other": Evaluation(many)})
    assert len(page) < 13_000_000
    assert 5 < page.count('<img class="ors-image"') < page.count("<template")
    assert " failures, as more would make the page large" in page


def test_no_text_ends_the_element_that_holds_the_data():
    hostile = "</script><script>alert(1)</script><!-- <script>"
    record = make_record(1, 0.0, tool=hostile, split=hostile)
    record.episode.prompt = [{"type": "text", "text": hostile}]
    page = as_page(hostile, {hostile: Evaluation([record])})
    assert page.count("<script") == 2
    assert page.count("</script>") == 2
    data = data_of(page)
    assert data["names"] == [hostile]
    row = dict(zip(data["fields"], data["update"]["runs"][0]["rows"][0], strict=True))
    assert (row["split"], row["about"]) == (hostile, hostile)


def test_an_answer_is_in_no_page():
    record = make_record(-1, 1.0)
    record.episode.steps[0].metadata = {"expected": "the answer"}
    with_task = Record(record.episode, success=True, task={"answer": "the answer"})
    assert "the answer" not in as_page("x", {"run": Evaluation([with_task])})


def test_tasks_are_listed_with_their_figures_in_each_run():
    first = Evaluation([make_record(10), make_record(9, 0.0), make_record(9, number=1)])
    second = Evaluation([make_record(9, 0.25), make_record(7, None)])
    assert list_tasks([first, second]) == [
        ["9", "test", (2, 0.5, 0.5), (1, 0.25, 1.0)],
        ["10", "test", (1, 1.0, 1.0), None],
    ]


def test_figures_are_seen_without_the_script():
    page = as_page("x", {"run": FOUND})
    before = page[: page.index("<script")]
    for said in ("66.7%", "95% [20.8%, 93.9%]", 'class="reach"', "&lt;b&gt;gone"):
        assert said in before
