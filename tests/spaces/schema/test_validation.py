"""Membership is as jsonschema decides; a schema it cannot use is an error."""

from __future__ import annotations

import copy
import json
import sys
from collections.abc import Iterator
from random import Random
from typing import Any

import pytest
from jsonschema import (  # type: ignore[import-untyped, unused-ignore]
    Draft202012Validator,
)

from ors_gym.errors import SchemaError
from ors_gym.spaces import ToolCallSpace
from ors_gym.spaces.json_schema import CompiledSchema, validate
from tests.spaces.pydantic_tools import MODELS
from tests.support.slow_cases import mostly_slow

MUTANTS = 20_000
PARTS = 4
ODDITIES: tuple[Any, ...] = (
    *(None, True, False, 0, -1, 1.0, 1e308, 10**30, -(10**400)),
    *(float("nan"), float("inf"), "", "x", "\ud800", "a" * 300),
    *([], [1, 1], {}, {"kind": "cat"}, (1, "x")),
)


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Every place in a value, the value itself included."""
    yield path
    if isinstance(value, dict):
        for key in value:
            yield from places(value[key], (*path, key))
    elif isinstance(value, list):
        for index in range(len(value)):
            yield from places(value[index], (*path, index))


def mutate(value: Any, random: Random) -> Any:
    """One small change somewhere."""
    value = copy.deepcopy(value)
    *way, last = random.choice([path for path in places(value) if path] or [("new",)])
    parent = value
    for key in way:
        parent = parent[key]
    kind = random.randrange(6)
    if kind == 0 and last in (
        parent if isinstance(parent, dict) else range(len(parent))
    ):
        del parent[last]
    elif kind == 1 and isinstance(parent, dict):
        parent["extra"] = random.choice(ODDITIES)
    elif kind == 2 and isinstance(parent, list):
        parent.append(copy.deepcopy(parent[last]))
    elif kind == 3 and isinstance(parent, dict) and isinstance(parent.get(last), int):
        parent[last] = parent[last] * random.choice((-1, 1000, 10**20)) + 1
    else:
        parent[last] = random.choice(ODDITIES)
    return value


def expected(validator: Any, value: Any) -> bool:
    try:
        return bool(validator.is_valid(value))
    except (OverflowError, ValueError):
        # jsonschema itself fails to divide NaN and huge integers: no member.
        return False


@pytest.mark.parametrize("seed", mostly_slow(range(PARTS)))
def test_contains_agrees_with_jsonschema_on_mutants(seed: int) -> None:
    random = Random(seed)
    tools: list[dict[str, Any]] = [
        {"name": name, "description": "", "input_schema": model.model_json_schema()}
        for name, model in MODELS.items()
    ]
    space = ToolCallSpace(tools, seed=seed)
    validators = {t["name"]: Draft202012Validator(t["input_schema"]) for t in tools}
    members = 0
    for number in range(MUTANTS // PARTS):
        call = space.sample()
        value = mutate(call["input"], random)
        if number % 3 == 0:
            value = mutate(value, random)
        verdict = expected(validators[call["tool"]], value)
        assert ({"tool": call["tool"], "input": value} in space) == verdict, value
        members += verdict
    # Mutants on one side only would prove nothing.
    assert 0.1 < members / (MUTANTS // PARTS) < 0.9


def test_members_are_those_of_the_wire() -> None:
    """A value that arrives as JSON is judged as the value that was sent."""
    schema = MODELS["tree"].model_json_schema()
    space = ToolCallSpace(
        [{"name": "tree", "description": "", "input_schema": schema}], seed=1
    )
    for _ in range(50):
        assert json.loads(json.dumps(space.sample())) in space


@pytest.mark.parametrize(
    "schema",
    [
        "text",
        {"type": "strange"},
        {"minimum": "3"},
        {"pattern": "("},
        {"$ref": "#"},
        {"$ref": "#/nowhere"},
        {"multipleOf": 0},
        {"properties": 3},
        {"items": [{}]},
        {"required": 5},
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
