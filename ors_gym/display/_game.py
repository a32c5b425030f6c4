"""What a person plays, wherever: an env's episode, and the arguments of its tools."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, Final, Literal, TypeAlias

import gymnasium

from ors_gym.display._transcript import Entry, Transcript
from ors_gym.env import ORSEnv
from ors_gym.env._task_order import Task
from ors_gym.errors import InvalidRequestError
from ors_gym.formats._actions import InvalidAction, parse_action
from ors_gym.formats._blocks import render_text
from ors_gym.formats._json import decode_json
from ors_gym.formats._schemas import bundle_schema, describe_schema, resolve_schema
from ors_gym.spaces import ToolCallSpace
from ors_gym.spaces._tool_call import ToolCallText
from ors_gym.types import Block, JSONObject, ToolSpec

FieldKind: TypeAlias = Literal[
    "choice", "boolean", "integer", "number", "string", "json"
]

_KINDS: Final = ("boolean", "integer", "number", "string")
_EXACT: Final = 2**53
"""The largest integer that a browser represents exactly."""


class Game:
    """An `ORSEnv`, in wrappers or not, and the episode that is played in it.

    Wrappers whose actions are not tool calls, such as `DiscreteTools`, are left aside.

    Attributes:
        transcript: The episode so far.
        ended: Whether it is over, or was not begun.
    """

    def __init__(self, env: gymnasium.Env[Any, Any]) -> None:
        inner = env.unwrapped
        if not isinstance(inner, ORSEnv):
            raise InvalidRequestError(
                f"{env} is not an env of an ORS server; make one with "
                'gym.make("ors/maze") or ors_gym.ORSEnv(...)'
            )
        while isinstance(env, gymnasium.Wrapper) and not _takes_calls(env):
            env = env.env
        self._env = env
        self.inner = inner
        self.transcript = Transcript()
        self.ended = True

    @property
    def tools(self) -> list[ToolSpec]:
        """The tools of the current session."""
        return self.inner.tools

    def reset(self, task_index: int | None = None, split: str | None = None) -> Entry:
        """Begin an episode, by default of the next task; return the prompt."""
        chosen = {"task_index": task_index, "split": split}
        options = {name: value for name, value in chosen.items() if value is not None}
        self.ended = True
        _, info = self._env.reset(options=options)
        self.ended = False
        task = Task(info["split"], info["task_index"]).title
        blocks: list[Block] = info["blocks"]
        self.transcript.start(
            render_text(blocks), blocks=blocks, title=self.inner.environment, task=task
        )
        return self.transcript.entries[-1]

    def step(self, action: Any) -> Entry:
        """Take a step with a tool call or any text; an outage ends the episode."""
        read = parse_action(action, tools=self.tools)
        try:
            _, reward, terminated, truncated, info = self._env.step(action)
        except BaseException:
            self.ended = True
            raise
        self.ended = terminated or truncated
        blocks: list[Block] = info["blocks"]
        unread = isinstance(read, InvalidAction)
        entry = Entry.of_step(
            info["tool"],
            {} if isinstance(read, InvalidAction) else read["input"],
            render_text(blocks) if blocks else info["error"],
            float(reward),
            error_kind=info["error_kind"],
            finished=terminated,
            truncated=truncated,
            blocks=blocks,
            said=action if unread and isinstance(action, str) else "",
        )
        self.transcript.add(entry)
        return entry


def _takes_calls(env: gymnasium.Env[Any, Any]) -> bool:
    return isinstance(env.action_space, ToolCallSpace | ToolCallText)


def list_fields(tool: ToolSpec) -> list[Field] | None:
    """Return a field for each argument; None if the whole input is written as JSON.

    The latter is so where the schema is not that of an object of known properties.

    Example:
        >>> schema = {"properties": {"n": {"type": "integer"}}, "required": ["n"]}
        >>> tool = {"name": "guess", "description": "", "input_schema": schema}
        >>> [(field.name, field.kind, field.required) for field in list_fields(tool)]
        [('n', 'integer', True)]
    """
    root = bundle_schema(tool["input_schema"])
    if root is None:
        return []
    schema = resolve_schema(root, root, without_null=True)
    properties = schema.get("properties")
    if not isinstance(properties, Mapping):
        empty = schema in ({}, {"type": "object"}) or properties == {}
        return [] if empty else None
    if any(key in schema for key in ("anyOf", "oneOf", "allOf")):
        return None
    required = schema.get("required")
    needed = required if isinstance(required, list) else []
    return [
        _read_field(str(name), part, root, required=name in needed)
        for name, part in properties.items()
    ]


@dataclasses.dataclass(frozen=True)
class Field:
    """One argument of a tool.

    Args:
        name: Its name.
        schema: Its schema, with references to the tool's definitions followed.
        words: The schema in a few words.
        required: Whether it has to be given.
        kind: What it is edited as.
        choices: The values to choose from, for a ``choice``.
        bounds: The least and the greatest whole number, where both are known.
    """

    name: str
    schema: JSONObject
    words: str
    required: bool
    kind: FieldKind
    choices: tuple[Any, ...] = ()
    bounds: tuple[int, int] | None = None

    @property
    def default(self) -> Any:
        """Its default, or None."""
        return self.schema.get("default")

    def read(self, text: str) -> Any:
        """Return the value that was written; a `ValueError` says what is expected.

        Example:
            >>> Field("n", {}, "", True, "integer").read("12")
            12
            >>> Field("n", {}, "", True, "integer").read("twelve")
            Traceback (most recent call last):
            ValueError: n: 'twelve' is not an integer
        """
        if self.kind == "string":
            return text
        expected = "an integer" if self.kind == "integer" else f"a {self.kind}"
        try:
            value = decode_json(text)
        except ValueError as error:
            if self.kind == "json":
                expected = f"JSON ({error})"
            raise self._mismatch(text, expected) from None
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if self.kind == "integer" and not (number and value % 1 == 0):
            raise self._mismatch(text, expected)
        if self.kind == "number" and not number:
            raise self._mismatch(text, expected)
        return value

    def _mismatch(self, text: str, expected: str) -> ValueError:
        return ValueError(f"{self.name}: {text!r:.80} is not {expected}")


def _read_field(name: str, part: Any, root: Any, *, required: bool) -> Field:
    schema = resolve_schema(part, root, without_null=True)
    words = describe_schema(part, root)
    choices = schema.get("enum")
    if "const" in schema:
        choices = [schema["const"]]
    if isinstance(choices, list) and choices:
        return Field(name, schema, words, required, "choice", tuple(choices))
    kind = schema.get("type")
    if kind not in _KINDS:
        return Field(name, schema, words, required, "json")
    bounds = _read_bounds(schema) if kind == "integer" else None
    return Field(name, schema, words, required, kind, bounds=bounds)


def _read_bounds(schema: Mapping[str, Any]) -> tuple[int, int] | None:
    if any(
        key in schema for key in ("multipleOf", "exclusiveMinimum", "exclusiveMaximum")
    ):
        return None
    low, high = schema.get("minimum"), schema.get("maximum")
    if type(low) is int and type(high) is int and -_EXACT <= low <= high <= _EXACT:
        return low, high
    return None
