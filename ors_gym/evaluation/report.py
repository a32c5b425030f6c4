"""An evaluation as text and as HTML."""

from __future__ import annotations

import html
import math
from collections.abc import Container, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ors_gym.errors import MissingExtraError
from ors_gym.evaluation.failures import describe_all_failed, describe_first_error

if TYPE_CHECKING:
    from ors_gym.evaluation.result import Evaluation

__all__ = ["as_html", "as_text", "figures_with_intervals", "summarise"]


def summarise(evaluation: Evaluation) -> list[tuple[str, str]]:
    """Return the figures in words.

    Args:
        evaluation: The evaluation.

    Returns:
        Pairs of a name and a text.
    """
    head = evaluation.head
    lines = []
    if failed := describe_all_failed(evaluation.records):
        lines.append(("FAILED", failed))
    if head:
        split = f", split {head['split']}" if head.get("split") else ""
        lines.append(("environment", f"{head.get('environment')}{split}"))
        lines.append(("policy", str(head.get("policy"))))
    lines.append(("episodes", _count(evaluation)))
    figures, hint = figures_with_intervals(evaluation)
    lines += [
        (name, f"{value}  {interval}" if interval else value)
        for name, value, interval in figures
    ]
    if hint:
        lines.append(("intervals", hint))
    lines.append(("ended by", _listed(evaluation.stop_reasons)))
    if evaluation.errors:
        first = describe_first_error(evaluation.records)
        counts = _listed(evaluation.errors)
        lines.append(("errors", f"{counts}; not in the figures. First, {first}"))
    for what in ("tool", "policy"):
        values = evaluation.latency[what]
        if not math.isnan(values["p50"]):
            shown = ", ".join(f"{q} {_seconds(s)}" for q, s in values.items())
            lines.append((f"{what} latency", shown))
    if evaluation.stopped:
        lines.append(("stopped", evaluation.stopped))
    return lines


def figures_with_intervals(
    evaluation: Evaluation,
) -> tuple[list[tuple[str, str, str]], str]:
    """Return the three main figures.

    Args:
        evaluation: The evaluation.

    Returns:
        Triples of a name, the figure and its interval, which is empty where it cannot
        be computed; and what is to be installed then, or nothing.
    """
    percent, hint = f"{evaluation.confidence:.0%} interval", ""
    figures = []
    for name, value, own, form in (
        ("success rate", evaluation.success_rate, "success_interval", ".1%"),
        ("reward", evaluation.avg_reward, "reward_interval", ".3f"),
        ("steps", evaluation.avg_steps, "steps_interval", ".2f"),
    ):
        try:
            interval = f"{percent} {getattr(evaluation, own):{form}}"
        except MissingExtraError as error:
            interval, hint = "", str(error)
        figures.append((name, f"{value:{form}}", interval))
    return figures, hint


def as_text(evaluation: Evaluation) -> str:
    """Return an evaluation as a few lines of text.

    Args:
        evaluation: The evaluation.
    """
    return "\n".join(f"{name:16}{value}" for name, value in summarise(evaluation))


def as_html(evaluation: Evaluation, without: Container[str] = ()) -> str:
    """Return an evaluation as tables of HTML, with every text escaped.

    Args:
        evaluation: The evaluation.
        without: The names of figures that are shown elsewhere.
    """
    rows = "".join(
        f"<tr><th style='text-align:left'>{html.escape(name)}</th>"
        f"<td style='text-align:left'>{html.escape(value)}</td></tr>"
        for name, value in summarise(evaluation)
        if name not in without
    )
    parts = [f"<table>{rows}</table>"]
    if len(evaluation.by_split) > 1:
        parts.append(_table(evaluation.by_split))
    if evaluation.by_tool:
        parts.append(_table(evaluation.by_tool))
    return f"<div>{''.join(parts)}</div>"


def _table(rows: Sequence[Mapping[str, Any]]) -> str:
    head = "".join(f"<th>{html.escape(_title(name))}</th>" for name in rows[0])
    body = "".join(
        "<tr>"
        + "".join(f"<td>{html.escape(_cell(value))}</td>" for value in row.values())
        + "</tr>"
        for row in rows
    )
    return f"<table><tr>{head}</tr>{body}</table>"


def _title(name: str) -> str:
    """Return what stands above a column: a percentile with its unit."""
    return f"{name} (s)" if name[1:].isdigit() else name.replace("_", " ")


def _cell(value: Any) -> str:
    if isinstance(value, float):
        return "" if math.isnan(value) else f"{value:.4g}"
    return str(value)


def _count(evaluation: Evaluation) -> str:
    there = len(evaluation.records)
    tasks = len({record.key[:2] for record in evaluation.records})
    text = f"{there} of {tasks} tasks" if there != tasks else f"{there}"
    missing = evaluation.planned - there
    if missing > 0:
        text += f", {missing} not played"
    without = there - evaluation.outcomes
    return text + (f", {without} without an outcome" if without else "")


def _listed(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {count}" for name, count in counts.items()) or "-"


def _seconds(value: float) -> str:
    return f"{value:.2f} s" if value >= 1 else f"{value * 1000:.1f} ms"
