"""Tool specs and calls in the providers' formats, and the way back."""

import json
import re
from typing import Any

import hypothesis
import jsonschema  # type: ignore[import-untyped, unused-ignore]
import pytest
from hypothesis import strategies as st

from ors_gym import formats
from ors_gym.formats._tools import original_tool_name

pytestmark = pytest.mark.unit

ADD: Any = {
    "name": "add",
    "description": "Add.",
    "input_schema": {
        "type": "object",
        "properties": {"a": {"$ref": "#/$defs/N"}, "b": {"anyOf": [{}, {}]}},
        "required": ["a"],
        "additionalProperties": False,
        "$defs": {"N": {"type": "integer"}},
    },
}
LOOK: Any = {"name": "look", "description": "Look.", "input_schema": None}


def test_tools_in_the_shapes_of_both_providers():
    nothing = {"type": "object", "properties": {}}
    listed = [("add", "Add.", ADD["input_schema"]), ("look", "Look.", nothing)]
    keys = ("name", "description", "parameters")
    assert formats.to_openai_tools([ADD, LOOK]) == [
        {"type": "function", "function": dict(zip(keys, tool, strict=True))}
        for tool in listed
    ]
    keys = ("name", "description", "input_schema")
    assert formats.to_anthropic_tools([ADD, LOOK]) == [
        dict(zip(keys, tool, strict=True)) for tool in listed
    ]


def test_a_terminal_tool_is_offered_as_the_user_chooses():
    def offered(how: str) -> tuple[list[str], bool]:
        tools: Any = [ADD, {**LOOK, "terminal": how}]
        words = formats.describe_tools(tools)
        names = [one["function"]["name"] for one in formats.to_openai_tools(tools)]
        assert names == [one["name"] for one in formats.to_anthropic_tools(tools)]
        assert all(f'"name": "{name}"' in words for name in names)
        return names, "without a function call is the final answer" in words

    assert offered("both") == (["add", "look"], True)
    assert offered("tool") == (["add", "look"], False)
    assert offered("text") == (["add"], True)
    only: Any = [{**LOOK, "terminal": "text"}]
    described = "A message without a function call is the final answer.\nLook."
    assert formats.describe_tools(only) == described


def test_what_is_returned_shares_nothing_with_the_tools():
    before = json.dumps(ADD)
    formats.to_openai_tools([ADD])[0]["function"]["parameters"]["properties"].clear()
    formats.to_anthropic_tools([ADD])[0]["input_schema"]["$defs"].clear()
    assert json.dumps(ADD) == before


@hypothesis.given(st.lists(st.text(), unique=True, max_size=5))
def test_names_are_accepted_distinct_and_reversible(names):
    tools: Any = [{**LOOK, "name": name} for name in names]
    given = [tool["function"]["name"] for tool in formats.to_openai_tools(tools)]
    assert given == [tool["name"] for tool in formats.to_anthropic_tools(tools)]
    assert all(re.fullmatch(r"[a-zA-Z0-9_-]{1,64}", name) for name in given)
    assert len(set(given)) == len(names)
    assert [original_tool_name(name, tools) for name in given] == names


@pytest.mark.parametrize("name", ["a", "A-b_9", "x" * 64])
def test_fitting_names_stay(name):
    assert formats.provider_tool_name(name) == name


def test_a_tool_that_has_the_stand_in_as_its_name_keeps_it():
    name = formats.provider_tool_name("a.b")
    tools: Any = [{**LOOK, "name": "a.b"}, {**LOOK, "name": name}]
    assert original_tool_name(name, tools) == name
    assert original_tool_name("unknown_0123456789", tools) == "unknown_0123456789"


@pytest.mark.parametrize("name", ["add", "files.read", "ä" * 100, "\ud800"])
def test_calls_return_as_they_left(name):
    tools: Any = [{**LOOK, "name": name}]
    call: Any = {"tool": name, "input": {"a": [1, "é", None]}}
    openai = formats.to_openai_tool_call(call, "c1")
    assert openai["id"] == "c1"
    assert isinstance(openai["function"]["arguments"], str)
    anthropic = formats.to_anthropic_tool_call(call, "c1")
    assert anthropic["input"] == call["input"]
    for message in (openai, anthropic):
        assert formats.parse_action(message, tools=tools) == call


NODE = {"$ref": "#/$defs/Node"}
LINKED = {"properties": {"next": NODE}, "required": ["next"]}


def tagged(kind: str, *more: str) -> dict[str, Any]:
    properties = {"kind": {"const": kind}, **{name: {} for name in more}}
    return {"properties": properties, "required": ["kind", *more]}


ONLY_A = {"type": "object", "properties": {"a": {}}}
REFUSED = {"$ref", "allOf", "anyOf", "const", "enum", "not", "oneOf", "discriminator"}


@pytest.mark.parametrize(
    ("schema", "expected"),
    [
        ({}, {"type": "object", "properties": {}}),
        ({"title": "T"}, {"title": "T", "type": "object", "properties": {}}),
        ({"type": "array", "properties": 3}, {"type": "object", "properties": {}}),
        ({**ONLY_A, "enum": [{"a": 1}]}, ONLY_A),
        (
            {
                "oneOf": [{"$ref": "#/$defs/A"}, {"$ref": "#/$defs/B"}],
                "discriminator": {"propertyName": "kind"},
                "$defs": {"A": tagged("a", "x"), "B": tagged("b")},
            },
            {
                "properties": {"kind": {"anyOf": [{"const": "a"}, {"const": "b"}]}}
                | {"x": {}},
                "required": ["kind"],
            },
        ),
        ({**NODE, "$defs": {"Node": LINKED}}, LINKED),
        (
            {
                "allOf": [{"$ref": "#/a~1b/c~0d"}, {"required": ["y"]}],
                "properties": {"y": {}},
                "a/b": {"c~d": {"properties": {"x": {}}, "required": ["x"]}},
            },
            {"properties": {"y": {}, "x": {}}, "required": ["y", "x"]},
        ),
        ({"$ref": "#/$defs/none"}, {"properties": {}}),
        ({"$ref": "http://elsewhere"}, {"properties": {}}),
        ({"$ref": "#"}, {"properties": {}}),
        ({"anyOf": 3, "allOf": [True, None]}, {"properties": {}}),
        ({"anyOf": [{"properties": []}, {"required": "x"}]}, {"properties": {}}),
    ],
)
def test_outermost_schema_is_a_plain_object(schema, expected):
    result = formats.provider_schema(schema)
    assert result["type"] == "object"
    assert not result.keys() & REFUSED
    assert {key: result.get(key) for key in expected} == expected
    if "required" not in expected:
        assert "required" not in result


def test_references_that_multiply_are_followed_once():
    definitions: dict[str, Any] = {
        f"L{i}": {"allOf": [{"$ref": f"#/$defs/L{i + 1}"}] * 2} for i in range(60)
    }
    definitions["L60"] = {"properties": {"x": {}}}
    schema = {"$ref": "#/$defs/L0", "$defs": definitions}
    assert formats.provider_schema(schema)["properties"] == {}
    schema = {"$ref": "#/$defs/L50", "$defs": definitions}
    assert formats.provider_schema(schema)["properties"] == {"x": {}}


NAMES = st.sampled_from("abc")
PROPERTIES = st.sampled_from(
    [{}, {"type": "integer"}, {"type": "string"}, {"enum": [1, "x"]}, {"const": 1}]
)
PARTS = st.fixed_dictionaries(
    {},
    optional={
        "properties": st.dictionaries(NAMES, PROPERTIES),
        "required": st.lists(NAMES, unique=True),
        "additionalProperties": st.booleans(),
        "$ref": st.sampled_from(["#/$defs/A", "#/$defs/B"]),
    },
)
SCHEMAS = st.recursive(
    PARTS,
    lambda inner: st.builds(
        dict.__or__,
        PARTS,
        st.fixed_dictionaries(
            {},
            optional={
                key: st.lists(inner, min_size=1, max_size=3)
                for key in ("anyOf", "oneOf", "allOf")
            },
        ),
    ),
    max_leaves=6,
)
DEFINITIONS = st.fixed_dictionaries(
    {
        "A": st.fixed_dictionaries({"properties": st.dictionaries(NAMES, PROPERTIES)}),
        "B": st.fixed_dictionaries({"required": st.lists(NAMES, unique=True)}),
    }
)
INSTANCES = st.dictionaries(NAMES, st.sampled_from([1, "x", 2, None]))


def find_named_properties(schema: Any) -> set[str]:
    """Return every property named at the outermost level, unions included."""
    found = set(schema.get("properties", ()))
    for key in ("anyOf", "oneOf", "allOf"):
        for part in schema.get(key, ()):
            found |= find_named_properties(part)
    return found


@pytest.mark.slow
@hypothesis.given(SCHEMAS, DEFINITIONS, st.lists(INSTANCES, min_size=5))
@hypothesis.settings(max_examples=200)
def test_no_property_is_lost_and_none_is_required_that_was_not(
    schema, definitions, instances
):
    whole = {**schema, "$defs": definitions}
    result = formats.provider_schema(whole)
    assert find_named_properties(schema) <= result["properties"].keys()
    validator = jsonschema.Draft202012Validator(whole)
    for instance in instances:
        if validator.is_valid(instance) and schema.keys() & REFUSED:
            assert set(result.get("required", ())) <= instance.keys()


def test_mcp_lists_names_and_schemas_as_they_are():
    odd: Any = {
        "name": "größer als",
        "description": "",
        "input_schema": {**ADD["input_schema"], "x-mine": [1, None], "title": "A"},
    }
    listed = formats.to_mcp_tools([ADD, LOOK, odd])
    assert [tool["name"] for tool in listed] == ["add", "look", "größer als"]
    schemas = [tool["inputSchema"] for tool in listed]
    assert schemas == [ADD["input_schema"], {"type": "object"}, odd["input_schema"]]


def test_mcp_lists_nothing_that_cannot_be_encoded():
    schema = {"properties": {"\ud800": {"enum": ["a\udfff"]}}}
    tool: Any = {"name": "a\ud800", "description": "b\udc00", "input_schema": schema}
    [listed] = formats.to_mcp_tools([tool])
    json.dumps(listed, ensure_ascii=False).encode()
    assert listed["name"] == "a\ufffd"
    assert listed["inputSchema"]["type"] == "object"


def test_providers_get_nothing_that_cannot_be_encoded():
    schema = {"properties": {"a": {"description": "\ud800", "enum": ["a\udfff"]}}}
    tool: Any = {"name": "a", "description": "", "input_schema": schema}
    for listed in (formats.to_openai_tools([tool]), formats.to_anthropic_tools([tool])):
        json.dumps(listed, ensure_ascii=False).encode()
    call = formats.to_anthropic_tool_call({"tool": "a", "input": {"a": "\ud800"}}, "t")
    assert call["input"] == {"a": "\ufffd"}
