"""Texts in every script, and an env that says what it is told."""

from __future__ import annotations

from typing import Any

import gymnasium

from ors_gym.spaces import FreeText

TEXTS = (
    "",
    " ",
    "plain words",
    "trailing blanks  \n\t ",
    "\r\n\r\n",
    "Grüße, ça va, ñandú",
    "你好、世界 こんにちは 안녕하세요",
    "שלום עולם مرحبا بالعالم",
    "\u202eright to left\u202c \u200d\u200c\ufeff",
    "👩‍👩‍👧‍👦 🏳️‍🌈 \U0001f469\U0001f3ff",
    "नमस्ते สวัสดี ქართული ᚠᛇᚻ \U0001d518\U0001d52b",
    "e\u0301 \u00e9 \u1e9b\u0323",
    "\0",
    "before\0after\0",
    "\u2028\u2029\u0085\x1b[31m",
    "\ufffd\ufffe\uffff\U0010ffff",
    '{"tool": "x", "input": {}}',
    "\\u0041 %s {0} 00000000",
    "x" * 65_528,
    "é" * 65_529,
    "0123456789" * 500_000,
    "\U0001f600" * 1_250_000,
)
"""The last two have 5 MB."""


class EchoEnv(gymnasium.Env[str, str]):
    """Observes its last action; an empty one, 5 steps after a reset, ends the episode.

    Args:
        max_length: Of its texts.
    """

    def __init__(self, max_length: int = 2**24) -> None:
        self.observation_space = FreeText(max_length)
        self.action_space = FreeText(max_length)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[str, dict[str, Any]]:
        super().reset(seed=seed)
        return "start", {}

    def step(self, action: str) -> tuple[str, float, bool, bool, dict[str, Any]]:
        return action, 1.0, action == "end", False, {}
