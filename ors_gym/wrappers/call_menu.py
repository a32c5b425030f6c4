"""A fixed, numbered list of tool calls, and which of them a session takes."""

from __future__ import annotations

import collections
import json
import operator
from collections.abc import Iterable, Sequence
from copy import deepcopy
from typing import Any, Final

import gymnasium
import numpy as np
from numpy.typing import NDArray

from ors_gym.actions import InvalidAction, parse_action
from ors_gym.errors import InvalidRequestError, SchemaError
from ors_gym.spaces import ToolCallSpace, ToolCallText
from ors_gym.types import ToolCall, ToolSpec

__all__ = ["CallMenu", "calls_within"]

_REMEMBERED: Final = 16
"""Sets of tools whose masks are kept: most environments have one or a few."""


class CallMenu:
    """Numbers a set of calls once and for all.

    Args:
        action_space: That of the env: tool calls, or tool calls as text.
        calls: The calls, in any form that an env takes; every call of the tools if
            None.

    Raises:
        InvalidRequestError: If the env's actions are no tool calls, or one of the calls
            cannot be read as one.
        SchemaError: If there are too many calls to list them, or none.

    Example:
        >>> look = {"name": "look", "description": "", "input_schema": None}
        >>> menu = CallMenu(ToolCallSpace([look]))
        >>> mask = menu.mask([look])
        >>> menu.choose(0, mask)
        {'tool': 'look', 'input': {}}
        >>> menu.choose(1, mask).message
        'Invalid action: there is no action 1. Choose one of 0..0.'
        >>> menu.mask([])
        array([0], dtype=int8)
    """

    def __init__(
        self,
        action_space: gymnasium.Space[Any],
        calls: Iterable[object] | None = None,
    ) -> None:
        space = calls_within(action_space)
        self._in_text = space is not action_space
        self._given = calls is not None
        self.calls = _list_calls(space) if calls is None else _read_calls(calls)
        self._known: collections.deque[tuple[ToolCallSpace, NDArray[np.int8]]]
        self._known = collections.deque(maxlen=_REMEMBERED)
        self._latest: tuple[Sequence[ToolSpec] | None, NDArray[np.int8]]
        self._latest = None, np.empty(0, np.int8)

    def __len__(self) -> int:
        return len(self.calls)

    def mask(self, tools: Sequence[ToolSpec]) -> NDArray[np.int8]:
        """Tell which of the calls a session takes.

        Args:
            tools: The session's tools.

        Returns:
            1 for each call of one of these tools whose input the tool's schema allows,
            else 0; an array of the caller's own.
        """
        if self._latest[0] is not tools:
            self._latest = tools, self._find_mask(ToolCallSpace(tools))
        return self._latest[1].copy()

    def _find_mask(self, space: ToolCallSpace) -> NDArray[np.int8]:
        for known, mask in self._known:
            if known == space:
                return mask
        mask = np.array([_takes(space, call) for call in self.calls], np.int8)
        self._known.append((space, mask))
        if not self._given:
            self._warn_of_tools_without_call(space)
        return mask

    def choose(self, action: object, mask: NDArray[np.int8]) -> Any:
        """Return the env's action for a number.

        Args:
            action: The number of a call.
            mask: Which calls the session takes.

        Returns:
            The call, or its JSON for an env whose actions are text; an invalid action
            if there is no such number or the mask forbids it.
        """
        try:
            number = operator.index(action)  # type: ignore[arg-type]  # it tells
        except TypeError:
            return _invalid(f"{action!r:.50} is no whole number", len(self))
        if not 0 <= number < len(self):
            return _invalid(f"there is no action {number}", len(self))
        call = self.calls[number]
        if not mask[number]:
            return _invalid(
                f"action {number} ({call['tool']}) is no call of this session's tools",
                len(self),
                "the action mask allows",
            )
        return json.dumps(call, ensure_ascii=False) if self._in_text else call

    def _warn_of_tools_without_call(self, space: ToolCallSpace) -> None:
        listed = {call["tool"] for call in self.calls}
        missing = sorted({tool["name"] for tool in space.tools} - listed)
        if missing:
            gymnasium.logger.warn(
                "%s",
                f"the session has tools that were not there when the actions were "
                f"numbered, and that no action calls: {', '.join(missing)}. Pass "
                f"calls=[...] with calls of every tool that a session may have",
            )


def calls_within(action_space: gymnasium.Space[Any]) -> ToolCallSpace:
    """Return the tool calls of an env's action space.

    Args:
        action_space: Tool calls, or tool calls as text.

    Raises:
        InvalidRequestError: If it is neither.
    """
    if isinstance(action_space, ToolCallText):
        return action_space.calls
    if isinstance(action_space, ToolCallSpace):
        return action_space
    raise InvalidRequestError(
        f"the env's actions are no tool calls: its action space is {action_space}. "
        f"Wrap the env that gym.make returns, before wrappers that change its actions"
    )


def _list_calls(space: ToolCallSpace) -> tuple[ToolCall, ...]:
    try:
        calls = space.enumerate()
    except SchemaError as error:
        raise SchemaError(
            f"the tool calls cannot be numbered: {error}. Pass calls=[...] with those "
            f"to choose from"
        ) from None
    if not calls:
        raise SchemaError(
            "the environment lists no tools to number; pass calls=[...] with calls of "
            "the tools that its sessions have"
        )
    return tuple(calls)


def _read_calls(calls: Iterable[object]) -> tuple[ToolCall, ...]:
    read: list[ToolCall] = []
    for index, given in enumerate(calls):
        call = parse_action(given)
        if isinstance(call, InvalidAction):
            raise InvalidRequestError(f"calls[{index}] is no tool call: {call.message}")
        read.append(deepcopy(call))
    if not read:
        raise InvalidRequestError("calls=[] leaves no action to choose")
    return tuple(read)


def _takes(space: ToolCallSpace, call: ToolCall) -> bool:
    try:
        return space.contains(call)
    except SchemaError:
        # A schema that cannot be used says nothing: the server decides.
        return True


def _invalid(reason: str, count: int, allowed: str = "") -> InvalidAction:
    choice = f"one of 0..{count - 1}" + (f" that {allowed}" if allowed else "")
    return InvalidAction(f"Invalid action: {reason}. Choose {choice}.")
