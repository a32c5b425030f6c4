"""Bare requests to a server under check, and what came back."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from typing import Any, Final

from ors_gym.client import ORSClient
from ors_gym.errors import ORSError
from ors_gym.protocol.exchange import Head, Headers, Operation, Send, find_header
from ors_gym.protocol.replies import BodyReader
from ors_gym.protocol.requests import call_body, call_head
from ors_gym.protocol.sse import EventDecoder
from ors_gym.types import JSONObject, ToolCall

__all__ = ["Played", "Reply", "ask", "play_call"]

_REUSE_WITHIN: Final = 3.0
"""Seconds after which a connection is not used again (docs/wire.md, point 6)."""


@dataclasses.dataclass(frozen=True)
class Reply:
    """A reply as it came.

    Args:
        status: The HTTP status; 0 if there was none.
        headers: Its header lines.
        body: Its bytes.
        seconds: How long it took.
        failure: Why it is not complete; ``""`` if it is.
    """

    status: int
    headers: Headers
    body: bytes
    seconds: float
    failure: str

    @property
    def content_type(self) -> str:
        """The media type, without its parameters."""
        value = find_header(self.headers, b"content-type") or ""
        return value.partition(";")[0].strip().lower()

    @property
    def is_stream(self) -> bool:
        """Whether it is a stream of events."""
        return self.content_type == "text/event-stream"

    @property
    def value(self) -> Any:
        """The JSON value of the body, or None if it is none."""
        try:
            return json.loads(self.body)
        except ValueError:
            return None

    def __str__(self) -> str:
        if self.failure:
            return self.failure
        text = self.body[:200].decode(errors="replace").strip()
        return f"{self.status} {text}".strip()


@dataclasses.dataclass(frozen=True)
class Played:
    """A tool call and its reply, read as events.

    Args:
        call: The call.
        reply: The reply.
        task_id: The server's id of the call; ``""`` if it named none.
        events: The names of the events, in order.
        text: The data of all but ``task_id``, joined.
        problem: Why the stream cannot be read; ``""`` if it can.
    """

    call: ToolCall
    reply: Reply
    task_id: str = ""
    events: tuple[str, ...] = ()
    text: str = ""
    problem: str = ""

    @property
    def result(self) -> JSONObject:
        """The result, ``{}`` where the tool raised or the reply is none."""
        if "end" not in self.events:
            return {}
        try:
            value = json.loads(self.text)
        except ValueError:
            return {}
        return value if isinstance(value, dict) else {}

    @property
    def output(self) -> JSONObject:
        """What the tool gave back, ``{}`` if it gave nothing."""
        output = self.result.get("output")
        ran = self.result.get("ok") is True and isinstance(output, dict)
        return output if ran and isinstance(output, dict) else {}

    @property
    def finished(self) -> bool:
        """Whether the episode is over."""
        return self.output.get("finished") is True

    @property
    def outcome(self) -> str:
        """One word: ``ran``, ``refused``, ``raised`` or ``no result``."""
        if self.output:
            return "ran"
        if self.result.get("ok") is False:
            return "refused"
        return "raised" if "error" in self.events else "no result"


def ask(
    client: ORSClient, head: Head, body: bytes | None = None, timeout: float = 30.0
) -> Reply:
    """Send one request, once, and follow no redirect.

    Args:
        client: Reaches the server.
        head: The request's head.
        body: Its body.
        timeout: Seconds for all of it.

    Returns:
        The reply, or why there is none.
    """
    return client.run(_exchange(head, body, timeout))


def _exchange(head: Head, body: bytes | None, timeout: float) -> Operation[Reply]:
    reader = BodyReader()
    outcome = yield Send(head, body, reader, timeout, _REUSE_WITHIN)
    failure = "" if outcome.failure is None else outcome.detail
    return Reply(outcome.status, outcome.headers, reader.body, outcome.elapsed, failure)


def play_call(
    client: ORSClient,
    place: tuple[str, str],
    call: Mapping[str, Any],
    *,
    task_id: str = "",
    timeout: float = 30.0,
) -> Played:
    """Call a tool, whatever the client thinks of the session.

    Args:
        client: Reaches the server.
        place: The environment's name and the session's id.
        call: ``tool`` and ``input``.
        task_id: The call to resume instead.
        timeout: Seconds for the whole reply.

    Returns:
        What came back.
    """
    made: ToolCall = {"tool": call["tool"], "input": call["input"]}
    body = call_body(made["tool"], made["input"], task_id)
    reply = ask(client, call_head(*place), body, timeout)
    if not reply.is_stream:
        return Played(made, reply)
    decoder = EventDecoder()
    try:
        events = [*decoder.feed(reply.body), *decoder.finish()]
        texts = [(event.name.decode("latin-1"), event.text()) for event in events]
    except ORSError as error:
        return Played(made, reply, problem=str(error))
    named = [text for name, text in texts if name == "task_id"]
    kinds = {"chunk", "end", "error"}
    return Played(
        made,
        reply,
        task_id=named[0] if named else "",
        events=tuple(name for name, _ in texts),
        text="".join(text for name, text in texts if name in kinds),
    )
