"""A transcript as a picture, drawn by Pillow (extra ``images``)."""

from __future__ import annotations

import dataclasses
import functools
import os
import pathlib
import unicodedata
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from ors_gym.display._style import DARK, reward_colour
from ors_gym.display._transcript import Entry, Transcript
from ors_gym.errors import InvalidRequestError, import_extra
from ors_gym.formats._blocks import describe_block
from ors_gym.formats._images import decode_image, require_pillow

if TYPE_CHECKING:
    from PIL.Image import Image
    from PIL.ImageFont import FreeTypeFont

__all__ = [
    "COLUMN",
    "FONT_SIZE",
    "FONT_VARIABLE",
    "FRAME_SHAPE",
    "LINE",
    "MISSING",
    "PADDING",
    "Card",
    "draw_transcript",
    "drawable",
    "fit",
    "load_font",
    "make_card",
    "require_drawing",
    "wrap",
]

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


FONT_SIZE: Final = 18
LINE: Final = 24
"""Pixels from one line to the next."""
COLUMN: Final = 11
"""Pixels of a column of text, rounded up."""
PADDING: Final = 12
_PICTURE_WIDTH: Final = 300
_MOST_PICTURES: Final = 3
_MOST_PIXELS: Final = 2**24
_MOST_ENLARGED: Final = 8
_MOST_CALL_LINES: Final = 4


@dataclasses.dataclass(frozen=True)
class Card:
    """Lines of text, with pictures at their right.

    Args:
        lines: Texts with the names of their colours.
        pictures: The pictures, one below the other.
        edge: The name of the colour of the card's edge.
    """

    lines: list[tuple[str, str]]
    pictures: list[Image]
    edge: str

    @property
    def height(self) -> int:
        """Its height in pixels."""
        beside = sum(picture.height + PADDING for picture in self.pictures) - PADDING
        return max(len(self.lines) * LINE, beside) + 2 * PADDING

    def draw(self, canvas: Any, image: Image, top: int, width: int, left: int) -> None:
        """Draw it.

        Args:
            canvas: The ``ImageDraw`` of the image.
            image: The image.
            top: Where it begins; what is above the image is cut off.
            width: Its width.
            left: Where it begins.
        """
        box = (left, top, left + width - 1, top + self.height - 1)
        canvas.rounded_rectangle(box, radius=6, fill=DARK["surface"])
        canvas.rectangle((left, top + 2, left + 4, box[3] - 2), fill=DARK[self.edge])
        font = load_font(FONT_SIZE)
        for number, (text, colour) in enumerate(self.lines):
            at = (left + 2 * PADDING, top + PADDING + number * LINE)
            canvas.text(at, text, font=font, fill=DARK[colour])
        below = top + PADDING
        for picture in self.pictures:
            image.paste(picture, (left + width - PADDING - picture.width, below))
            below += picture.height + PADDING


def make_card(entry: Entry, width: int, height: int) -> Card:
    """Lay out the prompt or a step.

    Args:
        entry: The prompt or a step.
        width: The card's width in pixels.
        height: The most it may be high; long text loses its middle.
    """
    inside = height - 2 * PADDING
    text, pictures = _read(entry, inside)
    columns = (width - 3 * PADDING) // COLUMN
    if pictures:
        columns -= (max(p.width for p in pictures) + PADDING) // COLUMN
    font = load_font(FONT_SIZE)
    lines: list[tuple[str, str]] = []
    if entry.call:
        call = fit(f"> {entry.call}", font, columns, _MOST_CALL_LINES)
        lines += [(line, "accent") for line in call]
    ending = wrap(drawable(entry.ending, font), columns) if entry.call else []
    room = inside // LINE - len(lines) - len(ending)
    colour = "warn" if entry.failed else "text"
    lines += [(line, colour) for line in fit(text, font, columns, room)]
    lines += [(line, entry.mood) for line in ending]
    return Card(lines, pictures, entry.mood)


def _read(entry: Entry, height: int) -> tuple[str, list[Image]]:
    """Return an entry's text, and its pictures in the size of the card."""
    images = [b for b in entry.blocks if b.get("type") == "image"]
    if not images:
        return entry.text, []
    texts: list[str] = []
    pictures: list[Image] = []
    each = height // min(len(images), _MOST_PICTURES) - PADDING
    for block in entry.blocks:
        data = block.get("data")
        picture = block.get("type") == "image" and isinstance(data, str)
        if not picture or len(pictures) == _MOST_PICTURES:
            texts.append(describe_block(block))
            continue
        try:
            pictures.append(_picture(str(data), each))
        except ValueError as error:
            texts.append(f"[image, unreadable: {error}]")
    return "\n\n".join(texts), pictures


def _picture(data: str, height: int) -> Image:
    pillow = require_pillow()
    image: Image = pillow.fromarray(decode_image(data, max_pixels=_MOST_PIXELS))
    ratio = min(_PICTURE_WIDTH / image.width, height / image.height)
    if ratio >= 1:
        # Pixel art stays sharp.
        factor = min(int(ratio), _MOST_ENLARGED)
        size = (image.width * factor, image.height * factor)
        return image.resize(size, pillow.Resampling.NEAREST)
    size = (max(int(image.width * ratio), 1), max(int(image.height * ratio), 1))
    return image.resize(size, pillow.Resampling.LANCZOS)


FRAME_SHAPE: Final = (720, 960, 3)
"""Height, width, channels; multiples of 16, as encoders of films want them."""

_HEIGHT, _WIDTH, _ = FRAME_SHAPE
_MARGIN: Final = 20
_HEADER: Final = 56
_GAP: Final = 12
_OLDER_HEIGHT: Final = 10 * LINE
"""The most that a card is high which is not the newest."""


def require_drawing() -> None:
    """Raise unless frames can be drawn.

    Raises:
        MissingExtraError: If Pillow is not installed.
    """
    for module in ("PIL.ImageDraw", "PIL.ImageFont"):
        import_extra(
            module,
            "images",
            'render_mode="rgb_array"',
            'use render_mode="ansi", which gives the same as text',
        )


def draw_transcript(transcript: Transcript) -> NDArray[np.uint8]:
    """Draw an episode: a header, and as many of the newest turns as there is room for.

    Long text loses its middle; images stand beside the text, scaled; an image that
    cannot be decoded is a line of text that says why. A character that the font does
    not have is drawn as a square, and text that runs from right to left as Pillow's
    layout engine has it (in reading order with libraqm, which its wheels contain).

    Args:
        transcript: The episode.

    Returns:
        Pixels of the shape `FRAME_SHAPE`.

    Raises:
        MissingExtraError: If Pillow is not installed.

    Example:
        >>> transcript = Transcript()
        >>> transcript.start("What is 2 + 2?", title="math", task="task 0")
        >>> draw_transcript(transcript).shape
        (720, 960, 3)
    """
    require_drawing()
    from PIL import ImageDraw  # noqa: PLC0415 - an optional dependency

    image = require_pillow().new("RGB", (_WIDTH, _HEIGHT), DARK["ground"])
    canvas = ImageDraw.Draw(image)
    cards = _newest_cards(transcript.entries)
    top = _HEADER + _GAP
    total = sum(card.height + _GAP for card in cards)
    # The newest card ends at the bottom; what does not fit is cut off at the top.
    top = min(top, _HEIGHT - total)
    for card in reversed(cards):
        card.draw(canvas, image, top, _WIDTH - 2 * _MARGIN, _MARGIN)
        top += card.height + _GAP
    _draw_header(canvas, transcript)
    return np.array(image)


def _newest_cards(entries: list[Entry]) -> list[Card]:
    """Lay out the newest entries, newest first, until the frame is full."""
    cards: list[Card] = []
    room = _HEIGHT - _HEADER - 2 * _GAP
    width = _WIDTH - 2 * _MARGIN
    for entry in reversed(entries):
        height = min(room, _OLDER_HEIGHT) if cards else room
        cards.append(make_card(entry, width, max(height, 6 * LINE)))
        room -= cards[-1].height + _GAP
        if room <= 0:
            break
    return cards


def _draw_header(canvas: Any, transcript: Transcript) -> None:
    font = load_font(FONT_SIZE)
    canvas.rectangle((0, 0, _WIDTH, _HEADER), fill=DARK["ground"])
    canvas.line((0, _HEADER, _WIDTH, _HEADER), fill=DARK["line"], width=2)
    total = transcript.total
    note = transcript.entries[-1].note if transcript.entries else ""
    right = f"step {transcript.steps}   reward {total:g}"
    right += f"   {note}" if note else ""
    right_width = int(font.getlength(right))
    middle = (_HEADER - LINE) // 2
    canvas.text(
        (_WIDTH - _MARGIN - right_width, middle),
        right,
        font=font,
        fill=DARK[reward_colour(total) if total else "text"],
    )
    room = (_WIDTH - 2 * _MARGIN - right_width) // COLUMN - 2
    left = drawable(f"{transcript.title}   {transcript.task}", font).replace("\n", " ")
    if len(left) > room:
        left = left[: room - 1] + "…"
    title = drawable(transcript.title, font).replace("\n", " ")
    canvas.text((_MARGIN, middle), left, font=font, fill=DARK["muted"])
    canvas.text((_MARGIN, middle), left[: len(title)], font=font, fill=DARK["accent"])
