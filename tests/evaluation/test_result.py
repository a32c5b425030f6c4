"""What an Evaluation says of its episodes, in every form."""

from __future__ import annotations

import html.parser
import importlib
import io
import json
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib import figure as figures

from ors_gym.errors import MissingExtraError
from ors_gym.evaluation import Evaluation, Record
from ors_gym.evaluation import _plots as plots
from ors_gym.evaluation import _report as page_module
from ors_gym.evaluation._collector import ProgressBar
from ors_gym.evaluation._report import as_page
from ors_gym.rollout import Episode
from ors_gym.rollout._episode import Step


def record(index, reward, number=0, split="test", tool="submit") -> Record:
    step = Step(0, "c", tool, {}, [], reward or 0.0, seconds=0.5)
    episode = Episode("math", index, split, number, steps=[step])
    if reward is None:
        episode.end_without_outcome("<b>gone</b>", "connection")
        return Record(episode, None)
    episode.stop_reason, episode.total_reward = "finished", reward
    return Record(episode, reward > 0)


HEAD = {"environment": "<math>", "policy": "a & b", "split": "test"}
FOUND = Evaluation(
    [record(0, 1.0), record(1, 0.0), record(2, 0.5), record(3, None)],
    head=HEAD,
    planned=5,
)


def test_it_is_a_mapping_of_the_published_figures():
    assert dict(FOUND) == {
        "success_rate": 2 / 3,
        "avg_reward": 0.5,
        "avg_steps": 1.0,
        "results": FOUND.results,
    }
    assert len(FOUND) == 4
    with pytest.raises(KeyError):
        FOUND["records"]


def test_outages_are_beside_the_figures_and_not_in_them():
    assert FOUND.outcomes == 3
    assert FOUND.errors == {"connection": 1}
    assert FOUND.results[3]["success"] is None
    assert FOUND.results[3]["total_reward"] is None
    assert FOUND.metrics("x/")["x/errors/connection"] == 1.0
    assert FOUND.pass_at_k(1) == pytest.approx(2 / 3)


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

    hostile = record(1, 0.5, tool="<script>alert(1)</script>", split="<i>")
    text = Evaluation([record(0, 1.0), hostile], head=HEAD)._repr_html_()
    assert "<script>" not in text
    assert "<i>" not in text
    assert "&lt;math&gt;" in text
    checker = Checker()
    checker.feed(text)
    assert not checker.tags


def test_metrics_are_flat_finite_floats():
    metrics = FOUND.metrics()
    assert all(name.startswith("eval/") for name in metrics)
    assert all(
        type(value) is float and math.isfinite(value) for value in metrics.values()
    )
    assert metrics["eval/success_rate"] == pytest.approx(2 / 3)
    json.dumps(metrics, allow_nan=False)


def test_records_make_a_data_frame():
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame(FOUND.to_records())
    assert frame["total_reward"].mean() == 0.5
    assert list(frame["task_index"]) == [0, 1, 2, 3]
    assert {"tool_seconds", "stop_reason", "error_kind"} <= set(frame.columns)


def test_tables_by_split_and_tool():
    found = Evaluation(
        [record(0, 1.0), record(0, 0.0, split="train", tool="look"), record(1, None)]
    )
    assert [row["split"] for row in found.by_split] == ["test", "train"]
    assert [row["success_rate"] for row in found.by_split] == [1.0, 0.0]
    assert [row["episodes"] for row in found.by_split] == [2, 1]
    assert [(row["tool"], row["calls"]) for row in found.by_tool] == [
        ("submit", 2),
        ("look", 1),
    ]


def test_a_comparison_is_paired_by_task():
    # Tasks of very different worth, each a little better in the first.
    worth = [float(index) for index in range(30)]
    first = Evaluation([record(i, w + 0.5) for i, w in enumerate(worth)])
    second = Evaluation([record(i, w) for i, w in enumerate([*worth, 7.0])])
    found = first.compare(second)
    assert (found.tasks, found.only_first, found.only_second) == (30, 0, 1)
    assert found.avg_reward == pytest.approx(0.5)
    assert found.reward_interval == pytest.approx((0.5, 0.5))
    assert (found.wins, found.losses) == (1, 0)
    # Unpaired, the difference would drown in what the tasks differ by.
    low, high = first.reward_interval
    assert high - low > 2
    assert "1 better, 0 worse, 29 equal" in str(found)
    assert "<table>" in found._repr_html_()


def test_a_plot_has_four_parts_and_opens_no_window():
    figure = FOUND.plot()
    assert len(figure.axes) == 4
    assert [axes.get_xlabel() for axes in figure.axes] == [
        *("reward", "", "steps", "seconds")
    ]
    import matplotlib.pyplot as plt

    assert not plt.get_fignums()
    assert Evaluation([]).plot()._repr_png_().startswith(b"\x89PNG")


def test_nothing_evaluated_is_told_without_failing():
    empty = Evaluation([])
    assert math.isnan(empty.success_rate)
    assert "nan" in str(empty)
    assert empty._repr_html_()
    assert empty.to_records() == []


def test_what_is_missing_is_named_with_its_extra(monkeypatch):
    importing = importlib.import_module

    def without(name, package=None):
        if name.startswith(("tqdm", "scipy", "matplotlib")):
            raise ImportError(name)
        return importing(name, package)

    monkeypatch.setattr(importlib, "import_module", without)
    found = Evaluation([record(0, 1.0), record(1, 0.0)])
    assert found["success_rate"] == 0.5
    for use in (
        lambda: found.success_interval,
        lambda: found.reward_interval,
        found.plot,
        lambda: found.pass_at_k(1),
        lambda: ProgressBar(1, "math", shown=True),
    ):
        with pytest.raises(MissingExtraError, match=r'pip install "ors-gym\[eval\]"'):
            use()


def test_importing_evaluations_loads_none_of_their_libraries():
    import subprocess
    import sys

    code = (
        "import sys, ors_gym.evaluation\n"
        "print([m for m in ('scipy', 'tqdm', 'matplotlib') if m in sys.modules])"
    )
    run = [sys.executable, "-c", code]
    said = subprocess.run(run, capture_output=True, text=True, check=True, timeout=60)
    assert said.stdout.strip() == "[]"


def test_intervals_of_rates_and_steps_stay_within_what_is_possible():
    won = Evaluation([record(n, float(n > 0)) for n in range(6)])
    lost = Evaluation([record(n, 0.0) for n in range(6)])
    assert won.compare(lost).success_interval.high == 1.0
    assert lost.compare(won).success_interval.low == -1.0
    assert "+1.000]" in str(won.compare(lost)).splitlines()[1]
    long = [record(n, 1.0) for n in range(10)]
    long[0].episode.steps *= 50
    assert Evaluation(long).steps_interval.low == 0.0


NAMES = ["a$\\frac$", "$", "\\$x$", "", "all", "x" * 300, "\x00\ud800\x1b<b>-->"]


def test_splits_of_any_name_are_drawn():
    found = Evaluation([record(1, 1.0, split=name) for name in NAMES])
    page = as_page("names", {"run": found})
    assert page.count("<img") == 4
    assert "cannot be drawn" not in page
    axes = found.plot().axes[1]
    assert len(axes.patches) == len(NAMES)


@pytest.mark.parametrize(
    "rewards",
    [
        [1e308, -1e308, 1e308],
        [1e17, 1e17],
        [1e300, 1e300 * (1 + 2e-16)],
        [1.0, 1.0 + 2e-16],
        [0.0, 5e-324],
        [1e308, 1.0, math.inf],
        [math.inf, -math.inf],
    ],
)
def test_rewards_of_any_size_are_drawn(rewards):
    found = Evaluation([record(n, reward) for n, reward in enumerate(rewards)])
    page = as_page("rewards", {"run": found})
    assert page.count("<img") == 4
    assert str(found)
    assert isinstance(found.plot()._repr_png_(), bytes)


@given(st.lists(st.floats(allow_nan=False), min_size=1, max_size=5))
@settings(max_examples=25, deadline=None)
def test_any_rewards_are_drawn(rewards):
    found = Evaluation([record(n, reward) for n, reward in enumerate(rewards)])
    figure = figures.Figure()
    plots._draw_rewards(figure.subplots(), found)
    figure.savefig(io.BytesIO(), format="svg")


def test_a_page_without_its_pictures_has_its_figures(monkeypatch):
    def fail(*_, **__):
        raise ValueError("no <such> thing")

    monkeypatch.setattr(page_module, "draw_parts", fail)
    page = as_page("x", {"run": FOUND})
    assert "It cannot be drawn: no &lt;such&gt; thing" in page
    assert "success rate" in page
