"""Evaluations as one page of HTML, which needs nothing but itself."""

from __future__ import annotations

import html
from typing import Final

from ors_gym.errors import MissingExtraError
from ors_gym.evaluation.comparison import Comparison
from ors_gym.evaluation.plots import draw_parts
from ors_gym.evaluation.report import as_html, figures_with_intervals
from ors_gym.evaluation.result import Evaluation

__all__ = ["as_page"]

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

_ON_CARDS: Final = ("success rate", "reward", "steps")
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


def as_page(
    title: str,
    evaluations: dict[str, Evaluation],
    comparison: tuple[str, Comparison] | None = None,
) -> str:
    """Return a page of evaluations, with their plots where matplotlib is installed.

    It asks for nothing else when it is opened, and every text in it is escaped. Dark
    where the reader prefers that.

    Args:
        title: What the page is called.
        evaluations: The evaluations by their names.
        comparison: How two of them compare, with a name for that.

    Returns:
        The page.

    Example:
        >>> page = as_page("None yet", {"run.jsonl": Evaluation([])})
        >>> "<h1>None yet</h1>" in page
        True
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
        # The figures above are worth more than the pictures.
        return [*parts, f"<p>It cannot be drawn: {html.escape(str(error))}</p>"]


def _heading(text: str) -> str:
    return f"<h2>{html.escape(text)}</h2>"


def _scrolling(table: str) -> str:
    """Let a table that is wider than the page move by itself."""
    return f'<div class="scroll">{table}</div>'


def _cards(evaluation: Evaluation) -> str:
    """Return the figures that are looked at first."""
    without = len(evaluation.records) - evaluation.outcomes
    figures, _ = figures_with_intervals(evaluation)
    cards = [
        *(
            (name, value, more.replace(" interval", ""))
            for name, value, more in figures
        ),
        ("outcomes", f"{evaluation.outcomes}", f"{without} episodes without one"),
    ]
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
