"""Schemas that are read out of refusals, in the words of many authors."""

import json
import re
import time
from collections.abc import Callable
from typing import Any

import gymnasium
import pytest
from hypothesis import given
from hypothesis import strategies as st

import ors_gym
from ors_gym.errors import InvalidRequestError
from ors_gym.spaces import ToolCallSpace, narrow_tools
from ors_gym.testing import suggest_schemas
from ors_gym.testing._suggest_schemas import (
    _Search,
    read_constraints,
    read_refusal,
)
from ors_gym.types import ToolCall

WORD: Any = {"type": "string"}
WHOLE: Any = {"type": "integer"}
REAL: Any = {"type": "number"}
LIST: Any = {"type": "array", "items": WHOLE}
WAYS = ["up", "down", "left", "right"]
unit = pytest.mark.unit


def as_listed(message: str) -> str:
    """Write a message as both SDKs do."""
    return (
        "Tool input validation error: [{'type': 'value_error', 'loc': ('a',), 'msg': "
        f"{'Value error, ' + message!r}, 'input': 'q', 'ctx': {{'error': 1}}}}]"
    )


def as_printed(message: str) -> str:
    """Write a message as pydantic prints it."""
    return (
        f"1 validation error for MoveInput a Value error, {message} "
        "[type=value_error, input_value='q', input_type=str] For further information"
    )


def search(
    argument: Any, message: str, accepts: Callable[[Any], bool], prompt: str = ""
) -> _Search:
    schema = {"type": "object", "properties": {"a": argument}, "required": ["a"]}

    def refuse(call: ToolCall) -> str:
        return "" if accepts(call["input"]["a"]) else message

    tool: Any = {"name": "t", "description": "", "input_schema": schema}
    found = _Search(tool, refuse, prompt, 20, 0)
    found.run()
    return found


WORDINGS = [
    (WORD, "direction must be one of up, down, left, right", WAYS, {"enum": WAYS}),
    (WORD, "Unknown 'q'. Must be: up, down, left or right", WAYS, {"enum": WAYS}),
    (WORD, "a must be one of ['yes', 'no']", ["yes", "no"], {"enum": ["yes", "no"]}),
    (WORD, "Expected `hit` or `stand`.", ["hit", "stand"], {"enum": ["hit", "stand"]}),
    (WORD, "Allowed values: U/D/L/R", list("UDLR"), {"enum": list("UDLR")}),
    (WORD, "exactly 5 letters", "[a-zA-Z]{5}", {"pattern": "^[A-Za-z]{5,5}$"}),
    (WORD, "must be a single uppercase letter", "[A-Z]", {"pattern": "^[A-Z]{1,1}$"}),
    (WORD, "must match ^[a-h][1-8]$", "[a-h][1-8]", {"pattern": "^[a-h][1-8]$"}),
    (WORD, "must have at most 3 characters", ".{0,3}", {"maxLength": 3}),
    (WHOLE, "must be between 0 and 24", range(25), {"minimum": 0, "maximum": 24}),
    (WHOLE, "action must be in [1, 9]", range(1, 10), {"minimum": 1, "maximum": 9}),
    (WHOLE, "must be in range(0, 9)", range(9), {"minimum": 0, "maximum": 8}),
    (WHOLE, "expected 0 <= a <= 3", range(4), {"minimum": 0, "maximum": 3}),
    (WHOLE, "must be >= 2 and < 9", range(2, 9), {"minimum": 2, "maximum": 8}),
    (WHOLE, "must be at least 0", range(10**400), {"minimum": 0}),
    (WHOLE, "must be positive", range(1, 10**400), {"minimum": 1}),
    (WHOLE, "must be one of 1, 3 or 7", [1, 3, 7], {"enum": [1, 3, 7]}),
    (LIST, "a must have exactly 3 items", 3, {"minItems": 3, "maxItems": 3}),
]  # fmt: skip


def accepted_by(rule: Any) -> Callable[[Any], bool]:
    if isinstance(rule, str):
        return lambda value: re.fullmatch(rule, value, re.DOTALL) is not None
    if isinstance(rule, int):
        return lambda value: len(value) == rule
    return lambda value: value in rule


@unit
@pytest.mark.parametrize("form", [str, as_listed, as_printed])
@pytest.mark.parametrize(("argument", "words", "rule", "expected"), WORDINGS)
def test_the_words_of_many_authors(form, argument, words, rule, expected):
    found = search(argument, form(words), accepted_by(rule))
    assert found.parts == {"a": expected}
    (evidence,) = found.evidence()
    assert evidence.before[0] > evidence.after[0] == 0
    assert evidence.after[1] == 20
    assert found.left == ""


@unit
def test_a_number_of_any_size():
    found = search(REAL, "must be greater than 0.5", lambda value: value > 0.5)
    assert found.parts == {"a": {"exclusiveMinimum": 0.5}}
    found = search(REAL, "between 0.5 and 1.5", lambda value: 0.5 <= value <= 1.5)
    assert found.parts == {"a": {"minimum": 0.5, "maximum": 1.5}}


@unit
@pytest.mark.parametrize("kind", ["integer", "number", "string", "array"])
def test_a_number_that_no_float_holds_is_no_error(kind):
    many = "9" * 400
    words = f"must be at most {many}, {many}-character or one of 1, {many}"
    for constraint in read_constraints(words, kind):
        json.dumps(constraint.schema, allow_nan=False)


def test_a_long_refusal_takes_time_in_proportion_to_its_length():
    def seconds(words: int) -> float:
        began = time.process_time()
        read_refusal("row " * words, ["row"])
        return time.process_time() - began

    # Four times the words took sixteen times the time.
    assert seconds(32_000) < 8 * min(seconds(8_000) for _ in range(3))


def test_one_problem_at_a_time_is_found_in_several_rounds():
    def refuse(call: ToolCall) -> str:
        row, way = call["input"]["row"], call["input"]["way"]
        if row < 0:
            return "row must not be less than 0"
        if row > 3:
            return "row must be at most 3"
        return "" if way in WAYS else "way: choose up, down, left, or right"

    properties = {"row": WHOLE, "way": WORD}
    schema = {"type": "object", "properties": properties, "required": ["row", "way"]}
    tool: Any = {"name": "t", "description": "", "input_schema": schema}
    found = _Search(tool, refuse, "", 20, 0)
    assert found.run()
    assert found.parts == {"row": {"minimum": 0, "maximum": 3}, "way": {"enum": WAYS}}


@unit
def test_a_schema_is_never_wider_than_the_servers():
    listed = {**WHOLE, "minimum": 3}
    words = "a must be at least 1 and at most 9"
    found = search(listed, words, lambda value: 1 <= value <= 9)
    assert found.parts == {"a": {"maximum": 9}}


@unit
def test_words_elsewhere_help_where_a_refusal_says_nothing():
    described = {**WORD, "description": "One of up, down, left, right"}
    found = search(described, "invalid direction", accepted_by(WAYS))
    assert found.parts == {"a": {"enum": WAYS}}
    found = search(WORD, "invalid", accepted_by(WAYS), "Go up, down, left or right.")
    assert found.parts == {"a": {"enum": WAYS}}


@unit
def test_what_cannot_be_found_is_told_and_not_guessed():
    found = search(WHOLE, "a must be a prime between 2 and 4", accepted_by([2, 3]))
    assert found.parts == {"a": {"minimum": 2, "maximum": 3}}
    found = search(WHOLE, "a must be even", lambda value: value % 2 == 0)
    assert (found.parts, found.left) == ({}, "a must be even")
    found = search(WORD, "must be one of up, down", lambda _: False)
    assert (found.parts, found.left) == ({}, "must be one of up, down")


@unit
@given(st.text(), st.sampled_from(["string", "integer", "number", "array", None]))
def test_any_words_can_be_read(words, kind):
    for constraint in read_constraints(words, kind):
        assert isinstance(constraint.schema, dict)
    for argument, _ in read_refusal(words, ["a", "b"]):
        assert argument in ("a", "b")


def test_a_table_for_a_real_server_and_what_it_brings(server, closing):
    env = closing(ors_gym.ORSEnv("Board", server.base_url))
    found = suggest_schemas(env)
    cell = {"minimum": 0, "maximum": 3}
    assert found.tool_schemas == {
        "jump": {"row": cell, "column": cell},
        "move": {"direction": {"enum": WAYS}},
    }
    assert not found.unexplained
    assert {one.before for one in found.evidence} == {(20, 20)}
    assert {one.after for one in found.evidence} == {(0, 20)}
    said = str(found)
    assert "read in: direction must be one of up, down, left, right" in said
    assert "refused before: 20 of 20; with it: 0 of 20" in said
    space = ToolCallSpace(narrow_tools(env.tools, found.tool_schemas), seed=0)
    env.reset(seed=0)
    assert env.step(space.sample())[4]["error_kind"] == ""
    again = closing(
        ors_gym.ORSEnv("Board", server.base_url, tool_schemas=found.tool_schemas)
    )
    assert suggest_schemas(again).tool_schemas == {}


def test_only_an_env_of_an_ors_server_is_played():
    with pytest.raises(InvalidRequestError, match="not an env of an ORS server"):
        suggest_schemas(gymnasium.make("CartPole-v1"))
