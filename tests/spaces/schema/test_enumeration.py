"""Every value of a schema, where there are finitely many."""

from __future__ import annotations

from typing import Any

import pytest
from jsonschema import (  # type: ignore[import-untyped, unused-ignore]
    Draft202012Validator,
)

from ors_gym.errors import SchemaError
from ors_gym.spaces import ToolCallSpace, json_schema
from ors_gym.spaces.json_schema import CompiledSchema

TWO = {"enum": [1, 2]}


def tool(name: str, schema: Any) -> dict[str, Any]:
    return {"name": name, "description": "", "input_schema": schema}


@pytest.mark.parametrize(
    ("schema", "values"),
    [
        (False, None),
        ({"type": "null"}, [None]),
        ({"type": "boolean"}, [False, True]),
        ({"const": {"a": [1]}}, [{"a": [1]}]),
        ({"enum": [1, 1.0, True, "1", None]}, [1, True, "1", None]),
        ({"type": "integer", "minimum": -1, "maximum": 1}, [-1, 0, 1]),
        ({"type": "integer", "minimum": 0, "maximum": 9, "multipleOf": 4}, [0, 4, 8]),
        (
            {"type": "number", "minimum": 0, "maximum": 1, "multipleOf": 0.5},
            [0, 0.5, 1],
        ),
        ({"type": "number", "minimum": 1.5, "maximum": 1.5}, [1.5]),
        ({"type": "string", "maxLength": 0}, [""]),
        (
            {"type": "string", "pattern": "^[ab]{1,2}$"},
            ["a", "b", "aa", "ab", "ba", "bb"],
        ),
        ({"type": "string", "pattern": "^(x|yz)?$", "minLength": 1}, ["x", "yz"]),
        ({"type": "string", "pattern": "^(a|b|a)$"}, ["a", "b"]),
        ({"type": ["null", "boolean"]}, [False, True, None]),
        (
            {"anyOf": [TWO, {"enum": [2, 3]}, {"type": "string", "maxLength": 0}]},
            [1, 2, 3, ""],
        ),
        ({"oneOf": [TWO, {"enum": [2, 3]}]}, [1, 3]),
        ({"allOf": [TWO, {"minimum": 2}]}, [2]),
        ({"enum": [1, 2, 3], "not": {"const": 2}}, [1, 3]),
        ({"type": "array", "items": TWO, "maxItems": 1}, [[], [1], [2]]),
        (
            {"items": TWO, "minItems": 2, "maxItems": 2, "uniqueItems": True},
            [[1, 2], [2, 1]],
        ),
        (
            {"prefixItems": [TWO, {"const": 3}], "items": False},
            [[], [1], [2], [1, 3], [2, 3]],
        ),
        ({"type": "object", "additionalProperties": False}, [{}]),
        ({"properties": {"a": TWO}, "required": ["a"]}, [{"a": 1}, {"a": 2}]),
        ({"properties": {"a": TWO}}, [{}, {"a": 1}, {"a": 2}]),
        ({"properties": {"a": {**TWO, "default": 2}}}, [{"a": 1}, {"a": 2}]),
        ({"properties": {"a": {**TWO, "default": 5}}}, [{}, {"a": 1}, {"a": 2}]),
        ({"properties": {"a": False}}, [{}]),
        ({"properties": {"a": TWO}, "minProperties": 1}, [{"a": 1}, {"a": 2}]),
        (
            {
                "type": "string",
                "contentMediaType": "application/json",
                "contentSchema": {"enum": [[1], None]},
            },
            ["[1]", "null"],
        ),
    ],
)
def test_all_values(schema: Any, values: list[Any] | None) -> None:
    if values is None:
        with pytest.raises(SchemaError, match="no value is allowed"):
            json_schema.enumerate(schema)
        return
    found = json_schema.enumerate(schema)
    assert found == values
    assert [type(value) for value in found] == [type(value) for value in values]
    assert all(map(Draft202012Validator(schema).is_valid, found))


@pytest.mark.parametrize(
    ("schema", "place", "reason"),
    [
        ({}, "#", "can be anything"),
        ({"type": "string"}, "#", "no end to the strings"),
        ({"type": "string", "pattern": "^a*$"}, "#", "no end to the strings"),
        ({"type": "string", "pattern": "a"}, "#", "no end to the strings"),
        ({"type": "string", "pattern": "^.$"}, "#", "no end to the strings"),
        ({"type": "integer", "minimum": 0}, "#", "without a bound"),
        ({"type": "number", "minimum": 0, "maximum": 1}, "#", "of a range"),
        ({"type": "array", "items": TWO}, "#", "no end to the items"),
        ({"type": "object", "additionalProperties": TWO}, "#", "any name"),
        ({"type": "object", "additionalProperties": True}, "#", "any name"),
        ({"properties": {"x": {"type": "string"}}}, "#/properties/x", "no end"),
        ({"properties": {"x": {"$ref": "#"}}}, "#/properties/x", "contains itself"),
        (
            {"anyOf": [{"type": "number"}, {"type": "string"}]},
            "#/anyOf/0",
            "texts of a decimal",
        ),
        ({"type": "integer", "minimum": 1, "maximum": 11}, "#", "more than 10 values"),
        ({"type": "integer", "minimum": 1, "maximum": 10**9}, "#", "more than 10"),
        ({"items": TWO, "minItems": 40, "maxItems": 40}, "#", "more than 10"),
        (
            {"properties": {str(n): TWO for n in range(50)}},
            "#",
            "more than 10",
        ),
        ({"type": "string", "pattern": "^[a-z]{50}$"}, "#", "more than 10"),
    ],
)
def test_too_many_values_are_an_error_that_says_where(
    schema: Any, place: str, reason: str
) -> None:
    with pytest.raises(SchemaError) as caught:
        CompiledSchema(schema, "tool 'x': input").enumerate(10)
    assert str(caught.value).startswith(f"tool 'x': input: at {place}: ")
    assert reason in str(caught.value)


def test_the_limit_is_inclusive() -> None:
    schema = {"type": "integer", "minimum": 1, "maximum": 10}
    assert len(json_schema.enumerate(schema, 10)) == 10
    with pytest.raises(SchemaError):
        json_schema.enumerate(schema, 9)


def test_calls_of_all_tools() -> None:
    space = ToolCallSpace(
        [
            tool("guess", {"properties": {"n": TWO}, "required": ["n"]}),
            tool("give_up", None),
        ]
    )
    calls = space.enumerate()
    assert calls == [
        {"tool": "guess", "input": {"n": 1}},
        {"tool": "guess", "input": {"n": 2}},
        {"tool": "give_up", "input": {}},
    ]
    assert all(call in space for call in calls)
    assert space.enumerate(3) == calls
    with pytest.raises(SchemaError, match="more than 2 calls"):
        space.enumerate(2)
    with pytest.raises(SchemaError, match=r"tool 'write': input: at #/properties/text"):
        ToolCallSpace(
            [tool("write", {"properties": {"text": {"type": "string"}}})]
        ).enumerate()


def test_a_listed_call_is_the_callers_own() -> None:
    space = ToolCallSpace([tool("t", {"const": {"a": [1]}})])
    space.enumerate()[0]["input"]["a"].append(2)
    assert space.enumerate()[0]["input"] == {"a": [1]}
