"""Text for people, without the characters by which a server could steer a terminal."""

from __future__ import annotations

import functools
import inspect
import os
import re
import sysconfig
from collections.abc import Callable
from typing import Any, Final

import gymnasium

_OURS: Final = os.path.dirname(__file__) + os.sep  # noqa: PTH120 - as in tracebacks
_STANDARD: Final = sysconfig.get_path("stdlib") + os.sep
_STEERING: Final = re.compile(
    # Control characters but tabs and line ends: a lone carriage return overwrites.
    "[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]|\r(?!\n)"
    # Embeddings, overrides and isolates turn the rest of a line around. The marks
    # U+200E, U+200F and U+061C do no more than a letter, and Arabic texts need them.
    "|[\u202a-\u202e\u2066-\u2069]"
    # Lone surrogates, which no encoding can hold.
    "|[\ud800-\udfff]"
)


def clean(text: object) -> str:
    r"""Return a text with U+FFFD for each character that steers a terminal or a page.

    Example:
        >>> clean("a\tb\x1b[2J\u202e") == "a\tb\ufffd[2J\ufffd"
        True
    """
    return _STEERING.sub("\ufffd", str(text))


def shorten(text: str, longest: int) -> str:
    """Cut a text to at most ``longest`` characters; an ellipsis says that it was cut.

    Example:
        >>> shorten("a long story", 6)
        'a lon…'
    """
    return text if len(text) <= longest else f"{text[: longest - 1]}…"


def warn(text: str) -> None:
    """Warn as Gymnasium does, in the name of the user's line, if there is one."""
    frame, level = inspect.currentframe(), 1
    while frame is not None and not is_users_code(frame.f_code.co_filename):
        frame, level = frame.f_back, level + 1
    # As an argument, since a per cent sign in the text would be taken for a format.
    gymnasium.logger.warn("%s", clean(text), stacklevel=level if frame else 2)


def is_users_code(file: str) -> bool:
    """Say whether a file is neither ours nor a library's."""
    installed = "site-packages" in file or "dist-packages" in file
    return not installed and not file.startswith((_OURS, _STANDARD, "<frozen"))


def even_half_made(show: Callable[[Any], str]) -> Callable[[Any], str]:
    """Let a `__repr__` do without attributes that its object does not have yet.

    A traceback may show an object whose constructor raised.
    """

    @functools.wraps(show)
    def show_what_there_is(self: Any) -> str:
        try:
            return show(self)
        except AttributeError:
            return f"<{type(self).__name__}, half made>"

    return show_what_there_is
