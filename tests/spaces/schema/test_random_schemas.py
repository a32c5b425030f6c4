"""Samples and lists of schemas that nobody wrote."""

from __future__ import annotations

import json
from random import Random
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema import (  # type: ignore[import-untyped, unused-ignore]
    Draft202012Validator,
)
from referencing import Registry

from ors_gym.errors import SchemaError
from ors_gym.spaces.json_schema import CompiledSchema

SCALARS = (
    st.none() | st.booleans() | st.integers(-9, 9) | st.sampled_from(["", "a", "b"])
)
SMALL = st.integers(0, 4)
NUMBERS = st.integers(-20, 20) | st.floats(-20, 20).map(lambda x: round(x, 1))
PATTERNS = st.sampled_from(
    ["^a+$", "b", r"^\d{2}$", "[xyz]{2,3}", "^(a|bc)*$", r"^(?=.*\d)\w{3,}$", "", "^$"]
)


def objects(**members: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    return st.fixed_dictionaries({}, optional=members)


def typed(name: str, **members: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return objects(**members).map(lambda schema: {"type": name, **schema})


LEAVES = st.one_of(
    st.booleans(),
    st.just({}),
    st.builds(
        lambda values: {"enum": values}, st.lists(SCALARS, min_size=1, max_size=4)
    ),
    st.builds(lambda value: {"const": value}, SCALARS),
    st.sampled_from(
        [{"type": "boolean"}, {"type": "null"}, {"type": ["null", "string"]}]
    ),
    typed("string", minLength=SMALL, maxLength=SMALL, pattern=PATTERNS),
    typed("string", format=st.sampled_from(["date", "uuid", "email", "unheard-of"])),
    *(
        typed(
            name,
            minimum=NUMBERS,
            maximum=NUMBERS,
            exclusiveMinimum=NUMBERS,
            exclusiveMaximum=NUMBERS,
            multipleOf=st.sampled_from([1, 2, 3, 0.5, 0.1]),
        )
        for name in ("integer", "number")
    ),
    # Recursion goes through the value: jsonschema itself never ends otherwise.
    st.just({"type": "array", "items": {"$ref": "#"}, "maxItems": 2}),
    st.just({"type": "object", "properties": {"a": {"$ref": "#"}}}),
)


REFERENCE = st.just({"$ref": "#/$defs/named"})


def larger(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    names = st.sampled_from(["a", "b", "c"])
    some = st.lists(inner, min_size=1, max_size=3)
    return st.one_of(
        typed(
            "array",
            items=inner,
            prefixItems=some,
            minItems=SMALL,
            maxItems=SMALL,
            uniqueItems=st.booleans(),
            contains=inner,
        ),
        typed(
            "object",
            properties=st.dictionaries(names, inner, max_size=3),
            required=st.lists(names, max_size=2, unique=True),
            additionalProperties=inner,
            patternProperties=st.dictionaries(PATTERNS, inner, max_size=2),
            propertyNames=st.builds(lambda p: {"pattern": p}, PATTERNS),
            minProperties=SMALL,
            maxProperties=SMALL,
            dependentRequired=st.just({"a": ["b"]}),
        ),
        objects(anyOf=some),
        objects(oneOf=some),
        objects(allOf=some, minimum=NUMBERS),
        objects(**{"if": inner, "then": inner, "else": inner}),
        st.builds(lambda one, two: {"allOf": [one], "not": two}, inner, inner),
    )


SCHEMAS = st.builds(
    lambda schema, named: {"allOf": [schema], "$defs": {"named": named}},
    st.recursive(LEAVES | REFERENCE, larger, max_leaves=8),
    st.recursive(LEAVES, larger, max_leaves=3),
)


@settings(max_examples=150, deadline=None)
@given(SCHEMAS, st.integers(0, 2**32))
def test_a_sample_of_any_schema_is_valid_or_an_error(schema: Any, seed: int) -> None:
    compiled = CompiledSchema(schema, "tool 'x': input")
    validator = Draft202012Validator(schema, registry=Registry())
    random = Random(seed)
    for _ in range(5):
        try:
            value = compiled.draw(random)
        except SchemaError as error:
            assert str(error).startswith("tool 'x': input")
            return
        assert validator.is_valid(value), value
        assert json.loads(json.dumps(value)) == value


@settings(max_examples=150, deadline=None)
@given(SCHEMAS, st.integers(0, 2**32))
def test_a_list_of_any_schema_is_valid_and_distinct(schema: Any, seed: int) -> None:
    compiled = CompiledSchema(schema)
    validator = Draft202012Validator(schema, registry=Registry())
    try:
        values = compiled.enumerate(200)
    except SchemaError:
        return
    assert all(map(validator.is_valid, values))
    texts = [json.dumps(value, sort_keys=True) for value in values]
    assert len(set(texts)) == len(texts) <= 200
