"""Lines and episodes in a terminal."""

from __future__ import annotations

import functools
import sys
from typing import Any, Final

from ors_gym._shown_text import clean
from ors_gym.display._transcript import Entry
from ors_gym.errors import MissingExtraError, import_extra

_COLOURS: Final = {"good": "bold green", "bad": "bold red", "muted": "dim"}
"""A step's `Entry.mood` in the words of rich."""


def say(text: object = "") -> None:
    """Print a line at once."""
    print(printable(text), flush=True)  # noqa: T201


def print_entry(entry: Entry) -> None:
    """Print the prompt or a step, in colours if rich is installed.

    Example:
        >>> print_entry(Entry.of_step("submit", {"answer": 4}, "Right.", 1.0))
        > submit(answer=4)
        Right.
        [reward 1]
        <BLANKLINE>
    """
    rich = _find_rich()
    if rich is None:
        say(f"{entry}\n")
        return
    make_text, make_console = rich
    shown = make_text()
    if entry.call:
        shown.append(f"> {printable(entry.call)}\n", "bold cyan")
    shown.append(printable(entry.text), "yellow" if entry.failed else "")
    if entry.call:
        shown.append(f"\n{entry.ending}", _COLOURS[entry.mood])
    # A new console each time, since the standard output may have been replaced.
    make_console(force_jupyter=False).print(shown, soft_wrap=True, end="\n\n")


def printable(text: object) -> str:
    """Clean a text, and escape what the standard output has no character for.

    Printing must not raise: the result of a step would be lost.
    """
    encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
    return clean(text).encode(encoding, "backslashreplace").decode(encoding)


@functools.cache
def _find_rich() -> tuple[Any, Any] | None:
    """Return rich's ``Text`` and ``Console``; without rich say so once."""
    try:
        text, console = (
            import_extra(module, "server", "Colour in the terminal")
            for module in ("rich.text", "rich.console")
        )
    except MissingExtraError as error:
        say(f"({error})\n")
        return None
    return text.Text, console.Console
