"""What httpx raises, as failures: this is where errors of a library are mapped."""

from __future__ import annotations

import ssl

import httpx

from ors_gym.client.origin import Origin
from ors_gym.protocol.exchange import Failure, Outcome

__all__ = ["explain_httpx_error"]

_NOT_SENT = (
    httpx.ConnectError,
    httpx.ConnectTimeout,
    httpx.PoolTimeout,
    httpx.ProxyError,
    httpx.UnsupportedProtocol,
)
_ENDED = ("disconnected", "closed", "incomplete")


def explain_httpx_error(origin: Origin, error: Exception) -> Outcome:
    """Return the outcome of an exchange that httpx ended with an error.

    The words of httpx are left out: some quote a header's value.

    Args:
        origin: The server.
        error: What httpx raised.

    Returns:
        The outcome, without its time.

    Example:
        >>> error = httpx.ConnectError("refused")
        >>> outcome = explain_httpx_error(Origin("http://h:1"), error)
        >>> outcome.sent, outcome.detail
        (False, 'cannot connect to h:1 (ConnectError)')
    """
    kind = type(error).__name__
    if isinstance(error, _NOT_SENT):
        if _comes_from_tls(error):
            failure, detail = Failure.TLS, f"no TLS connection to {origin}"
        else:
            failure, detail = Failure.CONNECT, f"cannot connect to {origin}"
        return Outcome(sent=False, failure=failure, detail=f"{detail} ({kind})")
    if isinstance(error, httpx.TimeoutException):
        failure, detail = Failure.TIMEOUT, f"{origin} took too long"
    elif isinstance(error, httpx.ProtocolError) and not any(
        word in str(error) for word in _ENDED
    ):
        failure, detail = Failure.PROTOCOL, f"{origin} sent what is not HTTP/1.1"
    else:
        failure, detail = Failure.RESET, f"the connection to {origin} broke"
    return Outcome(failure=failure, detail=f"{detail} ({kind})")


def _comes_from_tls(error: BaseException) -> bool:
    """Tell whether an error has one of TLS among its causes."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, ssl.SSLError):
            return True
        cause = cause.__cause__ or cause.__context__
    return False
