"""What an Evaluation says of its episodes, in every form."""

from __future__ import annotations

import html.parser
import importlib
import json
import math

import pytest

from ors_gym.errors import MissingExtraError
from ors_gym.evaluation import Evaluation, Record
from ors_gym.evaluation.progress import Progress
from ors_gym.rollout import Episode
from ors_gym.rollout.turn import Step


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
        lambda: Progress(1, "math", shown=True),
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
