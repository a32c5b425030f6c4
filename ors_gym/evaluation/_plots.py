"""The pictures of an evaluation: one figure of four parts, or each part by itself."""

from __future__ import annotations

import base64
import functools
import io
import math
import threading
from collections import Counter
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from ors_gym._shown_text import clean, shorten
from ors_gym.errors import import_extra
from ors_gym.evaluation._figures import name_interval

if TYPE_CHECKING:
    from ors_gym.evaluation._result import Evaluation

_LIGHT: Final = "#222222"
_DARK: Final = "#dddddd"
_INK: Final = (
    "text.color",
    "axes.edgecolor",
    "axes.labelcolor",
    "xtick.color",
    "ytick.color",
)
_NO_BACKGROUND: Final = ("figure.facecolor", "axes.facecolor", "legend.facecolor")
_FILL: Final = "#4477aa"
_LEAST: Final = 1e-9
_MOST: Final = 1e9
"""If the largest value is outside of these, values are divided by a power of ten."""
_MOST_BARS: Final = 12
"""With more distinct values than this, a histogram is drawn."""
_MOST_IN_A_ROW: Final = 32
"""With more characters than this in all, labels are turned by 45 degrees."""
_LONGEST_NAME: Final = 24
_PART_SIZE: Final = (4.8, 3.4)
"""Inches. On a phone's screen, text in it is as large as the page's text."""
_RC_LOCK: Final = threading.Lock()
"""matplotlib's settings are the process's: of two threads that change them for a while,
the one that ends last would put the other's in place for good."""


def draw(evaluation: Evaluation) -> Any:
    """Draw rewards, success rates with intervals, steps and latencies in one figure.

    The figure belongs to no window, so that nothing has to be closed, and no backend
    is chosen for the rest of the process.
    """
    figure = import_extra("matplotlib.figure", "eval", "A plot").Figure(
        figsize=(10, 7), layout="constrained"
    )
    for part, axes in zip(_PARTS.values(), figure.subplots(2, 2).flat, strict=True):
        part(axes, evaluation)
    # A notebook shows a figure by itself only once pyplot was imported.
    figure._repr_png_ = functools.partial(_to_png, figure)
    return figure


def _to_png(figure: Any) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()


def draw_parts(evaluation: Evaluation, *, dark: bool) -> dict[str, str]:
    """Return a data URL for each part, a picture without a background for a page.

    The keys say what each part shows.
    """
    matplotlib = import_extra("matplotlib", "eval", "A plot")
    make_figure = import_extra("matplotlib.figure", "eval", "A plot").Figure
    ink = _DARK if dark else _LIGHT
    colours = dict.fromkeys(_INK, ink)
    colours |= dict.fromkeys(_NO_BACKGROUND, "none")
    drawn = {}
    # Without the salt, two pages of one evaluation would differ.
    settings = {**colours, "svg.hashsalt": "ors_gym"}
    with _RC_LOCK, matplotlib.rc_context(settings):
        for name, part in _PARTS.items():
            figure = make_figure(figsize=_PART_SIZE, layout="constrained")
            part(figure.subplots(), evaluation)
            picture = io.BytesIO()
            figure.savefig(picture, format="svg", metadata={"Date": None})
            encoded = base64.b64encode(picture.getvalue()).decode()
            drawn[name] = f"data:image/svg+xml;base64,{encoded}"
    return drawn


def _draw_histogram(axes: Any, values: list[Any], name: str) -> None:
    values = [value for value in values if math.isfinite(value)]
    axes.set_xlabel(name)
    axes.set_ylabel("episodes")
    axes.yaxis.get_major_locator().set_params(integer=True)
    counts = Counter(f"{value:.6g}" for value in sorted(values))
    if len(counts) == 1:
        axes.set_xlabel(f"{name}, the same in every episode")
    is_whole = bool(values) and isinstance(values[0], int)
    if len(counts) <= (1 if is_whole else _MOST_BARS):
        # A bar for each value: bins would make a range of it.
        axes.bar(range(len(counts)), list(counts.values()), color=_FILL, width=0.6)
        turned = 45 if len("".join(counts)) > _MOST_IN_A_ROW else 0
        axes.set_xticks(range(len(counts)), list(counts), rotation=turned)
        axes.set_xlim(-1, max(1, len(counts)))
        return
    largest = max(map(abs, values), default=0)
    if largest and not _LEAST < largest < _MOST:
        unit = 10.0 ** max(math.floor(math.log10(largest)), -300)
        values = [value / unit for value in values]
        axes.set_xlabel(f"{name} / {unit:g}")
    bins: Any = min(30, max(10, len(counts)))
    if is_whole and max(values) - min(values) < 30:
        # One bar for each whole number, centred on it.
        bins = [number - 0.5 for number in range(min(values), max(values) + 2)]
    axes.hist(values, bins=bins, color=_FILL, edgecolor="none", rwidth=0.95)


def _draw_rewards(axes: Any, evaluation: Evaluation) -> None:
    _draw_histogram(axes, evaluation.rewards, "reward")


def _draw_steps(axes: Any, evaluation: Evaluation) -> None:
    outcomes = [record for record in evaluation.records if record.has_outcome]
    counts = [len(record.episode.steps) for record in outcomes]
    _draw_histogram(axes, counts, "steps")
    if len(set(counts)) > 1:
        axes.xaxis.get_major_locator().set_params(integer=True)


def _draw_success(axes: Any, evaluation: Evaluation) -> None:
    rows = [row for row in evaluation.by_split if row["outcomes"]]
    names = [_label(row["split"] or "all") for row in rows]
    places = range(len(rows))
    rates = [row["success_rate"] for row in rows]
    below = [_reach(row["success_rate"], row["success_low"]) for row in rows]
    above = [_reach(row["success_high"], row["success_rate"]) for row in rows]
    bars = {"color": "#66ccee", "ecolor": "#888888", "capsize": 6, "width": 0.5}
    axes.bar(places, rates, yerr=[below, above], **bars)
    axes.set_xticks(places, names)
    axes.set_xlim(-1, max(1, len(rows)))
    axes.set_ylim(0, 1.05)
    axes.set_ylabel(f"success rate, {name_interval(evaluation.confidence)}")


def _label(text: str) -> str:
    """Return a label that matplotlib does not read as a formula."""
    return clean(shorten(text, _LONGEST_NAME)).replace("$", r"\$")


def _reach(high: float, low: float) -> float:
    """Return the length of an error bar, 0 where the interval is unknown."""
    length = high - low
    return 0.0 if math.isnan(length) else max(0.0, length)


def _draw_latency(axes: Any, evaluation: Evaluation) -> None:
    episodes = evaluation.episodes
    seconds = {
        "tool": [step.seconds for one in episodes for step in one.steps],
        "policy": [turn.seconds for one in episodes for turn in one.turns],
        "set-up": [one.setup_seconds for one in episodes],
    }
    for name, values in seconds.items():
        if values:
            axes.ecdf(values, label=name)
            axes.set_xscale("log")
    if any(seconds.values()):
        axes.legend()
    axes.set_xlabel("seconds")
    axes.set_ylabel("share of calls")


_PARTS: Final[dict[str, Callable[[Any, Evaluation], None]]] = {
    "How many episodes got which reward": _draw_rewards,
    "Success rate of each split, with its interval": _draw_success,
    "How many episodes took how many steps": _draw_steps,
    "Share of tool calls, policy turns and set-ups that took so long": _draw_latency,
}
"""What each part shows, for people who cannot see it; and the function that draws."""
