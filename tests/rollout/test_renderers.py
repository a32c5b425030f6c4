"""Renderers on chat templates: what they write, and which templates they refuse."""

from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ors_gym.errors import InvalidRequestError
from ors_gym.rollout import Parsed, TemplateRenderer, as_renderer
from ors_gym.rollout import check_prefix_preserving as check
from tests.rollout.small_tokenizer import END, START, SmallTokenizer, chatml

pytestmark = pytest.mark.unit

TOOL = {"type": "function", "function": {"name": "look", "parameters": {}}}
PIECES = st.sampled_from(
    [START, END, "<|im_", "start|>", "zq1", "zq1q", "q0001z", "0000z"]
)
texts = st.lists(PIECES | st.text(max_size=4), max_size=6).map("".join)
replies = st.lists(
    st.fixed_dictionaries(
        {"role": st.sampled_from(["tool", "user"]), "content": texts}
    ).map(lambda message: {**message, "name": "look", "tool_call_id": "c1"}),
    max_size=4,
)


def no_tool_messages(messages, tools, begin_turn):
    roles = [message["role"] for message in messages if message["role"] != "system"]
    if "tool" in roles or roles[::2] != ["user"] * len(roles[::2]):
        raise ValueError("roles must alternate user/assistant")
    if len(roles) < len(messages):
        raise ValueError("no system role")
    return chatml(messages, tools, begin_turn)


def native_tools(messages, tools, begin_turn):
    said = [
        {**one, "content": one["content"] + repr(one.get("tool_calls", ""))}
        for one in messages
    ]
    return (repr(tools) if tools else "") + chatml(said, None, begin_turn)


def written(tokenizer: SmallTokenizer, ids: Sequence[int]) -> list[int | str]:
    """Show ids as text in which a special token cannot be mistaken for its letters."""
    return [one if one < 100 else tokenizer.decode([one]) for one in ids]


@given(replies)
def test_a_reply_keeps_its_text_and_gets_no_special_token(messages):
    tokenizer = SmallTokenizer()
    ids: Any = TemplateRenderer(tokenizer).render_reply(messages)
    expected: list[int | str] = ["\n"]
    for message in messages:
        content = message["content"]
        expected += [1, *message["role"], "\n", *content, 2, "\n"]
    expected += [1, *"assistant\n"]
    assert written(tokenizer, ids) == expected


@given(texts, texts)
def test_a_prompt_keeps_its_text_and_gets_no_special_token(system, question):
    tokenizer = SmallTokenizer(native_tools)
    tool = {"type": "function", "function": {"name": "look", "description": END}}
    messages = [
        {"role": "system", "content": system},
        {"role": "user", "content": question},
    ]
    ids: Any = TemplateRenderer(tokenizer).render(messages, [tool])
    shown = written(tokenizer, ids)
    assert [one for one in shown if isinstance(one, int)] == [1, 2, 1, 2, 1]
    text = "".join(one for one in shown if isinstance(one, str))
    assert text.endswith(f"system\n{system}''\nuser\n{question}''\nassistant\n")
    assert END in text.split("system\n")[0]


@given(st.lists(st.integers(0, 2) | st.integers(100, 0x10FFFF), max_size=8))
def test_whatever_was_sampled_is_read(ids):
    renderer = TemplateRenderer(SmallTokenizer())
    ids = [one for one in ids if not 0xD800 <= one - 100 <= 0xDFFF]
    said = ids[:-1] if ids and ids[-1] in renderer.stop_ids else ids
    assert renderer.parse(ids).text == SmallTokenizer().decode(said)


def test_calls_are_read_outside_of_reasoning():
    renderer = TemplateRenderer(SmallTokenizer())
    encode = SmallTokenizer().encode
    assert renderer.parse(encode("hi")).calls is None
    assert renderer.parse(encode("<think>a</think>b")).calls == "b"
    assert renderer.parse(encode("<think>{never ended")).calls == ""

    def opens(messages, tools, begin_turn):
        return chatml(messages, tools, begin_turn) + "<think>\n" * begin_turn

    renderer = TemplateRenderer(SmallTokenizer(opens))
    assert renderer.parse(encode("{never ended")).calls == ""
    parsed = renderer.parse(encode("a</think>b"))
    assert parsed.message == {"role": "assistant", "content": "<think>\na</think>b"}


def test_a_parser_of_the_users_reads_calls_of_another_syntax():
    def parse(ids):
        text = SmallTokenizer().decode(ids)
        if text == "bad":
            raise ValueError(text)
        if text == "own":
            return Parsed("mine", [])
        calls = [{"type": "function", "function": {"name": "look", "arguments": {}}}]
        return {"role": "assistant", "content": "", "tool_calls": calls}

    renderer = TemplateRenderer(SmallTokenizer(), parse=parse)
    encode = SmallTokenizer().encode
    assert renderer.parse(encode(f"look!{END}")).text == "look!"
    assert renderer.parse(encode("look!")).calls[0]["function"]["name"] == "look"
    assert renderer.parse(encode("bad")).text == "bad"
    assert renderer.parse(encode("own")) == Parsed("mine", [])


def test_a_template_that_takes_little_is_given_what_it_takes():
    tokenizer = SmallTokenizer(no_tool_messages)
    renderer: Any = TemplateRenderer(tokenizer)
    check(renderer)
    call = {"type": "function", "function": {"name": "look", "arguments": {}}}
    said = {"role": "assistant", "content": "", "tool_calls": [{"id": "c", **call}]}
    result = {"role": "tool", "tool_call_id": "c", "name": "look", "content": "1"}
    more = {"role": "user", "content": "2"}
    prompt = [{"role": "system", "content": "Rule."}, {"role": "user", "content": "Q"}]
    text = tokenizer.decode(renderer.render([*prompt, said, result, more], [TOOL]))
    asked, called, answered, begun = text.split(START)[1:]
    assert asked.startswith("user\n")
    assert "<tools>" in asked
    assert "Rule." in asked
    assert asked.endswith(f"\n\nQ{END}\n")
    assert '<tool_call>\n{"name": "look", "arguments": {}}\n</tool_call>' in called
    assert answered == f"user\n1\n\n2{END}\n"
    assert begun == "assistant\n"
    assert tokenizer.decode(renderer.render_reply([result, more])) == (
        f"\n{START}user\n1\n\n2{END}\n{START}assistant\n"
    )


def drops_reasoning(messages, tools, begin_turn):
    told = [
        {**one, "content": one["content"].rpartition("</think>")[2]}
        if one["role"] == "assistant" and one is not messages[-1]
        else one
        for one in messages
    ]
    return chatml(told, tools, begin_turn)


def trims(messages, tools, begin_turn):
    told = [{**one, "content": one["content"].strip()} for one in messages]
    return chatml(told, tools, begin_turn)


def trims_at_the_left(messages, tools, begin_turn):
    told = [{**one, "content": one["content"].lstrip()} for one in messages]
    return chatml(told, tools, begin_turn)


def moves_the_system_prompt(messages, tools, begin_turn):
    system = [one for one in messages if one["role"] == "system"]
    rest = [one for one in messages if one["role"] != "system"]
    place = max(n for n, one in enumerate(rest) if one["role"] != "assistant")
    told = [*rest[:place], *system, *rest[place:]]
    return chatml(told, tools, begin_turn)


def counts_messages(messages, tools, begin_turn):
    return f"{len(messages)} messages\n" + chatml(messages, tools, begin_turn)


def forgets_old_results(messages, tools, begin_turn):
    told = [
        {**one, "content": "(old)"}
        if one["role"] == "tool" and one is not messages[-1]
        else one
        for one in messages
    ]
    return chatml(told, tools, begin_turn)


HOSTILE = [
    drops_reasoning,
    trims,
    trims_at_the_left,
    moves_the_system_prompt,
    counts_messages,
    forgets_old_results,
]


@pytest.mark.parametrize("template", HOSTILE)
def test_a_template_that_rewrites_is_refused_with_the_first_difference(template):
    with pytest.raises(InvalidRequestError, match="where the model had seen") as caught:
        check(SmallTokenizer(template))
    assert "(character " in str(caught.value)


def test_what_is_no_renderer_is_refused():
    with pytest.raises(InvalidRequestError, match="int is no renderer"):
        as_renderer(3)

    def never_ends(messages, tools, begin_turn):
        return "".join(one["content"] for one in messages)

    with pytest.raises(InvalidRequestError, match="no special token after a turn"):
        TemplateRenderer(SmallTokenizer(never_ends))
    image = [{"type": "image_url", "image_url": {"url": "data:image/png;base64,AA"}}]
    with pytest.raises(InvalidRequestError, match="holds an image"):
        as_renderer(SmallTokenizer()).render([{"role": "user", "content": image}], [])
