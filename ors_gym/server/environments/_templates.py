"""Sentences with gaps, that can be filled and read back.

An environment fills a template; a reference player, which sees the sentence alone,
reads the values back.
"""

from __future__ import annotations

import re
from functools import cached_property
from string import Formatter
from typing import Final

__all__ = ["Template"]

_VALUE: Final = r"[^\s.,;:?][^.,;:?]*?"


class Template:
    """A sentence whose gaps are written as in `str.format`.

    Args:
        text: The sentence; each gap has a name and occurs once.

    Example:
        >>> template = Template("{name} has {count} apples.")
        >>> template.fill(name="Ada", count=3)
        'Ada has 3 apples.'
        >>> template.read("Question: Ada has 3 apples.")
        {'name': 'Ada', 'count': '3'}
    """

    def __init__(self, text: str) -> None:
        self.text = text

    def fill(self, **values: object) -> str:
        """Write the sentence.

        Args:
            **values: What goes into each gap.

        Returns:
            The sentence.
        """
        return self.text.format(**values)

    def read(self, text: str) -> dict[str, str] | None:
        """Find the sentence in a text.

        Args:
            text: Any text.

        Returns:
            What stands in each gap, or None if the sentence is not there.
        """
        found = self._pattern.search(text)
        return found.groupdict() if found else None

    @cached_property
    def _pattern(self) -> re.Pattern[str]:
        parts = [
            re.escape(literal) + (f"(?P<{gap}>{_VALUE})" if gap else "")
            for literal, gap, _, _ in Formatter().parse(self.text)
        ]
        return re.compile("".join(parts))
