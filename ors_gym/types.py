"""The values of the protocol as plain JSON, described for type checkers.

Nothing is wrapped: callers get what the server sent, checked where docs/wire.md
(section "Reading") asks for it. So ``result["reward"]`` and ``tools[0]["name"]`` work
as in the published sample client.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, NotRequired, TypeAlias, TypedDict

__all__ = [
    "Block",
    "JSONObject",
    "JSONValue",
    "RolloutFilters",
    "Secrets",
    "Split",
    "TaskSpec",
    "TerminalToolAs",
    "ToolCall",
    "ToolList",
    "ToolOutput",
    "ToolSpec",
]

JSONValue: TypeAlias = (
    str | int | float | bool | Sequence[Any] | Mapping[str, Any] | None
)
"""Whatever JSON can say."""

JSONObject: TypeAlias = dict[str, Any]
"""A JSON object, as Python reads it."""

TaskSpec: TypeAlias = JSONObject
"""A task as the server describes it. It usually holds the answer."""

Block: TypeAlias = JSONObject
"""One block of a prompt or a result, checked when it was read.

``{"type": "text", "text": ...}`` or ``{"type": "image", "data": base64, "mimeType":
...}``. Both may have a ``detail``. Blocks of another type are kept unchanged.
"""


Secrets: TypeAlias = Mapping[str, str | tuple[str, Sequence[str]]]
"""Values for an environment, by name.

A value is text, or a pair of the text and the domains that it may be sent to, which a
gateway enforces: ``{"OPENAI_API_KEY": "sk-...", "MINE": ("t-...", ["mine.org"])}``.
"""

TerminalToolAs: TypeAlias = Literal["both", "tool", "text"]
"""How a model reaches a terminal tool: by a call, by plain text, or by both."""


class ToolSpec(TypedDict):
    """A tool as the server lists it; no schema means no arguments.

    ``terminal`` is there only for the tool that ends the episode, where the server
    declares one. It takes a message of a model that holds no call, unless the value is
    ``tool``; with ``text`` it is left out of the specs for models.

    Example:
        >>> look: ToolSpec = {"name": "look", "description": "", "input_schema": None}
        >>> look["name"]
        'look'
    """

    name: str
    description: str
    input_schema: JSONObject | None
    terminal: NotRequired[TerminalToolAs]


class ToolList(list[ToolSpec]):
    """A list of tools, which a notebook shows as a card.

    Example:
        >>> look = {"name": "look", "description": "", "input_schema": None}
        >>> [tool["name"] for tool in ToolList([look])]
        ['look']
    """


class RolloutFilters(TypedDict, total=False):
    """Which rollouts of the platform ``get_task_difficulty`` is about.

    Example:
        >>> filters: RolloutFilters = {"split": "train", "training_stage": "rl"}
    """

    split: str | None
    model_name: str | None
    min_model_params: int | None
    """The fewest parameters that the model may have."""
    max_model_params: int | None
    training_stage: str | None
    """``pretrained``, ``sft`` or ``rl``."""


class ToolOutput(TypedDict):
    """The result of a tool call; ``reward`` is a finite number or None.

    Example:
        >>> output: ToolOutput = {
        ...     "blocks": [{"type": "text", "text": "Right."}],
        ...     "metadata": None,
        ...     "reward": 1.0,
        ...     "finished": True,
        ... }
    """

    blocks: list[Block]
    metadata: JSONObject | None
    reward: float | None
    finished: bool


class ToolCall(TypedDict):
    """The canonical action: the name of a tool, and its input.

    Example:
        >>> call: ToolCall = {"tool": "guess", "input": {"number": 8}}
    """

    tool: str
    input: JSONObject


class Split(TypedDict):
    """A named set of tasks; ``type`` is train, validation or test.

    Example:
        >>> split: Split = {"name": "train", "type": "train"}
    """

    name: str
    type: str
