"""`ToolCallSpace.contains` agrees with jsonschema on valid inputs made wrong."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from random import Random
from typing import Any

import pytest
from jsonschema import (  # type: ignore[import-untyped, unused-ignore]
    Draft202012Validator,
)

from ors_gym.spaces import ToolCallSpace
from tests.spaces.pydantic_tools import MODELS
from tests.support.slow_cases import mostly_slow

MUTANTS = 20_000
PARTS = 4
ODDITIES: tuple[Any, ...] = (
    None,
    True,
    False,
    0,
    -1,
    1.0,
    1e308,
    10**30,
    -(10**400),
    float("nan"),
    float("inf"),
    "",
    "x",
    "\ud800",
    "a" * 300,
    [],
    [1, 1],
    {},
    {"kind": "cat"},
    (1, "x"),
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


@pytest.mark.parametrize(
    "call",
    [
        None,
        "look",
        [],
        {},
        {"tool": "look"},
        {"input": {}},
        {"tool": "look", "input": {}, "more": 1},
        {"name": "look", "input": {}},
        {"tool": "other", "input": {}},
        {"tool": ["look"], "input": {}},
        {"tool": "look", "input": None},
        {"tool": "look", "input": []},
        {"tool": "look", "input": {"x": 1}},
    ],
)
def test_what_is_no_call(call: object) -> None:
    tool = {"name": "look", "description": "", "input_schema": None}
    assert call not in ToolCallSpace([tool])


def test_a_schema_without_a_type_still_takes_objects_only() -> None:
    space = ToolCallSpace([{"name": "any", "description": "", "input_schema": {}}])
    assert {"tool": "any", "input": {"x": [1]}} in space
    assert {"tool": "any", "input": 5} not in space


def test_two_tools_of_one_name_are_alternatives() -> None:
    schemas = [{"required": ["a"]}, {"required": ["b"]}]
    tools = [{"name": "t", "description": "", "input_schema": s} for s in schemas]
    space = ToolCallSpace(tools)
    assert {"tool": "t", "input": {"a": 1}} in space
    assert {"tool": "t", "input": {"b": 1}} in space
    assert {"tool": "t", "input": {"c": 1}} not in space


def test_members_are_those_of_the_wire() -> None:
    """A value that arrives as JSON is judged as the value that was sent."""
    schema = MODELS["tree"].model_json_schema()
    space = ToolCallSpace(
        [{"name": "tree", "description": "", "input_schema": schema}], seed=1
    )
    for _ in range(50):
        assert json.loads(json.dumps(space.sample())) in space
