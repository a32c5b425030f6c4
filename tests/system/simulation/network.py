"""A model of the network and of the gateways in it: one exchange, one fault.

Within a connection TCP keeps everything in order and delivers nothing twice, so what is
left is between connections: requests that arrive long after newer ones, replies in any
order, and gateways that deliver a request more than once. Connections live on between
exchanges, and the far end may close one at any age.
"""

from __future__ import annotations

import dataclasses
import enum
import itertools
import math
from collections.abc import Callable
from typing import Any, Final, TypeAlias

from ors_gym.protocol._exchange import Failure, Outcome, Send
from tests.system.simulation.server import PROBE, Reply, Server
from tests.system.simulation.virtual_time import Process, ViolationError, VirtualClock


class Fault(enum.Enum):
    """What goes wrong with one exchange.

    New ones go to the end, so that older seeds mean what they meant.
    """

    REFUSED = "connection refused"
    RESET_UNSEEN = "reset before the request arrived"
    STALE = "sent over a connection that the server had closed"
    LATE = "reset, and the request arrives all the same"
    RESET = "reset after the request arrived"
    CUT_HEAD = "reset after the head"
    CUT_TASK = "reset after the first event"
    CUT_CHUNK = "reset within the second event"
    CUT_END = "reset before the last event"
    CUT_BLANK = "reset before the last blank line"
    SHORT_HEAD = "an empty body, with HTTP's framing complete"
    SHORT_TASK = "nothing after the first event, with HTTP's framing complete"
    SILENT_UNSEEN = "the request vanishes and nothing comes back"
    SILENT = "the request arrives and nothing comes back"
    SILENT_TASK = "nothing after the first event"
    SILENT_CHUNK = "nothing after half of the second event"
    SLOW = "the reply comes 20 s late"
    SLOW_TASK = "what follows the first event comes 40 s late"
    GARBLED = "the reply is not HTTP"
    TOO_LARGE = "the reply is larger than the limits, after the first event"
    GATE_401 = "a gateway answers 401"
    GATE_429 = "a gateway answers 429"
    GATE_STARTING = "a gateway answers 503, starting"
    GATE_503 = "a gateway answers 503, and the request does not arrive"
    GATE_502 = "a gateway answers 502, and the request arrived"
    GATE_504 = "a gateway answers 504 when the server is done"
    GATE_HTML = "a gateway answers 200 with a page, and the request arrived"
    RESTART = "the server restarts before the request arrives"
    RESTART_AFTER = "the server restarts after the request arrived"
    LATER = "reset, and the request arrives more than a minute later"
    HELD = "the request arrives 40 s late"
    TWICE = "a gateway delivers the request twice, and passes the first reply"
    REPLAYED = "a gateway delivers the request, loses the reply, and asks again"
    ECHOED = "a gateway delivers the request once more 5 s later"
    CUT_IN_END = "reset within the last event"


STARTING: Final = ((b"X-Backend-State", b"starting"), (b"Retry-After", b"1"))
GATES: Final = {
    Fault.GATE_401: (401, ()),
    Fault.GATE_429: (429, ((b"Retry-After", b"2"),)),
    Fault.GATE_STARTING: (503, STARTING),
    Fault.GATE_503: (503, ()),
}
AFTERWARDS: Final = {
    Fault.GATE_502: (502, b"bad gateway"),
    Fault.GATE_504: (504, b"gateway timeout"),
    Fault.GATE_HTML: (200, b"<html>hello</html>"),
}
UNSEEN: Final = {Fault.RESET_UNSEEN, Fault.LATE, Fault.LATER, Fault.STALE}
"""The client sees a reset, and the server nothing, or not yet."""
DELAYS: Final = {Fault.LATE: 3.0, Fault.LATER: 70.0, Fault.HELD: 40.0}
"""Seconds after which a request arrives that is under way for long. Whatever the client
sends in the meantime, over other connections, arrives before it."""
REPLAYS: Final = {Fault.TWICE: 0.001, Fault.REPLAYED: 1.0, Fault.ECHOED: 5.0}
"""Seconds after which a gateway delivers a request once more."""
SILENT: Final = {Fault.SILENT, Fault.SILENT_UNSEEN, Fault.SILENT_TASK}

_Pieces: TypeAlias = list[tuple[float, bytes]]


def _half(pieces: _Pieces, place: int = 1) -> _Pieces:
    """Keep half of an event and all before it, or half of a body in one piece."""
    place = place % len(pieces) if len(pieces) > 1 else 0
    when, data = pieces[place]
    return [*pieces[:place], (when, data[: len(data) // 2])]


def _without_blank(pieces: _Pieces) -> _Pieces:
    when, data = pieces[-1]
    return [*pieces[:-1], (when, data[:-2])]


def _first(pieces: _Pieces) -> _Pieces:
    return pieces[:1]


CUTS: Final[dict[Fault, Callable[[_Pieces], _Pieces]]] = {
    Fault.CUT_HEAD: lambda _: [],
    Fault.SHORT_HEAD: lambda _: [],
    Fault.CUT_TASK: _first,
    Fault.SHORT_TASK: _first,
    Fault.SILENT_TASK: _first,
    Fault.TOO_LARGE: _first,
    Fault.CUT_CHUNK: _half,
    Fault.SILENT_CHUNK: _half,
    Fault.CUT_END: lambda pieces: pieces[:-1],
    Fault.CUT_BLANK: _without_blank,
    Fault.CUT_IN_END: lambda pieces: _half(pieces, -1),
}
ENDINGS: Final[dict[Fault, Any]] = {
    **{fault: Failure.RESET for fault in CUTS if fault.name.startswith("CUT")},
    Fault.TOO_LARGE: Failure.LIMIT,
}
LATENCY: Final = 0.001
_STALE_AFTER: Final = 3.0
"""Seconds that a connection may be idle before what is not sent twice (docs/wire.md,
point 6)."""
_REMEMBERED: Final = 300.0


def is_sent_once(send: Send) -> bool:
    """Say whether a request is not sent again if nobody knows what became of it."""
    return send.head.target.endswith(("/call", "/create")) and send.body != PROBE


class Closing(enum.Enum):
    """How the far end closes a connection some time after its last reply."""

    IDLE = "unless a request has come before that, as servers do"
    ANYWAY = "also under a request, which is lost if it comes later"
    HALF = "for its own half: requests are served as before, and no reply comes"


@dataclasses.dataclass(slots=True, eq=False)
class Connection:
    """One of the client's connections."""

    used: bool = False  # it has carried an exchange to its end
    last_byte: float = 0.0
    closed_at: float = math.inf


Plan: TypeAlias = Callable[[int, Send], Fault | None]
"""Chooses the fault of an exchange, given its number in the episode."""

_DOWN: Final = 0.8


@dataclasses.dataclass(slots=True, eq=False)
class Exchange:
    """One exchange under way; for the server it is an `Arrival`."""

    network: Network
    process: Process
    send: Send
    fault: Fault | None
    number: int = 0
    target: str = ""
    session_id: str = ""
    body: bytes | None = None
    started: float = 0.0
    last: float = 0.0
    outcome: Outcome | None = None
    arrived_at: float = math.inf
    ended: Failure | None = None
    headed: bool = False
    position: int = 0
    replayed: bool = False
    shown: Reply | None = None
    connection: Connection = dataclasses.field(default_factory=Connection)

    def __post_init__(self) -> None:
        headers = self.send.head.headers
        self.number = len(self.network.exchanges)
        self.target = self.send.head.target
        self.session_id = headers[0][1] if headers else ""
        self.body = self.send.body
        self.started = self.last = self.network.clock.now

    def reply(self, reply: Reply) -> None:
        """Take the server's reply, which goes on its way with its fault."""
        if self.outcome is None:
            self.network.carry(self, reply)

    def drop(self) -> None:
        """Break off: the server is gone."""
        if self.outcome is None:
            self.network.finish(self, Failure.RESET)


class _Copy:
    """A request as a gateway delivers it once more, or once too often: unanswered."""

    def __init__(self, exchange: Exchange, *, replayed: bool) -> None:
        self.target = exchange.target
        self.session_id = exchange.session_id
        self.body = exchange.body
        self.replayed = replayed

    def reply(self, reply: Reply) -> None:
        """Lose the reply."""

    def drop(self) -> None:
        """Notice nothing."""


def _ignore(_: Exchange) -> None:
    """Do nothing."""


@dataclasses.dataclass(slots=True)
class Network:
    """Carries exchanges between processes and the server.

    Where gateways replay tool calls too, a tool runs twice whatever a client does:
    servers take no task_id of the client's choosing.
    """

    clock: VirtualClock
    server: Server
    plan: Plan
    lag: Callable[[], float] | None = None
    replays_calls: bool = False
    exchanges: list[Exchange] = dataclasses.field(default_factory=list)
    watch: Callable[[Exchange], None] = _ignore  # told of each call that is sent
    closing: Closing | None = None
    # Seconds after a reply at which the far end closes the connection.
    closes_after: Callable[[], float] = lambda: math.inf
    # When used connections broke, each time counted once.
    breaks: list[float] = dataclasses.field(default_factory=list)
    _idle: dict[str, list[Connection]] = dataclasses.field(default_factory=dict)
    # Those that the server has, in order: a set's order would differ in each run.
    _inside: dict[Exchange, None] = dataclasses.field(default_factory=dict)

    def exchange(self, process: Process, send: Send) -> None:
        clock = self.clock
        fault = self.plan(len(self.exchanges), send)
        exchange = Exchange(self, process, send, fault)
        exchange.connection = self._connect(exchange)
        self.exchanges.append(exchange)
        if clock.trace is not None:
            told = f" [{fault.value}]" if fault else ""
            clock.note(
                f"{process.name} sends #{exchange.number} {send.head.method} "
                f"{exchange.target} {exchange.session_id} {send.body!r}{told}"
            )
        if exchange.target.endswith("/call"):
            self.watch(exchange)
        if not self._may_strike(fault, exchange):
            exchange.fault = fault = None
        if fault is Fault.REFUSED or clock.now < self.server.down_until:
            clock.at(clock.now + LATENCY, self._refuse, exchange)
            return
        if fault is Fault.SILENT_UNSEEN:
            self._advance(exchange)
            return
        delay = LATENCY if self.lag is None else LATENCY + self.lag()
        if fault in UNSEEN:
            clock.at(clock.now + LATENCY, self._reset, exchange)
            if fault not in DELAYS:
                return
        if fault in DELAYS:
            delay = DELAYS[fault]
        clock.at(clock.now + delay, self._arrive, exchange)
        closed_at = exchange.connection.closed_at
        clock.at(max(closed_at, clock.now) + LATENCY, self._break, exchange)
        if send.timeout < delay:
            clock.at(clock.now + send.timeout, self._advance, exchange)

    def restart(self, down: float) -> None:
        self.server.restart(down)
        for connection in itertools.chain(*self._idle.values()):
            connection.closed_at = min(connection.closed_at, self.clock.now)
        inside, self._inside = self._inside, {}
        for exchange in inside:
            exchange.drop()

    def carry(self, exchange: Exchange, reply: Reply) -> None:
        fault = exchange.fault
        if fault is Fault.RESET or fault is Fault.RESTART_AFTER:
            return
        if self.clock.now >= exchange.connection.closed_at:
            return  # nothing is sent on it any more
        if fault is not None:
            reply = self._spoil(exchange, fault, reply)
        if self.lag is not None:
            late = self.lag()
            pieces = [(when + late, data) for when, data in reply.pieces]
            reply = Reply(reply.status, reply.headers, reply.at + late, pieces)
        exchange.shown = reply
        self._advance(exchange)

    def finish(self, exchange: Exchange, failure: Failure | None) -> None:
        if exchange.outcome is not None:
            return
        self._inside.pop(exchange, None)
        clock, reply = self.clock, exchange.shown
        headed = exchange.headed and reply is not None
        outcome = Outcome(
            sent=failure is not Failure.CONNECT,
            status=reply.status if headed and reply is not None else 0,
            headers=reply.headers if headed and reply is not None else (),
            failure=failure,
            detail=exchange.fault.value if exchange.fault else "",
            elapsed=clock.now - exchange.started,
            reused=exchange.connection.used,
        )
        exchange.outcome = outcome
        if failure is None:
            self._keep(exchange)
        elif failure is Failure.RESET and exchange.connection.used:
            self._note_break(exchange)
        if clock.trace is not None:
            what = failure.value if failure else "complete"
            clock.note(f"#{exchange.number} ends: {outcome.status} {what}")
        exchange.process.resume(exchange.send, outcome)

    def _may_strike(self, fault: Fault | None, exchange: Exchange) -> bool:
        if fault in REPLAYS and not self.replays_calls:
            call = exchange.target.endswith("/call")
            return not call or b'"task_id"' in (exchange.body or b"")
        return fault is not Fault.STALE or exchange.connection.used

    def is_distrusted(self) -> bool:
        """Say whether what is not sent twice has to go over new connections.

        The rule of docs/wire.md, point 6, written a second time.
        """
        if len(self.breaks) < 2:
            return False
        before, last = self.breaks[-2:]
        return self.clock.now - last < _REMEMBERED and last - before < _REMEMBERED

    def _note_break(self, exchange: Exchange) -> None:
        if exchange.process.waiting is not exchange.send:
            return  # nobody saw it
        # What was under way already at the last one broke with it. Subtracted as the
        # client does it: at the same moment, rounding decides.
        now = self.clock.now
        if not self.breaks or now - (now - exchange.started) > self.breaks[-1]:
            self.breaks.append(now)

    def _connect(self, exchange: Exchange) -> Connection:
        """Take the idle connection used last, or a new one."""
        now, send = self.clock.now, exchange.send
        idle = self._idle.setdefault(exchange.process.pool, [])
        while idle:
            age = now - idle[-1].last_byte
            if age > send.reuse_within:
                idle.pop(0)
                break
            connection = idle.pop()
            if now >= connection.closed_at + LATENCY:
                # Its end has arrived, and is seen before anything is sent.
                continue
            if is_sent_once(send) and age > _STALE_AFTER:
                raise ViolationError(f"{exchange.target} over one idle for {age:g} s")
            return connection
        return Connection()

    def _keep(self, exchange: Exchange) -> None:
        """Put the connection of a complete exchange back."""
        connection, now = exchange.connection, self.clock.now
        connection.used = True
        connection.last_byte = now
        connection.closed_at = now + self.closes_after()
        self._idle[exchange.process.pool].append(connection)

    def _break(self, exchange: Exchange) -> None:
        """Let the client see that its connection was closed, if it was."""
        if self.clock.now >= exchange.connection.closed_at + LATENCY:
            self.finish(exchange, Failure.RESET)

    def _refuse(self, exchange: Exchange) -> None:
        self.finish(exchange, Failure.CONNECT)

    def _reset(self, exchange: Exchange) -> None:
        self.finish(exchange, Failure.RESET)

    def _arrive(self, exchange: Exchange) -> None:
        """Let the request reach the server, or what stands before it."""
        clock, server, fault = self.clock, self.server, exchange.fault
        connection = exchange.connection
        if clock.now >= connection.closed_at and self.closing is not Closing.HALF:
            return
        if self.closing is Closing.IDLE:
            connection.closed_at = math.inf
        if fault is Fault.RESTART:
            self.restart(_DOWN)
        if clock.now < server.down_until:
            self.finish(exchange, Failure.RESET)
            return
        gate = GATES.get(fault) if fault is not None else None
        if gate is not None:
            status, headers = gate
            exchange.shown = Reply(status, headers, clock.now, [(clock.now, b"no")])
            self._advance(exchange)
            return
        exchange.arrived_at = clock.now
        self._inside[exchange] = None
        if fault in REPLAYS:
            self._replay(exchange, REPLAYS[fault])
        else:
            server.handle(exchange)
        if fault is Fault.RESTART_AFTER:
            self.restart(_DOWN)
        elif fault is Fault.RESET:
            self.finish(exchange, Failure.RESET)
        elif exchange.shown is None:
            # The server takes its time: only the deadline can come first.
            self._advance(exchange)

    def _replay(self, exchange: Exchange, after: float) -> None:
        """Deliver a request twice; one of the two replies is lost."""
        second = exchange.fault is Fault.REPLAYED
        copy = _Copy(exchange, replayed=not second)
        exchange.replayed = second
        first, then = (copy, exchange) if second else (exchange, copy)
        self.server.handle(first)
        self.clock.at(self.clock.now + after, self._handle, then)

    def _handle(self, arrival: Exchange | _Copy) -> None:
        if self.clock.now < self.server.down_until:
            arrival.drop()
        else:
            self.server.handle(arrival)

    def _spoil(self, exchange: Exchange, fault: Fault, reply: Reply) -> Reply:
        """Do to a reply what the fault says."""
        pieces, at = reply.pieces, reply.at
        status, headers = reply.status, reply.headers
        exchange.ended = ENDINGS.get(fault)
        cut = CUTS.get(fault)
        if cut is not None:
            pieces = cut(pieces)
        if fault in SILENT or fault is Fault.SILENT_CHUNK:
            at = math.inf if fault is Fault.SILENT else at
            pieces = [*pieces, (math.inf, b"")]
        elif fault is Fault.SLOW:
            at += 20.0
            pieces = [(when + 20.0, data) for when, data in pieces]
        elif fault is Fault.SLOW_TASK:
            late = [(when + 40.0, data) for when, data in pieces[1:]]
            pieces = [*pieces[:1], *late]
        elif fault is Fault.GARBLED:
            at = math.inf
            self.clock.at(reply.at, self._garble, exchange)
        elif fault in AFTERWARDS:
            status, body = AFTERWARDS[fault]
            headers = ((b"content-type", b"text/html"),)
            done = pieces[-1][0] if fault is not Fault.GATE_502 else at
            at, pieces = done, [(done, body)]
        return Reply(status, headers, at, pieces)

    def _garble(self, exchange: Exchange) -> None:
        self.finish(exchange, Failure.PROTOCOL)

    def _advance(self, exchange: Exchange) -> None:
        """Deliver what is due, and end the exchange if that is due."""
        if (
            exchange.outcome is not None
            or exchange.process.waiting is not exchange.send
        ):
            return
        now, send, reply = self.clock.now, exchange.send, exchange.shown
        sink = send.sink
        while True:
            when = _due(exchange)
            if when < 0:
                self.finish(exchange, exchange.ended)
                return
            limit, why = exchange.started + send.timeout, Failure.TIMEOUT
            idle = sink.idle_timeout
            if idle is not None and exchange.last + idle < limit:
                limit, why = exchange.last + idle, Failure.STALL
            if when > now or limit < now:
                if limit <= now:
                    self.finish(exchange, why)
                else:
                    self.clock.at(min(when, limit), self._advance, exchange)
                return
            assert reply is not None
            exchange.last = now
            if not exchange.headed:
                exchange.headed = True
                sink.start(reply.status, reply.headers)
                continue
            data = reply.pieces[exchange.position][1]
            exchange.position += 1
            if data and sink.feed(data):
                self.finish(exchange, None)
                return


def _due(exchange: Exchange) -> float:
    """Return when the next part of the reply comes; below zero if it has all come."""
    reply = exchange.shown
    if reply is None:
        return math.inf
    if not exchange.headed:
        return reply.at
    if exchange.position < len(reply.pieces):
        return reply.pieces[exchange.position][0]
    return -1.0
