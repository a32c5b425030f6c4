"""Blocks as text and with their images decoded; every kind of image file."""

import base64
import random
import struct
import sys
import zlib
from typing import Any

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st
from PIL import Image

from ors_gym.errors import MissingExtraError
from ors_gym.formats import DecodedBlocks, decode_blocks, decode_image, render_text
from ors_gym.formats._blocks import read_image_size, truncate
from tests.formats.images import RED, encode, image_block

pytestmark = pytest.mark.unit


def text_block(text: str) -> Any:
    return {"type": "text", "text": text}


def test_texts_are_joined_by_blank_lines():
    assert render_text([]) == ""
    assert render_text([text_block("a")]) == "a"
    assert render_text([text_block("a"), text_block("b\n")]) == "a\n\nb\n"


def test_single_ascii_text_is_not_copied():
    text = "x" * 1000
    assert render_text([text_block(text)]) is text


@pytest.mark.parametrize(
    ("block", "shown"),
    [
        ({"type": "audio", "data": "UklG"}, '[audio: {"data": "UklG"}]'),
        ({"type": "text", "text": None}, '[text: {"text": null}]'),
        ({"type": "image", "url": "x"}, '[image: {"url": "x"}]'),
        ({"no": "type"}, '[block: {"no": "type"}]'),
        ({"type": "note", "text": "grün"}, '[note: {"text": "grün"}]'),
        ({"type": "odd", "value": object()}, "[odd: TypeError]"),
        ({"type": "image", "data": ""}, "[image: unknown type]"),
    ],
)
def test_other_kinds_are_shown_as_json(block, shown):
    assert render_text([text_block("a"), block]) == f"a\n\n{shown}"


def test_large_unknown_block_is_cut():
    shown = render_text([{"type": "video", "data": "A" * 10_000}])
    assert shown.startswith('[video: {"data": "AAA')
    assert shown.endswith("A…]")
    assert len(shown) < 600


@hypothesis.given(st.lists(st.text(st.characters())))
def test_lone_surrogates_are_replaced_and_nothing_else(texts):
    rendered = render_text([text_block(text) for text in texts])
    rendered.encode()
    expected = "\n\n".join(texts)
    assert len(rendered) == len(expected)
    for got, given in zip(rendered, expected, strict=True):
        assert got == ("\ufffd" if "\ud800" <= given <= "\udfff" else given)


@pytest.mark.parametrize(
    ("text", "rendered"),
    [("a\ud800", "a\ufffd"), ("\udfff", "\ufffd"), ("😀\udc00é", "😀\ufffdé")],
)
def test_single_text_with_a_lone_surrogate(text, rendered):
    assert render_text([text_block(text)]) == rendered


def test_truncate():
    assert truncate("abc", 2) == ("ab", True)
    assert truncate("abc", 3) == ("abc", False)
    assert truncate("abc", None) == ("abc", False)
    assert truncate("", 0) == ("", False)


def test_text_and_images_in_order():
    blue = encode(Image.new("RGB", (1, 4), "blue"), "JPEG")
    decoded = decode_blocks([text_block("Two:"), image_block(RED), image_block(blue)])
    shown = "Two:\n\n[image: image/png, 3x2]\n\n[image: image/jpeg, 1x4]"
    assert decoded.text == shown
    first, second = decoded.images
    assert first.dtype == second.dtype == np.uint8
    assert first.shape == (2, 3, 3)
    assert second.shape == (4, 1, 3)
    assert first[0, 0].tolist() == [255, 0, 0]
    assert second[0, 0, 2] > 200
    first[0, 0] = 7


def test_text_is_that_of_the_text_mode():
    audio: Any = {"type": "audio", "data": "x"}
    blocks = [text_block("é\ud800"), image_block(RED), audio]
    assert decode_blocks(blocks).text == render_text(blocks)
    assert decode_blocks([]) == DecodedBlocks("", (), ())


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


def test_many_images_share_the_limit():
    block = image_block(RED)
    decoded = decode_blocks([block] * 4, max_pixels=17)
    assert len(decoded.images) == 2
    assert decoded.problems == (
        "image 2 is unreadable: 3x2 is more than the 5 pixels left",
        "image 3 is unreadable: 3x2 is more than the 5 pixels left",
    )


def test_without_pillow(monkeypatch):
    monkeypatch.setitem(sys.modules, "PIL.Image", None)
    with pytest.raises(MissingExtraError, match=r'pip install "ors-gym\[images\]"'):
        decode_blocks([image_block(RED)])
    assert render_text([image_block(RED)]) == "[image: image/png, 3x2]"
    assert decode_blocks([text_block("no image")]).text == "no image"


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
        *("", "?", "é", "AAAA", "iVBORw0KGgo=", "/9j/", "R0lGODlh"),
        base64.b64encode(b"RIFF____WEBPVP8?" + bytes(20)).decode(),
        base64.b64encode(b"RIFF____WAVE" + bytes(20)).decode(),
    ],
)
def test_images_of_unknown_size(data):
    assert read_image_size(data) is None


@hypothesis.given(
    st.sampled_from(["PNG", "JPEG", "GIF", "WEBP"]),
    st.integers(0, 700),
    st.binary(max_size=40),
)
def test_size_of_damaged_files_is_found_or_not(file_format, cut, tail):
    whole = base64.b64decode(encode(Image.new("RGB", (5, 7)), file_format))
    size = read_image_size(base64.b64encode(whole[:cut] + tail).decode())
    assert size is None or min(size) > 0


@hypothesis.given(st.text() | st.binary().map(bytes.hex))
def test_size_of_any_text(data):
    size = read_image_size(data)
    assert size is None or min(size) > 0


OF_ONE_COLOUR = Image.new("RGB", (2, 2), (1, 2, 3))
HALF_BLACK = Image.new("RGBA", (2, 2), (0, 0, 0, 128))


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
        (encode(HALF_BLACK, "WEBP", lossless=True), [127] * 3),
        (half_transparent_palette(), [255, 255, 255]),
        (encode(OF_ONE_COLOUR, transparency=(1, 2, 3)), [255] * 3),
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
    options: Any = {"lossless": True} if file_format == "WEBP" else {}
    options |= {"save_all": True, "append_images": frames[1:]}
    data = encode(frames[0], file_format, **options)
    assert decode_image(data)[0, 0].tolist() == [255, 0, 0]


def test_orientation_is_left_as_it_is():
    exif = Image.Exif()
    exif[0x0112] = 6
    data = encode(Image.new("RGB", (4, 2)), "JPEG", exif=exif)
    assert decode_image(data).shape == (2, 4, 3)


@hypothesis.given(st.sampled_from(["PNG", "JPEG", "GIF", "WEBP"]), st.data())
def test_damage_is_an_image_or_a_reason(file_format, data):
    noise = Image.frombytes("RGB", (9, 9), random.Random(1).randbytes(243))
    raw = bytearray(base64.b64decode(encode(noise, file_format)))
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, len(raw) - 1))
        raw[place] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(0, len(raw)))
    try:
        assert decode_image(base64.b64encode(raw[:cut]).decode()).shape[2] == 3
    except ValueError as error:
        assert str(error)


def bomb(width: int, height: int) -> str:
    header = struct.pack(">II", width, height) + bytes([8, 0, 0, 0, 0])
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
