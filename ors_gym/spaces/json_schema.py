"""Values of a JSON Schema: draw one, check one, list them all.

jsonschema validates, by Draft 2020-12. The sampler is our own and follows every
keyword that pydantic emits. Keywords that it cannot follow (``not``, ``contains``, ...)
are left to chance and then checked. If chance finds no value, an error names the place
in the schema.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from random import Random
from typing import Any, TypeVar

import numpy as np

from ors_gym.errors import SchemaError
from ors_gym.spaces._schema.nodes import (
    Draw,
    Node,
    Unusable,
    list_values,
    why_impossible,
)
from ors_gym.spaces._schema.validation import SchemaValidator

__all__ = ["CompiledSchema", "enumerate", "sample", "validate"]

_T = TypeVar("_T")


def sample(schema: Any, rng: np.random.Generator) -> Any:
    """Draw a value that a schema allows.

    Args:
        schema: The JSON Schema. To draw many values, compile it once as a
            `CompiledSchema`.
        rng: The source of chance.

    Raises:
        SchemaError: If the schema cannot be sampled; the message says where.

    Example:
        >>> schema = {"type": "array", "items": {"enum": ["x"]}, "minItems": 2}
        >>> set(sample(schema, np.random.default_rng(1)))
        {'x'}
    """
    return CompiledSchema(schema).draw(Random(int(rng.integers(2**63))))  # noqa: S311


def validate(schema: Any, value: Any) -> list[str]:
    """Say what is wrong with a value.

    Args:
        schema: The JSON Schema.
        value: Anything.

    Returns:
        A line per problem, in jsonschema's words; none if the value is valid.

    Raises:
        SchemaError: If the schema is not one.

    Example:
        >>> validate({"type": "object", "required": ["x"]}, {})
        ["#: 'x' is a required property"]
    """
    return CompiledSchema(schema).problems(value)


def enumerate(schema: Any, limit: int = 1000) -> list[Any]:  # noqa: A001
    """List every value that a schema allows.

    An optional member with a default is always given, since leaving it out means the
    same; members that the schema does not name are not made up.

    Args:
        schema: The JSON Schema.
        limit: How many values there may be.

    Raises:
        SchemaError: If there are more, or infinitely many; the message says where.

    Example:
        >>> enumerate({"anyOf": [{"type": "boolean"}, {"type": "null"}]})
        [False, True, None]
    """
    return CompiledSchema(schema).enumerate(limit)


class CompiledSchema:
    """A schema that is compiled once, when it is first needed.

    It never changes, so copies share it. A pickle holds the schema alone.

    Args:
        schema: The JSON Schema.
        name: What to call it in errors.

    Example:
        >>> compiled = CompiledSchema({"type": "integer", "minimum": 3, "maximum": 3})
        >>> compiled.draw(Random(1)), compiled.is_valid(4)
        (3, False)
    """

    def __init__(self, schema: Any, name: str = "schema") -> None:
        self.schema = schema
        self.name = name

    def __deepcopy__(self, memo: dict[int, Any]) -> CompiledSchema:
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        return CompiledSchema, (self.schema, self.name)

    def prepare(self) -> None:
        """Compile the schema, unless it is compiled already.

        Raises:
            SchemaError: If it cannot be sampled; the message says where.
        """
        self._node  # noqa: B018

    def draw(self, random: Random) -> Any:
        """Draw a value.

        Args:
            random: The source of chance.

        Raises:
            SchemaError: If the schema cannot be sampled; the message says where.
        """
        node = self._node
        return self._named(lambda: node.draw(Draw(random), 0))

    def is_valid(self, value: Any) -> bool:
        """Return whether the schema allows a value.

        Args:
            value: Anything.

        Raises:
            SchemaError: If the schema is not one.
        """
        return self._validator.is_valid(value)

    def problems(self, value: Any) -> list[str]:
        """Say what is wrong with a value, as `validate` does.

        Args:
            value: Anything.

        Raises:
            SchemaError: If the schema is not one.
        """
        return self._validator.problems(value)

    def enumerate(self, limit: int) -> list[Any]:
        """List every value, as `enumerate` does.

        Args:
            limit: How many there may be.

        Raises:
            SchemaError: If there are more, or infinitely many.
        """
        node = self._node
        return self._named(lambda: list_values(node, limit))

    @functools.cached_property
    def _validator(self) -> SchemaValidator:
        return SchemaValidator(self.schema, self.name)

    @functools.cached_property
    def _node(self) -> Node:
        # Imported here: whoever connects to a server need not sample its tools.
        from ors_gym.spaces._schema.compiler import compile_schema  # noqa: PLC0415

        node = self._named(lambda: compile_schema(self.schema, lambda: self._validator))
        if not node.possible:
            raise self._error(why_impossible(node))
        return node

    def _named(self, action: Callable[[], _T]) -> _T:
        try:
            return action()
        except Unusable as reason:
            raise self._error(reason) from None

    def _error(self, reason: Unusable) -> SchemaError:
        return SchemaError(f"{self.name}: at {reason.path}: {reason.reason}")
