"""Spaces of Gymnasium as JSON, and the actions of a space as the input of a tool.

`describe_space` and `read_space` carry a space. `action_schema` is the JSON Schema of
its actions: models and samplers write actions by it, `read_action` makes members of the
space of them. `write_action` is its inverse, for programs.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Sequence
from typing import Any, Final

import numpy as np
from gymnasium import Space, spaces
from gymnasium.vector.utils import concatenate, create_empty_array, iterate

from ors_gym._gymnasium_json.values import (
    MOST_ELEMENTS,
    UncarriedError,
    read_dtype,
    read_value,
    show_value,
    write_value,
)
from ors_gym._shown_text import shorten

SPACES_KEYWORD: Final = "x-gymnasium"
"""The keyword under which the schema of ``step`` holds the spaces of a served env."""
_UNREADABLE: Final = (
    *(ArithmeticError, AssertionError, AttributeError, LookupError),
    *(TypeError, ValueError),
)
_SHOWN: Final = 100
_SPECIAL: Final = {"Infinity": math.inf, "-Infinity": -math.inf}


def describe_space(space: Space[Any]) -> Any:
    """Write a space as JSON; raises `UncarriedError` if `read_space` cannot read it.

    Example:
        >>> describe_space(spaces.Discrete(2))
        {'space': 'Discrete', 'n': 2, 'start': 0, 'dtype': '<i8'}
    """
    kind = _kind_of(space)
    return {"space": type(space).__name__, **kind.describe(space)}


def read_space(described: Any) -> Space[Any]:
    """Undo `describe_space`.

    Example:
        >>> read_space({"space": "Discrete", "n": 2, "start": 0, "dtype": "<i8"})
        Discrete(2)
    """
    try:
        return _KINDS[described["space"]].read(described)
    except UncarriedError:
        raise
    except RecursionError:
        raise UncarriedError("the space is nested too deeply") from None
    except _UNREADABLE as error:
        raise UncarriedError(f"the space cannot be read: {error}") from None


def action_schema(space: Space[Any]) -> dict[str, Any]:
    """Return the JSON Schema of the actions of a space.

    Raises `UncarriedError` for a space whose actions no schema describes.

    Example:
        >>> action_schema(spaces.Box(-1, 1, (2,)))["items"]
        {'type': 'number', 'minimum': -1.0, 'maximum': 1.0}
    """
    return _kind_of(space).schema(space)


def read_action(space: Space[Any], written: Any) -> Any:
    """Return the member of a space that JSON stands for.

    Raises a `ValueError` that says what is wrong.

    Example:
        >>> read_action(spaces.Discrete(2), 1)
        np.int64(1)
    """
    try:
        return _kind_of(space).read_action(space, written)
    except _UNREADABLE as error:
        shown = shorten(repr(written), _SHOWN)
        raise ValueError(f"{shown} is not in {space}: {error}") from None


def write_action(space: Space[Any], action: Any) -> Any:
    """Write an action as JSON by the space's schema, without checking the bounds.

    Raises a `TypeError` or `ValueError` for what is no action of such a space.

    Example:
        >>> write_action(spaces.Dict(go=spaces.Discrete(2)), {"go": np.int64(1)})
        {'go': 1}
    """
    return _kind_of(space).write_action(space, action)


def _member(space: Space[Any], value: Any) -> Any:
    if not space.contains(value):
        raise ValueError("it is out of bounds")
    return value


class _Kind:
    """One class of spaces: how it and its actions are written and read."""

    def describe(self, space: Any) -> dict[str, Any]:
        raise NotImplementedError

    def read(self, described: Any) -> Space[Any]:
        raise NotImplementedError

    def schema(self, space: Any) -> dict[str, Any]:
        raise NotImplementedError

    def read_action(self, space: Any, written: Any) -> Any:
        raise NotImplementedError

    def write_action(self, space: Any, action: Any) -> Any:
        raise NotImplementedError


class _Numeric(_Kind):
    """Spaces whose members are arrays of numbers between two arrays."""

    def bounds(self, space: Any) -> tuple[Any, Any]:
        raise NotImplementedError

    def schema(self, space: Any) -> dict[str, Any]:
        if space.dtype.kind == "f" and space.dtype.itemsize > 8:
            raise UncarriedError(f"JSON numbers cannot hold the digits of {space}")
        return _array_schema(*self.bounds(space))

    def read_action(self, space: Any, written: Any) -> Any:
        numbers: list[Any] = []
        _collect(written, space.shape, space.dtype.kind, numbers)
        if space.dtype.kind != "f":
            return _member(space, np.array(numbers, space.dtype).reshape(space.shape))
        with np.errstate(over="ignore"):
            # A number that is too large for float32 is infinite, as in NumPy.
            array = np.array(numbers, np.float64).astype(space.dtype)
        return _member(space, array.reshape(space.shape))

    def write_action(self, space: Any, action: Any) -> Any:
        array = np.asarray(action)
        if not np.can_cast(array.dtype, space.dtype, "same_kind"):
            # Such as the integers that a list of Python's numbers becomes.
            whole = array.dtype.kind in "biu"
            if not whole or not np.array_equal(array.astype(space.dtype), array):
                raise TypeError(f"an array of {array.dtype} is no action of {space}")
        with np.errstate(over="ignore"):
            # As in `read_action`.
            return _finite(array.astype(space.dtype).tolist())


def _finite(numbers: Any) -> Any:
    if isinstance(numbers, list):
        return [_finite(one) for one in numbers]
    return show_value(numbers)


def _collect(written: Any, shape: tuple[int, ...], kind: str, into: list[Any]) -> None:
    """Add the numbers of nested lists, which have to have this shape."""
    if shape:
        if not isinstance(written, list) or len(written) != shape[0]:
            raise ValueError(f"a list of {shape[0]} is needed")
        for one in written:
            _collect(one, shape[1:], kind, into)
        return
    if isinstance(written, str):
        written = _SPECIAL[written] if kind == "f" and written in _SPECIAL else None
    wanted = bool if kind == "b" else int | float
    if not isinstance(written, wanted) or (kind != "b" and isinstance(written, bool)):
        raise TypeError(f"{'true or false' if kind == 'b' else 'a number'} is needed")
    if kind in "iu" and isinstance(written, float):
        if not float(written).is_integer():
            raise ValueError("a whole number is needed")
        written = int(written)
    into.append(written)


def _array_schema(low: Any, high: Any) -> dict[str, Any]:
    """Describe nested lists of numbers; rows with the same bounds are written once."""
    if low.ndim == 0:
        return _number_schema(low, high)
    size = {"type": "array", "minItems": len(low), "maxItems": len(low)}
    if len(low) == 0:
        return size
    if (low == low[:1]).all() and (high == high[:1]).all():
        return {**size, "items": _array_schema(low[0], high[0])}
    return _listed([_array_schema(*pair) for pair in zip(low, high, strict=True)])


def _number_schema(low: Any, high: Any) -> dict[str, Any]:
    kind = low.dtype.kind
    if kind == "b":
        both = not low and high
        return {"type": "boolean"} if both else {"const": bool(low)}
    schema: dict[str, Any] = {"type": "number" if kind == "f" else "integer"}
    if np.isfinite(low):
        schema["minimum"] = low.item()
    if np.isfinite(high):
        schema["maximum"] = high.item()
    return schema


def _listed(schemas: list[dict[str, Any]]) -> dict[str, Any]:
    size = {"type": "array", "minItems": len(schemas), "maxItems": len(schemas)}
    if not schemas:
        return size
    if all(one == schemas[0] for one in schemas):
        return {**size, "items": schemas[0]}
    return {**size, "prefixItems": schemas, "items": False}


class _Box(_Numeric):
    def bounds(self, space: spaces.Box[Any]) -> tuple[Any, Any]:
        return space.low, space.high

    def describe(self, space: spaces.Box[Any]) -> dict[str, Any]:
        if math.prod(space.shape) > MOST_ELEMENTS:
            raise UncarriedError(f"a Box of shape {space.shape} is too large")
        described = {"dtype": space.dtype.str, "shape": list(space.shape)}
        described |= {"low": _write_bound(space.low), "high": _write_bound(space.high)}
        if space.dtype.kind == "i":
            # An infinite bound of integers is the least or greatest of the dtype, and
            # is sampled in another way than that number.
            described["bounded"] = [
                _write_bound(space.bounded_below),
                _write_bound(space.bounded_above),
            ]
        return described

    def read(self, described: Any) -> Space[Any]:
        shape, dtype = (
            tuple(map(int, described["shape"])),
            read_dtype(described["dtype"]),
        )
        if math.prod(shape) > MOST_ELEMENTS or min(shape, default=0) < 0:
            raise UncarriedError(f"a Box of shape {shape} is too large")
        low, high = (_read_bound(described[key], shape) for key in ("low", "high"))
        box: spaces.Box[Any] = spaces.Box(low, high, shape, dtype=dtype)
        if "bounded" in described:
            below, above = described["bounded"]
            box.bounded_below = _read_bound(below, shape).astype(np.bool_)
            box.bounded_above = _read_bound(above, shape).astype(np.bool_)
        return box


def _write_bound(bound: np.ndarray[Any, Any]) -> Any:
    """Write an array, or the one number that all of its elements are."""
    uniform = bound.size > 0 and (bound == bound.flat[0]).all()
    return write_value(bound.flat[0] if uniform else bound)


def _read_bound(written: Any, shape: tuple[int, ...]) -> np.ndarray[Any, Any]:
    bound = read_value(written)
    return np.full(shape, bound) if np.ndim(bound) == 0 else np.asarray(bound)


class _Discrete(_Numeric):
    def bounds(self, space: spaces.Discrete[Any]) -> tuple[Any, Any]:
        first, count = int(space.start), int(space.n)
        return np.asarray(first), np.asarray(first + count - 1)

    def describe(self, space: spaces.Discrete[Any]) -> dict[str, Any]:
        # Before Gymnasium 1.3 it has the dtype int64 and Python's numbers.
        dtype = np.dtype(space.dtype).str
        return {"n": int(space.n), "start": int(space.start), "dtype": dtype}

    def read(self, described: Any) -> Space[Any]:
        n, start, dtype = (described[key] for key in ("n", "start", "dtype"))
        dtype = read_dtype(dtype)
        other: dict[str, Any] = {} if dtype == np.int64 else {"dtype": dtype.type}
        space: Space[Any] = spaces.Discrete(n, start=start, **other)
        return space

    def read_action(self, space: spaces.Discrete[Any], written: Any) -> Any:
        numbers: list[Any] = []
        _collect(written, (), "i", numbers)
        return _member(space, np.array(numbers, space.dtype)[0])

    def write_action(self, space: spaces.Discrete[Any], action: Any) -> Any:
        del space
        return operator.index(action)


class _MultiDiscrete(_Numeric):
    def bounds(self, space: spaces.MultiDiscrete[Any]) -> tuple[Any, Any]:
        return space.start, space.start + (space.nvec - 1)

    def describe(self, space: spaces.MultiDiscrete[Any]) -> dict[str, Any]:
        return {"nvec": write_value(space.nvec), "start": write_value(space.start)}

    def read(self, described: Any) -> Space[Any]:
        nvec, start = read_value(described["nvec"]), read_value(described["start"])
        return spaces.MultiDiscrete(nvec, nvec.dtype, start=start)


class _MultiBinary(_Numeric):
    def bounds(self, space: spaces.MultiBinary) -> tuple[Any, Any]:
        return np.zeros(space.shape, np.int8), np.ones(space.shape, np.int8)

    def describe(self, space: spaces.MultiBinary) -> dict[str, Any]:
        flat = isinstance(space.n, int)
        return {"n": space.n if flat else [int(one) for one in space.shape]}

    def read(self, described: Any) -> Space[Any]:
        n = described["n"]
        if math.prod([n] if isinstance(n, int) else n) > MOST_ELEMENTS:
            raise UncarriedError(f"a MultiBinary of {n} is too large")
        return spaces.MultiBinary(n)


class _Text(_Kind):
    def describe(self, space: spaces.Text) -> dict[str, Any]:
        size = {"min_length": space.min_length, "max_length": space.max_length}
        return {**size, "charset": write_value("".join(space.character_list))}

    def read(self, described: Any) -> Space[Any]:
        return spaces.Text(
            described["max_length"],
            min_length=described["min_length"],
            charset=described["charset"],
        )

    def schema(self, space: spaces.Text) -> dict[str, Any]:
        size = {"minLength": space.min_length, "maxLength": space.max_length}
        if not space.character_set:
            return {"type": "string", "maxLength": 0}
        return {"type": "string", **size, "pattern": _pattern(space.character_set)}

    def read_action(self, space: spaces.Text, written: Any) -> Any:
        return _member(space, written)

    def write_action(self, space: spaces.Text, action: Any) -> Any:
        del space
        if not isinstance(action, str):
            raise TypeError(f"text is needed, not {type(action).__name__}")
        return write_value(action)


def _pattern(characters: frozenset[str]) -> str:
    """Write a set of characters as a regular expression, neighbours as ranges."""
    parts: list[list[int]] = []
    for code in sorted(map(ord, characters)):
        if parts and code == parts[-1][1] + 1:
            parts[-1][1] = code
        else:
            parts.append([code, code])
    escaped = {ord(one): f"\\{one}" for one in "\\]^-["}
    ranges = []
    for first, last in parts:
        ends = [escaped.get(code, chr(code)) for code in dict.fromkeys((first, last))]
        ranges.append("-".join(ends))
    return f"^[{''.join(ranges)}]*$"


class _Composite(_Kind):
    """Spaces that are made of a list of spaces."""

    def describe(self, space: Any) -> dict[str, Any]:
        return {"spaces": [describe_space(one) for one in space.spaces]}

    def schemas(self, space: Any) -> list[dict[str, Any]]:
        return [action_schema(one) for one in space.spaces]


class _Tuple(_Composite):
    def read(self, described: Any) -> Space[Any]:
        return spaces.Tuple([read_space(one) for one in described["spaces"]])

    def schema(self, space: spaces.Tuple[Any]) -> dict[str, Any]:
        return _listed(self.schemas(space))

    def read_action(self, space: spaces.Tuple[Any], written: Any) -> Any:
        if not isinstance(written, list):
            raise TypeError(f"a list of {len(space.spaces)} is needed")
        pairs = zip(space.spaces, written, strict=True)
        return tuple(_kind_of(one).read_action(one, value) for one, value in pairs)

    def write_action(self, space: spaces.Tuple[Any], action: Any) -> Any:
        pairs = zip(space.spaces, action, strict=True)
        return [write_action(one, value) for one, value in pairs]


class _OneOf(_Composite):
    def read(self, described: Any) -> Space[Any]:
        return spaces.OneOf([read_space(one) for one in described["spaces"]])

    def schema(self, space: spaces.OneOf[Any]) -> dict[str, Any]:
        return {
            "anyOf": [
                _object({"choice": {"const": index}, "value": schema})
                for index, schema in enumerate(self.schemas(space))
            ]
        }

    def read_action(self, space: spaces.OneOf[Any], written: Any) -> Any:
        choice, value = written["choice"], written["value"]
        if (
            len(written) > 2
            or isinstance(choice, bool)
            or choice not in range(len(space.spaces))
        ):
            raise ValueError('{"choice": index, "value": ...} is needed')
        chosen = space.spaces[int(choice)]
        return np.int64(choice), _kind_of(chosen).read_action(chosen, value)

    def write_action(self, space: spaces.OneOf[Any], action: Any) -> Any:
        choice, value = action
        choice = operator.index(choice)
        return {"choice": choice, "value": write_action(space.spaces[choice], value)}


class _Dict(_Kind):
    def describe(self, space: spaces.Dict[Any]) -> dict[str, Any]:
        pairs = space.spaces.items()
        return {"spaces": [[write_value(k), describe_space(one)] for k, one in pairs]}

    def read(self, described: Any) -> Space[Any]:
        pairs = [(read_value(k), read_space(one)) for k, one in described["spaces"]]
        # Of pairs the order is kept.
        return spaces.Dict(pairs)

    def schema(self, space: spaces.Dict[Any]) -> dict[str, Any]:
        for key in space.spaces:
            if not isinstance(key, str):
                raise UncarriedError(f"the key {key!r} of an action is no text")
            write_value(key)
        return _object({key: action_schema(one) for key, one in space.spaces.items()})

    def read_action(self, space: spaces.Dict[Any], written: Any) -> Any:
        if not isinstance(written, dict) or written.keys() != space.spaces.keys():
            raise TypeError(f"an object with {', '.join(space.spaces)} is needed")
        return {
            key: _kind_of(one).read_action(one, written[key])
            for key, one in space.spaces.items()
        }

    def write_action(self, space: spaces.Dict[Any], action: Any) -> Any:
        if action.keys() != space.spaces.keys():
            raise ValueError(f"a dict with {', '.join(space.spaces)} is needed")
        return {
            key: write_action(one, action[key]) for key, one in space.spaces.items()
        }


def _object(properties: dict[str, Any]) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }


class _Sequence(_Kind):
    def describe(self, space: spaces.Sequence) -> dict[str, Any]:
        feature = describe_space(space.feature_space)
        return {"feature": feature, "stack": space.stack}

    def read(self, described: Any) -> Space[Any]:
        return spaces.Sequence(
            read_space(described["feature"]), stack=bool(described["stack"])
        )

    def schema(self, space: spaces.Sequence) -> dict[str, Any]:
        return {"type": "array", "items": action_schema(space.feature_space)}

    def read_action(self, space: spaces.Sequence, written: Any) -> Any:
        if not isinstance(written, list):
            raise TypeError("a list is needed")
        feature = space.feature_space
        items = tuple(_kind_of(feature).read_action(feature, one) for one in written)
        if not space.stack:
            return items
        empty: Any = create_empty_array(feature, len(items))
        return concatenate(feature, items, empty) if items else empty

    def write_action(self, space: spaces.Sequence, action: Any) -> Any:
        items: Sequence[Any] = action
        if space.stack:
            items = list(iterate(space.stacked_feature_space, action))
        return [write_action(space.feature_space, one) for one in items]


class _Graph(_Kind):
    def describe(self, space: spaces.Graph) -> dict[str, Any]:
        edge = space.edge_space
        return {
            "node": describe_space(space.node_space),
            "edge": None if edge is None else describe_space(edge),
        }

    def read(self, described: Any) -> Space[Any]:
        edge = described["edge"]
        node: Any = read_space(described["node"])
        read: Any = None if edge is None else read_space(edge)
        return spaces.Graph(node, read)

    def schema(self, space: spaces.Graph) -> dict[str, Any]:
        raise UncarriedError(f"no JSON Schema describes the actions of {space}")


_KINDS: Final[dict[str, _Kind]] = {
    "Box": _Box(),
    "Discrete": _Discrete(),
    "MultiDiscrete": _MultiDiscrete(),
    "MultiBinary": _MultiBinary(),
    "Text": _Text(),
    "Tuple": _Tuple(),
    "Dict": _Dict(),
    "OneOf": _OneOf(),
    "Sequence": _Sequence(),
    "Graph": _Graph(),
}


def _kind_of(space: Space[Any]) -> _Kind:
    name = type(space).__name__
    # A subclass may hold other values than its base, which nobody here knows.
    if type(space) is not getattr(spaces, name, None) or name not in _KINDS:
        raise UncarriedError(
            f"the space {space!r:.200} is of the class {type(space).__qualname__}, "
            f"which JSON has no form for; there is one for {', '.join(_KINDS)}"
        )
    return _KINDS[name]
