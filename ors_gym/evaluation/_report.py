"""An evaluation in words: as text, as HTML for a notebook, and as a page."""

from __future__ import annotations

import math
import textwrap
import traceback
from collections.abc import Container, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from ors_gym._shown_text import clean, is_users_code
from ors_gym.display._cards import episode_card
from ors_gym.display._html import ImageBudget, escape, under_one_style
from ors_gym.errors import MissingExtraError
from ors_gym.evaluation import _figures as figures
from ors_gym.evaluation._plots import draw_parts

if TYPE_CHECKING:
    from ors_gym.evaluation._figures import Comparison
    from ors_gym.evaluation._result import Evaluation
    from ors_gym.rollout._output import Record

_WARNING: Final = "WARNING"
_NOTES: Final = {"success rate": "success means", "reward": "reward interval"}
"""How a line is called that holds the note of a figure."""
_ON_CARDS: Final = ("success rate", "reward", "steps", *_NOTES.values(), _WARNING)
"""What a page shows by itself, and not once more in its table."""
_LONGEST: Final = 400
_SHORT: Final = 24
_WIDTH: Final = 80
"""Columns of the text."""


_MOST_TOOLS: Final = 10
"""Tools that a text tells of."""
_SAMPLED: Final = 20
"""Episodes that a page shows whatever came of them."""
_MOST_CHARACTERS: Final = 12_000_000
"""Characters of the transcripts of a page, half of them for pictures."""


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


def as_html(evaluation: Evaluation, without: Container[str] = ()) -> str:
    """Return tables of HTML, ``without`` figures that are shown elsewhere."""
    rows = "".join(
        f"<tr><th style='text-align:left'>{escape(name)}</th>"
        f"<td style='text-align:left'>{escape(value)}</td></tr>"
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
    """Return a page of evaluations: figures, plots and transcripts.

    Plots need matplotlib. The page loads nothing and runs nothing, every text in it is
    escaped, and it is dark where the reader prefers that. ``comparison`` is one of two
    evaluations, with a name for it.
    """
    parts = [f"<h1>{escape(title)}</h1>"]
    if comparison is not None:
        name, found = comparison
        parts += [_heading(name), _scrolling(found._repr_html_())]
    characters = _MOST_CHARACTERS // max(1, len(evaluations))
    for name, evaluation in evaluations.items():
        parts += _section(name, evaluation)
        parts.append(_transcripts(name, evaluation, characters))
    body = under_one_style("\n".join(parts))
    return _PAGE.format(title=escape(title), style=_STYLE, body=body)


def _section(name: str, evaluation: Evaluation) -> list[str]:
    tables = as_html(evaluation, without=_ON_CARDS)
    doubts = evaluation.warnings
    parts = [_heading(name)]
    parts += [f'<p class="warning">{_WARNING}: {escape(one)}</p>' for one in doubts]
    parts += [_cards(evaluation), _scrolling(tables)]
    if not evaluation.outcomes:
        return parts
    try:
        return [*parts, _plots(evaluation)]
    except MissingExtraError as error:
        return [*parts, f"<p>{escape(str(error))}</p>"]
    except ValueError as error:
        # The figures above must not be lost for the pictures.
        return [*parts, f"<p>It cannot be drawn: {escape(str(error))}</p>"]


def _heading(text: str) -> str:
    return f"<h2>{escape(text)}</h2>"


def _scrolling(table: str) -> str:
    """Let a table that is wider than the page scroll by itself."""
    return f'<div class="scroll">{table}</div>'


def _cards(evaluation: Evaluation) -> str:
    without = len(evaluation.records) - evaluation.outcomes
    shown, _ = _main_figures(evaluation)
    shown.append(
        _Figure("outcomes", f"{evaluation.outcomes}", f"{without} episodes without one")
    )
    cards = "".join(
        f"<div><dt>{one.name}</dt><dd>{one.value}</dd>"
        f"<dd>{one.interval.replace(' interval', '')}</dd>"
        f"<dd>{escape(one.note)}</dd></div>"
        for one in shown
    )
    return f'<dl class="cards">{cards}</dl>'


def _transcripts(name: str, evaluation: Evaluation, characters: int) -> str:
    """Show failures and a sample of all, folded, as far as there is room.

    The filter is made of radio buttons and style rules: a page of strangers' texts
    runs no script.
    """
    records = evaluation.records
    if not records:
        return ""
    count = min(_SAMPLED, len(records))
    sample = [place * len(records) // count for place in range(count)]
    failures = [row for row, record in enumerate(records) if not record.success]
    shown: dict[int, str] = {}
    pictures = ImageBudget(characters // 2)
    for row in dict.fromkeys([*sample, *failures]):
        transcript = _transcript(row, records[row], pictures)
        if len(transcript) <= characters:
            shown[row] = transcript
            characters -= len(transcript)
    listed = sum(row in shown for row in failures)
    told = f"{len(shown)} of {len(records)} episodes: a sample, and " + (
        "all failures"
        if listed == len(failures)
        else f"{listed} of {len(failures)} failures, as more would make the page large"
    )
    buttons = "".join(
        f'<input type="radio" name="{escape(name)}" id="{escape(name)}/{kind}" '
        f'class="only-{kind}"{" checked" if kind == "all" else ""}>'
        f'<label for="{escape(name)}/{kind}">{label} ({number})</label>'
        for kind, label in _KINDS.items()
        if (number := sum(f" {kind}" in one[:_HEAD] for one in shown.values()))
    )
    return (
        f"<h3>Episodes</h3><p>{told}. <code>ors-gym show {escape(name)} --row N</code> "
        f'shows any.</p><div class="episodes">{buttons}'
        f"{''.join(shown[row] for row in sorted(shown))}</div>"
    )


_KINDS: Final = {
    "all": "all shown",
    "won": "successes",
    "lost": "failures",
    "without": "without an outcome",
    "refused": "with refused calls",
}
"""The filters of transcripts: the class of an element, and the words for a reader."""
_HEAD: Final = 60
"""Characters of a transcript within which its classes are."""


def _transcript(row: int, record: Record, pictures: ImageBudget) -> str:
    episode = record.episode
    kinds = [
        "all",
        "won" if record.success else "lost" if record.has_outcome else "without",
    ]
    calls = figures.count_calls(episode.steps)
    if calls["invalid"]:
        kinds.append("refused")
    reward = (
        "no outcome" if episode.total_reward is None else f"{episode.total_reward:g}"
    )
    cells = [
        f"row {row}",
        f"task {record.key[1]}"[:_SHORT],
        f"reward {reward}",
        f"{len(episode.steps)} steps",
        episode.stop_reason,
        f"{calls['invalid']} refused" if calls["invalid"] else "",
    ]
    summary = "".join(f"<span>{escape(cell)}</span>" for cell in cells if cell)
    return (
        f'<details class="{" ".join(["episode", *kinds])}"><summary>{summary}</summary>'
        f"{episode_card(episode, pictures)}</details>"
    )


def _plots(evaluation: Evaluation) -> str:
    light, dark = (draw_parts(evaluation, dark=dark) for dark in (False, True))
    pictures = "".join(
        f'<picture><source media="(prefers-color-scheme: dark)" srcset="{dark[shows]}">'
        f'<img alt="{escape(shows)}" src="{light[shows]}"></picture>'
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
.cards dd:nth-of-type(n+2) { color: var(--faint); font-size: .85rem }
.scroll { overflow-x: auto }
.scroll div { display: grid; gap: 1.25rem; justify-items: start;
  grid-template-columns: minmax(0, 1fr) }
table { border-collapse: collapse; font-variant-numeric: tabular-nums }
th, td { padding: .3rem .9rem .3rem 0; border-bottom: 1px solid var(--line);
  text-align: left; vertical-align: top } th { font-weight: 600; white-space: nowrap }
h3 { font-size: 1rem; margin: 1.5rem 0 .5rem } p { overflow-wrap: anywhere }
.episodes input { margin: 0 .3rem 0 0 } .episodes label { margin-right: 1rem }
.episodes details.episode { border-bottom: 1px solid var(--line); padding: .3rem 0 }
.episodes .episode > summary { cursor: pointer }
.episode > summary span { display: inline-block; margin-right: 1rem }
.lost > summary::marker { color: #c0392b } .won > summary::marker { color: #2e8b57 }
.only-won:checked ~ .episode:not(.won), .only-lost:checked ~ .episode:not(.lost),
.only-without:checked ~ .episode:not(.without),
.only-refused:checked ~ .episode:not(.refused) { display: none }
.warning { border-left: 4px solid #c77700; padding: .4rem .8rem; margin: 0 0 1rem;
  background: var(--card); overflow-wrap: anywhere }
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
    lines += [(_WARNING, text) for text in evaluation.warnings]
    if "environment" in head:
        split = f", split {head['split']}" if head.get("split") else ""
        lines.append(("environment", f"{head.get('environment')}{split}"))
        lines.append(("policy", str(head.get("policy"))))
    lines.append(("episodes", _count(evaluation)))
    main, hint = _main_figures(evaluation)
    for one in main:
        lines.append((one.name, f"{one.value}  {one.interval}".rstrip()))
        lines += [(_NOTES[one.name], one.note)] if one.note else []
    if evaluation.outcomes and not figures.is_binary(evaluation.rewards):
        lines.append(("rewards", figures.describe_rewards(evaluation.rewards)))
    if hint:
        lines.append(("intervals", hint))
    lines.append(("ended by", _listed(evaluation.stop_reasons)))
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


class _Figure(NamedTuple):
    name: str
    value: str
    interval: str
    """Empty where it cannot be had."""
    note: str = ""
    """What the figure means, or how its interval was found."""


def _main_figures(evaluation: Evaluation) -> tuple[list[_Figure], str]:
    """Return the figures, and a hint.

    Without the extra ``eval`` the intervals are empty, and the hint says how to
    install it.
    """
    percent, hint = f"{evaluation.confidence:.0%} interval", ""
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
            interval = f"{percent} {getattr(evaluation, own):{form}}"
            if name == "reward" and evaluation.outcomes:
                note = evaluation.reward_basis
        except MissingExtraError as error:
            interval, hint = "", str(error)
        if math.isnan(value):
            shown.append(_Figure(name, "unknown", "no episode has an outcome"))
        else:
            shown.append(_Figure(name, f"{value:{form}}", interval, note))
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
        error = " ".join(episode.error.split())
        if len(error) > _LONGEST:
            error = error[:_LONGEST] + "..."
        place = find_place(episode.cause) if episode.error_kind == "policy" else ""
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


def find_place(cause: BaseException | None) -> str:
    """Return the innermost line of the user's own code, in brackets."""
    if cause is None:
        return ""
    frames = traceback.extract_tb(cause.__traceback__)
    for frame in reversed(frames):
        if is_users_code(frame.filename):
            return f" ({frame.filename}:{frame.lineno})"
    return ""
