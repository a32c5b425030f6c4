"""Renderers of other libraries: the ``renderers`` package and tinker-cookbook."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, Final

from ors_gym.formats import describe_tools
from ors_gym.formats._messages import join_system_messages, with_calls_as_text
from ors_gym.rollout._renderers import (
    Messages,
    Parsed,
    Rendered,
    Renderer,
    with_plain_content,
)
from ors_gym.types import JSONObject

_USER: Final[JSONObject] = {"role": "user", "content": "Question?"}
_SAID: Final[JSONObject] = {
    "role": "assistant",
    "content": "An answer.",
    "reasoning_content": "A thought.",
}
_RESULT: Final[JSONObject] = {
    "role": "tool",
    "name": "a_tool",
    "tool_call_id": "call00000",
    "content": "A result.",
}


def adapt(renderer: Any) -> Renderer:
    """Return what `TokenPolicy` takes, for a renderer of another library."""
    if hasattr(renderer, "bridge_to_next_turn"):
        return BridgingRenderer(renderer)
    return CookbookRenderer(renderer)


class BridgingRenderer:
    """A renderer of the ``renderers`` package, on its ``bridge_to_next_turn``."""

    def __init__(self, renderer: Any) -> None:
        self._renderer = renderer
        self._prompt = renderer.render_ids([_USER], add_generation_prompt=True)
        ids = renderer.render_ids([_USER, _SAID])[len(self._prompt) :]
        stops = list(renderer.get_stop_token_ids())
        ends = [place for place, number in enumerate(ids) if number in stops]
        # GLM's turns end with the beginning of the next message, or with this one.
        self._said = ids[: ends[-1] + 1] if ends else [*ids, stops[0]]
        self.stop_ids = list(dict.fromkeys([self._said[-1], *stops]))

    def render(
        self, messages: Messages, tools: Sequence[JSONObject]
    ) -> list[int] | Rendered:
        rendered = self._renderer.render(
            list(messages), tools=list(tools) or None, add_generation_prompt=True
        )
        return _with_inputs(rendered, 0)

    def render_reply(self, messages: Messages) -> list[int] | Rendered | None:
        bridged = self._renderer.bridge_to_next_turn(
            list(self._prompt), list(self._said), list(messages)
        )
        if bridged is None:
            return None
        return _with_inputs(bridged, len(self._prompt) + len(self._said))

    def parse(self, ids: Sequence[int]) -> Parsed:
        parsed = self._renderer.parse_response(list(ids))
        calls: list[Any] = []
        for call in parsed.tool_calls:
            # GLM writes texts without quotes, which are no JSON.
            if call.status == "ok" or (
                call.status == "invalid_json" and call.arguments
            ):
                calls.append({"name": call.name, "arguments": call.arguments or {}})
            else:
                # Read again by our parser, which tells the model what is wrong.
                calls.append(call.raw)
        message = {"role": "assistant", "content": parsed.content}
        text = parsed.content
        if parsed.reasoning_content:
            message["reasoning_content"] = parsed.reasoning_content
            text = f"<think>\n{parsed.reasoning_content}\n</think>\n\n{text}"
        if calls:
            message["tool_calls"] = [
                {"type": "function", "function": call}
                for call in calls
                if isinstance(call, Mapping)
            ]
        return Parsed(text, calls or parsed.content, message)

    def find_rewrite(
        self, messages: Messages | None = None, tools: Sequence[JSONObject] = ()
    ) -> str | None:
        del tools
        asked = [[_RESULT], [_USER]] if messages is None else []
        for reply in asked:
            if self.render_reply(reply) is None:
                return (
                    f"{type(self._renderer).__name__} renders the whole conversation "
                    f"again once a {reply[0]['role']} message follows (its "
                    'thinking_retention="all" keeps what came before)'
                )
        return None


def _with_inputs(rendered: Any, start: int) -> list[int] | Rendered:
    ids = list(rendered.token_ids[start:])
    data = getattr(rendered, "multi_modal_data", None)
    if data is None or data.is_empty():
        return ids
    places = {
        kind: [
            dataclasses.replace(one, offset=one.offset - start)
            for one in ranges
            if one.offset >= start
        ]
        for kind, ranges in data.mm_placeholders.items()
    }
    return Rendered(ids, dataclasses.replace(data, mm_placeholders=places))


class CookbookRenderer:
    """A renderer of tinker-cookbook, for text."""

    def __init__(self, renderer: Any) -> None:
        self._renderer = renderer
        self.stop_ids = [
            number
            for number in renderer.get_stop_sequences()
            if isinstance(number, int)
        ]
        # Every message before the reply ends with one of them.
        self._ends = self._count(self._ids([_USER])) + 1

    def render(self, messages: Messages, tools: Sequence[JSONObject]) -> list[int]:
        told = list(messages)
        if tools:
            told = self._with_tools(told, tools)
        return self._ids(told)

    def _with_tools(
        self, messages: Messages, tools: Sequence[JSONObject]
    ) -> list[JSONObject]:
        own = [{"role": "system", "content": ""}]
        system, *rest = join_system_messages(own, messages)
        functions = [tool["function"] for tool in tools]
        try:
            prefix = self._renderer.create_conversation_prefix_with_tools(
                functions, system["content"]
            )
        except NotImplementedError:
            specs: Any = [
                {**one, "input_schema": one.get("parameters")} for one in functions
            ]
            words = filter(None, (system["content"], describe_tools(specs)))
            prefix = [{"role": "system", "content": "\n\n".join(words)}]
            rest = [with_calls_as_text(one) for one in rest]
        return [*prefix, *rest]

    def render_reply(self, messages: Messages) -> list[int] | None:
        said = {"role": "assistant", "content": _SAID["content"]}
        ids = self._ids([_USER, said, *messages])
        ends = [place for place, one in enumerate(ids) if one in self.stop_ids]
        if len(ends) < self._ends:
            return None  # gpt-oss ends an earlier turn otherwise than it was sampled
        return ids[ends[self._ends - 1] + 1 :]

    def _ids(self, messages: Messages) -> list[int]:
        told = [
            {**one, "content": one.get("content") or ""}
            if one["role"] == "assistant"
            else with_plain_content(one)
            for one in messages
        ]
        ids: list[int] = self._renderer.build_generation_prompt(told).to_ints()
        return ids

    def _count(self, ids: Sequence[int]) -> int:
        return sum(map(set(self.stop_ids).__contains__, ids))

    def parse(self, ids: Sequence[int]) -> Parsed:
        # Its parser raises where an engine went on after the end of the turn.
        ends = (place for place, one in enumerate(ids, 1) if one in self.stop_ids)
        turn = list(ids[: next(ends, None)])
        message, _ = self._renderer.parse_response(turn)
        calls = [call.model_dump() for call in message.get("tool_calls") or ()]
        calls += [call.raw_text for call in message.get("unparsed_tool_calls") or ()]
        content = message["content"]
        if not isinstance(content, str):
            texts = (part["text"] for part in content if part["type"] == "text")
            thoughts = "".join(
                part["thinking"] for part in content if part["type"] == "thinking"
            )
            content = "".join(texts)
            text = (
                f"<think>\n{thoughts}\n</think>\n\n{content}" if thoughts else content
            )
            return Parsed(text, calls or content, dict(message))
        return Parsed(content, calls or content, dict(message))

    def find_rewrite(
        self, messages: Messages | None = None, tools: Sequence[JSONObject] = ()
    ) -> str | None:
        del messages, tools
        if self._renderer.has_extension_property:
            return None
        return (
            f"{type(self._renderer).__name__} has no extension property (with "
            "strip_thinking_from_history=False some have it)"
        )
