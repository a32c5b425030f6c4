"""The graph that a schema is compiled into.

A node stands for the values that satisfy some schemas at once. Its body says how one
is drawn. Bodies refer to nodes, in circles where a schema is recursive. `measure` finds
how small the values of each node can be; `list_values` lists all values of a node.
"""

from __future__ import annotations

import dataclasses
import heapq
import itertools
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from random import Random
from typing import Any

_ALLOWANCE = 200
_FREE_DEPTH = 6
_MAX_SURPLUS = 3
_RETRIES = 2_000
# What a search in vain costs, in retries.
_GIVING_UP = 100
_ATTEMPTS = 100


class Unusable(Exception):  # noqa: N818  # a reason that may never be an error
    """Raised when a part of a schema cannot be drawn from or listed.

    The path is the place in the schema as a JSON pointer: ``"#/properties/x"``.
    """

    def __init__(self, path: str, reason: str) -> None:
        super().__init__(path, reason)
        self.path = path
        self.reason = reason


@dataclasses.dataclass(slots=True)
class Draw:
    """One draw: where chance comes from and how much is still allowed."""

    random: Random
    allowance: int = _ALLOWANCE
    """How many more optional values may be made."""
    retries: int = _RETRIES
    """How often more a value may be thrown away for another."""

    def is_free(self, depth: int) -> bool:
        """Return whether a value at this depth may be larger than it must be."""
        return depth < _FREE_DEPTH and self.allowance > 0

    def surplus(self, depth: int) -> int:
        """Return how many more items or members than needed there may be."""
        # Fewer the deeper, so that trees stay small.
        return max(0, _MAX_SURPLUS - depth // 2) if self.is_free(depth) else 0

    def may_fail(self) -> bool:
        """Return whether another value may be tried that chance may not find."""
        return self.retries > 0

    def failed(self) -> None:
        """Count an optional value that chance did not find."""
        self.retries -= _GIVING_UP

    def give_up(self, reason: Unusable) -> None:
        """Do without a value that chance did not find; raise if that was too often."""
        self.retries -= _GIVING_UP
        if self.retries < 0:
            raise reason


def distinct_key(value: Any) -> Any:
    """Return a hashable that two values share if JSON Schema calls them equal."""
    if isinstance(value, bool):
        return ("bool", value)
    if isinstance(value, list):
        return ("list", tuple(distinct_key(item) for item in value))
    if isinstance(value, dict):
        items = ((key, distinct_key(item)) for key, item in value.items())
        return ("dict", frozenset(items))
    return value


class Body(ABC):
    """How the values of a node are made."""

    enough: int | None = None
    """How many of ``needs()`` are enough; all if None."""
    size: int = 1
    """What its smallest value counts beside ``needs()``."""

    def needs(self) -> Iterable[tuple[int, Node]]:
        """Return the nodes that the smallest value contains, and how often each."""
        return ()

    @abstractmethod
    def draw(self, draw: Draw, depth: int) -> Any:
        """Draw a value inside of ``depth`` objects and arrays, or raise Unusable."""

    def count(self, count: Callable[[Node], int]) -> int:
        """Return the largest possible number of values; ``count`` is that of a node.

        Raises Unusable if there are infinitely many.
        """
        raise NotImplementedError

    def values(self) -> Iterator[Any]:
        """Go through the values, some maybe twice, if `count` does not raise."""
        raise NotImplementedError


class ImpossibleBody(Body):
    """The body of a node without values."""

    def __init__(self, path: str, reason: str) -> None:
        self.path = path
        self.reason = reason

    def draw(self, draw: Draw, depth: int) -> Any:  # noqa: ARG002
        raise Unusable(self.path, self.reason)

    def count(self, count: Callable[[Node], int]) -> int:  # noqa: ARG002
        return 0

    def values(self) -> Iterator[Any]:
        return iter(())


class CheckedBody(Body):
    """A body of which only some values are right; ``path`` is where that is said."""

    def __init__(self, inner: Body, accepts: Callable[[Any], bool], path: str) -> None:
        self._inner = inner
        self._accepts = accepts
        self._path = path
        self.enough = inner.enough
        self.size = inner.size

    def needs(self) -> Any:
        return self._inner.needs()

    def draw(self, draw: Draw, depth: int) -> Any:
        for _ in range(_ATTEMPTS):
            value = self._inner.draw(draw, depth)
            if self._accepts(value):
                return value
            draw.retries -= 1
            if draw.retries < 0:
                break
        raise Unusable(self._path, "many attempts gave no value that satisfies it")

    def count(self, count: Callable[[Node], int]) -> int:
        return self._inner.count(count)

    def values(self) -> Iterator[Any]:
        return filter(self._accepts, self._inner.values())


class Node:
    """The values that satisfy some schemas at once; the first stands at ``path``."""

    __slots__ = ("_body", "depth", "draw", "path", "size")

    def __init__(self, path: str) -> None:
        self.path = path
        self.size: int | None = None
        self.depth = 0
        self.body = ImpossibleBody(path, "not compiled")

    @property
    def body(self) -> Body:
        return self._body

    @body.setter
    def body(self, body: Body) -> None:
        self._body = body
        # Bound once: a draw goes through many nodes.
        self.draw: Callable[[Draw, int], Any] = body.draw

    @property
    def possible(self) -> bool:
        """Whether `measure` found a value."""
        return self.size is not None


_MAX_DEPTH = 100
_MAX_SIZE = 50_000
SIZED_LENGTH = 100
"""How many characters of a text are as much as a value."""


def measure(nodes: Sequence[Node]) -> None:
    """Set ``size`` and ``depth`` of each node's smallest value; None if impossible."""
    _Measure(nodes).run()


class _Measure:
    """Knuth's generalisation of Dijkstra's algorithm, from paths to grammars.

    A node is settled once its needs are, smallest first, so that recursion without
    end never settles.
    """

    def __init__(self, nodes: Sequence[Node]) -> None:
        self._places = {node: place for place, node in enumerate(nodes)}
        self._users: dict[Node, list[tuple[int, Node]]] = {}
        self._waiting: dict[Node, int] = {}
        self._sizes = {node: node.body.size for node in nodes}
        self._depths = dict.fromkeys(nodes, 0)
        self._queue: list[tuple[int, int, Node]] = []
        for node in nodes:
            node.size = None
            self._add(node)

    def _add(self, node: Node) -> None:
        needs = [(times, need) for times, need in node.body.needs() if times]
        for times, need in needs:
            self._users.setdefault(need, []).append((times, node))
        # A union waits for one of its options, even if it has none.
        enough = node.body.enough
        self._waiting[node] = len(needs) if enough is None else enough
        if not self._waiting[node] and not isinstance(node.body, ImpossibleBody):
            self._ready(node)

    def _ready(self, node: Node) -> None:
        if self._sizes[node] <= _MAX_SIZE and self._depths[node] <= _MAX_DEPTH:
            entry = (self._sizes[node], self._places[node], node)
            heapq.heappush(self._queue, entry)

    def run(self) -> None:
        while self._queue:
            size, _, node = heapq.heappop(self._queue)
            node.size, node.depth = size, self._depths[node]
            for times, user in self._users.get(node, ()):
                if self._waiting[user] > 0:
                    self._waiting[user] -= 1
                    self._sizes[user] += times * size
                    self._depths[user] = max(self._depths[user], node.depth + 1)
                    if self._waiting[user] == 0:
                        self._ready(user)


def why_impossible(node: Node) -> Unusable:
    """Return why a node that `measure` left impossible has no value, and where."""
    seen: set[Node] = set()
    stack = [node]
    while stack:
        current = stack.pop()
        if current in seen:
            continue
        seen.add(current)
        if isinstance(current.body, ImpossibleBody):
            return Unusable(current.body.path, current.body.reason)
        needs = [need for times, need in current.body.needs() if times]
        stack.extend(need for need in reversed(needs) if not need.possible)
    return Unusable(
        node.path,
        f"its smallest value has no end, or is larger than {_MAX_SIZE} values (each "
        f"{SIZED_LENGTH} characters of a text count as one) or nested deeper than "
        f"{_MAX_DEPTH}",
    )


_MANY = 10**12
_MAX_NESTING = 100
# Candidates looked at for each value that may be kept: some are doubles, some wrong.
_CANDIDATES = 50


def list_values(node: Node, limit: int) -> list[Any]:
    """Return all values of a measured node, each once.

    Raises Unusable, with place and reason, if there are more than ``limit``.
    """
    if limit < 0 or _Counter()(node) > (limit + 1) * _CANDIDATES:
        raise Unusable(node.path, f"there are more than {limit} values")
    distinct: dict[Any, Any] = {}
    for value in itertools.islice(node.body.values(), (limit + 1) * _CANDIDATES):
        distinct.setdefault(distinct_key(value), value)
        if len(distinct) > limit:
            raise Unusable(node.path, f"there are more than {limit} values")
    return list(distinct.values())


class _Counter:
    """Counts the values of nodes at most, each node once."""

    def __init__(self) -> None:
        self._known: dict[Node, int] = {}
        self._open: set[Node] = set()

    def __call__(self, node: Node) -> int:
        if node in self._known:
            return self._known[node]
        if node in self._open:
            raise Unusable(node.path, "it contains itself")
        if len(self._open) > _MAX_NESTING:
            raise Unusable(node.path, f"it is nested deeper than {_MAX_NESTING}")
        self._open.add(node)
        count = min(node.body.count(self), _MANY)
        self._open.remove(node)
        self._known[node] = count
        return count
