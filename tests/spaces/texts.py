"""Texts in every script, and an env that says what it is told."""

from collections.abc import Callable
from typing import Any

import gymnasium
from gymnasium import Space

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


class EchoEnv(gymnasium.Env[Any, Any]):
    """Observes its last action, as ``show`` gives it; the action "end" ends it."""

    def __init__(
        self,
        max_length: int = 2**24,
        *,
        observations: Space[Any] | None = None,
        actions: Space[Any] | None = None,
        show: Callable[[Any], Any] = str,
    ) -> None:
        self.observation_space = observations or FreeText(max_length)
        self.action_space = actions or FreeText(max_length)
        self.show = show

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        return self.show("start"), {}

    def step(self, action: Any) -> Any:
        return self.show(action), 1.0, action == "end", False, {}
