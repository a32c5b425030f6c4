"""Checks by jsonschema, with a budget of work and patterns that cannot blow up.

jsonschema has the last word on what is valid. A hostile schema can keep it busy for
ever, so its validators are extended: each schema that is applied costs work, what was
found valid once is not looked at again, and a pattern is searched for by `Search`.

A schema may refer to itself for the same value, and then jsonschema never ends. Here
such a reference is no proof that the value is valid: ``{"anyOf": [{"$ref": "#"}, S]}``
allows what S allows. Behind a ``not``, where that would be a paradox, other branches
of the union decide; if none does, the schema is Unusable.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable
from typing import Any, TypeVar

import attrs
from jsonschema import Draft202012Validator, validators
from jsonschema.exceptions import UnknownType, ValidationError
from referencing.exceptions import Unresolvable

from ors_gym.formats._drafts import NAMES, Document, Scope, scope_key
from ors_gym.spaces._sampler.nodes import Unusable, distinct_key
from ors_gym.spaces._sampler.patterns import TooMuchError, search
from ors_gym.spaces._sampler.work_budget import WORK, Budget, Work

_FEW_ITEMS = 200
_T = TypeVar("_T")


class _CircularError(RecursionError):
    """Raised where a schema forbids a value if it allows it, and the reverse."""


_MALFORMED = (
    AttributeError,
    LookupError,
    TypeError,
    UnknownType,
    Unresolvable,
    ValueError,
    ZeroDivisionError,
    re.error,
)
"""What jsonschema raises at a part that is not a schema, or leads out of it."""
_UNDECIDED = (_CircularError, *_MALFORMED)
_APPLICATORS = {
    *("$dynamicRef", "$recursiveRef", "$ref", "additionalItems"),
    *("additionalProperties", "allOf", "anyOf", "contains", "dependencies"),
    *("dependentSchemas", "if", "items", "not", "oneOf", "patternProperties"),
    *("prefixItems", "properties", "propertyNames", "unevaluatedItems"),
    "unevaluatedProperties",
}
"""The keywords with schemas inside, any of which may be one that cannot be decided."""


class _UndecidedError(ValidationError):
    """Stands among the errors of a schema for a keyword that cannot be decided."""

    def __init__(self, reason: Exception) -> None:
        super().__init__("it cannot be decided")
        self.reason = reason


class Checker:
    """Checks values against a schema and its parts, in bounded work."""

    def __init__(self, document: Document) -> None:
        self._document = document
        root = document.scope()
        self.is_valid = self.test(document.root, root)

    def test(self, schema: Any, scope: Scope) -> Callable[[Any], bool]:
        """Return a test of a schema that stands in the document."""
        validator = self._validator(schema, scope)

        def is_valid(value: Any) -> bool:
            with Budget(self._document, value) as work:
                work.valid.clear()
                work.spend(schema)
                return _ask(lambda: bool(validator.is_valid(value))) or False

        return is_valid

    def errors(self, value: Any) -> list[ValidationError] | None:
        """List what is wrong with a value; None if a number cannot be divided."""
        document = self._document
        validator = self._validator(document.root, document.scope())
        with Budget(document, value) as work:
            work.valid.clear()
            return _ask(lambda: list(validator.iter_errors(value)))

    def _validator(self, schema: Any, scope: Scope) -> Any:
        def make() -> Any:
            resolver = scope.resolver or self._document.resolver
            return _counted(NAMES[scope.dialect])(schema, _resolver=resolver)

        return _ask(make)


def _ask(action: Callable[[], _T]) -> _T | None:
    """Ask jsonschema; whatever a bad schema makes it raise is Unusable.

    None says that a number cannot be divided by a ``multipleOf``.
    """
    try:
        return action()
    except RecursionError:
        raise _too_deep() from None
    except _MALFORMED as error:
        if isinstance(error, ValueError) and "NaN" in str(error):
            # jsonschema's multipleOf divides; so it does with huge integers.
            return None
        raise Unusable(
            "#",
            f"this is not a JSON Schema that can be checked: {type(error).__name__}: "
            f"{error}",
        ) from None
    except OverflowError:
        return None
    except BaseException as error:
        # What jsonschema's tables, written in Rust, make of a RecursionError.
        if type(error).__name__ != "PanicException":
            raise
        raise _too_deep() from None


def _too_deep() -> Unusable:
    if (work := WORK.get(None)) is not None:
        work.fail()
    return Unusable(
        "#",
        "the schema refers to itself without end, or it or the value is nested too "
        "deeply to be checked",
    )


@functools.cache
def _counted(name: str) -> Any:
    """Return jsonschema's validator of a draft, extended to count and to remember."""
    stock: Any = validators.validator_for({"$schema": name}, Draft202012Validator)
    own = {
        "additionalItems": _additional_items,
        "additionalProperties": _additional_properties,
        "anyOf": _any_of,
        "oneOf": _one_of,
        "pattern": _pattern,
        "patternProperties": _pattern_properties,
        "unevaluatedProperties": _unevaluated_properties,
        "uniqueItems": _unique_items,
    }
    replaced = {
        keyword: functools.partial(function, stock.VALIDATORS[keyword])
        for keyword, function in own.items()
        if keyword in stock.VALIDATORS
    }
    for keyword in _APPLICATORS & stock.VALIDATORS.keys():
        function = replaced.get(keyword, stock.VALIDATORS[keyword])
        replaced[keyword] = functools.partial(_put_off, function)
    counted: Any = validators.extend(stock, replaced)  # type: ignore[no-untyped-call]
    extended_evolve, extended_descend = counted.evolve, counted.descend
    extended_is_valid, extended_iter_errors = counted.is_valid, counted.iter_errors

    def evolve(self: Any, **changes: Any) -> Any:
        schema = changes.setdefault("schema", self.schema)
        WORK.get().spend(schema)
        if not isinstance(schema, dict) or "$schema" not in schema:
            return extended_evolve(self, **changes)
        kind: Any = validators.validator_for(schema, default=stock)
        for field in attrs.fields(type(self)):
            if field.init and field.alias not in changes:
                changes[field.alias] = getattr(self, field.name)
        return _counted(kind.ID_OF(kind.META_SCHEMA))(**changes)

    def descend(self: Any, instance: Any, schema: Any, **places: Any) -> Any:
        errors = extended_descend(self, instance, schema, **places)
        resolver = places.get("resolver") or self._resolver
        work = WORK.get()
        scope = scope_key(resolver) if work.document.dynamic else ()
        key = id(schema), id(instance), id(counted), scope
        return iter(()) if key in work.valid else _remember(errors, key, work)

    def is_valid(self: Any, instance: Any) -> Any:
        with WORK.get().deciding():
            return extended_is_valid(self, instance)

    def iter_errors(self: Any, instance: Any) -> Any:
        return _decided(extended_iter_errors(self, instance))

    counted.evolve, counted.descend, counted.is_valid = evolve, descend, is_valid
    counted.iter_errors = iter_errors
    return counted


def _put_off(
    function: Any, validator: Any, value: Any, instance: Any, schema: Any
) -> Any:
    """Let the other keywords have their say where one cannot be decided."""
    try:
        yield from function(validator, value, instance, schema) or ()
    except _UNDECIDED as error:
        yield _UndecidedError(error)


def _decided(errors: Any) -> Any:
    """Yield the errors of a schema; if there are none, raise what is undecided.

    One error makes the value invalid, whatever the undecided parts would say.
    """
    found = False
    undecided: Exception | None = None
    try:
        for error in errors:
            if type(error) is _UndecidedError:
                undecided = error.reason
            else:
                found = True
                yield error
    except _UNDECIDED as error:
        undecided = error
    if undecided is not None and not found:
        raise undecided


def _remember(errors: Any, key: Any, work: Work) -> Any:
    """Go through the errors of a schema and a value that are not under check yet."""
    decisions = work.open.get(key)
    if decisions is not None:
        if decisions != work.decisions:
            raise _CircularError
        yield ValidationError("the schema refers to itself without end")
        return
    work.open[key] = work.decisions
    found = False
    try:
        for error in _decided(errors):
            found = True
            yield error
    finally:
        del work.open[key]
    if not found:
        work.valid.add(key)


def _any_of(_: Any, validator: Any, branches: Any, instance: Any, __: Any) -> Any:
    if not _count_valid(validator, branches, instance, 1):
        yield ValidationError(f"{instance!r} is not valid under any of the schemas")


def _one_of(_: Any, validator: Any, branches: Any, instance: Any, __: Any) -> Any:
    with WORK.get().deciding():
        count = _count_valid(validator, branches, instance, 2)
    if count == 0:
        yield ValidationError(f"{instance!r} is not valid under any of the schemas")
    elif count > 1:
        yield ValidationError(f"{instance!r} is valid under several of the schemas")


def _count_valid(validator: Any, branches: Any, instance: Any, enough: int) -> int:
    """Count the branches that allow a value, up to so many.

    jsonschema would keep all errors of all branches. A branch that cannot be decided
    only matters if the others are not enough.
    """
    count = 0
    undecided: Exception | None = None
    for branch in branches:
        try:
            count += next(validator.descend(instance, branch), None) is None
        except _UNDECIDED as error:
            undecided = error
        if count == enough:
            return count
    if undecided is not None:
        raise undecided
    return count


def _found(pattern: str, text: str, schema: Any, keyword: str) -> bool:
    try:
        return search(pattern).found(text)
    except TooMuchError as reason:
        path = WORK.get().document.place(schema)
        raise Unusable(f"{path}/{keyword}", str(reason)) from None


def _pattern(_: Any, validator: Any, pattern: str, instance: Any, schema: Any) -> Any:
    if validator.is_type(instance, "string") and not _found(
        pattern, instance, schema, "pattern"
    ):
        yield ValidationError(f"{instance!r} does not match {pattern!r}")


def _pattern_properties(
    _: Any, validator: Any, patterns: Any, instance: Any, schema: Any
) -> Any:
    if not validator.is_type(instance, "object"):
        return
    for pattern, inner in patterns.items():
        for name, value in instance.items():
            if _found(pattern, name, schema, "patternProperties"):
                yield from validator.descend(
                    value, inner, path=name, schema_path=pattern
                )


def _additional_items(
    stock: Any, validator: Any, value: Any, instance: Any, schema: Any
) -> Any:
    if isinstance(schema.get("items"), list):
        # Beside another `items` it says nothing; jsonschema raises if that is a bool.
        yield from stock(validator, value, instance, schema) or ()


def _additional_properties(
    stock: Any, validator: Any, value: Any, instance: Any, schema: Any
) -> Any:
    patterns = schema.get("patternProperties")
    if patterns and validator.is_type(instance, "object"):
        # jsonschema would look for the patterns itself; it is given what has none.
        instance = {
            name: inner
            for name, inner in instance.items()
            if not any(_found(p, name, schema, "patternProperties") for p in patterns)
        }
        schema = {**schema, "patternProperties": {}}
    yield from stock(validator, value, instance, schema)


def _unevaluated_properties(
    stock: Any, validator: Any, value: Any, instance: Any, schema: Any
) -> Any:
    document = WORK.get().document
    if validator.is_type(instance, "object"):
        longest = max(map(len, instance), default=0)
        for pattern in document.name_patterns:
            # jsonschema itself looks for these, in whatever applies.
            if longest > search(pattern).longest_quick:
                raise Unusable(
                    f"{document.place(schema)}/unevaluatedProperties",
                    f"looking for the pattern {pattern!r:.200} in a name of {longest} "
                    f"characters could take for ever",
                )
    yield from stock(validator, value, instance, schema)


def _unique_items(
    stock: Any, validator: Any, value: Any, instance: Any, schema: Any
) -> Any:
    if not validator.is_type(instance, "array") or len(instance) <= _FEW_ITEMS:
        yield from stock(validator, value, instance, schema) or ()
    elif value and len(set(map(distinct_key, instance))) < len(instance):
        # jsonschema compares each item with each other one.
        yield ValidationError(f"{instance!r:.200} has non-unique elements")
