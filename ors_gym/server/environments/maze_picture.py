"""A maze as a picture."""

from __future__ import annotations

import base64
import io
from typing import Final

from ors import ImageBlock
from PIL import Image

__all__ = ["draw"]

_PIXELS_PER_SQUARE: Final = 8
_COLOURS: Final[dict[str, tuple[int, int, int]]] = {
    "#": (40, 44, 52),
    ".": (245, 245, 240),
    "@": (214, 69, 65),
    "G": (38, 166, 91),
}


def draw(rows: list[str]) -> ImageBlock:
    """Draw a map.

    Args:
        rows: Rows of text: ``#`` wall, ``.`` floor, ``@`` player, ``G`` goal.

    Returns:
        A PNG, 8 pixels to a square.
    """
    height, width = len(rows), len(rows[0])
    pixels = bytes(part for row in rows for square in row for part in _COLOURS[square])
    picture = Image.frombytes("RGB", (width, height), pixels).resize(
        (width * _PIXELS_PER_SQUARE, height * _PIXELS_PER_SQUARE),
        Image.Resampling.NEAREST,
    )
    buffer = io.BytesIO()
    picture.save(buffer, format="PNG")
    data = base64.b64encode(buffer.getvalue()).decode("ascii")
    return ImageBlock(data=data, mimeType="image/png")
