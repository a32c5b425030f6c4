"""A tool call as a person writes it: ``move right``, ``move direction=right``, ..."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Sequence
from typing import Any, Final, TypeAlias

from ors_gym.display._game import Field, list_fields
from ors_gym.formats._json import decode_json
from ors_gym.protocol._reply_json import STRICT_DECODER
from ors_gym.types import JSONObject, ToolSpec

_NAME: Final = re.compile(r"\s*([^\s=,()\"\[{]+)\s*=\s*")
_UNTIL_COMMA: Final = re.compile(r"[^,]*")
_Argument: TypeAlias = tuple[str, Any, bool]
"""The name or ``""``, the value, and whether that is text that is still to be read."""


class UnreadError(ValueError):
    """Raised for a line that is no call; says what to write."""


def read_call(line: str, tools: Sequence[ToolSpec]) -> tuple[ToolSpec, JSONObject]:
    """Return the tool that a line names or numbers, and the arguments behind it.

    The arguments may be words in the order of the schema, ``name=value``, both, a JSON
    object, or in parentheses as a transcript has them.

    Raises:
        UnreadError: If there is no such tool, or no place for an argument.

    Example:
        >>> schema = {"properties": {"n": {"type": "integer"}, "why": {}}}
        >>> tool = {"name": "guess", "description": "", "input_schema": schema}
        >>> for line in ("guess 8", "1 why=luck 8", 'guess(n=8, why="luck")', "guess"):
        ...     print(read_call(line, [tool])[1])
        {'n': 8}
        {'why': 'luck', 'n': 8}
        {'n': 8, 'why': 'luck'}
        {}
    """
    tool, rest = _find_tool(line.strip(), tools)
    if rest.startswith("{"):
        return tool, _read_object(rest)
    if rest.startswith("(") and rest.endswith(")"):
        return tool, _place(_split_parenthesised(rest[1:-1]), tool)
    fields = list_fields(tool)
    if fields is not None and len(fields) == 1 and fields[0].kind == "string":
        name, _, value = rest.partition("=")
        if name.strip() == fields[0].name:
            rest = value.strip()
        return tool, {fields[0].name: _unquote(rest)} if rest else {}
    return tool, _place(_split_words(rest, fields), tool)


def _find_tool(line: str, tools: Sequence[ToolSpec]) -> tuple[ToolSpec, str]:
    by_name = {str(number): tool for number, tool in enumerate(tools, 1)}
    by_name |= {tool["name"]: tool for tool in tools}
    # The longest first, since one name may begin with another.
    for name in sorted(by_name, key=len, reverse=True):
        rest = line[len(name) :]
        if line.startswith(name) and (not rest or rest[0] in " \t({"):
            return by_name[name], rest.strip()
    word = re.split(r"[\s({]", line, maxsplit=1)[0]
    raise UnreadError(
        f"there is no tool {word!r}; write its name or its number (1 to {len(tools)}), "
        "? to see the tools, or q to leave"
    )


def _read_object(text: str) -> JSONObject:
    try:
        value: JSONObject = decode_json(text)
    except ValueError as error:
        raise UnreadError(f"this is not JSON: {error}") from None
    return value


def _split_parenthesised(text: str) -> Iterator[_Argument]:
    place = 0
    while text[place:].strip():
        match = _NAME.match(text, place)
        name, place = (match[1], match.end()) if match else ("", place)
        place += len(text[place:]) - len(text[place:].lstrip())
        try:
            value, place = STRICT_DECODER.raw_decode(text, place)
            is_text = False
        except (ValueError, RecursionError):
            word = _UNTIL_COMMA.match(text, place)
            value = word[0].strip() if word else ""
            place = word.end() if word else len(text)
            is_text = True
        rest = text[place:].lstrip()
        if rest and not rest.startswith(","):
            raise UnreadError(f"write a comma before {rest!r:.40}")
        place = len(text) - len(rest) + 1
        yield name, value, is_text


def _split_words(text: str, fields: Sequence[Field] | None) -> Iterator[_Argument]:
    lexer = shlex.shlex(text, posix=True, punctuation_chars="")
    lexer.whitespace_split, lexer.commenters, lexer.escape = True, "", ""
    try:
        words = list(lexer)
    except ValueError:
        # An apostrophe, as in "don't".
        words = text.split()
    known = {field.name for field in fields or ()}
    if fields and len(words) > len(fields) and fields[-1].kind == "string":
        # The last argument takes the rest of the line.
        last = len(fields) - 1
        words[last:] = [" ".join(words[last:])]
    for word in words:
        name, equals, value = word.partition("=")
        named = equals and (name in known or fields is None)
        yield (name, value, True) if named else ("", word, True)


def _place(arguments: Iterator[_Argument], tool: ToolSpec) -> JSONObject:
    """Give each argument its name, and each text the value that its field makes it."""
    fields = list_fields(tool)
    given: JSONObject = {}
    for name, value, is_text in arguments:
        free = [field for field in fields or () if field.name not in given]
        field = next((one for one in free if one.name == name or not name), None)
        if field is not None:
            given[field.name] = read_value(value, field) if is_text else value
        elif name and fields is None:
            given[name] = read_value(value, _ANY_FIELD) if is_text else value
        else:
            raise UnreadError(_describe_misfit(tool, fields, name))
    return given


def _describe_misfit(tool: ToolSpec, fields: Sequence[Field] | None, name: str) -> str:
    if fields is None:
        return f"write the input of {tool['name']} as a JSON object: {{...}}"
    names = ", ".join(field.name for field in fields) or "nothing"
    problem = (
        f"no argument {name!r}, or it was given twice"
        if name
        else "more arguments were given"
    )
    return f"{tool['name']} takes {names}; {problem}"


_ANY_FIELD: Final = Field("", {}, "", required=False, kind="json")


def read_value(text: str, field: Field) -> Any:
    """Read an argument; what cannot be read is sent as text: the server decides."""
    if field.kind == "choice" and text in field.choices:
        return text
    try:
        return field.read(text)
    except ValueError:
        return text


def _unquote(text: str) -> str:
    quoted = len(text) > 1 and text[0] == text[-1] and text[0] in "\"'"
    return text[1:-1] if quoted and text[0] not in text[1:-1] else text
