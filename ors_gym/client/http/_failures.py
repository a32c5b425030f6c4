"""Words for the failures of a connection, without any secret in them."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import ssl
import time
from typing import Final

from ors_gym.client.http._address import Origin
from ors_gym.client.http._http1 import ReplyReader
from ors_gym.protocol._exchange import Failure, Limits, Outcome, Send

CLOSED: Final = (Failure.CONNECT, "this client is closed; make a new one")

_NO_DESCRIPTORS: Final = (errno.EMFILE, errno.ENFILE)


def refuse(reason: tuple[Failure, str], started: float) -> Outcome:
    """Return the outcome of an exchange that got no connection, so sent nothing."""
    return Outcome(
        sent=False,
        failure=reason[0],
        detail=reason[1],
        elapsed=time.monotonic() - started,
    )


def describe_full(origin: Origin, limits: Limits) -> tuple[Failure, str]:
    """Return why a full pool refuses an exchange."""
    return Failure.CONNECT, (
        f"all {limits.connections} connections to {origin} stayed busy; allow more "
        "with Limits(connections=...), or run fewer requests at once"
    )


def explain_failure(
    origin: Origin,
    send: Send,
    reader: ReplyReader,
    ended: Failure | OSError | None,
    elapsed: float,
    *,
    reused: bool,
) -> Outcome:
    """Return the outcome of an exchange after trouble; its connection is marked broken.

    ``ended`` is a timeout, a stall or what the socket raised. The outcome is a good one
    all the same if the reply was complete before that.
    """
    failure = reader.failure
    detail = f"{origin} {reader.detail}" if failure else ""
    if not reader.finished:
        if ended is Failure.TIMEOUT:
            failure = ended
            detail = f"{origin} did not finish its reply within {send.timeout:g} s"
        elif ended is Failure.STALL:
            failure = ended
            detail = f"{origin} sent nothing for {send.sink.idle_timeout or 0:g} s"
        elif ended is not None:
            failure = Failure.RESET
            reason = getattr(ended, "strerror", None) or type(ended).__name__
            detail = f"the connection to {origin} broke: {reason}"
    reader.mark_broken()
    return Outcome(
        status=reader.status,
        headers=reader.headers,
        failure=failure,
        detail=detail,
        elapsed=elapsed,
        reused=reused,
    )


def explain_connect_error(origin: Origin, error: OSError) -> tuple[Failure, str]:
    """Return why no connection came about; socket, resolver or TLS raised ``error``."""
    if _descriptors_ran_out(error):
        # Not every system has it, nor our connections.
        import resource  # noqa: PLC0415

        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        return Failure.CONNECT, (
            f"cannot connect to {origin}: this process has reached its limit of {soft} "
            f"open files; raise it with `ulimit -n {hard}` before starting, or with "
            "resource.setrlimit(resource.RLIMIT_NOFILE, ...), or keep fewer sessions"
        )
    if isinstance(error, TimeoutError):
        return Failure.CONNECT, f"connecting to {origin} timed out"
    # A server that went away during the handshake may be back for the next one, so
    # this is no failure of TLS.
    vanished = isinstance(error, ssl.SSLEOFError)
    if isinstance(error, ssl.SSLError) and not vanished:
        reason = getattr(error, "verify_message", "") or error.reason or str(error)
        if error.reason == "WRONG_VERSION_NUMBER":
            reason += "; does the server speak plain http?"
        return Failure.TLS, f"no TLS connection to {origin}: {reason}"
    if isinstance(error, ConnectionRefusedError):
        # Written out, since asyncio words it differently from the system.
        return Failure.CONNECT, (
            f"cannot connect to {origin}: Connection refused. "
            "Is the server running, and is this its port?"
        )
    reason = error.strerror or type(error).__name__
    return Failure.CONNECT, f"cannot connect to {origin}: {reason}"


def _descriptors_ran_out(error: OSError) -> bool:
    """Tell whether an error comes from the limit on open files."""
    if not isinstance(error, socket.gaierror):
        return error.errno in _NO_DESCRIPTORS
    # The resolver needs descriptors too, but does not say that it got none.
    return not has_descriptors()


def has_descriptors() -> bool:
    """Tell whether this process may open another file or connection."""
    try:
        descriptor = os.open(os.devnull, os.O_RDONLY)
    except OSError as error:
        return error.errno not in _NO_DESCRIPTORS
    with contextlib.suppress(OSError):
        os.close(descriptor)
    return True
