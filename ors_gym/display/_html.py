"""The parts of a notebook card: escaped text, folded text, pictures, and its frame."""

from __future__ import annotations

import html
import json
import re
from collections.abc import Iterable, Sequence
from typing import Any, Final, NamedTuple

from ors_gym.display._style import STYLE, reward_colour
from ors_gym.display._terminal import clean
from ors_gym.formats._blocks import describe_block, replace_surrogates
from ors_gym.formats._images import read_image_size
from ors_gym.types import Block

__all__ = [
    "Fact",
    "ImageBudget",
    "card",
    "compact_json",
    "escape",
    "flag",
    "message_card",
    "preformatted",
    "reward_fact",
    "show_blocks",
]

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
    """Return a card of one short text in a colour of `ors_gym.display._style`."""
    return _frame(f'<span class="ors-{escape(colour)}">{escape(text)}</span>')


def _frame(inside: str) -> str:
    # MathJax, which notebooks run, would otherwise typeset the dollars of a text.
    return f'<div class="ors-card mathjax_ignore tex2jax_ignore">{STYLE}{inside}</div>'


def escape(text: object) -> str:
    """Return a text for HTML, in an element or in a quoted attribute.

    Example:
        >>> escape("<b title='x'>")
        '&lt;b title=&#x27;x&#x27;&gt;'
    """
    return html.escape(clean(replace_surrogates(str(text))))


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
    data, media_type = block.get("data"), block.get("mimeType")
    if block.get("type") != "image" or not isinstance(data, str):
        return None
    if not isinstance(media_type, str) or media_type not in _SHOWN_TYPES:
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
