"""An episode: the turns of a policy, the steps they led to, and the conversation."""

from __future__ import annotations

import dataclasses
import itertools
import json
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final, Literal, Self, TypeAlias

from ors_gym.errors import InvalidRequestError
from ors_gym.formats._blocks import render_text
from ors_gym.formats._json import decode_json, has_float
from ors_gym.formats._messages import has_roles, to_openai_messages
from ors_gym.rollout._tokens import TokenSequence, TurnTokens, make_sequences
from ors_gym.rollout._usage import Usage, add_up, read_numbers, usage_of_turn
from ors_gym.types import Block, JSONObject, ToolSpec

StopReason: TypeAlias = Literal[
    "",
    "finished",
    "max_turns",
    "max_steps",
    "max_tokens",
    "policy_stopped",
    "deadline",
    "error",
]
"""Why an episode ended; ``""`` while it goes on."""

UNPAID_ERROR_KINDS: Final = frozenset({"invalid_action", "tool_failed"})
"""After an error of these kinds, a reward of 0 means that nobody gave a reward."""

_NOT_WRITTEN: Final = ("state", "observation", "cause")
_LONGEST_ERROR: Final = 4000
_CALL_TAG: Final = "<tool_call>"


@dataclasses.dataclass
class Episode:
    """One episode: what a policy is called with, and the record of what happened.

    It never holds the task itself, since the task holds the answer.

    Args:
        environment: The environment's name.
        task_index: The task's place in its split, or -1 where only its spec is known.
        split: The split's name, ``""`` where it is not known.
        number: Which episode of this task it is, from 0.
        seed: A seed for the policy's own use, if the caller gave one.
        prompt: The blocks of the prompt.
        conversation: The prompt as messages with ``role`` and ``blocks``, where it is
            more than one message of the user's.
        tools: The tools of the session, as the server lists them.
        turns: The policy's turns so far.
        steps: What came of their actions.
        stop_reason: Why it ended: ``finished`` (by the server), ``max_turns``,
            ``max_steps`` (truncated by the env), ``max_tokens`` (the model's context
            has no room for a turn), ``policy_stopped``, ``deadline``, or ``error`` (an
            outage, a failed set-up, a policy that raised).
        total_reward: The reward so far, and in the end. None where there is no
            outcome: after an outage, a failed set-up, or an error of the policy.
        error: The error's text, where ``stop_reason`` is ``error``.
        error_kind: The error's kind: an ``ORSError.kind``, or ``policy``.
        seconds: How long it took, set-up included.
        setup_seconds: How long its set-up took.
        group_score: The score that the server gave it within its group, with
            `run_group`.
        attempts: Earlier attempts to play it, which outages ended, with
            `stream_groups`.
        extra: Any JSON of the policy's own about the whole episode. Numbers in its
            ``usage``, such as ``input_tokens`` and ``cost_usd``, are in `metrics`.
        cost: What it cost by the ``prices`` of the run; None without.
        state: For the policy's use. Not part of the JSON form.
        observation: The env's latest observation. Not part of the JSON form.
        cause: The exception that ended it. Not part of the JSON form.

    Example:
        >>> episode = Episode("math", prompt=[{"type": "text", "text": "2 + 2?"}])
        >>> episode.text
        '2 + 2?'
        >>> Episode.from_json(episode.to_json()) == episode
        True
    """

    environment: str
    task_index: int = -1
    split: str = ""
    number: int = 0
    seed: int | None = None
    prompt: list[Block] = dataclasses.field(default_factory=list)
    conversation: list[JSONObject] = dataclasses.field(default_factory=list)
    tools: list[ToolSpec] = dataclasses.field(default_factory=list)
    turns: list[Turn] = dataclasses.field(default_factory=list)
    steps: list[Step] = dataclasses.field(default_factory=list)
    stop_reason: StopReason = ""
    total_reward: float | None = 0.0
    error: str = ""
    error_kind: str = ""
    seconds: float = 0.0
    setup_seconds: float = 0.0
    group_score: JSONObject | None = None
    attempts: list[Attempt] = dataclasses.field(default_factory=list)
    extra: Any = None
    cost: float | None = None
    state: dict[str, Any] = dataclasses.field(
        default_factory=dict, compare=False, repr=False
    )
    observation: Any = dataclasses.field(default=None, compare=False, repr=False)
    cause: BaseException | None = dataclasses.field(
        default=None, compare=False, repr=False
    )

    @property
    def blocks(self) -> list[Block]:
        """The blocks that the policy has to react to: the last reply, or the prompt."""
        return list(self.steps[-1].reply) if self.steps else self.prompt

    @property
    def text(self) -> str:
        """`blocks` as text, with images described."""
        return render_text(self.blocks)

    @property
    def finished(self) -> bool:
        """Whether the server finished it."""
        return self.stop_reason == "finished"

    @property
    def rewards(self) -> list[float]:
        """The rewards of its steps, without steps for which nobody gave one."""
        return [step.reward for step in self.steps if step.is_paid]

    @property
    def turn_rewards(self) -> list[float]:
        """What the calls of each turn were paid together, 0 where nobody gave any."""
        paid = [0.0] * len(self.turns)
        for step in self.steps:
            if step.is_paid:
                paid[step.turn] += step.reward
        return paid

    @property
    def unreadable_text(self) -> str | None:
        """The text of its first turn, if no turn held a call that could be read.

        None where a turn held such a call, where there is no turn, or after an error.
        """
        actions = [action for turn in self.turns for action in turn.actions]
        if not self.turns or self.error or any(map(reaches_server, actions)):
            return None
        turn = self.turns[0]
        return message_text(turn.message) or str(turn.actions[0] if actions else "")

    @property
    def gave_up_at_once(self) -> bool:
        """Whether its policy returned None in place of a first turn."""
        return self.stop_reason == "policy_stopped" and not self.turns

    def fail(self, error: BaseException, kind: str) -> None:
        """End it without an outcome, by an exception that becomes its ``cause``."""
        self.end_without_outcome(str(error) or type(error).__name__, kind)
        self.cause = error

    def set_prompt(
        self, prompt: Sequence[Block], conversation: Sequence[JSONObject]
    ) -> None:
        """Take the prompt, and the conversation that it is where it has roles."""
        self.prompt = list(prompt)
        if has_roles(conversation):
            self.conversation = list(conversation)

    def end_without_outcome(self, error: str, kind: str) -> None:
        """End it without an outcome, by an error that is only known as text."""
        self.stop_reason = "error"
        self.total_reward = None
        self.error = error[:_LONGEST_ERROR]
        self.error_kind = kind

    def messages(self, format: Literal["openai", "ors"] = "openai") -> list[JSONObject]:
        """Return the episode as a conversation.

        Args:
            format: ``openai``, for chat APIs and chat templates; or ``ors``, messages
                of blocks as ORS servers send and score them.

        Returns:
            The messages. Every id of a tool call is answered, also of calls that were
            not run because the episode was over.

        Raises:
            InvalidRequestError: If there is no such format.

        Example:
            >>> episode = Episode("math", prompt=[{"type": "text", "text": "2 + 2?"}])
            >>> episode.messages()
            [{'role': 'user', 'content': '2 + 2?'}]
        """
        forms = {"openai": _chat_messages, "ors": _ors_messages}
        if format not in forms:
            raise InvalidRequestError(
                f"format is {format!r}; it must be 'openai' or 'ors'"
            )
        return forms[format](self)

    def sequences(self, max_tokens: int | None = None) -> list[TokenSequence]:
        """Return what a loss takes, for an episode whose turns have tokens.

        Args:
            max_tokens: The longest sequence. A longer one is cut between two turns, or
                inside its last turn if that ran no call, and says so (``truncated``).
                If not even its first turn fits, only the prompt is left of it.

        Returns:
            One sequence, or several where a chat template rewrote what came before;
            none if there was no turn. Each holds what the model read and sampled, id
            for id. The rewards at the ends of turns are those of their calls;
            ``nonterminal_reward`` and ``reward_reduction`` are in ``reward`` alone.

        Raises:
            InvalidRequestError: If a turn has no tokens.

        Example:
            >>> tokens = TurnTokens([1, 2], [3], [-0.5], starts_sequence=True)
            >>> episode = Episode("math", turns=[Turn(["4"], tokens=tokens)])
            >>> (sequence,) = episode.sequences()
            >>> sequence.ids, sequence.mask, sequence.logprobs
            ([1, 2, 3], [0, 0, 1], [0.0, 0.0, -0.5])
        """
        return make_sequences(self, max_tokens)

    def metrics(self) -> dict[str, float]:
        """Return flat figures, for Weights & Biases, TensorBoard and the like.

        Returns:
            Floats by name; ``total_reward`` and ``sampled_tokens`` are left out where
            there are none.

        Example:
            >>> Episode("math").metrics()["steps"]
            0.0
        """
        kinds = [step.error_kind for step in self.steps]
        figures: dict[str, float] = {
            "steps": len(self.steps),
            "turns": len(self.turns),
            "finished": self.finished,
            "error": self.stop_reason == "error",
            "invalid_actions": kinds.count("invalid_action"),
            "tool_failures": kinds.count("tool_failed"),
            "seconds": self.seconds,
            "setup_seconds": self.setup_seconds,
            "policy_seconds": sum(turn.seconds for turn in self.turns),
            "tool_seconds": sum(step.seconds for step in self.steps),
        }
        if any(turn.tokens for turn in self.turns):
            played = [turn.tokens for turn in self.turns if turn.tokens]
            figures["sampled_tokens"] = sum(len(tokens.ids) for tokens in played)
        if self.total_reward is not None:
            figures["total_reward"] = self.total_reward
        figures |= self.usage
        return {name: float(value) for name, value in figures.items()}

    @property
    def usage(self) -> Usage:
        """What the policy used: the finite numbers in the ``usage`` of its ``extra``.

        Without these it is the sum over the turns: ``input_tokens``,
        ``cached_input_tokens`` (a part of these), ``output_tokens`` and ``cost_usd``,
        as far as the turns tell them. ``cost`` is among them where the run has prices.
        """
        told = self.extra.get("usage") if isinstance(self.extra, Mapping) else None
        used = read_numbers(told) or add_up(
            usage_of_turn(one.extra, one.tokens) for one in self.turns
        )
        return used if self.cost is None else used | {"cost": self.cost}

    def _repr_html_(self) -> str:
        # Playing an episode needs nothing of how a notebook shows it.
        from ors_gym.display._cards import episode_card  # noqa: PLC0415

        return episode_card(self)

    def to_dict(self) -> JSONObject:
        """Return it as plain JSON values, without ``state``."""
        fields = vars(self).items()
        written = {name: value for name, value in fields if name not in _NOT_WRITTEN}
        written["turns"] = [turn.to_dict() for turn in self.turns]
        written["steps"] = [dict(vars(step)) for step in self.steps]
        written["attempts"] = [dict(vars(attempt)) for attempt in self.attempts]
        return written

    @classmethod
    def from_dict(cls, value: Mapping[str, Any]) -> Self:
        """Make an episode from the plain JSON values of `to_dict`.

        Raises:
            InvalidRequestError: If it is no episode.
        """
        try:
            fields = dict(_checked(value))
            turns, steps = fields.get("turns", ()), fields.get("steps", ())
            fields["turns"] = [Turn.from_dict(turn) for turn in turns]
            fields["steps"] = [Step(**_checked(step)) for step in steps]
            attempts = fields.get("attempts", ())
            fields["attempts"] = [Attempt.from_dict(one) for one in attempts]
            return cls(**fields)
        except (TypeError, ValueError, AttributeError) as error:
            raise InvalidRequestError(f"this is no episode: {error}") from None

    def to_json(self) -> str:
        """Return it as a JSON text of one line, without ``state``."""
        return json.dumps(self.to_dict(), allow_nan=False, separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str | bytes | Mapping[str, Any]) -> Self:
        """Make an episode from the JSON text of `to_json`, or what that decodes to.

        Raises:
            InvalidRequestError: If it is no episode.
        """
        if isinstance(text, Mapping):
            return cls.from_dict(text)
        try:
            value = decode_json(text if isinstance(text, str) else text.decode())
        except ValueError as error:
            raise InvalidRequestError(f"this is no episode: {error}") from None
        return cls.from_dict(value)


@dataclasses.dataclass
class Turn:
    """One turn of a policy, as the policy returns it and as an episode records it.

    Args:
        actions: An action or a list of actions, in any form that
            `ors_gym.formats.parse_actions` reads; None to take them from ``message``.
            In an episode: a list with ``{"tool", "input"}`` for each call that was
            read, the text where there was no call, and ``{"invalid": reason}`` where
            a call could not be read.
        message: The assistant's message, verbatim: text, or a message of a chat API.
        extra: Any JSON of the policy's own, such as a model's usage.
        tokens: What the model read and sampled, for a policy of tokens.
        call_ids: The ids of the calls, one for each action; filled in by the episode.
        seconds: How long the policy took; filled in by the episode.
        version: Which version of the weights it was played with: what ``version()``
            of `stream_groups` returned when the policy was asked, unless the policy
            says it itself.

    Example:
        >>> Turn({"tool": "submit", "input": {}}, extra={"usage": 12}).extra
        {'usage': 12}
    """

    actions: Any
    message: Any = None
    extra: Any = None
    call_ids: list[str] = dataclasses.field(default_factory=list)
    seconds: float = 0.0
    version: Any = None
    tokens: TurnTokens | None = None

    def to_dict(self) -> JSONObject:
        """Return it as plain JSON values; without ``tokens`` where there are none."""
        written = dict(vars(self))
        if self.tokens is None:
            del written["tokens"]
        else:
            written["tokens"] = self.tokens.to_dict()
        return written

    @classmethod
    def from_dict(cls, value: Mapping[str, Any]) -> Self:
        """Make a turn from `to_dict`'s values; a TypeError says what is wrong."""
        fields = dict(_checked(value))
        if (tokens := fields.get("tokens")) is not None:
            fields["tokens"] = TurnTokens.from_dict(tokens)
        return cls(**fields)


@dataclasses.dataclass(frozen=True, slots=True)
class Stop:
    """What a policy returns in place of a turn to end the episode and say why.

    The episode keeps what it earned. None is ``Stop("policy_stopped")``.

    Args:
        reason: The ``stop_reason``: ``policy_stopped``, or ``max_tokens`` if the
            model's context has no room for another turn.

    Example:
        >>> Stop("max_tokens").reason
        'max_tokens'
    """

    reason: Literal["policy_stopped", "max_tokens"] = "policy_stopped"


@dataclasses.dataclass
class Step:
    """What came of one action.

    Args:
        turn: Which turn's action this was, from 0.
        call_id: The id of the call.
        tool: The tool's name, or ``""`` if the action was no call.
        input: The call's arguments.
        blocks: The blocks of the reply; none where there is an ``error``.
        reward: The reward, 0 where the server gave none.
        reward_is_null: Whether the server gave no reward at all.
        finished: Whether the server finished the episode with it.
        truncated: Whether the episode was cut short with it.
        error: What went wrong, as the policy reads it.
        error_kind: ``info["error_kind"]`` of the step, ``""`` if nothing went wrong.
        metadata: What the tool reported beside its blocks; None unless
            ``keep_metadata=True``, since it may hold the answer.
        seconds: How long the step took.

    Example:
        >>> blocks = [{"type": "text", "text": "A wall."}]
        >>> step = Step(0, "call_1", "look", {}, blocks, reward=0.5)
        >>> step.reply[0]["text"], step.reward
        ('A wall.', 0.5)
    """

    turn: int
    call_id: str
    tool: str
    input: JSONObject
    blocks: list[Block]
    reward: float
    reward_is_null: bool = False
    finished: bool = False
    truncated: bool = False
    error: str = ""
    error_kind: str = ""
    metadata: JSONObject | None = None
    seconds: float = 0.0

    @property
    def reply(self) -> Sequence[Block]:
        """The blocks as the policy reads them: those of the tool, or the error."""
        if self.error and not self.blocks:
            return [{"type": "text", "text": self.error}]
        return self.blocks

    @property
    def is_paid(self) -> bool:
        """Whether somebody gave a reward for it, if only 0."""
        if self.error_kind in UNPAID_ERROR_KINDS:
            return self.reward != 0
        return not self.reward_is_null


@dataclasses.dataclass(frozen=True)
class Attempt:
    """An attempt to play an episode that came to no outcome.

    Args:
        kind: The error's kind, as ``Episode.error_kind``.
        error: The error's text.
        time: When it ended, in seconds since 1970.
        seconds: How long it took.
        steps: How many steps were taken.
        usage: As ``Episode.usage``.

    Example:
        >>> episode = Episode("math", 3, "train")
        >>> episode.error_kind = "session_lost"
        >>> Attempt.of(episode).kind
        'session_lost'
    """

    kind: str
    error: str
    time: float
    seconds: float
    steps: int
    usage: Usage = dataclasses.field(default_factory=dict)

    @classmethod
    def of(cls, episode: Episode) -> Self:
        """Make it from an episode that came to no outcome just now."""
        return cls(
            episode.error_kind,
            episode.error,
            time.time(),
            episode.seconds,
            len(episode.steps),
            episode.usage,
        )

    @classmethod
    def from_dict(cls, value: Mapping[str, Any]) -> Self:
        """Make an attempt from plain JSON values; a TypeError where that is none."""
        made = cls(**value)
        texts = isinstance(made.kind, str) and isinstance(made.error, str)
        if not texts or not isinstance(made.steps, int):
            raise TypeError(f"an attempt of it is {value!r:.60}")
        # The sign raises the TypeError for what is no number.
        usage = {name: +used for name, used in made.usage.items()}
        if not all(map(has_float, (made.time, made.seconds, *usage.values()))):
            raise TypeError(f"an attempt of it has too large a number: {value!r:.60}")
        return cls(made.kind, made.error, +made.time, +made.seconds, made.steps, usage)


_OF_OBJECTS: Final = ("prompt", "conversation", "tools", "turns", "steps", "blocks")
_TYPES: Final[dict[str, Any]] = {
    **dict.fromkeys(("environment", "split", "stop_reason", "error"), str),
    **dict.fromkeys(("error_kind", "call_id", "tool"), str),
    **dict.fromkeys(("task_index", "number", "turn"), int),
    **dict.fromkeys(("seconds", "setup_seconds", "reward"), int | float),
    **dict.fromkeys(("metadata", "group_score", "tokens"), dict | None),
    **dict.fromkeys((*_OF_OBJECTS, "call_ids"), list),
    **dict.fromkeys(("total_reward", "cost"), int | float | None),
    "seed": int | None,
    "input": dict,
}
"""The types of fields of episodes, turns and steps, by their names."""


def _checked(fields: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return fields as they were read from JSON; a TypeError names a wrong one."""
    for name, value in fields.items():
        fits = isinstance(value, _TYPES.get(name, object)) and has_float(value)
        # For Python a boolean is an integer; for numpy it is none.
        fits = fits and not (type(value) is bool and name in _TYPES)
        if fits and name in _OF_OBJECTS:
            fits = all(isinstance(item, dict) for item in value)
        if not fits:
            raise TypeError(f"its {name} is {value!r:.60}")
    return fields


def turns_with_steps(episode: Episode) -> Iterator[tuple[Turn, list[Step]]]:
    """Yield each turn with the steps that came of it."""
    by_turn: dict[int, list[Step]] = {}
    for step in episode.steps:
        by_turn.setdefault(step.turn, []).append(step)
    for number, turn in enumerate(episode.turns):
        yield turn, by_turn.get(number, [])


def is_recorded_call(action: Any) -> bool:
    """Tell a call from a text and from an invalid action, among ``Turn.actions``."""
    is_object = type(action) is dict or isinstance(action, Mapping)
    return is_object and "tool" in action


def reaches_server(action: Any) -> bool:
    """Tell what can be sent from what could not be read, among ``Turn.actions``."""
    if type(action) is dict or isinstance(action, Mapping):
        return "invalid" not in action or len(action) > 1
    return not isinstance(action, str)


def _ors_messages(episode: Episode) -> list[JSONObject]:
    """Return messages of blocks, with tool results in the user's messages."""
    messages = [dict(message) for message in episode.conversation]
    messages = messages or [{"role": "user", "blocks": list(episode.prompt)}]
    for turn, steps in turns_with_steps(episode):
        if said := assistant_blocks(turn):
            messages.append({"role": "assistant", "blocks": said})
        if answers := list(_answers(turn, steps, episode.stop_reason)):
            messages.append({"role": "user", "blocks": answers})
    return messages


def _chat_messages(episode: Episode) -> list[JSONObject]:
    """Return messages of OpenAI's chat completions.

    A message of that API stays as it is; the calls of another become ``tool_calls``.
    """
    messages = to_openai_messages(episode.conversation or episode.prompt)
    for turn, steps in turns_with_steps(episode):
        said, answers = _messages_of_turn(turn, steps, episode.stop_reason)
        messages += [*said, *answers]
    return messages


def messages_of_last_turn(
    episode: Episode,
) -> tuple[list[JSONObject], list[JSONObject]]:
    """Return what the last turn adds to the conversation: the message, its answers.

    The cost is that of the turn, however long the episode is.
    """
    if not episode.turns:
        return [], []
    number = len(episode.turns) - 1
    of_turn = itertools.takewhile(
        lambda step: step.turn == number, reversed(episode.steps)
    )
    steps = list(of_turn)[::-1]
    return _messages_of_turn(episode.turns[-1], steps, episode.stop_reason)


def _messages_of_turn(
    turn: Turn, steps: Sequence[Step], end: str
) -> tuple[list[JSONObject], list[JSONObject]]:
    said: list[JSONObject] = []
    by_id = False
    if _is_chat_message(turn):
        said = [dict(turn.message)]
        by_id = bool(turn.message.get("tool_calls"))
    elif blocks := assistant_blocks(turn):
        said = to_openai_messages([{"role": "assistant", "blocks": blocks}])
    answers = list(_answers(turn, steps, end, by_id=by_id))
    if not answers:
        return said, []
    return said, to_openai_messages([{"role": "user", "blocks": answers}])


def assistant_blocks(turn: Turn) -> list[JSONObject]:
    """Return the blocks of an assistant's message: its text, then its calls."""
    text = _text_beside_calls(turn)
    blocks: list[JSONObject] = [{"type": "text", "text": text}] if text else []
    for call_id, action in zip(turn.call_ids, turn.actions, strict=True):
        if is_recorded_call(action):
            name, given = action["tool"], action["input"]
            blocks.append(
                {"type": "tool_call", "id": call_id, "name": name, "input": given}
            )
    return blocks


def _text_beside_calls(turn: Turn) -> str:
    said = turn.message
    if isinstance(said, Mapping):
        said = said.get("content")
    if said is None:
        said = "\n\n".join(text for text in turn.actions if isinstance(text, str))
    text = message_text(said)
    if any(map(is_recorded_call, turn.actions)):
        # The calls become blocks of their own: they are cut off at the first tag, and
        # a text that is nothing but JSON calls is dropped.
        text = text.partition(_CALL_TAG)[0].strip()
        return "" if text.startswith(("{", "[")) else text
    return text


def message_text(message: Any) -> str:
    """Return the text of a chat message or of its content, "" where it has none."""
    if isinstance(message, Mapping):
        message = message.get("content")
    if isinstance(message, list):
        texts = [part.get("text") for part in message if isinstance(part, Mapping)]
        message = "\n\n".join(text for text in texts if isinstance(text, str))
    return message if isinstance(message, str) else ""


def _answers(
    turn: Turn, steps: Sequence[Step], end: str, *, by_id: bool = False
) -> Iterator[JSONObject]:
    """Yield the answer to each action: a result for a call, else plain text.

    With ``by_id``, actions that could not be read have an id in the message as well.
    """
    for place, action in enumerate(turn.actions):
        step = steps[place] if place < len(steps) else None
        has_id = by_id or is_recorded_call(action)
        if step is not None:
            blocks: list[Any] = list(step.reply)
        elif has_id:
            blocks = [{"type": "text", "text": not_run(end)}]
        else:
            continue
        if has_id:
            yield {
                "type": "tool_result",
                "tool_call_id": turn.call_ids[place],
                "blocks": blocks,
                "is_error": step is None or bool(step.error),
            }
        else:
            yield from blocks


def not_run(end: str) -> str:
    """Return the answer to a call that was not run, given the stop reason."""
    if end == "finished":
        return "not run: episode finished"
    return f"not run: the episode ended ({end})" if end else "not run yet"


def _is_chat_message(turn: Turn) -> bool:
    """Say whether the message is one of a chat API whose calls are the turn's."""
    message = turn.message
    if not isinstance(message, Mapping) or message.get("role") != "assistant":
        return False
    calls = message.get("tool_calls") or []
    if not calls:
        content = message.get("content")
        has_calls = any(map(is_recorded_call, turn.actions))
        return not has_calls and isinstance(content, str)
    if not isinstance(calls, list) or not all(map(_is_chat_call, calls)):
        return False
    ids = [call["id"] for call in calls]
    return ids == turn.call_ids and len(set(ids)) == len(ids)


def _is_chat_call(call: Any) -> bool:
    if not isinstance(call, Mapping) or not isinstance(call.get("id"), str):
        return False
    function = call.get("function")
    return isinstance(function, Mapping) and isinstance(function.get("arguments"), str)
