"""The request that may be repeated, on which every operation but a call stands."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, TypeVar
from urllib.parse import urljoin, urlsplit

from ors_gym.errors import InvalidRequestError
from ors_gym.protocol._exchange import (
    Failure,
    Head,
    Operation,
    Outcome,
    Pause,
    Send,
    find_header,
)
from ors_gym.protocol._replies import BodyReader, failure_error
from ors_gym.protocol._retries import (
    Patience,
    Retry,
    is_starting,
    may_repeat,
    retry_after,
)
from ors_gym.protocol._wire import Wire

__all__ = ["REUSE_WITHIN", "fetch", "wait", "within"]

T = TypeVar("T")

REUSE_WITHIN: Final = 50.0
"""Seconds for which an idle connection serves a request that may be repeated; the
servers close after 60 (docs/wire.md, point 6)."""
_SHORT_ATTEMPT: Final = 0.5
"""Seconds."""


def fetch(
    wire: Wire,
    head: Head,
    body: bytes | None = None,
    *,
    budget: float | None = None,
    attempts: int | None = None,
    repeat: Callable[[Outcome], bool] = may_repeat,
) -> Operation[tuple[Outcome, bytes]]:
    """Send a request that may be sent again, until it is answered for good.

    A redirect within the origin is followed once (docs/wire.md, point 3).

    Args:
        wire: The server.
        head: The request's head.
        body: Its body.
        budget: Seconds for all attempts; the client's timeout if None.
        attempts: How often it is sent at most; None for no limit but the budget.
        repeat: Whether an outcome calls for another attempt.

    Returns:
        The reply's head and body, whatever its status.

    Raises:
        ConnectionFailedError: If there was no reply within the budget.
        ProtocolError: If the reply is not HTTP, or larger than the limits.
    """
    patience = wire.patience(wire.timeout if budget is None else budget)
    redirected = False
    answered: tuple[Outcome, bytes] | None = None
    while True:
        reader = BodyReader()
        timeout = max(0.001, patience.remaining)
        outcome = yield Send(head, body, reader, timeout, REUSE_WITHIN)
        patience.spend(outcome)
        wire.reached = wire.reached or outcome.status > 0
        moved = None if redirected else _inner_redirect(wire, head, outcome)
        if moved is not None:
            redirected = True
            head = moved
            continue
        if attempts is not None and patience.attempts + 1 >= attempts:
            break
        if not repeat(outcome):
            break
        if outcome.failure is None:
            answered = outcome, reader.body
        if not (yield from wait(wire, patience, outcome, head)):
            break
    if answered and _had_no_time(outcome):
        return answered
    if outcome.failure is not None:
        raise failure_error(outcome, f"{head.method} {wire.where}{head.target}")
    return outcome, reader.body


def _had_no_time(outcome: Outcome) -> bool:
    """Tell whether an attempt began when its budget was all but over.

    It says nothing of the server; what that answered last does.
    """
    return outcome.failure is Failure.TIMEOUT and outcome.elapsed < _SHORT_ATTEMPT


def wait(
    wire: Wire, patience: Patience, outcome: Outcome, head: Head
) -> Operation[bool]:
    """Wait before the next attempt.

    Args:
        wire: The server.
        patience: What is left of the operation's budget.
        outcome: What came of the last attempt.
        head: The request's head, for the hook.

    Returns:
        False if the budget does not allow another attempt.
    """
    delay = patience.next_delay(
        retry_after(outcome), unreachable=outcome.failure is Failure.CONNECT
    )
    if delay is None:
        return False
    if outcome.failure is not None:
        reason = outcome.failure.value
    else:
        reason = "starting" if is_starting(outcome) else f"status {outcome.status}"
    request = f"{head.method} {head.target}"
    wire.on_retry(Retry(request, reason, patience.attempts, delay))
    patience.spend((yield Pause(delay)))
    return True


def within(patience: Patience, operation: Operation[T]) -> Operation[T]:
    """Run an operation on what is left of the budget of a larger one.

    Args:
        patience: The larger operation's budget.
        operation: The operation, with any budget of its own.

    Returns:
        What the operation returns.

    Raises:
        ConnectionFailedError: If the larger budget ends first.
    """
    try:
        step = next(operation)
        while True:
            left = patience.remaining
            if isinstance(step, Pause):
                # A wait that does not fit counts as waited: what comes next fails.
                fits = step.seconds < left
                outcome = (yield step) if fits else Outcome(elapsed=step.seconds)
            elif left > 0:
                step.timeout = min(step.timeout, left)
                outcome = yield step
            else:
                outcome = Outcome(
                    sent=False, failure=Failure.TIMEOUT, detail="the time was over"
                )
            patience.spend(outcome)
            step = operation.send(outcome)
    except StopIteration as stop:
        result: T = stop.value
        return result
    finally:
        operation.close()


def _inner_redirect(wire: Wire, head: Head, outcome: Outcome) -> Head | None:
    """Return the target of a redirect that stays within the origin, else None."""
    if outcome.failure is not None or outcome.status not in (301, 302, 307, 308):
        return None
    location = find_header(outcome.headers, b"location") or ""
    try:
        parts = urlsplit(urljoin(f"{wire.where}{head.target}", location))
    except ValueError:
        return None
    prefix = urlsplit(wire.where).path.rstrip("/")
    if f"{parts.scheme}://{parts.netloc}".lower() != wire.origin.lower():
        return None
    if not parts.path.startswith(f"{prefix}/"):
        return None
    target = parts.path[len(prefix) :] + (f"?{parts.query}" if parts.query else "")
    try:
        return Head(head.method, target, head.headers)
    except InvalidRequestError:
        return None
