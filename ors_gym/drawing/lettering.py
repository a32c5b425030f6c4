"""Text in a picture: the font, which characters it has, and lines of a width.

The font is DejaVu Sans Mono, which is free and beside this file: Latin, Greek,
Cyrillic, Arabic, box drawing and symbols. Another one, for Chinese say, is named by the
environment variable ``ORS_GYM_FONT`` (the path of a TrueType or OpenType file).
"""

from __future__ import annotations

import functools
import os
import pathlib
import unicodedata
from typing import TYPE_CHECKING, Final

from ors_gym.errors import InvalidRequestError

if TYPE_CHECKING:
    from PIL.ImageFont import FreeTypeFont

__all__ = ["FONT_VARIABLE", "MISSING", "drawable", "fit", "load_font", "wrap"]

FONT_VARIABLE: Final = "ORS_GYM_FONT"
MISSING: Final = "\N{WHITE SQUARE}"
"""What is drawn for a character that the font does not have."""

_FONT: Final = pathlib.Path(__file__).with_name("fonts") / "DejaVuSansMono.ttf"
_NO_CHARACTER: Final = "\U0010ffff"
_SELECTORS: Final = range(0xFE00, 0xFE10)
_LEAST_PART: Final = 0.6
"""How full a line has to be to be broken at a blank."""


def load_font(size: int) -> FreeTypeFont:
    """Return the font.

    Args:
        size: Its size in pixels.

    Raises:
        InvalidRequestError: If ``ORS_GYM_FONT`` names no font.
    """
    return _load(os.environ.get(FONT_VARIABLE) or str(_FONT), size)


@functools.lru_cache(maxsize=8)
def _load(path: str, size: int) -> FreeTypeFont:
    from PIL import ImageFont  # noqa: PLC0415 - an optional dependency

    try:
        return ImageFont.truetype(path, size)
    except OSError as error:
        raise InvalidRequestError(
            f"{FONT_VARIABLE} is {path!r}, which is no font: {error}"
        ) from None


def drawable(text: str, font: FreeTypeFont) -> str:
    r"""Return a text as a font can draw it: one column for each character.

    Args:
        text: Any text.
        font: The font.

    Returns:
        The text with `MISSING` for what the font does not have, U+FFFD for controls,
        and without what has no width, such as marks of direction.

    Example:
        >>> drawable("a\t中\x07", load_font(18))
        'a    □ �'
    """
    text = text.replace("\r\n", "\n").replace("\t", "    ")
    if text.isascii() and text.replace("\n", "").isprintable():
        return text
    return "".join(_draw_as(character, font) for character in text)


@functools.lru_cache(maxsize=4096)
def _draw_as(character: str, font: FreeTypeFont) -> str:
    if character == "\n":
        return character
    kind = unicodedata.category(character)
    if kind == "Cf" or ord(character) in _SELECTORS:
        return ""
    if kind in ("Cc", "Cs", "Zl", "Zp"):
        return "\ufffd"
    shown = character if _has(font, character) else MISSING
    wide = unicodedata.east_asian_width(character) in "WF"
    # A character of two columns takes them whatever is drawn.
    return shown + " " if wide and shown == MISSING else shown


def _has(font: FreeTypeFont, character: str) -> bool:
    if character.isspace():
        return True
    return _look(font, character) != _look(font, _NO_CHARACTER)


def _look(font: FreeTypeFont, character: str) -> tuple[tuple[int, int], bytes]:
    mask = font.getmask(character)
    return mask.size, bytes(mask)


def wrap(text: str, columns: int) -> list[str]:
    """Break a text into lines, at blanks where there is one not too far back.

    Args:
        text: The text.
        columns: Characters of a line.

    Returns:
        The lines; at least one.

    Example:
        >>> wrap("one two three", 8)
        ['one two', 'three']
        >>> wrap("#########", 4)
        ['####', '####', '#']
    """
    lines = []
    for paragraph in text.split("\n"):
        rest = paragraph.rstrip()
        while (end := _reach(rest, columns)) < len(rest):
            at = rest.rfind(" ", 0, end + 1)
            if at < end * _LEAST_PART:
                at = end
            lines.append(rest[:at].rstrip())
            rest = rest[at:].lstrip(" ")
        lines.append(rest)
    return lines


def _reach(line: str, columns: int) -> int:
    """Return how many characters of a line there is room for; at least one."""
    if line.isascii():
        return columns
    for number, character in enumerate(line):
        columns -= 2 if unicodedata.east_asian_width(character) in "WF" else 1
        if columns < 0:
            return max(number, 1)
    return len(line)


def fit(text: str, font: FreeTypeFont, columns: int, most: int) -> list[str]:
    r"""Break a text into so many drawable lines at most, leaving out its middle.

    Args:
        text: The text, of any length.
        font: The font that it is drawn with.
        columns: Characters of a line.
        most: How many lines.

    Example:
        >>> fit("a\nb\nc\nd\ne", load_font(18), 40, 4)
        ['a', 'b', '… 4 characters …', 'e']
    """
    most = max(most, 3)
    room = columns * most
    if len(text) <= 2 * room:
        lines = wrap(drawable(text, font), columns)
        if len(lines) <= most:
            return lines
        first = last = lines
    else:
        first = wrap(drawable(text[:room], font), columns)
        last = wrap(drawable(text[-room:], font), columns)
    end = (most - 1) // 3
    head, tail = first[: most - 1 - end], last[len(last) - end :]
    left_out = len(text) - sum(len(line) + 1 for line in (*head, *tail)) + 1
    return [*head, f"… {max(left_out, 1):,} characters …", *tail]
