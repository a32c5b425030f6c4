"""Values of Gymnasium as JSON: any of them comes back."""

import enum
import json
import math
from typing import Any, NamedTuple

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from ors_gym._gymnasium_json.values import (
    UncarriedError,
    read_value,
    show_value,
    write_value,
)
from tests.support.identical import identical

pytestmark = pytest.mark.unit

few = settings(max_examples=25)


def through_json(value: Any) -> Any:
    return json.loads(json.dumps(value, allow_nan=False))


SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(),
    st.integers(-128, 127).map(np.int8),
    st.floats().map(np.float64),
    st.floats(width=16).map(np.float16),
    st.booleans().map(np.bool_),
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.lists(inner, max_size=3).map(tuple),
        st.dictionaries(st.text(max_size=2) | st.just("@array"), inner, max_size=3),
        st.dictionaries(st.integers() | st.tuples(st.text()), inner, max_size=2),
    ),
    max_leaves=8,
)


@few
@given(VALUES)
@example(-math.nan)
def test_any_value_comes_back(value: Any):
    assert identical(read_value(through_json(write_value(value))), value)


@pytest.mark.parametrize(
    "array",
    [
        np.random.default_rng(0).integers(0, 256, (210, 160, 3), np.uint8),
        np.zeros((3, 0, 2), np.float16),
        np.array([math.nan, -0.0, math.inf], np.float32),
        np.array([2**64 - 1], np.uint64),
        np.array([1.5, 2], ">f8"),
        np.array([1 + 2j]),
        np.array(["a", "bc"]),
        np.array(7, np.int16),
        np.full(3, 1, np.longdouble) / 3,
        np.asfortranarray(np.arange(6).reshape(2, 3)),
    ],
    ids=lambda array: f"{array.dtype}{array.shape}",
)
def test_an_array_comes_back(array):
    written = through_json(write_value(array))
    again = read_value(written)
    assert identical(again, array)
    assert again.flags.writeable


class Foreign:
    """An array of another library."""

    def __array__(self, dtype=None, copy=None):
        return np.array([1, 2], np.int8)


def test_an_array_of_another_library_becomes_one_of_numpy():
    again = read_value(through_json(write_value((Foreign(), 1))))
    assert identical(again, (np.array([1, 2], np.int8), 1))
    assert show_value({"seen": Foreign()}) == {"seen": [1, 2]}


class Color(enum.StrEnum):
    """Text that calls itself otherwise."""

    RED = "red"

    def __str__(self) -> str:
        return "Color.RED"


def test_the_members_of_an_enumeration_are_their_values():
    again = read_value(through_json(write_value({Color.RED: [Color.RED]})))
    assert identical(again, {"red": ["red"]})


class Unreadable:
    """A tensor that NumPy may not see."""

    def __array__(self, dtype=None, copy=None):
        raise RuntimeError("it is on another device")


def test_a_value_is_shown_as_json_whatever_it_is():
    shown = show_value(
        [np.array([1 + 2j]), np.array(["2026-01-01"], "M8[D]"), b"raw", None, True]
    )
    assert through_json(shown) == [["(1+2j)"], ["2026-01-01"], "b'raw'", None, True]


def test_a_plain_picture_is_compact():
    picture = np.zeros((210, 160, 3), np.uint8)
    assert len(json.dumps(write_value(picture))) < 1000


class Pair(NamedTuple):
    """A tuple that is not only a tuple."""

    left: int
    right: int


SELF: list[Any] = []
SELF.append(SELF)


@pytest.mark.parametrize(
    "value",
    [
        *(object(), {1, 2}, b"bytes", Pair(1, 2), np.array([None]), "\ud800", SELF),
        *(len, Unreadable(), 10**5000, np.ma.array([1, 2], mask=[False, True])),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_json_cannot_hold_is_an_error(value):
    with pytest.raises(UncarriedError):
        write_value({"deep": [value]})


@pytest.mark.parametrize(
    "written",
    [
        {"@array": {"dtype": "|O", "shape": [1], "data": [1]}},
        {"@array": {"dtype": "<f4", "shape": [2**40], "zlib": ""}},
        {"@array": {"dtype": "<f4", "shape": [-1], "data": [1]}},
        {"@array": {"dtype": "<f4", "shape": [2], "data": [1]}},
        {"@array": {"dtype": "<f4", "shape": [2], "zlib": "AAAA"}},
        {"@array": {"dtype": "|u1", "shape": [9], "zlib": "eJwDAAAAAAE="}},
        {"@array": {"dtype": "[('a', 'i4')]", "shape": [1], "data": [1]}},
        {"@array": {"dtype": "nonsense", "shape": [1], "data": [1]}},
        {"@array": {"dtype": "(2,i4", "shape": [1], "data": [1]}},
        {"@array": None},
        {"@scalar": {}},
        {"@float": "one"},
        {"@float": "00"},
        {"@float": [1]},
        {"@int": "1" * 5000},
        {"@dict": [[[], 1]]},
        {"@tuple": 3},
        {"@graph": [1]},
        {"@unknown": 1},
    ],
    ids=str,
)
def test_what_is_not_written_so_is_an_error(written):
    with pytest.raises(UncarriedError):
        read_value([written])


def test_an_array_of_long_texts_is_not_unpacked():
    written = {"dtype": "<U1000000", "shape": [2**20], "zlib": ""}
    with pytest.raises(UncarriedError, match="is not read"):
        read_value({"@array": written})
