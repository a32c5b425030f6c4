"""Values of a JSON Schema: draw one, check one, list them all.

jsonschema validates, by the draft that ``$schema`` names, else by 2020-12. The sampler
is our own. What it cannot aim at (a ``not`` of a pattern, ``unevaluatedProperties``,
...) is left to chance and then checked. If chance finds no value, an error names the
place in the schema. All work is counted: a schema that causes too much is an error too.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator
from random import Random
from typing import TYPE_CHECKING, Any

import numpy as np

from ors_gym.errors import SchemaError
from ors_gym.formats._json import copy_json, flatten_json, unflatten_json
from ors_gym.spaces._sampler.nodes import (
    Draw,
    Node,
    Unusable,
    list_values,
    why_impossible,
)
from ors_gym.spaces._sampler.work_budget import Budget

if TYPE_CHECKING:
    from ors_gym.formats._drafts import Document, Scope
    from ors_gym.spaces._sampler.checking import Checker

__all__ = ["CompiledSchema", "enumerate", "sample", "validate"]

_MAX_DRAWS = 4
"""Draws that may fail before the witness, a value found once, is returned."""
_MAX_FIRST_DRAWS = 20
_TIMES = 3
"""Compiling, finding the witness and listing may take this many times a draw's work."""


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
        only_objects: Whether values that are no objects are left out.

    Example:
        >>> compiled = CompiledSchema({"type": "integer", "minimum": 3, "maximum": 3})
        >>> compiled.draw(Random(1)), compiled.is_valid(4)
        (3, False)
    """

    def __init__(
        self, schema: Any, name: str = "schema", *, only_objects: bool = False
    ) -> None:
        self.schema = schema
        self.name = name
        self._only_objects = only_objects

    def __deepcopy__(self, memo: dict[int, Any]) -> CompiledSchema:
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        state = (flatten_json(self.schema), self.name, self._only_objects)
        return _compiled_from_flat, state

    def prepare(self) -> None:
        """Compile the schema for `draw`, unless it is compiled already."""
        self._witness  # noqa: B018

    def draw(self, random: Random) -> Any:
        """Draw a value, with ``random`` as the source of chance."""
        node = self._node
        witness = self._witness
        # Nothing that is raised here leaves, so no error needs the schema's name.
        with Budget(self._document):
            for _ in range(_MAX_DRAWS):
                try:
                    return node.draw(Draw(random), 0)
                except (Unusable, RecursionError):
                    continue
        # Chance finds no value for this part of the schema often enough.
        return copy_json(witness)

    def enumerate(self, limit: int) -> list[Any]:
        """List every value, as `enumerate` does."""
        node = self._node
        with self._bounded(times=_TIMES):
            return list_values(node, limit)

    def is_valid(self, value: Any) -> bool:
        """Return whether the schema allows a value."""
        with self._bounded(value):
            return self._checker.is_valid(value)

    def problems(self, value: Any) -> list[str]:
        """Say what is wrong with a value, as `validate` does."""
        with self._bounded(value):
            errors = self._checker.errors(value)
        if errors is None:
            return ["#: a number that cannot be divided by a multipleOf"]
        return [
            "/".join(["#", *map(str, error.absolute_path)]) + f": {error.message}"
            for error in errors
        ]

    @functools.cached_property
    def _node(self) -> Node:
        # Imported here: whoever connects to a server need not sample its tools.
        from ors_gym.spaces._sampler.compiler import compile_schema  # noqa: PLC0415

        with self._bounded(times=_TIMES):
            node = compile_schema(
                self._document, self._test, only_objects=self._only_objects
            )
            if not node.possible:
                raise why_impossible(node)
            return node

    @functools.cached_property
    def _witness(self) -> Any:
        """Some value, always the same: without one the schema cannot be sampled."""
        node = self._node
        with self._bounded(times=_TIMES):
            for seed in range(_MAX_FIRST_DRAWS - 1):
                with contextlib.suppress(Unusable, RecursionError):
                    return node.draw(Draw(Random(seed)), 0)  # noqa: S311
            # The smallest values have the fewest places to fail at.
            return node.draw(Draw(Random(0), allowance=0), 0)  # noqa: S311

    @functools.cached_property
    def _document(self) -> Document:
        from ors_gym.formats._drafts import Document  # noqa: PLC0415

        return Document(self.schema)

    @functools.cached_property
    def _checker(self) -> Checker:
        # Imported here: jsonschema takes longer than the rest of the package together.
        from ors_gym.spaces._sampler.checking import Checker  # noqa: PLC0415

        return Checker(self._document)

    def _test(self, schema: Any, scope: Scope) -> Callable[[Any], bool]:
        return self._checker.test(schema, scope)

    @contextlib.contextmanager
    def _bounded(self, value: Any = None, *, times: int = 1) -> Iterator[None]:
        """Bound the work of a block, and name the schema in what it raises."""
        try:
            with Budget(self._document, value, times=times):
                yield
        except Unusable as reason:
            raise SchemaError(
                f"{self.name}: at {reason.path}: {reason.reason}"
            ) from None
        except RecursionError:
            raise SchemaError(f"{self.name}: it is nested too deeply") from None


def _compiled_from_flat(
    schema: list[Any], name: str, only_objects: bool
) -> CompiledSchema:
    return CompiledSchema(unflatten_json(schema), name, only_objects=only_objects)
