"""The blocks of a prompt or a reply: as text, and with their images decoded."""

from __future__ import annotations

import binascii
import contextlib
import dataclasses
import io
import json
import re
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from ors_gym._shown_text import shorten
from ors_gym.errors import import_extra
from ors_gym.types import Block

if TYPE_CHECKING:
    from PIL.Image import Image

ImageArray: TypeAlias = NDArray[np.uint8]
"""Pixels of shape (height, width, 3), red, green, blue."""

MAX_PIXELS: Final = 2**26
"""Pixels that the images of one observation may have together: 192 MiB as arrays."""

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

    Example:
        >>> decode_blocks([{"type": "text", "text": "Hello"}]).text
        'Hello'
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
            texts.append(f"[image: {read_media_type(block)}, unreadable: {error}]")
            number = len(images) + len(problems)
            problems.append(f"image {number} is unreadable: {error}")
        else:
            texts.append(describe_block(block))
            images.append(image)
            max_pixels -= image.shape[0] * image.shape[1]
    text = replace_surrogates(_SEPARATOR.join(texts))
    return DecodedBlocks(text, tuple(images), tuple(problems))


def to_picture_parts(blocks: Sequence[Block]) -> list[dict[str, Any]]:
    """Return blocks as parts of a message for a processor, images as Pillow's.

    An image that cannot be decoded is a text that says so.
    """
    parts: list[dict[str, Any]] = []
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


def describe_block(block: Block) -> str:
    """Return one block as text; lone surrogates stay."""
    text = block.get("text")
    if block.get("type") == "text" and isinstance(text, str):
        return text
    data = _image_data(block)
    if data is not None:
        size = read_image_size(data)
        dimensions = f", {size[0]}x{size[1]}" if size else ""
        return f"[image: {read_media_type(block)}{dimensions}]"
    kind = str(block.get("type", "block"))[:_MAX_KIND]
    rest = {key: value for key, value in block.items() if key != "type"}
    try:
        shown = json.dumps(rest, ensure_ascii=False)
    except (TypeError, ValueError, RecursionError) as error:
        shown = type(error).__name__
    return f"[{kind}: {shorten(shown, _MAX_UNKNOWN)}]"


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


def make_encodable(value: Any) -> Any:
    """Replace lone surrogates in plain JSON; the value itself if it has none."""
    text = json.dumps(value, ensure_ascii=False)
    encodable = replace_surrogates(text)
    return value if encodable is text else json.loads(encodable)


def truncate(text: str, max_length: int | None) -> tuple[str, bool]:
    """Cut text to a number of characters, and say whether something was cut off."""
    if max_length is None or len(text) <= max_length:
        return text, False
    return text[:max_length], True


def _image_data(block: Block) -> str | None:
    """Return an image's base64; None for a block of another kind."""
    data = block.get("data")
    return data if block.get("type") == "image" and isinstance(data, str) else None


IMAGE_ENDINGS: Final = {
    "image/gif": "gif",
    "image/jpeg": "jpg",
    "image/png": "png",
    "image/webp": "webp",
}
"""The endings of the files of images, by media type."""


def read_media_type(block: Block) -> str:
    """Return what an image is by its first bytes, else by the label of the server.

    Some servers label PNG files ``image/jpeg``, and providers refuse such an image.
    """
    data = block.get("data")
    kind = _find_kind(data) if isinstance(data, str) else None
    return kind or str(block.get("mimeType") or "unknown type")[:_MAX_KIND]


def decode_base64(data: object) -> bytes:
    r"""Return the file of an image; a ValueError says why there is none in a phrase.

    Some writers break base64 into lines.

    Example:
        >>> decode_base64("R0lG\nODdh\n")
        b'GIF87a'
    """
    if isinstance(data, str):
        with contextlib.suppress(ValueError):
            return binascii.a2b_base64("".join(data.split()), strict_mode=True)
    raise ValueError("the data is not base64")


# Without a list Pillow would also try formats that start other programs.
_FORMATS: Final = ("PNG", "JPEG", "GIF", "WEBP")
_TRANSPARENT_MODES: Final = frozenset({"RGBA", "LA", "PA", "RGBa", "La"})
_MAX_REASON: Final = 200


def decode_image(data: str, *, max_pixels: int = MAX_PIXELS) -> ImageArray:
    """Decode an image into pixels.

    Transparent pixels are shown on white. Channels of 16 bits keep their upper 8. Of
    an animation the first frame is taken. EXIF orientation is not applied.

    Args:
        data: A PNG, JPEG, GIF or WebP file in base64.
        max_pixels: Larger images are refused before they are decoded.

    Returns:
        An array of shape (height, width, 3).

    Raises:
        ValueError: If the image cannot be decoded; the message says why in a phrase.
        MissingExtraError: If Pillow is not installed.

    Example:
        >>> decode_image(
        ...     "R0lGODdhAQABAIAAAP8AAAAAACwAAAAAAQABAAACAkQBADs="
        ... ).tolist()
        [[[255, 0, 0]]]
    """
    pillow = require_pillow()
    raw = decode_base64(data)
    # Checked before Pillow opens the file, since Pillow warns of large images itself.
    _check_size(read_image_size(data), max_pixels)
    try:
        with pillow.open(io.BytesIO(raw), formats=_FORMATS) as image:
            _check_size(image.size, max_pixels)
            return _to_rgb(image, pillow)
    except _TooLargeError:
        raise
    except pillow.UnidentifiedImageError:
        raise ValueError("it is not a PNG, JPEG, GIF or WebP file") from None
    except Exception as error:  # noqa: BLE001 - broken files raise errors of all kinds
        raise ValueError(f"{type(error).__name__}: {error}"[:_MAX_REASON]) from None


def require_pillow() -> Any:
    """Return Pillow's ``Image`` module, or raise what to install."""
    alternative = 'use observation_mode="text"'
    return import_extra("PIL.Image", "images", "An image as an array", alternative)


class _TooLargeError(ValueError):
    """Raised when an image has too many pixels."""


def _check_size(size: tuple[int, int] | None, max_pixels: int) -> None:
    if size is not None and size[0] * size[1] > max_pixels:
        raise _TooLargeError(
            f"{size[0]}x{size[1]} is more than the {max_pixels} pixels left"
        )


def _to_rgb(image: Image, pillow: Any) -> ImageArray:
    if image.mode == "I" or image.mode.startswith("I;16"):
        # Converting would clip the values at 255 rather than scale them.
        grey = (np.asarray(image) >> 8).astype(np.uint8)
        return np.repeat(grey[..., None], 3, axis=2)
    if "transparency" in image.info or image.mode in _TRANSPARENT_MODES:
        layer = image.convert("RGBA")
        white = pillow.new("RGBA", layer.size, "white")
        image = pillow.alpha_composite(white, layer)
    # A copy, since Pillow's own buffer is read-only.
    return np.array(image.convert("RGB"))


_HEAD_CHARACTERS: Final = 64
_JPEG_HEAD_CHARACTERS: Final = 256 * 1024
"""JPEG keeps the size behind its metadata."""


def read_image_size(data: str) -> tuple[int, int] | None:
    """Return width and height as the header of a file in base64 states them."""
    kind = _find_kind(data)
    if kind is None:
        return None
    characters = _JPEG_HEAD_CHARACTERS if kind == "image/jpeg" else _HEAD_CHARACTERS
    try:
        head = _decode_head(data, characters)
    except ValueError:
        return None
    size = _SIZE_READERS[kind](head)
    return size if size and all(size) else None


def _find_kind(data: str) -> str | None:
    try:
        head = _decode_head(data, _HEAD_CHARACTERS)
    except ValueError:
        return None
    for magic, kind in _KINDS.items():
        if head.startswith(magic) and (kind != "image/webp" or head[8:12] == b"WEBP"):
            return kind
    return None


def _decode_head(data: str, characters: int) -> bytes:
    # Some writers break base64 into lines.
    head = "".join(data[:characters].split())
    return binascii.a2b_base64(head[: len(head) // 4 * 4])


def _read_png_size(head: bytes) -> tuple[int, int] | None:
    """PNG (third edition), section 11.2.1: IHDR is the first chunk."""
    if len(head) < 24 or head[12:16] != b"IHDR":
        return None
    return int.from_bytes(head[16:20], "big"), int.from_bytes(head[20:24], "big")


def _read_gif_size(head: bytes) -> tuple[int, int] | None:
    """GIF89a, section 18: logical screen descriptor."""
    if len(head) < 10:
        return None
    return int.from_bytes(head[6:8], "little"), int.from_bytes(head[8:10], "little")


def _read_webp_size(head: bytes) -> tuple[int, int] | None:
    """RFC 9649, sections 2.5 to 2.7: lossy, lossless and extended files."""
    if len(head) < 30:
        return None
    kind = head[12:16]
    if kind == b"VP8 " and head[23:26] == b"\x9d\x01\x2a":
        width = int.from_bytes(head[26:28], "little") & 0x3FFF
        height = int.from_bytes(head[28:30], "little") & 0x3FFF
        return width, height
    if kind == b"VP8L" and head[20] == 0x2F:
        bits = int.from_bytes(head[21:25], "little")
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    if kind == b"VP8X":
        width = int.from_bytes(head[24:27], "little") + 1
        return width, int.from_bytes(head[27:30], "little") + 1
    return None


def _read_jpeg_size(head: bytes) -> tuple[int, int] | None:
    """ITU T.81, section B.2: skip segments up to the start of frame."""
    position = 2
    while position + 9 <= len(head) and head[position] == 0xFF:
        marker = head[position + 1]
        if marker == 0xFF:
            position += 1
        elif marker == 0x01 or 0xD0 <= marker <= 0xD8:
            position += 2
        elif 0xC0 <= marker <= 0xCF and marker not in {0xC4, 0xC8, 0xCC}:
            height = int.from_bytes(head[position + 5 : position + 7], "big")
            return int.from_bytes(head[position + 7 : position + 9], "big"), height
        else:
            position += 2 + int.from_bytes(head[position + 2 : position + 4], "big")
    return None


_KINDS: Final = {
    b"\x89PNG\r\n\x1a\n": "image/png",
    b"\xff\xd8": "image/jpeg",
    b"GIF8": "image/gif",
    b"RIFF": "image/webp",
}
_SIZE_READERS: Final[Mapping[str, Callable[[bytes], tuple[int, int] | None]]] = {
    "image/png": _read_png_size,
    "image/jpeg": _read_jpeg_size,
    "image/gif": _read_gif_size,
    "image/webp": _read_webp_size,
}
