"""What a policy's answer means: a turn with actions, or that it gives up."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, Final, Literal, TypeAlias

from ors_gym.actions import InvalidAction, parse_actions
from ors_gym.actions.call_shapes import is_call, name_type, unwrap
from ors_gym.actions.json_values import to_plain_json
from ors_gym.errors import InvalidRequestError
from ors_gym.rollout.turn import Turn
from ors_gym.types import JSONObject, ToolCall, ToolSpec

__all__ = ["OnPlainText", "PlannedAction", "TurnReader"]

OnPlainText: TypeAlias = Literal["nudge", "stop", "submit"]
"""What text without a tool call leads to."""

_LONGEST_REPR: Final = 2000


@dataclasses.dataclass(frozen=True, slots=True)
class PlannedAction:
    """One action of a turn.

    Args:
        id: The id of the call, unique within the turn.
        step: What the env is stepped with.
        kept: The same as the episode keeps it.
        is_plain_text: Whether it is text that goes to no tool.
    """

    id: str
    step: Any
    kept: Any
    is_plain_text: bool = False


class TurnReader:
    """Reads the answers of one episode's policy.

    Args:
        tools: The session's tools.
        terminal_tool: The tool that takes plain text, if the server declares one.
        plain_text: What text without a tool call leads to.
        raw: Whether actions are the env's own (indexes, arrays, ...) and are passed
            on as they are, since a wrapper turns them into calls.
    """

    def __init__(
        self,
        tools: Sequence[ToolSpec],
        terminal_tool: JSONObject | None = None,
        plain_text: OnPlainText = "nudge",
        *,
        raw: bool = False,
    ) -> None:
        self._tools = tools
        self._terminal_tool = terminal_tool
        self._submit = plain_text == "submit"
        self._raw = raw

    def read(self, answer: Any, number: int) -> tuple[Turn, list[PlannedAction]] | None:
        """Read what a policy returned.

        Args:
            answer: An action, a list of actions, a `Turn`, or None.
            number: Which turn this is, for the ids of calls that have none.

        Returns:
            The turn as the episode keeps it and its actions in order; None if the
            policy gives up.

        Raises:
            InvalidRequestError: If the turn's message or extra is not JSON, or it is
                of a type that no model's answer has, such as a number or a function.
        """
        given = answer if isinstance(answer, Turn) else Turn(answer)
        actions, message = given.actions, given.message
        if actions is None:
            actions = message
        if actions is None:
            return None
        if self._raw:
            listed = actions if isinstance(actions, list) else [actions]
            planned = [PlannedAction("", one, _kept(one)) for one in listed]
        else:
            _check_type(actions)
            planned = list(self._read_items(actions))
            if message is None and _is_message(actions):
                message = actions
            elif actions is not message:
                planned = _named_by(message, planned)
        planned = _with_unique_ids(planned, number)
        turn = Turn(
            [action.kept for action in planned],
            _plain(message, "message"),
            _plain(given.extra, "extra"),
            [action.id for action in planned],
        )
        return turn, planned

    def _read_items(self, actions: Any) -> list[PlannedAction]:
        """Read a whole message, or each of a list of actions by itself."""
        if not isinstance(actions, list) or any(map(_is_part, actions)):
            return self._read_message(actions)
        if not actions:
            return [PlannedAction("", "", "", is_plain_text=True)]
        return [action for item in actions for action in self._read_message(item)]

    def _read_message(self, message: Any) -> list[PlannedAction]:
        calls = parse_actions(
            message,
            tools=self._tools,
            plain_text="submit" if self._submit else "invalid",
            terminal_tool=self._terminal_tool,
        )
        if not calls:
            text = _text_of(message)
            return [PlannedAction("", text, text, is_plain_text=True)]
        return [PlannedAction(c.id, c.action, _kept(c.action)) for c in calls]


def _check_type(actions: Any) -> None:
    """Refuse what only a mistake in the policy's code can return.

    A model's mistakes are part of its episode; this one would be made for ever.
    """
    actions = unwrap(actions)
    if isinstance(actions, str | Mapping | list | tuple | InvalidAction):
        return
    called = ""
    if callable(actions):
        called = " (was it called? pass random_policy(), not random_policy)"
    raise InvalidRequestError(
        f"the policy returned {name_type(actions)}, not an action{called}. Return "
        '{"tool": ..., "input": {...}}, text, a Turn, a list of these, or None to '
        "give up"
    )


def _is_part(item: Any) -> bool:
    """Say whether a list's item shows that the list is a message's content."""
    item = unwrap(item)
    return isinstance(item, Mapping) and "type" in item and not is_call(item)


def _is_message(actions: Any) -> bool:
    """Say whether a policy returned more than bare calls, which is worth keeping."""
    if isinstance(actions, list):
        return any(map(_is_part, actions))
    actions = unwrap(actions)
    if isinstance(actions, Mapping):
        return not is_call(actions)
    return isinstance(actions, str)


def _text_of(message: Any) -> str:
    """Return the text of a message that holds no call."""
    message = unwrap(message)
    if isinstance(message, Mapping):
        message = message.get("content")
    if isinstance(message, list):
        parts = [part.get("text") for part in message if isinstance(part, Mapping)]
        message = "\n\n".join(part for part in parts if isinstance(part, str))
    return message if isinstance(message, str) else ""


def _kept(action: ToolCall | InvalidAction | Any) -> Any:
    """Return an action as plain JSON."""
    if isinstance(action, InvalidAction):
        return {"invalid": action.message}
    try:
        return to_plain_json(action)
    except ValueError:
        return repr(action)[:_LONGEST_REPR]


def _plain(value: Any, name: str) -> Any:
    try:
        return to_plain_json(value, root=name)
    except ValueError as error:
        raise InvalidRequestError(
            f"a Turn's {name} is kept as JSON, but {error}"
        ) from None


def _named_by(message: Any, planned: list[PlannedAction]) -> list[PlannedAction]:
    """Take the ids of a message whose calls the policy has read itself."""
    if not isinstance(message, Mapping):
        return planned
    ids = [call.id for call in parse_actions(message)]
    if len(ids) != len(planned):
        return planned
    return [
        dataclasses.replace(action, id=action.id or name)
        for action, name in zip(planned, ids, strict=True)
    ]


def _with_unique_ids(
    planned: Sequence[PlannedAction], number: int
) -> list[PlannedAction]:
    """Give an id to each action that has none, or another one's."""
    seen: set[str] = set()
    named: list[PlannedAction] = []
    for place, action in enumerate(planned):
        name = action.id
        if not name or name in seen:
            name = f"call_{number}_{place}"
            while name in seen:
                name += "_"
            action = dataclasses.replace(action, id=name)  # noqa: PLW2901
        seen.add(name)
        named.append(action)
    return named
