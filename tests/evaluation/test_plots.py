"""The pictures of an evaluation, whatever its names and rewards."""

import io
import math
from concurrent.futures import ThreadPoolExecutor

import matplotlib as mpl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib import figure as figures

from ors_gym.evaluation import Evaluation
from ors_gym.evaluation import _plots as plots
from ors_gym.evaluation._page import as_page
from tests.evaluation.contract_evaluations import FOUND, make_record
from tests.support.slow_cases import mostly_slow


def test_a_plot_has_four_parts_and_opens_no_window():
    figure = FOUND.plot()
    assert len(figure.axes) == 4
    labels = [axes.get_xlabel() for axes in figure.axes]
    assert labels == ["reward", "", "steps, the same in every episode", "seconds"]
    import matplotlib.pyplot as plt

    assert not plt.get_fignums()
    assert Evaluation([]).plot()._repr_png_().startswith(b"\x89PNG")


NAMES = ["a$\\frac$", "$", "\\$x$", "", "all", "x" * 300, "\x00\ud800\x1b<b>-->"]


def test_splits_of_any_name_are_drawn():
    found = Evaluation([make_record(1, 1.0, split=name) for name in NAMES])
    page = as_page("names", {"run": found})
    assert page.count("<img") == 4
    assert "cannot be drawn" not in page
    axes = found.plot().axes[1]
    assert len(axes.patches) == len(NAMES)


@pytest.mark.parametrize(
    ("rewards", "bars"),
    [
        ([0.5] * 9, {"0.5": 9}),
        ([-1.0, 1.0, 1.0, 0.0], {"-1": 1, "0": 1, "1": 2}),
    ],
)
def test_few_rewards_are_a_bar_each(rewards, bars):
    """A constant reward looked like one spread between 0 and 1."""
    found = Evaluation([make_record(n, reward) for n, reward in enumerate(rewards)])
    axes = found.plot().axes[0]
    ticks = [tick.get_text() for tick in axes.get_xticklabels()]
    heights = [bar.get_height() for bar in axes.patches]
    assert dict(zip(ticks, heights, strict=True)) == bars
    assert ("the same in every episode" in axes.get_xlabel()) == (len(bars) == 1)


@pytest.mark.slow
@pytest.mark.parametrize(
    "rewards",
    mostly_slow(
        [
            [1e308, -1e308, 1e308],
            [0.0, 5e-324],
            [1e308, 1.0, math.inf],
            [1e17, 1e17],
            [1e300, 1e300 * (1 + 2e-16)],
            [1.0, 1.0 + 2e-16],
            [math.inf, -math.inf],
        ],
        usual=3,
    ),
)
def test_rewards_of_any_size_are_drawn(rewards):
    found = Evaluation([make_record(n, reward) for n, reward in enumerate(rewards)])
    page = as_page("rewards", {"run": found})
    assert page.count("<img") == 4
    assert str(found)
    assert isinstance(found.plot()._repr_png_(), bytes)


@given(st.lists(st.floats(allow_nan=False), min_size=1, max_size=5))
@settings(max_examples=25)
def test_any_rewards_are_drawn(rewards):
    found = Evaluation([make_record(n, reward) for n, reward in enumerate(rewards)])
    figure = figures.Figure()
    plots._draw_rewards(figure.subplots(), found)
    figure.savefig(io.BytesIO(), format="svg")


@pytest.mark.slow
def test_threads_that_draw_at_once_leave_matplotlibs_settings_alone():
    before = dict(mpl.rcParams)
    with ThreadPoolExecutor(4) as pool:
        drawn = list(
            pool.map(lambda n: plots.draw_parts(FOUND, dark=n % 2 > 0), range(4))
        )
    assert drawn[0] == drawn[2] != drawn[1] == drawn[3]
    assert dict(mpl.rcParams) == before
