"""Control characters, which a server's text may hold to steer what shows it."""

from __future__ import annotations

import functools
from typing import Any, Final

from ors_gym.display._transcript import Entry
from ors_gym.errors import MissingExtraError, import_extra

__all__ = ["clean", "print_entry", "replace_controls", "say"]

_REPLACEMENTS: Final = {
    code: "\ufffd" for code in (*range(32), *range(127, 160)) if chr(code) not in "\t\n"
}


def replace_controls(text: str) -> str:
    r"""Replace control characters by U+FFFD, all but tabs and line ends.

    Args:
        text: Any text.

    Example:
        >>> replace_controls("a\tb\x1b[2J") == "a\tb\ufffd[2J"
        True
    """
    return text.translate(_REPLACEMENTS)


def clean(text: object) -> str:
    r"""Return a text without what would steer a terminal: it may be a server's.

    Args:
        text: The text, or something that has one.

    Example:
        >>> clean("a\tb\x1b[2J")
        'a\tb\ufffd[2J'
    """
    return replace_controls(str(text))


def say(text: object = "") -> None:
    """Print a line.

    Args:
        text: The line, or something that can be printed as one.
    """
    print(clean(text), flush=True)  # noqa: T201


def print_entry(entry: Entry) -> None:
    """Print the prompt or a step, in colours if rich is installed.

    Args:
        entry: The prompt or a step.

    Example:
        >>> print_entry(Entry("Right.", (), "submit(answer=4)", 1.0, "finished"))
        > submit(answer=4)
        Right.
        [reward 1, finished]
        <BLANKLINE>
    """
    rich_text = _find_rich()
    if rich_text is None:
        say(f"{entry}\n")
        return
    text, console = rich_text
    shown = text.Text()
    if entry.call:
        shown.append(f"> {clean(entry.call)}\n", "bold cyan")
    shown.append(clean(entry.text), "yellow" if entry.failed else "")
    if entry.call:
        shown.append(f"\n{entry.ending}", _colour(entry))
    # A console of its own each time, since the standard output may be replaced.
    console.Console(force_jupyter=False).print(shown, soft_wrap=True, end="\n\n")


def _colour(entry: Entry) -> str:
    if entry.reward > 0:
        return "bold green"
    return "bold red" if entry.reward < 0 or entry.failed else "dim"


@functools.cache
def _find_rich() -> tuple[Any, Any] | None:
    """Return rich's modules; None, and a word about it, if it is not installed."""
    try:
        text, console = (
            import_extra(module, "server", "Colour in the terminal")
            for module in ("rich.text", "rich.console")
        )
    except MissingExtraError as error:
        say(f"({error})\n")
        return None
    return text, console
