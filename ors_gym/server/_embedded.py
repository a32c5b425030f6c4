"""The embedded server: one process with the bundled environments.

A process starts it when it first needs it. The children of that process (fork, spawn,
`AsyncVectorEnv`) find it through an environment variable. Each worker of pytest-xdist
has a server of its own.
"""

from __future__ import annotations

import http.client
import os
import threading
from typing import Final, Literal
from urllib.parse import urlsplit

from ors_gym._system import register_at_fork
from ors_gym.server._load_served import describe_environment
from ors_gym.server._process import IDENTITY_HEADER, ServerProcess, find_process
from ors_gym.server._serve import require_extra
from ors_gym.server.environments import BUNDLED

# Its value is the base URL, then as a fragment the pytest-xdist worker, a dot, and the
# identity of the server.
VARIABLE: Final = "ORS_GYM_EMBEDDED_URL"

_CHECK_SECONDS: Final = 10.0


class _Embedded:
    """The server of this process, if it started one."""

    def __init__(self) -> None:
        self.forget()

    def forget(self) -> None:
        """Forget the server. A forked child needs a new lock: the old may be held."""
        self.lock = threading.Lock()
        self.process: ServerProcess | None = None


_embedded = _Embedded()
register_at_fork(after_in_child=_embedded.forget)


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


def describe_server(base_url: str) -> Literal["bundled"] | list[str] | None:
    """Say what to start for a server like that at an address.

    Returns:
        ``"bundled"`` for the bundled environments; what `serve` takes for others that
        this process serves; None for a server that cannot be started like that.
    """
    process = find_process(base_url)
    if process is None:
        embedded = os.environ.get(VARIABLE, "").partition("#")[0]
        return "bundled" if base_url == embedded else None
    names = [name for name in process.names if name is not None]
    if names == list(BUNDLED.values()):
        return "bundled"
    return names if len(names) == len(process.names) else None


def _scope() -> str:
    return os.environ.get("PYTEST_XDIST_WORKER", "") + "."


def _inherited_base_url() -> str | None:
    base_url, _, mark = os.environ.get(VARIABLE, "").partition("#")
    scope, dot, identity = mark.partition(".")
    if scope + dot != _scope() or not _has_identity(base_url, identity):
        return None
    return base_url


def _has_identity(base_url: str, identity: str) -> bool:
    """Ask the server: another program may have taken the port of one that ended."""
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
