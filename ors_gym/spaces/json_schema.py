"""Values of a JSON Schema: draw one, check one, list them all.

jsonschema validates, by Draft 2020-12. The sampler is our own and follows every
keyword that pydantic emits. Keywords that it cannot follow (``not``, ``contains``, ...)
are left to chance and then checked. If chance finds no value, an error names the place
in the schema.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable
from random import Random
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from ors_gym.errors import SchemaError
from ors_gym.spaces._schema.nodes import (
    Draw,
    Node,
    Unusable,
    list_values,
    why_impossible,
)

if TYPE_CHECKING:
    from jsonschema.protocols import (  # type: ignore[import-untyped, unused-ignore]
        Validator,
    )

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

    It never changes, so copies share it. A pickle holds the schema alone. Every method
    raises `SchemaError`, with the place in the schema, if the schema cannot be used.

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
        """Compile the schema for `draw`, unless it is compiled already."""
        self._node  # noqa: B018

    def draw(self, random: Random) -> Any:
        """Draw a value, with ``random`` as the source of chance."""
        node = self._node
        return self._place(lambda: node.draw(Draw(random), 0))

    def enumerate(self, limit: int) -> list[Any]:
        """List every value, as `enumerate` does."""
        node = self._node
        return self._place(lambda: list_values(node, limit))

    def is_valid(self, value: Any) -> bool:
        """Return whether the schema allows a value."""
        return self._is_valid(self._validator, value)

    def problems(self, value: Any) -> list[str]:
        """Say what is wrong with a value, as `validate` does."""
        validator = self._validator
        try:
            errors = self._ask(lambda: list(validator.iter_errors(value)))
        except OverflowError:
            return ["#: a number that cannot be divided by a multipleOf"]
        return [
            "/".join(["#", *map(str, error.absolute_path)]) + f": {error.message}"
            for error in errors
        ]

    @functools.cached_property
    def _node(self) -> Node:
        # Imported here: whoever connects to a server need not sample its tools.
        from ors_gym.spaces._schema.compiler import compile_schema  # noqa: PLC0415

        node = self._place(lambda: compile_schema(self.schema, self._membership))
        if not node.possible:
            raise self._error(why_impossible(node))
        return node

    def _place(self, action: Callable[[], _T]) -> _T:
        try:
            return action()
        except Unusable as reason:
            raise self._error(reason) from None

    def _error(self, reason: Unusable) -> SchemaError:
        return SchemaError(f"{self.name}: at {reason.path}: {reason.reason}")

    @functools.cached_property
    def _validator(self) -> Validator:
        """Jsonschema's validator: formats not asserted, nothing fetched."""
        # Imported here: it takes longer than the rest of the package together.
        from jsonschema import (  # type: ignore[import-untyped, unused-ignore]  # noqa: PLC0415
            Draft202012Validator,
        )
        from referencing import Registry  # noqa: PLC0415

        # An explicit registry: jsonschema's own fetches remote references.
        return self._ask(lambda: Draft202012Validator(self.schema, registry=Registry()))

    def _membership(self, part: Any) -> Callable[[Any], bool]:
        """Return a test of a part of this schema, whose references lead into it."""
        validator = self._validator.evolve(schema=part)
        return lambda value: self._is_valid(validator, value)

    def _is_valid(self, validator: Validator, value: Any) -> bool:
        try:
            return bool(self._ask(lambda: validator.is_valid(value)))
        except OverflowError:
            return False

    def _ask(self, action: Callable[[], _T]) -> _T:
        """Ask jsonschema; whatever a bad schema makes it raise is a SchemaError."""
        from jsonschema.exceptions import (  # type: ignore[import-untyped, unused-ignore]  # noqa: PLC0415
            UnknownType,
        )
        from referencing.exceptions import Unresolvable  # noqa: PLC0415

        try:
            return action()
        except RecursionError:
            raise self._too_deep() from None
        except (
            AttributeError,
            LookupError,
            TypeError,
            UnknownType,
            Unresolvable,
            ValueError,
            ZeroDivisionError,
            re.error,
        ) as error:
            if isinstance(error, ValueError) and "NaN" in str(error):
                # jsonschema's multipleOf divides; so it does with huge integers.
                raise OverflowError from None
            raise SchemaError(
                f"{self.name}: this is not a JSON Schema that can be checked: "
                f"{type(error).__name__}: {error}"
            ) from None
        except BaseException as error:
            # What jsonschema's tables, written in Rust, make of a RecursionError.
            if type(error).__name__ != "PanicException":
                raise
            raise self._too_deep() from None

    def _too_deep(self) -> SchemaError:
        return SchemaError(
            f"{self.name}: the schema refers to itself without end, or it or the "
            f"value is nested too deeply to be checked"
        )
