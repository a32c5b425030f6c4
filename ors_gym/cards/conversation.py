"""An episode as a card: its prompt, then each call with what came of it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple

from ors_gym.cards.frame import card
from ors_gym.cards.parts import Allowance, escape, flag, preformatted, show_blocks
from ors_gym.palette import reward_colour
from ors_gym.transcript import NOT_RUN, Entry

__all__ = ["Fact", "conversation_card", "reward_fact"]

_FIRST: Final = 40
_LAST: Final = 60
_OPEN: Final = 8
"""An episode of more parts than this has the middle ones folded."""
_OPEN_FIRST: Final = 3
_OPEN_LAST: Final = 2
_MOST_CALL: Final = 90


class Fact(NamedTuple):
    """Something said beside a card's title."""

    text: str
    colour: str = "muted"
    """The name of its colour; any but ``muted`` puts a frame around it."""


def reward_fact(total: float) -> Fact:
    """Return what is said of the reward so far.

    Args:
        total: The reward.

    Example:
        >>> reward_fact(0.5)
        Fact(text='reward 0.5', colour='good')
    """
    colour = reward_colour(total) if total else "text-colour"
    return Fact(f"reward {total:g}", colour)


def conversation_card(
    title: str, entries: Sequence[Entry], facts: Iterable[Fact | None] = ()
) -> str:
    """Return an episode as a card.

    Args:
        title: What was played.
        entries: Its prompt and its steps; of very many the first and the last are
            shown.
        facts: What is said beside the title; None is left out.

    Example:
        >>> "What is 2 + 2?" in conversation_card("math", [Entry("What is 2 + 2?")])
        True
    """
    allowance = Allowance()
    shown = [
        _fact(fact) if fact.colour == "muted" else flag(*fact) for fact in facts if fact
    ]
    parts = []
    hidden = max(len(entries) - _FIRST - _LAST, 0)
    for number, entry in enumerate(entries):
        if _FIRST <= number < _FIRST + hidden:
            if number == _FIRST:
                parts.append(f'<div class="ors-part">{hidden:,} steps in between</div>')
            continue
        inside = _OPEN_FIRST <= number < len(entries) - _OPEN_LAST
        folded = inside and len(entries) > _OPEN
        parts.append(_part(entry, number, allowance, folded=folded))
    return card(title, parts, shown)


def _fact(fact: Fact) -> str:
    return f'<span class="ors-muted">{escape(fact.text)}</span>'


def _part(entry: Entry, number: int, allowance: Allowance, *, folded: bool) -> str:
    kind = "ors-failed" if entry.failed else ""
    blocks = entry.blocks
    if entry.text and not blocks:
        blocks = [{"type": "text", "text": entry.text}]
    said = preformatted(entry.said, "ors-said") if entry.said else ""
    call = preformatted(entry.call, "ors-call") if entry.call else ""
    body = f"{said}{call}{show_blocks(blocks, allowance, kind)}"
    label = f"step {number}" if entry.call else "policy" if number else "prompt"
    head = f'<span class="ors-label">{label}</span>'
    flags = _flags(entry)
    if folded:
        short = entry.call if len(entry.call) <= _MOST_CALL else entry.call[:_MOST_CALL]
        line = f'<span class="ors-peek ors-accent">{escape(short)}</span>'
        row = f'<summary class="ors-row">{head}{line}{flags}</summary>'
        body = f"<details>{row}{body}</details>"
    else:
        body = f'<div class="ors-row">{head}{flags}</div>{body}'
    return f'<div class="ors-part ors-edge-{entry.mood}">{body}</div>'


def _flags(entry: Entry) -> str:
    if not entry.call:
        return ""
    if entry.note == NOT_RUN:
        return flag(NOT_RUN, "muted")
    flags = flag(f"reward {entry.reward:g}", entry.mood)
    if entry.note:
        flags += flag(entry.note, "accent" if entry.note == "finished" else "bad")
    return flags
