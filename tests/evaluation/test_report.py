"""An evaluation in words: text, HTML for a notebook, and a page."""

import html.parser
import math
import sys

import pytest
from PIL import Image

from ors_gym.evaluation import Evaluation, Record
from ors_gym.evaluation import _report as report
from ors_gym.evaluation._report import as_page
from ors_gym.rollout import Episode
from tests.evaluation.contract_evaluations import FOUND, make_record, unfold
from tests.formats.images import encode, image_block

pytestmark = pytest.mark.unit


def test_text_has_every_figure():
    text = str(FOUND)
    for said in (
        "<math>, split test",
        "4, 1 not played, 1 without an outcome",
        "66.7%  95% interval [20.8%, 93.9%]",
        "connection 1; not in the figures",
        "p50 500.0 ms",
    ):
        assert said in text


def test_html_is_escaped_and_well_formed():
    class Checker(html.parser.HTMLParser):
        def __init__(self) -> None:
            super().__init__()
            self.tags: list[str] = []

        def handle_starttag(self, tag, attributes):
            self.tags.append(tag)

        def handle_endtag(self, tag):
            assert self.tags.pop() == tag

    hostile = make_record(1, 0.5, tool="<script>alert(1)</script>", split="<i>")
    text = Evaluation([make_record(0, 1.0), hostile], head=FOUND.head)._repr_html_()
    assert "<script>" not in text
    assert "<i>" not in text
    assert "&lt;math&gt;" in text
    checker = Checker()
    checker.feed(text)
    assert not checker.tags


def test_nothing_evaluated_is_told_without_failing():
    empty = Evaluation([])
    assert math.isnan(empty.success_rate)
    assert "nan" not in str(empty)
    assert "success rate    unknown  no episode has an outcome" in str(empty)
    assert "unknown" in as_page("Empty", {"run": empty})
    assert empty._repr_html_()
    assert empty.to_records() == []


def test_a_page_without_its_pictures_has_its_figures(monkeypatch):
    def fail(*_, **__):
        raise ValueError("no <such> thing")

    monkeypatch.setattr(report, "draw_parts", fail)
    page = as_page("x", {"run": FOUND})
    assert "It cannot be drawn: no &lt;such&gt; thing" in page
    assert "success rate" in page


def test_a_page_has_all_failures_and_a_sample_as_far_as_there_is_room():
    records = [make_record(n, float(n % 4 > 0)) for n in range(200)]
    page = as_page("x", {"run": Evaluation(records)})
    listed = [record for n, record in enumerate(records) if f"<span>row {n}<" in page]
    failures = [record for record in records if not record.success]
    assert all(record in listed for record in failures)
    assert len(failures) < len(listed) <= len(failures) + 20
    assert f"{len(listed)} of 200 episodes: a sample, and all failures" in page
    # One style sheet for all cards, not one for each.
    assert page.count(".ors-head{") == 1
    picture = image_block(encode(Image.effect_noise((300, 300), 90)))
    text = {"type": "text", "text": "lost " * 9999}
    for record in records:
        record.episode.prompt = [text, picture]
    many = [*records[:4] * 300, *records[4:]]
    page = as_page("x", {"run": Evaluation(many), "other": Evaluation(many)})
    assert len(page) < 13_000_000
    assert 5 < page.count("<img") < page.count("<details class")
    assert " failures, as more would make the page large" in page


def failed(index: int) -> Record:
    episode = Episode("math", index, "test")
    try:
        _ = 1 / 0
    except ZeroDivisionError as error:
        episode.end_without_outcome(f"ZeroDivisionError: {error}", "policy")
        episode.cause = error
    return Record(episode, None)


def test_the_first_error_of_a_policy_is_shown_with_its_place():
    found = Evaluation([failed(0), failed(1)])
    text = unfold(str(found))
    assert "nan" not in text
    assert text.startswith("FAILED          the policy raised ZeroDivisionError in")
    assert "policy 2; not in the figures. First, task 0: ZeroDivisionError: " in text
    assert f"division by zero ({__file__}:" in text
    assert "ZeroDivisionError" in as_page("All failed", {"run": found})


def test_one_failure_among_others_is_no_failure_of_all():
    text = str(Evaluation([failed(0), make_record(1)]))
    assert "FAILED" not in text
    assert "First, task 0: ZeroDivisionError" in text


def test_without_the_extra_there_are_figures_and_a_hint(monkeypatch):
    for name in ("scipy", "scipy.stats"):
        monkeypatch.setitem(sys.modules, name, None)
    found = Evaluation([make_record(0), make_record(1)])
    text = unfold(str(found))
    assert "success rate" in text
    assert text.count('pip install "ors-gym[eval]"') == 1
    assert "reward" in as_page("Bare", {"run": found})
    assert "success_low" not in found.metrics()
