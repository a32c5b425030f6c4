"""64 sessions on a real server, by our client or by raw sockets: calls per second.

``python -m benchmarks.real_server BASE_URL raw|ours`` prints the rate.
"""

from __future__ import annotations

import asyncio
import sys
import time
import urllib.parse
from collections.abc import Awaitable, Callable

from benchmarks.peer_worker import RawProtocol, address
from ors_gym import AsyncORSClient, AsyncSession
from ors_gym.protocol.requests import call_body

SESSIONS, CALLS = 64, 20
Call = Callable[[], Awaitable[object]]


async def raw_call(base_url: str, session_id: str) -> Call:
    """Return a call of one session on a socket of its own."""
    parts = urllib.parse.urlsplit(base_url)
    loop = asyncio.get_running_loop()
    _, protocol = await loop.create_connection(RawProtocol, *address(base_url))
    body = call_body("add", {"a": 1, "b": 2})
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


def our_call(session: AsyncSession) -> Call:
    """Return a call of one session by our client."""
    return lambda: session.call_tool("add", {"a": 1, "b": 2})


async def main() -> None:
    """Open the sessions, play, and print the rate."""
    base_url, kind = sys.argv[1:3]
    async with AsyncORSClient(base_url) as client:
        sessions = [
            client.session("contract", split="train", index=0) for _ in range(SESSIONS)
        ]
        await asyncio.gather(*(session.open() for session in sessions))
        if kind == "ours":
            calls = [our_call(session) for session in sessions]
        else:
            calls = [await raw_call(base_url, s.session_id) for s in sessions]

        async def play(call: Call) -> None:
            for _ in range(CALLS):
                await call()

        await asyncio.gather(*(call() for call in calls))
        start = time.perf_counter()
        await asyncio.gather(*map(play, calls))
        print(SESSIONS * CALLS / (time.perf_counter() - start))
        await asyncio.gather(*(session.close() for session in sessions))


if __name__ == "__main__":
    asyncio.run(main())
