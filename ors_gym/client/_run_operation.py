"""Runs an operation of the protocol: blocking, or on an event loop."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any, TypeAlias, TypeVar

from ors_gym.errors import ORSError
from ors_gym.protocol._exchange import Operation, Outcome, Send
from ors_gym.protocol._redaction import Redactor

T = TypeVar("T")

Exchange: TypeAlias = Callable[[Send], Outcome]
"""Does one exchange, blocking."""
AsyncExchange: TypeAlias = Callable[[Send], Awaitable[Outcome]]
"""Does one exchange on an event loop."""

observe: Callable[[Operation[Any], Callable[[Send], Any]], Operation[Any]] | None = None
"""Wraps each operation while a trace is taken: `ors_gym.integrations.opentelemetry`."""


def run_blocking(operation: Operation[T], exchange: Exchange, redact: Redactor) -> T:
    """Run an operation to its end in this thread; its error tells no secret."""
    if observe is not None:
        operation = observe(operation, exchange)
    try:
        step = next(operation)
        while True:
            if type(step) is Send:
                outcome = exchange(step)
            else:
                start = time.monotonic()
                time.sleep(step.seconds)  # type: ignore[union-attr]
                outcome = Outcome(elapsed=time.monotonic() - start)
            step = operation.send(outcome)
    except StopIteration as stop:
        result: T = stop.value
        return result
    except ORSError as error:
        redact.clear(error)
        raise
    finally:
        # Whatever interrupted the exchange, the operation settles its session's state.
        operation.close()


async def run_async(
    operation: Operation[T],
    exchange: AsyncExchange,
    redact: Redactor,
    *,
    observed: bool = True,
) -> T:
    """Run an operation to its end on the running event loop, as `run_blocking` does."""
    if observed and observe is not None:
        operation = observe(operation, exchange)
    try:
        step = next(operation)
        while True:
            if type(step) is Send:
                outcome = await exchange(step)
            else:
                start = time.monotonic()
                await asyncio.sleep(step.seconds)  # type: ignore[union-attr]
                outcome = Outcome(elapsed=time.monotonic() - start)
            step = operation.send(outcome)
    except StopIteration as stop:
        result: T = stop.value
        return result
    except ORSError as error:
        redact.clear(error)
        raise
    finally:
        operation.close()
