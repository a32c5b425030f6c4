"""Control characters, which a server's text may hold to steer what shows it."""

from __future__ import annotations

from typing import Final

__all__ = ["replace_controls"]

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
