"""Every accepted form of a call, what is refused, and calls of whole turns."""

import enum
import json
import math
import types
from typing import Any

import numpy as np
import pytest

from ors_gym import formats
from ors_gym.formats import InvalidAction, provider_tool_name

pytestmark = pytest.mark.unit

parse_action: Any = formats.parse_action


def parse_actions(message: object, **session: Any) -> list[tuple[str, Any]]:
    return [
        (one.id, getattr(one.action, "message", one.action))
        for one in formats.parse_actions(message, **session)
    ]


def assistant(content: object = None, **rest: object) -> dict[str, Any]:
    return {"role": "assistant", "content": content, **rest}


def openai_call(call_id: str, name: str, arguments: str) -> dict[str, Any]:
    function = {"name": name, "arguments": arguments}
    return {"id": call_id, "type": "function", "function": function}


LOOK_CALL = {"tool": "look", "input": {}}
CALL: dict[str, Any] = {"tool": "add", "input": {"a": 1, "b": [1.5, None, "x"]}}
NAMED = {"name": "add", "arguments": CALL["input"]}
ARGUMENTS = json.dumps(CALL["input"])
OPENAI = openai_call("call_1", "add", ARGUMENTS)
RESPONSES = {
    "type": "function_call",
    "id": "fc_1",
    "call_id": "call_1",
    "name": "add",
    "arguments": ARGUMENTS,
    "status": "completed",
}
NO_INPUTS: list[dict[str, Any]] = [{}, {"input": None}, {"input": {}}]
THINKING = {"type": "thinking", "thinking": "hm", "signature": "s"}
I_ADD = {"type": "text", "text": "I add."}
ANTHROPIC = {"type": "tool_use", "id": "t1", "name": "add", "input": CALL["input"]}
ACCEPTED: dict[str, Any] = {
    "canonical": CALL,
    "canonical of other types": types.MappingProxyType(
        {"tool": np.str_("add"), "input": types.MappingProxyType(CALL["input"])}
    ),
    "name and arguments": NAMED,
    "name and arguments as JSON": {"name": "add", "arguments": ARGUMENTS},
    "openai": OPENAI,
    "openai without type": {"function": OPENAI["function"]},
    "openai with an object of arguments": {"type": "function", "function": NAMED},
    "openai message": assistant(None, tool_calls=[OPENAI]),
    "openai message with text": assistant("I add.", tool_calls=[OPENAI]),
    "responses": RESPONSES,
    "responses output": [
        {"type": "reasoning", "summary": []},
        {"type": "message", "content": [{"type": "output_text", "text": "I add."}]},
        RESPONSES,
    ],
    "anthropic": ANTHROPIC,
    "anthropic message": assistant([THINKING, I_ADD, ANTHROPIC]),
    "ors message block": {**ANTHROPIC, "type": "tool_call"},
    "list of one": [CALL],
    "tuple of one": (CALL,),
    "hermes": f"<tool_call>\n{json.dumps(NAMED)}\n</tool_call>",
    "hermes in text": f"I <b>see</b>. <tool_call>{json.dumps(NAMED)}</tool_call> ok",
    "hermes in a message": assistant(f"<tool_call>{json.dumps(NAMED)}</tool_call>"),
    "numpy text": np.str_(json.dumps(CALL)),
    "array without axes": np.array(json.dumps(CALL)),
    "object array without axes": np.array(CALL, dtype=object),
}


@pytest.mark.parametrize("form", ACCEPTED)
def test_accepted_form_is_the_canonical_call(form):
    parsed = parse_action(ACCEPTED[form])
    assert parsed == CALL
    assert json.loads(json.dumps(parsed, allow_nan=False)) == CALL


@pytest.mark.parametrize(
    "form", [form for form, action in ACCEPTED.items() if type(action) in (dict, list)]
)
def test_accepted_form_may_come_as_json(form):
    assert parse_action(f"\n{json.dumps(ACCEPTED[form])}  ") == CALL


class Model:
    """Looks like an object of a client library."""

    def __init__(self, value: object) -> None:
        self._value = value

    def model_dump(self) -> object:
        return self._value


def test_objects_of_client_libraries():
    assert parse_action(Model(OPENAI)) == CALL
    assert parse_action({"role": "assistant", "tool_calls": [Model(OPENAI)]}) == CALL
    assert parse_action([Model({"type": "text", "text": ""}), Model(ANTHROPIC)]) == CALL
    assert parse_action({"tool": "add", "input": Model(CALL["input"])}) == CALL


def test_canonical_call_is_returned_as_it_is():
    values = {"a": 1, "b": 2.5, "c": "x", "d": None, "e": True}
    action = {"tool": "add", "input": values}
    assert parse_action(action) is action
    nested = {"tool": "add", "input": {"a": [{"b": 1}]}}
    assert parse_action(nested)["input"] is nested["input"]


@pytest.mark.parametrize(
    "action",
    [
        *({"tool": "look", **rest} for rest in NO_INPUTS),
        {"name": "look"},
        *({"name": "look", "arguments": none} for none in (None, "", "null", "{}")),
        {"type": "function", "function": {"name": "look"}},
        {"type": "tool_use", "id": "1", "name": "look", "input": {}},
        "<tool_call>{'name': 'look'}</tool_call>".replace("'", '"'),
    ],
)
def test_tools_without_arguments(action):
    assert parse_action(action) == LOOK_CALL


class Level(enum.IntEnum):
    HIGH = 3


class Word(enum.StrEnum):
    YES = "yes"


CONVERTED: dict[str, tuple[Any, Any]] = {
    "int": (np.int64(3), 3),
    "float": (np.float32(0.5), 0.5),
    "double": (np.float64(0.25), 0.25),
    "bool": (np.bool_(True), True),
    "text": (np.str_("x"), "x"),
    "array": (np.arange(4).reshape(2, 2), [[0, 1], [2, 3]]),
    "scalar": (np.array(7), 7),
    "nested": ([{"deep": (np.int8(1), 2)}], [{"deep": [1, 2]}]),
    "int enum": (Level.HIGH, 3),
    "str enum": (Word.YES, "yes"),
    "large": (10**400, 10**400),
}


def test_values_of_other_types_become_plain_json():
    given = {name: value for name, (value, _) in CONVERTED.items()}
    parsed = parse_action({"tool": "t", "input": given})["input"]
    for name, (_, plain) in CONVERTED.items():
        assert (parsed[name], type(parsed[name])) == (plain, type(plain))
    assert isinstance(given["nested"][0]["deep"], tuple), "the action was changed"


NOT_JSON: list[tuple[object, str]] = [
    ({"a": math.nan}, "input.a: nan is not a JSON number"),
    ({"a": [0, {"b c": -math.inf}]}, "input.a[1]['b c']: -inf is not a JSON number"),
    ({"a": b"raw"}, "input.a: bytes is not a JSON type"),
    ({"a": {1, 2}}, "input.a: set is not a JSON type"),
    ({"a": {1: 2}}, "input.a: a key is of type int, not a string"),
    ({1: 2}, "input: a key is of type int, not a string"),
    ({"a": object()}, "input.a: object is not a JSON type"),
    ({"a": 1j}, "input.a: complex is not a JSON type"),
    ({"a": np.array([np.nan])}, "input.a[0]: nan is not a JSON number"),
    ({"a": 10**5000}, "input.a: the number has too many digits"),
]


@pytest.mark.parametrize(
    ("action", "complaint"),
    [
        *(({"tool": "t", "input": value}, said) for value, said in NOT_JSON),
        (None, "null is not an action"),
        (7, "a number is not an action"),
        (b"{}", "a bytes is not an action"),
        ("", "the action is empty"),
        (" \n", "the action is empty"),
        ([], "the action is empty"),
        ({}, "neither a tool call nor a message"),
        ("four", "the text holds no tool call"),
        ('"four"', "the text holds no tool call"),
        ("[1, 2]", "the JSON holds no tool call"),
        ('{"x": 1}', "the JSON holds no tool call"),
        ([1, 2], "a number is not a tool call"),
        ([{"x": 1}], "an item of the list is not a tool call"),
        ({"role": "user", "content": "hi"}, "neither a tool call nor a message"),
        (assistant("hi"), "the text holds no tool call"),
        (assistant(None), "the action is empty"),
        ({"tool": "", "input": {}}, "the call names no tool"),
        ({"tool": None, "input": {}}, "the call names no tool"),
        ({"tool": 3, "input": {}}, "the call names no tool"),
        ({"tool": "t", "input": [1]}, "the input of 't' is a list, not an object"),
        ({"tool": "t", "input": "{}"}, "the input of 't' is a string, not an object"),
        ({"tool": "t", "inputs": {}}, "unexpected key 'inputs'; the arguments belong"),
        ({"tool": "t", "arguments": {}}, "unexpected key 'arguments'"),
        ({"name": "t", "parameters": {}}, "unexpected key 'parameters'"),
        ({"name": "t", "arguments": [1]}, "the arguments of 't' is a list"),
        ({"name": "t", "arguments": "[1]"}, "the arguments of 't' is a list"),
        (
            {"name": "t", "arguments": '{"a": NaN}'},
            "the arguments of 't' is not valid: NaN is not a JSON number",
        ),
        (
            {"name": "t", "arguments": '{"a": 1 "b": 2}'},
            "in the arguments of 't' is not valid: Expecting ',' delimiter at column 9",
        ),
        ({"type": "function", "function": "t"}, "the function is a string"),
        ({"role": "assistant", "tool_calls": ["t"]}, "a string is not a tool call"),
        ([CALL, CALL], "2 tool calls at once"),
        ({"role": "assistant", "tool_calls": [OPENAI] * 3}, "3 tool calls at once"),
        (assistant([ANTHROPIC] * 2), "2 tool calls at once"),
        ('<tool_call>{"name": "a"}</tool_call>' * 2, "2 tool calls at once"),
        ('{"tool": "t", "input": {', "the JSON is not valid: "),
        ('{"tool": "t"} I call it', "the JSON is not valid: Extra data at column 15"),
        ('{"a": 1,\n "b": ?}', "not valid: Expecting value at column 7 of line 2"),
        (
            'x <tool_call>{"name": "t" "arguments": {}}</tool_call>',
            "inside <tool_call> is not valid: Expecting ',' delimiter at column 14",
        ),
        ("<tool_call></tool_call>", "Expecting value at column 1"),
        ('<tool_call>{"name": "t"}', "not followed by </tool_call>"),
        ('<tool_call>{"name": "t"}; bye</tool_call>', "not followed by </tool_call>"),
        ("<tool_call>[1]</tool_call>", "a list is not a tool call"),
        ('{"tool": "t", "input": {"a": ' + "9" * 5000 + "}}", "too many digits"),
    ],
)
def test_what_is_refused_and_why(action, complaint):
    parsed = parse_action(action)
    assert isinstance(parsed, InvalidAction)
    assert complaint in parsed.message
    assert len(parsed.message) < 400


def test_message_shows_the_form_and_the_tools():
    tools = [{**LOOK, "name": f"tool{i}"} for i in range(12)]
    message = parse_action("hm", tools=tools).message
    assert 'Send one call as {"tool": "<name>", "input": {...}}.' in message
    assert "Tools: tool0, tool1," in message
    assert message.endswith("tool9 and 2 more.")
    message = parse_action("<tool_call>hm</tool_call>", tools=tools[:1]).message
    assert '<tool_call>{"name": "<name>", "arguments": {...}}</tool_call>' in message
    assert message.endswith("Tools: tool0.")


def test_tags_inside_of_strings_are_data():
    text = '<tool_call>{"name": "t", "arguments": {"a": "</tool_call>"}}</tool_call>'
    assert parse_action(text) == {"tool": "t", "input": {"a": "</tool_call>"}}
    action = {"tool": "t", "input": {"a": "<tool_call>"}}
    assert parse_action(json.dumps(action)) == action


def test_schema_is_never_checked():
    schema = {"type": "object", "properties": {"a": {"type": "integer"}}}
    tools = [{"name": "t", "description": "", "input_schema": schema}]
    action = {"tool": "unknown", "input": {"b": "no"}}
    assert parse_action(action, tools=tools) == action


def test_lone_surrogates_survive_until_they_are_written():
    parsed = parse_action('{"tool": "t", "input": {"a": "\\ud800"}}')
    assert parsed == {"tool": "t", "input": {"a": "\ud800"}}
    assert json.dumps(parsed).isascii()


def test_stand_in_names_become_the_servers_names():
    tools = [{**LOOK, "name": "files.read"}]
    name = provider_tool_name("files.read")
    assert parse_action({"name": name}, tools=tools)["tool"] == "files.read"
    canonical = {"tool": name, "input": {}}
    assert parse_action(canonical, tools=tools) is canonical


def make_tool(name: str, properties: object, required: object) -> dict[str, Any]:
    schema = {"type": "object", "properties": properties, "required": required}
    return {"name": name, "description": "", "input_schema": schema}


ANSWER = make_tool("answer", {"text": {"type": "string"}, "n": {}}, ["text"])
ADD = make_tool("add", {"a": {"type": "integer"}}, ["a"])
LOOK = {"name": "look", "description": "", "input_schema": None}
SUBMIT = make_tool("submit", {"text": {"type": "string"}}, ["text"])
TERMINAL = {**SUBMIT, "terminal": "both"}


def test_plain_text_goes_to_the_terminal_tool():
    text = "  It is 4.\n"
    thinking = {"type": "thinking", "thinking": "2+2"}
    for message in (
        text,
        assistant(text),
        assistant([thinking, {"type": "text", "text": text}]),
        [{"type": "reasoning"}, {"type": "message", "content": text}],
    ):
        expected = {"tool": "submit", "input": {"text": text}}
        assert parse_action(message, tools=[ANSWER, TERMINAL]) == expected
    assert parse_action(CALL, tools=[TERMINAL]) == CALL


def test_terminal_tool_without_argument_drops_the_text():
    terminal = {**LOOK, "terminal": "text"}
    assert parse_action("bye", tools=[terminal]) == {"tool": "look", "input": {}}


def test_a_terminal_tool_that_is_only_called_takes_no_text():
    terminal = {**SUBMIT, "terminal": "tool"}
    message = parse_action("It is 4.", tools=[LOOK, terminal]).message
    assert message.endswith("Tools: look, submit.")
    hidden = {**SUBMIT, "terminal": "text"}
    message = parse_action('{"tool": 1}', tools=[LOOK, hidden]).message
    assert message.endswith("Tools: look.")


@pytest.mark.parametrize(
    "answer", ["[1, 2]", "{x | x > 2}", '{"name": "Ada", "age": 3}']
)
def test_answers_that_look_like_json_are_answers(answer):
    parsed = parse_action(answer, tools=[TERMINAL])
    assert parsed == {"tool": "submit", "input": {"text": answer}}


@pytest.mark.parametrize(
    "attempt",
    [
        '{"tool": "add", "input": {',
        '{"name": "add", "parameters": {"a": 1}}',
        "<tool_call>add(1)</tool_call>",
        '{"tool": "a", "input": {}} {"tool": "b", "input": {}}',
    ],
)
def test_a_broken_call_is_not_submitted_as_the_answer(attempt):
    parsed = parse_action(attempt, tools=[TERMINAL])
    assert isinstance(parsed, InvalidAction)


def test_an_action_that_was_found_invalid_stays_so():
    invalid = InvalidAction("no such tool")
    assert parse_action(invalid, tools=[TERMINAL]) is invalid
    ((_, read),) = formats.parse_actions(invalid)
    assert read is invalid


def test_submit_finds_the_one_tool_with_one_required_string():
    parsed = parse_action("four", tools=[ADD, ANSWER, LOOK], plain_text="submit")
    assert parsed == {"tool": "answer", "input": {"text": "four"}}
    assert isinstance(parse_action("four", tools=[ANSWER]), InvalidAction)


@pytest.mark.parametrize(
    "tools",
    [
        [],
        [ADD, LOOK],
        [ANSWER, make_tool("say", {"x": {"type": "string"}}, ["x"])],
        [make_tool("two", {"x": {"type": "string"}, "y": {}}, ["x", "y"])],
        [make_tool("odd", {"x": True}, ["x"])],
        [make_tool("odd", [], ["x"])],
        [make_tool("odd", {"x": {"type": "string"}}, "x")],
    ],
)
def test_submit_needs_exactly_one_such_tool(tools):
    parsed = parse_action("four", tools=tools, plain_text="submit")
    assert "no tool, or more than one, takes plain text" in parsed.message


ADD_CALL = {"tool": "add", "input": {"a": 1}}


def test_openai_message_keeps_ids_and_order_with_a_broken_call_in_its_place():
    message = assistant(
        "Three calls. <tool_call>ignored</tool_call>",
        tool_calls=[
            openai_call("c1", "look", "{}"),
            openai_call("c2", "add", '{"a": '),
            {**openai_call("c3", "add", '{"a": 1}'), "index": 2},
        ],
    )
    (first, look), (second, complaint), (third, add) = parse_actions(message)
    assert (first, second, third) == ("c1", "c2", "c3")
    assert (look, add) == (LOOK_CALL, ADD_CALL)
    assert "the JSON in the arguments of 'add' is not valid" in complaint
    assert complaint.endswith("Send the arguments as one JSON object.")


def test_anthropic_content():
    content = [
        {"type": "thinking", "thinking": "…", "signature": "s"},
        {"type": "text", "text": "Two calls."},
        {"type": "tool_use", "id": "t1", "name": "look", "input": {}},
        {"type": "tool_use", "id": "t2", "name": "add", "input": {"a": 1}},
    ]
    expected = [("t1", LOOK_CALL), ("t2", ADD_CALL)]
    assert parse_actions(content) == parse_actions(assistant(content)) == expected


def test_responses_output_is_answered_by_call_id():
    call = {"type": "function_call", "name": "look", "arguments": "{}"}
    output = [
        {"type": "reasoning", "id": "r"},
        {**call, "id": "fc_1", "call_id": "c1"},
        {**call, "id": "fc_2", "call_id": "c2"},
    ]
    assert parse_actions(output) == [("c1", LOOK_CALL), ("c2", LOOK_CALL)]


def test_list_of_calls_of_several_shapes():
    add = {"name": "add", "arguments": {"a": 1}}
    calls = [LOOK_CALL, add, openai_call("c", "look", "")]
    expected = [("", LOOK_CALL), ("", ADD_CALL), ("c", LOOK_CALL)]
    assert parse_actions(calls) == parse_actions(json.dumps(calls)) == expected


def test_hermes_blocks():
    text = (
        "First <tool_call>\n"
        '{"name": "look"}\n</tool_call> then <tool_call>{"name": }</tool_call>'
        '<tool_call>{"name": "add", "arguments": {"a": 1}}</tool_call> and '
        '<tool_call>{"name": "add"'
    )
    (_, look), (_, broken), (_, add), (_, unclosed) = parse_actions(text)
    assert (look, add) == (LOOK_CALL, ADD_CALL)
    assert "Expecting value at column 10" in broken
    assert "Expecting ',' delimiter at column 15" in unclosed


def test_plain_text_is_no_call_unless_a_tool_takes_it():
    assert parse_actions("I am done.") == []
    assert parse_actions(assistant(None)) == []
    submitted = {"tool": "submit", "input": {"text": "I am done."}}
    assert parse_actions("I am done.", tools=[TERMINAL]) == [("", submitted)]


def test_what_is_no_message_is_one_invalid_call():
    ((call_id, complaint),) = parse_actions(7)
    assert call_id == ""
    assert "a number is not an action" in complaint


def parse_python_call(text: str) -> object:
    """Read ``name(json)`` lines, as some model might write them."""
    if "(" not in text:
        return None
    return [
        {"name": line.split("(")[0], "arguments": line.split("(")[1].rstrip(")")}
        for line in text.splitlines()
    ]


def test_own_parser_replaces_json_and_hermes():
    parsed = parse_actions('look()\nadd({"a": 1})', parse=parse_python_call)
    assert parsed == [("", LOOK_CALL), ("", ADD_CALL)]
    message = assistant("look()")
    assert parse_actions(message, parse=parse_python_call) == [("", LOOK_CALL)]
    assert parse_actions('<tool_call>{"name": "look"}', parse=parse_python_call) == []
    assert parse_actions(json.dumps(LOOK_CALL), parse=parse_python_call) == []


def test_own_parser_may_return_a_message_or_what_to_submit():
    message = assistant("", tool_calls=[LOOK_CALL])
    assert parse_actions("x", parse=lambda _: message) == [("", LOOK_CALL)]
    text = '<tool_call>{"name": "x"}</tool_call>'
    assert parse_actions("x", parse=lambda _: assistant(text)) == []
    parsed = parse_actions(
        "<think>{}</think>42",
        parse=lambda text: text.rpartition("</think>")[2],
        tools=[TERMINAL],
    )
    assert parsed == [("", {"tool": "submit", "input": {"text": "42"}})]


def test_own_parser_that_raises_is_an_invalid_action():
    ((_, complaint),) = parse_actions("look(", parse=lambda text: {}[text])
    assert "the text cannot be parsed: KeyError: 'look('" in complaint


class Hostile:
    """Raises wherever it is touched."""

    def __getattribute__(self, name: str) -> Any:
        raise RuntimeError(name)


def test_one_hostile_call_leaves_the_others_and_its_id():
    bad = {"id": "c1", "type": "function", "function": Hostile()}
    message = {"tool_calls": [bad, openai_call("c2", "look", "{}")]}
    (first, complaint), second = parse_actions(message)
    assert first == "c1"
    assert "the call cannot be read (RuntimeError)" in complaint
    assert second == ("c2", LOOK_CALL)


def test_blanks_before_broken_json_are_read_once():
    # In time that grows with their square this takes minutes.
    for text in (" " * 200_000 + "{", " " * 200_000 + '[ {"x"', "\n" * 200_000 + "[{,"):
        action = parse_action(text)
        assert isinstance(action, InvalidAction)
        assert "is not valid" in action.message
    broken = parse_action(' [ {"tool": "look", "input": {}')
    assert isinstance(broken, InvalidAction)
