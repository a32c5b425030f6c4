"""The blocks of a prompt or a reply as text, and with their images decoded."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Sequence
from typing import Final

from ors_gym.formats._images import (
    MAX_PIXELS,
    ImageArray,
    decode_image,
    read_image_size,
)
from ors_gym.types import Block

__all__ = [
    "DecodedBlocks",
    "decode_blocks",
    "describe_block",
    "render_text",
    "replace_surrogates",
    "truncate",
]

_SEPARATOR: Final = "\n\n"
_SURROGATE: Final = re.compile("[\ud800-\udfff]")
_REPLACEMENT: Final = "\ufffd"
_MAX_KIND: Final = 100
_MAX_UNKNOWN: Final = 500
"""Characters that are shown of a block of an unknown kind."""


def render_text(blocks: Sequence[Block]) -> str:
    """Return blocks as text, joined by blank lines.

    An image is shown as ``[image: image/png, 640x480]``, a block of another kind as
    ``[kind: json]``; nothing is left out. Lone surrogates become U+FFFD, so that the
    text can be encoded and shared between processes.

    Args:
        blocks: A prompt, or the blocks of a tool's output.

    Example:
        >>> gif = {"type": "image", "data": "R0lGODdhCgAUAA==", "mimeType": "image/gif"}
        >>> print(render_text([{"type": "text", "text": "Look:"}, gif]))
        Look:
        <BLANKLINE>
        [image: image/gif, 10x20]
    """
    if len(blocks) == 1 and blocks[0].get("type") == "text":
        text = blocks[0].get("text")
        if type(text) is str and text.isascii():
            return text
    return replace_surrogates(_SEPARATOR.join(map(describe_block, blocks)))


@dataclasses.dataclass(frozen=True, slots=True)
class DecodedBlocks:
    """Text and images of a reply.

    Args:
        text: What `render_text` gives, except that an image which cannot be decoded
            is shown as ``[image: mime, unreadable: why]``.
        images: Arrays of shape (height, width, 3) and type uint8, in order.
        problems: Why images cannot be decoded, one sentence each.
    """

    text: str
    images: tuple[ImageArray, ...]
    problems: tuple[str, ...]


def decode_blocks(
    blocks: Sequence[Block], *, max_pixels: int = MAX_PIXELS
) -> DecodedBlocks:
    """Decode the images among blocks, and render all blocks as text.

    Args:
        blocks: A prompt, or the blocks of a tool's output.
        max_pixels: Pixels that all images may have together. An image that does not
            fit into what is left is reported as unreadable.

    Raises:
        MissingExtraError: If there is an image and Pillow is not installed.

    Example:
        >>> broken = {"type": "image", "data": "?", "mimeType": "image/png"}
        >>> decode_blocks([broken]).text
        '[image: image/png, unreadable: the data is not base64]'
    """
    texts: list[str] = []
    images: list[ImageArray] = []
    problems: list[str] = []
    for block in blocks:
        data = _image_data(block)
        if data is None:
            texts.append(describe_block(block))
            continue
        try:
            image = decode_image(data, max_pixels=max_pixels)
        except ValueError as error:
            texts.append(f"[image: {_media_type(block)}, unreadable: {error}]")
            number = len(images) + len(problems)
            problems.append(f"image {number} is unreadable: {error}")
        else:
            texts.append(describe_block(block))
            images.append(image)
            max_pixels -= image.shape[0] * image.shape[1]
    text = replace_surrogates(_SEPARATOR.join(texts))
    return DecodedBlocks(text, tuple(images), tuple(problems))


def describe_block(block: Block) -> str:
    """Return one block as text; lone surrogates stay."""
    text = block.get("text")
    if block.get("type") == "text" and isinstance(text, str):
        return text
    data = _image_data(block)
    if data is not None:
        size = read_image_size(data)
        dimensions = f", {size[0]}x{size[1]}" if size else ""
        return f"[image: {_media_type(block)}{dimensions}]"
    kind = str(block.get("type", "block"))[:_MAX_KIND]
    rest = {key: value for key, value in block.items() if key != "type"}
    try:
        shown = json.dumps(rest, ensure_ascii=False)
    except (TypeError, ValueError, RecursionError) as error:
        shown = type(error).__name__
    if len(shown) > _MAX_UNKNOWN:
        shown = shown[:_MAX_UNKNOWN] + "…"
    return f"[{kind}: {shown}]"


def replace_surrogates(text: str) -> str:
    """Replace lone surrogates, which no encoding can hold, by U+FFFD."""
    if text.isascii():
        return text
    try:
        text.encode()
    except UnicodeEncodeError:
        # JSON may escape half of a surrogate pair.
        return _SURROGATE.sub(_REPLACEMENT, text)
    return text


def truncate(text: str, max_length: int | None) -> tuple[str, bool]:
    """Cut text to a number of characters, and say whether something was cut off."""
    if max_length is None or len(text) <= max_length:
        return text, False
    return text[:max_length], True


def _image_data(block: Block) -> str | None:
    """Return an image's base64; None for a block of another kind."""
    data = block.get("data")
    return data if block.get("type") == "image" and isinstance(data, str) else None


def _media_type(block: Block) -> str:
    return str(block.get("mimeType") or "unknown type")[:_MAX_KIND]
