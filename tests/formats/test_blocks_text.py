"""Blocks as text: what is shown of each kind, and what text survives."""

from __future__ import annotations

import base64
import io
import struct
from typing import Any

import hypothesis
import pytest
from hypothesis import strategies
from PIL import Image

from ors_gym.formats import render_text
from ors_gym.formats._blocks import truncate
from ors_gym.formats._images import read_image_size


def text_block(text: str) -> Any:
    return {"type": "text", "text": text}


def make_image(file_format: str, size: tuple[int, int], **options: Any) -> str:
    file = io.BytesIO()
    Image.new("RGB", size, "red").save(file, file_format, **options)
    return base64.b64encode(file.getvalue()).decode()


def test_texts_are_joined_by_blank_lines():
    assert render_text([]) == ""
    assert render_text([text_block("a")]) == "a"
    assert render_text([text_block("a"), text_block("b\n")]) == "a\n\nb\n"


def test_single_ascii_text_is_not_copied():
    text = "x" * 1000
    assert render_text([text_block(text)]) is text


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
def test_images_are_shown_with_their_size(file_format, options, size):
    data = make_image(file_format, size, **options)
    block = {"type": "image", "data": data, "mimeType": "image/x"}
    assert render_text([block]) == f"[image: image/x, {size[0]}x{size[1]}]"
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
    block = {"type": "image", "data": data, "mimeType": "image/png"}
    assert render_text([block]) == "[image: image/png]"


@hypothesis.given(
    strategies.sampled_from(["PNG", "JPEG", "GIF", "WEBP"]),
    strategies.integers(0, 700),
    strategies.binary(max_size=40),
)
def test_size_of_damaged_files_is_found_or_not(file_format, cut, tail):
    whole = base64.b64decode(make_image(file_format, (5, 7)))
    size = read_image_size(base64.b64encode(whole[:cut] + tail).decode())
    assert size is None or min(size) > 0


@hypothesis.given(strategies.text() | strategies.binary().map(bytes.hex))
def test_size_of_any_text(data):
    size = read_image_size(data)
    assert size is None or min(size) > 0


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


@hypothesis.given(strategies.lists(strategies.text(strategies.characters())))
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
