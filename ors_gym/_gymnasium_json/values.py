"""Values of Gymnasium as JSON that loses nothing: dtype, shape, NaN, tuples.

Both ends of a served Gymnasium environment use it: the server for observations, infos
and rewards, `ors_gym.wrappers.NativeSpaces` to read them back. A value that JSON has
stays as it is; any other becomes an object with one key that begins with ``@``.
"""

from __future__ import annotations

import base64
import functools
import math
import struct
import zlib
from collections.abc import Callable
from typing import Any, Final

import numpy as np
from gymnasium.spaces import GraphInstance

MOST_ELEMENTS: Final = 2**26
"""Elements of the largest array that is carried: an image of 8192 by 8192 pixels."""
_MOST_BYTES: Final = 16 * MOST_ELEMENTS
"""Bytes of the largest one: an element of text may have any size."""
_LISTED: Final = 256
"""Elements up to which an array is a list of numbers."""
_SHOWN: Final = 1000
"""Elements up to which a reader is shown the numbers of an array."""
_SAFE_INTEGER: Final = 2**63
_KINDS: Final = frozenset("biufcUSmM")
"""The kinds of NumPy's dtypes that are carried: no objects, no records."""
_UNREADABLE: Final = (
    *(ArithmeticError, LookupError, TypeError, ValueError),
    *(struct.error, zlib.error),
)
_SPECIAL: Final = {"nan": math.nan, "inf": math.inf, "-inf": -math.inf}
_NAMES: Final = {"nan": "NaN", "inf": "Infinity", "-inf": "-Infinity"}


class UncarriedError(ValueError):
    """The value, or the space, has no form in JSON."""


def write_value(value: Any) -> Any:
    """Write a value as JSON.

    Raises `UncarriedError` for one that `read_value` could not give back.

    Example:
        >>> write_value((np.zeros(2, np.float32), math.nan))
        {'@tuple': [{'@array': {'dtype': '<f4', 'shape': [2], 'data': [0.0, 0.0]}}, \
{'@float': 'nan'}]}
    """
    try:
        return _write(value)
    except RecursionError:
        raise UncarriedError("it is nested too deeply, or holds itself") from None


@functools.singledispatch
def _write(value: object) -> Any:
    if hasattr(value, "__array__"):
        # Arrays of other libraries, such as JAX, become NumPy's.
        return {"@array": _write_array(_to_numpy(value))}
    raise UncarriedError(f"JSON cannot hold a value of type {type(value).__name__}")


def _to_numpy(value: Any) -> np.ndarray[Any, Any]:
    try:
        return np.asarray(value)
    except Exception as error:  # noqa: BLE001 - as a tensor that needs a gradient
        kind = type(value).__name__
        raise UncarriedError(f"a {kind} is no array of NumPy: {error}") from None


@_write.register
def _(value: bool | None) -> Any:
    return value


@_write.register
def _(value: int) -> Any:
    if -_SAFE_INTEGER <= value < _SAFE_INTEGER:
        return int(value)
    try:
        return {"@int": str(int(value))}
    except ValueError:
        raise UncarriedError("the number has too many digits") from None


@_write.register
def _(value: float) -> Any:
    if math.isfinite(value):
        return float(value)
    # A NaN may have a sign, and bits of its own.
    name, bits = str(float(value)), struct.pack("<d", value)
    return {"@float": name if bits == struct.pack("<d", _SPECIAL[name]) else bits.hex()}


@_write.register
def _write_text(value: str) -> Any:
    try:
        value.encode()
    except UnicodeEncodeError:
        raise UncarriedError("the text has half a surrogate pair") from None
    # Not `str`, which names the member of an enumeration.
    return str.__str__(value)


@_write.register
def _(value: np.generic) -> Any:
    return {"@scalar": _write_array(np.asarray(value))}


@_write.register
def _(value: np.ndarray) -> Any:
    return {"@array": _write_array(value)}


@_write.register(list)
def _(value: Any) -> Any:
    return [_write(one) for one in value]


@_write.register(tuple)
def _(value: Any) -> Any:
    if isinstance(value, GraphInstance):
        return {"@graph": [_write(part) for part in value]}
    if type(value) is not tuple:
        raise UncarriedError(f"JSON cannot hold a {type(value).__name__}")
    return {"@tuple": [_write(one) for one in value]}


@_write.register(dict)
def _(value: Any) -> Any:
    if all(isinstance(key, str) and not key.startswith("@") for key in value):
        return {_write_text(key): _write(one) for key, one in value.items()}
    return {"@dict": [[_write(key), _write(one)] for key, one in value.items()]}


def _write_array(array: np.ndarray[Any, Any]) -> dict[str, Any]:
    dtype, shape = array.dtype, list(array.shape)
    if dtype.kind not in _KINDS:
        raise UncarriedError(f"JSON cannot hold an array of dtype {dtype}")
    if isinstance(array, np.ma.MaskedArray):
        raise UncarriedError("JSON cannot hold the mask of an array")
    if array.size > MOST_ELEMENTS or array.nbytes > _MOST_BYTES:
        raise UncarriedError(f"an array of {array.size} elements is too large")
    written: dict[str, Any] = {"dtype": dtype.str, "shape": shape}
    if array.size <= _LISTED and _is_plain(array):
        return {**written, "data": array.ravel().tolist()}
    # level 1: a picture of a game is a few kilobytes at any level
    packed = zlib.compress(array.tobytes(), 1)
    return {**written, "zlib": base64.b64encode(packed).decode("ascii")}


def _is_plain(array: np.ndarray[Any, Any]) -> bool:
    """Say whether the elements are numbers that JSON has."""
    kind = array.dtype.kind
    if kind == "f":
        return array.itemsize <= 8 and bool(np.isfinite(array).all())
    return kind in "biu"


def read_value(written: Any) -> Any:
    """Undo `write_value`.

    Raises `UncarriedError` for what it does not write.

    Example:
        >>> read_value(write_value({"at": (1, np.int8(2)), 3: math.inf}))
        {'at': (1, np.int8(2)), 3: inf}
    """
    try:
        return _read(written)
    except UncarriedError:
        raise
    except RecursionError:
        raise UncarriedError("it is nested too deeply") from None
    except _UNREADABLE as error:
        raise UncarriedError(f"it cannot be read: {error}") from None


def _read(written: Any) -> Any:
    if isinstance(written, list):
        return [_read(one) for one in written]
    if not isinstance(written, dict):
        return written
    if len(written) == 1:
        ((key, inner),) = written.items()
        if key.startswith("@"):
            return _READERS[key](inner)
    return {key: _read(one) for key, one in written.items()}


def _read_array(written: Any) -> np.ndarray[Any, Any]:
    dtype, shape = read_dtype(written["dtype"]), tuple(map(int, written["shape"]))
    count = math.prod(shape)
    size = count * dtype.itemsize
    too_large = count > MOST_ELEMENTS or size > _MOST_BYTES
    if dtype.kind not in _KINDS or min(shape, default=0) < 0 or too_large:
        raise UncarriedError(f"an array of dtype {dtype} and shape {shape} is not read")
    if "data" in written:
        return np.array(written["data"], dtype).reshape(shape)
    unpacker = zlib.decompressobj()
    # At most one byte more than expected, so that a zip bomb is not unpacked.
    packed = base64.b64decode(written["zlib"], validate=True)
    content = bytearray(unpacker.decompress(packed, size + 1))
    if len(content) != size:
        raise UncarriedError(f"an array of {size} bytes has {len(content)}")
    return np.frombuffer(content, dtype).reshape(shape)


def read_dtype(written: Any) -> np.dtype[Any]:
    """Read what a dtype calls itself: ``dtype.str``."""
    try:
        return np.dtype(str(written))
    except SyntaxError:
        # NumPy reads some texts as Python.
        raise UncarriedError(f"{written!r:.100} is no dtype") from None


def _read_float(written: Any) -> float:
    if written in _SPECIAL:
        return _SPECIAL[written]
    (value,) = struct.unpack("<d", bytes.fromhex(written))
    return float(value)


_READERS: Final[dict[str, Callable[[Any], Any]]] = {
    "@array": _read_array,
    "@scalar": lambda inner: _read_array({**inner, "shape": [1]})[0],
    "@int": lambda inner: int(str(inner)),
    "@float": _read_float,
    "@tuple": lambda inner: tuple(_read(one) for one in inner),
    "@graph": lambda inner: GraphInstance(*(_read(part) for part in inner)),
    "@dict": lambda inner: {_read(key): _read(one) for key, one in inner},
}


@functools.singledispatch
def show_value(value: Any) -> Any:
    """Write a value as a person or a model reads it: lists, numbers and text.

    Numbers are exact; what type they have, the space says.

    Example:
        >>> show_value({"at": np.array([0.1, math.inf], np.float32), "bag": (1, 2)})
        {'at': [0.1, 'Infinity'], 'bag': [1, 2]}
    """
    if value is None or isinstance(value, str | int):
        return value
    return show_value(np.asarray(value)) if hasattr(value, "__array__") else str(value)


@show_value.register
def _(value: float) -> Any:
    return float(value) if math.isfinite(value) else _NAMES[str(float(value))]


@show_value.register
def _(value: np.generic) -> Any:
    # The shortest text that reads back as the same number of this dtype.
    if value.dtype.kind == "f":
        return show_value(float(str(value)))
    return value.item() if value.dtype.kind in "biu" else str(value)


@show_value.register
def _(value: np.ndarray) -> Any:
    if value.size > _SHOWN:
        return f"{value.dtype} array of shape {value.shape}"
    return show_value(list(value) if value.ndim else value[()])


@show_value.register(list)
@show_value.register(tuple)
def _(value: Any) -> Any:
    if isinstance(value, GraphInstance):
        return show_value(value._asdict())
    return [show_value(one) for one in value]


@show_value.register(dict)
def _(value: Any) -> Any:
    return {str(key): show_value(one) for key, one in value.items()}
