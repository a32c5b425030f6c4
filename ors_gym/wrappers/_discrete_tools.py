"""Tool calls as numbers, and a mask of those that a session takes."""

from __future__ import annotations

import collections
import json
import operator
import sys
from collections.abc import Iterable, Sequence
from copy import deepcopy
from typing import Any, Final, SupportsFloat

import gymnasium
import numpy as np
from gymnasium.utils import RecordConstructorArgs
from numpy.typing import NDArray

from ors_gym._shown_text import warn
from ors_gym.errors import InvalidArgumentError, InvalidRequestError, SchemaError
from ors_gym.formats._actions import InvalidAction, name_type, parse_action
from ors_gym.spaces import ToolCallSpace, ToolCallText
from ors_gym.types import ToolCall, ToolSpec

_KEPT_MASKS: Final = 16
"""Sets of tools whose masks are kept; most environments have one or a few sets."""


class DiscreteTools(gymnasium.Wrapper[Any, Any, Any, Any], RecordConstructorArgs):
    """Numbers the tool calls of an env: its actions are ``Discrete(n)``.

    The calls are numbered once, when the env is wrapped. Wrap it before its first
    reset, while it lists the tools that all sessions have. Tools may differ from
    session to session: ``info["action_mask"]``, an int8 array at reset and at every
    step, has a 1 for each call that this session's tools take
    (``env.action_space.sample(info["action_mask"])`` draws one of them).

    A number that is masked or out of range is an invalid action: nothing is sent, the
    observation says what is wrong, ``info["error_kind"]`` is ``invalid_action``, and
    the reward is the env's ``invalid_action_reward``. An action that is no whole number
    raises `InvalidRequestError`.

    Args:
        env: An env whose actions are tool calls (``ToolCallSpace``, or
            ``action_mode="text"``).
        calls: The calls to number, in any form that the env takes, such as
            ``{"tool": "guess", "input": {"number": 3}}``. If None, every call that the
            tools' schemas allow, at most 1000.

    Raises:
        SchemaError: If ``calls`` is None and the tools take infinitely many different
            calls, more than 1000 or none.
        InvalidRequestError: If one of the calls cannot be read, or the env's actions
            are not tool calls.

    Example:
        >>> import gymnasium as gym
        >>> import ors_gym
        >>> env = DiscreteTools(gym.make("ors/guess"))
        >>> env.action_space
        Discrete(16)
        >>> env.calls[8]
        {'tool': 'guess', 'input': {'number': 9}}
        >>> observation, info = env.reset(seed=7)
        >>> info["action_mask"]
        array([1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1], dtype=int8)
        >>> env.step(8)[0]
        'It is higher than 9. It is in 10..16, and you have 9 guesses left.'
        >>> env.close()
    """

    def __init__(
        self, env: gymnasium.Env[Any, Any], calls: Sequence[object] | None = None
    ) -> None:
        RecordConstructorArgs.__init__(self, calls=calls)
        gymnasium.Wrapper.__init__(self, env)
        self._menu = CallMenu(env.action_space, calls)
        self.action_space = gymnasium.spaces.Discrete(len(self._menu))

    @property
    def calls(self) -> tuple[ToolCall, ...]:
        """The calls by number."""
        return self._menu.calls

    @property
    def action_mask(self) -> NDArray[np.int8]:
        """Which calls the current session takes, as in ``info["action_mask"]``."""
        return self._menu.mask(calls_within(self.env.action_space).tools)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        """Start an episode, as the env does, with ``action_mask`` in the info."""
        observation, info = self.env.reset(seed=seed, options=options)
        info["action_mask"] = self.action_mask
        return observation, info

    def step(
        self, action: Any
    ) -> tuple[Any, SupportsFloat, bool, bool, dict[str, Any]]:
        """Make the call of a number; the info holds ``action_mask``."""
        chosen = self._menu.choose(action, self.action_mask)
        observation, reward, terminated, truncated, info = self.env.step(chosen)
        info["action_mask"] = self.action_mask
        return observation, reward, terminated, truncated, info


class CallMenu:
    """Numbers calls once and for all: the given ones, or every call of the tools.

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
        self, action_space: gymnasium.Space[Any], calls: Iterable[object] | None = None
    ) -> None:
        space = calls_within(action_space)
        self._in_text = space is not action_space
        self._given = calls is not None
        self.calls = _list_calls(space) if calls is None else _read_calls(calls)
        self._known: collections.deque[tuple[ToolCallSpace, NDArray[np.int8]]]
        self._known = collections.deque(maxlen=_KEPT_MASKS)
        self._latest: tuple[Sequence[ToolSpec] | None, NDArray[np.int8]]
        self._latest = None, np.empty(0, np.int8)

    def __len__(self) -> int:
        return len(self.calls)

    def mask(self, tools: Sequence[ToolSpec]) -> NDArray[np.int8]:
        """Return 1 for each call that a session's tools and schemas allow, else 0."""
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
        """Return the env's action for a number: a call, its JSON, or an invalid one.

        The JSON is for an env whose actions are text.
        """
        try:
            number = operator.index(action)  # type: ignore[arg-type]  # raises TypeError
        except TypeError:
            # Only a mistake in code gives this, and it would repeat for ever.
            raise InvalidArgumentError(
                f"the action is {name_type(action)}, {action!r:.50}; DiscreteTools "
                f"takes a whole number, 0..{len(self) - 1}"
            ) from None
        if not 0 <= number < len(self):
            # Python writes no number of thousands of digits out.
            named = number if -sys.maxsize <= number <= sys.maxsize else "of that size"
            return _invalid(f"there is no action {named}", len(self))
        call = self.calls[number]
        if not mask[number]:
            return _invalid(
                f"action {number} ({call['tool']}) calls no tool of this session",
                len(self),
                "the action mask allows",
            )
        return json.dumps(call, ensure_ascii=False) if self._in_text else call

    def _warn_of_tools_without_call(self, space: ToolCallSpace) -> None:
        listed = {call["tool"] for call in self.calls}
        missing = sorted({tool["name"] for tool in space.tools} - listed)
        if missing:
            warn(
                f"the session has tools that were not there when the actions were "
                f"numbered, and that no action calls: {', '.join(missing)}. Pass "
                f"calls=[...] with calls of every tool that a session may have",
            )


def calls_within(action_space: gymnasium.Space[Any]) -> ToolCallSpace:
    """Return the tool calls of an action space, also of one of calls as text."""
    if isinstance(action_space, ToolCallText):
        return action_space.calls
    if isinstance(action_space, ToolCallSpace):
        return action_space
    raise InvalidRequestError(
        f"the env's actions are not tool calls: its action space is {action_space}. "
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
            raise InvalidRequestError(
                f"calls[{index}] is not a tool call: {call.message}"
            )
        read.append(deepcopy(call))
    if not read:
        raise InvalidRequestError("calls=[] leaves no action to choose")
    return tuple(read)


def _takes(space: ToolCallSpace, call: ToolCall) -> bool:
    try:
        return space.contains(call)
    except SchemaError:
        # The client cannot use this schema. The server decides about the call.
        return True


def _invalid(reason: str, count: int, allowed: str = "") -> InvalidAction:
    choice = f"one of 0..{count - 1}" + (f" that {allowed}" if allowed else "")
    return InvalidAction(f"Invalid action: {reason}. Choose {choice}.")
