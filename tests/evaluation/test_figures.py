"""Figures by split and by tool, and two evaluations compared task by task."""

import math
from typing import Any

import pytest

from ors_gym.errors import InvalidRequestError
from ors_gym.evaluation import Evaluation
from ors_gym.evaluation._page import as_page
from ors_gym.rollout import Step
from tests.evaluation.contract_evaluations import make_record, unfold

pytestmark = pytest.mark.unit


def test_different_environments_are_not_compared():
    found = Evaluation([make_record(0)], head={"environment": "Math"})
    other = Evaluation([make_record(0)], head={"environment": "maze"})
    with pytest.raises(InvalidRequestError, match="Math and maze are different env"):
        found.compare(other)
    for same in ({"environment": "math"}, {}):
        assert found.compare(Evaluation([make_record(0)], head=same)).tasks == 1


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


def test_a_comparison_without_a_task_in_common_is_unknown():
    found = Evaluation([make_record(0)]).compare(Evaluation([make_record(1)]))
    assert (found.tasks, found.only_first, found.only_second) == (0, 1, 1)
    assert "success rate  unknown\nreward        unknown\n" in str(found)


@pytest.mark.parametrize("confidence", [0, 1, 95, float("nan"), -0.1])
def test_what_is_no_probability_of_an_interval_is_refused(confidence):
    with pytest.raises(InvalidRequestError, match="confidence is"):
        Evaluation([], confidence=confidence)


def test_an_interval_is_named_by_its_whole_probability():
    records = [make_record(n, float(n > 0)) for n in range(6)]
    assert "  99.9% interval [" in str(Evaluation(records, confidence=0.999))
    assert "  99% interval [" in str(Evaluation(records, confidence=0.99))


def test_intervals_of_rates_and_steps_stay_within_what_is_possible():
    won = Evaluation([make_record(n, float(n > 0)) for n in range(6)])
    lost = Evaluation([make_record(n, 0.0) for n in range(6)])
    assert won.compare(lost).success_interval.high == 1.0
    assert lost.compare(won).success_interval.low == -1.0
    assert "+1.000]" in str(won.compare(lost)).splitlines()[1]
    long = [make_record(n, 1.0) for n in range(10)]
    long[0].episode.steps *= 50
    assert Evaluation(long).steps_interval.low == 0.0


def test_rewards_of_0_and_1_have_the_interval_of_a_rate():
    found = Evaluation([make_record(n, float(n > 0)) for n in range(25)])
    assert found.avg_reward == 0.96
    assert found.reward_interval == found.success_interval
    assert found.reward_interval.high < 1
    assert found.reward_basis == "Wilson, rewards 0 and 1"


def guesses(count: int = 25, **options: Any) -> Evaluation:
    """Rewards of at most 1, which the interval of the bootstrap leaves."""
    rewards = [0.75 if n == 0 else 1.0 for n in range(count)]
    records = [make_record(n, reward) for n, reward in enumerate(rewards)]
    return Evaluation(records, **options)


def test_an_interval_leaves_the_known_range_of_rewards_never():
    unknown, known = guesses(), guesses(reward_range=(-0.625, 1))
    assert unknown.reward_interval.high > 1
    assert unknown.reward_basis == "bootstrap, no range of rewards known"
    assert known.reward_interval == (unknown.reward_interval.low, 1.0)
    assert known.reward_basis == "bootstrap, rewards within -0.625 and 1"
    assert "rewards within -0.625 and 1" in str(known)
    by_head = guesses(head={"limits": {"reward_range": [-0.625, 1]}})
    assert by_head.reward_interval == known.reward_interval
    # A range that is wrong is not used, and said to be wrong.
    wrong = guesses(reward_range=(0, 0.9))
    assert wrong.reward_interval == unknown.reward_interval
    assert "a reward of 1 is outside reward_range" in unfold(str(wrong))
    lost = guesses(reward_range=(-0.625, 1))
    for record in lost.records[1:]:
        record.episode.total_reward = -0.625
    assert lost.compare(known).reward_interval.low == -1.625
    for bounds, words in (
        ((-0.625, math.inf), "at least -0.625"),
        ((-math.inf, 1), "at most 1"),
    ):
        assert guesses(reward_range=bounds).reward_basis.endswith(f"rewards {words}")
    nonsenses: tuple[Any, ...] = ((1, 0), (1,), "01", (None, 1))
    for nonsense in nonsenses:
        with pytest.raises(InvalidRequestError, match="two numbers"):
            Evaluation([], reward_range=nonsense)


BUNDLED = {
    "served": "bundled",
    "environment": "guess",
    "limits": {"reward_reduction": "sum", "nonterminal_reward": 0.0},
}


@pytest.mark.parametrize(
    ("changed", "basis"),
    [
        ({}, "rewards within -0.625 and 1"),
        ({"environment": "maze"}, "rewards at most 1"),
        ({"environment": "chess"}, "no range of rewards known"),
        # Another server's game of that name, and rewards that the run adds itself.
        ({"served": None}, "no range of rewards known"),
        ({"limits": {"reward_reduction": "mean"}}, "no range of rewards known"),
        (
            {"limits": {"reward_reduction": "sum", "invalid_action_reward": -1.0}},
            "no range of rewards known",
        ),
    ],
)
def test_the_range_of_a_bundled_environments_rewards_is_known(changed, basis):
    found = guesses(head=BUNDLED | changed)
    assert found.reward_basis == f"bootstrap, {basis}"
    assert (found.reward_interval.high > 1) == ("no range" in basis)


def test_every_order_of_the_rows_has_the_same_figures():
    records = [
        make_record(n % 7, 1.1 * n, split="ab"[n % 2], number=n // 7) for n in range(28)
    ]
    one, other = Evaluation(records), Evaluation(records[::-1])
    assert one.metrics() == other.metrics()
    # As text: from Python 3.13 on a dataclass with a NaN is not equal to its twin.
    assert repr(one.compare(guesses())) == repr(other.compare(guesses()))


def with_steps(*steps: tuple[str, str, str], reward: float = 0.0) -> Evaluation:
    """Return an evaluation of one episode: tool, kind of error and error of each."""
    record = make_record(0, reward)
    record.episode.steps = [
        Step(n, "c", tool, {}, [], reward, error=error, error_kind=kind, seconds=0.5)
        for n, (tool, kind, error) in enumerate(steps)
    ]
    return Evaluation([record])


REFUSED = ("move", "invalid_action", "direction must be one\nof up, down")
RAISED = ("judge", "tool_failed", "the grader is down")
RAN = ("look", "", "")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("steps", "said"),
    [
        (
            [REFUSED] * 3 + [RAN],
            ["3 of 4 calls were refused. The first, of move: direction must be one"],
        ),
        ([RAISED] * 5, ["5 of 5 calls failed in the tool. The first, of judge: the g"]),
        (
            [REFUSED, RAISED] * 2,
            ["2 of 4 calls were refused and 2 failed in the tool. The first, of move"],
        ),
        # Most calls went well, and yet no call of one tool ever did.
        ([REFUSED] * 3 + [RAN] * 9, ["3 of 3 calls of move were refused"]),
        ([REFUSED] * 2 + [("move", "", "")] * 2, []),
        ([REFUSED] * 2 + [RAN] * 3, []),
        ([("", "invalid_action", "no call")] * 9 + [RAN], []),
        ([], []),
    ],
)
def test_calls_that_mostly_go_wrong_are_a_warning(steps, said):
    found = with_steps(*steps)
    assert len(found.warnings) == len(said)
    for warning, words in zip(found.warnings, said, strict=True):
        assert words in warning
        assert f"WARNING         {words}" in unfold(str(found))
        assert max(map(len, str(found).splitlines())) <= 80
        assert words in as_page("x", {"run": found})


def test_a_reward_that_is_always_null_is_a_warning():
    found = with_steps(RAN, RAN)
    found.episodes[0].steps[0].reward_is_null = True
    assert Evaluation(found.records).warnings == []
    found.episodes[0].steps[1].reward_is_null = True
    assert found.warnings[0].startswith(
        "no reward was ever given: it was null in all 2"
    )
    assert "look: 2 calls, 2 without a reward" in str(found)
    assert found.metrics("")["null_rewards"] == 2.0


def test_metrics_count_what_went_wrong_for_each_tool():
    found = with_steps(REFUSED, RAISED, RAN, ("made up", "invalid_action", "no tool"))
    found.episodes[0].tools = [{"name": "move", "description": "", "input_schema": {}}]
    metrics = found.metrics("")
    assert (metrics["calls"], metrics["invalid_calls"], metrics["failed_calls"]) == (
        (4, 2, 1)
    )
    assert metrics["tools/move/invalid"] == metrics["tools/judge/failed"] == 1.0
    assert metrics["tools/unknown/calls"] == metrics["tools/look/calls"] == 1.0
    lost = with_steps(("", "connection_failed", "gone"))
    assert lost.metrics("")["tools/none/calls"] == 1.0
    rows = {row["tool"]: row for row in found.by_tool}
    assert (rows["move"]["invalid"], rows["judge"]["failed"]) == (1, 1)


@pytest.mark.parametrize(
    ("rewards", "said"),
    [
        ([0.5] * 20, "rewards         0.5 in all 20"),
        ([1.0, -1.0, 0.0, -1.0], "rewards         -1 in 2, 0 in 1, 1 in 1"),
        ([n / 4 for n in range(9)], "rewards         0 to 2, quartiles 0.5, 1, 1.5"),
        ([0.0, 1.0], None),
    ],
)
def test_rewards_that_are_not_0_or_1_are_told_with_the_rule_of_success(rewards, said):
    """A drawn debate, 0.5, is a success by the default rule."""
    head = {"limits": {"success": "finished and total_reward > 0"}}
    records = [make_record(n, reward) for n, reward in enumerate(rewards)]
    text = str(Evaluation(records, head=head))
    assert "\nsuccess means   finished and total_reward > 0\nreward  " in text
    assert said in text if said else "\nrewards" not in text


def test_tables_by_split_and_tool():
    looked = make_record(0, 0.0, split="train", tool="look")
    found = Evaluation([make_record(0, 1.0), looked, make_record(1, None)])
    assert [row["split"] for row in found.by_split] == ["test", "train"]
    assert [row["success_rate"] for row in found.by_split] == [1.0, 0.0]
    assert [row["episodes"] for row in found.by_split] == [2, 1]
    calls = [(row["tool"], row["calls"]) for row in found.by_tool]
    assert calls == [("submit", 2), ("look", 1)]
