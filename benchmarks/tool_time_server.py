"""A server whose tool takes as long as its caller says, in a process of its own.

    python -m benchmarks.tool_time_server

It prints its port and ends with its standard input. ``/e/call`` with the input
``{"seconds": x}`` is answered after x seconds; every session is the same.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator

__all__ = ["tool_time_server"]

_TOOL = {
    "name": "wait",
    "description": "Wait.",
    "input_schema": {"type": "object", "properties": {"seconds": {"type": "number"}}},
}
_ENDPOINTS = (
    "/create_session /create /ping /delete /delete_session /list_environments "
    "/{env_name}/tools /{env_name}/splits /{env_name}/num_tasks /{env_name}/task_tools "
    "/{env_name}/prompt /{env_name}/call /{env_name}/task /{env_name}/task_range"
)
_FIELDS = ("env_name", "task_spec", "split", "index")
_REPLIES = {
    "/openapi.json": {
        "openapi": "3.1.0",
        "paths": {path: {} for path in _ENDPOINTS.split()},
        "components": {
            "schemas": {"CreateSession": {"properties": {f: {} for f in _FIELDS}}}
        },
    },
    "/list_environments": ["e"],
    "/create_session": {"sid": "7f"},
    "/create": {"sid": "7f"},
    "/e/tools": {"tools": [_TOOL]},
    "/e/task_tools": {"tools": [_TOOL]},
    "/e/splits": [{"name": "train", "type": "train"}],
    "/e/num_tasks": {"num_tasks": 1000},
    "/e/prompt": [{"type": "text", "text": "Wait."}],
}
_RESULT = {
    "ok": True,
    "output": {
        "blocks": [{"type": "text", "text": "done"}],
        "metadata": None,
        "reward": 0.0,
        "finished": False,
    },
}
_EVENTS = (
    "event: task_id\r\ndata: 7f\r\n\r\n"
    f"event: end\r\ndata: {json.dumps(_RESULT)}\r\n\r\n"
).encode()


def _reply(body: bytes, media_type: str) -> bytes:
    head = f"HTTP/1.1 200 OK\r\nContent-Type: {media_type}\r\n"
    return f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body


async def _serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
        while True:
            head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
            length = head.partition("content-length: ")[2].partition("\r\n")[0]
            body = await reader.readexactly(int(length or 0))
            path = head.split(" ", 2)[1]
            if path == "/e/call":
                await asyncio.sleep(json.loads(body)["input"]["seconds"])
                writer.write(_reply(_EVENTS, "text/event-stream"))
            else:
                value = json.dumps(_REPLIES.get(path, {})).encode()
                writer.write(_reply(value, "application/json"))
            await writer.drain()


async def _main() -> None:
    server = await asyncio.start_server(_serve, "127.0.0.1", 0, backlog=2048)
    print(server.sockets[0].getsockname()[1], flush=True)
    await asyncio.to_thread(sys.stdin.read)
    # Nobody waits for the calls that are still under way.
    os._exit(0)


@contextlib.contextmanager
def tool_time_server() -> Iterator[str]:
    """Run the server.

    Yields:
        Its base URL.
    """
    command = [sys.executable, "-m", "benchmarks.tool_time_server"]
    server = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert server.stdin is not None
    assert server.stdout is not None
    try:
        yield f"http://127.0.0.1:{int(server.stdout.readline())}"
    finally:
        server.stdin.close()
        server.wait(10)
        server.stdout.close()


if __name__ == "__main__":
    asyncio.run(_main())
