"""Regular expressions: the syntax tree, and texts that match it."""

from __future__ import annotations

import dataclasses
import functools
import itertools
import math
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from random import Random
from typing import TypeAlias


def is_bare(tree: Tree, place: int) -> bool:
    """Return whether a pattern begins (0) or ends (-1) with something of no width."""
    if isinstance(tree, Concatenation) and tree.items:
        tree = tree.items[place]
    return _is_bare_assertion(tree)


def _is_bare_assertion(tree: Tree) -> bool:
    return isinstance(tree, Assertion) and tree.item is None


def is_anchored(tree: Tree) -> bool:
    """Return whether a pattern can match at the beginning of a text only."""
    if isinstance(tree, Concatenation):
        return bool(tree.items) and is_anchored(tree.items[0])
    if isinstance(tree, Alternation):
        return all(map(is_anchored, tree.options))
    return isinstance(tree, Assertion) and tree.kind == "^" and "(?" not in tree.source


def anchored_core(tree: Tree) -> Tree | None:
    """Return what stands between ``^`` and ``$``, if the pattern is the whole text."""
    if not isinstance(tree, Concatenation) or len(tree.items) < 2:
        return None
    first, *middle, last = tree.items
    if not isinstance(first, Assertion) or not isinstance(last, Assertion):
        return None
    if (first.kind, last.kind) != ("^", "$"):
        return None
    return Concatenation(tuple(middle))


_Span: TypeAlias = tuple[int, int]
"""Code points, first and last."""

_MAX_LISTED_REPEATS = 100
_MANY = 10**12
_MAX_WRITTEN_OUT = 256
"""Characters of a set that are kept as one text."""


@dataclasses.dataclass(slots=True)
class Writer:
    """One attempt at a text."""

    random: Random
    extra: int
    """Repeats beyond the least, at most."""
    target: int
    """Characters that repeats try to reach, or 0."""
    limit: int
    """Characters after which no extra repeat is made."""
    parts: list[str] = dataclasses.field(default_factory=list)
    length: int = 0
    groups: dict[int | str, str] = dataclasses.field(default_factory=dict)

    def append(self, text: str) -> None:
        self.parts.append(text)
        self.length += len(text)


class Tree(ABC):
    """A regular expression, or a part of one."""

    __slots__ = ()

    def shortest(self) -> int:
        """Return the least number of characters."""
        return 0

    def bits(self, length: int) -> float:  # noqa: ARG002
        """Return in how many ways ``re`` may match a text of a length, as bits."""
        return 0.0

    def is_variable(self) -> bool:
        """Return whether one text may match in several ways."""
        return False

    def count(self) -> int | None:
        """Return how many texts there are at most; None if that has no end."""
        return None

    def texts(self) -> Iterator[str]:
        """Go through the texts, some maybe twice, where ``count`` is known."""
        return iter(())

    @abstractmethod
    def write(self, writer: Writer, following: int) -> None:
        """Write a text; at least ``following`` characters will come after it."""

    def write_often(
        self, writer: Writer, following: int, least: int, most: int, end: int
    ) -> None:
        """Write ``least`` to ``most`` texts, beyond the least only up to ``end``.

        ``end`` is a length of all that the writer has.
        """
        for done in range(most):
            if done >= least and writer.length >= end:
                return
            self.write(writer, following)


@dataclasses.dataclass(frozen=True)
class Characters(Tree):
    """One character out of a set."""

    spans: tuple[_Span, ...]
    """Code points to draw from."""
    whole: bool = True
    """Whether these are all that the set has, so that it can be listed."""
    source: str = ""
    """How it is written, on its own."""

    def shortest(self) -> int:
        return 1

    def count(self) -> int | None:
        return len(self._alphabet) if self.whole else None

    @functools.cached_property
    def _alphabet(self) -> str | _Alphabet:
        alphabet = _Alphabet(self.spans)
        return "".join(alphabet) if len(alphabet) <= _MAX_WRITTEN_OUT else alphabet

    def texts(self) -> Iterator[str]:
        return iter(self._alphabet)

    def write(self, writer: Writer, following: int) -> None:  # noqa: ARG002
        alphabet = self._alphabet
        writer.append(alphabet[int(writer.random.random() * len(alphabet))])

    def write_often(
        self,
        writer: Writer,
        following: int,  # noqa: ARG002
        least: int,
        most: int,
        end: int,
    ) -> None:
        # Each is one long, so how many there will be is known.
        room = end - writer.length
        times = most if most <= room else max(least, room)
        writer.append("".join(writer.random.choices(self._alphabet, k=times)))


class _Alphabet:
    """The characters of spans, which may be too many to be written out."""

    def __init__(self, spans: tuple[_Span, ...]) -> None:
        self._ranges = [range(low, high + 1) for low, high in spans]
        self._length = sum(map(len, self._ranges))

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, place: int) -> str:
        for codes in self._ranges:
            if place < len(codes):
                return chr(codes[place])
            place -= len(codes)
        raise IndexError(place)

    def __iter__(self) -> Iterator[str]:
        return map(chr, itertools.chain.from_iterable(self._ranges))


@dataclasses.dataclass(frozen=True)
class Concatenation(Tree):
    """One thing after another."""

    items: tuple[Tree, ...]

    def shortest(self) -> int:
        return sum(item.shortest() for item in self.items)

    def bits(self, length: int) -> float:
        return sum(item.bits(length) for item in self.items)

    def is_variable(self) -> bool:
        return any(item.is_variable() for item in self.items)

    def count(self) -> int | None:
        return _product(item.count() for item in self.items)

    def texts(self) -> Iterator[str]:
        return _joined([item.texts() for item in self.items])

    def write(self, writer: Writer, following: int) -> None:
        for item, after in self._steps:
            item.write(writer, following + after)

    @functools.cached_property
    def _steps(self) -> list[tuple[Tree, int]]:
        """The items to be written, and the least number of characters after each."""
        steps: list[tuple[Tree, int]] = []
        after = 0
        for item in reversed(self.items):
            if not _is_bare_assertion(item):
                steps.append((item, after))
            after += item.shortest()
        return steps[::-1]


@dataclasses.dataclass(frozen=True, slots=True)
class Alternation(Tree):
    """One of several."""

    options: tuple[Tree, ...]

    def shortest(self) -> int:
        return min(option.shortest() for option in self.options)

    def bits(self, length: int) -> float:
        most = max(option.bits(length) for option in self.options)
        return bits(len(self.options) - 1) + most

    def is_variable(self) -> bool:
        return True

    def count(self) -> int | None:
        return _sum(option.count() for option in self.options)

    def texts(self) -> Iterator[str]:
        return itertools.chain.from_iterable(o.texts() for o in self.options)

    def write(self, writer: Writer, following: int) -> None:
        writer.random.choice(self.options).write(writer, following)


@dataclasses.dataclass(frozen=True, slots=True)
class Repeat(Tree):
    """The same again: ``minimum`` to ``maximum`` times (None: any number)."""

    item: Tree
    minimum: int
    maximum: int | None
    possessive: bool = False
    """Whether it gives nothing back, as ``a++`` and ``(?>a)`` do."""

    def shortest(self) -> int:
        # Nothing, repeated, is still work.
        return self.minimum * max(1, self.item.shortest())

    def bits(self, length: int) -> float:
        times = max(1, length // max(1, self.item.shortest()))
        if self.maximum is not None:
            times = min(times, self.maximum)
        choices = bits(times - self.minimum) if self.maximum != self.minimum else 0.0
        inner = self.item.bits(length // max(1, times))
        # Where one repeat ends and the next begins is a choice of its own.
        return choices + times * (inner + self.item.is_variable())

    def is_variable(self) -> bool:
        return self.maximum != self.minimum or self.item.is_variable()

    def count(self) -> int | None:
        if self.maximum == 0:
            return 1
        if self.maximum is None or self.maximum > _MAX_LISTED_REPEATS:
            return None
        count = self.item.count()
        times = range(self.minimum, self.maximum + 1)
        return _sum(_product([count] * number) for number in times)

    def texts(self) -> Iterator[str]:
        if not self.maximum:
            yield ""
            return
        single = list(self.item.texts())
        for number in range(self.minimum, self.maximum + 1):
            yield from _joined([single] * number)

    def write(self, writer: Writer, following: int) -> None:
        least = self.minimum
        most = least + max(writer.extra, writer.target)
        if self.maximum is not None and self.maximum < most:
            most = self.maximum
        count = writer.random.randint(least, most)
        if writer.target:
            end = writer.target - following
        else:
            most, end = count, writer.limit + 1
        self.item.write_often(writer, following, least, most, end)


@dataclasses.dataclass(frozen=True)
class _Group(Concatenation):
    """What a backreference can refer to, by number or by name."""

    number: int
    name: str | None

    def write(self, writer: Writer, following: int) -> None:
        start = len(writer.parts)
        Concatenation.write(self, writer, following)
        text = "".join(writer.parts[start:])
        writer.groups[self.number] = text
        if self.name is not None:
            writer.groups[self.name] = text


@dataclasses.dataclass(frozen=True, slots=True)
class _Backreference(Tree):
    """The text of a group again."""

    group: int | str

    def write(self, writer: Writer, following: int) -> None:  # noqa: ARG002
        writer.append(writer.groups.get(self.group, ""))


@dataclasses.dataclass(frozen=True, slots=True)
class Assertion(Tree):
    """Something of no width: ``^``, ``$``, or another (``""``), left to ``re``."""

    kind: str
    item: Tree | None = None
    """What must or must not stand here, if it looks around."""
    ahead: bool = False
    """Whether that must stand here, so that it may be ours to write."""
    source: str = ""

    def bits(self, length: int) -> float:
        return 0.0 if self.item is None else self.item.bits(length)

    def write(self, writer: Writer, following: int) -> None:
        if self.item is not None and self.ahead and writer.random.random() < 0.5:
            self.item.write(writer, following)


def bits(number: float) -> float:
    """Return log2(number + 1): the bits that tell number + 1 cases apart."""
    return math.log2(number + 1) if number > 0 else 0.0


def _sum(counts: Iterable[int | None]) -> int | None:
    total = 0
    for count in counts:
        if count is None:
            return None
        total += count
    return total


def _product(counts: Iterable[int | None]) -> int | None:
    product = 1
    for count in counts:
        if count is None:
            return None
        product = min(product * count, _MANY)
    return product


def _joined(choices: Sequence[Iterable[str]]) -> Iterator[str]:
    return map("".join, itertools.product(*choices))


_LAST_CHARACTER = 0xFFFF
_SURROGATES = (0xD800, 0xDFFF)
_PRINTABLE = (0x20, 0x7E)
_LINE_ENDS = ((0x0A, 0x0A), (0x0D, 0x0D))
_MAX_DEPTH = 50

# ECMA 262: \d and \w are ASCII, so these are whole; \s is not.
_CLASSES: dict[str, tuple[_Span, ...]] = {
    "d": ((0x30, 0x39),),
    "w": ((0x30, 0x39), (0x41, 0x5A), (0x5F, 0x5F), (0x61, 0x7A)),
    "s": ((0x20, 0x20), (0x09, 0x0D)),
}
_ASSERTIONS = {"A": "^", "B": "", "Z": "$", "b": "", "z": "$"}
_ESCAPES = {"t": 9, "n": 10, "v": 11, "f": 12, "r": 13, "a": 7, "0": 0}


class UnsupportedPatternError(ValueError):
    """Raised when a pattern has a construct that this parser does not know."""


def parse(pattern: str) -> Tree:
    parser = _Parser(pattern)
    tree = parser.alternation()
    if parser.position < len(pattern):
        raise parser.unsupported("an unbalanced parenthesis")
    return tree


class _Parser:
    def __init__(self, pattern: str) -> None:
        self.pattern = pattern
        self.position = 0
        self.groups = 0
        self.depth = 0
        self.wraps: list[str] = []
        """The beginnings of the groups with flags around."""

    def unsupported(self, what: str) -> UnsupportedPatternError:
        return UnsupportedPatternError(f"{what} at character {self.position}")

    def peek(self, text: str) -> bool:
        return self.pattern.startswith(text, self.position)

    def accept(self, text: str) -> bool:
        if not self.peek(text):
            return False
        self.position += len(text)
        return True

    def take(self) -> str:
        if self.position >= len(self.pattern):
            raise self.unsupported("an unexpected end")
        self.position += 1
        return self.pattern[self.position - 1]

    def until(self, end: str) -> str:
        stop = self.pattern.find(end, self.position)
        if stop < 0:
            raise self.unsupported(f"a missing {end!r}")
        text = self.pattern[self.position : stop]
        self.position = stop + len(end)
        return text

    def alternation(self) -> Tree:
        self.depth += 1
        if self.depth > _MAX_DEPTH:
            raise self.unsupported(f"more than {_MAX_DEPTH} nested groups")
        options = [self.concatenation()]
        while self.accept("|"):
            options.append(self.concatenation())
        self.depth -= 1
        return options[0] if len(options) == 1 else Alternation(tuple(options))

    def concatenation(self) -> Tree:
        items: list[Tree] = []
        while self.position < len(self.pattern) and not (
            self.peek("|") or self.peek(")")
        ):
            start = self.position
            atom = self.atom()
            if isinstance(atom, Characters | Assertion):
                written = self.pattern[start : self.position]
                source = "".join([*self.wraps, written, ")" * len(self.wraps)])
                atom = dataclasses.replace(atom, source=source)
            items.append(self.repetition(atom))
        return items[0] if len(items) == 1 else Concatenation(tuple(items))

    def repetition(self, item: Tree) -> Tree:
        while True:
            bounds = self.quantifier()
            if bounds is None:
                return item
            # A lazy repeat matches other parts of a text, not other texts.
            possessive = not self.accept("?") and self.accept("+")
            item = Repeat(item, *bounds, possessive)

    def quantifier(self) -> tuple[int, int | None] | None:
        for sign, bounds in (("*", (0, None)), ("+", (1, None)), ("?", (0, 1))):
            if self.accept(sign):
                return bounds
        if not self.peek("{"):
            return None
        start = self.position
        self.position += 1
        low, comma, high = self.number(), self.accept(","), self.number()
        if not self.accept("}") or (not comma and not low):
            # Not a quantifier after all: the brace stands for itself.
            self.position = start
            return None
        if not comma:
            return int(low), int(low)
        return int(low or 0), int(high) if high else None

    def number(self) -> str:
        start = self.position
        while self.pattern[self.position : self.position + 1] in tuple("0123456789"):
            self.position += 1
        if self.position - start > 9:
            raise self.unsupported("too large a number")
        return self.pattern[start : self.position]

    def atom(self) -> Tree:
        character = self.take()
        if character in "^$":
            return Assertion(character)
        if character == ".":
            return _prefer_printable(_complement(_LINE_ENDS), whole=False)
        if character == "[":
            return self.character_class()
        if character == "(":
            return self.group()
        if character == "\\":
            return self.escape()
        return _one(ord(character))

    def group(self) -> Tree:
        if not self.accept("?"):
            return self.captured(None)
        if self.accept("=") or self.accept("<="):
            # What must stand ahead or behind may be ours to write, or be there anyway.
            return Assertion("", self.closed(), ahead=True)
        if self.accept("!") or self.accept("<!"):
            return Assertion("", self.closed())
        if self.accept("P=") or self.peek("#"):
            name = self.until(")")
            # What begins with # is a comment.
            return Concatenation(()) if name[:1] == "#" else _Backreference(name)
        if self.accept("P<") or self.accept("<"):
            return self.captured(self.until(">"))
        return self.flags()

    def flags(self) -> Tree:
        """Parse a group that is not captured, with or without flags of its own."""
        if self.accept(":"):
            return self.closed()
        if self.accept(">"):
            return Repeat(self.closed(), 1, 1, possessive=True)
        start = self.position
        while self.take() in "aiLmsu-":
            pass
        self.position -= 1
        wrap = f"(?{self.pattern[start : self.position]}:"
        if self.position > start and self.accept(")"):
            self.wraps.append(wrap)
            return Concatenation(())
        if self.position > start and self.accept(":"):
            self.wraps.append(wrap)
            item = self.closed()
            self.wraps.pop()
            return item
        raise self.unsupported("an unknown kind of group")

    def captured(self, name: str | None) -> Tree:
        self.groups += 1
        number = self.groups
        return _Group((self.closed(),), number, name)

    def closed(self) -> Tree:
        item = self.alternation()
        if not self.accept(")"):
            raise self.unsupported("a missing ')'")
        return item

    def escape(self) -> Tree:
        letter = self.take()
        if letter in _ASSERTIONS:
            return Assertion(_ASSERTIONS[letter])
        if letter in "123456789":
            return _Backreference(int(letter + self.number()))
        if letter == "k" and self.accept("<"):
            return _Backreference(self.until(">"))
        if letter.lower() in _CLASSES:
            spans = _CLASSES[letter.lower()]
            if letter.isupper():
                return _prefer_printable(_complement(spans), whole=False)
            return _prefer_printable(spans, whole=letter != "s")
        return _one(self.code_point(letter))

    def code_point(self, letter: str) -> int:
        if letter in _ESCAPES:
            return _ESCAPES[letter]
        if letter in "xuU":
            if self.accept("{"):
                digits = self.until("}")
            else:
                digits = "".join(
                    self.take() for _ in range({"x": 2, "u": 4}.get(letter, 8))
                )
            try:
                return int(digits, 16)
            except ValueError:
                raise self.unsupported("an unreadable code point") from None
        if letter == "c":
            return ord(self.take()) % 32
        if letter.isalnum() and letter.isascii():
            raise self.unsupported(f"the escape \\{letter}")
        return ord(letter)

    def character_class(self) -> Tree:
        negated = self.accept("^")
        spans: list[_Span] = []
        whole = not negated
        first = True
        while first or not self.peek("]"):
            first = False
            low, is_whole = self.class_member()
            whole = whole and is_whole
            if len(low) == 1 and self.peek("-") and not self.peek("-]"):
                self.position += 1
                high, _ = self.class_member()
                if len(high) != 1:
                    raise self.unsupported("a range that ends in a class")
                spans.append((low[0][0], high[0][1]))
            else:
                spans.extend(low)
        self.position += 1
        result = _complement(tuple(spans)) if negated else tuple(spans)
        if not result:
            raise self.unsupported("a class without characters")
        return _prefer_printable(result, whole=whole)

    def class_member(self) -> tuple[tuple[_Span, ...], bool]:
        character = self.take()
        if character != "\\":
            return ((ord(character), ord(character)),), True
        letter = self.take()
        if letter.lower() in _CLASSES:
            spans = _CLASSES[letter.lower()]
            if letter.isupper():
                return _complement(spans), False
            return spans, letter != "s"
        code = 8 if letter == "b" else self.code_point(letter)
        return ((code, code),), True


def _one(code: int) -> Characters:
    return Characters(((code, code),))


def _complement(spans: tuple[_Span, ...]) -> tuple[_Span, ...]:
    result: list[_Span] = []
    start = 0
    for low, high in sorted((*spans, _SURROGATES)):
        if low > start:
            result.append((start, low - 1))
        start = max(start, high + 1)
    if start <= _LAST_CHARACTER:
        result.append((start, _LAST_CHARACTER))
    return tuple(result)


def _prefer_printable(spans: tuple[_Span, ...], *, whole: bool) -> Characters:
    """Draw from printable ASCII where a set that cannot be listed has any."""
    if whole:
        return Characters(spans)
    low, high = _PRINTABLE
    printable = tuple(
        (max(first, low), min(last, high))
        for first, last in spans
        if first <= high and last >= low
    )
    return Characters(printable or spans, whole=False)
