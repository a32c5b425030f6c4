"""An evaluation in words: text, and HTML for a notebook."""

import html.parser
import math
import sys

import pytest

from ors_gym.evaluation import Evaluation, Record
from ors_gym.evaluation._page import as_page
from ors_gym.rollout import Episode
from ors_gym.rollout._episode import Attempt
from tests.evaluation.contract_evaluations import FOUND, make_record, unfold

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


def test_a_task_without_an_index_is_told_by_the_beginning_of_its_digest():
    record = Record(Episode("math", -1, "test"), None, {"question": "2 + 2?"})
    record.episode.end_without_outcome("gone", "connection")
    digest = str(record.key[1])
    text = unfold(str(Evaluation([record])))
    assert f"First, task {digest[:12]}: gone" in text
    assert digest not in text


def test_one_failure_among_others_is_no_failure_of_all():
    text = str(Evaluation([failed(0), make_record(1)]))
    assert "FAILED" not in text
    assert "First, task 0: ZeroDivisionError" in text


def test_it_says_what_was_played_again_and_why():
    record = make_record(0)
    attempt = Attempt("timeout", "no reply", 0.0, 1.0, 2)
    record.episode.attempts = [attempt, attempt]
    assert "played again    after timeout 2" in str(Evaluation([record]))
    assert "played again after timeout, timeout" in record.episode._repr_html_()


def test_without_the_extra_there_are_figures_and_a_hint(monkeypatch):
    for name in ("scipy", "scipy.stats"):
        monkeypatch.setitem(sys.modules, name, None)
    found = Evaluation([make_record(0), make_record(1)])
    text = unfold(str(found))
    assert "success rate" in text
    assert text.count('pip install "ors-gym[eval]"') == 1
    assert "reward" in as_page("Bare", {"run": found})
    assert "success_low" not in found.metrics()
