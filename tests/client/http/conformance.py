"""Replies of every kind, and what each client makes of them.

    python -m tests.client.http.conformance

prints the table: our blocking and async connections, with stock httpx beside them. It
has the right outcome for each reply, and the right reply to the request that follows: a
connection with anything left on it must not be used again.

"accepted" is a reply where we want an error. RFC 9112 allows some of them to a lenient
client (a folded header, the same Content-Length twice); a client that must never take
one reply for another has no use for the leave.
"""

from __future__ import annotations

import asyncio
import dataclasses
import sys
from collections.abc import Callable

import httpx

from ors_gym.client._connections import AsyncHttpxConnections, HttpxConnections
from ors_gym.client._server import make_settings
from ors_gym.client.http._async_pool import AsyncConnectionPool
from ors_gym.client.http._pool import ConnectionPool
from tests.client.http.conformance_rows import LIMITS, ROWS, Row
from tests.client.http.exchanges import SECOND, RecordingSink, describe, post
from tests.client.http.scripted_server import ScriptedServer, scripted

__all__ = ["CLIENTS", "Observed", "observe", "verdict"]


@dataclasses.dataclass(frozen=True)
class Observed:
    """What a client made of a reply, and of the one to the next request."""

    first: str
    second: str
    reused: bool


def _blocking(
    pool: ConnectionPool | HttpxConnections,
    server: ScriptedServer,
    row: Row,
    timeout: float,
    reuse_within: float = 60.0,
) -> tuple[str, str]:
    sinks = [RecordingSink(idle_timeout=row.idle_timeout), RecordingSink()]
    first = pool.exchange(post(sinks[0], timeout=timeout, reuse_within=reuse_within))
    _await_script(server, row)
    second = pool.exchange(post(sinks[1], reuse_within=reuse_within))
    pool.close()
    return describe(first, sinks[0]), describe(second, sinks[1])


async def _async(
    pool: AsyncConnectionPool | AsyncHttpxConnections,
    server: ScriptedServer,
    row: Row,
    timeout: float,
    reuse_within: float = 60.0,
) -> tuple[str, str]:
    sinks = [RecordingSink(idle_timeout=row.idle_timeout), RecordingSink()]
    send = post(sinks[0], timeout=timeout, reuse_within=reuse_within)
    first = await pool.exchange(send)
    # Not on another thread: the loop must not see what came in the meantime.
    _await_script(server, row)
    second = await pool.exchange(post(sinks[1], reuse_within=reuse_within))
    await pool.aclose()
    return describe(first, sinks[0]), describe(second, sinks[1])


def _observe_ours(server: ScriptedServer, row: Row) -> tuple[str, str]:
    return _blocking(
        ConnectionPool(server.url, limits=LIMITS), server, row, row.timeout
    )


def _observe_ours_async(server: ScriptedServer, row: Row) -> tuple[str, str]:
    pool = AsyncConnectionPool(server.url, limits=LIMITS)
    return asyncio.run(_async(pool, server, row, row.timeout))


def _observe_over_httpx(server: ScriptedServer, row: Row) -> tuple[str, str]:
    connections = HttpxConnections(make_settings(server.url, limits=LIMITS))
    # As a call does: only so is the next request safe from what is left of a reply.
    return _blocking(connections, server, row, _timeout_over_httpx(row), reuse_within=3)


def _observe_async_over_httpx(server: ScriptedServer, row: Row) -> tuple[str, str]:
    connections = AsyncHttpxConnections(make_settings(server.url, limits=LIMITS))
    return asyncio.run(
        _async(connections, server, row, _timeout_over_httpx(row), reuse_within=3)
    )


def _timeout_over_httpx(row: Row) -> float:
    """Return the seconds for a reply: httpx waits for more of some that are broken."""
    return row.timeout if row.expected[0].isdigit() else min(row.timeout, 1.0)


def _observe_httpx(server: ScriptedServer, row: Row) -> tuple[str, str]:
    read = min(row.timeout, row.idle_timeout or row.timeout, 2.0)
    with httpx.Client(timeout=read) as client:
        results = []
        for _ in range(2):
            try:
                reply = client.post(f"{server.url}/math/call", content=b"{}")
                text = reply.content
                short = text if len(text) < 40 else b"%d bytes" % len(text)
                result = f"{reply.status_code} {short.decode('latin-1')}".strip()
            except httpx.HTTPError as error:
                result = type(error).__name__
            results.append(result)
            if len(results) == 1:
                _await_script(server, row)
        return results[0], results[1]


CLIENTS: dict[str, Callable[[ScriptedServer, Row], tuple[str, str]]] = {
    "blocking": _observe_ours,
    "async": _observe_ours_async,
    "over httpx": _observe_over_httpx,
    "async over httpx": _observe_async_over_httpx,
    "httpx": _observe_httpx,
}


def _await_script(server: ScriptedServer, row: Row) -> None:
    """Wait until everything of the first reply is on its way, if it was read."""
    if row.expected[0].isdigit():
        server.await_that(lambda: server.played >= 1)


def observe(client: str, row: Row) -> Observed:
    """Let a client meet a reply."""
    with scripted(row.script, [SECOND]) as server:
        first, second = CLIENTS[client](server, row)
        return Observed(first, second, server.requests[-1].connection == 0)


def verdict(row: Row, observed: Observed) -> str:
    """Say what is wrong with what a client made of a reply, or nothing."""
    if observed.second != "200 second":
        wrong = observed.second[0].isdigit()
        return "then a wrong reply" if wrong else "then an error"
    if observed.first != row.expected:
        wrong = observed.first[0].isdigit()
        return "accepted" if wrong else "another error"
    if row.reused is not None and observed.reused != row.reused:
        return "reused" if observed.reused else "not reused"
    return ""


def main() -> None:
    """Print the table."""
    columns = ("blocking", "async", "httpx")
    lines = [f"{'':52}{'expected':18}" + "".join(f"{name:34}" for name in columns)]
    faults = dict.fromkeys(columns, 0)
    for row in ROWS:
        cells = []
        for client in columns:
            observed = observe(client, row)
            wrong = verdict(row, observed)
            if wrong == "another error" and client == "httpx":
                wrong = ""  # it has names of its own for errors
            faults[client] += bool(wrong)
            cells.append(f"{observed.first[:20]} {f'({wrong})' if wrong else ''}")
        line = "".join(f"{cell:34}" for cell in cells)
        lines.append(f"{row.name[:50]:52}{row.expected:18}{line}".rstrip())
    totals = "".join(f"{f'{count} wrong':34}" for count in faults.values())
    lines.append(f"{f'{len(ROWS)} rows':70}{totals}".rstrip())
    sys.stdout.write("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
