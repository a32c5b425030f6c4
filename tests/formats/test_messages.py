"""Blocks, results and prompts in the providers' formats.

The shapes are those of ``openai.types.chat`` and ``anthropic.types``.
"""

import json
from typing import Any

import hypothesis
import pytest
from hypothesis import strategies as st

from ors_gym.formats import (
    ToolResult,
    parse_action,
    provider_tool_name,
    to_anthropic_content,
    to_anthropic_messages,
    to_mcp_content,
    to_openai_content,
    to_openai_messages,
    to_template_messages,
    tool_result_messages,
)
from ors_gym.formats._messages import with_calls_as_text
from tests.formats.images import image_block

pytestmark = pytest.mark.unit

DATA = "R0lGODdhCgAUAA=="


def text(value: str) -> Any:
    return {"type": "text", "text": value}


def image(media_type: str = "image/gif") -> Any:
    return image_block(DATA, media_type)


# The head of a kind of file that providers do not take.
TIFF = image_block("SUkqAA==", "image/tiff")
OPENAI_IMAGE = {
    "type": "image_url",
    "image_url": {"url": f"data:image/gif;base64,{DATA}"},
}
ANTHROPIC_IMAGE = {
    "type": "image",
    "source": {"type": "base64", "media_type": "image/gif", "data": DATA},
}


def test_openai_content():
    blocks = [text("a\ud800"), image(), {"type": "audio", "s": 1}, TIFF]
    assert to_openai_content(blocks) == [
        text("a\ufffd"),
        OPENAI_IMAGE,
        text('[audio: {"s": 1}]'),
        text("[image: image/tiff]"),
    ]


def test_anthropic_content_has_no_blank_text():
    blocks = [text(""), text(" \n"), text("a\ud800"), image(), TIFF]
    assert to_anthropic_content(blocks) == [
        text("a\ufffd"),
        ANTHROPIC_IMAGE,
        text("[image: image/tiff]"),
    ]


def test_media_types_are_named_as_the_providers_do():
    (part,) = to_anthropic_content([image_block("AAAA", "image/JPG")])
    assert part["source"]["media_type"] == "image/jpeg"


def test_a_wrong_label_is_not_sent_on():
    assert to_openai_content([image("image/jpeg")]) == [OPENAI_IMAGE]
    assert to_anthropic_content([image("image/tiff")]) == [ANTHROPIC_IMAGE]


RESULTS = [
    ToolResult("c1", [text("first"), image()]),
    ToolResult("c2", [], is_error=True),
    ToolResult("c3", [image(), text("third"), image()]),
]
SHOWN = "[image: image/gif, 10x20]"
HEADING = text("Images of the tool results above, in order:")


def tool_message(call_id: str, content: Any) -> dict[str, Any]:
    return {"role": "tool", "tool_call_id": call_id, "content": content}


def answer(call_id: str, *content: Any, **more: Any) -> dict[str, Any]:
    result = {"type": "tool_result", "tool_use_id": call_id, "content": [*content]}
    return {**result, **more}


def test_openai_images_follow_all_results_by_default():
    expected = [
        tool_message("c1", f"first\n\n{SHOWN}"),
        tool_message("c2", ""),
        tool_message("c3", f"{SHOWN}\n\nthird\n\n{SHOWN}"),
        {"role": "user", "content": [HEADING, *[OPENAI_IMAGE] * 3]},
    ]
    assert tool_result_messages(RESULTS) == expected
    assert tool_result_messages(RESULTS, "openai", "user") == expected


def test_openai_images_in_results():
    assert tool_result_messages(RESULTS, images="tool") == [
        tool_message("c1", [text("first"), OPENAI_IMAGE]),
        tool_message("c2", ""),
        tool_message("c3", [OPENAI_IMAGE, text("third"), OPENAI_IMAGE]),
    ]


def test_anthropic_images_in_results_by_default_or_after_them():
    (message,) = tool_result_messages(RESULTS, "anthropic")
    assert message["role"] == "user"
    assert message["content"] == [
        answer("c1", text("first"), ANTHROPIC_IMAGE),
        answer("c2", is_error=True),
        answer("c3", ANTHROPIC_IMAGE, text("third"), ANTHROPIC_IMAGE),
    ]
    (message,) = tool_result_messages(RESULTS, "anthropic", "user")
    assert message["content"] == [
        answer("c1", text(f"first\n\n{SHOWN}")),
        answer("c2", is_error=True),
        answer("c3", text(f"{SHOWN}\n\nthird\n\n{SHOWN}")),
        *(HEADING, ANTHROPIC_IMAGE, ANTHROPIC_IMAGE, ANTHROPIC_IMAGE),
    ]


@pytest.mark.parametrize("images", ["user", "tool", None])
def test_results_without_images_need_no_user_message(images):
    results = [ToolResult("c1", [text("a"), TIFF])]
    (message,) = tool_result_messages(results, "openai", images)
    assert message["content"] == "a\n\n[image: image/tiff]"
    assert tool_result_messages([], "openai", images) == []
    assert tool_result_messages([], "anthropic", images) == []


def test_prompt_of_blocks():
    [message] = to_openai_messages([text("a"), text("b")])
    assert message == {"role": "user", "content": "a\n\nb"}
    [message] = to_openai_messages([text("a"), image()])
    assert message == {"role": "user", "content": [text("a"), OPENAI_IMAGE]}
    expected = {"role": "user", "content": [text("a"), ANTHROPIC_IMAGE]}
    assert to_anthropic_messages([text("a"), image()]) == {"messages": [expected]}


CALL = {"type": "tool_call", "id": "c1", "name": "look.at", "input": {"a": 1}}
RESULT = {
    "type": "tool_result",
    "tool_call_id": "c1",
    "blocks": [text("seen"), image()],
    "is_error": True,
}
CONVERSATION: list[Any] = [
    {"role": "system", "blocks": [text("Be brief."), image()]},
    {"role": "user", "blocks": [text("Look."), image()]},
    {
        "role": "assistant",
        "blocks": [
            {"type": "reasoning", "text": "unsigned"},
            {"type": "reasoning", "text": "signed", "signature": "s"},
            text("I look."),
            CALL,
        ],
    },
    {"role": "user", "blocks": [text("Well?"), RESULT]},
    {"role": "assistant", "blocks": [{**CALL, "id": "c2"}]},
    {"role": "user", "blocks": [{**RESULT, "tool_call_id": "c2", "blocks": []}]},
    {"role": "assistant", "blocks": [image()]},
]


def test_conversation_for_openai():
    messages = to_openai_messages(CONVERSATION)
    roles = [message["role"] for message in messages]
    assert roles[:6] == ["system", "user", "assistant", "tool", "user", "user"]
    assert roles[6:] == ["assistant", "tool", "assistant"]
    assert messages[0]["content"] == "Be brief.\n\n[image: image/gif, 10x20]"
    assert messages[2]["content"] == "I look."
    assert messages[2]["reasoning_content"] == "unsigned\n\nsigned"
    (call,) = messages[2]["tool_calls"]
    assert call["id"] == messages[3]["tool_call_id"] == "c1"
    assert json.loads(call["function"]["arguments"]) == {"a": 1}
    assert messages[4]["content"] == [HEADING, OPENAI_IMAGE]
    assert messages[5]["content"] == "Well?"
    assert messages[6]["content"] is None
    assert messages[8] == {"role": "assistant", "content": "[image: image/gif, 10x20]"}


def test_conversation_for_a_chat_template():
    told = to_template_messages(to_openai_messages(CONVERSATION))
    call = told[2]["tool_calls"][0]["function"]
    assert (call["arguments"], told[3]["name"]) == ({"a": 1}, call["name"])
    assert told[6]["content"] == ""
    assert told[0] == to_openai_messages(CONVERSATION)[0]
    odd = {"id": "x", "type": "function", "function": {"name": "a", "arguments": "{"}}
    said = {"role": "assistant", "content": "", "tool_calls": [odd]}
    assert to_template_messages([said]) == [said]


def test_conversation_for_a_template_without_tools():
    told = [with_calls_as_text(one) for one in to_openai_messages(CONVERSATION)]
    name = provider_tool_name("look.at")
    call = json.dumps({"name": name, "arguments": {"a": 1}})
    assert told[2] == {
        "role": "assistant",
        "content": f"I look.\n<tool_call>\n{call}\n</tool_call>",
    }
    assert parse_action(told[6]["content"]) == {"tool": name, "input": {"a": 1}}
    thought = {"role": "assistant", "content": "a", "reasoning_content": "b"}
    assert with_calls_as_text(thought) == {"role": "assistant", "content": "a"}


def test_conversation_for_anthropic():
    arguments = to_anthropic_messages(CONVERSATION)
    assert arguments["system"] == [text("Be brief.\n\n[image: image/gif, 10x20]")]
    messages = arguments["messages"]
    roles = [message["role"] for message in messages]
    assert roles == ["user", "assistant"] * 3
    thinking, said, call = messages[1]["content"]
    assert thinking == {"type": "thinking", "thinking": "signed", "signature": "s"}
    assert said == text("I look.")
    assert call["name"].startswith("look_at_")
    result, asked = messages[2]["content"]
    assert result["tool_use_id"] == call["id"] == "c1"
    assert result["is_error"] is True
    assert asked == text("Well?")
    assert messages[5]["content"] == [text("[image: image/gif, 10x20]")]


def test_empty_prompts():
    assert to_openai_messages([]) == [{"role": "user", "content": ""}]
    assert to_anthropic_messages([]) == {"messages": []}
    said_nothing: Any = [{"role": "assistant", "blocks": []}]
    assert to_openai_messages(said_nothing) == [{"role": "assistant", "content": ""}]


# JSON may escape half of a surrogate pair.
TEXT = st.text(st.characters(codec=None))
ODD = TEXT | st.none() | st.integers() | st.lists(st.integers(), max_size=2)
KINDS = st.sampled_from(
    ["text", "image", "audio", "reasoning", "tool_call", "tool_result", None]
)
BLOCKS = st.lists(
    st.fixed_dictionaries(
        {"type": KINDS},
        optional={
            "text": ODD,
            "data": ODD,
            "mimeType": st.sampled_from(["image/png", "x", None]),
            "signature": ODD,
            "id": ODD,
            "tool_call_id": ODD,
            "name": ODD,
            "input": st.dictionaries(TEXT, TEXT) | ODD,
            "blocks": st.lists(st.just({"type": "text", "text": "a"}) | ODD) | ODD,
            "role": st.just("user") | ODD,
        },
    ),
    max_size=5,
)
ROLES = st.sampled_from(["system", "user", "assistant"])
PROMPTS = BLOCKS | st.lists(
    st.fixed_dictionaries({"role": ROLES, "blocks": BLOCKS}), max_size=4
)


@hypothesis.given(PROMPTS)
def test_any_prompt_becomes_json_that_can_be_encoded(prompt):
    for messages in (to_openai_messages(prompt), to_anthropic_messages(prompt)):
        json.dumps(messages, allow_nan=False, ensure_ascii=False).encode()


def test_a_block_that_has_a_role_is_a_block():
    block: Any = {"type": "text", "text": "Hi", "role": "user"}
    assert to_openai_messages([block]) == [{"role": "user", "content": "Hi"}]
    (said,) = to_anthropic_messages([block])["messages"]
    assert said["content"] == [text("Hi")]


def test_what_a_server_wrote_into_a_result_is_shown():
    call = {"type": "tool_call", "id": 7, "name": "look", "input": "north"}
    result = {"type": "tool_result", "tool_call_id": 7, "blocks": ["wall", {"n": 1}]}
    (said,) = to_openai_messages([{"role": "assistant", "blocks": [call]}])
    (sent,) = said["tool_calls"]
    assert sent["function"]["arguments"] == '{"input": "north"}'
    (answer,) = to_openai_messages([{"role": "user", "blocks": [result]}])
    assert answer["tool_call_id"] == sent["id"] == "7"
    assert answer["content"].startswith("wall")


def test_mcp_content_is_text_and_images():
    mislabelled = {"type": "image", "data": DATA, "mimeType": "image/jpeg"}
    unlabelled = {"type": "image", "data": "AAAA"}
    assert to_mcp_content(
        [{"type": "text", "text": "a\ud800"}, mislabelled, unlabelled, {"type": "film"}]
    ) == [
        {"type": "text", "text": "a\ufffd"},
        {"type": "image", "data": DATA, "mimeType": "image/gif"},
        {"type": "text", "text": "[image: unknown type]"},
        {"type": "text", "text": "[film: {}]"},
    ]
