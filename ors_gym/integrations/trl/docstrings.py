"""Google docstrings that `transformers.utils.get_json_schema` reads back as meant."""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Mapping
from typing import Any, Final

from ors_gym.observations.rendering import replace_surrogates

__all__ = ["google_docstring", "one_line", "to_json"]

_SECTION: Final = re.compile(r"(Args|Returns|Raises|\((?i:choices)):")
"""What `get_json_schema` takes for the beginning of something, wherever it stands."""


def google_docstring(
    description: str, remark: str, arguments: Mapping[str, str]
) -> str:
    """Write a docstring.

    Args:
        description: What a server says of a tool, which may look like anything.
        remark: A paragraph of our own behind it, or ``""``.
        arguments: One line each, by name.

    Returns:
        The docstring. A space before the colon keeps headings of the server's from
        being taken for ours.

    Example:
        >>> print(google_docstring("Adds. Args: a, b", "", {"a": "A number."}))
        Adds. Args : a, b
        <BLANKLINE>
        Args:
            a: A number.
        <BLANKLINE>
        Returns:
            What the tool answers.
    """
    told = replace_surrogates(inspect.cleandoc(description)).strip()
    parts = [_SECTION.sub(r"\1 :", told), remark]
    if arguments:
        lines = [f"    {name}: {text}" for name, text in arguments.items()]
        parts.append("\n".join(["Args:", *lines]))
    parts.append("Returns:\n    What the tool answers.")
    return "\n\n".join(filter(None, parts))


def one_line(text: str) -> str:
    r"""Return text fit for one line of a docstring.

    Args:
        text: Any text of a server.

    Returns:
        The text with its white space collapsed.

    Example:
        >>> one_line("How\n  many. Returns: all")
        'How many. Returns : all'
    """
    return replace_surrogates(_SECTION.sub(r"\1 :", " ".join(text.split())))


def to_json(value: Any) -> str:
    r"""Return JSON fit for one line of a docstring.

    Args:
        value: A JSON value.

    Returns:
        One line that decodes to the value.

    Example:
        >>> to_json({"größe": "Args: none"})
        '{"größe": "Args\\u003a none"}'
    """
    text = replace_surrogates(json.dumps(value, ensure_ascii=False))
    return _SECTION.sub(lambda match: rf"{match[1]}\u003a", text)
