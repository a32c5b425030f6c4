"""What jsonschema says of a value: the authority on membership."""

from __future__ import annotations

import copy
import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from ors_gym.errors import SchemaError

if TYPE_CHECKING:
    from jsonschema.protocols import (  # type: ignore[import-untyped, unused-ignore]
        Validator,
    )

__all__ = ["SchemaValidator"]


class SchemaValidator:
    """A JSON Schema, Draft 2020-12, formats not asserted, nothing fetched.

    jsonschema is imported when the first of these is made.

    Args:
        schema: The schema; other schemas may be parts of it.
        name: What to call it in errors.

    Example:
        >>> validator = SchemaValidator({"type": "integer"}, "input")
        >>> validator.is_valid(1), validator.is_valid(True)
        (True, False)
        >>> validator.problems("one")
        ["#: 'one' is not of type 'integer'"]
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
        """Return a validator of a schema whose references are those of this one.

        Args:
            schema: A part of this schema, or one made from its parts.
        """
        part = copy.copy(self)
        part._validator = self._validator.evolve(schema=schema)  # noqa: SLF001
        return part

    def is_valid(self, value: Any) -> bool:
        """Return whether a value satisfies the schema.

        Args:
            value: Anything.

        Raises:
            SchemaError: If the schema is not one.
        """
        try:
            return bool(self._guard(lambda: self._validator.is_valid(value)))
        except OverflowError:
            return False

    def problems(self, value: Any) -> list[str]:
        """Return what is wrong with a value, in jsonschema's words.

        Args:
            value: Anything.

        Returns:
            ``"#/place/in/the/value: what is wrong"`` per problem; none if valid.

        Raises:
            SchemaError: If the schema is not one.
        """
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
