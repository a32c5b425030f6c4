"""The graph that a schema is compiled into.

A node stands for the values that satisfy some schemas at once. Its body says how one
is drawn. Bodies refer to nodes, in circles where a schema is recursive; `sizes` then
finds out how small the values of each node can be.
"""

from __future__ import annotations

import dataclasses
import heapq
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from random import Random
from typing import Any

__all__ = [
    "Body",
    "Draw",
    "Impossible",
    "Node",
    "Unusable",
    "distinct_key",
    "measure",
    "why_impossible",
]

_ALLOWANCE = 200
_FREE_DEPTH = 6
_RETRIES = 2_000
# What it costs to have looked for a value in vain, in retries.
_GIVING_UP = 100


class Unusable(Exception):  # noqa: N818  # a reason that may never be an error
    """Raised when a part of a schema cannot be drawn from or listed.

    Args:
        path: Where in the schema, as a JSON pointer: ``"#/properties/x"``.
        reason: What is wrong with it.
    """

    def __init__(self, path: str, reason: str) -> None:
        super().__init__(path, reason)
        self.path = path
        self.reason = reason


@dataclasses.dataclass(slots=True)
class Draw:
    """One draw: where chance comes from and how much is still allowed.

    Args:
        random: Where chance comes from.
        allowance: How many more values may be made that need not be there.
        retries: How often more a value may be thrown away for another.
    """

    random: Random
    allowance: int = _ALLOWANCE
    retries: int = _RETRIES

    def is_free(self, depth: int) -> bool:
        """Return whether a value at this depth may be larger than it must be.

        Args:
            depth: Number of objects and arrays around the value.
        """
        return depth < _FREE_DEPTH and self.allowance > 0

    def give_up(self, reason: Unusable) -> None:
        """Do without a value that chance did not find, as often as is allowed.

        Args:
            reason: Why there is none.

        Raises:
            Unusable: The same, if that was too often.
        """
        self.retries -= _GIVING_UP
        if self.retries < 0:
            raise reason


def distinct_key(value: Any) -> Any:
    """Return a hashable that two values share if JSON Schema calls them equal.

    Args:
        value: A JSON value.

    Example:
        >>> distinct_key([1.0]) == distinct_key([1])
        True
        >>> distinct_key(True) == distinct_key(1)
        False
    """
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

    alternatives = False
    """Whether one of ``needs()`` is enough; otherwise all are needed."""

    def needs(self) -> Iterable[tuple[int, Node]]:
        """Return the nodes that the smallest value contains, and how often each."""
        return ()

    @abstractmethod
    def draw(self, draw: Draw, depth: int) -> Any:
        """Draw a value.

        Args:
            draw: The draw that this is a part of.
            depth: Number of objects and arrays around the value.

        Raises:
            Unusable: If chance did not find one.
        """

    def count(self, count: Callable[[Node], int]) -> int:
        """Return how many values there are at most.

        Args:
            count: The same for another node.

        Raises:
            Unusable: If there are infinitely many.
        """
        raise NotImplementedError

    def values(self) -> Iterator[Any]:
        """Go through the values, some maybe twice, if `count` does not raise."""
        raise NotImplementedError


class Impossible(Body):
    """A node without values.

    Args:
        path: Where in the schema.
        reason: Why.
    """

    def __init__(self, path: str, reason: str) -> None:
        self.path = path
        self.reason = reason

    def draw(self, draw: Draw, depth: int) -> Any:  # noqa: ARG002
        raise Unusable(self.path, self.reason)

    def count(self, count: Callable[[Node], int]) -> int:  # noqa: ARG002
        return 0

    def values(self) -> Iterator[Any]:
        return iter(())


class Node:
    """The values that satisfy some schemas at once.

    Args:
        path: Where the first of these schemas stands, as a JSON pointer.
    """

    __slots__ = ("_body", "depth", "draw", "path", "size")

    def __init__(self, path: str) -> None:
        self.path = path
        self.size: int | None = None
        self.depth = 0
        self.body = Impossible(path, "not compiled")

    @property
    def body(self) -> Body:
        """How the values are made."""
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


def measure(nodes: Sequence[Node]) -> None:
    """Set ``size`` and ``depth`` of each node's smallest value; None if impossible.

    Args:
        nodes: All nodes of a graph.
    """
    _Measure(nodes).run()


class _Measure:
    """Knuth's generalisation of Dijkstra's algorithm, from paths to grammars.

    A node is settled once what it needs is, smallest first, so that recursion without
    end never settles.
    """

    def __init__(self, nodes: Sequence[Node]) -> None:
        self._places = {node: place for place, node in enumerate(nodes)}
        self._users: dict[Node, list[tuple[int, Node]]] = {}
        self._waiting: dict[Node, int] = {}
        self._sizes = dict.fromkeys(nodes, 1)
        self._depths = dict.fromkeys(nodes, 0)
        self._queue: list[tuple[int, int, Node]] = []
        for node in nodes:
            self._add(node)

    def _add(self, node: Node) -> None:
        needs = [(times, need) for times, need in node.body.needs() if times]
        for times, need in needs:
            self._users.setdefault(need, []).append((times, node))
        # A choice waits for one of its options, even if it has none.
        self._waiting[node] = 1 if node.body.alternatives else len(needs)
        if not self._waiting[node] and not isinstance(node.body, Impossible):
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
    """Return the reason why a node has no value, and where.

    Args:
        node: A node that `measure` left impossible.
    """
    seen: set[Node] = set()
    stack = [node]
    while stack:
        current = stack.pop()
        if current in seen:
            continue
        seen.add(current)
        if isinstance(current.body, Impossible):
            return Unusable(current.body.path, current.body.reason)
        needs = [need for times, need in current.body.needs() if times]
        stack.extend(need for need in reversed(needs) if not need.possible)
    return Unusable(
        node.path,
        f"its smallest value has no end, or is larger than {_MAX_SIZE} values or "
        f"nested deeper than {_MAX_DEPTH}",
    )
