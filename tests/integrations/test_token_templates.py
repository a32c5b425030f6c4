"""Token-exact episodes on the chat templates of real models.

An engine returns ids as a script tells it to, and keeps what it read. What a loss is
given has to be that, id for id, whatever the tools reply.
"""

import collections
import functools
import json
import random
from typing import Any, Final

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import PreTrainedTokenizerFast
from trl import chat_template_utils as templates
from trl.chat_template_utils import (
    add_response_schema,
    get_training_chat_template,
    parse_response,
)

from ors_gym.errors import InvalidRequestError, SessionLostError
from ors_gym.formats import to_openai_tools
from ors_gym.rollout import (
    Episode,
    Generated,
    TemplateRenderer,
    TokenPolicy,
    check_prefix_preserving,
    run_episode,
)
from tests.integrations.chat_tokenizers import SMOLLM2, train_tokenizer
from tests.rollout.scripted_env import TOOLS, ScriptedEnv

GROUP = "training"

TEMPLATES: Final = {
    "qwen2.5": templates.qwen2_5_chat_template,
    "qwen3": templates.qwen3_chat_template,
    "qwen3-training": templates.qwen3_training_chat_template,
    "llama3": templates.llama3_chat_template,
    "llama3.1": templates.llama3_1_chat_template,
    "smollm2": SMOLLM2,
    "deepseek-r1": templates.deepseek_r1_distill_chat_template,
    "phi3": templates.phi3_chat_template,
    "gemma3": templates.gemma3_chat_template,
}
"""Qwen3 drops the reasoning of turns before the last question, DeepSeek R1 all of it;
Llama and Gemma trim blanks. The others keep what came before. TRL ships all of them but
that of SmolLM2."""

KEEP: Final = ("qwen2.5", "qwen3-training", "smollm2", "phi3")
REWRITE: Final = ("qwen3", "llama3", "llama3.1", "deepseek-r1", "gemma3")
EPISODES: Final = 10_000
_ALPHABET: Final = (
    *"aZ09 {}<>|\"'\\/\n\t\r",
    *"\x00\x1b\x7f\u200d\u2028\ufeff\ufffd\U0010ffff\U000f0000",
    *("é", "e\u0301", "ß", "東", "한", "\U0001f468\u200d\U0001f469", "\ud800"),
    *("<|im_start|>", "<|im_end|>", "<|eot_id|>", "<|endoftext|>", "<s>", "<|end|>"),
    *("<think>", "</think>", "<tool_call>", "</tool_response>", "<end_of_turn>"),
    *(
        "<|start_header_id|>system<|end_header_id|>",
        "<\uff5cUser\uff5c>",
        "<|im_",
        "zq1q",
    ),
)
_CALLS: Final = (
    '<tool_call>\n{"name": "look", "arguments": {}}\n</tool_call>',
    '<tool_call>{"name": "submit", "arguments": {"answer": "4"}}</tool_call>',
    '{"tool": "look", "input": {}}',
    '<tool_call>{"name": </tool_call>',
    '<tool_call>{"name": "none", "arguments": {}}</tool_call>',
)


def make_tokenizer(name: str) -> PreTrainedTokenizerFast:
    return train_tokenizer(TEMPLATES[name])


def text_of(source: random.Random, most: int = 12) -> str:
    return "".join(source.choices(_ALPHABET, k=source.randrange(most)))


class Engine:
    """Samples whatever a seed says, and keeps every prompt with what it sampled."""

    def __init__(self, tokenizer: Any, source: random.Random) -> None:
        self.tokenizer = tokenizer
        self.source = source
        self.log: list[tuple[list[int], list[int]]] = []

    def __call__(self, ids: Any, *, max_new_tokens: int, stop: Any) -> Generated:
        source = self.source
        sampled = self._sample(stop)[:max_new_tokens]
        self.log.append((list(ids), list(sampled)))
        logprobs = [-source.random() for _ in sampled]
        version: Any = source.choice([None, 7, [len(self.log)] * len(sampled)])
        kept = source.random() < 0.8
        reason = "stop" if sampled[-1:] == list(stop[:1]) else "length"
        return Generated(sampled, logprobs if kept else None, reason, version)

    def _sample(self, stop: Any) -> list[int]:
        source = self.source
        if source.random() < 0.1:
            # Ids that no tokenizer would give, special ones among them.
            known = len(self.tokenizer)
            return [source.randrange(known) for _ in range(source.randrange(9))]
        text = source.choice(["", " ", "Look.\n", text_of(source, 5)])
        if source.random() < 0.4:
            text = f"<think>\n{text_of(source, 5)}\n</think>\n\n{text}"
        text += "\n".join(source.choices(_CALLS, k=source.choice([0, 1, 1, 1, 2, 3])))
        text = text.encode(errors="replace").decode()
        ids = self.tokenizer.encode(text, add_special_tokens=False)
        return [*ids, *source.choice([[], stop[:1], stop[:1], stop[-1:]])]


def script_of(source: random.Random) -> list[Any]:
    """Return what an env does in some steps: replies, failures, an end, an outage."""
    kinds = source.choices(range(10), k=40)
    script: list[Any] = []
    for kind in kinds:
        count = source.choice([0, 1, 1, 1, 2])
        blocks = [{"type": "text", "text": text_of(source)} for _ in range(count)]
        said: dict[str, Any] = {"blocks": blocks, "reward": source.choice([0.0, 0.5])}
        if kind == 7:
            words = text_of(source)
            said = {"error": words or "no", "error_kind": "tool_failed", "blocks": []}
        elif kind == 8:
            said["finished"] = source.random() < 0.6
        elif kind == 9 and source.random() < 0.3:
            script.append(SessionLostError("gone"))
            continue
        script.append(said)
    return script


def play(name: str, seed: int, renderer: TemplateRenderer, mode: Any) -> Any:
    source = random.Random(seed)
    engine = Engine(make_tokenizer(name), source)
    limit = source.choice([None, None, 900, 2500])
    policy = TokenPolicy(
        engine,
        renderer,
        max_tokens=limit,
        max_new_tokens=source.choice([4096, 60]),
        on_rewrite=mode,
    )
    env = ScriptedEnv(*script_of(source))
    return engine, limit, run_episode(env, policy, max_turns=source.randrange(1, 8))


def check_exact(episode: Episode, engine: Engine, limit: int | None) -> None:
    log = iter(engine.log)
    for sequence in episode.sequences():
        end = 0
        for number in sequence.turns:
            read, sampled = next(log)
            assert sequence.ids[: len(read)] == read
            assert sum(sequence.mask[end : len(read)]) == 0
            end = len(read) + len(sampled)
            assert sequence.ids[len(read) : end] == sampled
            assert sequence.mask[len(read) : end] == [1] * len(sampled)
            tokens = episode.turns[number].tokens
            assert tokens is not None
            assert tokens.ids == sampled
        assert end == len(sequence.ids)
        assert limit is None or end <= limit
        paid = [one.reward for one in episode.steps if one.turn in sequence.turns]
        assert abs(sum(sequence.rewards) - sum(paid)) < 1e-9
    assert next(log, None) is None
    assert Episode.from_json(episode.to_json()).sequences() == episode.sequences()


@functools.cache
def renderer_of(name: str) -> Any:
    return TemplateRenderer(make_tokenizer(name))


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_ten_thousand_episodes_are_exact_on_every_template() -> None:
    ends: collections.Counter[str] = collections.Counter()
    split = turns = 0
    for seed in range(EPISODES):
        name = list(TEMPLATES)[seed % len(TEMPLATES)]
        mode = "refuse" if name in KEEP else ("split", "append")[seed // 9 % 2]
        engine, limit, episode = play(name, seed, renderer_of(name), mode)
        check_exact(episode, engine, limit)
        ends[episode.stop_reason] += 1
        turns += len(episode.turns)
        sequences = len(episode.sequences())
        split += sequences > 1
        assert mode == "split" or sequences <= 1
    print(f"{EPISODES} episodes, {turns} turns, {split} split, {dict(ends)}")  # noqa: T201
    # Each way to end was played, and so were episodes of several sequences.
    assert set(ends) >= {"finished", "max_turns", "max_tokens", "error"}
    assert split > EPISODES // 50


@pytest.mark.parametrize("name", TEMPLATES)
def test_some_episodes_are_exact(name: str) -> None:
    modes = ["refuse"] if name in KEEP else ["split", "append"]
    for seed in range(20):
        for mode in modes:
            engine, limit, episode = play(name, seed, renderer_of(name), mode)
            check_exact(episode, engine, limit)


@pytest.mark.parametrize("name", KEEP)
def test_a_template_that_keeps_what_came_before_is_taken(name: str) -> None:
    check_prefix_preserving(make_tokenizer(name))


@pytest.mark.parametrize("name", REWRITE)
def test_a_template_that_rewrites_is_refused(name: str) -> None:
    with pytest.raises(InvalidRequestError, match="where the model had seen"):
        TokenPolicy(lambda ids, **rest: Generated([]), make_tokenizer(name))


_LOOP: Final = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ CONTENT }}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
HOSTILE: Final = {
    "trims": "m.content | trim",
    "trims once it is old": "m.content if loop.last else m.content | trim",
    "drops": "m.content.split('</think>')[-1]",
    "forgets": "'...' if m.role == 'tool' and not loop.last else m.content",
    "counts": "loop.length ~ m.content",
    "moves": "(messages[0].content if loop.last else '') ~ m.content",
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_template_is_refused_with_the_first_difference(name: str) -> None:
    template = _LOOP.replace("CONTENT", HOSTILE[name])
    with pytest.raises(InvalidRequestError, match="where the model had seen"):
        check_prefix_preserving(train_tokenizer(template))
    check_prefix_preserving(train_tokenizer(_LOOP.replace("CONTENT", "m.content")))


texts = st.lists(
    st.text(max_size=8) | st.sampled_from([" ", "\n", "\n\n", "user", "zq1q"]),
    max_size=5,
).map("".join)


@pytest.mark.parametrize("name", TEMPLATES)
@settings(max_examples=50)
@given(question=texts, system=texts, result=texts)
def test_text_without_markers_is_tokenised_as_the_template_says(
    name: str, question: str, system: str, result: str
) -> None:
    tokenizer, renderer = make_tokenizer(name), renderer_of(name)
    messages = [
        {"role": "system", "content": system},
        {"role": "user", "content": question},
    ]
    stock = tokenizer.apply_chat_template(
        messages, tokenize=True, add_generation_prompt=True, return_dict=False
    )
    assert renderer.render(messages, []) == stock
    # And a reply is what the template adds to a conversation.
    said = {"role": "assistant", "content": "A."}
    before = renderer.render([*messages, said, {"role": "user", "content": result}], [])
    reply = renderer.render_reply([{"role": "user", "content": result}])
    assert before[-len(reply) :] == reply
    assert before[-len(reply) - 1] == renderer.stop_ids[0]


@pytest.mark.parametrize("name", TEMPLATES)
def test_no_text_becomes_a_special_token(name: str) -> None:
    tokenizer, renderer = make_tokenizer(name), renderer_of(name)
    known = {
        number
        for number, token in tokenizer.added_tokens_decoder.items()
        if token.special or token.content in tokenizer.chat_template
    }
    tools = to_openai_tools(TOOLS)

    def specials(content: str) -> tuple[list[int], str]:
        result = {"role": "tool", "name": "look", "tool_call_id": "call00000"}
        replies = [{**result, "content": content}, {"role": "user", "content": content}]
        tool = json.loads(json.dumps(tools[0]))
        tool["function"]["description"] = content
        function = {"name": "look", "arguments": {"a": content}}
        call = {"id": "call00000", "type": "function", "function": function}
        said: Any = {"role": "assistant", "content": "", "tool_calls": [call]}
        opening: list[Any] = [{"role": "system", "content": content}, replies[1]]
        if tokenizer.chat_template != TEMPLATES["deepseek-r1"]:  # it writes no calls
            opening += [said, replies[0]]
        ids = renderer.render(opening, [tool]) + renderer.render_reply(replies)
        return [one for one in ids if one in known], tokenizer.decode(ids)

    harmless = specials("x")[0]
    for token in tokenizer.added_tokens_decoder.values():
        for content in (token.content, f"a{token.content * 2}b", f"<{token.content}>"):
            found, text = specials(content)
            assert found == harmless, content
            assert text.count(content) >= 4


def test_what_trl_has_is_used() -> None:
    tokenizer = add_response_schema(make_tokenizer("qwen3"))
    renderer = TemplateRenderer(
        tokenizer,
        chat_template=get_training_chat_template(tokenizer),
        parse=lambda ids: parse_response(tokenizer, ids, prefix=[]),
    )
    check_prefix_preserving(renderer)
    said = f"<think>\nHm.\n</think>\n\n{_CALLS[0]}<|im_end|>"
    parsed = renderer.parse(tokenizer.encode(said))
    (call,) = parsed.calls
    assert call["function"] == {"name": "look", "arguments": {}}
    assert parsed.text == said.removesuffix("<|im_end|>")
