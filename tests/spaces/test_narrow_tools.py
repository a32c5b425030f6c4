"""Schemas of a user, merged into those of a server."""

from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from ors_gym.errors import InvalidRequestError, SchemaError
from ors_gym.formats import to_openai_tools
from ors_gym.spaces import ToolCallSpace, narrow_tools

pytestmark = pytest.mark.unit

WORD: Any = {"type": "string"}
UP: Any = {"enum": ["up", "down"]}


def make_tool(properties: dict[str, Any], **schema: Any) -> Any:
    schema = {"type": "object", "properties": properties, **schema}
    return {"name": "move", "description": "", "input_schema": schema}


def narrow(part: Any, properties: dict[str, Any], **schema: Any) -> Any:
    """Return what the argument ``a`` becomes, as models are shown it."""
    tools = narrow_tools([make_tool(properties, **schema)], {"move": {"a": part}})
    (shown,) = to_openai_tools(tools)
    return shown["function"]["parameters"]["properties"]["a"]


WAY: Any = {"$ref": "#/$defs/Way"}
OPTIONAL: Any = {"anyOf": [WORD, {"type": "null"}]}
DEFINED: Any = {"$defs": {"Way": {**WORD, "description": "Where to."}}}


@pytest.mark.parametrize(
    ("listed", "schema", "part", "narrowed"),
    [
        ({"a": WORD}, {}, UP, {**WORD, **UP}),
        ({"a": WAY}, DEFINED, UP, {**DEFINED["$defs"]["Way"], **UP}),
        ({"a": {"minimum": 1}}, {}, {"maximum": 3}, {"minimum": 1, "maximum": 3}),
        ({"a": True}, {}, UP, UP),
        ({"a": OPTIONAL}, {}, UP, {**OPTIONAL, **UP}),
    ],
)
def test_the_keywords_of_a_user_are_put_over_those_of_the_server(
    listed, schema, part, narrowed
):
    assert narrow(part, listed, **schema) == narrowed


def test_every_branch_of_a_union_is_narrowed():
    only_b = {"properties": {"b": WORD}, "additionalProperties": False}
    branches = [WAY, only_b]
    way = {"properties": {"a": WORD}, "required": ["a"]}
    tool: Any = {"name": "move", "description": ""}
    tool["input_schema"] = {"anyOf": branches, "$defs": {"Way": way}}
    narrowed = narrow_tools([tool], {"move": {"a": UP}})
    (shown,) = to_openai_tools(narrowed)
    properties = shown["function"]["parameters"]["properties"]
    assert properties == {"a": {**WORD, **UP}, "b": WORD}
    space = ToolCallSpace(narrowed, seed=0)
    assert {"tool": "move", "input": {"a": "north"}} not in space
    assert tool["input_schema"]["$defs"] == {"Way": way}


BASE: Any = {"properties": {"n": {"type": "integer"}}, "required": ["n"]}
OTHER: Any = {"properties": {"m": {"type": "null"}}, "required": ["m"]}
BY_NAME: Any = {"$ref": "#/$defs/Base"}


@pytest.mark.parametrize(
    "inherits",
    [
        {"allOf": [BY_NAME]},
        {"allOf": [BASE]},
        BY_NAME,
        {"anyOf": [BY_NAME]},
        {**BY_NAME, "allOf": [OTHER]},
        {"allOf": [{"allOf": [BY_NAME], **OTHER}]},
    ],
    ids=str,
)
def test_inherited_arguments_are_kept(inherits):
    tool = make_tool({"a": WORD}, required=["a"], **inherits)
    tool["input_schema"]["$defs"] = {"Base": {**BASE, "allOf": [{"type": "object"}]}}
    space = ToolCallSpace(narrow_tools([tool], {"move": {"a": UP}}), seed=0)
    theirs = ToolCallSpace([tool])
    for _ in range(20):
        call = space.sample()
        assert call in theirs
        assert call["input"]["a"] in UP["enum"]
        assert isinstance(call["input"]["n"], int)
    assert {"tool": "move", "input": {"a": "up"}} not in space
    narrowed = narrow_tools([tool], {"move": {"n": {"enum": [7]}}})
    space = ToolCallSpace(narrowed, seed=0)
    assert {space.sample()["input"]["n"] for _ in range(5)} == {7}


def test_other_tools_and_the_servers_own_stay_as_they_are():
    tools = [make_tool({"a": WORD}), {**make_tool({"a": WORD}), "name": "other"}]
    narrowed = narrow_tools(tools, {"move": {"a": UP}, "not_here": {"a": UP}})
    assert narrowed[1] == tools[1]
    assert tools[0]["input_schema"]["properties"] == {"a": WORD}
    assert narrow_tools(tools, None) == narrow_tools(tools, {}) == tools


@pytest.mark.parametrize(
    ("listed", "part", "shown"),
    [
        (WORD, {"type": "integer", "enum": [7]}, "7"),
        ({"type": "integer", "maximum": 3}, {"maximum": 4}, "4"),
        ({"type": "number", "minimum": 0}, {"minimum": -9}, "-"),
        ({**WORD, "enum": ["up"]}, UP, "'down'"),
        ({**WORD, "maxLength": 2}, {"maxLength": 40}, "'"),
    ],
)
def test_what_is_not_narrower_is_said_to_be_different(listed, part, shown):
    with pytest.warns(UserWarning, match="not narrower") as told:
        narrow(part, {"a": listed})
    assert f"it allows {shown}" in str(told[0].message)


def test_a_listing_without_arguments_may_be_anything():
    tool: Any = {"name": "move", "description": "", "input_schema": {"properties": []}}
    with pytest.warns(UserWarning, match="it has none"):
        (narrowed,) = narrow_tools([tool], {"move": {"a": UP}})
    assert (narrowed["input_schema"] or {})["properties"] == {"a": UP}


def test_an_argument_that_is_not_listed_is_told():
    with pytest.warns(UserWarning, match=r"move\.a is not an argument .* it has b"):
        narrow(UP, {"b": WORD})
    with pytest.warns(UserWarning, match="it has none"):
        look: Any = {"name": "move", "description": "", "input_schema": None}
        narrow_tools([look], {"move": {"zz": UP}})


@pytest.mark.parametrize(
    "table",
    [
        [],
        {"move": ["a"]},
        {"move": {"a": {"enum": "up"}}},
        {"move": {"a": {"minimum": float("nan")}}},
        {"move": {"a": {"type": "integer", "enum": ["up"]}}},
    ],
)
def test_a_table_that_cannot_be_right_is_refused(table):
    with pytest.raises(InvalidRequestError, match="tool_schemas"):
        narrow_tools([make_tool({"a": WORD})], table)


SCALARS: Any = st.sampled_from(["x", "y", 1, 2, None, True])
PARTS: Any = st.fixed_dictionaries(
    {},
    optional={
        "enum": st.lists(SCALARS, min_size=1, unique_by=repr),
        "minimum": st.integers(-3, 3),
        "maxLength": st.integers(1, 3),
    },
)


@pytest.mark.filterwarnings("ignore:.*tool_schemas")
@given(listed=PARTS, part=PARTS)
def test_samples_fit_the_users_schema_and_without_a_warning_the_servers_too(
    listed, part
):
    tool = make_tool({"a": listed}, required=["a"])
    try:
        ToolCallSpace([tool]).sample()
    except SchemaError:
        assume(False)
    try:
        space = ToolCallSpace(narrow_tools([tool], {"move": {"a": part}}), seed=0)
    except InvalidRequestError:
        return
    theirs = ToolCallSpace([make_tool({"a": {**listed, **part}}, required=["a"])])
    assert all(space.sample() in theirs for _ in range(5))
