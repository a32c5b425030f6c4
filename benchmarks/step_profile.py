"""Where the time of one `ORSEnv.step` goes.

    python -m benchmarks.step_profile [--rounds 40] [--json]

Each piece of a step is played alone, on the bytes of a real reply of the do-nothing
server, and then the whole step. A figure is the least CPU time of many short rounds,
which is what the piece costs where nothing disturbs it; so the table holds on a busy
machine too.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import select
import socket
import sys
import time
from collections.abc import Callable
from typing import Any, Final, NamedTuple, cast

import ors_gym
from benchmarks.loopserver import loopserver
from ors_gym.client._client import Session
from ors_gym.client._run_operation import run_blocking
from ors_gym.client.http._address import Origin
from ors_gym.client.http._http1 import HeadReader, ReplyReader, RequestWriter
from ors_gym.formats import parse_action
from ors_gym.protocol._exchange import Headers, Limits, Outcome, Send, Sink
from ors_gym.protocol._replies import StreamReader
from ors_gym.protocol._reply_json import parse_json, read_tool_output
from ors_gym.protocol._requests import call_body
from ors_gym.types import ToolCall, ToolOutput

__all__ = ["Piece", "profile"]

_TOOL: Final = "think"
_INPUT: Final[dict[str, Any]] = {"thought": "2 + 2 is 4"}
_ACTION: Final = ToolCall(tool=_TOOL, input=_INPUT)
_CALLS: Final = 200
"""Calls in one round: short enough that some rounds are undisturbed."""
_END: Final = b"0\r\n\r\n"


class Piece(NamedTuple):
    """A piece of a step."""

    name: str
    microseconds: float
    why: str
    """Why it cannot go."""


class _Sink:
    """Takes a reply and looks at nothing."""

    idle_timeout: float | None = None

    def __init__(self) -> None:
        self.headers: Headers = ()
        self.events: list[bytes] = []

    def start(self, _status: int, headers: Headers) -> None:
        """Take the head."""
        self.headers = headers

    def feed(self, data: bytes) -> bool:
        """Take a part of the body."""
        self.events.append(data)
        return False


def _least(action: Callable[[], object], rounds: int) -> float:
    """Return the least CPU microseconds of one call."""
    best = float("inf")
    for _ in range(rounds):
        start = time.thread_time()
        for _ in range(_CALLS):
            action()
        best = min(best, time.thread_time() - start)
    return best / _CALLS * 1e6


class _Wire:
    """The bytes of a step on a bare socket."""

    def __init__(self, base_url: str, request: bytes) -> None:
        origin = Origin(base_url)
        self._socket = socket.create_connection((origin.host, origin.port))
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._poll = select.poll()
        self._poll.register(self._socket.fileno(), select.POLLIN | select.POLLPRI)
        self._request = request

    def exchange(self) -> list[bytes]:
        """Make the system calls of a step, and nothing else."""
        self._poll.poll(0)
        self._socket.send(self._request)
        pieces = [self._socket.recv(65536)]
        while not pieces[-1].endswith(_END):
            pieces.append(self._socket.recv(65536))
        return pieces


def _separate(pieces: list[bytes]) -> list[bytes]:
    """Cut a reply as the server wrote it: the head, and each chunk."""
    head, _, rest = b"".join(pieces).partition(b"\r\n\r\n")
    cut = [head + b"\r\n\r\n"]
    while rest:
        size = int(rest[: rest.index(b"\r\n")], 16)
        end = rest.index(b"\r\n") + 2 + size + 2
        cut.append(rest[:end])
        rest = rest[end:]
    return cut


def _feed(reader: ReplyReader, sink: Sink, pieces: list[bytes]) -> None:
    reader.begin(sink)
    for piece in pieces:
        reader.feed(piece)


def _output(result: bytes) -> ToolOutput:
    value: Any = parse_json(result, "the result", str)
    return read_tool_output(value["output"])


class _Step:
    """A step of an env, taken apart.

    Args:
        env: An env that was reset.
        base_url: The do-nothing server.
    """

    def __init__(self, env: ors_gym.ORSEnv, base_url: str) -> None:
        self.env = env
        self.rules = env._rules  # noqa: SLF001
        self.session = cast("Session", env.session)
        self.head = self.session.state.call_head
        self.writer = RequestWriter(Origin(base_url))
        self.body = call_body(_TOOL, _INPUT)
        self.wire = _Wire(base_url, self.writer.render(self.head, self.body))
        self.pieces = _separate(self.wire.exchange())
        self.reader = ReplyReader(Limits(), HeadReader())
        self.heads = HeadReader()
        sink = _Sink()
        _feed(self.reader, sink, self.pieces)
        self.headers, self.events = sink.headers, sink.events
        self.outcome = Outcome(status=200, headers=self.headers)
        self.result = self.decode().result or b""
        self.output = _output(self.result)

    def decode(self) -> StreamReader:
        """Read the events alone."""
        reader = StreamReader(Limits())
        self.play(Send(self.head, self.body, reader, 600.0, 3.0))
        return reader

    def play(self, send: Send) -> Outcome:
        """Exchange without a network and without HTTP."""
        send.sink.start(200, self.headers)
        for event in self.events:
            send.sink.feed(event)
        return self.outcome

    def call(self) -> ToolOutput:
        """Call the tool without a network and without HTTP."""
        operation = self.session.call_operation(_TOOL, _INPUT, None)
        return run_blocking(operation, self.play, self.session.redact)

    def exchange(self) -> None:
        """Exchange on a connection of ours, and look at nothing."""
        send = Send(self.head, self.body, _Sink(), 600.0, 3.0)
        self.session._exchange(send)  # noqa: SLF001


def profile(base_url: str, rounds: int) -> list[Piece]:
    """Measure the pieces of a step.

    Args:
        base_url: The do-nothing server.
        rounds: How many rounds each piece is played.

    Returns:
        The pieces, in the order in which a step comes to them; the last one is what is
        left of the whole step.
    """
    with contextlib.closing(ors_gym.ORSEnv("math", base_url)) as env:
        env.reset(seed=0)
        step = _Step(env, base_url)

        def least(action: Callable[[], object]) -> float:
            return _least(action, rounds)

        kernel = least(step.wire.exchange)
        action = least(lambda: parse_action(_ACTION, tools=env.tools))
        encoding = least(lambda: call_body(_TOOL, _INPUT))
        rendering = least(lambda: step.writer.render(step.head, step.body))
        heading = least(lambda: step.heads.read(step.pieces[0]))
        framing = least(lambda: _feed(step.reader, _Sink(), step.pieces)) - heading
        exchange = least(step.exchange) - kernel - rendering - heading - framing
        decoding = least(step.decode)
        reading = least(lambda: _output(step.result))
        calling = least(step.call) - encoding - decoding - reading
        rules = least(lambda: step.rules.succeeded(_ACTION, step.output))
        whole = least(lambda: env.step(_ACTION))
    found = [
        Piece("action to call", action, "any form of action is taken"),
        Piece("call to JSON", encoding, "the standard library's encoder"),
        Piece("request to bytes", rendering, "the head is kept, the length is not"),
        Piece("send, recv and poll in the kernel", kernel, "the exchange itself"),
        Piece("the reply's head", heading, "equal heads are compared, not parsed"),
        Piece("its chunks (llhttp)", framing, "a poisoned connection is never reused"),
        Piece("pool, deadline, clock", exchange, "docs/wire.md, points 6 and 7"),
        Piece("server-sent events", decoding, "correct at every cut, and bounded"),
        Piece("JSON to a checked output", reading, "docs/wire.md, point 16"),
        Piece(
            "the rules of a call", calling, "exactly once: docs/wire.md, points 4 to 9"
        ),
        Piece("observation and info", rules, "Gymnasium's five values"),
    ]
    rest = whole - sum(piece.microseconds for piece in found)
    return [*found, Piece("what they cost together", rest, "caches, calls between")]


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--json", action="store_true", help="print JSON")
    options = parser.parse_args()
    with loopserver() as base_url:
        found = profile(base_url, options.rounds)
    if options.json:
        json.dump([piece._asdict() for piece in found], sys.stdout)
        return
    whole = sum(piece.microseconds for piece in found)
    for name, microseconds, why in (*found, Piece("ORSEnv.step", whole, "")):
        share = f"{100 * microseconds / whole:.0f} %"
        line = f"{name:36}{microseconds:7.1f} us{share:>7}  {why}"
        print(line.rstrip())


if __name__ == "__main__":
    main()
