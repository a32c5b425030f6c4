"""Replies as a chat template takes them: text, or text and images in order."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

from ors_gym.observations import decode_blocks
from ors_gym.observations.images import MAX_PIXELS, require_pillow
from ors_gym.types import Block, JSONObject

__all__ = ["Content", "make_content"]

Content: TypeAlias = str | list[JSONObject]
"""Text, or parts: ``{"type": "text", "text"}``, ``{"type": "image", "image"}``."""


def make_content(text: str, blocks: Sequence[Block], *, images: bool) -> Content:
    """Return a reply as the content of a message.

    Args:
        text: The blocks as text, images described.
        blocks: The blocks; none where the text stands for itself, as an error does.
        images: Whether images are shown.

    Returns:
        The text, unless there is an image to show; then the parts in order, the images
        as `PIL.Image.Image`, and a text in the place of one that cannot be decoded.

    Raises:
        MissingExtraError: If there is an image to show and Pillow is not installed.

    Example:
        >>> make_content("hi", [{"type": "text", "text": "hi"}], images=True)
        'hi'
        >>> gif = "R0lGODdhAQABAIAAAP8AAAAAACwAAAAAAQABAAACAkQBADs="
        >>> block = {"type": "image", "data": gif, "mimeType": "image/gif"}
        >>> make_content("...", [block], images=True)[0]["image"].size
        (1, 1)
    """
    if not images or all(block.get("type") != "image" for block in blocks):
        return text
    parts: list[JSONObject] = []
    pixels = MAX_PIXELS
    for block in blocks:
        decoded = decode_blocks([block], max_pixels=pixels)
        if decoded.images:
            pixels -= decoded.images[0].shape[0] * decoded.images[0].shape[1]
            image: Any = require_pillow().fromarray(decoded.images[0])
            parts.append({"type": "image", "image": image})
        else:
            parts.append({"type": "text", "text": decoded.text})
    return parts
