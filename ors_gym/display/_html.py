"""The parts of a notebook card: its frame, texts, pictures, colours and style sheet.

The colours are those of drawn pictures as well. Every colour of text has a contrast of
at least 4.5 on ``ground`` and on ``surface`` (WCAG 2.2, success criterion 1.4.3).
"""

from __future__ import annotations

import html
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, NamedTuple

from ors_gym._shown_text import clean
from ors_gym.display._transcript import reward_colour
from ors_gym.formats._blocks import (
    describe_block,
    read_image_size,
    read_media_type,
)
from ors_gym.types import Block

DARK: Final[Mapping[str, str]] = {
    "ground": "#15181e",
    "surface": "#20252e",
    "line": "#3b4350",
    "text": "#e7e9ee",
    "muted": "#a8b0bd",
    "accent": "#82b8ff",
    "good": "#71d98f",
    "bad": "#ff958c",
    "warn": "#f2c364",
}
LIGHT: Final[Mapping[str, str]] = {
    "ground": "#ffffff",
    "surface": "#f4f6f9",
    "line": "#d3d9e2",
    "text": "#1b2330",
    "muted": "#525c6b",
    "accent": "#0b57b0",
    "good": "#0f6a2f",
    "bad": "#b3261e",
    "warn": "#7d4e00",
}

_SHOWN_TYPES: Final = frozenset({"image/png", "image/jpeg", "image/gif", "image/webp"})
"""Pictures only. SVG is left out: it is a document, which may hold scripts."""
_BASE64: Final = re.compile(r"[A-Za-z0-9+/]+={0,2}")
_MOST_PIXELS: Final = 2**26
_ENLARGED_TO: Final = 240
"""Pixels to which a very small picture is enlarged."""
_MOST_ENLARGED: Final = 8

_FOLDED_CHARACTERS: Final = 1500
_FOLDED_LINES: Final = 26
_PEEK_LINES: Final = 8
_PEEK_CHARACTERS: Final = 500
_MOST_CHARACTERS: Final = 20_000


class Fact(NamedTuple):
    """Something said beside a card's title."""

    text: str
    colour: str = "muted"
    """The name of its colour; any but ``muted`` puts a frame around it."""


def reward_fact(total: float) -> Fact:
    """Return the fact that tells the reward so far."""
    return Fact(f"reward {total:g}", reward_colour(total) if total else "text-colour")


def card(title: str, parts: Iterable[str], facts: Iterable[Fact | None] = ()) -> str:
    """Return a card of parts that are HTML; None among the facts is left out."""
    shown = "".join(
        f'<span class="ors-muted">{escape(fact.text)}</span>'
        if fact.colour == "muted"
        else flag(*fact)
        for fact in facts
        if fact
    )
    head = f'<span class="ors-title">{escape(title)}</span>{shown}'
    return _frame(f'<div class="ors-head">{head}</div>{"".join(parts)}')


def message_card(text: str, colour: str = "text-colour") -> str:
    """Return a card of one short text in a colour of `DARK`."""
    return _frame(f'<span class="ors-{escape(colour)}">{escape(text)}</span>')


def _frame(inside: str) -> str:
    # MathJax, which notebooks run, would otherwise typeset the dollars of a text.
    return f'<div class="ors-card mathjax_ignore tex2jax_ignore">{_STYLE}{inside}</div>'


def without_style(card: str) -> str:
    """Return a card for a page that has `CARD_STYLE` already."""
    return card.replace(_STYLE, "")


def escape(text: object) -> str:
    """Return a text for HTML, in an element or in a quoted attribute.

    Example:
        >>> escape("<b title='x'>")
        '&lt;b title=&#x27;x&#x27;&gt;'
    """
    return html.escape(clean(text))


def flag(text: str, colour: str) -> str:
    """Return a short text in a coloured frame."""
    return f'<span class="ors-pill ors-{colour}">{escape(text)}</span>'


def compact_json(value: Any) -> str:
    """Return a value as JSON in one line; what JSON lacks is written as text."""
    return json.dumps(value, ensure_ascii=False, default=str)


def preformatted(text: str, kind: str = "") -> str:
    """Return a text with its line breaks; long text is folded, very long text cut."""
    classes = f"ors-text {kind}".rstrip()
    lines = text.count("\n") + 1
    whole = f'<pre class="{classes}" dir="auto">{escape(_cut(text))}</pre>'
    if len(text) <= _FOLDED_CHARACTERS and lines <= _FOLDED_LINES:
        return whole
    peek = "\n".join(text[:_PEEK_CHARACTERS].split("\n")[:_PEEK_LINES])
    return (
        f'<details><summary><pre class="{classes} ors-peek" dir="auto">'
        f'{escape(peek)} …</pre><span class="ors-more">'
        f"all {lines:,} lines, {len(text):,} characters</span></summary>"
        f"{whole}</details>"
    )


def _cut(text: str) -> str:
    if len(text) <= _MOST_CHARACTERS:
        return text
    end = _MOST_CHARACTERS // 4
    left_out = len(text) - _MOST_CHARACTERS
    return f"{text[: 3 * end]}\n… {left_out:,} characters …\n{text[-end:]}"


class ImageBudget:
    """How many characters of images one card may still hold: notebooks stay light."""

    def __init__(self, characters: int = 8_000_000) -> None:
        self._left = characters

    def take(self, characters: int) -> bool:
        """Say whether an image of this size may be shown, and count it if so."""
        if characters > self._left:
            return False
        self._left -= characters
        return True


def show_blocks(blocks: Iterable[Block], budget: ImageBudget, kind: str = "") -> str:
    """Return blocks as texts and pictures; ``kind`` is one more class of the texts."""
    parts: list[str] = []
    texts: list[str] = []
    for block in blocks:
        picture = _show_picture(block, budget)
        if picture is None:
            texts.append(describe_block(block))
            continue
        parts += [*_show_texts(texts, kind), picture]
        texts = []
    parts += _show_texts(texts, kind)
    return f'<div class="ors-blocks">{"".join(parts)}</div>' if parts else ""


def _show_texts(texts: Sequence[str], kind: str) -> list[str]:
    text = preformatted("\n\n".join(texts), kind)
    return [f'<div class="ors-words">{text}</div>'] if texts else []


def _show_picture(block: Block, budget: ImageBudget) -> str | None:
    """Return an image as an element that holds it; None if it is not to be shown."""
    data = block.get("data")
    if block.get("type") != "image" or not isinstance(data, str):
        return None
    media_type = read_media_type(block)
    if media_type not in _SHOWN_TYPES:
        return None
    # Some servers break the data into lines. The blanks are removed here, since a
    # pattern that allows them takes quadratic time.
    data = "".join(data.split())
    if not _BASE64.fullmatch(data):
        return None
    size = read_image_size(data)
    if size is None or size[0] * size[1] > _MOST_PIXELS:
        return None
    if not budget.take(len(data)):
        return None
    width, height = size
    factor = max(min(_ENLARGED_TO // max(size), _MOST_ENLARGED), 1)
    classes = "ors-image ors-pixels" if factor > 1 else "ors-image"
    return (
        f'<img class="{classes}" alt="{escape(describe_block(block))}" '
        f'width="{width * factor}" height="{height * factor}" '
        f'src="data:{media_type};base64,{data}">'
    )


_IN_THE_LIGHT: Final = (
    '[data-jp-theme-light="true"]',
    ".vscode-light",
    'html[theme="light"]',
    '[data-md-color-scheme="default"]',
)
_IN_THE_DARK: Final = (
    '[data-jp-theme-light="false"]',
    ".vscode-dark",
    'html[theme="dark"]',
    '[data-md-color-scheme="slate"]',
)

# The class is doubled to outweigh the notebook's own rules for pre, img and code.
_RULES: Final = """
.ors-card.ors-card{background:var(--ors-ground);color:var(--ors-text);border:1px solid
var(--ors-line);border-radius:8px;padding:12px;margin:4px 0;max-width:960px;
box-sizing:border-box;font:14px/1.5 system-ui,sans-serif;overflow-wrap:anywhere}
.ors-card.ors-card *{box-sizing:border-box}
.ors-card.ors-card .ors-head{display:flex;flex-wrap:wrap;gap:4px 12px;
align-items:baseline;margin:0 0 4px}
.ors-card.ors-card .ors-title{font-weight:600;font-size:16px;
color:var(--ors-accent)}
.ors-card.ors-card .ors-muted{color:var(--ors-muted)}
.ors-card.ors-card .ors-text-colour{color:var(--ors-text)}
.ors-card.ors-card .ors-accent{color:var(--ors-accent)}
.ors-card.ors-card .ors-good{color:var(--ors-good)}
.ors-card.ors-card .ors-bad{color:var(--ors-bad)}
.ors-card.ors-card .ors-warn{color:var(--ors-warn)}
.ors-card.ors-card .ors-pill{border:1px solid currentColor;border-radius:10px;
padding:0 8px;font-size:13px;font-weight:600;white-space:normal}
.ors-card.ors-card .ors-part{background:var(--ors-surface);border-left:4px solid
var(--ors-line);border-radius:4px;padding:8px 12px;margin:8px 0 0}
.ors-card.ors-card .ors-edge-accent{border-left-color:var(--ors-accent)}
.ors-card.ors-card .ors-edge-good{border-left-color:var(--ors-good)}
.ors-card.ors-card .ors-edge-bad{border-left-color:var(--ors-bad)}
.ors-card.ors-card .ors-label{font-size:12px;color:var(--ors-muted)}
.ors-card.ors-card .ors-row{display:flex;flex-wrap:wrap;gap:2px 8px;margin:0;
align-items:center}
.ors-card.ors-card .ors-blocks{display:flex;flex-wrap:wrap;gap:0 16px}
.ors-card.ors-card .ors-words{flex:1 1 320px;min-width:0}
.ors-card.ors-card pre.ors-text{margin:2px 0;padding:0;border:0;background:none;
color:var(--ors-text);font:13px/1.45 ui-monospace,"DejaVu Sans Mono",Menlo,Consolas,
monospace;white-space:pre-wrap;overflow-wrap:anywhere;word-break:normal;
unicode-bidi:plaintext;max-height:none;overflow:visible;text-align:start}
.ors-card.ors-card pre.ors-call{color:var(--ors-accent);font-weight:600}
.ors-card.ors-card pre.ors-said{font:14px/1.5 system-ui,sans-serif}
.ors-card.ors-card pre.ors-failed{color:var(--ors-warn)}
.ors-card.ors-card img.ors-image{display:block;max-width:100%;height:auto;margin:6px 0;
align-self:flex-start;border-radius:4px;background:#fff;
border:1px solid var(--ors-line)}
.ors-card.ors-card img.ors-pixels{image-rendering:pixelated}
.ors-card.ors-card details{margin:2px 0}
.ors-card.ors-card summary{cursor:pointer;color:var(--ors-text);list-style:none}
.ors-card.ors-card summary::-webkit-details-marker{display:none}
.ors-card.ors-card summary.ors-row::before{content:"\\25b8";color:var(--ors-muted)}
.ors-card.ors-card details[open]>summary.ors-row::before{content:"\\25be"}
.ors-card.ors-card .ors-more{color:var(--ors-accent);font-size:12px;
text-decoration:underline}
.ors-card.ors-card details[open]>summary>.ors-peek{display:none}
.ors-card.ors-card .ors-fields{display:grid;grid-template-columns:minmax(0,max-content)
minmax(0,1fr);gap:2px 12px;margin:4px 0 0}
@media (max-width:560px){.ors-card.ors-card .ors-fields{grid-template-columns:
minmax(0,1fr);gap:0}}
"""


def _variables(palette: Mapping[str, str]) -> str:
    return ";".join(f"--ors-{name}:{value}" for name, value in palette.items())


def _themes() -> str:
    light, dark = _variables(LIGHT), _variables(DARK)
    in_light = ",".join(f"{where} .ors-card.ors-card" for where in _IN_THE_LIGHT)
    in_dark = ",".join(f"{where} .ors-card.ors-card" for where in _IN_THE_DARK)
    return (
        f".ors-card.ors-card{{{light};color-scheme:light}}\n"
        "@media (prefers-color-scheme:dark){"
        f".ors-card.ors-card{{{dark};color-scheme:dark}}}}\n"
        f"{in_light}{{{light};color-scheme:light}}\n"
        f"{in_dark}{{{dark};color-scheme:dark}}"
    )


CARD_STYLE: Final = f"{_themes()}{_RULES}"
"""The style sheet that every card brings with it."""
PAGE_STYLE: Final = (
    f":root{{{_variables(LIGHT)};color-scheme:light}}\n"
    "@media (prefers-color-scheme:dark){"
    f":root{{{_variables(DARK)};color-scheme:dark}}}}\n"
)
"""The colours of the cards for a whole page."""
_STYLE: Final = f"<style>{CARD_STYLE}</style>"
