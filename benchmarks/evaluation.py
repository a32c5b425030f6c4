"""64 sessions on a real server: tool calls a second by `evaluate`, to raw asyncio's.

    python -m benchmarks.evaluation [SERVER...] [--pairs 12] [--json FILE]

Both play the same episodes with the same requests: a session, its task, prompt and
tools, some calls, and the deletion. One process plays them in short blocks in turn, so
that how fast the machine is at the moment is the same for both; the figures are medians
over pairs of neighbouring blocks, with the quartiles. The server, one process of
Python, is what limits the rate; where there are two cores it has one to itself. The
exit status is 1 if a budget is not met.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import pathlib
import re
import statistics
import sys
import time
import urllib.parse
from collections.abc import Awaitable, Callable
from typing import Any, Final

from benchmarks.cores import keep_client, keep_server
from benchmarks.peer_worker import address
from benchmarks.rows import Row, quartiles
from ors_gym import AsyncORSClient
from ors_gym.evaluation import parallel_evaluate
from ors_gym.rollout import Episode
from tests.support.servers.process import start_server

__all__ = ["compare"]

_SERVERS: Final = ("ors-sdk-0.1.0", "openreward-0.1.167")
_SESSIONS: Final = 64
_EPISODES: Final = 2 * _SESSIONS
_CALLS: Final = 16
"""Tool calls of an episode."""
_BUDGET: Final = 0.95
_ENVIRONMENT: Final = "contract"
_ADD: Final[Any] = {"tool": "add", "input": {"a": 1, "b": 2}}


class RawClient:
    """A connection and the least of header lines; reads replies to their end.

    Args:
        host: For the header line.
        reader: The connection.
        writer: The same.
    """

    def __init__(
        self, host: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self._host = host
        self._reader, self._writer = reader, writer

    async def ask(self, method: str, path: str, session: str, body: Any = None) -> str:
        """Send a request and return the body of its reply."""
        content = b"" if body is None else json.dumps(body).encode()
        self._writer.write(
            f"{method} {path} HTTP/1.1\r\nHost: {self._host}\r\n"
            f"X-Session-ID: {session}\r\nContent-Type: application/json\r\n"
            f"Content-Length: {len(content)}\r\n\r\n".encode()
            + content
        )
        head = await self._reader.readuntil(b"\r\n\r\n")
        if not head.startswith(b"HTTP/1.1 200"):
            raise RuntimeError(f"{path}: {head[:100]!r}")
        length = re.search(rb"(?i)content-length: *(\d+)", head)
        if length is not None:
            return (await self._reader.readexactly(int(length[1]))).decode()
        parts = []
        while size := int(await self._reader.readuntil(b"\r\n"), 16):
            parts.append(await self._reader.readexactly(size + 2))
        await self._reader.readexactly(2)
        return b"".join(parts).decode()

    async def play(self) -> None:
        """Play an episode, as docs/wire.md says."""
        said = await self.ask("POST", "/create_session", "", {})
        found = re.search(r'"sid": *"([^"]+)"|event: task_id\r\ndata: (\S+)', said)
        if found is None:
            raise RuntimeError(f"no session: {said[:200]}")
        session = found[1] or found[2]
        task = {"env_name": _ENVIRONMENT, "split": "train", "index": 0}
        await self.ask("POST", "/create", session, task)
        await self.ask("GET", f"/{_ENVIRONMENT}/prompt", session)
        await self.ask("GET", f"/{_ENVIRONMENT}/task_tools", session)
        call = {"name": _ADD["tool"], "input": _ADD["input"]}
        for _ in range(_CALLS):
            await self.ask("POST", f"/{_ENVIRONMENT}/call", session, call)
        await self.ask("POST", "/delete", session, {})
        await self.ask("POST", "/delete_session", session, {})

    def close(self) -> None:
        """Close the connection."""
        self._writer.close()


async def _play_raw(base_url: str) -> None:
    """Play a block by raw connections."""
    host = urllib.parse.urlsplit(base_url).netloc
    left = iter(range(_EPISODES))

    async def work() -> None:
        client = RawClient(host, *await asyncio.open_connection(*address(base_url)))
        for _ in left:
            await client.play()
        client.close()

    await asyncio.gather(*(work() for _ in range(_SESSIONS)))


async def _asynchronous(_: Episode) -> Any:
    return _ADD


def _plain(_: Episode) -> Any:
    return _ADD


async def _play_ours(client: AsyncORSClient, policy: Callable[[Episode], Any]) -> None:
    """Play a block by an evaluation."""
    found = await parallel_evaluate(
        client,
        _ENVIRONMENT,
        [0],
        policy,
        max_concurrent=_SESSIONS,
        episodes_per_task=_EPISODES,
        max_turns=_CALLS,
        split="train",
        progress=False,
    )
    if found.outcomes != _EPISODES:
        raise RuntimeError(f"episodes without an outcome: {found.errors}")


async def _measure(play: Callable[[], Awaitable[None]]) -> float:
    """Return the tool calls a second of a block."""
    start = time.perf_counter()
    await play()
    return _EPISODES * _CALLS / (time.perf_counter() - start)


async def compare(name: str, pairs: int) -> dict[str, list[float]]:
    """Measure evaluations beside raw connections.

    Args:
        name: The server, such as ``ors-sdk-0.1.0``.
        pairs: How many blocks of each are counted.

    Returns:
        Tool calls a second of each block: ``raw``, ``async`` and ``plain``, the last
        two by the kind of policy.
    """
    with start_server(name) as server:
        keep_server(server.pid)
        keep_client()
        async with AsyncORSClient(server.base_url) as client:
            kinds: dict[str, Callable[[], Awaitable[None]]] = {
                "raw": lambda: _play_raw(server.base_url),
                "async": lambda: _play_ours(client, _asynchronous),
                "plain": lambda: _play_ours(client, _plain),
            }
            seen: dict[str, list[float]] = {kind: [] for kind in kinds}
            for pair in range(pairs + 1):
                order = list(kinds)[:: 1 if pair % 2 else -1]
                for kind in order:
                    rate = await _measure(kinds[kind])
                    if pair:
                        seen[kind].append(rate)
    return seen


def _rows(name: str, seen: dict[str, list[float]]) -> list[Row]:
    rows = []
    for kind in ("async", "plain"):
        ratios = [ours / raw for ours, raw in zip(seen[kind], seen["raw"], strict=True)]
        what = f"{name}, {_SESSIONS} sessions, {kind} policy: calls/s to raw asyncio's"
        row = Row(
            what,
            statistics.median(ratios),
            _BUDGET,
            at_least=True,
            spread=quartiles(ratios),
        )
        rows.append(row)
    return rows


def main() -> int:
    """Print the rows.

    Returns:
        The exit status.
    """
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("server", nargs="*", default=list(_SERVERS))
    parser.add_argument("--pairs", type=int, default=12)
    parser.add_argument("--json", type=pathlib.Path, help="write the figures here")
    options = parser.parse_args()
    rows, figures = [], {}
    for name in options.server:
        figures[name] = asyncio.run(compare(name, options.pairs))
        rows += _rows(name, figures[name])
        medians = {kind: statistics.median(r) for kind, r in figures[name].items()}
        shown = ", ".join(f"{kind} {rate:.0f}" for kind, rate in medians.items())
        print(f"{name}: calls/s {shown}")
    for row in rows:
        verdict = "met" if row.met else "FAILED"
        print(f"{row.what}  {row.figure}  budget {row.budget}  {verdict}")
    if options.json:
        options.json.write_text(json.dumps(figures, indent=2) + "\n")
    return 0 if all(row.met for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
