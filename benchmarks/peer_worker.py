"""One client in a process of its own: plays steps and says what they cost.

``python peer_worker.py CLIENT BASE_URL SESSIONS CALL`` reads numbers of steps per
session from standard input and answers each with a line of JSON. Blocking if SESSIONS
is 0. CALL is JSON: ``environment``, ``tool`` and ``input``. It imports only the client
that it plays, so any interpreter that has that client can run it.
"""

from __future__ import annotations

import asyncio
import functools
import http.client
import json
import pathlib
import re
import socket
import sys
import time
import urllib.parse
from collections.abc import Awaitable, Callable
from typing import Any

CALL = json.loads(sys.argv[4]) if __name__ == "__main__" else {}
ENVIRONMENT = CALL.get("environment", "math")
TOOL = CALL.get("tool", "think")
INPUT = CALL.get("input", {"thought": "2 + 2 is 4"})
KEPT: list[Any] = []
"""Clients that close their connections once nobody holds them."""
Step = Callable[[], Any]
AsyncStep = Callable[[], Awaitable[Any]]


def address(base_url: str) -> tuple[str, int]:
    """Return a server's host and port."""
    parts = urllib.parse.urlsplit(base_url)
    return str(parts.hostname), int(parts.port or 80)


def calls(sessions: list[Any]) -> list[AsyncStep]:
    """Return a tool call of each session."""
    return [functools.partial(s.call_tool, TOOL, INPUT) for s in sessions]


def open_session(base_url: str) -> str:
    """Open a session as docs/wire.md says, for the clients that have no such notion.

    Returns:
        Its id.
    """
    connection = http.client.HTTPConnection(*address(base_url), timeout=60)
    kind = {"Content-Type": "application/json"}
    connection.request("POST", "/create_session", b"{}", kind)
    said = connection.getresponse().read().decode()
    found = re.search(r'"sid": *"([^"]+)"|event: task_id\r\ndata: (\S+)', said)
    if found is None:
        raise RuntimeError(f"no session: {said[:200]}")
    session_id = found[1] or found[2]
    body = {"env_name": ENVIRONMENT, "split": "train", "index": 0}
    for method, path, content in (
        ("POST", "/create", json.dumps(body).encode()),
        ("GET", f"/{ENVIRONMENT}/prompt", None),
    ):
        headers = {**kind, "X-Session-ID": session_id}
        connection.request(method, path, content, headers)
        reply = connection.getresponse()
        if reply.status != 200:
            raise RuntimeError(f"{path}: {reply.status}")
        reply.read()
    connection.close()
    return session_id


def request_bytes(host: str, session_id: str) -> bytes:
    """Return a whole tool call as a client would send it."""
    body = json.dumps({"name": TOOL, "input": INPUT}).encode()
    return (
        f"POST /{ENVIRONMENT}/call HTTP/1.1\r\nHost: {host}\r\n"
        f"X-Session-ID: {session_id}\r\n"
        "Accept: text/event-stream\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(body)}\r\n\r\n"
    ).encode() + body


def result_of(reply: bytes) -> Any:
    """Return the JSON of a call's ``end`` event."""
    body = b"".join(
        line[6:]
        for event in reply.split(b"\r\n\r\n")
        if b"event: chunk" in event[:40] or b"event: end" in event[:40]
        for line in event.split(b"\r\n")
        if line[:6] == b"data: "
    )
    return json.loads(body)


def raw(base_url: str) -> Step:
    """A socket and the standard library's json: the limit."""
    parts = urllib.parse.urlsplit(base_url)
    connection = socket.create_connection(address(base_url))
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    session_id = open_session(base_url)

    def step() -> Any:
        connection.sendall(request_bytes(parts.netloc, session_id))
        reply = b""
        while not reply.endswith(b"0\r\n\r\n"):
            reply += connection.recv(65536)
        return result_of(reply)["output"]["reward"]

    return step


def ours(base_url: str) -> Step:
    """`ors_gym.Session.call_tool`."""
    import ors_gym

    session = ors_gym.ORSClient(base_url).session(ENVIRONMENT, split="train", index=0)
    session.open().get_prompt()
    return lambda: session.call_tool(TOOL, INPUT)


def env(base_url: str) -> Step:
    """`ors_gym.ORSEnv.step`."""
    import ors_gym

    env = ors_gym.ORSEnv(ENVIRONMENT, base_url)
    env.reset(seed=0)
    action = {"tool": TOOL, "input": INPUT}
    return lambda: env.step(action)


def published(base_url: str) -> Step:
    """In the manner of the published sample: httpx, streamed, line by line."""
    import httpx

    client = httpx.Client(timeout=60.0)
    session_id = open_session(base_url)

    def step() -> Any:
        buffer, event = "", ""
        with client.stream(
            "POST",
            f"{base_url}/{ENVIRONMENT}/call",
            headers={"X-Session-ID": session_id, "Accept": "text/event-stream"},
            json={"name": TOOL, "input": INPUT},
        ) as response:
            for line in response.iter_lines():
                if line.startswith("event: "):
                    event = line[7:]
                elif line.startswith("data: ") and event in ("chunk", "end"):
                    buffer += line[6:]
        return json.loads(buffer)["output"]

    return step


def ors_sdk(base_url: str) -> Step:
    """The blocking client of ors-sdk."""
    from ors.client import ORS

    client = ORS(base_url=base_url)
    environment = client.environment(ENVIRONMENT)
    KEPT.extend((client, environment))
    session = environment.session(split="train", index=0)
    session.__enter__()
    return lambda: session.call_tool(TOOL, INPUT)


def openreward(base_url: str) -> Step:
    """The blocking client of openreward."""
    from openreward.api.environments.client import EnvironmentsAPI

    api = EnvironmentsAPI(base_url=base_url, api_key="")
    environment = api.get(ENVIRONMENT, variant=ENVIRONMENT)
    KEPT.extend((api, environment))
    session = environment.session(split="train", index=0)
    session.__enter__()
    return lambda: session.call_tool(TOOL, INPUT)


class RawProtocol(asyncio.Protocol):
    """The least that an asyncio exchange can be."""

    def __init__(self) -> None:
        self.reply = b""
        self.done: asyncio.Future[Any] | None = None
        self.transport: Any = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        """Collect the reply and decode it once it is whole."""
        self.reply += data
        if self.reply.endswith(b"0\r\n\r\n") and self.done is not None:
            reply, self.reply = self.reply, b""
            self.done.set_result(result_of(reply)["output"]["reward"])


async def raw_async(base_url: str, sessions: int) -> list[AsyncStep]:
    """Protocols on one loop and the standard library's json: the limit."""
    parts = urllib.parse.urlsplit(base_url)
    loop = asyncio.get_running_loop()

    async def connect() -> AsyncStep:
        session_id = open_session(base_url)
        _, protocol = await loop.create_connection(RawProtocol, *address(base_url))

        async def step() -> Any:
            protocol.done = loop.create_future()
            protocol.transport.write(request_bytes(parts.netloc, session_id))
            return await protocol.done

        return step

    return [await connect() for _ in range(sessions)]


async def ours_async(base_url: str, sessions: int) -> list[AsyncStep]:
    """`ors_gym.AsyncSession.call_tool`."""
    import ors_gym

    client = ors_gym.AsyncORSClient(base_url)
    opened = []
    for _ in range(sessions):
        session = await client.session(ENVIRONMENT, split="train", index=0).open()
        await session.get_prompt()
        opened.append(session)
    return calls(opened)


async def ors_sdk_async(base_url: str, sessions: int) -> list[AsyncStep]:
    """The async client of ors-sdk."""
    from ors.client import AsyncORS

    client = AsyncORS(base_url=base_url)
    environment = client.environment(ENVIRONMENT)
    KEPT.append(client)
    opened = []
    for _ in range(sessions):
        session = environment.session(split="train", index=0)
        await session.__aenter__()
        opened.append(session)
    return calls(opened)


async def openreward_async(base_url: str, sessions: int) -> list[AsyncStep]:
    """The async client of openreward."""
    from openreward.api.environments.client import AsyncEnvironmentsAPI

    api = AsyncEnvironmentsAPI(base_url=base_url, api_key="")
    environment = api.get(ENVIRONMENT, variant=ENVIRONMENT)
    KEPT.append(api)
    opened = []
    for _ in range(sessions):
        session = environment.session(split="train", index=0)
        await session.__aenter__()
        opened.append(session)
    return calls(opened)


async def httpx_async(base_url: str, sessions: int) -> list[AsyncStep]:
    """Stock httpx, the reply read whole."""
    import httpx

    limits = httpx.Limits(max_connections=None, max_keepalive_connections=None)
    client = httpx.AsyncClient(timeout=60.0, limits=limits)

    async def step(session_id: str) -> Any:
        reply = await client.post(
            f"{base_url}/{ENVIRONMENT}/call",
            headers={"X-Session-ID": session_id},
            json={"name": TOOL, "input": INPUT},
        )
        return result_of(reply.content)

    return [functools.partial(step, open_session(base_url)) for _ in range(sessions)]


async def aiohttp_async(base_url: str, sessions: int) -> list[AsyncStep]:
    """Stock aiohttp, the reply read whole."""
    import aiohttp

    client = aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0))

    async def step(session_id: str) -> Any:
        async with client.post(
            f"{base_url}/{ENVIRONMENT}/call",
            headers={"X-Session-ID": session_id},
            json={"name": TOOL, "input": INPUT},
        ) as reply:
            return result_of(await reply.read())

    return [functools.partial(step, open_session(base_url)) for _ in range(sessions)]


BLOCKING = {
    "raw": raw,
    "ours": ours,
    "env": env,
    "published": published,
    "ors-sdk": ors_sdk,
    "openreward": openreward,
}
ASYNC = {
    "raw": raw_async,
    "ours": ours_async,
    "ors-sdk": ors_sdk_async,
    "openreward": openreward_async,
    "httpx": httpx_async,
    "aiohttp": aiohttp_async,
}


def _peak_mb() -> float:
    """Return the most memory that this program has held, in MB.

    Not `ru_maxrss`, which begins with what the process held that started this one.
    """
    status = pathlib.Path("/proc/self/status").read_text()
    [kilobytes] = re.findall(r"^VmHWM:\s+(\d+) kB$", status, re.MULTILINE)
    return int(kilobytes) / 1024


def report(steps: int, cpu: float, wall: float) -> None:
    """Print what some steps cost."""
    line = {"steps": steps, "cpu": cpu, "wall": wall, "memory_mb": _peak_mb()}
    print(json.dumps(line), flush=True)


def play_blocking(step: Step) -> None:
    """Play when told to, one step after another."""
    print("ready", flush=True)
    for line in sys.stdin:
        count = int(line)
        step()  # after a pause the connection may have to be made anew
        cpu, wall = time.process_time(), time.perf_counter()
        for _ in range(count):
            step()
        report(count, time.process_time() - cpu, time.perf_counter() - wall)


async def play_async(make: Any, base_url: str, sessions: int) -> None:
    """Play when told to, every session at once."""
    steps = await make(base_url, sessions)

    async def repeat(step: AsyncStep, count: int) -> None:
        for _ in range(count):
            await step()

    print("ready", flush=True)
    while line := await asyncio.to_thread(sys.stdin.readline):
        count = int(line)
        await asyncio.gather(*(step() for step in steps))  # as above
        cpu, wall = time.process_time(), time.perf_counter()
        await asyncio.gather(*(repeat(step, count) for step in steps))
        wall = time.perf_counter() - wall
        report(count * sessions, time.process_time() - cpu, wall)


def main() -> None:
    """Play the client that the command line names, until standard input ends."""
    client, base_url, sessions = sys.argv[1], sys.argv[2], int(sys.argv[3])
    if sessions == 0:
        play_blocking(BLOCKING[client](base_url))
    else:
        asyncio.run(play_async(ASYNC[client], base_url, sessions))


if __name__ == "__main__":
    main()
