"""Images: the size of every file, the pixels of every mode, broken files, bombs."""

from __future__ import annotations

import base64
import random
import struct
import zlib

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies
from PIL import Image

from ors_gym.formats import decode_image
from ors_gym.formats._blocks import read_image_size
from tests.formats.images import RED, encode


@pytest.mark.parametrize(
    ("file_format", "options"),
    [
        ("PNG", {}),
        ("JPEG", {}),
        ("JPEG", {"progressive": True}),
        ("JPEG", {"exif": b"Exif\x00\x00" + bytes(50_000)}),
        ("GIF", {}),
        ("WEBP", {"lossless": False}),
        ("WEBP", {"lossless": True}),
        ("WEBP", {"exif": b"Exif\x00\x00II*\x00\x08\x00\x00\x00\x00\x00"}),
    ],
)
@pytest.mark.parametrize("size", [(1, 1), (320, 200), (3, 1000)])
def test_the_size_is_read_from_the_header(file_format, options, size):
    data = encode(Image.new("RGB", size, "red"), file_format, **options)
    assert read_image_size(data) == size
    lines = "\n".join(data[i : i + 76] for i in range(0, len(data), 76))
    assert read_image_size(lines) == size


def test_jpeg_with_fill_bytes_and_markers_without_length():
    frame = b"\xff\xc0" + struct.pack(">HBHH", 11, 8, 20, 30)
    head = b"\xff\xd8\xff\x01\xff\xff\xe0\x00\x04ab\xff\xff" + frame + bytes(9)
    assert read_image_size(base64.b64encode(head).decode()) == (30, 20)


@pytest.mark.parametrize(
    "data",
    [
        "",
        "?",
        "é",
        "AAAA",
        "iVBORw0KGgo=",
        "/9j/",
        "R0lGODlh",
        base64.b64encode(b"RIFF____WEBPVP8?" + bytes(20)).decode(),
        base64.b64encode(b"RIFF____WAVE" + bytes(20)).decode(),
    ],
)
def test_images_of_unknown_size(data):
    assert read_image_size(data) is None


@hypothesis.given(
    strategies.sampled_from(["PNG", "JPEG", "GIF", "WEBP"]),
    strategies.integers(0, 700),
    strategies.binary(max_size=40),
)
def test_size_of_damaged_files_is_found_or_not(file_format, cut, tail):
    whole = base64.b64decode(encode(Image.new("RGB", (5, 7)), file_format))
    size = read_image_size(base64.b64encode(whole[:cut] + tail).decode())
    assert size is None or min(size) > 0


@hypothesis.given(strategies.text() | strategies.binary().map(bytes.hex))
def test_size_of_any_text(data):
    size = read_image_size(data)
    assert size is None or min(size) > 0


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
    try:
        assert decode_image(base64.b64encode(raw[:cut]).decode()).shape[2] == 3
    except ValueError as error:
        assert str(error)


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
    with pytest.raises(ValueError, match="10000x10000 is more than the 67108864 pix"):
        decode_image(bomb(10_000, 10_000))


def test_size_hidden_from_the_header_is_still_bounded():
    """The size of this file is beyond what is searched before Pillow opens it."""
    comment = b"\xff\xfe\xff\xff" + bytes(65_533)
    raw = base64.b64decode(encode(Image.new("RGB", (30, 30)), "JPEG"))
    data = base64.b64encode(raw[:2] + comment * 4 + raw[2:]).decode()
    assert read_image_size(data) is None
    assert decode_image(data).shape == (30, 30, 3)
    with pytest.raises(ValueError, match="30x30 is more than the 100 pixels left"):
        decode_image(data, max_pixels=100)


def test_line_breaks_in_base64():
    assert decode_image("\n".join(RED[i : i + 7] for i in range(0, len(RED), 7))).any()
