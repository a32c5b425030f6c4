"""`fetch`: a request that may be sent again, within a budget of seconds."""

from __future__ import annotations

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
from ors_gym.protocol._server_state import Server

T = TypeVar("T")

_SHORT_ATTEMPT_SECONDS: Final = 0.5


def fetch(
    server: Server,
    head: Head,
    body: bytes | None = None,
    *,
    budget: float | None = None,
    attempts: int | None = None,
) -> Operation[tuple[Outcome, bytes]]:
    """Send a request that may be sent again, until there is a lasting reply.

    The budget is in seconds for all attempts, the client's timeout if None. The reply
    is returned whatever its status.
    """
    patience = server.patience(server.settings.timeout if budget is None else budget)
    head = server.address(head)
    redirected = False
    answered: tuple[Outcome, bytes] | None = None
    while True:
        reader = BodyReader()
        timeout = max(0.001, patience.remaining)
        outcome = yield Send(head, body, reader, timeout, patience.reuse_within)
        patience.spend(outcome)
        server.known.reached = server.known.reached or outcome.status > 0
        # Once, and within the origin: the key would travel to any other server
        # (docs/wire.md, point 3).
        moved = None if redirected else _inner_redirect(server, head, outcome)
        if moved is not None:
            redirected = True
            head = moved
            continue
        if attempts is not None and patience.attempts + 1 >= attempts:
            break
        if not may_repeat(outcome):
            break
        if outcome.failure is None:
            answered = outcome, reader.body
        if not (yield from wait(server, patience, outcome, head)):
            break
    if answered and _had_no_time(outcome):
        # The last attempt says nothing of the server; the reply before it does.
        return answered
    if outcome.failure is not None:
        raise failure_error(outcome, f"{head.method} {server.base_url}{head.target}")
    return outcome, reader.body


def _had_no_time(outcome: Outcome) -> bool:
    """Return whether an attempt began when its budget was all but over."""
    timed_out = outcome.failure is Failure.TIMEOUT
    return timed_out and outcome.elapsed < _SHORT_ATTEMPT_SECONDS


def wait(
    server: Server, patience: Patience, outcome: Outcome, head: Head
) -> Operation[bool]:
    """Wait before the next attempt; False if the budget does not allow another."""
    delay = patience.next_delay(
        retry_after(outcome), unreachable=outcome.failure is Failure.CONNECT
    )
    if delay is None:
        return False
    if outcome.failure is not None:
        reason = outcome.failure.value
    else:
        reason = "starting" if is_starting(outcome) else f"status {outcome.status}"
    request = server.redact(f"{head.method} {head.target}")
    server.hooks.on_retry(Retry(request, reason, patience.attempts, delay))
    patience.spend((yield Pause(delay)))
    return True


def within(patience: Patience, operation: Operation[T]) -> Operation[T]:
    """Run an operation within the rest of the budget of a larger one."""
    try:
        step = next(operation)
        while True:
            left = patience.remaining
            if isinstance(step, Pause):
                # A pause that is too long is taken as done: the next exchange fails.
                fits = step.seconds < left
                outcome = (yield step) if fits else Outcome(elapsed=step.seconds)
            elif left > 0:
                step.timeout = min(step.timeout, left)
                step.reuse_within = min(step.reuse_within, patience.reuse_within)
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


def _inner_redirect(server: Server, head: Head, outcome: Outcome) -> Head | None:
    """Return the target of a redirect that stays within the origin, else None."""
    if outcome.failure is not None or outcome.status not in (301, 302, 307, 308):
        return None
    location = find_header(outcome.headers, b"location") or ""
    origin, prefix = server.settings.origin, urlsplit(server.base_url).path.rstrip("/")
    try:
        # To the origin as it is compared: the base URL may name the default port.
        parts = urlsplit(urljoin(f"{origin}{prefix}{head.target}", location))
    except ValueError:
        return None
    if f"{parts.scheme}://{parts.netloc}".lower() != origin.lower():
        return None
    if not parts.path.startswith(f"{prefix}/"):
        return None
    target = parts.path[len(prefix) :] + (f"?{parts.query}" if parts.query else "")
    try:
        return Head(head.method, target, head.headers)
    except InvalidRequestError:
        return None
