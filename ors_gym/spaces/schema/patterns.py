"""Texts that match a regular expression."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterable, Iterator
from random import Random
from typing import TypeAlias

from ors_gym.spaces.schema import regex
from ors_gym.spaces.schema.nodes import Unusable
from ors_gym.spaces.schema.regex import Regex

__all__ = ["Pattern"]

_MAX_LENGTH = 20_000
_ATTEMPTS = 200
_EXTRA_REPEATS = 4
# A pattern with nested repeats can take time exponential in the length of a text that
# does not match, and `re` cannot be interrupted: such texts stay short.
_MAX_RISKY_LENGTH = 20
_FEW_REPEATS = 10
_MAX_LISTED_REPEATS = 100
_MANY = 10**12

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
        self._minimum = _minimum_length(self._tree)
        self._risky = _is_risky(self._tree)
        if self._minimum > _MAX_LENGTH:
            raise Unusable(
                path,
                f"the pattern needs {self._minimum} characters, more than {_MAX_LENGTH}",
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
                f"the pattern {self._pattern!r:.200} has nested repeats: to look for it "
                f"in {len(text)} characters could take for ever",
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
                f"the pattern {self._pattern!r:.200} has nested repeats: checking a text "
                f"of {max(shortest, self._minimum)} characters could take for ever",
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
        writer = _Writer(random, extra, target, 8 if self._risky else _MAX_LENGTH)
        writer.write(self._tree, 0)
        return "".join(writer.parts)

    def count(self) -> int | None:
        """Return how many texts match at most, or None if there is no end to them."""
        core = _anchored(self._tree)
        return None if core is None else _count(core)

    def texts(self) -> Iterator[str]:
        """Go through the texts that match, some maybe twice, if ``count`` is known."""
        core = _anchored(self._tree)
        if core is not None:
            yield from filter(self.matches, _texts(core))


class _Writer:
    """One attempt at a text.

    Args:
        random: Where chance comes from.
        extra: Repeats beyond the least, at most.
        target: Characters that repeats try to reach, or 0.
        limit: Characters after which no extra repeat is made.
    """

    def __init__(self, random: Random, extra: int, target: int, limit: int) -> None:
        self.random = random
        self.extra = extra
        self.target = target
        self.limit = limit
        self.parts: list[str] = []
        self.length = 0
        self.groups: dict[int | str, str] = {}

    def write(self, tree: Regex, following: int) -> None:
        """Write a text of a tree; ``following`` characters will come after it."""
        match tree:
            case regex.Characters():
                self._append(chr(_draw_code(self.random, tree.spans)))
            case regex.Concatenation(items):
                lengths = [_minimum_length(item) for item in items]
                remaining = sum(lengths) + following
                for item, length in zip(items, lengths, strict=True):
                    remaining -= length
                    self.write(item, remaining)
            case regex.Alternation(options):
                self.write(self.random.choice(options), following)
            case regex.Repeat():
                self._repeat(tree, following)
            case regex.Group(number, name, item):
                start = len(self.parts)
                self.write(item, following)
                text = "".join(self.parts[start:])
                self.groups[number] = text
                if name is not None:
                    self.groups[name] = text
            case regex.Backreference(group):
                self._append(self.groups.get(group, ""))
            case regex.Assertion():
                pass

    def _append(self, text: str) -> None:
        self.parts.append(text)
        self.length += len(text)

    def _repeat(self, tree: regex.Repeat, following: int) -> None:
        most = tree.minimum + self.extra
        if self.target:
            most = max(most, self.target)
        if tree.maximum is not None:
            most = min(most, tree.maximum)
        count = self.random.randint(tree.minimum, max(tree.minimum, most))
        for done in range(max(tree.minimum, most)):
            wanted = done < tree.minimum or (
                self.length + following < self.target
                if self.target
                else done < count and self.length < self.limit
            )
            if not wanted:
                break
            self.write(tree.item, following)


def _draw_code(random: Random, spans: tuple[regex.Span, ...]) -> int:
    if len(spans) == 1:
        low, high = spans[0]
        return low + int(random.random() * (high - low + 1))
    place = int(random.random() * sum(high - low + 1 for low, high in spans))
    for low, high in spans:
        if place <= high - low:
            return low + place
        place -= high - low + 1
    raise AssertionError(spans)


def _minimum_length(tree: Regex) -> int:
    match tree:
        case regex.Characters():
            return 1
        case regex.Concatenation(items):
            return sum(map(_minimum_length, items))
        case regex.Alternation(options):
            return min(map(_minimum_length, options))
        case regex.Repeat(item, minimum, _):
            # Nothing repeated is still work.
            return minimum * max(1, _minimum_length(item))
        case regex.Group(_, _, item):
            return _minimum_length(item)
        case _:
            return 0


def _is_risky(tree: Regex, repeated: bool = False) -> bool:
    """Whether something ambiguous is repeated often: a choice or another repeat."""
    match tree:
        case regex.Repeat(item, minimum, maximum):
            if repeated and maximum != minimum:
                return True
            often = maximum is None or maximum > _FEW_REPEATS
            return _is_risky(item, repeated or often)
        case regex.Alternation(options):
            return repeated or any(_is_risky(option, repeated) for option in options)
        case regex.Concatenation(items):
            return any(_is_risky(item, repeated) for item in items)
        case regex.Group(_, _, item):
            return _is_risky(item, repeated)
        case _:
            return False


def _anchored(tree: Regex) -> Regex | None:
    """What stands between ``^`` and ``$``, if the pattern is the whole text."""
    if not isinstance(tree, regex.Concatenation) or len(tree.items) < 2:
        return None
    first, *middle, last = tree.items
    if first != regex.Assertion("^") or last != regex.Assertion("$"):
        return None
    return regex.Concatenation(tuple(middle))


def _count(tree: Regex) -> int | None:
    match tree:
        case regex.Characters(spans, whole):
            return sum(high - low + 1 for low, high in spans) if whole else None
        case regex.Concatenation(items):
            return _product(_count(item) for item in items)
        case regex.Alternation(options):
            counts = [_count(option) for option in options]
            return None if None in counts else sum(filter(None, counts))
        case regex.Repeat(_, _, 0):
            return 1
        case regex.Repeat(item, minimum, maximum):
            if maximum is None or maximum > _MAX_LISTED_REPEATS:
                return None
            count = _count(item)
            powers = [
                _product([count] * times) for times in range(minimum, maximum + 1)
            ]
            return None if None in powers else sum(filter(None, powers))
        case regex.Group(_, _, item):
            return _count(item)
        case _:
            return None


def _product(counts: Iterable[int | None]) -> int | None:
    product = 1
    for count in counts:
        if count is None:
            return None
        product = min(product * count, _MANY)
    return product


def _texts(tree: Regex) -> Iterator[str]:
    match tree:
        case regex.Characters(spans, _):
            for low, high in spans:
                yield from map(chr, range(low, high + 1))
        case regex.Concatenation(items):
            for parts in itertools.product(*(list(_texts(item)) for item in items)):
                yield "".join(parts)
        case regex.Alternation(options):
            for option in options:
                yield from _texts(option)
        case regex.Repeat(_, _, 0):
            yield ""
        case regex.Repeat(item, minimum, maximum):
            single = list(_texts(item))
            for times in range(minimum, (maximum or 0) + 1):
                for parts in itertools.product(single, repeat=times):
                    yield "".join(parts)
        case regex.Group(_, _, item):
            yield from _texts(item)
