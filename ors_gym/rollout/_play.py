"""What a policy's answer means: a turn with actions, or that it gives up."""

from __future__ import annotations

import dataclasses
import itertools
import math
import time
from collections.abc import Generator, Mapping, Sequence
from typing import Any, Final, Literal, TypeAlias

from ors_gym import errors
from ors_gym.env._rules import StepResult
from ors_gym.errors import InvalidRequestError, ORSError
from ors_gym.formats._actions import (
    InvalidAction,
    is_call,
    name_type,
    parse_actions,
    unwrap,
)
from ors_gym.formats._json import to_plain_json
from ors_gym.rollout._episode import (
    Episode,
    RewardReduction,
    RunningReward,
    Step,
    StopReason,
    Turn,
    check_reward_rule,
    reduce_rewards,
    was_readable,
)
from ors_gym.types import JSONObject, ToolCall, ToolSpec

__all__ = [
    "ASK",
    "OUTAGES",
    "Act",
    "Ask",
    "OnPlainText",
    "PlannedAction",
    "Play",
    "Rules",
    "TurnReader",
    "play",
]

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


OUTAGES: Final = frozenset(
    error.kind for name in errors.__all__ if (error := getattr(errors, name)).outage
)
"""The kinds of errors after which an episode has no outcome."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Rules:
    """When an episode ends, and what it is worth.

    Args:
        max_turns: Turns after which it ends.
        deadline: Seconds after which it ends, set-up included.
        on_plain_text: What text without a tool call leads to: ``nudge``, an invalid
            action whose reply says how to call a tool, and after three of these in a
            row the end; ``stop``, the end; ``submit``, an answer to the one tool with
            one required string, and a nudge where there is none. Where the server
            declares a terminal tool, that takes plain text in any case. Whatever it
            is, ten turns in a row without a call that can be read are the last that
            are answered.
        reward_reduction: How the rewards of the steps become one.
        nonterminal_reward: Added where the server did not finish the episode.

    Raises:
        InvalidRequestError: If one of them cannot be right.
    """

    max_turns: int | None = None
    deadline: float | None = None
    on_plain_text: OnPlainText = "nudge"
    reward_reduction: RewardReduction = "sum"
    nonterminal_reward: float = 0.0

    def __post_init__(self) -> None:
        check_reward_rule(self.reward_reduction, self.nonterminal_reward)
        if self.max_turns is not None and self.max_turns < 1:
            raise InvalidRequestError("max_turns must be at least 1")
        if self.deadline is not None and not self.deadline > 0:
            raise InvalidRequestError("deadline must be more than 0 seconds")
        if self.on_plain_text not in ("nudge", "stop", "submit"):
            raise InvalidRequestError(
                f"on_plain_text is {self.on_plain_text!r}; it must be 'nudge', 'stop' "
                "or 'submit'"
            )

    def conclude(self, episode: Episode, reason: StopReason) -> None:
        """End an episode that has an outcome.

        Args:
            episode: The episode.
            reason: Why it ended.
        """
        episode.stop_reason = reason
        episode.total_reward = reduce_rewards(
            episode.rewards,
            self.reward_reduction,
            finished=reason == "finished",
            nonterminal_reward=self.nonterminal_reward,
        )


_MOST_NUDGES: Final = 3
"""Turns of plain text that are answered, before the policy is taken to be done."""
_MOST_UNREADABLE: Final = 10
"""Turns without a readable call that are, before it is taken to be lost."""


class Ask:
    """Ask the policy."""


@dataclasses.dataclass(frozen=True, slots=True)
class Act:
    """Step the env.

    Args:
        action: With what.
    """

    action: Any


ASK: Final = Ask()
Play: TypeAlias = Generator[Ask | Act, Any, None]


def play(
    episode: Episode, rules: Rules, reader: TurnReader, started: float = 0.0
) -> Play:
    """Play an episode that is set up.

    Args:
        episode: The episode; filled in.
        rules: When it ends.
        reader: Reads the policy's answers.
        started: When it began, as `time.monotonic` counts.

    Yields:
        `ASK`, answered by what the policy returned, and `Act`, answered by the env's
        5-tuple, or by throwing what it raised.

    Raises:
        ORSError: If the env raised what is no outage.
    """
    until = math.inf if rules.deadline is None else started + rules.deadline
    running = RunningReward(rules.reward_reduction)
    while not episode.stop_reason:
        if rules.max_turns is not None and len(episode.turns) >= rules.max_turns:
            rules.conclude(episode, "max_turns")
        elif time.monotonic() >= until:
            rules.conclude(episode, "deadline")
        else:
            yield from _play_turn(episode, rules, reader, until, running)


def _play_turn(
    episode: Episode,
    rules: Rules,
    reader: TurnReader,
    until: float,
    running: RunningReward,
) -> Play:
    asked = time.monotonic()
    answer = yield ASK
    seconds = time.monotonic() - asked
    read = reader.read(answer, len(episode.turns))
    if read is None:
        rules.conclude(episode, "policy_stopped")
        return
    turn, actions = read
    turn.seconds = seconds
    episode.turns.append(turn)
    if _is_lost(episode):
        rules.conclude(episode, "policy_stopped")
        return
    ends = rules.on_plain_text == "stop" or _is_stuck(episode)
    for action in actions:
        if time.monotonic() >= until:
            rules.conclude(episode, "deadline")
        elif action.is_plain_text and ends:
            rules.conclude(episode, "policy_stopped")
        else:
            yield from _play_action(episode, rules, action, running)
        if episode.stop_reason:
            return


def _is_stuck(episode: Episode) -> bool:
    """Say whether the turns before this one were nothing but plain text."""
    before = episode.turns[-1 - _MOST_NUDGES : -1]
    texts = [all(isinstance(action, str) for action in turn.actions) for turn in before]
    return len(texts) == _MOST_NUDGES and all(texts)


def _is_lost(episode: Episode) -> bool:
    """Say whether this turn, like those before it, holds nothing for the server."""
    recent = episode.turns[-1 - _MOST_UNREADABLE :]
    return len(recent) > _MOST_UNREADABLE and not any(
        map(_reaches_server, itertools.chain(*(turn.actions for turn in recent)))
    )


def _reaches_server(kept: Any) -> bool:
    is_invalid = isinstance(kept, Mapping) and kept.keys() == {"invalid"}
    return not isinstance(kept, str) and not is_invalid


def _play_action(
    episode: Episode, rules: Rules, action: PlannedAction, running: RunningReward
) -> Play:
    began = time.monotonic()
    try:
        result: StepResult = yield Act(action.step)
    except ORSError as error:
        step = _failed_step(episode, action, error, time.monotonic() - began)
        episode.steps.append(step)
        episode.fail(error, error.kind)
        if not error.outage:
            raise
        return
    step = _step_of(episode, action, result, time.monotonic() - began)
    episode.steps.append(step)
    episode.observation = result[0]
    if step.finished:
        rules.conclude(episode, "finished")
    elif step.truncated and step.error_kind in OUTAGES:
        episode.end_without_outcome(step.error, step.error_kind)
    elif step.truncated and step.error_kind == "tool_failed":
        # on_tool_error="truncate": the tool's failure is an outcome, no outage.
        rules.conclude(episode, "error")
        episode.error, episode.error_kind = step.error, step.error_kind
    elif step.truncated:
        rules.conclude(episode, "max_steps")
    elif step.is_paid:
        # A running figure, for policies that look at it.
        episode.total_reward = running.add(step.reward)


def _step_of(
    episode: Episode, action: PlannedAction, result: StepResult, seconds: float
) -> Step:
    observation, reward, terminated, truncated, info = result
    metadata: Mapping[str, Any] = info.get("metadata") or {}
    called = action.kept if was_readable(action.kept) else {}
    error, kind = info.get("error", ""), info.get("error_kind", "")
    if isinstance(action.step, InvalidAction) and kind == "invalid_action":
        # The whole turn was read here already, and why is known best.
        error = action.step.message
    blocks = info.get("blocks")
    if blocks is None:
        text = observation if isinstance(observation, str) else repr(observation)
        blocks = [{"type": "text", "text": text}]
    return Step(
        turn=len(episode.turns) - 1,
        call_id=action.id,
        tool=info.get("tool", called.get("tool", "")),
        input=called.get("input", {}),
        blocks=list(blocks),
        reward=float(reward),
        reward_is_null=bool(info.get("reward_is_null", False)),
        finished=bool(terminated),
        truncated=bool(truncated),
        error=error,
        error_kind=kind,
        metadata=dict(metadata) or None,
        seconds=seconds,
    )


def _failed_step(
    episode: Episode, action: PlannedAction, error: ORSError, seconds: float
) -> Step:
    called = action.kept if was_readable(action.kept) else {}
    return Step(
        turn=len(episode.turns) - 1,
        call_id=action.id,
        tool=called.get("tool", ""),
        input=called.get("input", {}),
        blocks=[],
        reward=0.0,
        truncated=True,
        error=str(error),
        error_kind=error.kind,
        seconds=seconds,
    )
