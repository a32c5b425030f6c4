"""Reads ``NAME?argument=value&...``, as what is served is named on a command line."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import parse_qsl

from ors_gym.errors import InvalidRequestError


def read_arguments(wanted: str) -> tuple[str, dict[str, Any]]:
    """Return the name and the arguments; a value that is JSON is that JSON.

    Example:
        >>> read_arguments("FrozenLake-v1?is_slippery=false&map_name=8x8")
        ('FrozenLake-v1', {'is_slippery': False, 'map_name': '8x8'})
    """
    name, mark, query = wanted.partition("?")
    try:
        # parse_qsl would turn a plus sign into a blank.
        pairs = parse_qsl(query.replace("+", "%2B"), True, bool(mark))
    except ValueError as error:
        raise InvalidRequestError(
            f"the arguments of {wanted!r} cannot be read ({error}); write "
            "name?argument=value&argument=value"
        ) from None
    return name, {key: _read(value) for key, value in pairs}


def _read(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text
