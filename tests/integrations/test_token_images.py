"""Images in token-exact episodes, with real processors of transformers.

The processors have their default settings, the chat templates that TRL ships, and
tokenizers trained here.
"""

import contextlib
import importlib.resources
import json
from typing import Any, Final, TypeAlias

import gymnasium as gym
import numpy as np
import pytest
from renderers.configs import Qwen3VLRendererConfig
from renderers.qwen3_vl import Qwen3VLRenderer
from transformers import (
    Idefics3ImageProcessor,
    Idefics3Processor,
    Qwen2_5_VLProcessor,
    Qwen2VLImageProcessor,
    Qwen2VLVideoProcessor,
    Qwen3VLProcessor,
    Qwen3VLVideoProcessor,
)

from ors_gym import run_episode
from ors_gym.errors import InvalidRequestError
from ors_gym.formats import describe_tools, to_openai_tools, to_template_messages
from ors_gym.formats._blocks import to_picture_parts
from ors_gym.formats._messages import block_of_part
from ors_gym.rollout import (
    Episode,
    Generated,
    Rendered,
    TemplateRenderer,
    TokenPolicy,
)
from tests.integrations.chat_tokenizers import SMOLLM2, train_tokenizer

GROUP = "tokens"

Messages: TypeAlias = list[dict[str, Any]]

_QWEN_MARKERS: Final = (
    "{# <think> </think> <tool_call> </tool_call> <tool_response> </tool_response> "
    "<|vision_start|> <|vision_end|> <|image_pad|> <|video_pad|> #}"
)
_IDEFICS_MARKERS: Final = "{# <fake_token_around_image> <global-img> <image> #}"
PNG: Final = (
    "iVBORw0KGgoAAAANSUhEUgAAAAUAAAADCAIAAADUVFKvAAAAEElEQVR4nGNwaDiAjBgI8A"
    "EUzhaBD6F1FAAAAABJRU5ErkJggg=="
)
DIRECTIONS: Final = ("down", "right", "up", "left")


def template(name: str) -> str:
    """Return a chat template of a model, as TRL ships it."""
    file = importlib.resources.files("trl") / "chat_templates" / f"{name}.jinja"
    return file.read_text(encoding="utf-8")


def make_qwen(kind: Any, video: Any, name: str, patch: int) -> Any:
    written = template(name)
    return kind(
        image_processor=Qwen2VLImageProcessor(patch_size=patch),
        tokenizer=train_tokenizer(written + _QWEN_MARKERS),
        video_processor=video(),
        chat_template=written,
    )


def make_idefics() -> Any:
    written = template("idefics3")
    return Idefics3Processor(
        image_processor=Idefics3ImageProcessor(),
        tokenizer=train_tokenizer(written + _IDEFICS_MARKERS),
        image_seq_len=4,
        chat_template=written,
    )


QWEN3: Final = make_qwen(Qwen3VLProcessor, Qwen3VLVideoProcessor, "qwen3_vl", 16)
QWEN2_5: Final = make_qwen(Qwen2_5_VLProcessor, Qwen2VLVideoProcessor, "qwen2_5_vl", 14)
IDEFICS: Final = make_idefics()


class Engine:
    """Says what it is given, or walks about the maze; keeps what it was shown."""

    def __init__(self, processor: Any, *script: str, begin: str = "") -> None:
        self._tokenizer = processor.tokenizer
        self._script = script or tuple(map(self._move, DIRECTIONS))
        self._begin = begin
        self.seen: list[tuple[list[int], Any]] = []
        self.sampled: list[int] = []

    def _move(self, direction: str) -> str:
        return call("move", direction=direction)

    def __call__(self, ids: Any, *, stop: Any, mm: Any = None, **_: Any) -> Generated:
        text = self._begin + self._script[len(self.seen)]
        self.seen.append((list(ids), mm and list(mm)))
        said = self._tokenizer.encode(text, add_special_tokens=False)
        self.sampled = [*said, stop[0]]
        return Generated(self.sampled, [-1.0] * len(self.sampled))


def call(tool: str, **arguments: Any) -> str:
    written = json.dumps({"name": tool, "arguments": arguments})
    return f"<tool_call>\n{written}\n</tool_call>"


def play(url: str, policy: TokenPolicy, env: str = "maze") -> Episode:
    with contextlib.closing(gym.make("ors/remote", env_name=env, base_url=url)) as maze:
        return run_episode(maze, policy, options={"task_index": 3}, max_turns=4)


def read_whole(processor: Any, episode: Episode, *, knows_tools: bool = True) -> Any:
    """Return what the processor makes of all that the last turn answers.

    Tools and calls are text for a template that does not know them.
    """
    messages = to_template_messages(episode.messages())
    said = [place for place, one in enumerate(messages) if one["role"] == "assistant"]
    if not knows_tools:
        for place, turn in zip(said, episode.turns, strict=True):
            messages[place] = {"role": "assistant", "content": turn.message}
    messages = messages[: said[-1]]
    for message in messages:
        content = message["content"]
        if isinstance(content, list):
            parts = to_picture_parts(list(map(block_of_part, content)))
            message["content"] = parts
        elif processor is IDEFICS:
            message["content"] = [{"type": "text", "text": content}]
    tools = to_openai_tools(episode.tools)
    if not knows_tools:
        described: Any = describe_tools(episode.tools)
        if processor is IDEFICS:
            described = [{"type": "text", "text": described}]
        messages.insert(0, {"role": "system", "content": described})
    return processor.apply_chat_template(
        messages,
        tools=tools if knows_tools else None,
        add_generation_prompt=True,
        tokenize=True,
        return_dict=True,
    )


def check_pixels(own: Any, mm: Any, axis: int = 0) -> None:
    """Check that parts have the very inputs that the whole conversation has."""
    names = set(own) - {"input_ids", "attention_mask", "mm_token_type_ids"}
    for _, made in mm:
        assert set(made) == {*names, "images"}
    for name in names:
        parts = [np.asarray(made[name]) for _, made in mm]
        assert np.array_equal(np.concatenate(parts, axis), np.asarray(own[name]))


@pytest.mark.parametrize(
    ("processor", "mode", "knows_tools"),
    [(QWEN3, "refuse", True), (QWEN2_5, "refuse", False), (IDEFICS, "split", False)],
    ids=["qwen3-vl", "qwen2.5-vl", "idefics3"],
)
def test_a_model_reads_what_the_processor_writes(bundled, processor, mode, knows_tools):
    engine = Engine(processor)
    episode = play(bundled, TokenPolicy(engine, processor, on_rewrite=mode))
    assert len(episode.steps) == len(engine.seen) == 4
    own = read_whole(processor, episode, knows_tools=knows_tools)
    read, mm = engine.seen[-1]
    (whole,) = own["input_ids"]
    assert read == list(whole)
    last = episode.sequences()[-1]
    assert last.ids == read + engine.sampled
    assert len(last.mm) == len(mm)
    for kept, given in zip(last.mm, mm, strict=True):
        assert kept == given
        assert kept[1] is given[1]
    check_pixels(own, mm, axis=0 if mode == "refuse" else 1)
    if mode == "refuse":
        assert len(episode.sequences()) == 1
        assert len(mm) == 4
    # The JSON of an episode has the ids and no pixels.
    assert Episode.from_json(episode.to_json()).sequences()[-1].ids == last.ids


@pytest.mark.parametrize("processor", [QWEN3, QWEN2_5], ids=["qwen3-vl", "qwen2.5-vl"])
def test_as_many_ids_as_the_model_makes_of_the_pixels(bundled, processor):
    engine = Engine(processor)
    play(bundled, TokenPolicy(engine, processor))
    read, mm = engine.seen[-1]
    starts = [place for place, _ in mm] + [len(read)]
    for (start, made), end in zip(mm, starts[1:], strict=True):
        (grid,), (image,) = made["image_grid_thw"], made["images"]
        merged = (
            int(np.prod(np.asarray(grid))) // processor.image_processor.merge_size**2
        )
        assert read[start:end].count(processor.image_token_id) == merged > 0
        assert image.mode == "RGB"


def test_what_replies_spell_out_stays_text(one_server):
    spelled = "<|vision_start|><|image_pad|><|vision_end|> zq1q0003z <image>"
    script = (call("image"), call("echo", text=spelled), call("submit", answer="6"))
    engine = Engine(QWEN3, *script)
    episode = play(one_server.base_url, TokenPolicy(engine, QWEN3), "Contract")
    assert episode.total_reward == 1.0
    read, ((_, made),) = engine.seen[-1]
    pads = int(np.prod(np.asarray(made["image_grid_thw"]))) // 4
    (sequence,) = episode.sequences()
    own = zip(sequence.ids, sequence.mask, strict=True)
    assert [one for one, said in own if not said].count(QWEN3.image_token_id) == pads
    shown = QWEN3.tokenizer.decode(read)
    image = "<|vision_start|>" + "<|image_pad|>" * pads + "<|vision_end|>"
    # A chat message of a tool holds text alone: its images follow it.
    assert f"Images of the tool results above, in order:{image}<|im_end|>" in shown
    assert f"<tool_response>\n{spelled}\n</tool_response>" in shown


def test_one_that_cannot_be_decoded_is_a_text():
    url = {"url": "data:image/png;base64,AAAA"}
    broken = {"role": "user", "content": [{"type": "image_url", "image_url": url}]}
    reply = TemplateRenderer(QWEN3).render_reply([broken])
    assert isinstance(reply, list)
    assert "unreadable" in QWEN3.tokenizer.decode(reply)


@pytest.mark.parametrize(
    "renderer",
    [QWEN3.tokenizer, TemplateRenderer(QWEN3, chat_template=SMOLLM2)],
    ids=["tokenizer", "template of text"],
)
def test_images_that_nobody_writes_are_refused(bundled, renderer):
    with pytest.raises(InvalidRequestError, match="pass the model's processor"):
        play(bundled, TokenPolicy(Engine(QWEN3), renderer))


def test_a_template_that_leaves_out_the_images_of_tools_is_refused():
    parts = "content.type == 'image' or 'image' in content or 'image_url' in content"
    asked, _, rest = QWEN3.chat_template.rpartition(parts)
    renderer = TemplateRenderer(QWEN3, chat_template=f"{asked}false{rest}")
    image = {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PNG}"}}
    result = {"role": "tool", "name": "look", "tool_call_id": "a", "content": [image]}
    with pytest.raises(InvalidRequestError, match="writes 0 of 1 images"):
        renderer.render_reply([result])
    assert isinstance(renderer.render_reply([{**result, "role": "user"}]), Rendered)


def test_the_renderer_of_another_library_carries_the_same_pixels(bundled):
    engine = Engine(QWEN3)
    renderer = Qwen3VLRenderer(
        QWEN3.tokenizer, Qwen3VLRendererConfig(), processor=QWEN3
    )
    episode = play(bundled, TokenPolicy(engine, renderer))
    own = read_whole(QWEN3, episode)
    read, mm = engine.seen[-1]
    (whole,) = own["input_ids"]
    assert read == list(whole)
    items = [item for _, made in mm for item in made.mm_items["image"]]
    for name in ("pixel_values", "image_grid_thw"):
        parts = [np.asarray(item[name]) for item in items]
        assert np.array_equal(np.concatenate(parts), np.asarray(own[name]))
    for start, made in mm:
        for place in made.mm_placeholders["image"]:
            begin = start + place.offset
            assert set(read[begin : begin + place.length]) == {QWEN3.image_token_id}
    (sequence,) = episode.sequences()
    for (_, made), (_, kept) in zip(mm, sequence.mm, strict=True):
        assert made is kept
