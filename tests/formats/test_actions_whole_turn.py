"""`parse_actions`: all calls of one assistant turn, with their ids."""

from __future__ import annotations

import json
from typing import Any

from ors_gym import formats as actions
from ors_gym.formats import InvalidAction


def parse_actions(message: object, **session: Any) -> list[tuple[str, Any]]:
    """Return ids with calls as they are, or with the message of what is invalid."""
    return [
        (
            parsed.id,
            parsed.action.message
            if isinstance(parsed.action, InvalidAction)
            else parsed.action,
        )
        for parsed in actions.parse_actions(message, **session)
    ]


def openai_call(call_id: str, name: str, arguments: str) -> dict[str, Any]:
    function = {"name": name, "arguments": arguments}
    return {"id": call_id, "type": "function", "function": function}


LOOK = {"tool": "look", "input": {}}
ADD = {"tool": "add", "input": {"a": 1}}


def test_openai_message_keeps_ids_and_order_with_a_broken_call_in_its_place():
    message = {
        "role": "assistant",
        "content": "Three calls. <tool_call>ignored</tool_call>",
        "tool_calls": [
            openai_call("c1", "look", "{}"),
            openai_call("c2", "add", '{"a": '),
            {**openai_call("c3", "add", '{"a": 1}'), "index": 2},
        ],
    }
    (first, look), (second, complaint), (third, add) = parse_actions(message)
    assert (first, second, third) == ("c1", "c2", "c3")
    assert (look, add) == (LOOK, ADD)
    assert "the JSON in the arguments of 'add' is not valid" in complaint
    assert complaint.endswith("Send the arguments as one JSON object.")


def test_anthropic_content():
    content = [
        {"type": "thinking", "thinking": "…", "signature": "s"},
        {"type": "text", "text": "Two calls."},
        {"type": "tool_use", "id": "t1", "name": "look", "input": {}},
        {"type": "tool_use", "id": "t2", "name": "add", "input": {"a": 1}},
    ]
    expected = [("t1", LOOK), ("t2", ADD)]
    assert parse_actions(content) == expected
    assert parse_actions({"role": "assistant", "content": content}) == expected


def test_responses_output_is_answered_by_call_id():
    call = {"type": "function_call", "name": "look", "arguments": "{}"}
    output = [
        {"type": "reasoning", "id": "r"},
        {**call, "id": "fc_1", "call_id": "c1"},
        {**call, "id": "fc_2", "call_id": "c2"},
    ]
    assert parse_actions(output) == [("c1", LOOK), ("c2", LOOK)]


def test_list_of_calls_of_several_shapes():
    calls = [LOOK, {"name": "add", "arguments": {"a": 1}}, openai_call("c", "look", "")]
    assert parse_actions(calls) == [("", LOOK), ("", ADD), ("c", LOOK)]
    assert parse_actions(json.dumps(calls)) == [("", LOOK), ("", ADD), ("c", LOOK)]


def test_hermes_blocks():
    text = (
        "First <tool_call>\n"
        '{"name": "look"}\n</tool_call> then <tool_call>{"name": }</tool_call>'
        '<tool_call>{"name": "add", "arguments": {"a": 1}}</tool_call> and '
        '<tool_call>{"name": "add"'
    )
    (_, look), (_, broken), (_, add), (_, unclosed) = parse_actions(text)
    assert (look, add) == (LOOK, ADD)
    assert "Expecting value at column 10" in broken
    assert "Expecting ',' delimiter at column 15" in unclosed


def test_plain_text_is_no_call_unless_a_tool_takes_it():
    assert parse_actions("I am done.") == []
    assert parse_actions({"role": "assistant", "content": None}) == []
    terminal = {"name": "submit", "arg": "text"}
    assert parse_actions("I am done.", terminal_tool=terminal) == [
        ("", {"tool": "submit", "input": {"text": "I am done."}})
    ]


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
    assert parsed == [("", LOOK), ("", ADD)]
    message = {"role": "assistant", "content": "look()"}
    assert parse_actions(message, parse=parse_python_call) == [("", LOOK)]
    assert parse_actions('<tool_call>{"name": "look"}', parse=parse_python_call) == []
    assert parse_actions(json.dumps(LOOK), parse=parse_python_call) == []


def test_own_parser_may_return_a_message_or_what_to_submit():
    def parse(text: str) -> object:
        return {"role": "assistant", "content": text, "tool_calls": [LOOK]}

    assert parse_actions("x", parse=parse) == [("", LOOK)]
    terminal = {"name": "submit", "arg": "text"}

    def without_thoughts(text: str) -> object:
        return text.rpartition("</think>")[2]

    parsed = parse_actions(
        "<think>{}</think>42", parse=without_thoughts, terminal_tool=terminal
    )
    assert parsed == [("", {"tool": "submit", "input": {"text": "42"}})]

    def as_message(text: str) -> object:
        return {"role": "assistant", "content": '<tool_call>{"name": "x"}</tool_call>'}

    assert parse_actions("x", parse=as_message) == []


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
    assert second == ("c2", LOOK)
