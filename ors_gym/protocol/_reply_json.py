"""Readers: the JSON of a reply to a checked value (docs/wire.md, points 15 to 17).

Strict about what decides an episode, tolerant otherwise: unknown fields are
ignored and unknown blocks are kept.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, NoReturn

from ors_gym.errors import LimitExceededError, ProtocolError
from ors_gym.types import Block, JSONObject, Split, TaskSpec, ToolOutput, ToolSpec

_SHOWN: Final = 4096
_MOST_LEVELS: Final = 256
"""Deeper values can be read, but not copied, pickled or written again."""
_SPLIT_TYPES: Final = ("train", "validation", "test")


class NotANumberError(ValueError):
    """Raised for numbers that are not finite: NaN, the infinities, 1e999."""


def _refuse_constant(name: str) -> NoReturn:
    raise NotANumberError(f"{name} is not a JSON number")


def _finite(text: str) -> float:
    number = float(text)
    if number - number:  # NaN for an infinity, which is true
        raise NotANumberError(f"{text[:40]} is too large for a number")
    return number


STRICT_DECODER: Final = json.JSONDecoder(
    parse_constant=_refuse_constant, parse_float=_finite
)


def parse_json(data: bytes | str, what: str, redact: Callable[[str], str] = str) -> Any:
    """Decode JSON strictly: UTF-8, finite numbers, at most 256 levels of nesting."""
    try:
        text = data.decode() if isinstance(data, bytes) else data
        if text[:1] == "{":
            # Without the search for blanks around the value, which costs as much again.
            value, end = STRICT_DECODER.raw_decode(text)
            if end != len(text):
                value = STRICT_DECODER.decode(text)
        else:
            value = STRICT_DECODER.decode(text)
        # Each level takes two characters, so that a short text is not looked at again.
        if len(text) > 2 * _MOST_LEVELS:
            _refuse_depth(text, value)
        return value  # noqa: TRY300 - an `else` would not catch what the check raises
    except (ValueError, RecursionError) as error:
        problem = f"{type(error).__name__}: {str(error)[:120]}"
    start = data[:_SHOWN]
    text = start.decode("utf-8", "replace") if isinstance(start, bytes) else start
    # Raised outside the handler: as its context the decoder's error would keep the
    # whole text. Redacted before it is cut: half a secret would not be recognised.
    raise ProtocolError(
        f"{what} is not JSON ({problem}); it begins with {redact(text)[:60]!r}. Is "
        "this the address of an ORS server?"
    )


def _refuse_depth(text: str, value: object) -> None:
    if text.count("[") + text.count("{") <= _MOST_LEVELS:
        return
    level = [value] if isinstance(value, dict | list) else []
    for _ in range(_MOST_LEVELS):
        level = [
            item
            for part in level
            for item in (part.values() if isinstance(part, dict) else part)
            if isinstance(item, dict | list)
        ]
        if not level:
            return
    raise RecursionError(f"nested more than {_MOST_LEVELS} levels deep")


def _field(value: object, name: str, what: str) -> Any:
    if not isinstance(value, Mapping) or name not in value:
        raise ProtocolError(f"{what} has no field {name!r}: {_excerpt(value)}")
    return value[name]


def _list(value: object, what: str) -> list[Any]:
    if not isinstance(value, list):
        raise ProtocolError(f"{what} is not a list: {_excerpt(value)}")
    return value


def _excerpt(value: object) -> str:
    """Describe a value without its content: secrets, answers, endless depth."""
    if isinstance(value, str):
        return f"text of {len(value)} characters"
    if isinstance(value, list):
        return f"a list of {len(value)}"
    if isinstance(value, Mapping):
        return f"an object of {len(value)} fields"
    return repr(value)[:40]


def read_environments(value: object) -> tuple[str, ...]:
    """Read the answer of ``/list_environments``."""
    names = _list(value, "/list_environments")
    if not all(isinstance(name, str) for name in names):
        raise ProtocolError(
            f"/list_environments is not a list of names: {_excerpt(names)}"
        )
    return tuple(names)


def read_session_id(value: object) -> str:
    """Read the answer of a /create_session that speaks JSON."""
    session_id = _field(value, "sid", "the reply of /create_session")
    if not isinstance(session_id, str) or not session_id:
        raise ProtocolError(f"not a session id: {_excerpt(session_id)}")
    return session_id


def read_splits(value: object) -> list[Split]:
    """Read the answer of ``/splits``: names, or objects with name and type."""
    splits = []
    for item in _list(value, "/splits"):
        name = item if isinstance(item, str) else _field(item, "name", "a split")
        kind = item.get("type") if isinstance(item, Mapping) else None
        if not isinstance(name, str):
            raise ProtocolError(f"not the name of a split: {_excerpt(name)}")
        if not isinstance(kind, str):
            # A split of another name counts as validation, as in the SDKs.
            kind = name if name in _SPLIT_TYPES else "validation"
        splits.append(Split(name=name, type=kind))
    return splits


def read_count(value: object) -> int:
    """Read the answer of ``/num_tasks``."""
    count = _field(value, "num_tasks", "the reply of /num_tasks")
    if not isinstance(count, int) or isinstance(count, bool) or count < 0:
        raise ProtocolError(f"not a number of tasks: {_excerpt(count)}")
    return count


def read_task(value: object) -> TaskSpec:
    """Read the answer of ``/task``."""
    return _task(_field(value, "task", "the reply of /task"))


def read_tasks(value: object) -> list[TaskSpec]:
    """Read the answer of ``/tasks`` or ``/task_range``."""
    tasks = _field(value, "tasks", "the list of tasks")
    return [_task(task) for task in _list(tasks, "the field 'tasks'")]


def _task(value: object) -> TaskSpec:
    if not isinstance(value, dict):
        # Not shown: a task holds its answer.
        raise ProtocolError(f"a task is not an object but {type(value).__name__}")
    return value


def read_secret_names(value: object) -> list[str]:
    """Read the platform's answer to ``required-secrets``."""
    names = _list(_field(value, "secrets", "required-secrets"), "the secrets")
    if not all(isinstance(name, str) for name in names):
        raise ProtocolError("required-secrets holds a name that is not text")
    return names


def read_difficulties(value: object) -> list[JSONObject]:
    """Read the platform's answer to ``task-difficulty``."""
    tasks = _list(_field(value, "tasks", "task-difficulty"), "the tasks")
    for task in tasks:
        _field(task, "task_index", "a task's difficulty")
    return tasks


def read_tools(value: Any, most: int) -> tuple[list[ToolSpec], JSONObject]:
    """Read the answer of ``/tools`` or ``/task_tools``.

    The terminal tool, which servers name beside the others, is the last of them. The
    second value holds the reply's other fields, ``terminal_tool`` among them.
    """
    tools = _list(_field(value, "tools", "the list of tools"), "the field 'tools'")
    if len(tools) > most:
        raise LimitExceededError(
            f"the server lists {len(tools)} tools; Limits.tools allows {most}"
        )
    rest = {key: item for key, item in value.items() if key != "tools"}
    listed = [_tool(tool) for tool in tools]
    if value.get("terminal_tool"):
        terminal = _terminal_tool(value["terminal_tool"])
        listed = [tool for tool in listed if tool["name"] != terminal["name"]]
        listed.append(terminal)
    return listed, rest


def _terminal_tool(declared: Any) -> ToolSpec:
    """Read a tool of which the server gives no schema, only the argument's name."""
    terminal = _tool(declared)
    terminal["terminal"] = "both"
    argument = declared.get("arg")
    if isinstance(argument, str):
        terminal["input_schema"] = {
            "type": "object",
            "properties": {argument: {"type": "string"}},
            "required": [argument],
        }
    elif argument is not None:
        raise ProtocolError(f"not the argument of a tool: {_excerpt(argument)}")
    return terminal


def _tool(value: Any) -> ToolSpec:
    name = _field(value, "name", "a tool")
    schema = value.get("input_schema")
    description = value.get("description")
    if not isinstance(name, str) or not (schema is None or isinstance(schema, dict)):
        raise ProtocolError(f"not a tool: {_excerpt(value)}")
    return ToolSpec(
        name=name,
        description=description if isinstance(description, str) else "",
        input_schema=schema,
    )


def read_blocks(value: object) -> list[Block]:
    """Read the blocks of a prompt or a result; an unknown kind is kept as it came."""
    if not isinstance(value, list):
        raise ProtocolError(f"not a list of blocks: {_excerpt(value)}")
    for block in value:
        if not isinstance(block, dict):
            raise ProtocolError(f"not a block: {_excerpt(block)}")
        kind = block.get("type")
        if kind == "text":
            well_formed = isinstance(block.get("text"), str)
        elif kind == "image":
            well_formed = isinstance(block.get("data"), str) and isinstance(
                block.get("mimeType"), str
            )
        else:
            well_formed = isinstance(kind, str)
        if not well_formed:
            raise ProtocolError(f"not a block: {_excerpt(block)}")
    return value


def read_messages(value: object) -> list[JSONObject]:
    """Read the answer of ``/messages``: turns with a role and blocks."""
    turns = _list(value, "/messages")
    for turn in turns:
        if not isinstance(_field(turn, "role", "a message"), str):
            raise ProtocolError(f"not a message: {_excerpt(turn)}")
        read_blocks(_field(turn, "blocks", "a message"))
    return turns


def flatten_messages(messages: Sequence[JSONObject]) -> list[Block]:
    """Return a conversation as the blocks of a prompt, as ``/prompt`` of openreward.

    A lone message of text and images is its blocks. Otherwise each message begins with
    its role, and what only a conversation holds becomes text.
    """
    if len(messages) == 1 and messages[0]["role"] == "user":
        blocks = messages[0]["blocks"]
        if not any(block["type"] in _FLATTENED for block in blocks):
            return list(blocks)
    flat: list[Block] = []
    for message in messages:
        role = message["role"]
        flat.append({"type": "text", "text": f"[{role}]", "detail": {"role": role}})
        for block in message["blocks"]:
            flat += _flatten(block)
    return flat


_FLATTENED: Final = frozenset({"reasoning", "tool_call", "tool_result"})


def _flatten(block: Any) -> list[Block]:
    kind = block["type"]
    if kind not in _FLATTENED:
        return [block]
    detail: JSONObject = {"type": kind}
    if kind == "reasoning":
        text = f"<think>{block.get('text', '')}</think>"
    elif kind == "tool_call":
        detail["id"] = block.get("id")
        called = json.dumps(block.get("input") or {})
        text = f"[tool_call {block.get('name', '')}] {called}"
    else:
        detail["tool_call_id"] = block.get("tool_call_id")
        text = "[tool_result (error)]" if block.get("is_error") else "[tool_result]"
    shown = block.get("blocks")
    is_result = kind == "tool_result" and isinstance(shown, list)
    rest = read_blocks(shown) if is_result else []
    return [{"type": "text", "text": text, "detail": detail}, *rest]


def read_scores(value: object) -> list[JSONObject]:
    """Read the result of ``/score_group``: a reward and metadata per candidate."""
    scores = _list(_field(value, "scores", "the result of /score_group"), "'scores'")
    for score in scores:
        if _reward(_field(score, "reward", "a score")) is None:
            raise ProtocolError(f"a score without a reward: {_excerpt(score)}")
    return scores


def read_tool_output(value: object) -> ToolOutput:
    """Read the ``output`` of a tool that ran; it may lack ``metadata`` and ``reward``.

    Strict: a reward or an end that is guessed would be trained on.
    """
    if not isinstance(value, dict):
        raise ProtocolError(f"not a tool output: {_excerpt(value)}")
    finished = value.get("finished")
    if not isinstance(finished, bool):
        raise ProtocolError(f"'finished' is not true or false: {_excerpt(finished)}")
    metadata = value.get("metadata")
    if metadata is not None and not isinstance(metadata, dict):
        raise ProtocolError(f"'metadata' is not an object: {_excerpt(metadata)}")
    reward = value.get("reward")
    if type(reward) is not float or not math.isfinite(reward):
        reward = _reward(reward)
    return ToolOutput(
        blocks=read_blocks(value.get("blocks")),
        metadata=metadata,
        reward=reward,
        finished=finished,
    )


def _reward(value: object) -> float | None:
    if value is None:
        return None
    if isinstance(value, int | float) and not isinstance(value, bool):
        try:
            reward = float(value)
        except OverflowError:
            reward = math.inf
        if math.isfinite(reward):
            return reward
    raise ProtocolError(f"the reward is not a finite number or null: {_excerpt(value)}")
