"""A model of an ORS server: sessions, set-up, tools as tasks, restarts.

What it answers is checked against real servers in ``test_simulation_model.py``.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import math
from typing import Any, Final, Protocol

from tests.system.simulation.virtual_time import ViolationError, VirtualClock

_LINGER: Final = 60.0
_REAP: Final = 900.0
_HEARTBEAT: Final = 10.0
_PIECE: Final = 48
"""Where a result is cut. Servers cut at 4096 characters; any place is right."""

_JSON: Final = ((b"content-type", b"application/json"),)
_STREAM: Final = ((b"content-type", b"text/event-stream; charset=utf-8"),)
_STARTING: Final = (*_JSON, (b"X-Backend-State", b"starting"), (b"Retry-After", b"1"))
_PROMPT: Final = b'[{"text":"2 + 2 = ?","detail":null,"type":"text"}]'
_TOOLS: Final = b'{"tools":[{"name":"play","description":"","input_schema":null}]}'
_LOST: Final = b'{"detail":"Active environment not found"}'
_EXISTS: Final = b'{"detail":"Session already exists"}'
_DELETED: Final = b'{"detail":"Session deleted"}'
_STILL: Final = b'{"detail":"Environment still starting."}'
PROBE: Final = b'{"secrets": {}}'
_INCOMPLETE: Final = b'{"detail":[{"type":"missing","loc":["body","task_spec"]}]}'
_FAILED: Final = b'{"detail":"RuntimeError: it broke"}'


@dataclasses.dataclass(frozen=True, slots=True)
class Flavour:
    name: str
    # A session exists before its constructor ran; if not, a delete in the meantime is
    # lost, and a second /create builds another.
    registers_early: bool
    starting_after: float  # seconds of set-up after which requests are answered 503
    latches: bool  # a call after the end is refused rather than paid again
    blocks: bool  # a tool holds up the whole server, its own reply included
    tools_wait: bool  # task_tools waits for set-up


FLAVOURS: Final = {
    "openreward": Flavour("openreward", False, 25.0, True, False, False),
    "ors-sdk": Flavour("ors-sdk", True, math.inf, False, True, True),
}


@dataclasses.dataclass(slots=True)
class Run:
    nonce: int
    session_id: str
    task_id: str
    began: float
    done: float
    result: str  # what it gives back, or what it raised
    raised: bool
    paid: float
    finished: bool


@dataclasses.dataclass(slots=True)
class _Session:
    ready_at: float
    broken: bool
    last_ping: float
    waiting: list[Arrival] = dataclasses.field(default_factory=list)
    finished_at: float = math.inf


class Arrival(Protocol):
    target: str
    session_id: str
    body: bytes | None
    replayed: bool  # whether it is not the client that sends it again

    def reply(self, reply: Reply) -> None:
        """Answer it."""

    def drop(self) -> None:
        """Break its connection."""


@dataclasses.dataclass(slots=True)
class Reply:
    """A reply: the head at a time, then pieces at theirs."""

    status: int
    headers: Any
    at: float
    # When each piece of the body leaves, and the piece.
    pieces: list[tuple[float, bytes]]


@dataclasses.dataclass(slots=True)
class Server:
    """The model; `strict` refuses a session id that is created twice."""

    clock: VirtualClock
    flavour: Flavour
    constructor: float = 0.01
    setup: float = 0.01
    broken: bool = False
    strict: bool = True
    down_until: float = -1.0
    incarnation: int = 0
    runs: list[Run] = dataclasses.field(default_factory=list)
    # Every session id that a /create arrived for.
    created: set[str] = dataclasses.field(default_factory=set)
    # Every session that somebody was told not to exist.
    denied: set[str] = dataclasses.field(default_factory=set)
    _sessions: dict[str, _Session] = dataclasses.field(default_factory=dict)
    _tasks: dict[str, Run] = dataclasses.field(default_factory=dict)
    _busy_until: float = 0.0
    _ids: int = 0

    def alive(self, session_id: str) -> bool:
        """Say whether the session exists, after reaping it if it is due."""
        session = self._sessions.get(session_id)
        if session is not None and self.clock.now - session.last_ping > _REAP:
            self._end(session_id)
            session = None
        return session is not None

    def living(self) -> list[str]:
        return [each for each in list(self._sessions) if self.alive(each)]

    def restart(self, down: float) -> None:
        self.clock.note(f"the server restarts, down for {down:g} s")
        self.incarnation += 1
        self.down_until = self.clock.now + down
        self._busy_until = 0.0
        self._sessions.clear()
        self._tasks.clear()

    def handle(self, arrival: Arrival) -> None:
        now = self.clock.now
        if now < self._busy_until:
            again = functools.partial(_again, self, self.incarnation)
            self.clock.at(self._busy_until, again, arrival)
            return
        target = arrival.target
        endpoint = target.rpartition("/")[2]
        if endpoint == "create":
            self._create(arrival)
        elif endpoint == "create_session":
            self._ids += 1
            session_id = f"session-{self._ids}"
            stream = _event(b"task_id", session_id.encode()) + _event(b"end", b"")
            arrival.reply(Reply(200, _STREAM, now, [(now, stream)]))
        elif endpoint == "ping":
            if self.alive(arrival.session_id):
                self._sessions[arrival.session_id].last_ping = now
                self._answer(arrival, 200, b'{"status":"ok"}')
            else:
                self._answer(arrival, 404, _LOST)
        elif endpoint == "delete":
            self._end(arrival.session_id)
            self._answer(arrival, 200, b'{"sid":"it"}')
        elif endpoint in ("prompt", "task_tools", "call"):
            self._enter(arrival, endpoint, now)
        else:
            self._answer(arrival, 200, _METADATA[endpoint])

    def _answer(
        self, arrival: Arrival, status: int, body: bytes, headers: Any = _JSON
    ) -> None:
        now = self.clock.now
        if body is _LOST or body is _DELETED:
            self.denied.add(arrival.session_id)
        arrival.reply(Reply(status, headers, now, [(now, body)]))

    def _end(self, session_id: str) -> None:
        session = self._sessions.pop(session_id, None)
        if session is not None:
            for arrival in session.waiting:
                self._answer(arrival, 410, _DELETED)

    def _create(self, arrival: Arrival) -> None:
        session_id = arrival.session_id
        if arrival.body == PROBE:
            self._answer(arrival, 422, _INCOMPLETE)
            return
        if self.alive(session_id):
            self._answer(arrival, 400, _EXISTS)
            return
        if self.strict and session_id in self.created and not arrival.replayed:
            raise ViolationError(f"a second /create of {session_id} was sent")
        self.created.add(session_id)
        if self.flavour.registers_early:
            self._register(session_id, self.constructor + self.setup)
            self._answer(arrival, 200, b'{"sid":"it"}')
            return
        constructed = functools.partial(self._constructed, self.incarnation)
        self.clock.at(self.clock.now + self.constructor, constructed, arrival)

    def _constructed(self, incarnation: int, arrival: Arrival) -> None:
        if incarnation == self.incarnation:
            self._register(arrival.session_id, self.setup)
            self._answer(arrival, 200, b'{"sid":"it"}')

    def _register(self, session_id: str, setup: float) -> None:
        now = self.clock.now
        self._sessions[session_id] = _Session(now + setup, self.broken, now)

    def _enter(self, arrival: Arrival, endpoint: str, since: float) -> None:
        """Serve a request that needs a session, once it is set up."""
        now = self.clock.now
        if not self.alive(arrival.session_id):
            self._answer(arrival, 404, _LOST)
            return
        session = self._sessions[arrival.session_id]
        session.last_ping = now
        waits = endpoint != "task_tools" or self.flavour.tools_wait
        if waits and now < session.ready_at:
            if now >= since + self.flavour.starting_after:
                self._answer(arrival, 503, _STILL, _STARTING)
                return
            session.waiting.append(arrival)
            when = min(session.ready_at, since + self.flavour.starting_after)
            enter = functools.partial(self._wake, endpoint, since)
            self.clock.at(when, enter, (session, arrival))
        elif session.broken and now >= session.ready_at:
            self._answer(arrival, 500, _FAILED)
        elif endpoint == "prompt":
            self._answer(arrival, 200, _PROMPT)
        elif endpoint == "task_tools":
            self._answer(arrival, 200, _TOOLS)
        else:
            self._call(arrival, session)

    def _wake(
        self, endpoint: str, since: float, waited: tuple[_Session, Arrival]
    ) -> None:
        session, arrival = waited
        if self._sessions.get(arrival.session_id) is session:
            session.waiting.remove(arrival)
            self._enter(arrival, endpoint, since)

    def _call(self, arrival: Arrival, session: _Session) -> None:
        now = self.clock.now
        given = json.loads(arrival.body or b"")
        task_id = given.get("task_id")
        if task_id is None:
            task = self._start(arrival.session_id, session, given)
        else:
            known = self._tasks.get(task_id)
            if known is None or now - known.done > _LINGER:
                data = _event(b"error", b"unknown task_id")
                arrival.reply(Reply(200, _STREAM, now, [(now, data)]))
                return
            task = known
        # A blocked server sends nothing before the tool is over.
        first = task.done if self.flavour.blocks and task.done > now else now
        pieces = [(first, _event(b"task_id", task.task_id.encode()))]
        beat = first + _HEARTBEAT
        while beat < task.done:
            pieces.append((beat, b": ping - now\r\n\r\n"))
            beat += _HEARTBEAT
        done = max(now, task.done)
        text = task.result
        if task.raised:
            pieces.append((done, _event(b"error", text.encode())))
        else:
            for start in range(0, len(text), _PIECE):
                last = start + _PIECE >= len(text)
                name = b"end" if last else b"chunk"
                data = text[start : start + _PIECE].encode()
                pieces.append((done, _event(name, data)))
        arrival.reply(Reply(200, _STREAM, first, pieces))

    def _start(self, session_id: str, session: _Session, given: Any) -> Run:
        now = self.clock.now
        name, asked = given["name"], given["input"]
        self._ids += 1
        task_id = f"task-{self._ids}"
        ended = session.finished_at <= now and self.flavour.latches
        if name != "play" or ended:
            # Only the server that latches the end gives a reason.
            reason = "episode_finished" if ended else "not_found"
            said = f',"reason":"{reason}"' if self.flavour.latches else ""
            result = f'{{"ok":false,"error":"refused"{said}}}'
            refused = Run(-1, session_id, task_id, now, now, result, False, 0.0, False)
            self._tasks[task_id] = refused
            return refused
        nonce, seconds, raises, finished = asked["play"]
        paid = 0.0 if raises else len(self.runs) + 0.5
        result = f"tool {nonce} raised"
        if not raises:
            result = (
                f'{{"ok":true,"output":{{"blocks":[{{"text":" ran  {nonce}",'
                f'"detail":null,"type":"text"}}],"metadata":null,"reward":{paid},'
                f'"finished":{"true" if finished else "false"}}}}}'
            )
        ends = finished and not raises
        done = now + seconds
        run = Run(nonce, session_id, task_id, now, done, result, raises, paid, ends)
        self.runs.append(run)
        self._tasks[task_id] = run
        if run.finished:
            session.finished_at = min(session.finished_at, run.done)
        if self.flavour.blocks:
            self._busy_until = run.done
        return run


def _again(server: Server, incarnation: int, arrival: Arrival) -> None:
    if incarnation == server.incarnation:
        server.handle(arrival)


def _event(name: bytes, data: bytes) -> bytes:
    return b"event: " + name + b"\r\ndata: " + data + b"\r\n\r\n"


def _describe() -> bytes:
    paths = ("create", "{n}/call", "{n}/task_tools", "create_session", "{n}/num_tasks")
    described: dict[str, Any] = {f"/{path}": {} for path in (*paths, "{n}/task")}
    fields: dict[str, Any] = {"split": {}, "index": {}, "task_spec": {}, "secrets": {}}
    schemas = {"CreateSession": {"properties": fields}}
    document = {"paths": described, "components": {"schemas": schemas}}
    return json.dumps(document).encode()


_METADATA: Final = {
    "openapi.json": _describe(),
    "list_environments": b'["env"]',
    "task": b'{"task":{"id":"0"}}',
    "delete_session": b'{"sid":"it"}',
}
