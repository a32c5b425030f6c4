"""Tools, tasks and prompts as cards."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from ors_gym.cards.frame import card
from ors_gym.cards.parts import Allowance, escape, preformatted, show_blocks
from ors_gym.types import JSONObject, ToolSpec

__all__ = ["describe_schema", "prompt_card", "tasks_card", "tool_parts", "tools_card"]

_MOST_TASKS: Final = 50
_MOST_WORDS: Final = 200
_BOUNDS: Final = {
    "minimum": "at least {}",
    "exclusiveMinimum": "more than {}",
    "maximum": "at most {}",
    "exclusiveMaximum": "less than {}",
    "multipleOf": "a multiple of {}",
    "minLength": "at least {} characters",
    "maxLength": "at most {} characters",
    "pattern": "matching {}",
    "format": "{}",
    "default": "default {}",
}
_EXCLUSIVE: Final = {"minimum": "exclusiveMinimum", "maximum": "exclusiveMaximum"}


def tools_card(tools: Sequence[ToolSpec], title: str = "") -> str:
    """Return tools as a card.

    Args:
        tools: Tools as a server lists them.
        title: The card's title; how many there are if empty.

    Example:
        >>> "look" in tools_card([{"name": "look", "description": "See."}])
        True
    """
    many = f"{len(tools)} tool" + ("" if len(tools) == 1 else "s")
    return card(title or many, tool_parts(tools))


def tool_parts(tools: Sequence[ToolSpec]) -> Iterator[str]:
    """Yield each tool's part of a card.

    Args:
        tools: Tools as a server lists them.
    """
    for tool in tools:
        schema = tool.get("input_schema")
        fields = "".join(_fields(schema))
        whole = _whole(schema) if fields else ""
        yield (
            f'<div class="ors-part ors-edge-accent">'
            f'<pre class="ors-text ors-call">{escape(tool.get("name", ""))}</pre>'
            f"{_description(tool.get('description'))}"
            f'<div class="ors-fields">{fields}</div>{whole}</div>'
        )


def _description(text: Any) -> str:
    return preformatted(str(text).strip()) if text else ""


def _fields(schema: Any) -> Iterator[str]:
    properties = schema.get("properties") if isinstance(schema, Mapping) else None
    if not isinstance(properties, Mapping) or not properties:
        return
    required = schema.get("required")
    needed = required if isinstance(required, list) else []
    for name, field in properties.items():
        words = describe_schema(field)
        if name not in needed:
            words += ", optional"
        description = field.get("description") if isinstance(field, Mapping) else None
        said = f"<div>{escape(description)}</div>" if description else ""
        yield (
            f'<div class="ors-text-colour"><b>{escape(name)}</b></div>'
            f'<div><span class="ors-muted">{escape(words)}</span>{said}</div>'
        )


def describe_schema(schema: Any, depth: int = 3) -> str:
    """Say in a few words what a schema wants.

    Args:
        schema: A JSON Schema.
        depth: How far into its parts to look.

    Example:
        >>> describe_schema({"type": "integer", "minimum": 1, "maximum": 9})
        'integer, at least 1, at most 9'
        >>> describe_schema({"enum": ["up", "down"]})
        'one of "up", "down"'
    """
    if not isinstance(schema, Mapping) or depth < 0:
        return "anything"
    if isinstance(schema.get("enum"), list):
        return _shorten("one of " + ", ".join(map(_json, schema["enum"])))
    if "const" in schema:
        return _shorten(_json(schema["const"]))
    for key in ("anyOf", "oneOf"):
        if isinstance(schema.get(key), list):
            ways = (describe_schema(way, depth - 1) for way in schema[key])
            return _shorten(" or ".join(ways)) or "nothing"
    kind = schema.get("type") or "JSON"
    words = " or ".join(map(str, kind)) if isinstance(kind, list) else str(kind)
    if words == "array" and "items" in schema:
        words = f"array of {describe_schema(schema['items'], depth - 1)}"
    return _shorten(", ".join([words, *_bounds(schema)]))


def _bounds(schema: Mapping[str, Any]) -> Iterator[str]:
    said = dict(schema)
    for bound, exclusive in _EXCLUSIVE.items():
        # Draft 4: whether the bound itself is left out. Later drafts: another bound.
        if schema.get(exclusive) is True and bound in said:
            said[exclusive] = said.pop(bound)
    for key, words in _BOUNDS.items():
        if key == "default" and key in said:
            yield words.format(_json(said[key]))
        elif key in said and not isinstance(said[key], bool):
            yield words.format(said[key])


def _whole(schema: Any) -> str:
    text = json.dumps(schema, indent=2, ensure_ascii=False, default=str)
    return (
        '<details><summary class="ors-more">schema</summary>'
        f'<pre class="ors-text">{escape(text)}</pre></details>'
    )


def tasks_card(tasks: Sequence[JSONObject], title: str = "") -> str:
    """Return tasks as a card, the first of very many.

    Args:
        tasks: Task specs. They usually hold the answers.
        title: The card's title; how many there are if empty.
    """
    parts = [
        f'<div class="ors-part"><div class="ors-label">task {number}</div>'
        f"{_pairs(task)}</div>"
        for number, task in enumerate(tasks[:_MOST_TASKS])
    ]
    if len(tasks) > _MOST_TASKS:
        more = len(tasks) - _MOST_TASKS
        parts.append(f'<div class="ors-part ors-muted">{more:,} more</div>')
    many = f"{len(tasks):,} task" + ("" if len(tasks) == 1 else "s")
    return card(title or many, parts)


def _pairs(task: Any) -> str:
    if not isinstance(task, Mapping):
        return preformatted(_json(task))
    pairs = "".join(
        f'<div class="ors-muted">{escape(name)}</div><div>'
        f"{preformatted(value if isinstance(value, str) else _json(value))}</div>"
        for name, value in task.items()
    )
    return f'<div class="ors-fields">{pairs}</div>'


def prompt_card(prompt: Sequence[JSONObject], title: str = "prompt") -> str:
    """Return a prompt as a card.

    Args:
        prompt: Blocks, or messages with roles (``{"role", "blocks"}``).
        title: The card's title.
    """
    allowance = Allowance()
    if not any("role" in part for part in prompt):
        inside = show_blocks(prompt, allowance)
        return card(title, [f'<div class="ors-part ors-edge-accent">{inside}</div>'])
    return card(title, (_message(message, allowance) for message in prompt))


def _message(message: JSONObject, allowance: Allowance) -> str:
    blocks = message.get("blocks", message.get("content"))
    parts = blocks if isinstance(blocks, list) else [blocks] if blocks else []
    known = [
        part if isinstance(part, dict) else {"type": "text", "text": str(part)}
        for part in parts
    ]
    inside = show_blocks(known, allowance)
    calls = message.get("tool_calls")
    if calls:
        inside += preformatted(_json(calls), "ors-call")
    return (
        f'<div class="ors-part ors-edge-accent"><div class="ors-label">'
        f"{escape(message.get('role', ''))}</div>{inside}</div>"
    )


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, default=str)


def _shorten(text: str) -> str:
    return text if len(text) <= _MOST_WORDS else text[: _MOST_WORDS - 1] + "…"
