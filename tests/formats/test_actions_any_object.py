"""Any object at all is a tool call or an invalid action, and never an exception."""

import json
from typing import Any

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st

from ors_gym.formats import InvalidAction, parse_action, parse_actions
from ors_gym.formats._json import to_plain_json

pytestmark = pytest.mark.unit

KEYS = st.sampled_from(
    [
        *("tool", "input", "name", "arguments", "function", "type", "id", "call_id"),
        *("role", "content", "tool_calls", "text", "parameters"),
    ]
)
WORDS = st.sampled_from(
    [
        *("function", "function_call", "tool_use", "text", "message", "assistant"),
        *("{}", '{"a": 1}', "[", "<tool_call>", "</tool_call>"),
        '<tool_call>{"name": "t"}</tool_call>',
        '{"tool": "t", "input": {}}',
    ]
)
PLAIN = st.none() | st.booleans() | st.integers() | st.text()
ATOMS = (
    PLAIN
    | st.floats()
    | st.characters(categories=["Cs"])
    | WORDS
    | st.binary(max_size=3)
    | st.complex_numbers()
    | st.sampled_from(
        [np.int64(3), np.float32("nan"), np.array("x"), np.zeros((2, 2)), object(), int]
    )
)


def make_object_array(items: list[Any]) -> np.ndarray:
    """Hold objects of any kind; ``np.array`` refuses some mixed shapes."""
    array = np.empty(len(items), dtype=object)
    for index, item in enumerate(items):
        array[index] = item
    return array


OBJECTS = st.recursive(
    ATOMS,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(KEYS | st.integers(), inner, max_size=5)
        | st.tuples(inner, inner)
        | st.lists(inner, max_size=3).map(make_object_array)
    ),
    max_leaves=12,
)
SCHEMA = {"properties": {"a": {"type": "string"}}, "required": ["a"]}
TOOLS: Any = [{"name": "t", "description": "", "input_schema": SCHEMA}]
SESSIONS = st.fixed_dictionaries(
    {
        "tools": st.sampled_from([(), TOOLS, [{**TOOLS[0], "terminal": "both"}]]),
        "plain_text": st.sampled_from(["invalid", "submit"]),
    }
)


def check(parsed: object) -> None:
    """Check that a result is a sendable call or a message."""
    if isinstance(parsed, InvalidAction):
        assert parsed.message.startswith("Invalid action: ")
        parsed.message.encode("utf-8", "surrogatepass")
        return
    assert isinstance(parsed, dict)
    assert parsed.keys() == {"tool", "input"}
    assert type(parsed["tool"]) is str
    assert json.loads(json.dumps(parsed, allow_nan=False)) == parsed


def is_json(value: object) -> bool:
    try:
        to_plain_json(value)
    except ValueError:
        return False
    return True


@hypothesis.given(OBJECTS, SESSIONS)
@hypothesis.settings(max_examples=500)
def test_any_object(value, session):
    check(parse_action(value, **session))
    for parsed in parse_actions(value, **session):
        check(parsed.action)


@hypothesis.given(OBJECTS, SESSIONS)
def test_any_input(value, session):
    parsed = parse_action({"tool": "t", "input": value}, **session)
    check(parsed)
    if isinstance(value, dict):
        assert is_json(value) == isinstance(parsed, dict)


@hypothesis.given(st.lists(WORDS | st.text()), SESSIONS)
@hypothesis.settings(max_examples=500)
def test_any_text(parts, session):
    check(parse_action("".join(parts), **session))


JSON_VALUES = st.recursive(
    PLAIN | st.floats(allow_nan=False, allow_infinity=False),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=10,
)


@hypothesis.given(st.dictionaries(st.text(), JSON_VALUES))
def test_every_json_input_arrives_through_every_form(given):
    expected = {"tool": "t", "input": given}
    named = {"name": "t", "arguments": given}
    encoded = {"name": "t", "arguments": json.dumps(given)}
    for action in (
        expected,
        named,
        encoded,
        {"type": "function", "function": encoded},
        {"type": "tool_use", "name": "t", "input": given},
        json.dumps(expected),
        f"<tool_call>{json.dumps(named)}</tool_call>",
    ):
        assert parse_action(action) == expected


def nest(levels: int) -> Any:
    value: Any = 1
    for _ in range(levels):
        value = [value]
    return value


DEEP = 100_000
BRACKETS = "[" * DEEP + "]" * DEEP


@pytest.mark.parametrize(
    "action",
    [
        BRACKETS,
        "[" * DEEP,
        '{"a":' * DEEP,
        '{"tool": "t", "input": {"a": ' + BRACKETS + "}}",
        f"<tool_call>{BRACKETS}</tool_call>",
        {"name": "t", "arguments": '{"a":' * DEEP},
    ],
    ids=range(6),
)
def test_deep_nesting_is_invalid(action):
    assert isinstance(parse_action(action), InvalidAction)


def test_deep_nesting_of_objects_is_invalid():
    deep = nest(DEEP)
    for action in ({"input": {"a": deep}}, {"input": deep}):
        assert isinstance(parse_action({"tool": "t", **action}), InvalidAction)
    assert isinstance(parse_action(deep), InvalidAction)


def test_nesting_that_any_reader_takes_is_fine():
    action = {"tool": "t", "input": {"a": nest(100)}}
    assert parse_action(action) == action


def test_values_without_an_end_are_invalid():
    message: Any = "hi"
    for _ in range(DEEP):
        message = {"role": "assistant", "content": message}
    endless: list[Any] = []
    endless.extend([endless, endless])
    wide: Any = 0
    for _ in range(60):
        wide = [wide, wide]
    calls = [{"tool": "t", "input": {"a": value}} for value in (endless, wide)]
    for action in (message, *calls):
        assert isinstance(parse_action(action), InvalidAction)


def test_endless_repetition_is_one_invalid_action():
    for block in ("<tool_call>", '<tool_call>{"a', "<tool_call>[</tool_call>"):
        text = block * 50_000
        assert isinstance(parse_action(text), InvalidAction)
        assert len(parse_actions(text)) == 1


class Hostile:
    """Raises wherever it is touched."""

    def __getattribute__(self, name: str) -> Any:
        raise RuntimeError("touched")


def test_hostile_objects_are_invalid():
    # In the test, since pytest looks at parameters.
    actions: list[Any] = [
        Hostile(),
        [Hostile()],
        {"tool": "t", "input": Hostile()},
        {"tool": "t", "input": {"a": Hostile()}},
        {"role": "assistant", "content": Hostile()},
        {"type": [], "content": {}},
        [{"type": []}],
    ]
    for action in actions:
        assert isinstance(parse_action(action), InvalidAction)
