"""Texts that match a regular expression."""

from __future__ import annotations

import re
import string
from collections.abc import Callable, Iterator
from random import Random
from typing import TypeAlias

from ors_gym.spaces.schema import regex
from ors_gym.spaces.schema.nodes import Unusable
from ors_gym.spaces.schema.regex_tree import Assertion, Concatenation, Tree, Writer

__all__ = ["Pattern", "word"]

_MAX_LENGTH = 20_000
_ATTEMPTS = 200
_EXTRA_REPEATS = 4
_LETTERS = string.ascii_lowercase + string.ascii_uppercase + string.digits
# How often a pattern that may match in the middle is put there.
_AFFIXED = 0.25
# A pattern with nested repeats can take time exponential in the length of a text that
# does not match, and `re` cannot be interrupted: such texts stay short.
_MAX_RISKY_LENGTH = 20

_Accepts: TypeAlias = Callable[[str], bool]


class Pattern:
    r"""A regular expression to draw from.

    Draws are made by rule and checked with ``re.search``, as a validator does, so
    lookarounds and word boundaries work where chance finds them.

    Args:
        pattern: As in a JSON Schema's ``pattern``: it may match anywhere.
        path: Where in the schema it stands, for errors.

    Raises:
        Unusable: If Python's ``re`` or our parser cannot read it.

    Example:
        >>> pattern = Pattern(r"^[a-c]-\d{3}$", "#/pattern")
        >>> import random
        >>> bool(re.search(r"^[a-c]-\d{3}$", pattern.draw(random.Random(1), 0, None)))
        True
        >>> pattern.count()
        3000
    """

    def __init__(self, pattern: str, path: str) -> None:
        self._path = path
        self._pattern = pattern
        try:
            self._search = re.compile(pattern).search
            self._tree = regex.parse(pattern)
        except (re.error, OverflowError, RecursionError) as error:
            raise Unusable(
                path, f"Python's re cannot read the pattern {pattern!r:.200}: {error}"
            ) from None
        except regex.UnsupportedPatternError as error:
            raise Unusable(
                path, f"the pattern {pattern!r:.200} has {error}, which is not sampled"
            ) from None
        self._minimum = self._tree.shortest()
        self._open_start = not _is_assertion(self._tree, 0)
        self._open_end = not _is_assertion(self._tree, -1)
        self._risky = self._tree.is_ambiguous(repeated=False)
        if self._minimum > _MAX_LENGTH:
            raise Unusable(
                path,
                f"it needs {self._minimum} characters, more than {_MAX_LENGTH}",
            )

    def matches(self, text: str) -> bool:
        """Return whether the pattern is found in a text.

        Args:
            text: Any text.

        Raises:
            Unusable: If to find out could take for ever.
        """
        if self._risky and len(text) > _MAX_RISKY_LENGTH:
            raise Unusable(
                self._path,
                f"the pattern {self._pattern!r:.200} has nested repeats: looking for "
                f"it in {len(text)} characters could take for ever",
            )
        return self._search(text) is not None

    def draw(
        self,
        random: Random,
        shortest: int,
        longest: int | None,
        accepts: _Accepts = bool,
    ) -> str:
        """Draw a text that matches.

        Args:
            random: Where chance comes from.
            shortest: Least number of characters.
            longest: Largest number of characters, or None.
            accepts: What else must be true of the text; not asked by default.

        Raises:
            Unusable: If no attempt gave such a text.
        """
        if self._risky and max(shortest, self._minimum) > _MAX_RISKY_LENGTH:
            raise Unusable(
                self._path,
                f"the pattern {self._pattern!r:.200} has nested repeats: looking for "
                f"it in {max(shortest, self._minimum)} characters could take for ever",
            )
        for attempt in range(_ATTEMPTS):
            text = self._attempt(random, attempt, shortest, longest)
            if (
                len(text) >= shortest
                and (longest is None or len(text) <= longest)
                and not (self._risky and len(text) > _MAX_RISKY_LENGTH)
                and self.matches(text)
                and (accepts is bool or accepts(text))
            ):
                return text
        raise Unusable(
            self._path,
            f"{_ATTEMPTS} attempts gave no text of {shortest} to "
            f"{'any number of' if longest is None else longest} characters that "
            f"matches {self._pattern!r:.200} and its siblings",
        )

    def _attempt(
        self, random: Random, attempt: int, shortest: int, longest: int | None
    ) -> str:
        # Every other attempt aims at a length, for when chance alone would take long.
        target = 0
        if attempt % 2 and (shortest or longest is not None):
            top = shortest + 8 if longest is None else min(longest, shortest + 8)
            target = random.randint(shortest, max(shortest, top))
        extra = 0 if attempt % 8 == 4 else _EXTRA_REPEATS
        if attempt % 8 == 6:
            extra = max(extra, shortest)
        before = after = ""
        if self._open_start and random.random() < _AFFIXED:
            before = word(random, random.randint(1, 3))
        if self._open_end and random.random() < _AFFIXED:
            after = word(random, random.randint(1, 3))
        writer = Writer(random, extra, target, 8 if self._risky else _MAX_LENGTH)
        self._tree.write(writer, 0)
        if self._open_end and target > writer.length:
            after = word(random, target - writer.length)
        return "".join([before, *writer.parts, after])

    def count(self) -> int | None:
        """Return how many texts match at most, or None if there is no end to them."""
        core = _anchored(self._tree)
        return None if core is None else core.count()

    def texts(self) -> Iterator[str]:
        """Go through the texts that match, some maybe twice, if ``count`` is known."""
        core = _anchored(self._tree)
        if core is not None:
            yield from filter(self.matches, core.texts())


def word(random: Random, length: int) -> str:
    """Draw letters and digits.

    Args:
        random: Where chance comes from.
        length: Number of characters.
    """
    return "".join(random.choices(_LETTERS, k=length))


def _is_assertion(tree: Tree, place: int) -> bool:
    """Whether a pattern begins (0) or ends (-1) with something of no width."""
    if isinstance(tree, Concatenation) and tree.items:
        tree = tree.items[place]
    return isinstance(tree, Assertion)


def _anchored(tree: Tree) -> Tree | None:
    """What stands between ``^`` and ``$``, if the pattern is the whole text."""
    if not isinstance(tree, Concatenation) or len(tree.items) < 2:
        return None
    first, *middle, last = tree.items
    if first != Assertion("^") or last != Assertion("$"):
        return None
    return Concatenation(tuple(middle))
