"""What jsonschema says of a value: the authority on membership."""

from __future__ import annotations

import copy
import re
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from ors_gym.errors import SchemaError
from ors_gym.spaces._schema.nodes import Body, Draw, Node, Unusable

if TYPE_CHECKING:
    from jsonschema.protocols import (  # type: ignore[import-untyped, unused-ignore]
        Validator,
    )

__all__ = ["CheckedBody", "SchemaValidator"]

_ATTEMPTS = 100


class SchemaValidator:
    """A JSON Schema, Draft 2020-12, formats not asserted, nothing fetched.

    jsonschema is imported when the first of these is made. Methods raise SchemaError if
    the schema is not one; its message begins with ``name``.
    """

    def __init__(self, schema: Any, name: str) -> None:
        # Imported here: it takes longer than the rest of the package together.
        from jsonschema import (  # type: ignore[import-untyped, unused-ignore]  # noqa: PLC0415
            Draft202012Validator,
        )
        from referencing import Registry  # noqa: PLC0415

        self._name = name
        # An explicit registry: jsonschema's own fetches remote references.
        self._validator: Validator = self._guard(
            lambda: Draft202012Validator(schema, registry=Registry())
        )

    def part(self, schema: Any) -> SchemaValidator:
        """Return a validator of a part, whose references lead into this schema."""
        part = copy.copy(self)
        part._validator = self._validator.evolve(schema=schema)  # noqa: SLF001
        return part

    def is_valid(self, value: Any) -> bool:
        """Return whether a value satisfies the schema."""
        try:
            return bool(self._guard(lambda: self._validator.is_valid(value)))
        except OverflowError:
            return False

    def problems(self, value: Any) -> list[str]:
        """Return ``"#/place/in/the/value: what is wrong"`` for each problem."""
        try:
            errors = self._guard(lambda: list(self._validator.iter_errors(value)))
        except OverflowError:
            return ["#: a number that cannot be divided by a multipleOf"]
        return [
            "/".join(["#", *map(str, error.absolute_path)]) + f": {error.message}"
            for error in errors
        ]

    def _guard(self, action: Callable[[], Any]) -> Any:
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
                f"{self._name}: this is not a JSON Schema that can be checked: "
                f"{type(error).__name__}: {error}"
            ) from None
        except BaseException as error:
            # What jsonschema's tables, written in Rust, make of a RecursionError.
            if type(error).__name__ != "PanicException":
                raise
            raise self._too_deep() from None

    def _too_deep(self) -> SchemaError:
        return SchemaError(
            f"{self._name}: the schema refers to itself without end, or it or the "
            f"value is nested too deeply to be checked"
        )


class CheckedBody(Body):
    """A body of which only some values are right; ``path`` is where that is said."""

    def __init__(self, inner: Body, accepts: Callable[[Any], bool], path: str) -> None:
        self._inner = inner
        self._accepts = accepts
        self._path = path
        self.alternatives = inner.alternatives

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
