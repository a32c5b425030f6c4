"""What happens in an episode: turns of the policy, and the steps they lead to."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any, Final

from ors_gym.types import Block, JSONObject

__all__ = ["PAYS_NOTHING", "Step", "Turn", "with_steps"]

PAYS_NOTHING: Final = frozenset({"invalid_action", "tool_failed"})
"""Kinds of errors whose step is paid only where the env's user set a price."""


@dataclasses.dataclass
class Turn:
    """One turn of a policy: what it returns, and what an episode keeps of it.

    Args:
        actions: An action or a list of actions, in any form that
            `ors_gym.actions.parse_actions` reads; None to take them from ``message``.
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
