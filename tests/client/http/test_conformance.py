"""Every row of the conformance table, over each kind of connection.

A reply has the right outcome, and so has the reply to the request that follows it: a
connection with anything left on it must not be used again. Some rows are errors though
RFC 9112 allows a lenient client to accept the reply (a folded header, the same
Content-Length twice): a client must never take one reply for another.
"""

import asyncio
from typing import Any

import httpx
import httpx2
import pytest

from ors_gym.client._connections import AsyncHttpxConnections, HttpxConnections
from ors_gym.client._settings import make_settings
from ors_gym.client.http._async_pool import AsyncConnectionPool
from ors_gym.client.http._pool import ConnectionPool
from tests.client.http.conformance_rows import BOUNDED_BY_ANYBODY, LIMITS, ROWS, Row
from tests.client.http.exchanges import SECOND, RecordingSink, describe, post
from tests.client.http.raw_server import RawServer, raw_server


def _ask_twice(pool: Any, server: RawServer, row: Row, **options: Any) -> list[str]:
    """Return what comes of the reply of a row, and of the one to the next request."""
    sinks = [RecordingSink(idle_timeout=row.idle_timeout), RecordingSink()]
    timeouts = (options.pop("timeout", row.timeout), 20.0)

    is_async = isinstance(pool, AsyncConnectionPool | AsyncHttpxConnections)
    texts = []
    with asyncio.Runner() as runner:
        for sink, timeout in zip(sinks, timeouts, strict=True):
            outcome = pool.exchange(post(sink, timeout=timeout, **options))
            outcome = runner.run(outcome) if is_async else outcome
            texts.append(describe(outcome, sink))
            # Everything of a reply that was read has to be on its way. The loop rests:
            # it must not see what comes in the meantime.
            if row.expected[0].isdigit():
                server.await_that(lambda: server.played >= 1)
        if is_async:
            runner.run(pool.aclose())
        else:
            pool.close()
    return texts


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
@pytest.mark.parametrize(
    "pool", [ConnectionPool, AsyncConnectionPool], ids=["blocking", "async"]
)
def test_reply_has_its_right_outcome_and_leaves_no_poison(pool: type, row: Row):
    with raw_server(row.script, [SECOND]) as server:
        made = pool(server.url, limits=LIMITS)
        assert _ask_twice(made, server, row) == [row.expected, "200 second"]
        reused = server.requests[-1].connection == 0
        assert row.reused in (None, reused)


@pytest.mark.slow
@pytest.mark.parametrize("row", BOUNDED_BY_ANYBODY, ids=lambda row: row.name)
@pytest.mark.parametrize(
    ("connections", "transport"),
    [
        (HttpxConnections, httpx2.HTTPTransport),
        (AsyncHttpxConnections, httpx2.AsyncHTTPTransport),
        (HttpxConnections, httpx.HTTPTransport),
        (AsyncHttpxConnections, httpx.AsyncHTTPTransport),
    ],
)
def test_httpx_never_takes_one_reply_for_another(
    connections: type, transport: type, row: Row
):
    good = row.expected[0].isdigit()
    # httpx waits for more of some replies that are broken.
    timeout = row.timeout if good else min(row.timeout, 1.0)
    with raw_server(row.script, [SECOND]) as server:
        # As a call does: only so is the next request safe from what is left of a reply.
        first, second = _ask_twice(
            connections(
                make_settings(server.url, limits=LIMITS), transport=transport()
            ),
            server,
            row,
            timeout=timeout,
            reuse_within=3.0,
        )
        assert second == "200 second"
        assert server.requests[-1].connection != 0
    # h11 accepts more than we do, but nothing that the server did not send.
    if good:
        assert first == row.expected
    elif row.expected == "PROTOCOL":
        assert first == "200 hello" or not first[0].isdigit()
    else:
        assert not first[0].isdigit()
