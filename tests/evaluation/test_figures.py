"""Figures by split and by tool, and two evaluations compared task by task."""

import pytest

from ors_gym.evaluation import Evaluation
from tests.evaluation.contract_evaluations import make_record

pytestmark = pytest.mark.unit


def test_a_comparison_is_paired_by_task():
    # Tasks of very different worth, each a little better in the first.
    worth = [float(index) for index in range(30)]
    first = Evaluation([make_record(i, w + 0.5) for i, w in enumerate(worth)])
    second = Evaluation([make_record(i, w) for i, w in enumerate([*worth, 7.0])])
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


def test_intervals_of_rates_and_steps_stay_within_what_is_possible():
    won = Evaluation([make_record(n, float(n > 0)) for n in range(6)])
    lost = Evaluation([make_record(n, 0.0) for n in range(6)])
    assert won.compare(lost).success_interval.high == 1.0
    assert lost.compare(won).success_interval.low == -1.0
    assert "+1.000]" in str(won.compare(lost)).splitlines()[1]
    long = [make_record(n, 1.0) for n in range(10)]
    long[0].episode.steps *= 50
    assert Evaluation(long).steps_interval.low == 0.0


def test_tables_by_split_and_tool():
    looked = make_record(0, 0.0, split="train", tool="look")
    found = Evaluation([make_record(0, 1.0), looked, make_record(1, None)])
    assert [row["split"] for row in found.by_split] == ["test", "train"]
    assert [row["success_rate"] for row in found.by_split] == [1.0, 0.0]
    assert [row["episodes"] for row in found.by_split] == [2, 1]
    calls = [(row["tool"], row["calls"]) for row in found.by_tool]
    assert calls == [("submit", 2), ("look", 1)]
