"""Which font draws a character: the package's or an installed one; else its name."""

from __future__ import annotations

import functools
import itertools
import os
import pathlib
import unicodedata
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from ors_gym.errors import InvalidRequestError
from ors_gym.formats._blocks import require_pillow

if TYPE_CHECKING:
    from PIL.Image import Image
    from PIL.ImageFont import FreeTypeFont

_FONT: Final = pathlib.Path(__file__).with_name("fonts") / "DejaVuSansMono.ttf"
_FONT_VARIABLE: Final = "ORS_GYM_FONT"
_FOLDERS: Final = (
    "/usr/local/share/fonts",
    "/usr/share/fonts",
    "~/.local/share/fonts",
    "~/.fonts",
    "/System/Library/Fonts",
    "/Library/Fonts",
    "C:/Windows/Fonts",
)
_ENDINGS: Final = frozenset({".ttf", ".otf", ".ttc"})
_STYLES: Final = ("bold", "italic", "oblique", "light", "thin", "condensed", "black")
_WIDE_COVERAGE: Final = ("cjk", "fallback", "emoji", "symbol", "unifont", "dejavusans.")
_MOST_FONTS: Final = 64
# Fonts of coloured pictures come in one size: Noto, Apple, others.
_PICTURE_SIZES: Final = (109, 160, 136, 96)
_NO_CHARACTER: Final = "\U0010ffff"
_SELECTORS: Final = range(0xFE00, 0xFE10)


def load_font(size: int) -> FreeTypeFont:
    """Return the font of ``ORS_GYM_FONT``, or the one that comes with the package."""
    path = os.environ.get(_FONT_VARIABLE) or str(_FONT)
    try:
        return _load(path, size)
    except OSError as error:
        raise InvalidRequestError(
            f"{_FONT_VARIABLE} is {path!r}, which is not a font: {error}"
        ) from None


def drawable(text: str, font: FreeTypeFont) -> str:
    r"""Return a text as `draw_line` can draw it: one or two columns a character.

    The name in brackets stands for a character that no font has, U+FFFD for control
    characters. What has no width, such as marks of direction, is left out.

    Example:
        >>> drawable("a\t\u0378\x07", load_font(18))
        'a    [U+0378]�'
    """
    text = text.replace("\r\n", "\n").replace("\t", "    ")
    if text.isascii() and text.replace("\n", "").isprintable():
        return text
    return "".join(_draw_as(character, font) for character in text)


def columns_of(character: str) -> int:
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1


def draw_line(
    canvas: Any, frame: Image, at: tuple[int, int], text: str, *, colour: str, size: int
) -> None:
    """Draw a line that `drawable` returned; wide characters take two columns."""
    font = load_font(size)
    column, (ascent, _) = font.getlength("0"), font.getmetrics()
    left: float = at[0]
    for fallback, group in itertools.groupby(text, lambda one: _fallback_of(one, font)):
        part = "".join(group)
        if fallback is None:
            canvas.text((left, at[1]), part, font=font, fill=colour)
            left += font.getlength(part)
            continue
        for character in part:
            where = (round(left), at[1])
            if fallback.is_picture:
                picture = _picture_of(character, fallback.font, size)
                frame.paste(picture, where, picture)
            else:
                # On the same base line, whatever the heights of the two fonts are.
                base = (left, at[1] + ascent)
                canvas.text(base, character, colour, fallback.font, anchor="ls")
            left += columns_of(character) * column


class _Fallback(NamedTuple):
    font: FreeTypeFont
    is_picture: bool


def _fallback_of(character: str, font: FreeTypeFont) -> _Fallback | None:
    """Return the installed font for a character; None if `font` draws it."""
    if character.isascii() or _has(font, character):
        return None
    return _find_fallback(character, int(font.size))


@functools.lru_cache(maxsize=4096)
def _find_fallback(character: str, size: int) -> _Fallback | None:
    for path in installed_fonts():
        fallback = _load_fallback(path, size)
        if fallback is not None and _has(fallback.font, character):
            return fallback
    return None


@functools.cache
def installed_fonts() -> tuple[str, ...]:
    """Return installed font files, those named for wide coverage first."""
    return tuple(sorted(_font_files(), key=_preference)[:_MOST_FONTS])


def _font_files() -> Iterator[str]:
    for folder in _FOLDERS:
        # It leaves the "~" of a user without a home, whose folder nobody has.
        place = pathlib.Path(os.path.expanduser(folder))  # noqa: PTH111
        for path in place.rglob("*"):
            name = path.name.lower()
            if path.suffix in _ENDINGS and not any(style in name for style in _STYLES):
                yield str(path)


def _preference(path: str) -> tuple[bool, bool, str]:
    name = pathlib.Path(path).name.lower()
    return (
        not any(word in name for word in _WIDE_COVERAGE),
        "mono" not in name,
        path,
    )


@functools.lru_cache(maxsize=4 * _MOST_FONTS)
def _load_fallback(path: str, size: int) -> _Fallback | None:
    for each in (size, *_PICTURE_SIZES):
        try:
            return _Fallback(_load(path, each), each != size)
        except OSError:
            continue
    return None


@functools.lru_cache(maxsize=256)
def _picture_of(character: str, font: FreeTypeFont, size: int) -> Image:
    """Draw a coloured character as high as a letter of this size is."""
    from PIL import ImageDraw  # noqa: PLC0415 - an optional dependency

    pillow = require_pillow()
    left, top, right, bottom = (int(edge) for edge in font.getbbox(character))
    picture: Image = pillow.new("RGBA", (max(right, 1), max(bottom, 1)))
    ImageDraw.Draw(picture).text((0, 0), character, font=font, embedded_color=True)
    picture = picture.crop((left, top, max(right, left + 1), max(bottom, top + 1)))
    width = max(size * picture.width // picture.height, 1)
    return picture.resize((width, size), pillow.Resampling.LANCZOS)


@functools.lru_cache(maxsize=4096)
def _draw_as(character: str, font: FreeTypeFont) -> str:
    if character == "\n":
        return character
    kind = unicodedata.category(character)
    if kind == "Cf" or ord(character) in _SELECTORS:
        return ""
    if kind in ("Cc", "Cs", "Zl", "Zp"):
        return "\ufffd"
    if _has(font, character) or _fallback_of(character, font):
        return character
    number = f"{ord(character):04X}"
    name = unicodedata.name(character, "")
    # The name of an ideograph only repeats its number.
    known = name if name and number not in name else f"U+{number}"
    return f"[{known.lower() if known is name else known}]"


def _has(font: FreeTypeFont, character: str) -> bool:
    if character.isspace():
        return True
    return _glyph(font, character) != _glyph(font, _NO_CHARACTER)


def _glyph(font: FreeTypeFont, character: str) -> tuple[tuple[int, int], bytes]:
    mask = font.getmask(character)
    return mask.size, bytes(mask)


@functools.lru_cache(maxsize=4 * _MOST_FONTS)
def _load(path: str, size: int) -> FreeTypeFont:
    from PIL import ImageFont  # noqa: PLC0415 - an optional dependency

    return ImageFont.truetype(path, size)
