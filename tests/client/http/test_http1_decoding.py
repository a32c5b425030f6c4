"""Content encodings, undone in pieces however they are cut."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ors_gym.client.http._http1 import Inflater


def _gzip(data: bytes) -> bytes:
    return gzip.compress(data, mtime=0)


def _raw(data: bytes) -> bytes:
    deflater = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return deflater.compress(data) + deflater.flush()


def _two_members(data: bytes) -> bytes:
    return _gzip(data[: len(data) // 2]) + _gzip(data[len(data) // 2 :])


ENCODERS: dict[str, tuple[bytes, Callable[[bytes], bytes]]] = {
    "gzip": (b"gzip", _gzip),
    "gzip in two members": (b"x-gzip", _two_members),
    "zlib": (b"deflate", zlib.compress),
    "raw": (b"deflate", _raw),
}


@pytest.mark.parametrize("encoder", ENCODERS)
@given(data=st.data())
def test_however_it_is_cut(encoder: str, data: st.DataObject):
    coding, encode = ENCODERS[encoder]
    content = data.draw(st.binary(max_size=300)) * data.draw(st.integers(1, 2000))
    encoded = encode(content)
    cuts = sorted(data.draw(st.sets(st.integers(1, len(encoded)), max_size=6)))
    inflater = Inflater(coding)
    pieces: list[bytes] = []
    for start, end in zip([0, *cuts], [*cuts, len(encoded)], strict=True):
        assert not pieces or max(map(len, pieces)) <= 2**18
        pieces += inflater.inflate(encoded[start:end])
    assert b"".join(pieces) == content
    assert inflater.finished


@pytest.mark.parametrize("encoder", ENCODERS)
def test_cut_short_is_not_finished(encoder: str):
    coding, encode = ENCODERS[encoder]
    encoded = encode(b"hello" * 100)
    for end in range(1, len(encoded)):
        inflater = Inflater(coding)
        list(inflater.inflate(encoded[:end]))
        first_member = len(_gzip(b"hello" * 50)) if "members" in encoder else None
        assert inflater.finished == (end == first_member)


@pytest.mark.parametrize("encoder", ENCODERS)
def test_nothing_at_all_is_finished(encoder: str):
    inflater = Inflater(ENCODERS[encoder][0])
    assert list(inflater.inflate(b"")) == []
    assert inflater.finished


@pytest.mark.parametrize("coding", [b"gzip", b"deflate"])
def test_garbage_is_an_error(coding: bytes):
    with pytest.raises(zlib.error):
        list(Inflater(coding).inflate(b"\xff" * 100))


def test_nothing_may_follow_the_end_of_deflate():
    with pytest.raises(zlib.error):
        list(Inflater(b"deflate").inflate(zlib.compress(b"x") + b"y"))
