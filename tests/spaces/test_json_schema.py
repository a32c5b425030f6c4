"""What is drawn and listed for each keyword, and what is said where nothing is."""

import json
import re
import sys
import time
from random import Random
from typing import Any

import jsonschema  # type: ignore[import-untyped, unused-ignore]
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema.validators import (  # type: ignore[import-untyped, unused-ignore]
    validator_for,
)
from referencing import Registry

from ors_gym.errors import SchemaError
from ors_gym.formats._drafts import Document
from ors_gym.spaces import json_schema
from ors_gym.spaces._sampler.nodes import Unusable, distinct_key
from ors_gym.spaces._sampler.work_budget import Budget
from ors_gym.spaces.json_schema import CompiledSchema, sample, validate

pytestmark = pytest.mark.unit


def oracle(schema: Any) -> Any:
    tuples = isinstance(schema, dict) and isinstance(schema.get("items"), list)
    default = "Draft201909Validator" if tuples else "Draft202012Validator"
    kind = validator_for(schema, default=getattr(jsonschema, default))
    return kind(schema, registry=Registry())


def drawn(schema: Any, times: int = 100) -> list[Any]:
    compiled = CompiledSchema(schema)
    validator = oracle(schema)
    values = [compiled.draw(Random(seed)) for seed in range(times)]
    assert [value for value in values if not validator.is_valid(value)] == []
    assert all(map(compiled.is_valid, values))
    return values


def member(name: str, schema: Any) -> dict[str, Any]:
    return {"type": "object", "properties": {name: schema}, "required": [name]}


def refused(schema: Any) -> str:
    with pytest.raises(SchemaError) as caught:
        CompiledSchema(schema, "tool 'x': input").draw(Random(1))
    message = str(caught.value)
    assert message.startswith("tool 'x': input: ")
    return message


def test_samples_follow_the_generator() -> None:
    schema = {"type": "array", "items": {"type": "string"}}
    one = [sample(schema, np.random.default_rng(1)) for _ in range(3)]
    assert one[0] == one[1] == one[2]
    rng = np.random.default_rng(1)
    assert len({json.dumps(sample(schema, rng)) for _ in range(20)}) > 5


TWO = {"enum": [1, 2]}
THREE = {"const": 3}
TWO_UNIQUE = {"uniqueItems": True, "minItems": 2}
PAIR = {"items": TWO, "minItems": 2, "maxItems": 2}
JSON = {"type": "string", "contentMediaType": "application/json"}
LONG = {"type": "string", "minLength": 100_000}
REPEATED = {"type": "string", "pattern": "^a{15000}$"}
NEEDS_A = {"dependentRequired": {"b": ["a"]}}
DECIMAL = [{"type": "number"}, {"type": "string"}]
FINITE: list[tuple[Any, list[Any]]] = [
    ({"type": "null"}, [None]),
    ({"type": "boolean"}, [False, True]),
    ({"type": ["null", "boolean"]}, [False, True, None]),
    ({"const": {"a": [1]}}, [{"a": [1]}]),
    ({"enum": [1, 1.0, True, "1", None, [1]]}, [1, True, "1", None, [1]]),
    ({"enum": [1, 2, "3"], "type": "integer"}, [1, 2]),
    ({"enum": ["aa", "b", 5], "minLength": 2, "type": "string"}, ["aa"]),
    ({"enum": [1, 2, 3], "allOf": [{"enum": [2, 3, 4]}, {"const": 3}]}, [3]),
    ({"enum": [1, 2, 3], "not": {"const": 2}}, [1, 3]),
    ({"type": "integer", "minimum": -1, "maximum": 1}, [-1, 0, 1]),
    ({"type": "integer", "minimum": 1, "exclusiveMaximum": 4}, [1, 2, 3]),
    ({"type": "integer", "minimum": 0.5, "maximum": 2.5}, [1, 2]),
    ({"type": "integer", "minimum": 0, "maximum": 9, "multipleOf": 4}, [0, 4, 8]),
    ({"type": "integer", "minimum": 0, "maximum": 9, "multipleOf": 1.5}, [0, 3, 6, 9]),
    ({"type": "number", "minimum": 0, "maximum": 1, "multipleOf": 0.5}, [0, 0.5, 1]),
    ({"type": "number", "minimum": 1.5, "maximum": 1.5}, [1.5]),
    ({"type": "string", "maxLength": 0}, [""]),
    ({"type": "string", "pattern": "^[ab]{1,2}$"}, ["a", "b", "aa", "ab", "ba", "bb"]),
    ({"type": "string", "pattern": "^(x|yz)?$", "minLength": 1}, ["x", "yz"]),
    ({"type": "string", "pattern": "^(a|b|a)$"}, ["a", "b"]),
    ({"anyOf": [TWO, {"enum": [2, 3]}, {"type": "null"}, False]}, [1, 2, 3, None]),
    ({"oneOf": [TWO, {"enum": [2, 3]}]}, [1, 3]),
    ({"allOf": [TWO, {"minimum": 2}]}, [2]),
    ({"if": {"const": 1}, "then": {"const": 1}, "else": {"const": 2}}, [1, 2]),
    ({"type": "array", "items": TWO, "maxItems": 1}, [[], [1], [2]]),
    ({"type": "array", "items": False}, [[]]),
    ({**PAIR, "uniqueItems": True}, [[1, 2], [2, 1]]),
    ({"prefixItems": [TWO, THREE], "items": False}, [[], [1], [2], [1, 3], [2, 3]]),
    ({"prefixItems": [{"const": 1}], "items": False, "minItems": 1}, [[1]]),
    ({"type": "object", "additionalProperties": False}, [{}]),
    ({"properties": {"a": TWO}, "required": ["a"]}, [{"a": 1}, {"a": 2}]),
    ({"properties": {"a": TWO}}, [{}, {"a": 1}, {"a": 2}]),
    ({"properties": {"a": {**TWO, "default": 5}}}, [{}, {"a": 1}, {"a": 2}]),
    ({"properties": {"a": False, "b": {"const": 1}}}, [{}, {"b": 1}]),
    ({"properties": {"a": TWO}, "minProperties": 1}, [{"a": 1}, {"a": 2}]),
    ({**JSON, "contentSchema": {"enum": [[1], None]}}, ["[1]", "null"]),
    ({**JSON, "contentSchema": {"enum": [[1], None]}, "minLength": 4}, ["null"]),
    ({**JSON, "contentSchema": {"enum": [1, 22, 333]}, "maxLength": 2}, ["1", "22"]),
    ({**JSON, "contentSchema": {"enum": [1, 22]}, "pattern": "^2"}, ["22"]),
    ({"properties": {"a": False, "b": TWO}, **NEEDS_A}, [{}]),
]


@pytest.mark.parametrize(("schema", "values"), FINITE)
def test_every_value_is_listed_and_drawn(schema: Any, values: list[Any]) -> None:
    listed = json_schema.enumerate(schema)
    assert listed == values
    assert [type(value) for value in listed] == [type(value) for value in values]
    assert all(map(jsonschema.Draft202012Validator(schema).is_valid, listed))
    assert {*map(distinct_key, drawn(schema, 300))} == {*map(distinct_key, values)}


def test_a_listed_member_with_a_default_is_never_left_out() -> None:
    # Leaving it out means the same.
    schema = {"properties": {"a": {**TWO, "default": 2}}}
    assert json_schema.enumerate(schema) == [{"a": 1}, {"a": 2}]
    with pytest.raises(SchemaError, match="no value is allowed"):
        json_schema.enumerate(False)


@pytest.mark.parametrize(
    ("schema", "place", "reason"),
    [
        ({}, "#", "can be anything"),
        ({"type": "string"}, "#", "infinitely many strings"),
        ({"type": "string", "pattern": "^a*$"}, "#", "infinitely many strings"),
        ({"type": "string", "pattern": "a"}, "#", "infinitely many strings"),
        ({"type": "string", "pattern": "^.$"}, "#", "infinitely many strings"),
        ({"type": "integer", "minimum": 0}, "#", "without a bound"),
        ({"type": "number", "minimum": 0, "maximum": 1}, "#", "in its range"),
        ({"type": "array", "items": TWO}, "#", "number of items"),
        ({"type": "object", "additionalProperties": TWO}, "#", "any name"),
        ({"type": "object", "additionalProperties": True}, "#", "any name"),
        ({"properties": {"x": {"type": "string"}}}, "#/properties/x", "infinitely"),
        ({"properties": {"x": {"$ref": "#"}}}, "#", "contains itself"),
        ({"anyOf": DECIMAL}, "#/anyOf/0", "a decimal has"),
        ({"type": "integer", "minimum": 1, "maximum": 11}, "#", "more than 10 values"),
        ({"type": "integer", "minimum": 1, "maximum": 10**9}, "#", "more than 10"),
        ({"items": TWO, "minItems": 40, "maxItems": 40}, "#", "more than 10"),
        ({"properties": dict.fromkeys(map(str, range(50)), TWO)}, "#", "more than 10"),
        ({"type": "string", "pattern": "^[a-z]{50}$"}, "#", "more than 10"),
    ],
)
def test_too_many_values_are_an_error_that_says_where(schema, place, reason):
    with pytest.raises(SchemaError) as caught:
        CompiledSchema(schema, "tool 'x': input").enumerate(10)
    assert str(caught.value).startswith(f"tool 'x': input: at {place}: ")
    assert reason in str(caught.value)


def test_the_limit_is_inclusive() -> None:
    schema = {"type": "integer", "minimum": 1, "maximum": 10}
    assert len(json_schema.enumerate(schema, 10)) == 10
    with pytest.raises(SchemaError):
        json_schema.enumerate(schema, 9)


def test_a_drawn_constant_is_the_callers_own() -> None:
    schema = {"const": {"list": [1]}}
    compiled = CompiledSchema(schema)
    compiled.draw(Random(1))["list"].append(2)
    assert compiled.draw(Random(1)) == {"list": [1]}


@pytest.mark.parametrize(
    "schema",
    [
        {"$ref": "#/$defs/a%20b~1c~0d", "$defs": {"a b/c~d": {"type": "null"}}},
        {"allOf": [{"type": "null"}, {"$ref": "#/allOf/0"}]},
        {"$ref": "#/anyOf/1", "anyOf": [{"type": "string"}, {"type": "null"}]},
    ],
)
def test_references_are_json_pointers(schema: dict[str, Any]) -> None:
    assert set(drawn(schema)) == {None}


def test_siblings_of_a_reference_apply() -> None:
    schema = {
        "$defs": {"n": {"type": "integer", "minimum": 3}},
        "properties": {"x": {"$ref": "#/$defs/n", "maximum": 4}},
        "required": ["x"],
    }
    assert {value["x"] for value in drawn(schema)} == {3, 4}


def test_recursion_is_bounded() -> None:
    tree = member("children", {"type": "array", "items": {"$ref": "#"}})
    assert max(len(json.dumps(value)) for value in drawn(tree)) < 10_000
    properties = {name: {"$ref": "#"} for name in "abcdefghij"}
    wide = {"type": "object", "properties": properties}
    assert max(len(json.dumps(value)) for value in drawn(wide)) < 20_000


def test_a_tag_is_always_given() -> None:
    branch = {"properties": {"kind": {"const": "a", "default": "a"}}, "type": "object"}
    other = {"properties": {"kind": {"const": "b", "default": "b"}}, "type": "object"}
    schema = {"oneOf": [branch, other], "discriminator": {"propertyName": "kind"}}
    assert {value["kind"] for value in drawn(schema)} == {"a", "b"}


def test_members_that_need_not_be_there_are_left_out_if_impossible() -> None:
    schema = {
        "type": "object",
        "properties": {
            "remote": {"$ref": "https://example.com/schema.json"},
            "unlucky": {"type": "string", "pattern": "^a$", "minLength": 5},
            "wrong": {"type": "strange"},
            "fine": {"const": 1},
        },
    }
    compiled = CompiledSchema(schema)
    values = [compiled.draw(Random(seed)) for seed in range(30)]
    assert {json.dumps(value) for value in values} == {"{}", '{"fine": 1}'}


def test_a_member_that_needs_an_impossible_one_is_left_out() -> None:
    impossible = {"type": "string", "anyOf": [{"type": "integer"}, {"type": "null"}]}
    properties = {"b": {"type": "integer"}, "a": impossible}
    schema = {"type": "object", "properties": properties, **NEEDS_A}
    assert drawn(schema) == [{}] * 100
    assert "no 1 different members" in refused({**schema, "minProperties": 1})
    assert "no type is allowed" in refused({**schema, "required": ["b"]})


def test_json_in_a_text_has_the_length_and_the_pattern_of_the_text() -> None:
    numbers = {**JSON, "contentSchema": {"type": "array", "items": {"type": "integer"}}}
    for text in drawn({**numbers, "minLength": 6, "allOf": [{"pattern": "^..?[1-5]"}]}):
        assert all(isinstance(number, int) for number in json.loads(text))
    # Chance finds no integer of so many digits.
    number = {**JSON, "contentSchema": {"type": "integer"}, "minLength": 40}
    assert "at #/minLength: many attempts" in refused(number)
    assert "at least 40 characters" in refused({**number, "maxLength": 1})


def test_long_texts_are_drawn_where_they_are_few() -> None:
    drawn(LONG, 2)
    drawn({"type": "array", "minItems": 3, "items": LONG}, 2)
    assert drawn(member("x", {"anyOf": [LONG, {"type": "null"}]}), 5)
    short = {"type": "string", "minLength": 99}
    assert len(drawn({"type": "array", "minItems": 2_000, "items": short}, 1)[0])


def test_numbers_at_the_edge_of_floats() -> None:
    drawn({"type": "number", "minimum": -1.7e308, "maximum": 1.7e308})
    drawn({"type": "number", "exclusiveMinimum": 0, "maximum": 5e-324})
    drawn({"type": "integer", "minimum": 10**400})
    drawn({"type": "number", "minimum": 1e308})
    assert "no number" in refused({"type": "number", "minimum": 2, "maximum": 1})
    assert "no such number" in refused({"type": "number", "minimum": 10**400})


@pytest.mark.parametrize(
    ("schema", "place", "reason"),
    [
        (False, "#", "no value is allowed"),
        ("text", "#", "is not a schema"),
        ({"$ref": "#/nowhere"}, "#/$ref", "leads nowhere"),
        ({"$ref": "https://example.com/x"}, "#/$ref", "nothing is fetched"),
        ({"$ref": "other.json#/x"}, "#/$ref", "nothing is fetched"),
        ({"$ref": "#anchor"}, "#/$ref", "leads nowhere"),
        ({"$ref": 5}, "#/$ref", "must be a string"),
        ({"$ref": "#"}, "#", "refers to itself"),
        ({"allOf": [{"$ref": "#"}]}, "#", "refers to itself"),
        ({"$dynamicRef": "#x"}, "#/$dynamicRef", "leads nowhere"),
        ({"type": "strange"}, "#/type", "must be one or more of array"),
        ({"type": "integer", "minimum": "3"}, "#/minimum", "must be a number"),
        ({"type": "integer", "multipleOf": 0}, "#/multipleOf", "above 0"),
        ({"type": "integer", "minimum": float("nan")}, "#/minimum", "finite"),
        ({"type": "string", "minLength": -1}, "#/minLength", "whole number"),
        ({"type": "string", "minLength": 10**9}, "#", "at least 1000000000 characters"),
        ({"type": "string", "pattern": "("}, "#/pattern", "cannot read"),
        ({"type": "string", "pattern": r"^\p{L}$"}, "#/pattern", "cannot read"),
        ({"type": "string", "pattern": "(a)?(?(1)b|c)"}, "#/pattern", "not sampled"),
        ({"type": "string", "pattern": "^a{99999}$"}, "#/pattern", "99999 characters"),
        ({"type": "string", "pattern": "^a$", "minLength": 2}, "#/pattern", "attempts"),
        ({"type": "object", "properties": []}, "#/properties", "must be an object"),
        ({"type": "object", "required": "x"}, "#/required", "must be an array"),
        ({"type": "object", "required": [1]}, "#/required", "array of strings"),
        ({"type": "object", "minProperties": 1, "maxProperties": 0}, "#", "members"),
        ({"type": "array", "minItems": 2, "maxItems": 1}, "#", "2 items are required"),
        ({"type": "array", "items": [5], "minItems": 1}, "#/items/0", "not a schema"),
        ({"items": {"enum": [1]}, **TWO_UNIQUE}, "#", "no 2 different items"),
        ({"enum": []}, "#", "none of the values"),
        ({"enum": 5}, "#/enum", "must be an array"),
        ({"const": 1, "type": "string"}, "#", "none of the values"),
        ({"type": "string", "allOf": [{"type": "null"}]}, "#", "no type"),
        ({"anyOf": []}, "#", "no end"),
        ({"not": {}}, "#/not", "every value satisfies"),
        (member("x", {"$ref": "#"}), "#", "has no end"),
        ({"type": "array", "minItems": 400, "items": LONG}, "#", "each 100 characters"),
        ({"type": "array", "minItems": 400, "items": REPEATED}, "#", "100 characters"),
        (member("x", {"type": "array", "minItems": 50_000}), "#", "larger than 50000"),
        (
            member("a/b", {"anyOf": [{"type": "strange"}, False]}),
            *("#/properties/a~1b/anyOf/0/type", "must be one or more"),
        ),
    ],
)
def test_errors_name_the_place(schema: Any, place: str, reason: str) -> None:
    message = refused(schema)
    assert f": at {place}: " in message
    assert reason in message


NOWHERE = {"$ref": "#/nowhere"}


@pytest.mark.parametrize(
    "schema",
    [
        {"not": {"not": NOWHERE, "type": "null"}},
        {"not": {"type": "null", "not": NOWHERE}},
        {"not": {"allOf": [NOWHERE], "required": ["a"]}},
        {
            "not": {
                "properties": {"a": {"not": NOWHERE, "type": "null"}},
                "type": "null",
            }
        },
    ],
    ids=json.dumps,
)
def test_a_keyword_that_cannot_be_decided_is_last_wherever_it_stands(schema):
    compiled = CompiledSchema(schema)
    for seed in range(9):
        assert compiled.is_valid(compiled.draw(Random(seed)))
    assert compiled.is_valid({})


def test_a_keyword_that_cannot_be_decided_counts_where_no_other_does():
    compiled = CompiledSchema({"not": {"not": NOWHERE, "type": "object"}})
    assert compiled.is_valid(3)
    with pytest.raises(SchemaError, match="does not exist"):
        compiled.is_valid({})


DRAFT_4 = {"$schema": "http://json-schema.org/draft-04/schema#"}
DRAFT_7 = {"$schema": "http://json-schema.org/draft-07/schema#"}
DRAFT_2019 = {"$schema": "https://json-schema.org/draft/2019-09/schema"}
FLAG = {"type": "boolean"}
ABC = {"a": FLAG, "b": FLAG, "c": FLAG}
OBJECT = {"type": "object"}
NATURAL = {"type": "integer", "minimum": 0}
OF_ALL_KINDS: dict[str, Any] = {
    "draft 3": {
        "$schema": "http://json-schema.org/draft-03/schema#",
        "properties": {"a": {"type": "integer", "divisibleBy": 7, "required": True}},
        "extends": {"properties": {"a": {"minimum": 5}}},
    },
    "draft 4: exclusive bounds": {
        **DRAFT_4,
        **member("a", {**NATURAL, "maximum": 2, "exclusiveMaximum": True}),
    },
    "draft 4: no const": {**DRAFT_4, "type": "string", "const": 5},
    "draft 4: id": {
        **DRAFT_4,
        "id": "http://x/y",
        **member("a", {"$ref": "http://x/y#/definitions/n"}),
        "definitions": {"n": {"type": "null"}},
    },
    "draft 7: dependencies": {
        **DRAFT_7,
        **OBJECT,
        "properties": ABC,
        "dependencies": {"a": ["b"], "b": {"required": ["c"]}},
    },
    "draft 7: siblings of a reference": {
        **DRAFT_7,
        "properties": {"a": {"$ref": "#/definitions/n", "type": "string"}},
        "required": ["a"],
        "definitions": {"n": {"type": "null"}},
    },
    "draft 7: tuples": {
        **DRAFT_7,
        "items": [FLAG, {"type": "null"}],
        "additionalItems": False,
        "minItems": 2,
    },
    "tuples without a draft": {"type": "array", "items": [FLAG, FLAG], "minItems": 1},
    "nested draft": {
        **OBJECT,
        "properties": {"a": {**DRAFT_7, **OBJECT, "dependencies": {"b": ["c"]}}},
        "required": ["a"],
    },
    "chained dependentRequired": {
        **OBJECT,
        "properties": {str(n): FLAG for n in range(12)},
        "dependentRequired": {str(n): [str(n + 1)] for n in range(20)},
        "minProperties": 1,
    },
    "dependentSchemas": {
        **OBJECT,
        "properties": ABC,
        "dependentSchemas": {"a": {"properties": {"b": {"const": True}}}},
    },
    "nested $id": {
        "$id": "http://x/root",
        "properties": {
            "a": {
                "$id": "inner",
                "$defs": {"n": {"const": 1}},
                "properties": {"b": {"$ref": "#/$defs/n"}},
                "required": ["b"],
            },
            "c": {"$ref": "inner#/$defs/n"},
        },
        "$defs": {"n": {"const": 2}},
        "required": ["a", "c"],
    },
    "jsonschema.net's $id": {
        "$id": "http://example.com/example.json",
        "properties": {
            "a": {"$id": "#/properties/a", "$ref": "#/$defs/n"},
        },
        "required": ["a"],
        "$defs": {"n": {"$id": "#/$defs/n", "type": "null"}},
    },
    "$anchor": {
        **member("a", {"$ref": "#n"}),
        "$defs": {"n": {"$anchor": "n", **FLAG}},
    },
    "anchor of draft 7": {
        **DRAFT_7,
        **member("a", {"$ref": "#n"}),
        "definitions": {"n": {"$id": "#n", **FLAG}},
    },
    "$dynamicRef": {
        "$dynamicAnchor": "tree",
        **member("a", {"type": "array", "items": {"$dynamicRef": "#tree"}}),
    },
    "$recursiveRef": {
        **DRAFT_2019,
        "$recursiveAnchor": True,
        **OBJECT,
        "properties": {"a": {"$recursiveRef": "#"}},
    },
    "the schema of schemas": {"$ref": DRAFT_7["$schema"]},
    "oneOf of overlapping ranges": {
        "type": "integer",
        "oneOf": [{"minimum": 0, "maximum": 1000}, {"minimum": 1, "maximum": 1001}],
    },
    "oneOf of overlapping objects": {
        **OBJECT,
        "properties": ABC,
        "oneOf": [{"required": ["a"]}, {"required": ["b"]}, {"required": ["a", "c"]}],
    },
    "oneOf of a number and an integer": {"oneOf": [{"type": "number"}, NATURAL]},
    "contains with const": {
        "type": "array",
        "items": NATURAL,
        "contains": {"const": 77},
    },
    "contains with multipleOf": {
        "items": {"type": "integer", "minimum": 1, "maximum": 999},
        "contains": {"multipleOf": 499},
        "minContains": 2,
    },
    "two contains": {
        "type": "array",
        "allOf": [{"contains": {"const": "a"}}, {"contains": {"const": "b"}}],
        "uniqueItems": True,
        "maxItems": 3,
    },
    "contains of nothing": {"contains": False},
    "propertyNames: false": {**OBJECT, "propertyNames": False},
    "propertyNames of no name": {
        **OBJECT,
        "properties": ABC,
        "propertyNames": {"enum": []},
    },
    "propertyNames of some": {
        **OBJECT,
        "properties": ABC,
        "propertyNames": {"enum": ["b", "z"]},
        "additionalProperties": FLAG,
        "minProperties": 2,
    },
    "minProperties beside what is impossible": {
        **OBJECT,
        "properties": {"a": False, "b": FLAG, "c": FLAG},
        "additionalProperties": False,
        "minProperties": 2,
    },
    "not required": {**OBJECT, "properties": ABC, "not": {"required": ["a"]}},
    "not of a range": {"type": "integer", "not": {"minimum": 3}},
    "not of a closed object": {
        **OBJECT,
        "not": {"properties": {"a": FLAG}, "additionalProperties": False},
    },
    "not of not": {"not": {"not": {"const": "only"}}},
    "not anyOf": {
        "type": "string",
        "not": {"anyOf": [{"minLength": 3}, {"maxLength": 1}]},
    },
    "not anyOf of many": {
        **OBJECT,
        "properties": {str(n): FLAG for n in range(150)},
        "not": {"anyOf": [{"required": [str(n)]} for n in range(1, 150)]},
    },
    "if of a rare value": {
        "type": "integer",
        "if": {"maximum": 10**9},
        "then": {"const": 5},
        "else": {"multipleOf": 1000},
    },
    "disjoint alternatives, repeated": {
        "type": "string",
        "pattern": "^([0-9]|[a-f]){32}$",
    },
    "nested repeats": {"type": "string", "pattern": "^([a-z]+-)+x{40}$"},
    "many conditions": {
        **OBJECT,
        "properties": {"kind": {"enum": list(range(12))}},
        "required": ["kind"],
        "allOf": [
            {
                "if": {"properties": {"kind": {"const": n}}},
                "then": {"properties": {str(n): FLAG}, "required": [str(n)]},
            }
            for n in range(12)
        ],
    },
    "impossible in one type": {"minLength": 2, "maxLength": 1},
}


@pytest.mark.parametrize("name", OF_ALL_KINDS)
def test_schemas_of_all_kinds_are_sampled(name: str) -> None:
    schema = OF_ALL_KINDS[name]
    if name == "jsonschema.net's $id":
        # Read by the rules, references from under such an identifier lead nowhere.
        values = [CompiledSchema(schema).draw(Random(seed)) for seed in range(20)]
        assert values == [{"a": None}] * 20
        assert CompiledSchema(schema).is_valid({"a": None})
        assert not CompiledSchema(schema).is_valid({"a": 1})
        return
    assert drawn(schema, 40)


def test_the_draft_decides_what_is_valid() -> None:
    for schema, value in (
        ({**DRAFT_7, "dependencies": {"a": ["b"]}}, {"a": 1}),
        ({**DRAFT_4, "minimum": 1, "exclusiveMinimum": True}, 1),
        (
            {"properties": {"x": {**DRAFT_7, "dependencies": {"a": ["b"]}}}},
            {"x": {"a": 1}},
        ),
        ({"items": [{"const": 1}]}, [2]),
    ):
        assert not CompiledSchema(schema).is_valid(value)
    assert CompiledSchema({**DRAFT_4, "const": 1}).is_valid(2)


ROOT_OF_A: dict[str, Any] = {"$ref": "#/$defs/a"}
BAD: dict[str, Any] = {"$ref": "https://example.com/x"}
CIRCULAR: list[tuple[dict[str, Any], Any, Any]] = [
    ({"anyOf": [{"$ref": "#"}, {"type": "integer"}]}, 5, "x"),
    ({"anyOf": [{"not": {"$ref": "#"}}, {"type": "integer"}]}, 5, ...),
    ({"anyOf": [{"type": "null", "not": {"$ref": "#"}}, {"const": 1}]}, 1, "x"),
    ({"allOf": [{"anyOf": [{"$ref": "#"}, FLAG]}, {"const": True}]}, True, False),
    (
        {"properties": {"a": {"anyOf": [{"$ref": "#/properties/a"}, FLAG]}}},
        {},
        {"a": 1},
    ),
    (
        {
            "$defs": {"a": {"anyOf": [{"$ref": "#/$defs/b"}, FLAG]}, "b": ROOT_OF_A},
            "anyOf": [ROOT_OF_A],
        },
        True,
        5,
    ),
    ({"$dynamicAnchor": "a", "anyOf": [{"$dynamicRef": "#a"}, FLAG]}, True, 5),
    (
        {
            "$schema": "https://json-schema.org/draft/2019-09/schema",
            "$recursiveAnchor": True,
            "anyOf": [{"$recursiveRef": "#"}, FLAG],
        },
        True,
        5,
    ),
    ({**DRAFT_4, "anyOf": [{"$ref": "#"}, FLAG]}, True, 5),
    ({"anyOf": [BAD, {"$ref": 5}, FLAG]}, True, ...),
    ({"oneOf": [FLAG, {"const": True}, BAD]}, ..., True),
]


@pytest.mark.parametrize(("schema", "valid", "invalid"), CIRCULAR)
def test_other_branches_decide_where_one_leads_nowhere_or_round_in_a_circle(
    schema: Any, valid: Any, invalid: Any
) -> None:
    compiled = CompiledSchema(schema)
    for value in [valid] * (valid is not ...) + drawn_if_any(compiled):
        assert compiled.is_valid(value)
    if invalid is not ...:
        assert not compiled.is_valid(invalid)


def drawn_if_any(compiled: CompiledSchema) -> list[Any]:
    try:
        return [compiled.draw(Random(n)) for n in range(20)]
    except SchemaError:
        return []


@pytest.mark.parametrize(
    "schema",
    [
        {"not": {"$ref": "#"}},
        {"oneOf": [{"$ref": "#"}, {}]},
        {"if": {"$ref": "#"}, "then": False},
    ],
)
def test_a_paradox_is_an_error(schema: Any) -> None:
    with pytest.raises(SchemaError, match="without end"):
        CompiledSchema(schema).is_valid(5)


@pytest.mark.parametrize("name", [5, {}, "http://[", None])
def test_what_names_nothing_is_dropped(name: Any) -> None:
    inner = {"$id": name, "$anchor": name, "$ref": "#/$defs/a"}
    part = member("a", inner)
    schema = {"$id": name, "$defs": {"a": {"const": 3}}, **part}
    compiled = CompiledSchema(schema)
    assert compiled.draw(Random(1))["a"] == 3
    assert not compiled.is_valid({"a": 4})


def test_a_bool_for_items_leaves_additional_items_unsaid() -> None:
    schema = {**DRAFT_7, "items": True, "additionalItems": False}
    assert CompiledSchema(schema).is_valid([1])


@pytest.mark.parametrize(
    "schema",
    [
        {},
        {"minLength": 3},
        True,
        {"anyOf": [OBJECT, {"type": "string"}]},
        {"type": ["object", "null"]},
    ],
)
def test_only_objects_are_drawn_where_only_they_are_wanted(schema: Any) -> None:
    compiled = CompiledSchema(schema, only_objects=True)
    assert all(isinstance(compiled.draw(Random(n)), dict) for n in range(50))


def test_what_is_found_once_is_drawn_ever_after() -> None:
    # Chance finds such a text in few draws only.
    rare = {"type": "string", "minLength": 1, "not": {"pattern": "[a-zA-Z1-9 ]"}}
    compiled = CompiledSchema({"type": "array", "items": rare, "minItems": 2})
    try:
        compiled.prepare()
    except SchemaError:
        return
    assert all(compiled.is_valid(compiled.draw(Random(n))) for n in range(50))


def deep(levels: int) -> dict[str, Any]:
    schema: dict[str, Any] = {"type": "integer"}
    for _ in range(levels):
        schema = member("x", schema)
    return schema


def reference(number: int) -> dict[str, Any]:
    return {"$ref": f"#/$defs/{number}"}


def doubling(levels: int) -> dict[str, Any]:
    """A small schema whose smallest value has 2 ** levels members."""
    definitions: dict[str, Any] = {"0": {"type": "integer"}}
    for level in range(levels):
        halves = {"a": reference(level), "b": reference(level)}
        definitions[str(level + 1)] = {"properties": halves, "required": ["a", "b"]}
    return {**reference(levels), "$defs": definitions}


def entangled(groups: int) -> dict[str, Any]:
    """Unions whose combinations are 2 ** groups."""
    union = {"anyOf": [{"minimum": 1}, {"maximum": 9}]}
    return {"type": "integer", "allOf": [dict(union) for _ in range(groups)]}


DOUBLED: dict[str, Any] = {"0": {"type": "null"}}
DOUBLED |= {str(n): {"allOf": [reference(n - 1)] * 2} for n in range(1, 60)}
CHAIN = {str(n): reference(n + 1) for n in range(3000)}


def exponential_one_of(levels: int) -> dict[str, Any]:
    """Each level asks three times what the next one says."""
    definitions: dict[str, Any] = {str(levels): {"type": "integer"}}
    for n in range(levels):
        inner = {"allOf": [reference(n + 1), reference(n + 1)]}
        definitions[str(n)] = {"oneOf": [inner, {"not": reference(n + 1)}, False]}
    return {**reference(0), "$defs": definitions}


LARGE_NOT = {"not": {"anyOf": [{"const": n} for n in range(3000)]}}
HOSTILE: dict[str, Any] = {
    "deep": deep(200),
    "smallest value is huge": doubling(40),
    "exponential unions": entangled(40),
    "exponential allOf": {**reference(59), "$defs": DOUBLED},
    "long chain of references": {**reference(0), "$defs": CHAIN},
    "many properties": {"properties": {str(n): {"minimum": n} for n in range(120_000)}},
    "many values": {"type": "integer", "enum": list(range(500_000))},
    "many values, checked": {"minimum": 5, "enum": list(range(200_000))},
    "many branches": {"oneOf": [{"const": n} for n in range(2000)]},
    "long array": {"type": "array", "minItems": 10**9, "items": {"type": "null"}},
    "many places": {"type": "array", "prefixItems": [{}] * 100_000},
    "many members": {"type": "object", "minProperties": 10**9},
    "many members or these": {"properties": {"a": {}}, "minProperties": 1e308},
    "evil pattern": {"type": "string", "pattern": "^(?=.*!)(a+)+$"},
    "evil pattern, long": {"type": "string", "pattern": "^(a+)+b$", "minLength": 5000},
    "two evil patterns": {
        "allOf": [{"type": "string", "pattern": "^(a|a)*$"}, {"pattern": "^(a*)*b$"}]
    },
    "evil name": {
        "type": "object",
        "properties": {"a" * 100 + "b": {}},
        "patternProperties": {"^(a+)+$": {"type": "string"}},
        "required": ["a" * 100 + "b"],
    },
    "repeated repeats": {"type": "string", "pattern": "((a{1000}){1000}){1000}"},
    "repeated nothing": {"type": "string", "pattern": "^(){1000000000}x$"},
    "nested groups": {"type": "string", "pattern": "(" * 90 + "a" + ")" * 90},
    "evil pattern, unchecked": {
        "type": "string",
        "pattern": "^(([a-z])+.)+[A-Z]([a-z])+$",
    },
    "exponential oneOf": exponential_one_of(40),
    "values with a large not": {"enum": list(range(20_000)), **LARGE_NOT},
    "large not": {"type": "integer", **LARGE_NOT},
    "self in not": {"not": {"$ref": "#"}},
    "self in if": {"if": {"$ref": "#"}, "then": {"type": "null"}},
    "self in anyOf": {"anyOf": [{"$ref": "#"}, {"$ref": "#"}]},
}


@pytest.mark.slow
@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_schemas_take_bounded_time(name: str) -> None:
    start = time.process_time()
    compiled = CompiledSchema(HOSTILE[name], name)
    for action in (lambda: compiled.draw(Random(1)), lambda: compiled.enumerate(10)):
        try:
            value = action()
        except SchemaError as error:
            assert str(error).startswith(name)
        else:
            assert len(json.dumps(value)) < 10**6
    # A guard against exponential time, which would take hours; not a measurement.
    assert time.process_time() - start < 30


CHECKED: dict[str, tuple[Any, Any]] = {
    "exponential allOf": ({**reference(59), "$defs": DOUBLED}, None),
    "exponential oneOf": (exponential_one_of(40), 5),
    "catastrophic pattern": ({"pattern": "^(a+)+$"}, "a" * 4000 + "b"),
    "catastrophic names": (
        {"patternProperties": {"^(a+)+$": False}, "additionalProperties": FLAG},
        {"a" * 4000 + "b": True},
    ),
    "catastrophic unevaluated names": (
        {"patternProperties": {"^(a+)+$": False}, "unevaluatedProperties": FLAG},
        {"a" * 4000 + "b": True},
    ),
    "backreference": ({"pattern": r"^(a+)+\1b$"}, "a" * 4000),
    "many objects, unique": ({"uniqueItems": True}, [{"n": n} for n in range(20_000)]),
    "many values, many schemas": ({"items": LARGE_NOT}, list(range(3000, 6000))),
    "nested unevaluated": (
        {"allOf": [{"allOf": [{"unevaluatedItems": False}] * 50}] * 50},
        [1] * 50,
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", CHECKED)
def test_checks_of_hostile_schemas_take_bounded_time(name: str) -> None:
    schema, value = CHECKED[name]
    start = time.process_time()
    try:
        assert CompiledSchema(schema, name).is_valid(value) in (True, False)
    except SchemaError as error:
        assert re.match(f"{name}: at #.*: ", str(error))
    assert time.process_time() - start < 30


def test_what_is_too_much_is_named() -> None:
    wide = {"type": "array", "items": {"anyOf": [{"not": LARGE_NOT}] * 40}}
    compiled = CompiledSchema({"properties": {"wide": wide}}, "tool 'x': input")
    with pytest.raises(SchemaError, match=r"at #/properties/wide/.*too much work"):
        compiled.is_valid({"wide": [10_000] * 20})


@pytest.mark.parametrize(
    ("values", "most"), [(10, 20_200), (10_000, 80_000), (100_000, 320_000)]
)
def test_a_larger_value_may_cost_more_within_a_limit(values: int, most: int) -> None:
    document = Document(True)
    applied = 0
    with Budget(document, [None] * (values - 1)) as work, pytest.raises(Unusable):
        while applied < 10**6:
            work.spend(True)
            applied += 1
    assert applied == most


def test_a_union_stops_at_the_first_branch_that_allows_the_value() -> None:
    branches = [{"type": "integer"}] * 2 + [{"not": LARGE_NOT}] * 50
    assert CompiledSchema({"items": {"anyOf": branches}}).is_valid([1] * 2000)
    assert not CompiledSchema({"items": {"oneOf": branches}}).is_valid([1])


def test_places_of_a_large_schema_are_found_once() -> None:
    document = Document({"enum": [[n] for n in range(20_000)]})
    start = time.process_time()
    for inner in document.root["enum"]:
        assert document.place(inner) == f"#/enum/{inner[0]}"
    # A guard against quadratic time, which would take minutes; not a measurement.
    assert time.process_time() - start < 30


def test_a_large_value_of_a_plain_schema_is_not_too_much() -> None:
    schema = {"items": {"properties": {"a": {"type": "integer"}, "b": {"minimum": 1}}}}
    assert CompiledSchema(schema).is_valid(
        [{"a": n, "b": n + 1} for n in range(30_000)]
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    ("schema", "count"),
    [
        ({"oneOf": [{"const": n} for n in range(2000)]}, 2000),
        (
            {
                **OBJECT,
                "oneOf": [member("k", {"const": n}) for n in range(2000)],
            },
            2000,
        ),
        ({"enum": list(range(3000)), "not": {"enum": list(range(1, 100_000))}}, 1),
    ],
)
def test_long_lists_of_alternatives_are_listed(schema: Any, count: int) -> None:
    assert len(json_schema.enumerate(schema, 3000)) == count
    drawn(schema, 3)


def test_many_unions_at_once_are_sampled() -> None:
    assert drawn(entangled(40), 20)


def test_no_remote_schema_is_fetched(monkeypatch: pytest.MonkeyPatch) -> None:
    import socket

    def connect(*_: object) -> None:
        raise AssertionError("a connection was attempted")

    monkeypatch.setattr(socket.socket, "connect", connect)
    schema = {"$ref": "http://127.0.0.1:9/schema.json"}
    for action in (
        lambda: CompiledSchema(schema).draw(Random(1)),
        lambda: CompiledSchema(schema).is_valid(1),
        lambda: CompiledSchema({"not": schema}).draw(Random(1)),
        lambda: validate(schema, 1),
    ):
        with pytest.raises(SchemaError):
            action()


def test_texts_do_not_begin_or_end_with_blanks() -> None:
    texts = drawn({"type": "string", "minLength": 1}, 500)
    assert all(text == text.strip() for text in texts)
    assert any(" " in text for text in texts)


def test_a_decimal_has_no_more_digits_than_its_pattern_means() -> None:
    # Pydantic 2.13's for two digits before the point: "100" and "100.00" match too.
    pattern = r"^(?!^[-+.]*$)[+-]?0*(?:\d{0,2}|(?=[\d.]{1,5}0*$)\d{0,2}\.\d{0,2}0*$)"
    number = {"type": "number", "minimum": 99, "maximum": 101}
    values = drawn({"anyOf": [number, {"type": "string", "pattern": pattern}]})
    assert {type(value) for value in values} == {str, float}
    assert all(float(value) < 100 for value in values)


def test_an_unheard_of_format_is_any_text() -> None:
    assert len(set(drawn({"type": "string", "format": "shoe-size"}))) > 10
    assert set(drawn({"type": "string", "format": "date", "maxLength": 3}))


def test_extra_members_have_names_that_are_numbers_too() -> None:
    for value in drawn({"type": "object", "additionalProperties": {"const": 1}}):
        assert all(re.fullmatch(r"\d+", name) for name in value)


TEXTS = st.sampled_from(["", "a", "b"])
SCALARS = st.none() | st.booleans() | st.integers(-9, 9) | TEXTS
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
    st.sampled_from([{"type": t} for t in ("boolean", "null", ["null", "string"])]),
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
            # Beside additionalProperties, jsonschema takes the pattern "" for none.
            patternProperties=st.dictionaries(PATTERNS.filter(bool), inner, max_size=2),
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
    validator = jsonschema.Draft202012Validator(schema, registry=Registry())
    random = Random(seed)
    for _ in range(5):
        try:
            value = compiled.draw(random)
        except SchemaError as error:
            assert str(error).startswith("tool 'x': input")
            return
        assert validator.is_valid(value), value
        assert json.loads(json.dumps(value)) == value


OLD = st.builds(
    lambda schema, draft, first: {
        **draft,
        "properties": {
            "a": schema,
            "b": {"type": "array", "items": [first, schema], "additionalItems": first},
        },
        "required": ["a", "b"],
        "dependencies": {"c": ["d"], "d": {"minProperties": 4}},
        "additionalProperties": {"exclusiveMaximum": True, "maximum": 3},
        "definitions": {"named": {"const": 1, "type": "integer"}},
    },
    st.recursive(
        LEAVES | st.just({"$ref": "#/definitions/named", "type": "null"}), larger
    ),
    st.sampled_from([DRAFT_4, DRAFT_7, DRAFT_2019]),
    LEAVES,
)


@settings(max_examples=60, deadline=None)
@given(OLD, st.integers(0, 2**32))
def test_a_sample_of_an_older_draft_is_valid_or_an_error(
    schema: Any, seed: int
) -> None:
    compiled = CompiledSchema(schema)
    for number in range(3):
        try:
            value = compiled.draw(Random(seed + number))
            assert compiled.is_valid(value)
        except SchemaError:
            return
        try:
            assert oracle(schema).is_valid(value)
        except (TypeError, AttributeError):
            return


@settings(max_examples=150, deadline=None)
@given(SCHEMAS, st.integers(0, 2**32))
def test_a_list_of_any_schema_is_valid_and_distinct(schema: Any, seed: int) -> None:
    compiled = CompiledSchema(schema)
    validator = jsonschema.Draft202012Validator(schema, registry=Registry())
    try:
        values = compiled.enumerate(200)
    except SchemaError:
        return
    assert all(map(validator.is_valid, values))
    texts = [json.dumps(value, sort_keys=True) for value in values]
    assert len(set(texts)) == len(texts) <= 200


@pytest.mark.parametrize(
    "schema",
    [
        *(
            "text",
            {"type": "strange"},
            {"minimum": "3"},
            {"pattern": "("},
            {"not": {"$ref": "#"}},
        ),
        *({"$ref": "#/nowhere"}, {"multipleOf": 0}, {"properties": 3}, {"items": [5]}),
        {"required": 5},
        {"not": {"dependentRequired": {"a": [[]]}}},
    ],
)
def test_what_is_no_schema_is_an_error_when_checked(schema: Any) -> None:
    compiled = CompiledSchema(schema, "tool 'x': input")
    for value in (5, "text", [1], {"a": 1}):
        try:
            compiled.is_valid(value)
        except SchemaError as error:
            assert str(error).startswith("tool 'x': input: ")
            return
    pytest.fail("every value was checked without an error")


def test_a_value_nested_too_deeply_is_an_error() -> None:
    value: dict[str, Any] = {}
    for _ in range(sys.getrecursionlimit()):
        value = {"x": value}
    schema = {"properties": {"x": {"$ref": "#"}}}
    with pytest.raises(SchemaError, match="nested too deeply"):
        CompiledSchema(schema).is_valid(value)


def test_validate_says_where() -> None:
    schema = {"properties": {"a": {"items": {"type": "integer"}}}}
    assert validate(schema, {"a": [1]}) == []
    assert validate(schema, {"a": [1, "x"]}) == ["#/a/1: 'x' is not of type 'integer'"]
    assert "cannot be divided" in validate({"multipleOf": 0.1}, float("nan"))[0]
