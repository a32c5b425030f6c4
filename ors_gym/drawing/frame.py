"""A transcript as one frame of a film: of one size, the newest turns in sight."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from ors_gym.drawing.card import COLUMN, FONT_SIZE, LINE, Card, make_card
from ors_gym.drawing.lettering import drawable, load_font
from ors_gym.errors import MissingExtraError
from ors_gym.observations.images import require_pillow
from ors_gym.palette import DARK, reward_colour
from ors_gym.transcript import Entry, Transcript

__all__ = ["FRAME_SHAPE", "draw_transcript", "require_drawing"]

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
    try:
        from PIL import ImageDraw, ImageFont  # noqa: F401, PLC0415
    except ImportError:
        raise MissingExtraError(
            'render_mode="rgb_array" needs Pillow: pip install "ors-gym[images]"; '
            'render_mode="ansi" gives the same as text'
        ) from None


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
