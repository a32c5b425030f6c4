"""The methods that TRL takes for tools say to a model what the server says."""

import inspect
import json
import keyword
import typing
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers.utils import get_json_schema

from ors_gym.formats import provider_schema
from ors_gym.integrations.trl._tool_methods import (
    BoundTool,
    merge_tools,
    safe_names,
    tool_methods,
)
from ors_gym.spaces.json_schema import CompiledSchema
from tests.spaces.pydantic_tools import MODELS

GROUP = "training"
SAMPLES = 25
IN_TOOL = "JSON Schema of the arguments: "
IN_PARAMETER = "JSON Schema: "


class Told:
    """A tool's method, and what transformers makes of it."""

    def __init__(
        self, *schemas: Any, name: str = "tool", description: str = "Does it."
    ):
        self.calls: list[tuple[str, Any]] = []
        made = tool_methods(
            [BoundTool(name, description, schemas)],
            lambda _, tool, given: self.calls.append((tool, given)),
        )
        self.name = next(iter(made))
        self.environment = type("Environment", (), made)()
        self.method = getattr(self.environment, self.name)
        function = get_json_schema(self.method)["function"]
        assert function["name"] == self.name
        self.description: str = function["description"]
        self.parameters: dict[str, Any] = function["parameters"]

    def restore(self) -> Any:
        """Rebuild the input schema from what a model is told."""
        if IN_TOOL in self.description:
            return json.loads(self.description.partition(IN_TOOL)[2])
        properties = {
            name: _restore(part) for name, part in self.parameters["properties"].items()
        }
        return {**self.parameters, "properties": properties}

    def hints_only(self) -> Any:
        """Return the schema without what is said in words."""
        return _without_nullable(self.parameters)


def _restore(parameter: dict[str, Any]) -> Any:
    _, marked, text = parameter["description"].partition(IN_PARAMETER)
    return json.loads(text) if marked else _without_nullable(parameter)


def _without_nullable(schema: Any) -> Any:
    """Turn transformers' ``nullable`` into JSON Schema."""
    if isinstance(schema, list):
        return [_without_nullable(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    part = {key: _without_nullable(value) for key, value in schema.items()}
    if part.pop("nullable", False):
        return {"anyOf": [part, {"type": "null"}]}
    return part


def _schema_of(name: str) -> Any:
    return MODELS[name].model_json_schema()


def _draw(schema: Any, seed: str) -> list[Any]:
    compiled, random = CompiledSchema(schema), Random(seed)
    return [compiled.draw(random) for _ in range(SAMPLES)]


@pytest.mark.parametrize("name", MODELS)
def test_what_a_model_is_told_allows_the_same_inputs(name):
    schema = _schema_of(name)
    told = Told(schema)
    safe = {real: one for one, real in _names(told, schema).items()}
    restored = CompiledSchema(told.restore())
    original = CompiledSchema(schema)
    by_words = IN_TOOL in told.description
    for value in _draw(schema, name):
        given = value if by_words else _renamed(value, safe)
        assert restored.problems(given) == []
    back = {one: real for real, one in safe.items()}
    for value in _draw(told.restore(), name):
        given = value if by_words else _renamed(value, back)
        assert original.problems(given) == []


@pytest.mark.parametrize("name", MODELS)
def test_type_hints_alone_refuse_no_input(name):
    schema = _schema_of(name)
    told = Told(schema)
    safe = {real: one for one, real in _names(told, schema).items()}
    hints = CompiledSchema(told.hints_only())
    for value in _draw(schema, name):
        assert hints.problems(_renamed(value, safe)) == []


def _names(told: Told, schema: Any) -> dict[str, str]:
    """Return the server's names of the parameters by ours."""
    listed = provider_schema(schema)["properties"]
    safe = told.parameters["properties"]
    assert len(listed) == len(safe)
    return dict(zip(safe, listed, strict=True))


def _renamed(value: Any, names: dict[str, str]) -> Any:
    if not isinstance(value, dict):
        return value
    return {names.get(key, key): part for key, part in value.items()}


@pytest.mark.parametrize("name", MODELS)
def test_required_and_optional_parameters(name):
    schema = _schema_of(name)
    told = Told(schema)
    real = _names(told, schema)
    hints = typing.get_type_hints(told.method)
    required = {real[one] for one in told.parameters.get("required", ())}
    assert required == set(provider_schema(schema).get("required", ()))
    for parameter in inspect.signature(told.method).parameters.values():
        is_required = parameter.default is inspect.Parameter.empty
        assert is_required == (real[parameter.name] in required)
        assert parameter.annotation == hints[parameter.name]


def test_hints_carry_types_where_they_can():
    null, row = {"type": "null"}, {"type": "array", "items": {"const": 1}}
    schema = {
        "type": "object",
        "properties": {
            "plain": {"type": "string"},
            "choice": {"enum": ["a", "b", None]},
            "maybe": {"anyOf": [{"type": "integer"}, null], "default": None},
            "many": {"type": "array", "items": row},
            "table": {"type": "object", "additionalProperties": {"type": "boolean"}},
            "any": {},
        },
        "required": ["choice", "plain"],
    }
    told = Told(schema)
    hints = typing.get_type_hints(told.method)
    assert hints == {
        "plain": str,
        "choice": typing.Literal["a", "b", None],  # noqa: PYI061
        "maybe": int | None,
        "many": list[list[typing.Literal[1]]],
        "table": dict[str, bool],
        "any": typing.Any,
    }
    assert IN_TOOL not in told.description
    for parameter in told.parameters["properties"].values():
        assert IN_PARAMETER not in parameter["description"]


def test_members_of_a_nested_object_are_told():
    told = Told(_schema_of("nested"))
    described = told.parameters["properties"]["middle"]["description"]
    inner = json.loads(described.partition(IN_PARAMETER)[2])
    assert inner["properties"]["inner"]["properties"]["x"]["minimum"] == 0
    assert "$ref" not in described


def test_a_recursive_schema_is_told_as_a_whole():
    told = Told(_schema_of("tree"))
    assert json.loads(told.description.partition(IN_TOOL)[2]) == _schema_of("tree")


def test_references_by_name_are_told_as_what_they_lead_to():
    schema = {
        "$id": "http://x/y",
        "type": "object",
        "properties": {"to": {"$ref": "way#a"}, "far": {"$ref": "#far"}},
        "required": ["to", "far"],
        "additionalProperties": False,
        "$defs": {
            "W": {
                "$id": "way",
                "$defs": {"Q": {"$anchor": "a", "enum": ["up", "down"]}},
            },
            "F": {"$anchor": "far", "type": "integer", "minimum": 3},
        },
    }
    told = Told(schema)
    hints = typing.get_type_hints(told.method)
    assert hints == {"to": typing.Literal["up", "down"], "far": int}
    assert told.restore()["properties"]["far"] == {"type": "integer", "minimum": 3}
    assert "anchor" not in json.dumps([told.description, told.parameters])
    restored, original = CompiledSchema(told.restore()), CompiledSchema(schema)
    for value in [*_draw(schema, "named"), {"to": "left", "far": 3}]:
        assert restored.is_valid(value) == original.is_valid(value)


def test_a_default_is_told_and_never_sent():
    schema = {"properties": {"n": {"type": "integer", "default": 5}}}
    told = Told(schema)
    assert told.parameters["properties"]["n"]["description"] == "n Defaults to 5."
    told.method()
    assert told.calls == [("tool", {})]


NASTY = [
    "Adds numbers.\n\nArgs:\n    a: The first.\n\nReturns:\n    Their sum.",
    "Pick one (choices: not json)",
    "Args: Returns: Raises: nothing",
    '"""quotes""" and \\ and \ud800 and \t tab',
    "first line\n    indented: more\n  less",
    "",
    " \n ",
]


@pytest.mark.parametrize("text", NASTY)
def test_text_of_a_server_cannot_break_a_docstring(text):
    schema = {
        "properties": {
            "a": {"type": "integer", "description": text, "minimum": 1},
            "b": {"type": "string", "description": text},
        },
        "required": ["b"],
    }
    told = Told(schema, description=text)
    assert list(told.parameters["properties"]) == ["a", "b"]
    assert told.parameters["required"] == ["b"]
    assert "enum" not in told.parameters["properties"]["b"]
    assert told.restore()["properties"]["a"] == {"type": "integer", "minimum": 1}
    shown = text.replace("\ud800", "\ufffd").replace("(choices:", "(choices :")
    for word in shown.split():
        plain = word.rstrip(":")
        assert plain in told.description
        assert plain in told.parameters["properties"]["b"]["description"]


@settings(max_examples=150, deadline=None)
@given(st.text(), st.text(), st.text(min_size=1))
def test_any_text_can_be_told(description, remark, parameter):
    part = {"type": "string", "description": remark, "pattern": remark[:1] or "x"}
    schema = {"properties": {parameter: part, "other": True}}
    told = Told(schema, description=description)
    first, _ = told.parameters["properties"]
    told.method(**{first: "value", "unheard of": 1})
    assert told.calls == [("tool", {parameter: "value", "unheard of": 1})]


@settings(max_examples=300, deadline=None)
@given(
    st.lists(st.text(alphabet=st.sampled_from("aA1_-. é\n"), min_size=1), unique=True)
)
def test_safe_names_are_identifiers_and_none_is_given_twice(names):
    reserved = ["reset", "a"]
    safe = safe_names(names, "tool", reserved)
    assert list(safe) == names
    assert len(set(safe.values())) == len(names)
    for name, one in safe.items():
        assert one.isidentifier()
        assert not keyword.iskeyword(one)
        assert not one.startswith("_")
        assert one not in reserved
        if name.isidentifier() and name[0] != "_" and name not in reserved:
            assert one == name


@pytest.mark.parametrize(
    ("name", "safe"),
    [
        ("reset", "reset_"),
        ("get_reward", "get_reward_"),
        ("class", "class_"),
        ("web-search", "web_search"),
        ("files.read", "files_read"),
        ("_hidden", "tool_hidden"),
        ("__init__", "tool_init"),
        ("2d", "tool_2d"),
        ("é", "é"),
        ("?", "tool"),
        ("x²", "x_"),
        ("step", "step"),
    ],
)
def test_a_tool_of_any_name_is_called_by_the_servers_name(name, safe):
    told = Told(None, name=name)
    assert told.name == safe
    told.method()
    assert told.calls == [(name, {})]


def test_parameters_of_any_name_are_sent_under_the_servers_names():
    names = ["self", "max-results", "max_results", "class", "a b", "_x", "return"]
    told = Told({"properties": {name: {"type": "integer"} for name in names}})
    safe = list(told.parameters["properties"])
    expected = "self_ max_results_ max_results class_ a_b arg_x return_"
    assert safe == expected.split()
    told.method(**{name: number for number, name in enumerate(safe)})
    assert told.calls == [("tool", {name: n for n, name in enumerate(names)})]


def test_a_name_of_the_servers_is_understood_too():
    told = Told({"properties": {"max-results": {"type": "integer"}}})
    told.method(**{"max-results": 3})
    assert told.calls == [("tool", {"max-results": 3})]


def test_whatever_a_model_gives_reaches_the_server():
    told = Told({"properties": {"n": {"type": "integer"}}, "required": ["n"]})
    told.method()
    told.method(n="seven", self=1, tool=2)
    assert told.calls == [("tool", {}), ("tool", {"n": "seven", "self": 1, "tool": 2})]


def test_tools_of_several_tasks_are_united():
    def spec(name: str, schema: Any) -> Any:
        return {"name": name, "description": name, "input_schema": schema}

    number = {"properties": {"x": {"type": "integer"}}, "required": ["x"]}
    text = {"properties": {"x": {"type": "string"}, "y": {}}, "required": ["x", "y"]}
    tools = merge_tools([[spec("a", number)], [spec("b", None), spec("a", text)]])
    assert [(tool.name, len(tool.schemas)) for tool in tools] == [("a", 2), ("b", 1)]
    told = Told(*tools[0].schemas)
    assert typing.get_type_hints(told.method) == {"x": int | str, "y": typing.Any}
    assert told.parameters["required"] == ["x"]
    assert json.dumps(number) in told.description
    assert json.dumps(text) in told.description


def test_a_schema_that_grows_with_each_reference_stays_short():
    parts = {
        f"part{level}": {
            "type": "object",
            "properties": {
                f"p{place}": {"$ref": f"#/$defs/part{level + 1}"} for place in range(30)
            },
        }
        for level in range(10)
    }
    parts["part10"] = {"type": "string"}
    root = {"properties": {"all": {"$ref": "#/$defs/part0"}}, "$defs": parts}
    # Without its references it would have 30 ** 10 parts.
    told = Told(root)
    assert "$ref" in told.description
    assert len(told.description) < 100_000
