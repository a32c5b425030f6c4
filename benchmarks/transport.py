"""CPU of one exchange of a tool call: raw socket, our connections, stock httpx.

    python -m benchmarks.transport [--rounds 15] [--calls 1000]

Every row is measured in each round, one after the other, so that a busy machine slows
all of them; the figures are medians over the rounds.
"""

from __future__ import annotations

import argparse
import asyncio
import functools
import json
import socket
import statistics
import time
import urllib.parse
from collections.abc import Awaitable, Callable
from typing import Any

import httpx

from benchmarks.loopserver import loopserver
from ors_gym.client import HTTPTransport
from ors_gym.client._connections import AsyncHttpxConnections, HttpxConnections
from ors_gym.client._settings import make_settings
from ors_gym.client.http._async_pool import AsyncConnectionPool
from ors_gym.client.http._pool import ConnectionPool
from ors_gym.protocol._exchange import Head, Headers, Outcome, Send

Measure = Callable[[], float]

_HEADERS = [
    ("X-Session-ID", "8c5a4a2e-9b1e-4a53-9d51-2f2f0f1c7a11"),
    ("Content-Type", "application/json"),
    ("Accept", "text/event-stream"),
]
_HEAD = Head("POST", "/math/call", _HEADERS)
_CLIENT = [("User-Agent", "benchmark"), ("X-API-Key", "0123456789abcdef")]
_END = b"event: end\r\ndata: "
_SESSIONS = (64, 256, 1024)


class _Result:
    """The least that reads the result of a call; a sink."""

    __slots__ = ("_text", "idle_timeout", "value")

    def __init__(self) -> None:
        self.idle_timeout: float | None = None
        self._text = b""

    def start(self, status: int, headers: Headers) -> None:
        if status != 200 or not headers:
            raise RuntimeError(f"status {status}")

    def feed(self, data: bytes) -> bool:
        self._text += data
        start = self._text.find(_END)
        if start < 0 or not self._text.endswith(b"\r\n\r\n"):
            return False
        self.value = json.loads(self._text[start + len(_END) : -4])
        return True


def _body() -> bytes:
    return json.dumps({"name": "think", "input": {"answer": "4"}}).encode()


def _send() -> Send:
    return Send(_HEAD, _body(), _Result(), 600.0, 3.0)


def _check(outcome: Outcome) -> None:
    if outcome.failure is not None:
        raise RuntimeError(outcome.detail)


def _raw(url: str) -> Callable[[], None]:
    """One exchange over a raw socket, with nothing checked."""
    parts = urllib.parse.urlsplit(url)
    connection = socket.create_connection((str(parts.hostname), parts.port or 80))
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    lines = "".join(f"{name}: {value}\r\n" for name, value in (*_HEADERS, *_CLIENT))
    head = f"POST /math/call HTTP/1.1\r\nHost: {parts.netloc}\r\n{lines}".encode()

    def exchange() -> None:
        body = _body()
        connection.send(b"%bContent-Length: %d\r\n\r\n%b" % (head, len(body), body))
        reply = b""
        while not reply.endswith(b"\r\n0\r\n\r\n"):
            reply += connection.recv(65536)
        start = reply.index(_END) + len(_END)
        json.loads(reply[start : reply.index(b"\r\n", start)])

    return exchange


def _httpx(url: str, client: httpx.Client) -> Callable[[], None]:
    """One exchange as a user of httpx writes it."""
    headers = dict((*_HEADERS, *_CLIENT))

    def exchange() -> None:
        reply = client.post(f"{url}/math/call", content=_body(), headers=headers)
        text = reply.content
        start = text.index(_END) + len(_END)
        json.loads(text[start : text.index(b"\r\n", start)])

    return exchange


def _per_call(exchange: Callable[[], Any], calls: int) -> float:
    """Return the CPU microseconds of one call of a blocking exchange."""
    start = time.thread_time()
    for _ in range(calls):
        exchange()
    return (time.thread_time() - start) / calls * 1e6


def _per_call_async(
    runner: asyncio.Runner,
    exchange: Callable[[Send], Awaitable[Outcome]],
    sessions: int,
    calls: int,
) -> float:
    """Return the CPU microseconds of one call, of so many sessions at once."""
    each = max(calls // sessions, 4)

    async def session(count: int) -> None:
        for _ in range(count):
            _check(await exchange(_send()))

    async def all_sessions(count: int) -> None:
        await asyncio.gather(*(session(count) for _ in range(sessions)))

    # Connections that rested while other rows were measured are too old for a call.
    runner.run(all_sessions(1))
    start = time.process_time()
    runner.run(all_sessions(each))
    return (time.process_time() - start) / (sessions * each) * 1e6


def _rows(url: str, runner: asyncio.Runner, calls: int) -> dict[str, Measure]:
    """Return the measurement of each row."""
    pool = ConnectionPool(url, headers=_CLIENT)
    settings = make_settings(url, api_key="", headers=dict(_CLIENT))
    over_httpx = HttpxConnections(settings)
    async_pool = AsyncConnectionPool(url, headers=_CLIENT)
    async_over_httpx = AsyncHttpxConnections(settings)
    few = max(calls // 5, 1)
    rows: dict[str, Measure] = {
        "raw socket": functools.partial(_per_call, _raw(url), calls),
        "ConnectionPool": functools.partial(
            _per_call, lambda: _check(pool.exchange(_send())), calls
        ),
        "HttpxConnections": functools.partial(
            _per_call, lambda: _check(over_httpx.exchange(_send())), few
        ),
        "httpx.Client": functools.partial(_per_call, _httpx(url, httpx.Client()), few),
        "httpx.Client(HTTPTransport)": functools.partial(
            _per_call, _httpx(url, httpx.Client(transport=HTTPTransport())), few
        ),
    }
    for sessions in (1, *_SESSIONS):
        rows[f"AsyncConnectionPool, {sessions} sessions"] = functools.partial(
            _per_call_async, runner, async_pool.exchange, sessions, calls * 8
        )
    rows["AsyncHttpxConnections, 1 session"] = functools.partial(
        _per_call_async, runner, async_over_httpx.exchange, 1, few
    )
    return rows


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description="CPU of one exchange of a tool call.")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--calls", type=int, default=1000)
    options = parser.parse_args()
    with loopserver() as url, asyncio.Runner() as runner:
        rows = _rows(url, runner, options.calls)
        times: dict[str, list[float]] = {name: [] for name in rows}
        for measure in rows.values():
            measure()
        for _ in range(options.rounds):
            for name, measure in rows.items():
                times[name].append(measure())
    medians = {name: statistics.median(values) for name, values in times.items()}
    raw = medians["raw socket"]
    print(f"{'':32}{'CPU us':>8}{'to raw':>8}")
    for name, value in medians.items():
        print(f"{name:32}{value:8.1f}{value / raw:7.2f}x")
    few, many = _SESSIONS[0], _SESSIONS[-1]
    growth = (
        medians[f"AsyncConnectionPool, {many} sessions"]
        / medians[f"AsyncConnectionPool, {few} sessions"]
    )
    print(f"{many} sessions to {few}: {growth:.2f}x")


if __name__ == "__main__":
    main()
