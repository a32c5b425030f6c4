"""Random nested spaces of Gymnasium, for property tests."""

# Before 1.3, Gymnasium's spaces take no types in brackets.
from __future__ import annotations

from copy import deepcopy
from typing import Any, Final

import numpy as np
from gymnasium import Space, spaces
from hypothesis import strategies as st

_FLOATS: Final = (np.float16, np.float32, np.float64)
_INTEGERS: Final = (
    *(np.int8, np.int16, np.int32, np.int64),
    *(np.uint8, np.uint16, np.uint32, np.uint64),
)
_SHAPES: Final = st.lists(st.integers(0, 3), max_size=3).map(tuple)


@st.composite
def boxes(draw: st.DrawFn) -> spaces.Box[Any]:
    dtype: Any = draw(st.sampled_from((*_FLOATS, *_INTEGERS, np.bool_)))
    shape = draw(_SHAPES)
    kind = np.dtype(dtype).kind
    if kind == "b":
        return spaces.Box(0, draw(st.integers(0, 1)), shape, dtype=dtype)
    if kind == "f":
        bound = st.floats(width=16, allow_nan=False) | st.sampled_from(
            (-np.inf, np.inf)
        )
        bound = bound.map(lambda number: number + 0.0)
    else:
        info = np.iinfo(dtype)
        # Gymnasium samples up to one more than the upper bound, and by way of float64,
        # which has no numbers between this one and 2**63.
        bound = st.integers(int(info.min), int(min(info.max, 2**63 - 2**10)) - 1)
    count = int(np.prod(shape))
    if draw(st.booleans()) or not count:
        low, high = sorted((draw(bound), draw(bound)))
        if kind == "i" and draw(st.booleans()):
            low, high = -np.inf, np.inf
        if kind == "f" and low == high and np.isinf(low):
            low, high = -np.inf, np.inf
        return spaces.Box(low, high, shape, dtype=dtype)
    pairs = [tuple(sorted((draw(bound), draw(bound)))) for _ in range(count)]
    if kind == "f":
        infinite = (-np.inf, np.inf)
        pairs = [infinite if a == b and np.isinf(a) else (a, b) for a, b in pairs]
    lows, highs = (
        np.array([pair[end] for pair in pairs], dtype).reshape(shape) for end in (0, 1)
    )
    return spaces.Box(lows, highs, dtype=dtype)


_DISCRETE: Final = st.builds(
    spaces.Discrete, st.integers(1, 1000), start=st.integers(-1000, 1000)
)
_MULTI_DISCRETE: Final = st.one_of(
    st.lists(st.integers(1, 9), min_size=1, max_size=4).map(spaces.MultiDiscrete),
    st.lists(
        st.lists(st.integers(1, 9), min_size=2, max_size=2), min_size=1, max_size=3
    )
    .map(np.array)
    .map(lambda nvec: spaces.MultiDiscrete(nvec, np.int32, start=nvec - 5)),
)
_MULTI_BINARY: Final = st.one_of(
    st.integers(1, 5), st.lists(st.integers(1, 3), min_size=1, max_size=3)
).map(spaces.MultiBinary)
_TEXT: Final = st.builds(
    lambda low, more, charset: spaces.Text(low + more, min_length=low, charset=charset),
    st.integers(0, 4),
    st.integers(1, 4),
    st.text(st.characters(codec="utf-8"), min_size=1, max_size=9) | st.just("^]-\\[az"),
)
SIMPLE: Final[st.SearchStrategy[Space[Any]]] = st.one_of(
    boxes(), _DISCRETE, _MULTI_DISCRETE, _MULTI_BINARY, _TEXT
)


def _nest(inner: st.SearchStrategy[Space[Any]]) -> st.SearchStrategy[Space[Any]]:
    several = st.lists(inner, min_size=1, max_size=3)
    return st.one_of(
        several.map(spaces.Tuple),
        several.map(spaces.OneOf),
        st.dictionaries(
            st.text("abc@é", max_size=3), inner, min_size=1, max_size=3
        ).map(spaces.Dict),
        inner.map(spaces.Sequence),
    )


NESTED: Final = st.recursive(SIMPLE, _nest, max_leaves=5)
"""Spaces whose actions have a schema."""
STACKED: Final = (
    st.one_of(
        boxes(),
        _DISCRETE,
        _MULTI_DISCRETE,
        _MULTI_BINARY,
    )
    .flatmap(
        lambda one: st.sampled_from(
            (one, spaces.Tuple([one, deepcopy(one)]), spaces.Dict(a=one))
        )
    )
    .map(lambda feature: spaces.Sequence(feature, stack=True))
)
"""Sequences whose items are stacked into arrays."""
GRAPHS: Final = st.builds(
    spaces.Graph,
    st.sampled_from((spaces.Box(-1, 1, (2,)), spaces.Discrete(3))),
    st.sampled_from((None, spaces.Box(0, 1, (1,)), spaces.Discrete(2))),
)
