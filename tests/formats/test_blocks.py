"""Blocks as text, and with their images decoded."""

from __future__ import annotations

import base64
import sys
from typing import Any

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies
from PIL import Image

from ors_gym.errors import MissingExtraError
from ors_gym.formats import DecodedBlocks, decode_blocks, render_text
from ors_gym.formats._blocks import truncate
from tests.formats.images import RED, encode, image_block


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


def test_text_and_images_in_order():
    blue = encode(Image.new("RGB", (1, 4), "blue"), "JPEG")
    decoded = decode_blocks([text_block("Two:"), image_block(RED), image_block(blue)])
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
