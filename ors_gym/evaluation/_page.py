"""The page of runs: frozen, with its data in it, or live, asking for what is new.

Both are one page: ``_page.css`` and ``_page.js`` beside this file. The script shows
*updates* (`Update`); a frozen page holds one, and a live page fetches one after another
from `ors_gym.evaluation._live_page`. Figures come as HTML from here: the script
computes none.
"""

from __future__ import annotations

import base64
import hashlib
import json
import math
import pathlib
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from ors_gym._shown_text import clean, shorten
from ors_gym.display._cards import episode_card, episode_entries
from ors_gym.display._html import (
    CARD_STYLE,
    PAGE_STYLE,
    ImageBudget,
    escape,
    without_style,
)
from ors_gym.display._transcript import write_call
from ors_gym.errors import MissingExtraError
from ors_gym.evaluation import _figures as figures
from ors_gym.evaluation._plots import draw_parts
from ors_gym.evaluation._report import WARNING, Figure, main_figures, tables
from ors_gym.formats._blocks import render_text
from ors_gym.rollout import Episode
from ors_gym.types import JSONObject

if TYPE_CHECKING:
    from ors_gym.evaluation._figures import Comparison
    from ors_gym.evaluation._result import Evaluation
    from ors_gym.rollout._output import Record

Update: TypeAlias = JSONObject
"""What changed: ``tasks``, ``comparison``, and a list ``runs``, each with ``rows`` and
perhaps ``figures`` and ``plots``."""

_SAMPLED: Final = 20
"""Episodes whose transcripts a frozen page holds whatever came of them."""
_MOST_CHARACTERS: Final = 12_000_000
"""The most characters of the episodes of a frozen page. Pictures take at most half of
what the list of episodes leaves."""
_LONGEST: Final = 160
"""Characters of a text in a list, which is also searched."""
_FIELDS: Final = (
    *("row", "task", "split", "number", "reward", "outcome", "steps", "refused"),
    *("ended", "kind", "error", "seconds", "about", "last", "kept"),
)
"""The fields of `list_episode`."""


def as_page(
    title: str,
    evaluations: Mapping[str, Evaluation],
    comparison: tuple[str, Comparison] | None = None,
) -> str:
    """Return a frozen page of evaluations: figures, plots, episodes and transcripts.

    Plots need matplotlib. The page loads nothing and runs no script but its own, and
    every text in it is escaped. The figures are seen without the script, too.
    ``comparison`` is one of two evaluations, with a name for it.
    """
    listed = [
        [list_episode(*row, kept=False) for row in enumerate(one.records)]
        for one in evaluations.values()
    ]
    room = max(0, _MOST_CHARACTERS - len(json.dumps(listed)))
    characters = room // max(1, len(evaluations))
    sections, kept, told = [], [], []
    for place, (name, evaluation) in enumerate(evaluations.items()):
        seen = show_figures(evaluation), show_plots(evaluation)
        sections.append(_section(place, name, *seen))
        shown = _transcripts(evaluation, characters)
        told.append(_describe_sample(name, evaluation, shown))
        kept += [
            f'<template data-of="{place}/{row}">{card}</template>'
            for row, card in shown.items()
        ]
        for row in shown:
            listed[place][row][-1] = True
    tasks = list_tasks(evaluations.values())
    update: Update = {"runs": [{"rows": rows} for rows in listed], "tasks": tasks}
    return _fill(
        title,
        show_comparison(*comparison) if comparison else "",
        sections,
        {"live": False, "names": [*map(clean, evaluations)], "update": update},
        "".join((*told, *kept)),
    )


def live_page(title: str, names: Sequence[str]) -> str:
    """Return a page without data, which asks for it beside its own address."""
    sections = [_section(place, name) for place, name in enumerate(names)]
    shown = {"live": True, "names": [*map(clean, names)], "update": None}
    return _fill(title, "", sections, shown, "")


def list_episode(row: int, record: Record, *, kept: bool = True) -> list[Any]:
    """Return what a list shows of an episode: the values of `_FIELDS`.

    ``kept`` says whether its transcript can be opened.
    """
    episode = record.episode
    total = episode.total_reward
    calls = (one for one in reversed(episode.steps) if one.tool)
    last = next((write_call(one.tool, one.input) for one in calls), "")
    won = "won" if record.success else "lost"
    return [
        row,
        figures.name_task(record.key),
        _short(episode.split),
        episode.number,
        total if total is not None and math.isfinite(total) else None,
        won if record.has_outcome else "without",
        len(episode.steps),
        figures.count_calls(episode.steps)["invalid"],
        _short(episode.stop_reason),
        _short(episode.error_kind),
        _short(episode.error),
        round(episode.seconds, 3),
        _short(render_text(episode.prompt)),
        _short(last),
        kept,
    ]


def list_tasks(evaluations: Iterable[Evaluation]) -> list[list[Any]] | None:
    """Return a row for each task: its name, its split, and its figures in each run.

    None where the runs are of different environments, since their tasks are, too.
    """
    listed = list(evaluations)
    if any(figures.tell_apart(listed[0].head, other.head) for other in listed[1:]):
        return None
    runs = figures.compare_tasks([one.records for one in listed])
    return [
        [figures.name_task(task), _short(task[0]), *found]
        for task, found in sorted(runs.items(), key=_by_split_and_number)
    ]


def _by_split_and_number(item: tuple[tuple[str, int | str], Any]) -> tuple[Any, ...]:
    (split, task), _ = item
    return split, isinstance(task, str), task


def show_transcript(episode: Episode, pictures: ImageBudget | None = None) -> str:
    return without_style(episode_card(episode, pictures))


def read_text(episode: Episode) -> str:
    """Return the words of a transcript, to be searched."""
    entries = episode_entries(episode)
    return "\n".join(f"{one.said}\n{one.call}\n{one.text}" for one in entries)


def show_figures(evaluation: Evaluation) -> str:
    """Return warnings, main figures and tables as HTML."""
    doubts = [show_warning(f"{WARNING}: {one}") for one in evaluation.warnings]
    shown = "".join(tables(evaluation, brief=True))
    return f"{''.join(doubts)}{_cards(evaluation)}{_scrolling(shown)}"


def show_warning(text: str) -> str:
    return f'<p class="warning">{escape(text)}</p>'


def show_comparison(name: str, comparison: Comparison) -> str:
    shown = _scrolling(comparison._repr_html_())
    return f"<h2>{escape(name)}</h2>{shown}"


def show_plots(evaluation: Evaluation) -> str:
    """Return the plots as HTML, or why there are none."""
    if not evaluation.outcomes:
        return ""
    try:
        light, dark = (draw_parts(evaluation, dark=dark) for dark in (False, True))
    except MissingExtraError as error:
        return f"<p>{escape(str(error))}</p>"
    except ValueError as error:
        # A plot that fails must not cost the reader the figures above.
        return f"<p>The plots cannot be drawn: {escape(str(error))}</p>"
    return "".join(
        f'<picture><source media="(prefers-color-scheme: dark)" srcset="{dark[shows]}">'
        f'<img alt="{escape(shows)}" src="{light[shows]}"></picture>'
        for shows in light
    )


def _scrolling(shown: str) -> str:
    """Let tables that are wider than the page scroll by themselves."""
    return (
        f'<div class="scroll" tabindex="0" role="group" aria-label="tables">{shown}'
        "</div>"
    )


def _cards(evaluation: Evaluation) -> str:
    without = len(evaluation.records) - evaluation.outcomes
    shown, _ = main_figures(evaluation)
    shown.append(
        Figure("outcomes", f"{evaluation.outcomes}", f"{without} episodes without one")
    )
    cards = "".join(
        f"<div><dt>{one.name}</dt><dd>{one.value}</dd>"
        f"<dd>{one.interval.replace(' interval', '')}"
        f"{_bar(evaluation) if one.name == 'success rate' else ''}</dd>"
        f"<dd>{escape(one.note)}</dd></div>"
        for one in shown
    )
    return f'<dl class="cards">{cards}</dl>'


def _bar(evaluation: Evaluation) -> str:
    """Draw the success rate and its interval, which the text beside it tells."""
    try:
        low, high = evaluation.success_interval
    except MissingExtraError:
        return ""
    if math.isnan(low):
        return ""
    rate = evaluation.success_rate
    return (
        '<svg class="bar" viewBox="0 0 100 6" preserveAspectRatio="none" '
        'aria-hidden="true"><rect class="all" width="100" height="6"/>'
        f'<rect class="reach" x="{100 * low:.2f}" width="{100 * (high - low):.2f}" '
        f'height="6"/><rect class="rate" x="{99 * rate:.2f}" width="1" height="6"/>'
        "</svg>"
    )


def _transcripts(evaluation: Evaluation, characters: int) -> dict[int, str]:
    """Return failures and a sample of all, by row, as far as there is room."""
    records = evaluation.records
    count = min(_SAMPLED, len(records))
    sample = [place * len(records) // count for place in range(count)]
    failures = [row for row, record in enumerate(records) if not record.success]
    shown: dict[int, str] = {}
    pictures = ImageBudget(characters // 2)
    for row in dict.fromkeys([*sample, *failures]):
        transcript = show_transcript(records[row].episode, pictures)
        if len(transcript) <= characters:
            shown[row] = transcript
            characters -= len(transcript)
    return shown


def _describe_sample(
    name: str, evaluation: Evaluation, shown: Mapping[int, str]
) -> str:
    records = evaluation.records
    if not records or len(shown) == len(records):
        return ""
    failures = [row for row, record in enumerate(records) if not record.success]
    listed = sum(row in shown for row in failures)
    told = (
        "all failures"
        if listed == len(failures)
        else f"{listed} of {len(failures)} failures, as more would make the page large"
    )
    file = escape(name)
    return (
        f"<p>{file}: {len(shown)} of {len(records)} transcripts are in this page, a "
        f"sample and {told}. <code>ors-gym show {file} --row N</code> shows any one, "
        f"and <code>ors-gym view {file}</code> a page with all.</p>"
    )


def _short(text: str) -> str:
    # Cut first: a prompt may be very long.
    return shorten(" ".join(clean(text[: 4 * _LONGEST]).split()), _LONGEST)


def _section(place: int, name: str, shown: str = "", plots: str = "") -> str:
    return (
        f'<section class="run" aria-labelledby="run-{place}">'
        f'<h2 id="run-{place}">{escape(name)}</h2><div class="progress"></div>'
        f'<div class="figures">{shown}</div><div class="plots">{plots}</div>'
        "</section>"
    )


def _fill(
    title: str, comparison: str, sections: Sequence[str], shown: Any, kept: str
) -> str:
    data = json.dumps({**shown, "fields": _FIELDS}, separators=(",", ":"))
    return _PAGE.format(
        # A live page's own is in the header of the reply.
        policy="" if shown["live"] else _POLICY_ELEMENT,
        title=escape(title),
        style=_STYLE,
        comparison=comparison,
        count=len(sections),
        sections="".join(sections),
        kept=kept,
        # Nothing in the data may end the element that holds it.
        data=data.replace("<", "\\u003c"),
        script=_SCRIPT,
    )


def _read(name: str) -> str:
    return pathlib.Path(__file__).with_name(name).read_text(encoding="utf-8")


def _hash(text: str) -> str:
    digest = hashlib.sha256(text.encode()).digest()
    return f"'sha256-{base64.b64encode(digest).decode()}'"


_SCRIPT: Final = _read("_page.js")
_STYLE: Final = f"\n{PAGE_STYLE}{_read('_page.css')}{CARD_STYLE}"
POLICY: Final = (
    f"default-src 'none'; script-src {_hash(_SCRIPT)}; style-src {_hash(_STYLE)}; "
    "img-src data:; base-uri 'none'; form-action 'none'"
)
"""What a browser lets the page do: run its own script and style."""
_POLICY_ELEMENT: Final = (
    f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">'
)
LIVE_POLICY: Final = f"{POLICY}; connect-src 'self'; frame-ancestors 'none'"
"""What it lets a live page do besides: ask its own server."""

_PAGE: Final = """\
<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
{policy}
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="referrer" content="no-referrer">
<link rel="icon" href="data:,">
<title>{title}</title>
<style>{style}</style>
</head>
<body>
<header><h1>{title}</h1><p id="status" role="status"></p>
<nav aria-label="This page"><a href="#tasks">Reward by task</a>
<a href="#episodes">Episodes</a></nav></header>
<main>
<section id="comparison" aria-label="Comparison">{comparison}</section>
<div class="runs of-{count}">{sections}</div>
<section id="tasks" aria-label="Tasks" tabindex="-1"></section>
<section id="episodes" aria-label="Episodes" tabindex="-1"></section>
<noscript><p>The episodes are listed by a script, which is off here.</p></noscript>
<div id="kept">{kept}</div>
</main>
<dialog id="reader" aria-labelledby="reading"></dialog>
<script type="application/json" id="data">{data}</script>
<script>{script}</script>
</body>
</html>
"""
