"""A tool call as a person writes it: ``move right``, ``move direction=right``, ..."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from collections.abc import Set as AbstractSet
from typing import Any, Final, TypeAlias

from ors_gym.display._game import Field, list_fields
from ors_gym.formats._json import decode_json
from ors_gym.protocol._reply_json import STRICT_DECODER
from ors_gym.types import JSONObject, ToolSpec

_NAME: Final = re.compile(r"\s*([^\s=,()\"\[{]+)\s*=\s*")
_WORD: Final = re.compile(
    r"""(?:[^ \t\r\n=]+=)?(?:"[^"]*"|'[^']*')(?=[ \t\r\n]|\Z)|[^ \t\r\n]+"""
)
"""Only a word or value that is quoted as a whole has spaces: "don't" is no quote."""
_UNTIL_COMMA: Final = re.compile(r"[^,]*")
_Argument: TypeAlias = tuple[str, Any, bool]
"""The name or ``""``, the value, and whether that is text that is still to be read."""


class UnreadError(ValueError):
    """Raised for a line that is no call; says what to write."""


def read_call(line: str, tools: Sequence[ToolSpec]) -> tuple[ToolSpec, JSONObject]:
    """Return the tool that a line names or numbers, and the arguments behind it.

    The arguments may be words in the order of the schema, ``name=value``, both, a JSON
    object, or in parentheses as a transcript has them. A last argument that is text
    takes the rest of the line as it is.

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
        name, equals, value = rest.partition("=")
        if equals and name.strip() == fields[0].name:
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
    known = None if fields is None else {field.name for field in fields}
    words = list(_WORD.finditer(text))
    names = [_name_of(word[0], known) for word in words]
    for number, (word, name) in enumerate(zip(words, names, strict=True)):
        begin = word.start() if name is None else word.start() + len(name) + 1
        if fields and _takes_rest(fields, names, number):
            # As it was typed.
            yield fields[-1].name, _unquote(text[begin:]), True
            return
        yield name or "", _unquote(text[begin : word.end()]), True


def _name_of(word: str, known: AbstractSet[str] | None) -> str | None:
    """Return the name before a word's equals sign; None if it names no argument."""
    name, equals, _ = word.partition("=")
    is_name = name[:1] not in ("'", '"') if known is None else name in known
    return name if equals and is_name else None


def _takes_rest(
    fields: Sequence[Field], names: Sequence[str | None], number: int
) -> bool:
    """Say whether the rest of the line, from this word on, is the last argument."""
    last = fields[-1]
    if last.kind != "string":
        return False
    if names[number] is None:
        return number == len(fields) - 1
    # Unless each of the words behind it names another argument.
    others = names[number + 1 :]
    is_alone = bool(others) and None not in others and last.name not in others
    return names[number] == last.name and not is_alone


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
