"""How small the values of each node can be.

That bounds recursion, since a draw that has used up its allowance goes for the
smallest value, and it tells which nodes have no value at all.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence

from ors_gym.spaces.schema.nodes import Impossible, Node, Unusable

__all__ = ["measure", "why_impossible"]

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
