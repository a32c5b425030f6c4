"""The environment under check: its session, its calls, and bare requests to it."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from functools import cached_property
from typing import Any, Final, NamedTuple

from ors_gym.client import ORSClient, Session
from ors_gym.env._task_order import choose_split
from ors_gym.errors import ORSError, SchemaError, UnknownTaskError
from ors_gym.protocol._exchange import (
    CALL_REUSE_WITHIN,
    Head,
    Headers,
    Operation,
    Send,
    find_header,
)
from ors_gym.protocol._replies import BodyReader
from ors_gym.protocol._requests import (
    SESSION_HEADER,
    call_body,
    call_head,
    session_head,
)
from ors_gym.protocol._sse import EventDecoder
from ors_gym.spaces import ToolCallSpace, ToolSchemas, narrow_tools
from ors_gym.testing._report import Status
from ors_gym.types import JSONObject, Split, ToolCall, ToolSpec

_MOST_SAMPLED_CALLS: Final = 5


class Verdict(NamedTuple):
    """The result of a check: its status, what was seen, and what to do about it."""

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
    """One environment of one server, and what the checks learnt of it so far."""

    client: ORSClient
    environment: str
    """The environment's name as the server spells it."""
    wanted_split: str | None = None
    index: int = 0
    """The task to play."""
    runs_tools: bool = True
    script: list[ToolCall] | None = None
    """The calls of one episode; None to draw them from the schemas."""
    call_timeout: float = 30.0
    tool_schemas: ToolSchemas | None = None
    """Schemas that narrow those of the server, for the calls that are drawn."""
    session_options: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    """What `ORSClient.session` takes besides."""

    @cached_property
    def splits(self) -> list[Split]:
        return self.client.list_splits(self.environment)

    @cached_property
    def split(self) -> str:
        """The split that an env would play, else the first."""
        try:
            return choose_split(self.splits, self.wanted_split)
        except UnknownTaskError:
            if self.wanted_split is not None or not self.splits:
                raise
            return self.splits[0]["name"]

    def ask(
        self, head: Head, body: bytes | None = None, timeout: float = 30.0
    ) -> Reply:
        """Send one request, once, and follow no redirect.

        At a gateway that routes by session, a session is opened for it and deleted.
        """
        routed = any(name == SESSION_HEADER for name, _ in head.headers)
        if routed or not self.client.dialect.routes_by_session:
            return self.client.run(_exchange(head, body, timeout))
        session_id = self.client.create_session()
        head = session_head(head.method, head.target, session_id)
        try:
            return self.client.run(_exchange(head, body, timeout))
        finally:
            self.client.delete_episode(session_id)

    def session(self) -> Session:
        return self.client.session(
            self.environment,
            split=self.split,
            index=self.index,
            call_timeout=self.call_timeout,
            **self.session_options,
        )

    @cached_property
    def task_tools(self) -> list[ToolSpec]:
        with self.session() as session:
            session.get_prompt()
            return narrow_tools(session.list_tools(), self.tool_schemas)

    @cached_property
    def calls(self) -> list[ToolCall]:
        """The calls to play; none if tools may not be called."""
        if not self.runs_tools:
            return []
        if self.script is not None:
            return self.script
        # The terminal tool is the last one listed, and ends the episode.
        tools = self.task_tools
        drawn = [
            *tools[: _MOST_SAMPLED_CALLS - 1],
            *tools[_MOST_SAMPLED_CALLS - 1 :][-1:],
        ]
        calls = [draw_call(tool) for tool in drawn]
        return [call for call in calls if call is not None]

    def play(
        self, session: Session, call: Mapping[str, Any], task_id: str = ""
    ) -> Played:
        """Call a tool, or resume a call, whatever the client thinks of the session."""
        made: ToolCall = {"tool": call["tool"], "input": call["input"]}
        head = call_head(self.environment, session.session_id)
        body = call_body(made["tool"], made["input"], task_id)
        reply = self.ask(head, body, self.call_timeout)
        return _read_events(made, reply) if reply.is_stream else Played(made, reply)

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
            episode.alive = self.client.ping(session.session_id)
            first, last = episode.played[0], episode.played[-1]
            if first.task_id:
                episode.resumed = self.play(session, first.call, first.task_id)
            if last.finished:
                episode.after_end = self.play(session, last.call)
        return episode


@dataclasses.dataclass
class Episode:
    """The calls of one session, in order."""

    played: list[Played] = dataclasses.field(default_factory=list)
    resumed: Played | None = None
    """The first of them, asked for again by its id."""
    alive: bool = False
    """Whether the server answered a ping of the session after them."""
    after_end: Played | None = None
    """The last of them, sent once more after the episode was over."""


def draw_call(tool: ToolSpec, seed: int = 0) -> ToolCall | None:
    """Draw a call, the same each time; None where the schema cannot be sampled."""
    try:
        return ToolCallSpace([tool], seed=seed).sample()
    except SchemaError:
        return None


def _exchange(head: Head, body: bytes | None, timeout: float) -> Operation[Reply]:
    reader = BodyReader()
    outcome = yield Send(head, body, reader, timeout, CALL_REUSE_WITHIN)
    failure = "" if outcome.failure is None else outcome.detail
    return Reply(outcome.status, outcome.headers, reader.body, outcome.elapsed, failure)


def _read_events(call: ToolCall, reply: Reply) -> Played:
    decoder = EventDecoder()
    try:
        events = [*decoder.feed(reply.body), *decoder.finish()]
        texts = [(event.name.decode("latin-1"), event.text()) for event in events]
    except ORSError as error:
        return Played(call, reply, problem=str(error))
    named = [text for name, text in texts if name == "task_id"]
    kinds = {"chunk", "end", "error"}
    return Played(
        call,
        reply,
        task_id=named[0] if named else "",
        events=tuple(name for name, _ in texts),
        text="".join(text for name, text in texts if name in kinds),
    )


@dataclasses.dataclass(frozen=True)
class Reply:
    """A reply as it came."""

    status: int
    """The HTTP status; 0 if there was none."""
    headers: Headers
    body: bytes
    seconds: float
    failure: str
    """Why it is not complete; ``""`` if it is."""

    @property
    def content_type(self) -> str:
        """The media type, without its parameters."""
        value = find_header(self.headers, b"content-type") or ""
        return value.partition(";")[0].strip().lower()

    @property
    def is_stream(self) -> bool:
        return self.content_type == "text/event-stream"

    @property
    def value(self) -> Any:
        """The body as a JSON value; None if it is not JSON."""
        try:
            return json.loads(self.body)
        except (ValueError, RecursionError):
            return None

    def __str__(self) -> str:
        if self.failure:
            return self.failure
        text = self.body[:200].decode(errors="replace").strip()
        return f"{self.status} {text}".strip()


@dataclasses.dataclass(frozen=True)
class Played:
    """A tool call and its reply, read as events."""

    call: ToolCall
    reply: Reply
    task_id: str = ""
    """The server's id of the call; ``""`` if it named none."""
    events: tuple[str, ...] = ()
    """The names of the events, in order."""
    text: str = ""
    """The data of all but ``task_id``, joined."""
    problem: str = ""
    """Why the stream cannot be read; ``""`` if it can."""

    @property
    def result(self) -> JSONObject:
        """The result; ``{}`` where the tool raised or there is no result."""
        if "end" not in self.events:
            return {}
        try:
            value = json.loads(self.text)
        except (ValueError, RecursionError):
            return {}
        return value if isinstance(value, dict) else {}

    @property
    def output(self) -> JSONObject:
        """What the tool gave back; ``{}`` if it gave nothing."""
        output = self.result.get("output")
        ran = self.result.get("ok") is True
        return output if ran and isinstance(output, dict) else {}

    @property
    def finished(self) -> bool:
        return self.output.get("finished") is True

    @property
    def outcome(self) -> str:
        """One word: ``ran``, ``refused``, ``raised`` or ``no result``."""
        if self.output:
            return "ran"
        if self.result.get("ok") is False:
            return "refused"
        return "raised" if "error" in self.events else "no result"
