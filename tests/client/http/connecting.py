"""Our connections, blocking and async, behind one interface for tests."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterator
from typing import Any

from ors_gym.client.http._async_pool import AsyncConnectionPool
from ors_gym.client.http._pool import ConnectionPool
from ors_gym.protocol._exchange import Outcome, Send

KINDS = ("blocking", "async")

Exchange = Callable[[Send], Outcome]


@contextlib.contextmanager
def connect(kind: str, url: str, **options: Any) -> Iterator[Exchange]:
    """Yield the `exchange` of a pool of this kind, closed at the end.

    The loop of the async one turns only during an exchange: what comes in between is
    known to the kernel alone.
    """
    if kind == "blocking":
        pool = ConnectionPool(url, **options)
        with contextlib.closing(pool):
            yield pool.exchange
        return
    with asyncio.Runner() as runner:
        async_pool = AsyncConnectionPool(url, **options)
        try:
            yield lambda send: runner.run(async_pool.exchange(send))
        finally:
            runner.run(async_pool.aclose())
