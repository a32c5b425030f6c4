"""An evaluation in words: as text, as HTML for a notebook, and as a page."""

from __future__ import annotations

import html
import math
import sysconfig
import traceback
from collections.abc import Container, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from ors_gym.errors import MissingExtraError
from ors_gym.evaluation._plots import draw_parts

if TYPE_CHECKING:
    from ors_gym.evaluation._figures import Comparison
    from ors_gym.evaluation._output import Record
    from ors_gym.evaluation._result import Evaluation

_ON_CARDS: Final = ("success rate", "reward", "steps")
"""Figures that a page shows on cards, and not once more in its table."""
_OURS: Final = str(Path(__file__).parents[1])
_STANDARD: Final = sysconfig.get_path("stdlib")
_LONGEST: Final = 400


def as_text(evaluation: Evaluation) -> str:
    return "\n".join(f"{name:16}{value}" for name, value in _summarise(evaluation))


def as_html(evaluation: Evaluation, without: Container[str] = ()) -> str:
    """Return tables of HTML, ``without`` figures that are shown elsewhere."""
    rows = "".join(
        f"<tr><th style='text-align:left'>{html.escape(name)}</th>"
        f"<td style='text-align:left'>{html.escape(value)}</td></tr>"
        for name, value in _summarise(evaluation)
        if name not in without
    )
    parts = [f"<table>{rows}</table>"]
    if len(evaluation.by_split) > 1:
        parts.append(_table(evaluation.by_split))
    if evaluation.by_tool:
        parts.append(_table(evaluation.by_tool))
    return f"<div>{''.join(parts)}</div>"


def as_page(
    title: str,
    evaluations: dict[str, Evaluation],
    comparison: tuple[str, Comparison] | None = None,
) -> str:
    """Return a page of evaluations, with their plots where matplotlib is installed.

    The page loads nothing, every text in it is escaped, and it is dark where the reader
    prefers that. ``comparison`` is one of two evaluations, with a name for it.
    """
    parts = [f"<h1>{html.escape(title)}</h1>"]
    for name, evaluation in evaluations.items():
        parts += _section(name, evaluation)
    if comparison is not None:
        name, found = comparison
        parts += [_heading(name), _scrolling(found._repr_html_())]
    return _PAGE.format(title=html.escape(title), style=_STYLE, body="\n".join(parts))


def _section(name: str, evaluation: Evaluation) -> list[str]:
    tables = as_html(evaluation, without=_ON_CARDS)
    parts = [_heading(name), _cards(evaluation), _scrolling(tables)]
    if not evaluation.outcomes:
        return parts
    try:
        return [*parts, _plots(evaluation)]
    except MissingExtraError as error:
        return [*parts, f"<p>{html.escape(str(error))}</p>"]
    except ValueError as error:
        # The figures above must not be lost for the pictures.
        return [*parts, f"<p>It cannot be drawn: {html.escape(str(error))}</p>"]


def _heading(text: str) -> str:
    return f"<h2>{html.escape(text)}</h2>"


def _scrolling(table: str) -> str:
    """Let a table that is wider than the page scroll by itself."""
    return f'<div class="scroll">{table}</div>'


def _cards(evaluation: Evaluation) -> str:
    without = len(evaluation.records) - evaluation.outcomes
    figures, _ = _main_figures(evaluation)
    cards = [
        (name, value, more.replace(" interval", "")) for name, value, more in figures
    ]
    cards.append(
        ("outcomes", f"{evaluation.outcomes}", f"{without} episodes without one")
    )
    shown = "".join(
        f"<div><dt>{name}</dt><dd>{value}</dd><dd>{more}</dd></div>"
        for name, value, more in cards
    )
    return f'<dl class="cards">{shown}</dl>'


def _plots(evaluation: Evaluation) -> str:
    light, dark = (draw_parts(evaluation, dark=dark) for dark in (False, True))
    pictures = "".join(
        f'<picture><source media="(prefers-color-scheme: dark)" srcset="{dark[shows]}">'
        f'<img alt="{html.escape(shows)}" src="{light[shows]}"></picture>'
        for shows in light
    )
    return f'<div class="plots">{pictures}</div>'


_STYLE: Final = """\
:root { color-scheme: light dark; --ink: #222; --faint: #667; --line: #d5d8dd;
  --card: #f5f6f8; --page: #fff }
@media (prefers-color-scheme: dark) { :root { --ink: #ddd; --faint: #99a;
  --line: #3a3f47; --card: #1f2329; --page: #15181c } }
* { box-sizing: border-box }
body { margin: 0 auto; max-width: 76rem; padding: 1.5rem 1rem 3rem; color: var(--ink);
  background: var(--page); font: 16px/1.5 system-ui, sans-serif }
h1 { font-size: 1.6rem; margin: 0 0 1rem }
h2 { font-size: 1.2rem; margin: 2.5rem 0 .75rem }
h1, h2 { overflow-wrap: anywhere; line-height: 1.25 }
.cards { display: grid; gap: .75rem; margin: 0 0 1.5rem;
  grid-template-columns: repeat(auto-fit, minmax(9.5rem, 1fr)) }
.cards div { background: var(--card); border-radius: .5rem; padding: .75rem 1rem }
.cards dt { color: var(--faint) } .cards dd { margin: 0 }
.cards dd:nth-of-type(1) { font-size: 1.6rem; line-height: 1.3 }
.cards dd:nth-of-type(2) { color: var(--faint); font-size: .85rem }
.scroll { overflow-x: auto }
.scroll div { display: grid; gap: 1.25rem; justify-items: start;
  grid-template-columns: minmax(0, 1fr) }
table { border-collapse: collapse; font-variant-numeric: tabular-nums }
th, td { padding: .3rem .9rem .3rem 0; border-bottom: 1px solid var(--line);
  text-align: left; vertical-align: top } th { font-weight: 600; white-space: nowrap }
.plots { display: grid; gap: 1rem; margin-top: 1.5rem;
  grid-template-columns: repeat(auto-fit, minmax(min(100%, 26rem), 1fr)) }
.plots img { width: 100%; height: auto; display: block }
"""

_PAGE: Final = """\
<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<link rel="icon" href="data:,">
<title>{title}</title>
<style>
{style}</style>
</head>
<body>
{body}
</body>
</html>
"""


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
    if head:
        split = f", split {head['split']}" if head.get("split") else ""
        lines.append(("environment", f"{head.get('environment')}{split}"))
        lines.append(("policy", str(head.get("policy"))))
    lines.append(("episodes", _count(evaluation)))
    figures, hint = _main_figures(evaluation)
    lines += [
        (name, f"{value}  {interval}" if interval else value)
        for name, value, interval in figures
    ]
    if hint:
        lines.append(("intervals", hint))
    lines.append(("ended by", _listed(evaluation.stop_reasons)))
    if evaluation.errors:
        first = _describe_first_error(evaluation.records)
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


def _main_figures(evaluation: Evaluation) -> tuple[list[tuple[str, str, str]], str]:
    """Return triples of a name, a figure and its interval, and a hint.

    Without the extra ``eval`` the intervals are empty, and the hint says how to
    install it.
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
        error = " ".join(episode.error.split())
        if len(error) > _LONGEST:
            error = error[:_LONGEST] + "..."
        place = _find_place(episode.cause) if episode.error_kind == "policy" else ""
        return f"task {record.key[1]}: {error}{place}"
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


def _find_place(cause: BaseException | None) -> str:
    """Return the innermost line of the user's own code, in brackets."""
    if cause is None:
        return ""
    frames = traceback.extract_tb(cause.__traceback__)
    for frame in reversed(frames):
        name = frame.filename
        installed = "site-packages" in name or "dist-packages" in name
        if not installed and not name.startswith((_OURS, _STANDARD, "<frozen")):
            return f" ({name}:{frame.lineno})"
    return ""
