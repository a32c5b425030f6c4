"""What a regular expression is made of, and what can be told from that.

Each kind of tree knows the length of its shortest text, whether something ambiguous
is repeated in it, how many texts it has and which, and how to write one by chance.
"""

from __future__ import annotations

import dataclasses
import itertools
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from random import Random
from typing import TypeAlias

__all__ = [
    "Alternation",
    "Assertion",
    "Backreference",
    "Characters",
    "Concatenation",
    "Group",
    "Repeat",
    "Span",
    "Tree",
    "Writer",
]

Span: TypeAlias = tuple[int, int]
"""Code points, first and last."""

_FEW_REPEATS = 10
_MAX_LISTED_REPEATS = 100
_MANY = 10**12


@dataclasses.dataclass(slots=True)
class Writer:
    """One attempt at a text.

    Args:
        random: Where chance comes from.
        extra: Repeats beyond the least, at most.
        target: Characters that repeats try to reach, or 0.
        limit: Characters after which no extra repeat is made.
    """

    random: Random
    extra: int
    target: int
    limit: int
    parts: list[str] = dataclasses.field(default_factory=list)
    length: int = 0
    groups: dict[int | str, str] = dataclasses.field(default_factory=dict)

    def append(self, text: str) -> None:
        """Add to the text.

        Args:
            text: What comes next.
        """
        self.parts.append(text)
        self.length += len(text)


class Tree(ABC):
    """A regular expression, or a part of one."""

    __slots__ = ()

    def shortest(self) -> int:
        """Return the least number of characters."""
        return 0

    def is_ambiguous(self, *, repeated: bool) -> bool:
        """Return whether a choice or a repeat is repeated often.

        ``re`` may then need time exponential in the length of a text.

        Args:
            repeated: Whether this part is within such a repeat.
        """
        del repeated
        return False

    def count(self) -> int | None:
        """Return how many texts there are at most; None if that has no end."""
        return None

    def texts(self) -> Iterator[str]:
        """Go through the texts, some maybe twice, where ``count`` is known."""
        return iter(())

    @abstractmethod
    def write(self, writer: Writer, following: int) -> None:
        """Write a text.

        Args:
            writer: Where to.
            following: Number of characters that will come after it at least.
        """


@dataclasses.dataclass(frozen=True, slots=True)
class Characters(Tree):
    """One character out of a set.

    Args:
        spans: Code points to draw from.
        whole: Whether these are all that the set has, so that it can be listed.
    """

    spans: tuple[Span, ...]
    whole: bool = True

    def shortest(self) -> int:  # noqa: D102
        return 1

    def count(self) -> int | None:  # noqa: D102
        return self._size() if self.whole else None

    def _size(self) -> int:
        return sum(high - low + 1 for low, high in self.spans)

    def texts(self) -> Iterator[str]:  # noqa: D102
        for low, high in self.spans:
            yield from map(chr, range(low, high + 1))

    def write(self, writer: Writer, following: int) -> None:  # noqa: ARG002, D102
        place = int(writer.random.random() * self._size())
        for low, high in self.spans:
            if place <= high - low:
                writer.append(chr(low + place))
                return
            place -= high - low + 1


@dataclasses.dataclass(frozen=True, slots=True)
class Concatenation(Tree):
    """One thing after another."""

    items: tuple[Tree, ...]

    def shortest(self) -> int:  # noqa: D102
        return sum(item.shortest() for item in self.items)

    def is_ambiguous(self, *, repeated: bool) -> bool:  # noqa: D102
        return any(item.is_ambiguous(repeated=repeated) for item in self.items)

    def count(self) -> int | None:  # noqa: D102
        return _product(item.count() for item in self.items)

    def texts(self) -> Iterator[str]:  # noqa: D102
        return _joined([item.texts() for item in self.items])

    def write(self, writer: Writer, following: int) -> None:  # noqa: D102
        lengths = [item.shortest() for item in self.items]
        remaining = following + sum(lengths)
        for item, length in zip(self.items, lengths, strict=True):
            remaining -= length
            item.write(writer, remaining)


@dataclasses.dataclass(frozen=True, slots=True)
class Alternation(Tree):
    """One of several."""

    options: tuple[Tree, ...]

    def shortest(self) -> int:  # noqa: D102
        return min(option.shortest() for option in self.options)

    def is_ambiguous(self, *, repeated: bool) -> bool:  # noqa: D102
        return repeated or any(
            option.is_ambiguous(repeated=False) for option in self.options
        )

    def count(self) -> int | None:  # noqa: D102
        return _sum(option.count() for option in self.options)

    def texts(self) -> Iterator[str]:  # noqa: D102
        return itertools.chain.from_iterable(o.texts() for o in self.options)

    def write(self, writer: Writer, following: int) -> None:  # noqa: D102
        writer.random.choice(self.options).write(writer, following)


@dataclasses.dataclass(frozen=True, slots=True)
class Repeat(Tree):
    """The same again: ``minimum`` to ``maximum`` times (None: any number)."""

    item: Tree
    minimum: int
    maximum: int | None

    def shortest(self) -> int:  # noqa: D102
        # Nothing, repeated, is still work.
        return self.minimum * max(1, self.item.shortest())

    def is_ambiguous(self, *, repeated: bool) -> bool:  # noqa: D102
        if repeated and self.maximum != self.minimum:
            return True
        often = self.maximum is None or self.maximum > _FEW_REPEATS
        return self.item.is_ambiguous(repeated=repeated or often)

    def count(self) -> int | None:  # noqa: D102
        if self.maximum == 0:
            return 1
        if self.maximum is None or self.maximum > _MAX_LISTED_REPEATS:
            return None
        count = self.item.count()
        times = range(self.minimum, self.maximum + 1)
        return _sum(_product([count] * number) for number in times)

    def texts(self) -> Iterator[str]:  # noqa: D102
        if not self.maximum:
            yield ""
            return
        single = list(self.item.texts())
        for number in range(self.minimum, self.maximum + 1):
            yield from _joined([single] * number)

    def write(self, writer: Writer, following: int) -> None:  # noqa: D102
        most = self.minimum + max(writer.extra, writer.target)
        if self.maximum is not None:
            most = min(most, self.maximum)
        count = writer.random.randint(self.minimum, max(self.minimum, most))
        for done in range(max(self.minimum, most)):
            if done >= self.minimum:
                if writer.target and writer.length + following >= writer.target:
                    break
                if not writer.target and (
                    done >= count or writer.length > writer.limit
                ):
                    break
            self.item.write(writer, following)


@dataclasses.dataclass(frozen=True, slots=True)
class Group(Tree):
    """What a backreference can refer to, by number or by name."""

    number: int
    name: str | None
    item: Tree

    def shortest(self) -> int:  # noqa: D102
        return self.item.shortest()

    def is_ambiguous(self, *, repeated: bool) -> bool:  # noqa: D102
        return self.item.is_ambiguous(repeated=repeated)

    def count(self) -> int | None:  # noqa: D102
        return self.item.count()

    def texts(self) -> Iterator[str]:  # noqa: D102
        return self.item.texts()

    def write(self, writer: Writer, following: int) -> None:  # noqa: D102
        start = len(writer.parts)
        self.item.write(writer, following)
        text = "".join(writer.parts[start:])
        writer.groups[self.number] = text
        if self.name is not None:
            writer.groups[self.name] = text


@dataclasses.dataclass(frozen=True, slots=True)
class Backreference(Tree):
    """The text of a group again."""

    group: int | str

    def write(self, writer: Writer, following: int) -> None:  # noqa: ARG002, D102
        writer.append(writer.groups.get(self.group, ""))


@dataclasses.dataclass(frozen=True, slots=True)
class Assertion(Tree):
    """Something of no width: ``^``, ``$``, or another (``""``), left to ``re``."""

    kind: str

    def write(self, writer: Writer, following: int) -> None:  # noqa: D102
        pass


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
