"""``serve``: a server process for as long as a ``with`` block runs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from ors_gym.server.classes import describe_environment
from ors_gym.server.environments import BUNDLED
from ors_gym.server.foreground import require_extra
from ors_gym.server.process import ServerProcess

__all__ = ["serve"]


@contextmanager
def serve(*environments: str | type[Any], port: int | None = None) -> Iterator[str]:
    """Serve environments from a process of their own.

    The process ends with the block, and with this process however that ends.

    Args:
        *environments: Environment classes of ors-sdk, also those of a notebook cell or
            of ``__main__``, or strings ``"module:Class"``; the bundled environments if
            there are none. The first is the server's default.
        port: The port, or None for any free one.

    Yields:
        The base URL, on the loopback interface.

    Raises:
        MissingExtraError: If the extra ``server`` is not installed.
        InvalidRequestError: If an environment cannot be loaded or served, or the port
            is in use; the message holds the traceback of the process.
        ConnectionFailedError: If the process ended or was silent.

    Example:
        >>> with serve("ors_gym.server.environments.guess:Guess") as base_url:
        ...     base_url.startswith("http://127.0.0.1:")
        True
    """
    require_extra()
    described = [describe_environment(one) for one in environments or BUNDLED.values()]
    process = ServerProcess(described, port or 0)
    try:
        yield process.base_url
    finally:
        process.stop()
