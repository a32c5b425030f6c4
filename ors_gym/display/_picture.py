"""A transcript as a picture, drawn by Pillow: the frame, its cards, their lines."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from ors_gym._shown_text import shorten
from ors_gym.display._fonts import columns_of, draw_line, drawable, load_font
from ors_gym.display._html import DARK
from ors_gym.display._transcript import Entry, Transcript, reward_colour
from ors_gym.errors import import_extra
from ors_gym.formats._blocks import decode_image, describe_block, require_pillow

if TYPE_CHECKING:
    from PIL.Image import Image
    from PIL.ImageFont import FreeTypeFont

FRAME_SHAPE: Final = (720, 960, 3)
"""Height, width, channels; multiples of 16, as video encoders want them."""

# All sizes are in pixels, unless they are numbers of lines or images.
_HEIGHT, _WIDTH, _ = FRAME_SHAPE
_MARGIN: Final = 20
_HEADER: Final = 56
_GAP: Final = 12
_PADDING: Final = 12
_FONT_SIZE: Final = 18
_LINE: Final = 24
"""From one line to the next."""
_COLUMN: Final = 11
"""A column of text, rounded up."""
_OLDER_HEIGHT: Final = 10 * _LINE
"""The most height of a card that is not the newest."""
_LEAST_HEIGHT: Final = 6 * _LINE
_MOST_CALL_LINES: Final = 4

_IMAGE_WIDTH: Final = 300
_MOST_IMAGES: Final = 3
_MOST_PIXELS: Final = 2**24
_MOST_ENLARGED: Final = 8

_LEAST_PART: Final = 0.6
"""A line is broken at a blank only if this part of it would be full."""


def require_drawing() -> None:
    """Raise a `MissingExtraError` unless frames can be drawn."""
    for module in ("PIL.ImageDraw", "PIL.ImageFont"):
        import_extra(
            module,
            "images",
            'render_mode="rgb_array"',
            'use render_mode="ansi", which gives the same as text',
        )


def draw_transcript(transcript: Transcript) -> NDArray[np.uint8]:
    """Draw an episode: a header, and as many of the newest steps as there is room for.

    Long text loses its middle. Images stand beside the text, scaled; an image that
    cannot be decoded becomes a line of text that says why. Text that runs from right
    to left is laid out by Pillow (in reading order with libraqm, which its wheels
    contain).
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
        card.draw(canvas, image, top)
        top += card.height + _GAP
    _draw_header(canvas, image, transcript)
    return np.array(image)


def _newest_cards(entries: Sequence[Entry]) -> list[_Card]:
    """Lay out the newest entries, newest first, until the frame is full."""
    cards: list[_Card] = []
    room = _HEIGHT - _HEADER - 2 * _GAP
    for entry in reversed(entries):
        height = min(room, _OLDER_HEIGHT) if cards else room
        cards.append(make_card(entry, _WIDTH - 2 * _MARGIN, max(height, _LEAST_HEIGHT)))
        room -= cards[-1].height + _GAP
        if room <= 0:
            break
    return cards


def _draw_header(canvas: Any, frame: Image, transcript: Transcript) -> None:
    font = load_font(_FONT_SIZE)
    canvas.rectangle((0, 0, _WIDTH, _HEADER), fill=DARK["ground"])
    canvas.line((0, _HEADER, _WIDTH, _HEADER), fill=DARK["line"], width=2)
    total = transcript.total
    note = transcript.entries[-1].note if transcript.entries else ""
    right = f"step {transcript.steps}   reward {total:g}"
    right += f"   {note}" if note else ""
    right_width = int(font.getlength(right))
    middle = (_HEADER - _LINE) // 2
    canvas.text(
        (_WIDTH - _MARGIN - right_width, middle),
        right,
        font=font,
        fill=DARK[reward_colour(total) if total else "text"],
    )
    room = (_WIDTH - 2 * _MARGIN - right_width) // _COLUMN - 2
    left = drawable(f"{transcript.title}   {transcript.task}", font).replace("\n", " ")
    left = shorten(left, room)
    title = drawable(transcript.title, font).replace("\n", " ")
    at = (_MARGIN, middle)
    draw_line(canvas, frame, at, left, colour=DARK["muted"], size=_FONT_SIZE)
    draw_line(
        canvas, frame, at, left[: len(title)], colour=DARK["accent"], size=_FONT_SIZE
    )


@dataclasses.dataclass(frozen=True)
class _Card:
    """Lines of text with the names of their colours, and images at their right."""

    lines: list[tuple[str, str]]
    images: list[Image]
    edge: str
    """The name of the colour of its edge."""
    width: int

    @property
    def height(self) -> int:
        beside = sum(image.height + _PADDING for image in self.images) - _PADDING
        return max(len(self.lines) * _LINE, beside) + 2 * _PADDING

    def draw(self, canvas: Any, frame: Image, top: int) -> None:
        """Draw it; a negative ``top`` cuts off what is above the frame."""
        right, bottom = _MARGIN + self.width, top + self.height - 1
        box = (_MARGIN, top, right - 1, bottom)
        canvas.rounded_rectangle(box, radius=6, fill=DARK["surface"])
        edge = (_MARGIN, top + 2, _MARGIN + 4, bottom - 2)
        canvas.rectangle(edge, fill=DARK[self.edge])
        for number, (text, colour) in enumerate(self.lines):
            at = (_MARGIN + 2 * _PADDING, top + _PADDING + number * _LINE)
            draw_line(canvas, frame, at, text, colour=DARK[colour], size=_FONT_SIZE)
        below = top + _PADDING
        for image in self.images:
            frame.paste(image, (right - _PADDING - image.width, below))
            below += image.height + _PADDING


def make_card(entry: Entry, width: int, height: int) -> _Card:
    """Lay out the prompt or a step, at most ``height`` pixels high."""
    inside = height - 2 * _PADDING
    text, images = _read_blocks(entry, inside)
    columns = (width - 3 * _PADDING) // _COLUMN
    if images:
        columns -= (max(image.width for image in images) + _PADDING) // _COLUMN
    font = load_font(_FONT_SIZE)
    lines: list[tuple[str, str]] = []
    if entry.call:
        call = fit(f"> {entry.call}", font, columns, _MOST_CALL_LINES)
        lines += [(line, "accent") for line in call]
    ending = wrap(drawable(entry.ending, font), columns) if entry.call else []
    room = inside // _LINE - len(lines) - len(ending)
    colour = "warn" if entry.failed else "text"
    lines += [(line, colour) for line in fit(text, font, columns, room)]
    lines += [(line, entry.mood) for line in ending]
    return _Card(lines, images, entry.mood, width)


def _read_blocks(entry: Entry, height: int) -> tuple[str, list[Image]]:
    """Return an entry's text, and its images in the size of the card."""
    found = [block for block in entry.blocks if block.get("type") == "image"]
    if not found:
        return entry.text, []
    texts: list[str] = []
    images: list[Image] = []
    each = height // min(len(found), _MOST_IMAGES) - _PADDING
    for block in entry.blocks:
        data = block.get("data")
        is_image = block.get("type") == "image" and isinstance(data, str)
        if not is_image or len(images) == _MOST_IMAGES:
            texts.append(describe_block(block))
            continue
        try:
            images.append(_scaled_image(str(data), each))
        except ValueError as error:
            texts.append(f"[image, unreadable: {error}]")
    return "\n\n".join(texts), images


def _scaled_image(data: str, height: int) -> Image:
    pillow = require_pillow()
    image: Image = pillow.fromarray(decode_image(data, max_pixels=_MOST_PIXELS))
    ratio = min(_IMAGE_WIDTH / image.width, height / image.height)
    if ratio >= 1:
        # Enlarged by a whole number, pixel art stays sharp.
        factor = min(int(ratio), _MOST_ENLARGED)
        size = (image.width * factor, image.height * factor)
        return image.resize(size, pillow.Resampling.NEAREST)
    size = (max(int(image.width * ratio), 1), max(int(image.height * ratio), 1))
    return image.resize(size, pillow.Resampling.LANCZOS)


def fit(text: str, font: FreeTypeFont, columns: int, most: int) -> list[str]:
    r"""Break a text into at most so many drawable lines, leaving out its middle.

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


def wrap(text: str, columns: int) -> list[str]:
    """Break a text into lines, at blanks where there is one not too far back.

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
        columns -= columns_of(character)
        if columns < 0:
            return max(number, 1)
    return len(line)
