"""Our connections, blocking and async, behind one interface for tests."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterator
from typing import Any

from ors_gym.client.http._async_connection import AsyncTransport
from ors_gym.client.http._connection import Transport
from ors_gym.protocol._exchange import Outcome, Send

KINDS = ("blocking", "async")

Exchange = Callable[[Send], Outcome]


@contextlib.contextmanager
def connect(kind: str, url: str, **options: Any) -> Iterator[Exchange]:
    """Yield the `exchange` of a transport of this kind, closed at the end.

    The loop of the async one turns only during an exchange: what comes in between is
    known to the kernel alone.
    """
    if kind == "blocking":
        transport = Transport(url, **options)
        with contextlib.closing(transport):
            yield transport.exchange
        return
    with asyncio.Runner() as runner:
        async_transport = AsyncTransport(url, **options)
        try:
            yield lambda send: runner.run(async_transport.exchange(send))
        finally:
            runner.run(async_transport.aclose())
