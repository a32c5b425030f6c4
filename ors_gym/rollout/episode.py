"""An episode as a policy sees it, and as it is kept."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from typing import Any, Final, Literal, Self, TypeAlias

from ors_gym.errors import InvalidRequestError
from ors_gym.observations import render_text
from ors_gym.rollout.card import episode_card
from ors_gym.rollout.messages import chat_messages, ors_messages
from ors_gym.rollout.turn import Step, Turn
from ors_gym.types import Block, JSONObject, ToolSpec

__all__ = ["Episode", "StopReason"]

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
