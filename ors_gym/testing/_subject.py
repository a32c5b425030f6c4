"""Bare requests to a server under check, and what came back."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from functools import cached_property
from typing import Any, Final, NamedTuple

from ors_gym.client import ORSClient, Session
from ors_gym.env._task_order import choose_split
from ors_gym.errors import ORSError, SchemaError, UnknownTaskError
from ors_gym.protocol._dialect import Dialect
from ors_gym.protocol._exchange import Head, Headers, Operation, Send, find_header
from ors_gym.protocol._replies import BodyReader
from ors_gym.protocol._requests import call_body, call_head
from ors_gym.protocol._sse import EventDecoder
from ors_gym.spaces import ToolCallSpace
from ors_gym.testing._report import Status
from ors_gym.types import JSONObject, Split, ToolCall, ToolSpec

__all__ = [
    "Played",
    "Reply",
    "Subject",
    "Verdict",
    "ask",
    "failed",
    "passed",
    "play_call",
    "skipped",
    "warned",
]

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


_MOST_SAMPLED_CALLS: Final = 5


class Verdict(NamedTuple):
    """What a check says."""

    status: Status
    detail: str
    fix: str = ""


def passed(detail: str) -> Verdict:
    """Say that all is well."""
    return Verdict("pass", detail)


def warned(detail: str, fix: str) -> Verdict:
    """Say that clients can cope, and what would be better."""
    return Verdict("warn", detail, fix)


def failed(detail: str, fix: str) -> Verdict:
    """Say that the server breaks the standard, and what to do."""
    return Verdict("fail", detail, fix)


def skipped(detail: str) -> Verdict:
    """Say why something cannot be known."""
    return Verdict("skipped", detail)


@dataclasses.dataclass
class Subject:
    """One environment of one server, and what was learnt of it so far.

    Args:
        client: Reaches the server.
        environment: The environment's name as the server spells it.
        wanted_split: The split to play, if the user chose one.
        index: The task to play.
        runs_tools: Whether tools may be called.
        script: The calls of one episode; drawn from the schemas if None.
        call_timeout: Seconds for a call.
        session_options: What `ORSClient.session` takes besides.
    """

    client: ORSClient
    environment: str
    wanted_split: str | None = None
    index: int = 0
    runs_tools: bool = True
    script: list[ToolCall] | None = None
    call_timeout: float = 30.0
    session_options: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    @property
    def dialect(self) -> Dialect:
        """What the server speaks."""
        return self.client.dialect

    @cached_property
    def splits(self) -> list[Split]:
        """The splits of the environment."""
        return self.client.list_splits(self.environment)

    @cached_property
    def split(self) -> str:
        """The split to play: as everywhere, else the first."""
        try:
            return choose_split(self.splits, self.wanted_split)
        except UnknownTaskError:
            if self.wanted_split is not None or not self.splits:
                raise
            return self.splits[0]["name"]

    def session(self) -> Session:
        """Make a session of the task to play."""
        return self.client.session(
            self.environment,
            split=self.split,
            index=self.index,
            call_timeout=self.call_timeout,
            **self.session_options,
        )

    @cached_property
    def task_tools(self) -> list[ToolSpec]:
        """The tools of a session of the task."""
        with self.session() as session:
            session.get_prompt()
            return session.list_tools()

    @cached_property
    def calls(self) -> list[ToolCall]:
        """The calls to play; none if tools may not be called."""
        if not self.runs_tools:
            return []
        if self.script is not None:
            return self.script
        drawn = [draw_call(tool) for tool in self.task_tools[:_MOST_SAMPLED_CALLS]]
        return [call for call in drawn if call is not None]

    def play(
        self, session: Session, call: Mapping[str, Any], task_id: str = ""
    ) -> Played:
        """Call a tool of a session, past the client's own rules."""
        place = (self.environment, session.session_id)
        return play_call(
            self.client, place, call, task_id=task_id, timeout=self.call_timeout
        )

    @cached_property
    def episode(self) -> Episode:
        """The calls, played in one session up to the end of the episode."""
        episode = Episode()
        if not self.calls:
            return episode
        with self.session() as session:
            session.get_prompt()
            for call in self.calls:
                played = self.play(session, call)
                episode.played.append(played)
                if played.finished or played.reply.failure:
                    break
            first, last = episode.played[0], episode.played[-1]
            if first.task_id:
                episode.resumed = self.play(session, first.call, first.task_id)
            if last.finished:
                episode.after_end = self.play(session, last.call)
        return episode


@dataclasses.dataclass
class Episode:
    """The calls of one session.

    Args:
        played: The calls, in order.
        resumed: The first of them, asked for again by its id.
        after_end: The last of them, sent once more after the episode was over.
    """

    played: list[Played] = dataclasses.field(default_factory=list)
    resumed: Played | None = None
    after_end: Played | None = None


def draw_call(tool: ToolSpec) -> ToolCall | None:
    """Draw a call of a tool, the same each time.

    Args:
        tool: The tool.

    Returns:
        The call; None where its schema cannot be sampled.
    """
    try:
        return ToolCallSpace([tool], seed=0).sample()
    except SchemaError:
        return None
