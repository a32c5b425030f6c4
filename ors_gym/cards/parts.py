"""Texts, images and flags as HTML, escaped and bounded."""

from __future__ import annotations

import html
import re
from collections.abc import Iterable, Sequence
from typing import Final

from ors_gym.controls import replace_controls
from ors_gym.observations import describe_block, read_image_size, replace_surrogates
from ors_gym.types import Block

__all__ = ["Allowance", "escape", "flag", "preformatted", "show_blocks"]

_IMAGE_TYPES: Final = frozenset({"image/png", "image/jpeg", "image/gif", "image/webp"})
"""Pictures only: no SVG, which is a document."""
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

_SEPARATOR: Final = "\n\n"


class Allowance:
    """How much one card may still hold, so that a notebook stays light.

    Args:
        image_characters: Base64 of images.
    """

    def __init__(self, image_characters: int = 8_000_000) -> None:
        self._left = image_characters

    def take(self, characters: int) -> bool:
        """Say whether an image of so many characters may be shown, and count it."""
        if characters > self._left:
            return False
        self._left -= characters
        return True


def escape(text: object) -> str:
    """Return a text for HTML, in an element or in a quoted attribute.

    Args:
        text: The text, or something that has one.

    Example:
        >>> escape("<b title='x'>")
        '&lt;b title=&#x27;x&#x27;&gt;'
    """
    return html.escape(replace_controls(replace_surrogates(str(text))))


def flag(text: str, colour: str) -> str:
    """Return a short text in a coloured frame.

    Args:
        text: The text.
        colour: The name of its colour in `ors_gym.palette`.
    """
    return f'<span class="ors-pill ors-{colour}">{escape(text)}</span>'


def preformatted(text: str, kind: str = "") -> str:
    """Return a text as it is written; long text is folded, very long text cut.

    Args:
        text: The text.
        kind: Another class for it: ``ors-call`` or ``ors-failed``.
    """
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


def show_blocks(blocks: Iterable[Block], allowance: Allowance, kind: str = "") -> str:
    """Return blocks as texts and pictures.

    Args:
        blocks: A prompt, or the blocks of a tool's output.
        allowance: What the card may still hold.
        kind: Another class for the texts.
    """
    parts: list[str] = []
    texts: list[str] = []
    for block in blocks:
        picture = _picture(block, allowance)
        if picture is None:
            texts.append(describe_block(block))
            continue
        parts += [*_joined(texts, kind), picture]
        texts = []
    parts += _joined(texts, kind)
    return f'<div class="ors-blocks">{"".join(parts)}</div>' if parts else ""


def _joined(texts: Sequence[str], kind: str) -> list[str]:
    if not texts:
        return []
    return [
        f'<div class="ors-words">{preformatted(_SEPARATOR.join(texts), kind)}</div>'
    ]


def _picture(block: Block, allowance: Allowance) -> str | None:
    """Return an image as an element that holds it; None if it is not to be shown."""
    data, media_type = block.get("data"), block.get("mimeType")
    if block.get("type") != "image" or not isinstance(data, str):
        return None
    if not isinstance(media_type, str) or media_type not in _IMAGE_TYPES:
        return None
    # Some writers break it into lines. Blanks in the pattern would cost their square.
    data = "".join(data.split())
    if not _BASE64.fullmatch(data):
        return None
    size = read_image_size(data)
    if size is None or size[0] * size[1] > _MOST_PIXELS:
        return None
    if not allowance.take(len(data)):
        return None
    width, height = size
    factor = max(min(_ENLARGED_TO // max(size), _MOST_ENLARGED), 1)
    classes = "ors-image ors-pixels" if factor > 1 else "ors-image"
    return (
        f'<img class="{classes}" alt="{escape(describe_block(block))}" '
        f'width="{width * factor}" height="{height * factor}" '
        f'src="data:{media_type};base64,{data}">'
    )
