"""Whatever people look at: transcripts, cards, pictures, the playground."""

from __future__ import annotations

from ors_gym.display._game import Game
from ors_gym.display._html import (
    Fact,
    card,
    conversation_card,
    message_card,
    prompt_card,
    reward_fact,
    tasks_card,
    tools_card,
)
from ors_gym.display._picture import FRAME_SHAPE, draw_transcript, require_drawing
from ors_gym.display._play import play
from ors_gym.display._show import register_formatters, show
from ors_gym.display._terminal_game import play_in_terminal

__all__ = [
    "FRAME_SHAPE",
    "Fact",
    "Game",
    "card",
    "conversation_card",
    "draw_transcript",
    "message_card",
    "play",
    "play_in_terminal",
    "prompt_card",
    "register_formatters",
    "require_drawing",
    "reward_fact",
    "show",
    "tasks_card",
    "tools_card",
]
