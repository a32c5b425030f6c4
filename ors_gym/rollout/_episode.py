"""What happens in an episode: turns of the policy, and the steps they lead to."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final, Literal, Self, TypeAlias, get_args

import numpy as np

from ors_gym.errors import InvalidRequestError
from ors_gym.formats._blocks import render_text
from ors_gym.formats._messages import to_openai_messages
from ors_gym.types import Block, JSONObject, ToolSpec

__all__ = [
    "PAYS_NOTHING",
    "Episode",
    "RewardReduction",
    "RunningReward",
    "Step",
    "StopReason",
    "Turn",
    "chat_messages",
    "check_reward_rule",
    "not_run",
    "ors_messages",
    "reduce_rewards",
    "was_readable",
    "with_steps",
]

PAYS_NOTHING: Final = frozenset({"invalid_action", "tool_failed"})
"""Kinds of errors whose step is paid only where the env's user set a price."""


@dataclasses.dataclass
class Turn:
    """One turn of a policy: what it returns, and what an episode keeps of it.

    Args:
        actions: An action or a list of actions, in any form that
            `ors_gym.formats.parse_actions` reads; None to take them from ``message``.
            In an episode: the list of calls that were read, as ``{"tool", "input"}``;
            a text, or the reason as ``{"invalid": reason}``, where there was no call.
        message: The assistant's message, verbatim: text, or a message of a chat API.
        extra: Any JSON of the policy's own, such as token ids, log-probabilities or
            usage.
        call_ids: The ids of the calls, one for each action; filled in by the episode.
        seconds: How long the policy took; filled in by the episode.

    Example:
        >>> Turn({"tool": "submit", "input": {}}, extra={"tokens": 12}).extra
        {'tokens': 12}
    """

    actions: Any
    message: Any = None
    extra: Any = None
    call_ids: list[str] = dataclasses.field(default_factory=list)
    seconds: float = 0.0


@dataclasses.dataclass
class Step:
    """What came of one action.

    Args:
        turn: Which turn's action this was, from 0.
        call_id: The id of the call.
        tool: The tool's name, or ``""`` if the action was no call.
        input: Its arguments.
        blocks: The blocks of the reply; none where there is an ``error``.
        reward: What was paid.
        reward_is_null: Whether the server paid nothing at all.
        finished: Whether the server finished the episode with it.
        truncated: Whether the episode was cut short with it.
        error: What went wrong, as the policy reads it.
        error_kind: ``info["error_kind"]`` of the step, ``""`` if nothing went wrong.
        metadata: What the tool reported beside its blocks.
        seconds: How long it took.
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
        if self.error_kind in PAYS_NOTHING:
            return self.reward != 0
        return not self.reward_is_null


def with_steps(
    turns: Sequence[Turn], steps: Sequence[Step]
) -> Iterator[tuple[Turn, list[Step]]]:
    """Yield each turn with the steps that came of it.

    Args:
        turns: The turns of an episode.
        steps: Its steps.
    """
    by_turn: dict[int, list[Step]] = {}
    for step in steps:
        by_turn.setdefault(step.turn, []).append(step)
    for number, turn in enumerate(turns):
        yield turn, by_turn.get(number, [])


RewardReduction: TypeAlias = Literal["sum", "last", "mean", "max", "min"]
"""How the rewards of an episode become one number."""


def _last(rewards: Sequence[float]) -> float:
    return rewards[-1]


# fsum, so that the order of the steps does not matter.
_REDUCTIONS: Final[dict[str, Callable[[Sequence[float]], float]]] = {
    "sum": math.fsum,
    "last": _last,
    "mean": np.mean,
    "max": max,
    "min": min,
}


def check_reward_rule(reduction: str, nonterminal_reward: float) -> None:
    """Refuse what cannot be a rule for an episode's reward.

    Args:
        reduction: The name of the reduction.
        nonterminal_reward: What an unfinished episode is paid.

    Raises:
        InvalidRequestError: If there is no such reduction, or the number is not finite.

    Example:
        >>> check_reward_rule("sum", 0.0)
    """
    if reduction not in _REDUCTIONS:
        names = " or ".join(map(repr, get_args(RewardReduction)))
        raise InvalidRequestError(
            f"reward_reduction is {reduction!r}; it must be {names}"
        )
    if not math.isfinite(nonterminal_reward):
        raise InvalidRequestError("nonterminal_reward must be a finite number")


def reduce_rewards(
    rewards: Sequence[float],
    reduction: RewardReduction = "sum",
    *,
    finished: bool = True,
    nonterminal_reward: float = 0.0,
) -> float:
    """Return the reward of an episode that was not cut short by an outage.

    Args:
        rewards: What its steps were paid, in order, without the steps that were paid
            nothing at all (a null reward is no reward, so ``last`` is the last that
            somebody gave).
        reduction: How they become one number; the sum of none, and their maximum, is 0.
        finished: Whether the server finished the episode.
        nonterminal_reward: Added if it did not.

    Returns:
        The episode's reward.

    Example:
        >>> reduce_rewards([0.5, 1.0], "last")
        1.0
        >>> reduce_rewards([0.5], finished=False, nonterminal_reward=-1.0)
        -0.5
    """
    total = float(_REDUCTIONS[reduction](rewards)) if rewards else 0.0
    return total if finished else total + nonterminal_reward


class RunningReward:
    """The reward of an episode so far, at the same small cost after every step.

    Args:
        reduction: How the rewards become one number.

    Example:
        >>> running = RunningReward("mean")
        >>> running.add(0.0), running.add(1.0)
        (0.0, 0.5)
    """

    def __init__(self, reduction: RewardReduction = "sum") -> None:
        self._reduction = reduction
        self._count = 0
        self._sum = self._last = 0.0
        self._max, self._min = -math.inf, math.inf

    def add(self, reward: float) -> float:
        """Add what a step was paid.

        Args:
            reward: The reward; not called for a step that was paid nothing at all.

        Returns:
            The reward so far, as `reduce_rewards` gives it but for rounding.
        """
        self._count += 1
        self._sum += reward
        self._last = reward
        self._max, self._min = max(self._max, reward), min(self._min, reward)
        return {
            "sum": self._sum,
            "last": self._last,
            "mean": self._sum / self._count,
            "max": self._max,
            "min": self._min,
        }[self._reduction]


_CALL_TAG: Final = "<tool_call>"


def ors_messages(
    prompt: Sequence[Block], turns: Sequence[Turn], steps: Sequence[Step], end: str
) -> list[JSONObject]:
    """Return an episode as messages of blocks.

    Args:
        prompt: The prompt's blocks.
        turns: The turns.
        steps: What came of them.
        end: Why the episode ended, for the calls that were not run.

    Returns:
        Objects with ``role`` and ``blocks``, tool results in the user's messages.
    """
    messages: list[JSONObject] = [{"role": "user", "blocks": list(prompt)}]
    for turn, played in with_steps(turns, steps):
        said = _assistant(turn)
        if said:
            messages.append({"role": "assistant", "blocks": said})
        answers = list(_answers(turn, played, end))
        if answers:
            messages.append({"role": "user", "blocks": answers})
    return messages


def chat_messages(
    prompt: Sequence[Block], turns: Sequence[Turn], steps: Sequence[Step], end: str
) -> list[JSONObject]:
    """Return an episode as messages of OpenAI's chat completions.

    A turn whose message is one of that API already stays as it is. Another's calls
    are written as ``tool_calls``.

    Args:
        prompt: The prompt's blocks.
        turns: The turns.
        steps: What came of them.
        end: Why the episode ended, for the calls that were not run.

    Returns:
        The messages.
    """
    messages = to_openai_messages(prompt)
    for turn, played in with_steps(turns, steps):
        by_id = False
        if _is_chat_message(turn):
            messages.append(dict(turn.message))
            by_id = bool(turn.message.get("tool_calls"))
        elif said := _assistant(turn):
            messages += to_openai_messages([{"role": "assistant", "blocks": said}])
        answers = list(_answers(turn, played, end, by_id=by_id))
        if answers:
            messages += to_openai_messages([{"role": "user", "blocks": answers}])
    return messages


def _assistant(turn: Turn) -> list[JSONObject]:
    """Return the blocks of an assistant's message: its text, then its calls."""
    text = _text_of(turn)
    blocks: list[JSONObject] = [{"type": "text", "text": text}] if text else []
    for call_id, action in zip(turn.call_ids, turn.actions, strict=True):
        if was_readable(action):
            name, given = action["tool"], action["input"]
            blocks.append(
                {"type": "tool_call", "id": call_id, "name": name, "input": given}
            )
    return blocks


def _text_of(turn: Turn) -> str:
    """Return what the policy said beside its calls."""
    message = turn.message
    if isinstance(message, Mapping):
        message = message.get("content")
    if isinstance(message, list):
        texts = [part.get("text") for part in message if isinstance(part, Mapping)]
        message = "\n\n".join(text for text in texts if isinstance(text, str))
    if message is None:
        plain = [action for action in turn.actions if isinstance(action, str)]
        message = "\n\n".join(plain)
    if not isinstance(message, str):
        return ""
    if any(was_readable(action) for action in turn.actions):
        # The calls follow as such; what is left of JSON calls is nothing.
        message = message.partition(_CALL_TAG)[0].strip()
        return "" if message.startswith(("{", "[")) else message
    return message


def _answers(
    turn: Turn, steps: Sequence[Step], end: str, *, by_id: bool = False
) -> Iterator[JSONObject]:
    """Yield what the policy was told: a result for each call, else plain text.

    With ``by_id`` what could not be read as a call has an id in the message too.
    """
    for place, action in enumerate(turn.actions):
        step = steps[place] if place < len(steps) else None
        if step is not None:
            blocks: list[Any] = list(step.reply)
        elif by_id or was_readable(action):
            blocks = [{"type": "text", "text": not_run(end)}]
        else:
            continue
        if by_id or was_readable(action):
            yield {
                "type": "tool_result",
                "tool_call_id": turn.call_ids[place],
                "blocks": blocks,
                "is_error": step is None or bool(step.error),
            }
        else:
            yield from blocks


def not_run(end: str) -> str:
    """Return what answers a call that was not run.

    Args:
        end: Why the episode ended; ``""`` while it goes on.

    Example:
        >>> not_run("finished")
        'not run: episode finished'
    """
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
        return not any(map(was_readable, turn.actions)) and isinstance(content, str)
    if not isinstance(calls, list) or not all(map(_is_chat_call, calls)):
        return False
    ids = [call["id"] for call in calls]
    return ids == turn.call_ids and len(set(ids)) == len(ids)


def _is_chat_call(call: Any) -> bool:
    if not isinstance(call, Mapping) or not isinstance(call.get("id"), str):
        return False
    function = call.get("function")
    return isinstance(function, Mapping) and isinstance(function.get("arguments"), str)


def was_readable(action: Any) -> bool:
    """Say whether a turn's action is a call that was read.

    Args:
        action: One of ``Turn.actions`` as an episode keeps them.

    Example:
        >>> was_readable({"tool": "look", "input": {}})
        True
        >>> was_readable({"invalid": "no JSON"})
        False
    """
    return isinstance(action, Mapping) and "tool" in action


StopReason: TypeAlias = Literal[
    "", "finished", "max_turns", "max_steps", "policy_stopped", "deadline", "error"
]
"""Why an episode ended; ``""`` while it goes on."""

_TRANSIENT: Final = ("state", "observation", "cause")
_LONGEST_ERROR: Final = 4000


@dataclasses.dataclass
class Episode:
    """One episode: what a policy is called with, and what is kept of it.

    It never holds the task itself, since that holds the answer.

    Args:
        environment: The environment's name.
        task_index: The task's place in its split, or -1 where only its spec is known.
        split: The split's name, ``""`` where it is not known.
        number: Which episode of this task it is, from 0.
        seed: A seed for the policy's own use, if the caller gave one.
        prompt: The blocks of the prompt.
        tools: The tools of the session, as the server lists them.
        turns: The policy's turns so far.
        steps: What came of their actions.
        stop_reason: Why it ended: ``finished`` (by the server), ``max_turns``,
            ``max_steps`` (truncated by the env), ``policy_stopped``, ``deadline``, or
            ``error`` (an outage, a failed set-up, a policy that raised).
        total_reward: The reward so far, and in the end. None where there is no
            outcome: after an outage, a failed set-up, or an error of the policy.
        error: What ended it with ``error``.
        error_kind: Of which kind that was: an ``ORSError.kind``, or ``policy``.
        seconds: How long it took, set-up included.
        setup_seconds: How long its set-up took.
        group_score: What `run_group` had the server give it among its group.
        state: For the policy's use; not kept.
        observation: The env's latest observation; not kept.
        cause: The error that ended it, as an exception; not kept.

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
    state: dict[str, Any] = dataclasses.field(
        default_factory=dict, compare=False, repr=False
    )
    observation: Any = dataclasses.field(default=None, compare=False, repr=False)
    cause: BaseException | None = dataclasses.field(
        default=None, compare=False, repr=False
    )

    @property
    def blocks(self) -> list[Block]:
        """What the policy has to react to: the last reply, or the prompt."""
        return list(self.steps[-1].reply) if self.steps else self.prompt

    @property
    def text(self) -> str:
        """The same as text, with images described."""
        return render_text(self.blocks)

    @property
    def finished(self) -> bool:
        """Whether the server finished it."""
        return self.stop_reason == "finished"

    @property
    def rewards(self) -> list[float]:
        """What its steps were paid, without those that were paid nothing at all."""
        return [step.reward for step in self.steps if step.is_paid]

    def fail(self, error: BaseException, kind: str) -> None:
        """End it without an outcome.

        Args:
            error: What happened.
            kind: Of which kind that is.
        """
        self.end_without_outcome(str(error) or type(error).__name__, kind)
        self.cause = error

    def end_without_outcome(self, error: str, kind: str) -> None:
        """End it by an error that is told in words.

        Args:
            error: What happened.
            kind: Of which kind that is.
        """
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

        Example:
            >>> episode = Episode("math", prompt=[{"type": "text", "text": "2 + 2?"}])
            >>> episode.messages()
            [{'role': 'user', 'content': '2 + 2?'}]
        """
        convert = chat_messages if format == "openai" else ors_messages
        return convert(self.prompt, self.turns, self.steps, self.stop_reason)

    def metrics(self) -> dict[str, float]:
        """Return flat figures, for Weights & Biases, TensorBoard and the like.

        Returns:
            Floats by name; ``total_reward`` is left out where there is none.

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
        if self.total_reward is not None:
            figures["total_reward"] = self.total_reward
        return {name: float(value) for name, value in figures.items()}

    def _repr_html_(self) -> str:
        # Only a notebook imports how an episode is shown.
        from ors_gym.display._episode import episode_card  # noqa: PLC0415

        return episode_card(self)

    def to_dict(self) -> JSONObject:
        """Return it as plain JSON values, without ``state``."""
        fields = vars(self).items()
        kept = {name: value for name, value in fields if name not in _TRANSIENT}
        kept["turns"] = [dict(vars(turn)) for turn in self.turns]
        kept["steps"] = [dict(vars(step)) for step in self.steps]
        return kept

    @classmethod
    def from_dict(cls, value: Mapping[str, Any]) -> Self:
        """Make an episode of what `to_dict` gave.

        Args:
            value: The plain JSON values.

        Raises:
            InvalidRequestError: If it is no episode.
        """
        try:
            fields = dict(value)
            fields["turns"] = [Turn(**turn) for turn in fields.get("turns", ())]
            fields["steps"] = [Step(**step) for step in fields.get("steps", ())]
            return cls(**fields)
        except (TypeError, ValueError, AttributeError) as error:
            raise InvalidRequestError(f"this is no episode: {error}") from None

    def to_json(self) -> str:
        """Return it as a JSON text of one line, without ``state``."""
        return json.dumps(self.to_dict(), allow_nan=False, separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str | bytes | Mapping[str, Any]) -> Self:
        """Make an episode of what `to_json` gave.

        Args:
            text: The JSON text, or what it decodes to.

        Raises:
            InvalidRequestError: If it is no episode.
        """
        if isinstance(text, Mapping):
            return cls.from_dict(text)
        try:
            value = json.loads(text)
        except ValueError as error:
            raise InvalidRequestError(f"this is no episode: {error}") from None
        return cls.from_dict(value)
