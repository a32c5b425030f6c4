"""The server of the bundled environments that a process and its children share.

It is started when first needed. The children of its owner, forked or spawned, find it
through an environment variable; a worker of pytest-xdist keeps to its own. A variable
that outlived its server leads to a new one: a server must prove by a header of its
replies that it is the one meant, as another may listen on that port by now.
"""

from __future__ import annotations

import http.client
import os
import threading
from typing import Final
from urllib.parse import urlsplit

from ors_gym.server.classes import describe_environment
from ors_gym.server.environments import BUNDLED
from ors_gym.server.foreground import require_extra
from ors_gym.server.process import IDENTITY_HEADER, ServerProcess

__all__ = ["VARIABLE", "embedded_base_url"]

VARIABLE: Final = "ORS_GYM_EMBEDDED_URL"
"""The environment variable: the base URL, then as its fragment whose server it is."""

_CHECK_SECONDS: Final = 10.0


class _Embedded:
    """What this process knows of its server."""

    def __init__(self) -> None:
        self.forget()

    def forget(self) -> None:
        """Start anew: a forked child owns no server, and its lock may be held."""
        self.lock = threading.Lock()
        self.process: ServerProcess | None = None


_embedded = _Embedded()
os.register_at_fork(after_in_child=_embedded.forget)


def embedded_base_url() -> str:
    """Give the address of the bundled environments, starting their server if needed.

    Returns:
        The base URL of this process's server, or of its parent's.

    Raises:
        MissingExtraError: If the extra ``server`` is not installed.
        ConnectionFailedError: If the server could not be started.

    Example:
        >>> embedded_base_url() == embedded_base_url()
        True
    """
    with _embedded.lock:
        process = _embedded.process
        if process is not None and process.is_running():
            return process.base_url
        inherited = _inherited_base_url()
        if inherited is not None:
            return inherited
        require_extra()
        process = ServerProcess([describe_environment(one) for one in BUNDLED.values()])
        _embedded.process = process
        os.environ[VARIABLE] = f"{process.base_url}#{_scope()}{process.identity}"
        return process.base_url


def _scope() -> str:
    return os.environ.get("PYTEST_XDIST_WORKER", "") + "."


def _inherited_base_url() -> str | None:
    base_url, _, mark = os.environ.get(VARIABLE, "").partition("#")
    scope, dot, identity = mark.partition(".")
    if scope + dot != _scope() or not _answers_as(base_url, identity):
        return None
    return base_url


def _answers_as(base_url: str, identity: str) -> bool:
    try:
        address = urlsplit(base_url)
        connection = http.client.HTTPConnection(
            address.hostname or "", address.port, timeout=_CHECK_SECONDS
        )
    except ValueError:
        return False
    try:
        connection.request("GET", "/health")
        return connection.getresponse().headers.get(IDENTITY_HEADER) == identity
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()
