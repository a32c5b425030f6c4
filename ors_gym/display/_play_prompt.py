"""Asks a person for a line: with line editing in a terminal, plainly elsewhere."""

from __future__ import annotations

import asyncio
import functools
import sys
from collections.abc import Mapping, Sequence
from typing import Any, Final

from ors_gym._shown_text import clean
from ors_gym.display._terminal import printable, say
from ors_gym.errors import MissingExtraError, import_extra

_NO_KEYS: Final[Mapping[str, str]] = {}


class LeaveError(Exception):
    """Raised when the player has had enough: Ctrl-C, Ctrl-D or the end of the input."""


class Prompt:
    """Asks for one line after another, and remembers them for the arrow keys."""

    def __init__(self) -> None:
        self._session: Any = None
        toolkit = _find_toolkit() if _is_interactive() else None
        if toolkit is not None:
            self._session = toolkit.PromptSession()

    def ask(
        self,
        question: str,
        words: Sequence[str] = (),
        keys: Mapping[str, str] = _NO_KEYS,
    ) -> str:
        """Return the line that was typed.

        Tab completes ``words``. A key of ``keys``, as the first of a line, stands for
        a whole line.
        """
        try:
            if self._session is None:
                line = input(printable(question)).rstrip("\r")
            else:
                line = self._edit(clean(question), words, keys)
        except (EOFError, KeyboardInterrupt):
            if self._session is None:
                # What follows begins a line of its own.
                say()
            raise LeaveError from None
        return keys.get(line.strip(), line)

    def _edit(
        self, question: str, words: Sequence[str], keys: Mapping[str, str]
    ) -> str:
        toolkit = _find_toolkit()
        # Imported by now, with its package.
        completion = toolkit.completion.WordCompleter(list(words), sentence=True)
        bindings = toolkit.key_binding.KeyBindings()
        buffer = self._session.default_buffer
        nothing_typed = toolkit.filters.Condition(lambda: not buffer.text)
        for key, answer in keys.items():
            bindings.add(key, filter=nothing_typed)(functools.partial(_answer, answer))
        line: str = self._session.prompt(
            question,
            completer=completion,
            key_bindings=bindings,
            complete_while_typing=False,
            in_thread=_is_in_a_loop(),
        )
        return line


def _answer(line: str, event: Any) -> None:
    """Answer a question with a line, which is shown as if it had been typed."""
    event.current_buffer.text = line
    event.current_buffer.validate_and_handle()


def _is_interactive() -> bool:
    return sys.stdin.isatty() and sys.stdout.isatty()


def _is_in_a_loop() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


@functools.cache
def _find_toolkit() -> Any:
    """Return prompt_toolkit; without it say so once."""
    try:
        return import_extra("prompt_toolkit", "server", "Line editing")
    except MissingExtraError as error:
        say(f"({error})\n")
        return None
