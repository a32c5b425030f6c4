"""The frame around a card."""

from __future__ import annotations

from collections.abc import Iterable

from ors_gym.cards.parts import escape
from ors_gym.cards.style import STYLE

__all__ = ["card", "message_card"]


def card(title: str, parts: Iterable[str], facts: Iterable[str] = ()) -> str:
    """Return a card.

    Args:
        title: Its title, a text.
        parts: What it holds, as HTML.
        facts: What stands beside the title, as HTML.

    Returns:
        One element. Formulas in it are text: MathJax is told to leave it alone.
    """
    head = "".join(facts)
    return (
        f'<div class="ors-card mathjax_ignore tex2jax_ignore">{STYLE}'
        f'<div class="ors-head"><span class="ors-title">{escape(title)}</span>{head}'
        f"</div>{''.join(parts)}</div>"
    )


def message_card(text: str, colour: str = "text-colour") -> str:
    """Return a card of one short text.

    Args:
        text: The text.
        colour: The name of its colour: ``bad``, ``warn``, ``muted``, ...
    """
    return (
        f'<div class="ors-card mathjax_ignore tex2jax_ignore">{STYLE}'
        f'<span class="ors-{escape(colour)}">{escape(text)}</span></div>'
    )
