"""Schemas read for people and for other formats: references, and a tool in words."""

from typing import Any

import jsonschema  # type: ignore[import-untyped, unused-ignore]
import pytest

from ors_gym import formats
from ors_gym.display._cards import tools_card
from ors_gym.display._game import list_fields
from ors_gym.formats._schemas import bundle_schema, describe_tool, resolve_schema

pytestmark = pytest.mark.unit


DRAFT_4 = {"$schema": "http://json-schema.org/draft-04/schema#"}
DEFINED_Q = {"$defs": {"Q": {"const": 1}}}
BUNDLED: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "anchor": (
        {"$defs": {"W": {"$anchor": "way", "enum": [1]}}, "$ref": "#way"},
        {"$ref": "#/$defs/way", "$defs": {"way": {"enum": [1]}}},
    ),
    "nested id": (
        {
            "$id": "http://x/y/",
            "$defs": {"Z": {"$id": "z", "items": {"$ref": "#/$defs/Q"}, **DEFINED_Q}},
            "properties": {"a": {"$ref": "z"}, "b": {"$ref": "http://x/y/z#/$defs/Q"}},
        },
        {
            "properties": {"a": {"$ref": "#/$defs/z"}, "b": {"$ref": "#/$defs/Q"}},
            "$defs": {"z": {"items": {"$ref": "#/$defs/Q"}}, "Q": {"const": 1}},
        },
    ),
    "two of a name": (
        {
            "properties": {"a": {"$id": "a", "$ref": "#/$defs/Q", **DEFINED_Q}},
            "$ref": "#/$defs/Q",
            "$defs": {"Q": {"const": 2}},
        },
        {
            "properties": {"a": {"$ref": "#/$defs/Q_2"}},
            "$ref": "#/$defs/Q",
            "$defs": {"Q": {"const": 2}, "Q_2": {"const": 1}},
        },
    ),
    "a branch of a union": (
        {"anyOf": [{"properties": {"a": {}}}, {"$ref": "#/anyOf/0"}]},
        {
            "anyOf": [{"properties": {"a": {}}}, {"$ref": "#/$defs/0"}],
            "$defs": {"0": {"properties": {"a": {}}}},
        },
    ),
    "draft 4": (
        {
            **DRAFT_4,
            "definitions": {"A": {"id": "#a", "type": "null"}},
            "properties": {"id": {"$ref": "#a"}, "b": {"dependencies": {"c": ["d"]}}},
        },
        {
            **DRAFT_4,
            "properties": {
                "id": {"$ref": "#/$defs/a"},
                "b": {"dependencies": {"c": ["d"]}},
            },
            "$defs": {"a": {"type": "null"}},
        },
    ),
    "leads nowhere": (
        {"$anchor": "a", "properties": {"b": {"$ref": "http://x"}, "c": {"$ref": 5}}},
        {"properties": {"b": {"$ref": "http://x"}, "c": {"$ref": 5}}},
    ),
    "dynamic": (
        {
            "$id": "http://x/strict",
            "$dynamicAnchor": "node",
            "$ref": "tree",
            "minProperties": 1,
            "$defs": {
                "T": {
                    "$id": "tree",
                    "$dynamicAnchor": "node",
                    "items": {"$dynamicRef": "#node"},
                }
            },
        },
        {
            "$ref": "#/$defs/tree",
            "minProperties": 1,
            "$defs": {
                "tree": {"items": {"$ref": "#/$defs/node"}},
                "node": {"$ref": "#/$defs/tree", "minProperties": 1},
            },
        },
    ),
    "data": (
        {"$anchor": "a", "const": {"$anchor": "a"}, "properties": {"$id": {}}},
        {"const": {"$anchor": "a"}, "properties": {"$id": {}}},
    ),
}


@pytest.mark.parametrize("name", BUNDLED)
def test_references_of_every_kind_lead_to_definitions(name):
    schema, bundled = BUNDLED[name]
    assert bundle_schema(schema) == bundled
    assert bundle_schema(bundled) == bundled
    assert bundle_schema({}) == {}


def test_what_is_a_plain_reference_already_stays():
    schema = {"properties": {"a": {"$ref": "#"}, "b": {"$ref": "#/$defs/b"}}}
    assert bundle_schema(schema) is schema


def test_models_and_people_see_what_a_reference_by_name_leads_to():
    schema = {
        "$id": "http://x/y",
        "$ref": "move",
        "$defs": {
            "M": {
                "$id": "move",
                "type": "object",
                "properties": {"to": {"$ref": "way#a"}},
                "required": ["to"],
            },
            "W": {"$id": "way", "$anchor": "a", "enum": ["up", "down"]},
        },
    }
    tool: Any = {"name": "move", "description": "", "input_schema": schema}
    assert describe_tool(tool) == 'move(to: one of "up", "down")'
    (field,) = list_fields(tool) or []
    assert field.choices == ("up", "down")
    assert "one of &quot;up&quot;" in tools_card([tool])
    (spec,) = formats.to_openai_tools([tool])
    parameters = spec["function"]["parameters"]
    assert parameters["required"] == ["to"]
    validator = jsonschema.Draft202012Validator(parameters)
    assert validator.is_valid({"to": "up"})
    assert not validator.is_valid({"to": "left"})
    assert parameters["properties"]["to"] == {"$ref": "#/$defs/a"}
    assert not {"$id", "$anchor", "$ref"} & parameters.keys()


def test_a_deep_schema_is_bundled():
    schema: dict[str, Any] = {"$ref": "#end"}
    for _ in range(2000):
        schema = {"properties": {"x": schema}}
    schema["$defs"] = {"e": {"$anchor": "end", "type": "null"}}
    bundled = bundle_schema(schema)
    for _ in range(2000):
        bundled = bundled["properties"]["x"]
    assert bundled == {"$ref": "#/$defs/end"}


DRAFT_3 = "http://json-schema.org/draft-03/schema#"
DRAFT_2019 = "https://json-schema.org/draft/2019-09/schema"


@pytest.mark.parametrize(
    "schema",
    [
        {"anyOf": [{}], "properties": {"a": {"$ref": f"#/anyOf/{'9' * 5000}"}}},
        {"$schema": DRAFT_3, "type": 5, "properties": {"a": {"$ref": "q#x"}}},
        {
            "$schema": DRAFT_2019,
            "properties": {"a": {"$id": "b", "not": {"$recursiveRef": 5}}},
        },
    ],
    ids=["digits", "type", "recursion"],
)
def test_a_schema_that_is_none_is_shown_all_the_same(schema):
    tool: Any = {"name": "move", "description": "", "input_schema": schema}
    assert describe_tool(tool).startswith("move(a?: ")
    (spec,) = formats.to_openai_tools([tool])
    assert spec["function"]["parameters"]["properties"].keys() == {"a"}


def test_no_reference_beside_others_is_lost():
    definitions = {"A": {"$anchor": "a"}, "B": {"$anchor": "b", "type": "string"}}
    part = {"$ref": "#a", "$dynamicRef": "#b", "allOf": [{"minLength": 3}]}
    bundled = bundle_schema({"$defs": definitions, "properties": {"x": part}})
    validator = jsonschema.Draft202012Validator(bundled)
    assert validator.is_valid({"x": "abc"})
    assert not validator.is_valid({"x": "ab"})
    assert not validator.is_valid({"x": 5})


WAY: Any = {"enum": ["up", "down"], "type": "string", "description": "Where to."}
COUNT: Any = {"type": "integer", "minimum": 1}
ROOT: Any = {"$defs": {"Way": WAY, "Count": COUNT}}
TO_WAY, TO_COUNT = {"$ref": "#/$defs/Way"}, {"$ref": "#/$defs/Count"}


@pytest.mark.parametrize(
    ("schema", "resolved"),
    [
        (TO_WAY, WAY),
        ({**TO_WAY, "description": "Or not."}, {**WAY, "description": "Or not."}),
        ({**TO_WAY, "type": "string"}, WAY),
        ({**TO_COUNT, "maximum": 3}, {**COUNT, "maximum": 3}),
        (
            {**TO_COUNT, "minimum": 0},
            {"type": "integer", "minimum": 0, "allOf": [TO_COUNT]},
        ),
        (
            {**TO_WAY, "enum": ["up"], "allOf": [{"maxLength": 2}]},
            {**WAY, "enum": ["up"], "allOf": [{"maxLength": 2}, TO_WAY]},
        ),
        ({"allOf": [False]}, {"allOf": [False]}),
        ({"oneOf": [TO_COUNT]}, COUNT),
    ],
)
def test_what_stands_beside_a_reference_replaces_no_limit(schema, resolved):
    assert resolve_schema(schema, ROOT) == resolved
    own = jsonschema.Draft202012Validator({**ROOT, **schema})
    put = jsonschema.Draft202012Validator({**ROOT, **resolved})
    for value in ("up", "down", 0, 1, 3, 4, None):
        assert own.is_valid(value) == put.is_valid(value)


def test_inherited_arguments_are_shown():
    base = {"properties": {"n": COUNT}, "required": ["n"], "allOf": [{"$ref": "#"}]}
    schema: Any = {"type": "object", "properties": {"to": WAY}, "required": ["to"]}
    schema |= {"allOf": [{"$ref": "#/$defs/Base"}], "$defs": {"Base": base}}
    tool: Any = {"name": "move", "description": "", "input_schema": schema}
    shown = 'move(to: one of "up", "down"; n: integer, at least 1)'
    assert describe_tool(tool) == shown
    assert "integer, at least 1<" in tools_card([tool])
    # Only some arguments would be a form that nobody can send.
    assert list_fields(tool) is None
