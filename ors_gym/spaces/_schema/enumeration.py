"""Every value of a node, where there are finitely many."""

from __future__ import annotations

import itertools
from typing import Any

from ors_gym.spaces._schema.nodes import Node, Unusable, distinct_key

__all__ = ["count_values", "list_values"]

_MANY = 10**12
_MAX_NESTING = 100
# Candidates looked at for each value that may be kept: some are doubles, some wrong.
_CANDIDATES = 50


class _Counter:
    def __init__(self) -> None:
        self._known: dict[Node, int] = {}
        self._open: set[Node] = set()

    def __call__(self, node: Node) -> int:
        if node in self._known:
            return self._known[node]
        if node in self._open:
            raise Unusable(node.path, "it contains itself, without end")
        if len(self._open) > _MAX_NESTING:
            raise Unusable(node.path, f"it is nested deeper than {_MAX_NESTING}")
        self._open.add(node)
        count = min(node.body.count(self), _MANY)
        self._open.remove(node)
        self._known[node] = count
        return count


def count_values(node: Node) -> int:
    """Return how many values a node has at most.

    Args:
        node: A node of a measured graph.

    Raises:
        Unusable: If there are infinitely many; it says where and why.
    """
    return _Counter()(node)


def list_values(node: Node, limit: int) -> list[Any]:
    """Return all values of a node, each once.

    Args:
        node: A node of a measured graph.
        limit: How many there may be.

    Raises:
        Unusable: If there are more; it says where and why.
    """
    if limit < 0 or count_values(node) > (limit + 1) * _CANDIDATES:
        raise Unusable(node.path, f"there are more than {limit} values")
    distinct: dict[Any, Any] = {}
    for value in itertools.islice(node.body.values(), (limit + 1) * _CANDIDATES):
        distinct.setdefault(distinct_key(value), value)
        if len(distinct) > limit:
            raise Unusable(node.path, f"there are more than {limit} values")
    return list(distinct.values())
