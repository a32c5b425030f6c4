"""Patterns of a schema: texts that match, and whether a text does, in bounded work.

Python's ``re`` goes back and forth, which can take time exponential in a text's length.
`Search` estimates that from the syntax tree. Where it is too long, the text is read
once, with the set of all places in the pattern that its beginning may have led to
(Thompson's construction), and the steps are counted, with those that ``re`` may need
for a lookahead.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import re
import string
from collections.abc import Callable, Iterator
from random import Random
from typing import TypeAlias

from ors_gym.spaces._sampler import regex
from ors_gym.spaces._sampler.nodes import Unusable

_MAX_LENGTH = 20_000
_ATTEMPTS = 200
_EXTRA_REPEATS = 4
_LETTERS = string.ascii_lowercase + string.ascii_uppercase + string.digits
# How often a pattern that may match in the middle is put there.
_AFFIXED = 0.25
_Accepts: TypeAlias = Callable[[str], bool]
_QUICK_BITS = 22.0
"""``re`` may need two to this number of steps, which take less than a second."""
_LENGTHS = tuple(1 << exponent for exponent in range(24, 1, -1))
_MAX_STATES = 20_000
_MAX_STEPS = 3_000_000
_STEPS_OF_RE = 16
"""How many steps of ``re`` count as one of ours, which takes longer."""
_QUANTIFIERS = frozenset("*+?{")


class Pattern:
    """A regular expression to draw from.

    As in a JSON Schema's ``pattern`` it may match anywhere in a text. Draws are made by
    rule and checked with ``re.search``, as a validator does, so lookarounds and word
    boundaries work where chance finds them.
    """

    def __init__(self, pattern: str, path: str) -> None:
        self._path = path
        self._pattern = pattern
        try:
            self._search = search(pattern)
            self._tree = regex.parse(pattern)
        except (re.error, OverflowError, RecursionError) as error:
            raise Unusable(
                path, f"Python's re cannot read the pattern {pattern!r:.200}: {error}"
            ) from None
        except regex.UnsupportedPatternError as error:
            raise Unusable(
                path, f"the pattern {pattern!r:.200} has {error}, which is not sampled"
            ) from None
        self.minimum = self._tree.shortest()
        self._open_start = not regex.is_bare(self._tree, 0)
        self._open_end = not regex.is_bare(self._tree, -1)
        # Texts that take long to check stay short.
        self._limit = min(_MAX_LENGTH, max(8, self._search.longest_quick))
        if self.minimum > _MAX_LENGTH:
            raise Unusable(
                path, f"it needs {self.minimum} characters, more than {_MAX_LENGTH}"
            )

    def matches(self, text: str) -> bool:
        """Return whether the pattern is found in a text; raise if that may last."""
        try:
            return self._search.found(text)
        except TooMuchError as reason:
            raise Unusable(self._path, str(reason)) from None

    def draw(
        self,
        random: Random,
        shortest: int,
        longest: int | None,
        accepts: _Accepts = bool,
    ) -> str:
        """Draw a text that matches and that ``accepts``, or raise Unusable."""
        for attempt in range(_ATTEMPTS):
            text = self._attempt(random, attempt, shortest, longest)
            if (
                len(text) >= shortest
                and (longest is None or len(text) <= longest)
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
        # Every other attempt aims at a length, which chance alone may rarely hit.
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
        writer = regex.Writer(random, extra, target, self._limit)
        self._tree.write(writer, 0)
        if self._open_end and target > writer.length:
            after = word(random, target - writer.length)
        return "".join([before, *writer.parts, after])

    def count(self) -> int | None:
        """Return how many texts match at most; None if infinitely many do."""
        core = regex.anchored_core(self._tree)
        return None if core is None else core.count()

    def texts(self) -> Iterator[str]:
        """Go through the texts that match, some maybe twice, if ``count`` is known."""
        core = regex.anchored_core(self._tree)
        if core is not None:
            yield from filter(self.matches, core.texts())


def word(random: Random, length: int) -> str:
    """Draw a text of letters and digits."""
    return "".join(random.choices(_LETTERS, k=length))


class TooMuchError(ValueError):
    """Raised when a search would take too long; the message says why."""


@functools.lru_cache(maxsize=1_000)
def search(pattern: str) -> Search:
    """Return the search for a pattern, or raise `re.error`."""
    return Search(pattern)


class Search:
    """A search for one pattern, as ``re.search`` does it."""

    def __init__(self, pattern: str) -> None:
        self._pattern = pattern
        self._search = re.compile(pattern).search
        self._tree: regex.Tree | None = None
        with contextlib.suppress(regex.UnsupportedPatternError, RecursionError):
            self._tree = regex.parse(pattern)
        self.longest_quick = self._find_longest_quick()

    def _find_longest_quick(self) -> int:
        """Return the length of a text up to which ``re`` is quick for certain."""
        if self._tree is None:
            return 0 if _QUANTIFIERS & set(self._pattern) else _LENGTHS[0]
        anchored = regex.is_anchored(self._tree)
        for length in _LENGTHS:
            # Without an anchor the search starts anew at each place.
            starts = 0.0 if anchored else regex.bits(length)
            if starts + self._tree.bits(length) <= _QUICK_BITS:
                return length
        return 0

    def found(self, text: str) -> bool:
        """Return whether the pattern matches somewhere, or raise `TooMuchError`."""
        if len(text) <= self.longest_quick:
            return self._search(text) is not None
        try:
            start = self._automaton
        except re.error:
            start = None
        if start is None:
            raise TooMuchError(
                f"looking for the pattern {self._pattern!r:.200} in {len(text)} "
                f"characters could take for ever"
            )
        return self._run(start, text)

    @functools.cached_property
    def _automaton(self) -> _State | None:
        return None if self._tree is None else _Builder().build(self._tree)

    def _run(self, start: _State, text: str) -> bool:
        steps = 0
        current: dict[_State, None] = {}
        for position in range(len(text) + 1):
            pending = [*current, start]
            following: dict[_State, None] = {}
            seen: set[_State] = set()
            while pending:
                state = pending.pop()
                if state in seen:
                    continue
                seen.add(state)
                steps += 1
                if state.final:
                    return True
                if state.accepts is not None:
                    if position < len(text) and state.accepts(text[position]):
                        following.update(dict.fromkeys(state.following))
                elif state.assertion is None:
                    pending.extend(state.following)
                else:
                    steps += state.assertion.steps(len(text) - position)
                    # If that is too many, it is not looked for, and this is the end.
                    if steps <= _MAX_STEPS and state.assertion.holds(text, position):
                        pending.extend(state.following)
            if steps > _MAX_STEPS:
                raise TooMuchError(
                    f"looking for the pattern {self._pattern!r:.200} in {len(text)} "
                    f"characters takes more than {_MAX_STEPS} steps"
                )
            current = following
        return False


@dataclasses.dataclass(eq=False, slots=True)
class _State:
    """A place in a pattern."""

    following: list[_State]
    accepts: Callable[[str], bool] | None = None
    """Whether a character leads on; None if none is read here."""
    assertion: _Assertion | None = None
    """What has no width and must hold here."""
    final: bool = False


class _Assertion:
    """What has no width, which ``re`` looks for, and the steps that this may take."""

    def __init__(self, tree: regex.Assertion) -> None:
        self._bits = tree.bits
        self._match = re.compile(tree.source).match

    def steps(self, length: int) -> int:
        """Return how many of our steps it may take where so many characters follow."""
        return int(2 ** min(self._bits(length), 64)) // _STEPS_OF_RE

    def holds(self, text: str, position: int) -> bool:
        return self._match(text, position) is not None


class _Builder:
    """Builds the states of a tree from its end to its beginning."""

    def __init__(self) -> None:
        self._count = 0

    def build(self, tree: regex.Tree) -> _State | None:
        """Return the first state; None if there is no such automaton."""
        try:
            return self._before(tree, _State([], final=True))
        except (TooMuchError, RecursionError):
            return None

    def _state(self, following: list[_State]) -> _State:
        self._count += 1
        if self._count > _MAX_STATES:
            raise TooMuchError("too many states")
        return _State(following)

    def _before(self, tree: regex.Tree, end: _State) -> _State:
        if isinstance(tree, regex.Concatenation):
            for item in reversed(tree.items):
                end = self._before(item, end)
            return end
        if isinstance(tree, regex.Alternation):
            return self._state([self._before(option, end) for option in tree.options])
        if isinstance(tree, regex.Repeat):
            return self._repeat(tree, end)
        state = self._state([end])
        if isinstance(tree, regex.Characters):
            state.accepts = _character_test(tree.source)
        elif isinstance(tree, regex.Assertion):
            state.assertion = _Assertion(tree)
        else:
            raise TooMuchError("no finite automaton")
        return state

    def _repeat(self, tree: regex.Repeat, end: _State) -> _State:
        if tree.possessive or tree.minimum > _MAX_STATES:
            raise TooMuchError("no finite automaton")
        if tree.maximum is None:
            loop = self._state([end])
            loop.following.append(self._before(tree.item, loop))
            state = loop
        else:
            state = end
            for _ in range(tree.maximum - tree.minimum):
                state = self._state([self._before(tree.item, state), end])
        for _ in range(tree.minimum):
            state = self._before(tree.item, state)
        return state


@functools.lru_cache(maxsize=1_000)
def _character_test(source: str) -> Callable[[str], bool]:
    """Return ``re``'s own test of one character, which it answers once for each."""
    match = re.compile(source).fullmatch
    return functools.lru_cache(maxsize=1_000)(lambda one: match(one) is not None)
