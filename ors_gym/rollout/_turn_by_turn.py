"""How an episode is played: turn by turn, by asking the policy and stepping the env.

`play` decides everything and does no I/O: it yields what is to be done next, so that
blocking and async callers follow the same rules.
"""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from typing import Any, Final, NamedTuple, TypeAlias

from ors_gym.env._step_rules import StepResult
from ors_gym.errors import InvalidRequestError, ORSError
from ors_gym.formats._actions import (
    InvalidAction,
    check_is_action,
    is_call,
    is_canonical,
    parse_actions,
    unwrap,
)
from ors_gym.formats._json import to_plain_json
from ors_gym.rollout._episode import (
    Episode,
    Step,
    Stop,
    Turn,
    is_recorded_call,
    message_text,
    reaches_server,
)
from ors_gym.rollout._episode_rules import OUTAGES, OnPlainText, Rules, RunningReward
from ors_gym.rollout._tokens import TurnTokens
from ors_gym.types import ToolSpec

_MOST_NUDGES: Final = 3
"""After this many answered turns of plain text in a row, a further one ends it."""
_MOST_UNREADABLE: Final = 10
"""After this many turns in a row without a readable call, a further one ends it."""
_LONGEST_REPR: Final = 2000


class AskPolicy:
    """A request to ask the policy; the answer is what the policy returned."""


class PlannedAction(NamedTuple):
    """One action of a turn, and the request to step the env with it.

    The answer is the env's 5-tuple, or the error that it raised.
    """

    id: str  # unique within the turn
    action: Any  # as the env is stepped with it
    recorded: Any
    is_plain_text: bool = False  # it goes to no tool


_ASK_POLICY: Final = AskPolicy()
Game: TypeAlias = Generator[AskPolicy | PlannedAction, Any, None]

observe: Callable[[Game, Episode], Game] | None = None
"""Wraps each game while a trace is taken: `ors_gym.integrations.opentelemetry`."""


class Clock:
    """The time of an episode since it was begun, less what it was held up for."""

    def __init__(self) -> None:
        self._since = time.monotonic()

    @property
    def seconds(self) -> float:
        return time.monotonic() - self._since

    def hold_up(self, seconds: float) -> None:
        """Leave out past seconds, such as those of a pause."""
        self._since += seconds


def play(episode: Episode, rules: Rules, reader: TurnReader, clock: Clock) -> Game:
    """Play an episode that is set up.

    An outage that the env raises ends the episode; any other `ORSError` is raised.
    """
    game = _play(episode, rules, reader, clock)
    return game if observe is None else observe(game, episode)


def _play(episode: Episode, rules: Rules, reader: TurnReader, clock: Clock) -> Game:
    running = RunningReward(rules.reward_reduction)
    most = math.inf if rules.max_turns is None else rules.max_turns
    while not episode.stop_reason:
        if len(episode.turns) >= most:
            rules.conclude(episode, "max_turns")
        elif _is_late(rules, clock):
            rules.conclude(episode, "deadline")
        else:
            yield from _play_turn(episode, rules, reader, running, clock)


def resume(
    game: Game, answer: Any = None, *, error: ORSError | None = None
) -> AskPolicy | PlannedAction | None:
    """Let a game go on, and return what is to be done next; None once it is over."""
    try:
        return game.send(answer) if error is None else game.throw(error)
    except StopIteration:
        return None


def _is_late(rules: Rules, clock: Clock) -> bool:
    return rules.deadline is not None and clock.seconds >= rules.deadline


def _play_turn(
    episode: Episode,
    rules: Rules,
    reader: TurnReader,
    running: RunningReward,
    clock: Clock,
) -> Game:
    asked = clock.seconds
    answer = yield _ASK_POLICY
    seconds = clock.seconds - asked
    read = reader.read(answer, len(episode.turns))
    if isinstance(read, Stop):
        rules.conclude(episode, read.reason)
        return
    turn, actions = read
    turn.seconds = seconds
    episode.turns.append(turn)
    if _has_long_been_unreadable(episode):
        rules.conclude(episode, "policy_stopped")
        return
    for action in actions:
        if _is_late(rules, clock):
            rules.conclude(episode, "deadline")
        elif action.is_plain_text and _text_ends_it(episode, rules):
            rules.conclude(episode, "policy_stopped")
        else:
            yield from _play_action(episode, rules, action, running)
        if episode.stop_reason:
            return


def _text_ends_it(episode: Episode, rules: Rules) -> bool:
    """Say whether no further plain text is answered."""
    if rules.on_plain_text == "stop":
        return True
    # The turns before this one were nothing but plain text.
    before = episode.turns[-1 - _MOST_NUDGES : -1]
    texts = [all(isinstance(action, str) for action in turn.actions) for turn in before]
    return len(texts) == _MOST_NUDGES and all(texts)


def _has_long_been_unreadable(episode: Episode) -> bool:
    """Say whether neither this turn nor those before it hold anything to send."""
    turns = episode.turns
    if any(map(reaches_server, turns[-1].actions)):
        # Nearly always: those before it need not be looked at.
        return False
    recent = turns[-1 - _MOST_UNREADABLE :]
    actions = itertools.chain.from_iterable(turn.actions for turn in recent)
    return len(recent) > _MOST_UNREADABLE and not any(map(reaches_server, actions))


def _play_action(
    episode: Episode, rules: Rules, action: PlannedAction, running: RunningReward
) -> Game:
    began = time.monotonic()
    try:
        result: StepResult = yield action
    except ORSError as error:
        called = _called(action)
        episode.steps.append(
            Step(
                turn=len(episode.turns) - 1,
                call_id=action.id,
                tool=called.get("tool", ""),
                input=called.get("input", {}),
                blocks=[],
                reward=0.0,
                truncated=True,
                error=str(error),
                error_kind=error.kind,
                seconds=time.monotonic() - began,
            )
        )
        episode.fail(error, error.kind)
        if not error.outage:
            raise
        return
    step = _read_result(episode, rules, action, result, time.monotonic() - began)
    episode.steps.append(step)
    episode.observation = result[0]
    if step.finished:
        rules.conclude(episode, "finished")
    elif step.truncated and step.error_kind in OUTAGES:
        episode.end_without_outcome(step.error, step.error_kind)
    elif step.truncated and step.error_kind == "tool_failed":
        # on_tool_error="truncate": the tool's failure is an outcome, not an outage.
        rules.conclude(episode, "error")
        episode.error, episode.error_kind = step.error, step.error_kind
    elif step.truncated:
        rules.conclude(episode, "max_steps")
    elif step.is_paid:
        # A running figure, for policies that look at it.
        figure = running.add(step.reward)
        # It may have been stopped meanwhile: `LiveEpisode.stop`.
        stopped = bool(episode.stop_reason)
        episode.total_reward = rules.reward_of(episode) if stopped else figure


def _read_result(
    episode: Episode,
    rules: Rules,
    action: PlannedAction,
    result: StepResult,
    seconds: float,
) -> Step:
    observation, reward, terminated, truncated, info = result
    metadata = info.get("metadata") if rules.keep_metadata else None
    error, kind = info.get("error", ""), info.get("error_kind", "")
    if kind == "invalid_action" and isinstance(action.action, InvalidAction):
        # The reader saw the whole turn, the env only this action: its reason is better.
        error = action.action.message
    blocks = info.get("blocks")
    if blocks is None:
        text = observation if isinstance(observation, str) else repr(observation)
        blocks = [{"type": "text", "text": text}]
    called = _called(action)
    turn = len(episode.turns) - 1
    tool = info.get("tool", called.get("tool", ""))
    tool_input = called.get("input", {})
    reward_is_null = bool(info.get("reward_is_null", False))
    return Step(
        # By place, which takes half as long as by name.
        turn,
        action.id,
        tool,
        tool_input,
        list(blocks),
        float(reward),
        reward_is_null,
        bool(terminated),
        bool(truncated),
        error,
        kind,
        dict(metadata) if metadata else None,
        seconds,
    )


def _called(action: PlannedAction) -> Mapping[str, Any]:
    """Return the call that an action is recorded as; empty if it is none."""
    return action.recorded if is_recorded_call(action.recorded) else {}


_BARE: Final = Turn(None)
"""What stands for the turn of a policy that returned actions alone."""


class TurnReader:
    """Reads what one episode's policy returns.

    With ``raw``, actions are the env's own (indexes, arrays, ...) and are passed on as
    they are, since a wrapper turns them into calls.
    """

    def __init__(
        self,
        tools: Sequence[ToolSpec],
        plain_text: OnPlainText = "nudge",
        *,
        raw: bool = False,
    ) -> None:
        self._tools = tools
        self._submit = plain_text == "submit"
        self._raw = raw

    def read(self, answer: Any, number: int) -> tuple[Turn, list[PlannedAction]] | Stop:
        """Return the turn to record and its actions; or why the policy stops.

        The turn's ``number`` makes the ids of calls that have none. Raises
        `InvalidRequestError` for what only a mistake in the policy's code returns.
        """
        if isinstance(answer, Stop):
            return answer
        given = answer if isinstance(answer, Turn) else _BARE
        actions = answer if given is _BARE else given.actions
        message = given.message
        if actions is None:
            actions = message
        if actions is None:
            return Stop()
        if message is None and not self._raw and is_canonical(actions):
            # Most policies return this; `_plan` finds the same, and takes longer.
            only = PlannedAction(f"call_{number}_0", actions, actions)
            planned, turn = [only], Turn([actions], call_ids=[only.id])
        else:
            planned, message = self._plan(actions, message)
            planned = _with_unique_ids(planned, number)
            turn = Turn(
                [action.recorded for action in planned],
                call_ids=[action.id for action in planned],
            )
        if message is not None:
            turn.message = _to_json(message, "message")
        if given is not _BARE:
            turn.extra = _to_json(given.extra, "extra")
            turn.version = _to_json(given.version, "version")
            turn.tokens = _check_tokens(given.tokens)
        return turn, planned

    def _plan(self, actions: Any, message: Any) -> tuple[list[PlannedAction], Any]:
        """Read actions in any form; return them with the message to record, if any."""
        if self._raw:
            listed = actions if isinstance(actions, list) else [actions]
            return [PlannedAction("", one, _record(one)) for one in listed], message
        check_is_action(actions, "the policy returned")
        planned = self._read_items(actions)
        if message is None and _is_message(actions):
            message = actions
        elif actions is not message:
            planned = _with_ids_of(message, planned)
        return planned, message

    def _read_items(self, actions: Any) -> list[PlannedAction]:
        """Read a whole message, or each of a list of actions by itself."""
        if not isinstance(actions, list) or any(map(_is_part, actions)):
            return self._read_message(actions)
        if not actions:
            return [PlannedAction("", "", "", is_plain_text=True)]
        return [one for action in actions for one in self._read_message(action)]

    def _read_message(self, message: Any) -> list[PlannedAction]:
        calls = parse_actions(
            message,
            tools=self._tools,
            plain_text="submit" if self._submit else "invalid",
        )
        if not calls:
            text = message_text(unwrap(message))
            return [PlannedAction("", text, text, is_plain_text=True)]
        # What was read as a call is plain JSON.
        return [
            PlannedAction(
                call.id,
                call.action,
                _record(call.action)
                if isinstance(call.action, InvalidAction)
                else call.action,
            )
            for call in calls
        ]


def _is_part(item: Any) -> bool:
    """Say whether a list's item shows that the list is a message's content."""
    item = unwrap(item)
    return isinstance(item, Mapping) and "type" in item and not is_call(item)


def _is_message(actions: Any) -> bool:
    """Say whether a policy returned a message worth recording, not only calls."""
    if isinstance(actions, list):
        return any(map(_is_part, actions))
    actions = unwrap(actions)
    if type(actions) is dict or isinstance(actions, Mapping):
        return not is_call(actions)
    return isinstance(actions, str)


def _record(action: Any) -> Any:
    """Return an action as plain JSON, or as its repr where it is none."""
    if isinstance(action, InvalidAction):
        return {"invalid": action.message}
    try:
        return to_plain_json(action)
    except ValueError:
        return repr(action)[:_LONGEST_REPR]


def _check_tokens(tokens: Any) -> TurnTokens | None:
    if tokens is None or isinstance(tokens, TurnTokens):
        return tokens
    raise InvalidRequestError(
        f"a Turn's tokens are a TurnTokens, not {type(tokens).__name__}"
    )


def _to_json(value: Any, name: str) -> Any:
    try:
        return to_plain_json(value, root=name)
    except ValueError as error:
        raise InvalidRequestError(
            f"a Turn's {name} is kept as JSON, but {error}"
        ) from None


def _with_ids_of(message: Any, planned: list[PlannedAction]) -> list[PlannedAction]:
    """Take the ids from a message whose calls the policy has read itself."""
    if not isinstance(message, Mapping):
        return planned
    ids = [call.id for call in parse_actions(message)]
    if len(ids) != len(planned):
        return planned
    return [
        _with_id(action, action.id or call_id)
        for action, call_id in zip(planned, ids, strict=True)
    ]


def _with_id(action: PlannedAction, call_id: str) -> PlannedAction:
    # Not _replace, which costs more than all of reading a call.
    _, call, recorded, is_plain_text = action
    return PlannedAction(call_id, call, recorded, is_plain_text)


def _with_unique_ids(
    planned: Sequence[PlannedAction], number: int
) -> list[PlannedAction]:
    """Give a new id to each action without one, or with an id that is taken."""
    if len(planned) == 1:
        only = planned[0]
        return [only] if only.id else [_with_id(only, f"call_{number}_0")]
    taken: set[str] = set()
    named: list[PlannedAction] = []
    for place, action in enumerate(planned):
        call_id = action.id
        if not call_id or call_id in taken:
            call_id = f"call_{number}_{place}"
            while call_id in taken:
                call_id += "_"
        taken.add(call_id)
        named.append(_with_id(action, call_id))
    return named
