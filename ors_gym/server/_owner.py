"""Starts server processes, and sees that they end with their owner."""

from __future__ import annotations

import atexit
import contextlib
import http.client
import json
import os
import secrets
import select
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from ors_gym.errors import ConnectionFailedError, InvalidRequestError
from ors_gym.server._classes import describe_environment
from ors_gym.server._foreground import require_extra
from ors_gym.server.environments import BUNDLED

__all__ = ["IDENTITY_HEADER", "VARIABLE", "ServerProcess", "embedded_base_url", "serve"]

IDENTITY_HEADER: Final = "x-ors-gym-server"
"""The reply header by which a process recognises its own server."""

_START_SECONDS: Final = 60.0
# Longer than the process gives the environments to be torn down.
_STOP_SECONDS: Final = 6.0
_BOOTSTRAP: Final = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[1]); "
    "from ors_gym.server._child import main; main()"
)

_living: weakref.WeakSet[ServerProcess] = weakref.WeakSet()
# Held while a process is started, and by a fork: none may happen between the making of
# the pipe and its being known here.
_fork_lock = threading.RLock()


class ServerProcess:
    """A process on a free loopback port, serving environments.

    Args:
        environments: What to serve, as `describe_environment` writes it.
        port: The port, or 0 for any free one.

    Raises:
        InvalidRequestError: If an environment cannot be loaded or served, or the port
            is in use; the message holds the traceback, unless it is our own error.
        ConnectionFailedError: If the process ended or was silent.
    """

    def __init__(self, environments: list[dict[str, str]], port: int = 0) -> None:
        self.identity = secrets.token_hex(8)
        """What the server sends as `IDENTITY_HEADER`."""
        self._owner = os.getpid()
        with _fork_lock:
            self._process = _start()
            _living.add(self)
        try:
            request = {
                "environments": environments,
                "port": port,
                "headers": {IDENTITY_HEADER: self.identity},
            }
            self._send(json.dumps(request).encode() + b"\n")
            self.base_url = f"http://127.0.0.1:{self._receive_port()}"
            """Where the server listens."""
        except BaseException:
            self.stop()
            raise

    def is_running(self) -> bool:
        """Say whether this process owns the server and it has not ended.

        Returns:
            Whether requests can be sent to it.
        """
        return self._owner == os.getpid() and self._process.poll() is None

    def stop(self) -> None:
        """End the process within seconds; does nothing in a forked child."""
        if self._owner != os.getpid():
            return
        self.close_pipes()
        try:
            self._process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def close_pipes(self) -> None:
        """Let go of the process: it ends once nobody holds its standard input."""
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                stream.close()

    def disown(self) -> None:
        """Let go of the process in a forked child, whose parent still owns it."""
        self.close_pipes()
        # It is no child of this process: nothing is to be waited for or warned about.
        self._process.returncode = 0

    def _send(self, line: bytes) -> None:
        assert self._process.stdin is not None  # noqa: S101 - for the type checker
        # A process that ended early is reported by the missing answer.
        with contextlib.suppress(BrokenPipeError):
            view = memoryview(line)
            while view:
                view = view[self._process.stdin.write(view) :]

    def _receive_port(self) -> int:
        answer = self._receive_line()
        if not answer:
            status = self._process.poll()
            event = (
                f"was not ready within {_START_SECONDS:.0f} s"
                if status is None
                else f"ended with exit status {status} before it was ready"
            )
            raise ConnectionFailedError(
                f"The process that serves the environments {event}; see what it "
                "printed to standard error."
            )
        report: dict[str, Any] = json.loads(answer)
        if "error" in report:
            parts = ["The environments cannot be served: " + report["error"]]
            if "traceback" in report:
                parts.append(report["traceback"])
            raise InvalidRequestError("\n\n".join(parts))
        return int(report["port"])

    def _receive_line(self) -> bytes:
        assert self._process.stdout is not None  # noqa: S101 - for the type checker
        line = b""
        deadline = time.monotonic() + _START_SECONDS
        # Not select(), which cannot take a descriptor above 1023.
        poll = select.poll()
        poll.register(self._process.stdout, select.POLLIN)
        while not line.endswith(b"\n"):
            left = deadline - time.monotonic()
            if left <= 0 or not poll.poll(left * 1000):
                return b""
            piece = self._process.stdout.read(1 << 16)
            if not piece:
                self._process.wait(_STOP_SECONDS)
                return b""
            line += piece
        return line


def _start() -> subprocess.Popen[bytes]:
    path = json.dumps(_search_path())
    return subprocess.Popen(  # noqa: S603 - this interpreter
        # -P: no directory of the caller's may shadow a module.
        # -u: what an environment prints is seen at once.
        [sys.executable, "-P", "-u", "-c", _BOOTSTRAP, path],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        bufsize=0,
        # Ctrl-C in a terminal or a notebook is for the owner, who may go on.
        start_new_session=True,
    )


def _search_path() -> list[str]:
    """Give the directories that this process imports from."""
    try:
        here = str(Path.cwd())
    except FileNotFoundError:
        here = ""
    return [one or here for one in sys.path if isinstance(one, str) and (one or here)]


def _stop_all(processes: Iterable[ServerProcess]) -> None:
    """End servers at the same time rather than one after another."""
    owned = [one for one in processes if one.is_running()]
    for one in owned:
        one.close_pipes()
    for one in owned:
        one.stop()


def _after_fork() -> None:
    for one in list(_living):
        one.disown()
    _living.clear()
    _fork_lock.release()


atexit.register(lambda: _stop_all(list(_living)))
os.register_at_fork(
    before=_fork_lock.acquire,
    after_in_parent=_fork_lock.release,
    after_in_child=_after_fork,
)


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
