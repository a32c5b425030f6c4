"""Strict JSON: reading it, and the plain JSON form of a Python value.

`json.dumps` silently turns keys into strings and refuses numpy's scalars. This module
does the opposite, and says where in the value the fault is.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Mapping
from typing import Any, Final

from ors_gym.protocol._reply_json import STRICT_DECODER, NotANumberError

_MAX_DEPTH: Final = 128
"""Deeper values exhaust the recursion of common JSON readers, ours included."""
_MAX_VALUES: Final = 1_000_000
_LARGEST: Final = sys.float_info.max
_SIMPLE: Final = frozenset({str, bool, type(None)})
_NUMBERS: Final = frozenset({int, float})
_IDENTIFIER: Final = re.compile(r"[A-Za-z_]\w{0,63}")


def decode_json(text: str) -> Any:
    """Decode JSON strictly; a ValueError says what is wrong with it, and where."""
    try:
        return STRICT_DECODER.decode(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(describe_json_fault(error)) from None


def describe_json_fault(error: Exception, start: int = 0) -> str:
    """Word an error of the decoder; columns count from ``start`` in its text."""
    if isinstance(error, json.JSONDecodeError):
        line_start = max(error.doc.rfind("\n", start, error.pos) + 1, start)
        lines = error.doc.count("\n", start, error.pos)
        line = f" of line {lines + 1}" if lines else ""
        return f"{error.msg} at column {error.pos - line_start + 1}{line}"
    if isinstance(error, RecursionError):
        return "it is nested too deeply"
    # The interpreter's own limit on digits is the only other cause.
    is_constant = isinstance(error, NotANumberError)
    return str(error) if is_constant else "a number has too many digits"


def flatten_json(value: Any, *, sort_keys: bool = False) -> list[Any]:
    """Return plain JSON as a list in which nothing is nested, however deep it was.

    Copying, pickling and comparing a nested value takes recursion, which is bounded.

    Example:
        >>> flatten_json({"a": [1, {}]})
        [('{', 'a'), ('[', 2), 1, ('{',)]
    """
    flat: list[Any] = []
    stack = [value]
    while stack:
        part = stack.pop()
        if isinstance(part, Mapping):
            keys = sorted(part) if sort_keys else list(part)
            flat.append(("{", *keys))
            stack.extend(part[key] for key in reversed(keys))
        elif isinstance(part, list | tuple):
            flat.append(("[", len(part)))
            stack.extend(reversed(part))
        else:
            flat.append(part)
    return flat


def unflatten_json(flat: list[Any]) -> Any:
    """Return the value that `flatten_json` was given."""
    stack: list[Any] = []
    for part in reversed(flat):
        if not isinstance(part, tuple):
            stack.append(part)
        elif part[0] == "{":
            stack.append({key: stack.pop() for key in part[1:]})
        else:
            stack.append([stack.pop() for _ in range(part[1])])
    return stack.pop()


def copy_json(value: Any) -> Any:
    """Return a deep copy of plain JSON, however deep it is nested."""
    return unflatten_json(flatten_json(value))


class _Fault(Exception):  # noqa: N818 - never leaves this module
    """Why a value is not JSON; the path grows while the error travels up."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason
        self.path: list[object] = []


def is_flat_json(value: dict[Any, Any]) -> bool:
    """Tell cheaply whether a dict is plain JSON without anything nested.

    False means that only `to_plain_json` can tell.
    """
    for key, item in value.items():
        if type(key) is not str:
            return False
        kind = type(item)
        # The comparison is False for NaN and the infinities.
        if kind not in _SIMPLE and not (
            kind in _NUMBERS and -_LARGEST <= item <= _LARGEST
        ):
            return False
    return True


def has_float(value: object) -> bool:
    """Say whether an integer fits into a float; True for any other value.

    JSON integers have no bound, and one beyond 1.8e308 cannot become a float.
    """
    return not isinstance(value, int) or -_LARGEST <= value <= _LARGEST


def to_plain_json(value: object, *, root: str = "input") -> Any:
    """Return the plain JSON form of a value: the value itself if it is plain.

    Tuples become lists and mappings dicts. Numpy scalars and arrays, and whatever else
    has ``tolist()``, become numbers and lists; pydantic models, and whatever else has
    ``model_dump()``, become what that returns. Lone surrogates in strings stay, since
    `json.dumps` escapes them. Parts that need no conversion are not copied.

    Raises:
        ValueError: If a part is not JSON: NaN, bytes, a set, a key that is not a
            string, or nesting of more than 128 levels. The message has the path,
            which begins with ``root``.

    Example:
        >>> import numpy as np
        >>> to_plain_json({"n": np.int64(3), "xs": (1, 2)})
        {'n': 3, 'xs': [1, 2]}
        >>> to_plain_json({"a": [1, float("nan")]})
        Traceback (most recent call last):
            ...
        ValueError: input.a[1]: nan is not a JSON number
    """
    try:
        return _plain(value, 0, [_MAX_VALUES])
    except _Fault as fault:
        path = "".join(_step(part) for part in reversed(fault.path))
        message = f"{root}{path}: {fault.reason}"
    raise ValueError(message)


def _step(part: object) -> str:
    if isinstance(part, int):
        return f"[{part}]"
    text = str(part)
    if _IDENTIFIER.fullmatch(text):
        return f".{text}"
    return f"[{text[:64]!r}]"


def _plain(value: Any, depth: int, budget: list[int]) -> Any:
    # The budget counts the items of containers: a list that holds another one twice,
    # 64 levels deep, is small in memory and endless to walk.
    kind = type(value)
    if kind in _SIMPLE or (kind in _NUMBERS and -_LARGEST <= value <= _LARGEST):
        return value
    if kind in _NUMBERS:
        return _unusual_number(value)
    if depth >= _MAX_DEPTH:
        raise _Fault(f"nested more than {_MAX_DEPTH} levels deep")
    if kind is not dict and kind is not list:
        return _converted(value, depth, budget)
    budget[0] -= len(value)
    if budget[0] < 0:
        raise _Fault(f"holds more than {_MAX_VALUES} values")
    return _plain_container(value, depth + 1, budget)


def _plain_container(value: Any, depth: int, budget: list[int]) -> Any:
    changed: Any = None
    is_dict = type(value) is dict
    for key, item in value.items() if is_dict else enumerate(value):
        if is_dict and not isinstance(key, str):
            raise _Fault(f"a key is of type {type(key).__name__}, not a string")
        try:
            plain = _plain(item, depth, budget)
        except _Fault as fault:
            fault.path.append(key)
            raise
        if plain is not item:
            changed = value.copy() if changed is None else changed
            changed[key] = plain
    return value if changed is None else changed


def _converted(value: Any, depth: int, budget: list[int]) -> Any:
    """Convert a value that stands for one of a JSON type, and check the result."""
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, int):
        return _plain(int(value), depth + 1, budget)
    if isinstance(value, float):
        return _plain(float(value), depth + 1, budget)
    if isinstance(value, Mapping):
        return _plain(dict(value), depth + 1, budget)
    if isinstance(value, tuple | list):
        return _plain(list(value), depth + 1, budget)
    for method in ("tolist", "model_dump"):
        convert = getattr(value, method, None)
        if callable(convert):
            return _plain(convert(), depth + 1, budget)
    raise _Fault(f"{type(value).__name__} is not a JSON type")


def _unusual_number(value: Any) -> Any:
    """Let an integer beyond the range of floats pass if its digits can be written."""
    if isinstance(value, float):
        raise _Fault(f"{value} is not a JSON number")
    try:
        int.__repr__(value)
    except ValueError:
        raise _Fault("the number has too many digits") from None
    return value
