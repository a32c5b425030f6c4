"""Renderers of the ``renderers`` package and of tinker-cookbook, in a policy."""

import dataclasses
import re
from typing import Any, Final

import pytest
from hypothesis import given
from hypothesis import strategies as st
from renderers.base import MultiModalData, PlaceholderRange
from renderers.configs import (
    GLM45RendererConfig,
    Llama3RendererConfig,
    Qwen3RendererConfig,
)
from renderers.glm45 import GLM45Renderer
from renderers.llama_3 import Llama3Renderer as Llama3BridgingRenderer
from renderers.qwen3 import Qwen3Renderer
from tinker_cookbook.renderers.glm5_3 import Glm5_3Renderer
from tinker_cookbook.renderers.gpt_oss import GptOssRenderer
from tinker_cookbook.renderers.llama3 import Llama3Renderer
from tinker_cookbook.renderers.qwen3 import Qwen3Renderer as CookbookQwen3Renderer

from ors_gym.errors import InvalidRequestError
from ors_gym.formats import to_openai_tools
from ors_gym.rollout import (
    Episode,
    Generated,
    Rendered,
    TokenPolicy,
    as_renderer,
    check_prefix_preserving,
    run_episode,
)
from tests.integrations.chat_tokenizers import SMOLLM2, train_tokenizer
from tests.rollout.scripted_env import TOOLS, ScriptedEnv

GROUP = "agents"

_MARKERS: Final = (
    "{# <think> </think> <tool_call> </tool_call> <tool_response> </tool_response> "
    "<|begin_of_text|> <|start_header_id|> <|end_header_id|> <|eot_id|> <|eom_id|> "
    "<|end_of_text|> <|python_tag|> [gMASK] <sop> <|system|> <|user|> "
    "<|assistant|> <|observation|> <arg_key> </arg_key> <arg_value> </arg_value> "
    "<|start|> <|message|> <|end|> <|channel|> <|return|> <|call|> <|constrain|> #}"
)
TOKENIZER: Any = train_tokenizer(SMOLLM2 + _MARKERS)
CALL: Final = (
    '<tool_call>\n{"name": "submit", "arguments": {"answer": "4"}}\n</tool_call>'
)
SAID: Final = f"<think>\n2 + 2\n</think>\n\nSo:\n{CALL}"


def bridging(**options: Any) -> Any:
    return Qwen3Renderer(TOKENIZER, Qwen3RendererConfig(**options))


RENDERERS: Final = {
    "renderers, qwen3": bridging(thinking_retention="all"),
    "cookbook, qwen3": CookbookQwen3Renderer(
        TOKENIZER, strip_thinking_from_history=False
    ),
    "renderers, llama3": Llama3BridgingRenderer(
        TOKENIZER, Llama3RendererConfig(thinking_retention="all")
    ),
    "cookbook, llama3": Llama3Renderer(TOKENIZER),
    "renderers, glm45": GLM45Renderer(
        TOKENIZER, GLM45RendererConfig(thinking_retention="all")
    ),
    "cookbook, glm53": Glm5_3Renderer(TOKENIZER),
}
GLM_CALL: Final = (
    "<tool_call>submit{0}<arg_key>answer</arg_key>{0}<arg_value>four</arg_value>{0}"
    "</tool_call><|observation|>"
)


class Engine:
    def __init__(self, *script: str) -> None:
        self.script = list(script)
        self.log: list[tuple[list[int], list[int]]] = []

    def __call__(self, ids: Any, *, stop: Any, **_: Any) -> Generated:
        text = self.script.pop(0)
        sampled = TOKENIZER.encode(text, add_special_tokens=False)
        sampled += stop[:1] if sampled[-1] not in stop else []
        self.log.append((list(ids), sampled))
        return Generated(sampled, [-1.0] * len(sampled))


def check_exact(episode: Episode, engine: Engine) -> None:
    log = iter(engine.log)
    for sequence in episode.sequences():
        for _ in sequence.turns:
            read, sampled = next(log)
            end = len(read) + len(sampled)
            assert sequence.ids[:end] == read + sampled
            assert sequence.mask[len(read) : end] == [1] * len(sampled)
    assert next(log, None) is None


@pytest.mark.parametrize("name", RENDERERS)
def test_an_episode_is_exact_and_its_calls_are_read(name: str) -> None:
    check_prefix_preserving(RENDERERS[name])
    said = {
        "cookbook, llama3": CALL,
        "renderers, llama3": '{"name": "submit", "parameters": {"answer": "4"}}',
        "renderers, glm45": f"\n<think>2 + 2</think>\n{GLM_CALL.format(chr(10))}",
        "cookbook, glm53": f"2 + 2</think>{GLM_CALL.format('')}",
    }.get(name, SAID)
    asked = "</think>Four?<|user|>" if "glm" in name else "Four?"
    engine = Engine(said, asked, said)
    env = ScriptedEnv({"reward": 0.5}, {}, {"reward": 1.0, "finished": True})
    episode = run_episode(env, TokenPolicy(engine, RENDERERS[name]))
    assert episode.stop_reason == "finished"
    calls = [step.input for step in episode.steps if step.tool]
    assert calls == [{"answer": "four" if "glm" in name else "4"}] * 2
    check_exact(episode, engine)
    assert len(episode.sequences()) == 1
    # What is appended is what the renderer writes of a whole conversation.
    text = TOKENIZER.decode(engine.log[-1][0])
    assert "reply" in text
    assert '"name": "submit"' in text
    # A role that the model sampled, as GLM does, is not written again.
    assert not re.search(r"<\|(user|observation)\|>\s*<\|(user|observation)\|>", text)


@pytest.mark.parametrize(
    "renderer",
    [
        bridging(),
        bridging(thinking_retention="tool_cycle"),
        CookbookQwen3Renderer(TOKENIZER),
    ],
)
def test_one_that_drops_reasoning_is_refused_or_splits(renderer: Any) -> None:
    with pytest.raises(InvalidRequestError, match="does not keep what came before"):
        check_prefix_preserving(renderer)
    engine = Engine(SAID, "Four?", SAID)
    env = ScriptedEnv({}, {}, {"finished": True})
    policy = TokenPolicy(engine, renderer, on_rewrite="split")
    episode = run_episode(env, policy)
    check_exact(episode, engine)
    assert len(episode.sequences()) > 1


@pytest.mark.parametrize("name", RENDERERS)
@given(
    st.lists(st.integers(0, len(TOKENIZER) - 1), max_size=12),
    st.integers(0, 2),
    st.lists(st.integers(0, len(TOKENIZER) - 1), max_size=3),
)
def test_whatever_was_sampled_is_read(
    name: str, ids: list[int], ends: int, beyond: list[int]
) -> None:
    renderer = as_renderer(RENDERERS[name])
    sampled = ids + [renderer.stop_ids[0]] * ends + beyond
    assert isinstance(renderer.parse(sampled).text, str)


def test_places_of_images_count_from_the_reply() -> None:
    class WithImages(Qwen3Renderer):  # type: ignore[misc]
        def bridge_to_next_turn(self, *arguments: Any, **options: Any) -> Any:
            bridged = super().bridge_to_next_turn(*arguments, **options)
            start = len(arguments[0]) + len(arguments[1])
            earlier, own = PlaceholderRange(3, 2), PlaceholderRange(start + 4, 9)
            places = {"image": [earlier, own]}
            data = MultiModalData({}, places, {"image": [{"pixel_values": 1}]})
            return dataclasses.replace(bridged, multi_modal_data=data)

    renderer = as_renderer(
        WithImages(TOKENIZER, Qwen3RendererConfig(thinking_retention="all"))
    )
    reply = renderer.render_reply([{"role": "user", "content": "Look."}])
    assert isinstance(reply, Rendered)
    assert TOKENIZER.decode(reply.ids).startswith("\n<|im_start|>user\nLook.")
    assert reply.mm.mm_placeholders == {"image": [PlaceholderRange(4, 9)]}
    image = [{"type": "image_url", "image_url": {"url": "data:image/png;base64,AA"}}]
    with pytest.raises(InvalidRequestError, match="holds an image"):
        as_renderer(RENDERERS["cookbook, qwen3"]).render_reply(
            [{"role": "user", "content": image}]
        )


def test_gpt_oss_is_played_by_splitting() -> None:
    renderer = GptOssRenderer(TOKENIZER)
    with pytest.raises(InvalidRequestError, match='on_rewrite="split"'):
        check_prefix_preserving(renderer)
    call = (
        "<|channel|>commentary to=functions.submit <|constrain|>json<|message|>"
        '{"answer": "4"}<|call|>'
    )
    engine = Engine(call, "<|channel|>final<|message|>Four?<|return|>", call)
    env = ScriptedEnv({"reward": 0.5}, {}, {"reward": 1.0, "finished": True})
    episode = run_episode(env, TokenPolicy(engine, renderer, on_rewrite="split"))
    assert [one.input for one in episode.steps if one.tool] == [{"answer": "4"}] * 2
    check_exact(episode, engine)


def test_calls_that_cannot_be_read_are_told_of() -> None:
    renderer = as_renderer(RENDERERS["renderers, qwen3"])
    encode = TOKENIZER.encode
    broken = '<tool_call>\n{"name": submit}\n</tool_call>'
    parsed = renderer.parse(encode(f"Look.\n{CALL}\n{broken}<|im_end|>"))
    assert len(parsed.calls) == 2
    assert renderer.parse(encode("plain")).calls == "plain"
    tools = to_openai_tools(TOOLS)
    prompt = renderer.render([{"role": "user", "content": "2 + 2?"}], tools)
    assert "submit" in TOKENIZER.decode(prompt)
