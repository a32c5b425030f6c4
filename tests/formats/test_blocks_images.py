"""Blocks as text and arrays: every kind of image, and every broken one."""

from __future__ import annotations

import base64
import io
import random
import sys
import zlib
from typing import Any

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies
from PIL import Image

from ors_gym.errors import MissingExtraError
from ors_gym.formats import DecodedBlocks, decode_blocks, decode_image, render_text


def encode(image: Image.Image, file_format: str = "PNG", **options: Any) -> str:
    file = io.BytesIO()
    image.save(file, file_format, **options)
    return base64.b64encode(file.getvalue()).decode()


def image_block(data: str) -> Any:
    return {"type": "image", "data": data, "mimeType": "image/png"}


RED = encode(Image.new("RGB", (3, 2), "red"))


def test_text_and_images_in_order():
    blue = encode(Image.new("RGB", (1, 4), "blue"), "JPEG")
    text: Any = {"type": "text", "text": "Two:"}
    decoded = decode_blocks([text, image_block(RED), image_block(blue)])
    assert decoded.text == (
        "Two:\n\n[image: image/png, 3x2]\n\n[image: image/png, 1x4]"
    )
    first, second = decoded.images
    assert first.dtype == second.dtype == np.uint8
    assert first.shape == (2, 3, 3)
    assert second.shape == (4, 1, 3)
    assert first[0, 0].tolist() == [255, 0, 0]
    assert second[0, 0, 2] > 200
    first[0, 0] = 7


def test_text_is_that_of_the_text_mode():
    blocks: Any = [
        {"type": "text", "text": "é\ud800"},
        image_block(RED),
        {"type": "audio", "data": "x"},
    ]
    assert decode_blocks(blocks).text == render_text(blocks)
    assert decode_blocks([]) == DecodedBlocks("", (), ())


def half_transparent_palette() -> str:
    image = Image.new("P", (2, 2), 1)
    image.putpalette([0, 0, 0, 255, 0, 0])
    return encode(image, transparency=b"\x00\x00")


@pytest.mark.parametrize(
    ("data", "pixel"),
    [
        (encode(Image.new("1", (2, 2), 1)), [255, 255, 255]),
        (encode(Image.new("L", (2, 2), 100)), [100, 100, 100]),
        (encode(Image.new("LA", (2, 2), (100, 255))), [100, 100, 100]),
        (encode(Image.new("LA", (2, 2), (0, 0))), [255, 255, 255]),
        (encode(Image.new("RGBA", (2, 2), (0, 0, 0, 0))), [255, 255, 255]),
        (encode(Image.new("RGBA", (2, 2), (255, 0, 0, 255))), [255, 0, 0]),
        (
            encode(Image.new("RGBA", (2, 2), (0, 0, 0, 128)), "WEBP", lossless=True),
            [127] * 3,
        ),
        (half_transparent_palette(), [255, 255, 255]),
        (
            encode(Image.new("RGB", (2, 2), (1, 2, 3)), transparency=(1, 2, 3)),
            [255] * 3,
        ),
        (encode(Image.new("P", (2, 2), 0), "GIF"), [0, 0, 0]),
        (encode(Image.new("I;16", (2, 2), 0x8001)), [0x80] * 3),
        (encode(Image.new("I;16", (2, 2), 0x00FF)), [0] * 3),
        (encode(Image.new("CMYK", (2, 2), (0, 255, 255, 0)), "JPEG"), [255, 0, 0]),
        (encode(Image.new("L", (2, 2), 9), "JPEG"), [9, 9, 9]),
    ],
)
def test_every_mode_becomes_rgb(data, pixel):
    decoded = decode_image(data)
    assert decoded.shape == (2, 2, 3)
    assert decoded.dtype == np.uint8
    # JPEG libraries round in different ways.
    assert np.abs(decoded[1, 1].astype(int) - pixel).max() <= 2


@pytest.mark.parametrize("file_format", ["GIF", "PNG", "WEBP"])
def test_first_frame_of_an_animation(file_format):
    frames = [Image.new("RGB", (2, 2), color) for color in ("red", "blue")]
    options = {"lossless": True} if file_format == "WEBP" else {}
    data = encode(
        frames[0], file_format, save_all=True, append_images=frames[1:], **options
    )
    assert decode_image(data)[0, 0].tolist() == [255, 0, 0]


def test_orientation_is_left_as_it_is():
    exif = Image.Exif()
    exif[0x0112] = 6
    data = encode(Image.new("RGB", (4, 2)), "JPEG", exif=exif)
    assert decode_image(data).shape == (2, 4, 3)


def damaged_png() -> str:
    raw = bytearray(base64.b64decode(encode(Image.effect_noise((40, 40), 50))))
    raw[100:140] = bytes(40)
    return base64.b64encode(raw).decode()


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        ("", "not a PNG, JPEG, GIF or WebP"),
        ("!", "not base64"),
        ("é", "not base64"),
        ("AAA", "not base64"),
        ("AAAA", "not a PNG, JPEG, GIF or WebP"),
        (base64.b64encode(b"%!PS-Adobe-3.0 EPSF-3.0\n").decode(), "not a PNG"),
        (encode(Image.new("RGB", (2, 2)), "BMP"), "not a PNG"),
        (base64.b64encode(base64.b64decode(RED)[:40]).decode(), ""),
        (damaged_png(), ""),
    ],
)
def test_broken_image_is_told_and_the_rest_is_kept(data, reason):
    decoded = decode_blocks([image_block(data), image_block(RED)])
    first, second = decoded.text.split("\n\n")
    assert first.startswith("[image: image/png, unreadable: ")
    assert reason in first
    assert "0x" not in first, "an address would differ from run to run"
    assert second == "[image: image/png, 3x2]"
    assert len(decoded.images) == 1
    (problem,) = decoded.problems
    assert problem.startswith("image 0 is unreadable: ")


@hypothesis.given(
    strategies.sampled_from(["PNG", "JPEG", "GIF", "WEBP"]), strategies.data()
)
def test_damage_is_an_image_or_a_reason(file_format, data):
    noise = Image.frombytes("RGB", (9, 9), random.Random(1).randbytes(243))
    raw = bytearray(base64.b64decode(encode(noise, file_format)))
    for _ in range(data.draw(strategies.integers(1, 4))):
        raw[data.draw(strategies.integers(0, len(raw) - 1))] = data.draw(
            strategies.integers(0, 255)
        )
    cut = data.draw(strategies.integers(0, len(raw)))
    decoded = decode_blocks([image_block(base64.b64encode(raw[:cut]).decode())])
    assert len(decoded.images) + len(decoded.problems) == 1


def bomb(width: int, height: int) -> str:
    """Make a small file that states a large size and holds its pixels."""
    header = (
        width.to_bytes(4, "big") + height.to_bytes(4, "big") + bytes([8, 0, 0, 0, 0])
    )
    pixels = zlib.compress(bytes((width + 1) * height), 9)
    file = b"\x89PNG\r\n\x1a\n"
    for kind, body in ((b"IHDR", header), (b"IDAT", pixels), (b"IEND", b"")):
        checksum = zlib.crc32(kind + body).to_bytes(4, "big")
        file += len(body).to_bytes(4, "big") + kind + body + checksum
    return base64.b64encode(file).decode()


def test_bombs_are_refused_before_they_are_decoded():
    decoded = decode_blocks([image_block(bomb(10_000, 10_000))])
    assert decoded.images == ()
    assert "10000x10000 is more than the 67108864 pixels left" in decoded.text


def test_many_images_share_the_limit():
    block = image_block(RED)
    decoded = decode_blocks([block] * 4, max_pixels=17)
    assert len(decoded.images) == 2
    assert decoded.problems == (
        "image 2 is unreadable: 3x2 is more than the 5 pixels left",
        "image 3 is unreadable: 3x2 is more than the 5 pixels left",
    )


def test_size_hidden_from_the_header_is_still_bounded():
    """The size of this file is beyond what is searched before Pillow opens it."""
    comment = b"\xff\xfe\xff\xff" + bytes(65_533)
    raw = base64.b64decode(encode(Image.new("RGB", (30, 30)), "JPEG"))
    data = base64.b64encode(raw[:2] + comment * 4 + raw[2:]).decode()
    assert "[image: image/png]" in render_text([image_block(data)])
    assert decode_image(data).shape == (30, 30, 3)
    with pytest.raises(ValueError, match="30x30 is more than the 100 pixels left"):
        decode_image(data, max_pixels=100)


def test_line_breaks_in_base64():
    assert decode_image("\n".join(RED[i : i + 7] for i in range(0, len(RED), 7))).any()


def test_without_pillow(monkeypatch):
    monkeypatch.setitem(sys.modules, "PIL.Image", None)
    with pytest.raises(MissingExtraError, match=r'pip install "ors-gym\[images\]"'):
        decode_blocks([image_block(RED)])
    assert render_text([image_block(RED)]) == "[image: image/png, 3x2]"
    text: Any = {"type": "text", "text": "no image"}
    assert decode_blocks([text]).text == "no image"
