"""Sentences with gaps, which can be filled and read back.

An environment fills a template. A reference player sees only the sentence, and reads
the values back.
"""

from __future__ import annotations

import re
from functools import cached_property
from string import Formatter
from typing import Final

_VALUE: Final = r"[^\s.,;:?][^.,;:?]*?"


class Template:
    """A sentence with gaps as in `str.format`; each has a name and occurs once.

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
        """Write the sentence with these values."""
        return self.text.format(**values)

    def read(self, text: str) -> dict[str, str] | None:
        """Give what stands in each gap, or None if the text lacks the sentence."""
        found = self._pattern.search(text)
        return found.groupdict() if found else None

    @cached_property
    def _pattern(self) -> re.Pattern[str]:
        parts = [
            re.escape(literal) + (f"(?P<{gap}>{_VALUE})" if gap else "")
            for literal, gap, _, _ in Formatter().parse(self.text)
        ]
        return re.compile("".join(parts))
