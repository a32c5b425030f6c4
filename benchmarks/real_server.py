"""64 sessions on a real server: calls a second by our client, to those of raw sockets.

    python -m benchmarks.real_server ors-sdk-0.1.0 [--pairs 30] [--json]

One process plays both, in short blocks in turn and on the same sessions, so that what
the server remembers and how fast the machine is at the moment are the same for both.
Where there are two cores the server has one and the client the other. The figures are
medians over pairs of neighbouring blocks, with the quartiles.

The server is what limits the rate: it is one process of Python. So its CPU per call is
counted too (on Linux): what a client makes the server do, whatever else the machine
does.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import pathlib
import statistics
import time
import urllib.parse
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final

from benchmarks.cores import keep_client, keep_server
from benchmarks.peer_worker import RawProtocol, address
from benchmarks.rows import quartiles
from ors_gym import AsyncORSClient, AsyncSession
from ors_gym.protocol._requests import call_body
from tests.support.servers.process import start_server

__all__ = ["compare", "cpu_seconds"]

_SESSIONS: Final = 64
_CALLS: Final = 5
"""Calls of each session in one block: about half a second of the server's time."""
_TOOL: Final = ("add", {"a": 1, "b": 2})

Call = Callable[[], Awaitable[object]]


async def _raw_call(base_url: str, session_id: str) -> Call:
    """Return a call of one session on a socket of its own, with the least of lines."""
    parts = urllib.parse.urlsplit(base_url)
    loop = asyncio.get_running_loop()
    _, protocol = await loop.create_connection(RawProtocol, *address(base_url))
    body = call_body(*_TOOL)
    request = (
        f"POST /contract/call HTTP/1.1\r\nHost: {parts.netloc}\r\n"
        f"X-Session-ID: {session_id}\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(body)}\r\n\r\n"
    ).encode() + body

    async def call() -> object:
        protocol.done = loop.create_future()
        protocol.transport.write(request)
        return await protocol.done

    return call


def _our_call(session: AsyncSession) -> Call:
    """Return a call of one session by our client."""
    return lambda: session.call_tool(*_TOOL)


def cpu_seconds(process: int) -> float:
    """Return the time that a process's threads have run; 0 where nobody counts it."""
    tasks = pathlib.Path(f"/proc/{process}/task").glob("*/schedstat")
    return sum(int(task.read_text().split()[0]) for task in tasks) / 1e9


async def _block(calls: Sequence[Call], server: int) -> tuple[float, float]:
    """Play a block; return calls per second, and the server's seconds per call."""

    async def play(call: Call) -> None:
        for _ in range(_CALLS):
            await call()

    # Connections that rested while the other played are too old for a call.
    await asyncio.gather(*(call() for call in calls))
    cpu, start = cpu_seconds(server), time.perf_counter()
    await asyncio.gather(*map(play, calls))
    count = _CALLS * len(calls)
    rate = count / (time.perf_counter() - start)
    return rate, (cpu_seconds(server) - cpu) / count


async def compare(name: str, pairs: int) -> dict[str, Any]:
    """Measure our client beside raw sockets.

    Args:
        name: The server, such as ``ors-sdk-0.1.0``.
        pairs: How many pairs of blocks are counted.

    Returns:
        The medians of ``rate`` (ours to raw), of ``server_cpu`` (raw to ours), their
        quartiles, and both rates in calls per second.
    """
    with start_server(name) as server:
        keep_server(server.pid)
        keep_client()
        async with AsyncORSClient(server.base_url) as client:
            sessions = [
                client.session("contract", split="train", index=0)
                for _ in range(_SESSIONS)
            ]
            await asyncio.gather(*(session.open() for session in sessions))
            ids = [session.session_id for session in sessions]
            raw = [await _raw_call(server.base_url, one) for one in ids]
            ours = [_our_call(session) for session in sessions]
            blocks: dict[str, list[tuple[float, float]]] = {"raw": [], "ours": []}
            for pair in range(pairs + 1):
                turn = [("raw", raw), ("ours", ours)]
                # Who is second must not always be the same.
                for kind, calls in turn if pair % 2 else turn[::-1]:
                    block = await _block(calls, server.pid)
                    if pair:
                        blocks[kind].append(block)
            await asyncio.gather(*(session.close() for session in sessions))
    both = list(zip(blocks["ours"], blocks["raw"], strict=True))
    rates = [ours[0] / raw[0] for ours, raw in both]
    costs = [raw[1] / ours[1] if ours[1] else 1.0 for ours, raw in both]
    return {
        "rate": statistics.median(rates),
        "rate_quartiles": quartiles(rates),
        "server_cpu": statistics.median(costs),
        "server_cpu_quartiles": quartiles(costs),
        "calls_per_second": {
            kind: statistics.median(rate for rate, _ in seen)
            for kind, seen in blocks.items()
        },
    }


def main() -> None:
    """Print the figures of one server."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("server", help="such as ors-sdk-0.1.0 or openreward-0.1.167")
    parser.add_argument("--pairs", type=int, default=30)
    parser.add_argument("--json", action="store_true", help="print one line of JSON")
    options = parser.parse_args()
    found = asyncio.run(compare(options.server, options.pairs))
    if options.json:
        print(json.dumps(found))
        return
    for key, what in (
        ("rate", "calls per second, ours to raw"),
        ("server_cpu", "the server's CPU per call, raw to ours"),
    ):
        low, high = found[f"{key}_quartiles"]
        print(f"{what}: {found[key]:.3f} (quartiles {low:.3f} to {high:.3f})")
    print("calls per second:", found["calls_per_second"])


if __name__ == "__main__":
    main()
