"""httpx and httpx2: two libraries of one interface. A user may bring either.

A client imports neither before it needs one: for a proxy, or where the system lacks
`poll` or `MSG_DONTWAIT`. What records cassettes always uses httpx2.
"""

from __future__ import annotations

import importlib
import sys
from typing import Any, Final, Protocol

_LIBRARIES: Final = ("httpx2", "httpx")


def library_of(*given: object) -> Any:
    """Return the library of the first object that belongs to one; httpx2 if none does.

    That object takes and raises only this library's classes and errors.
    """
    for one in given:
        for base in type(one).__mro__:
            name = base.__module__.partition(".")[0]
            if name in _LIBRARIES:
                return sys.modules[name]
    return importlib.import_module(_LIBRARIES[0])


class HttpxTransport(Protocol):
    """A `BaseTransport` of httpx2 or httpx."""

    def handle_request(self, request: Any) -> Any:
        """Send a request, and return the response."""


class AsyncHttpxTransport(Protocol):
    """An `AsyncBaseTransport` of httpx2 or httpx."""

    async def handle_async_request(self, request: Any) -> Any:
        """Send a request, and return the response."""


class HttpxClient(Protocol):
    """A `Client` of httpx2 or httpx."""

    @property
    def is_closed(self) -> bool:
        """Whether it was closed."""

    def build_request(self, *args: Any, **kwargs: Any) -> Any:
        """Make a request."""

    def send(self, *args: Any, **kwargs: Any) -> Any:
        """Send a request, and return the response."""

    def close(self) -> None:
        """Close its connections."""


class AsyncHttpxClient(Protocol):
    """An `AsyncClient` of httpx2 or httpx."""

    @property
    def is_closed(self) -> bool:
        """Whether it was closed."""

    def build_request(self, *args: Any, **kwargs: Any) -> Any:
        """Make a request."""

    async def send(self, *args: Any, **kwargs: Any) -> Any:
        """Send a request, and return the response."""

    async def aclose(self) -> None:
        """Close its connections."""
