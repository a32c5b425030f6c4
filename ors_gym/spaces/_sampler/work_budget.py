"""How much work a schema may cause. It is counted, so that it is always the same."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator
from contextvars import ContextVar, Token
from typing import TYPE_CHECKING, Any

from ors_gym.spaces._sampler.nodes import Unusable

if TYPE_CHECKING:
    from ors_gym.formats._drafts import Document

_MAX_WORK = 20_000
"""Schemas that are applied in one check at most, or in one draw or compilation."""
_WORK_PER_VALUE = 20
"""Extra schemas for each value within the one that is checked.

Of the schemas of SchemaStore and JSONSchemaBench, one in a hundred needs 12.
"""
_MAX_WORK_OF_VALUES = 60_000
"""The most extra schemas, unless `_WORK_OF_ANY_VALUE` allows more."""
_WORK_OF_ANY_VALUE = 3
"""Extra schemas for each value within, however large the checked value is."""


@dataclasses.dataclass(slots=True)
class Work:
    """What is left of a budget, and what was found out with it."""

    document: Document
    left: int
    value: Any = None
    valid: set[Any] = dataclasses.field(default_factory=set)
    """Keys (schema, value, draft, scope) that this check found valid."""
    open: dict[Any, int] = dataclasses.field(default_factory=dict)
    """Keys that are being checked now, with the ``decisions`` when each began."""
    decisions: int = 0
    """How many checks that are under way, such as a ``not``, depend on the answer for
    the current value."""

    @contextlib.contextmanager
    def deciding(self) -> Iterator[None]:
        """Check a part whose validity can make the whole value invalid.

        The part behind a ``not`` is one.
        """
        self.decisions += 1
        try:
            yield
        finally:
            self.decisions -= 1

    def fail(self) -> None:
        """Pay for a check that went on until there was no room left on the stack."""
        self.left -= _MAX_WORK // 10

    def spend(self, schema: Any) -> None:
        """Pay for applying a schema, or raise Unusable, naming it."""
        if isinstance(schema, dict):
            sizes = (len(v) for v in schema.values() if isinstance(v, list | dict))
            self.left -= sum(sizes) // 8
        self.left -= 1
        if self.left < 0 and self.value is not None:
            # A large value may cost more; it is measured only if that matters.
            count = _count(self.value)
            most = max(_MAX_WORK_OF_VALUES, _WORK_OF_ANY_VALUE * count)
            self.left += min(_WORK_PER_VALUE * count, most)
            self.value = None
        if self.left < 0:
            raise Unusable(
                self.document.place(schema),
                "checking a value takes too much work, and it was given up here",
            )


WORK: ContextVar[Work] = ContextVar("work")


class Budget:
    """Lets all checks within share a budget, unless they share one already."""

    # A class, since each draw and each check enters it, and a generator is slower.
    __slots__ = ("_document", "_times", "_token", "_value")

    def __init__(
        self, document: Document, value: Any = None, *, times: int = 1
    ) -> None:
        self._document = document
        self._value = value
        self._times = times
        self._token: Token[Work] | None = None

    def __enter__(self) -> Work:
        work = WORK.get(None)
        if work is None:
            work = Work(self._document, _MAX_WORK * self._times, self._value)
            self._token = WORK.set(work)
        return work

    def __exit__(self, *_: object) -> None:
        if self._token is not None:
            WORK.reset(self._token)


def _count(value: Any) -> int:
    """Count the values within a value, however deep they are nested."""
    count = 0
    stack = [value]
    while stack:
        inner = stack.pop()
        count += 1
        if isinstance(inner, dict):
            stack.extend(inner.values())
        elif isinstance(inner, list):
            stack.extend(inner)
    return count
