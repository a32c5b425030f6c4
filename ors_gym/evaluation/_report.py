"""An evaluation in words: as text, and as tables of HTML."""

from __future__ import annotations

import math
import textwrap
import traceback
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from ors_gym._shown_text import clean, is_users_code
from ors_gym.display._html import escape
from ors_gym.errors import MissingExtraError
from ors_gym.evaluation import _figures as figures

if TYPE_CHECKING:
    from ors_gym.evaluation._result import Evaluation
    from ors_gym.rollout._output import Record

WARNING: Final = "WARNING"
_NOTES: Final = {"success rate": "success means", "reward": "reward interval"}
"""How a line is called that holds the note of a figure."""
_LONGEST: Final = 400
_WIDTH: Final = 80
"""Columns of the text."""
_MOST_TOOLS: Final = 10
"""Tools that a text tells of."""


def as_text(evaluation: Evaluation) -> str:
    lines = [*_summarise(evaluation), *_describe_tools(evaluation.by_tool)]
    # Further lines are indented: a tool's name must not write a line of its own.
    return "\n".join(
        textwrap.fill(
            " ".join(clean(value).splitlines()),
            _WIDTH,
            initial_indent=f"{name:16}",
            subsequent_indent=" " * 16,
            break_long_words=False,
            break_on_hyphens=False,
        )
        for name, value in lines
    )


def as_html(evaluation: Evaluation) -> str:
    """Return tables for a notebook."""
    # A notebook's own rules align cells to the right.
    left = " style='text-align:left'"
    return f"<div>{''.join(tables(evaluation, left))}</div>"


def tables(
    evaluation: Evaluation, attributes: str = "", *, brief: bool = False
) -> Iterator[str]:
    """Yield tables; ``brief`` leaves out what `main_figures` and warnings tell."""
    known = ("success rate", "reward", "steps", *_NOTES.values(), WARNING)
    rows = "".join(
        f"<tr><th{attributes}>{escape(name)}</th>"
        f"<td{attributes}>{escape(value)}</td></tr>"
        for name, value in _summarise(evaluation)
        if not (brief and name in known)
    )
    yield f"<table>{rows}</table>"
    if len(evaluation.by_split) > 1:
        yield _table(evaluation.by_split)
    if evaluation.by_tool:
        yield _table(evaluation.by_tool)
    if evaluation.errors:
        yield _table(figures.errors_by_kind(evaluation.records))


def _table(rows: Sequence[Mapping[str, Any]]) -> str:
    head = "".join(f"<th>{escape(_title(name))}</th>" for name in rows[0])
    body = "".join(
        "<tr>"
        + "".join(f"<td>{escape(_cell(value))}</td>" for value in row.values())
        + "</tr>"
        for row in rows
    )
    return f"<table><tr>{head}</tr>{body}</table>"


def _title(name: str) -> str:
    # Percentiles are p50, p90 and p99, in seconds.
    return f"{name} (s)" if name[1:].isdigit() else name.replace("_", " ")


def _cell(value: Any) -> str:
    if isinstance(value, float):
        return "" if math.isnan(value) else f"{value:.4g}"
    return str(value)


def _summarise(evaluation: Evaluation) -> list[tuple[str, str]]:
    """Return the figures as pairs of a name and a text."""
    head = evaluation.head
    lines = []
    if failed := _describe_all_failed(evaluation.records):
        lines.append(("FAILED", failed))
    lines += [(WARNING, text) for text in evaluation.warnings]
    if "environment" in head:
        split = f", split {head['split']}" if head.get("split") else ""
        lines.append(("environment", f"{head.get('environment')}{split}"))
        lines.append(("policy", str(head.get("policy"))))
    lines.append(("episodes", _count(evaluation)))
    main, hint = main_figures(evaluation)
    for one in main:
        lines.append((one.name, f"{one.value}  {one.interval}".rstrip()))
        lines += [(_NOTES[one.name], one.note)] if one.note else []
    if evaluation.outcomes and not figures.is_binary(evaluation.rewards):
        lines.append(("rewards", figures.describe_rewards(evaluation.rewards)))
    if hint:
        lines.append(("intervals", hint))
    lines.append(("ended by", _listed(evaluation.stop_reasons)))
    if attempts := figures.count_attempts(evaluation.records):
        counts = _listed(attempts)
        lines.append(("played again", f"after {counts}"))
    if evaluation.errors:
        first = _describe_first_error(evaluation.records)
        counts = _listed(evaluation.errors)
        lines.append(("errors", f"{counts}; not in the figures. First, {first}"))
    lines += _describe_costs(evaluation)
    if evaluation.stopped:
        lines.append(("stopped", evaluation.stopped))
    return lines


def _describe_costs(evaluation: Evaluation) -> Iterator[tuple[str, str]]:
    """Describe how long it took, and what the policy says that it used."""
    for what in ("tool", "policy"):
        values = evaluation.latency[what]
        if not math.isnan(values["p50"]):
            shown = ", ".join(f"{q} {_seconds(s)}" for q, s in values.items())
            yield f"{what} latency", shown
    if used := evaluation.usage:
        yield (
            "used",
            ", ".join(
                f"{name} {value:,}" if isinstance(value, int) else f"{name} {value:.4g}"
                for name, value in used.items()
            ),
        )


class Figure(NamedTuple):
    name: str
    value: str
    interval: str
    """Empty where it cannot be had."""
    note: str = ""
    """What the figure means, or how its interval was found."""


def main_figures(evaluation: Evaluation) -> tuple[list[Figure], str]:
    """Return the figures, and a hint.

    Without the extra ``eval`` the intervals are empty, and the hint says how to
    install it.
    """
    kind, hint = figures.name_interval(evaluation.confidence), ""
    shown = []
    limits = evaluation.head.get("limits")
    rule = limits.get("success", "") if isinstance(limits, Mapping) else ""
    for name, value, own, form in (
        ("success rate", evaluation.success_rate, "success_interval", ".1%"),
        ("reward", evaluation.avg_reward, "reward_interval", ".3f"),
        ("steps", evaluation.avg_steps, "steps_interval", ".2f"),
    ):
        note = rule if name == "success rate" else ""
        try:
            interval = f"{kind} {getattr(evaluation, own):{form}}"
            if name == "reward" and evaluation.outcomes:
                note = evaluation.reward_basis
        except MissingExtraError as error:
            interval, hint = "", str(error)
        if math.isnan(value):
            shown.append(Figure(name, "unknown", "no episode has an outcome"))
        else:
            shown.append(Figure(name, f"{value:{form}}", interval, note))
    return shown, hint


def _describe_tools(rows: Sequence[Mapping[str, Any]]) -> list[tuple[str, str]]:
    """Return a line for each tool: its calls, and what came of them."""
    told = [_describe_tool(row) for row in rows[:_MOST_TOOLS]]
    if len(rows) > _MOST_TOOLS:
        told.append(f"and {len(rows) - _MOST_TOOLS} more")
    return [("" if place else "tools", text) for place, text in enumerate(told)]


def _describe_tool(row: Mapping[str, Any]) -> str:
    told = [f"{row['tool']}: {row['calls']} calls"]
    for count, what in (
        (row["invalid"], "refused"),
        (row["failed"], "failed"),
        (row["null_rewards"], "without a reward"),
    ):
        told += [f"{count} {what}"] if count else []
    return ", ".join(told)


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


def _describe_first_error(records: Sequence[Record]) -> str:
    """Say what ended the first episode that an error ended: task, error and place."""
    for record in records:
        episode = record.episode
        if episode.stop_reason != "error":
            continue
        error = figures.one_line(episode.error, _LONGEST)
        place = find_place(episode.cause) if episode.error_kind == "policy" else ""
        return f"task {figures.name_task(record.key)}: {error}{place}"
    return ""


def _describe_all_failed(records: Sequence[Record]) -> str:
    """Say so if the policy failed in the same way in every episode; else return ""."""
    kinds = {record.episode.error.partition(":")[0].strip() for record in records}
    if len(kinds) != 1 or any(
        record.episode.stop_reason != "error" or record.episode.error_kind != "policy"
        for record in records
    ):
        return ""
    name = kinds.pop()
    what = f"raised {name}" if name.isidentifier() else "failed"
    return f"the policy {what} in every episode, so there are no figures"


def find_place(cause: BaseException | None) -> str:
    """Return the innermost line of the user's own code, in brackets."""
    if cause is None:
        return ""
    frames = traceback.extract_tb(cause.__traceback__)
    for frame in reversed(frames):
        if is_users_code(frame.filename):
            return f" ({frame.filename}:{frame.lineno})"
    return ""
