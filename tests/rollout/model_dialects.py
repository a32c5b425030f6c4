"""The dialects of model APIs that agent programs speak, for `chat_server`.

Each dialect reads a request and writes a reply, whole or as a stream. Agents give the
tools of an MCP server names of their own, such as ``mcp__ors__move``. So a call's name
is that of the request's tool that ends with it, or stays as it is where there is none.
"""

import dataclasses
import itertools
import json
import re
from collections.abc import Callable, Iterator
from typing import Any, Final

Chunks = Iterator[tuple[str, Any]]
INPUT: Final = 11
CACHED: Final = 5  # of the input
OUTPUT: Final = 7


@dataclasses.dataclass(frozen=True, slots=True)
class Asked:
    """What a request asks for."""

    model: str
    place: int
    tools: list[str]
    stream: bool
    namespaces: dict[str, str] = dataclasses.field(default_factory=dict)
    """The namespace of each tool that has one."""

    def name(self, short: str) -> str:
        ends = re.compile(rf"(^|[^a-z0-9]){re.escape(short)}$", re.IGNORECASE)
        return next((tool for tool in self.tools if ends.search(tool)), short)


@dataclasses.dataclass(frozen=True, slots=True)
class Dialect:
    path: re.Pattern[str]
    read: Callable[[re.Match[str], dict[str, Any]], Asked]
    write: Callable[[Asked, dict[str, Any]], Any]
    stream: Callable[[Asked, dict[str, Any]], Chunks]


def find_dialect(path: str) -> tuple[Dialect, re.Match[str]] | None:
    """Return the dialect of a request's path."""
    for dialect in DIALECTS:
        if match := dialect.path.fullmatch(path):
            return dialect, match
    return None


def write_events(dialect: Dialect, asked: Asked, reply: dict[str, Any]) -> str:
    """Return the reply as server-sent events."""
    return "".join(
        f"event: {name}\ndata: {json.dumps({'type': name, **data})}\n\n"
        if name
        else f"data: {json.dumps(data)}\n\n"
        for name, data in dialect.stream(asked, reply)
    )


def _calls(asked: Asked, reply: dict[str, Any]) -> list[tuple[str, str, str]]:
    calls = reply.get("calls", ())
    return [(one, asked.name(name), given) for one, name, given in calls]


# Anthropic's Messages


def _read_messages(_: re.Match[str], body: dict[str, Any]) -> Asked:
    place = sum(one["role"] == "assistant" for one in body["messages"])
    tools = [tool["name"] for tool in body.get("tools", ())]
    return Asked(body["model"], place, tools, bool(body.get("stream")))


def _content(asked: Asked, reply: dict[str, Any]) -> list[dict[str, Any]]:
    said = [{"type": "text", "text": reply.get("text")}] if reply.get("text") else []
    return said + [
        {"type": "tool_use", "id": one, "name": name, "input": json.loads(given)}
        for one, name, given in _calls(asked, reply)
    ]


def _write_messages(asked: Asked, reply: dict[str, Any]) -> dict[str, Any]:
    used = {
        "input_tokens": INPUT - CACHED,
        "cache_read_input_tokens": CACHED,
        "cache_creation_input_tokens": 0,
        "output_tokens": OUTPUT,
    }
    reason = "tool_use" if reply.get("calls") else "end_turn"
    return {
        "id": f"msg_{asked.place}",
        "type": "message",
        "role": "assistant",
        "model": asked.model,
        "content": _content(asked, reply),
        "stop_reason": reason,
        "stop_sequence": None,
        "usage": used,
    }


def _stream_messages(asked: Asked, reply: dict[str, Any]) -> Chunks:
    whole = _write_messages(asked, reply)
    used = whole["usage"]
    empty: dict[str, Any] = {
        "content": [],
        "stop_reason": None,
        "usage": {**used, "output_tokens": 1},
    }
    yield "message_start", {"message": {**whole, **empty}}
    for place, block in enumerate(whole["content"]):
        if block["type"] == "text":
            start = {**block, "text": ""}
            delta = {"type": "text_delta", "text": block["text"]}
        else:
            start = {**block, "input": {}}
            given = json.dumps(block["input"])
            delta = {"type": "input_json_delta", "partial_json": given}
        yield "content_block_start", {"index": place, "content_block": start}
        yield "content_block_delta", {"index": place, "delta": delta}
        yield "content_block_stop", {"index": place}
    end = {"stop_reason": whole["stop_reason"], "stop_sequence": None}
    yield "message_delta", {"delta": end, "usage": used}
    yield "message_stop", {}


# OpenAI's Responses


def _read_responses(_: re.Match[str], body: dict[str, Any]) -> Asked:
    items = body["input"] if isinstance(body["input"], list) else []
    results = [item.get("type") == "function_call_output" for item in items]
    # The results of one answer's calls stand together.
    place = sum(one and not before for before, one in itertools.pairwise(results))
    tools: list[str] = []
    namespaces: dict[str, str] = {}
    for tool in body.get("tools", ()):
        inner = [one["name"] for one in tool.get("tools", ())]
        namespaces |= dict.fromkeys(inner, tool.get("name"))
        tools += inner or [tool.get("name", "")]
    return Asked(body["model"], place, tools, bool(body.get("stream")), namespaces)


def _write_responses(asked: Asked, reply: dict[str, Any]) -> dict[str, Any]:
    items: list[dict[str, Any]] = []
    if reply.get("text"):
        part: dict[str, Any] = {"type": "output_text", "text": reply["text"]}
        part["annotations"] = []
        items.append(
            {"type": "message", "role": "assistant", "id": "m", "content": [part]}
        )
    for one, name, given in _calls(asked, reply):
        call = {"call_id": one, "name": name, "arguments": given}
        if name in asked.namespaces:
            call["namespace"] = asked.namespaces[name]
        items.append({"type": "function_call", "id": f"fc_{one}", **call})
    counted = {"input_tokens": INPUT, "output_tokens": OUTPUT}
    details = {
        "input_tokens_details": {"cached_tokens": CACHED},
        "output_tokens_details": {"reasoning_tokens": 0},
    }
    return {
        "id": f"resp_{asked.place}",
        "object": "response",
        "model": asked.model,
        "status": "completed",
        "output": [{"status": "completed", **item} for item in items],
        "usage": {**counted, **details, "total_tokens": INPUT + OUTPUT},
    }


def _stream_responses(asked: Asked, reply: dict[str, Any]) -> Chunks:
    whole = _write_responses(asked, reply)
    begun = {**whole, "status": "in_progress", "output": [], "usage": None}
    yield "response.created", {"response": begun}
    for place, item in enumerate(whole["output"]):
        start = {**item, "content": []} if "content" in item else item
        yield "response.output_item.added", {"output_index": place, "item": start}
        for part in item.get("content", ()):
            at = {"item_id": item["id"], "output_index": place, "content_index": 0}
            yield "response.output_text.delta", {**at, "delta": part["text"]}
        yield "response.output_item.done", {"output_index": place, "item": item}
    yield "response.completed", {"response": whole}


# Gemini's generateContent


def _read_gemini(match: re.Match[str], body: dict[str, Any]) -> Asked:
    place = sum(one.get("role") == "model" for one in body["contents"])
    tools = [
        declared["name"]
        for tool in body.get("tools", ())
        for declared in tool.get("functionDeclarations", ())
    ]
    return Asked(match["model"], place, tools, match["verb"].startswith("stream"))


def _write_gemini(asked: Asked, reply: dict[str, Any]) -> dict[str, Any]:
    parts: list[dict[str, Any]] = (
        [{"text": reply.get("text")}] if reply.get("text") else []
    )
    for _, name, given in _calls(asked, reply):
        parts.append({"functionCall": {"name": name, "args": json.loads(given)}})
    candidate = {"content": {"role": "model", "parts": parts}, "finishReason": "STOP"}
    used = {
        "promptTokenCount": INPUT,
        "cachedContentTokenCount": CACHED,
        "candidatesTokenCount": OUTPUT,
    }
    return {
        "candidates": [{**candidate, "index": 0}],
        "usageMetadata": {**used, "totalTokenCount": INPUT + OUTPUT},
        "modelVersion": asked.model,
    }


def _stream_gemini(asked: Asked, reply: dict[str, Any]) -> Chunks:
    yield "", _write_gemini(asked, reply)


DIALECTS: Final = (
    Dialect(
        re.compile(r"/v1/messages"), _read_messages, _write_messages, _stream_messages
    ),
    Dialect(
        re.compile(r"/v1/responses"),
        _read_responses,
        _write_responses,
        _stream_responses,
    ),
    Dialect(
        re.compile(
            r"/v1beta/models/(?P<model>[^:]+):(?P<verb>(stream)?[gG]enerateContent)"
        ),
        _read_gemini,
        _write_gemini,
        _stream_gemini,
    ),
)
