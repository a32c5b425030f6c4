"""The prompt or a step as one card of a picture."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any, Final

from ors_gym.drawing.lettering import drawable, fit, load_font, wrap
from ors_gym.observations import decode_image, describe_block
from ors_gym.observations.images import require_pillow
from ors_gym.palette import DARK
from ors_gym.transcript import Entry

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["COLUMN", "FONT_SIZE", "LINE", "PADDING", "Card", "make_card"]

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
