"""A server process, seen from its owner: its start, and its exit.

The process ends when the pipe that is its standard input reaches end of file. The owner
closes the pipe to stop it; the kernel closes it when the owner dies, also by SIGKILL.
`ors_gym.server._process_main` is the other side. A forked child of the owner lets go of
the pipe, so that it cannot keep the server alive.
"""

from __future__ import annotations

import atexit
import contextlib
import json
import os
import queue
import secrets
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

from ors_gym._system import register_at_fork
from ors_gym.errors import ConnectionFailedError, InvalidRequestError

# The reply header by which a process recognises its own server.
IDENTITY_HEADER: Final = "x-ors-gym-server"

# Serving an env makes and resets it, which may take minutes.
_START_SECONDS: Final = 300.0
# Longer than the process gives the environments for their teardown.
_STOP_SECONDS: Final = 6.0
# How often a thread that waits looks for signals, which may strike just before a wait.
_SIGNAL_SECONDS: Final = 0.5
_BOOTSTRAP: Final = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[1]); "
    "from ors_gym.server._process_main import main; main()"
)

_living: weakref.WeakSet[ServerProcess] = weakref.WeakSet()
# Held while a process is started, and during a fork. A fork between the two would give
# the child a pipe that `_after_fork` does not know and cannot close.
_fork_lock = threading.RLock()


class ServerProcess:
    """A process that serves what `ors_gym.server._load_served` described.

    It listens on the loopback interface; port 0 is any free one. If an environment
    cannot be loaded, the error holds the traceback of the process.
    """

    def __init__(self, environments: list[dict[str, Any]], port: int = 0) -> None:
        self.identity = secrets.token_hex(8)
        self.names = [one.get("reference", one.get("name")) for one in environments]
        """What it serves, as ``"module:Class"``; None for a class without a name."""
        self.base_url = ""
        """Where it listens; empty until it does."""
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
        except BaseException:
            self.stop()
            raise

    @property
    def pid(self) -> int:
        """The id of the process."""
        return self._process.pid

    def is_running(self) -> bool:
        """Say whether this process owns the server and it has not ended."""
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
        """Make the process end: it does once nobody holds its standard input."""
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                stream.close()

    def disown(self) -> None:
        """Let go of the process in a forked child, whose parent still owns it."""
        self.close_pipes()
        # The server is no child of the forked process. An exit status is set, so that
        # subprocess neither waits for it nor warns about it.
        self._process.returncode = 0

    def _send(self, line: bytes) -> None:
        assert self._process.stdin is not None  # noqa: S101 - for the type checker
        # If the process has ended, `_receive_port` reports it.
        with contextlib.suppress(OSError):
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
        stdout = self._process.stdout
        assert stdout is not None  # noqa: S101 - for the type checker
        lines: queue.SimpleQueue[bytes] = queue.SimpleQueue()

        def read() -> None:
            line = b""
            with contextlib.suppress(OSError, ValueError):  # it was closed meanwhile
                line = stdout.readline()
            lines.put(line)

        # Not every system can wait for a pipe and the time at once.
        threading.Thread(target=read, daemon=True).start()
        deadline = time.monotonic() + _START_SECONDS
        while time.monotonic() < deadline:
            with contextlib.suppress(queue.Empty):
                line = lines.get(timeout=_SIGNAL_SECONDS)
                break
        else:
            return b""
        if not line.endswith(b"\n"):
            self._process.wait(_STOP_SECONDS)
            return b""
        return line


def find_process(base_url: str) -> ServerProcess | None:
    """Return the server process of this process at an address, if there is one."""
    found = (one for one in list(_living) if one.is_running())
    return next((one for one in found if one.base_url == base_url), None)


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
        creationflags=getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0),
    )


def _search_path() -> list[str]:
    """List the directories that this process imports from."""
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
register_at_fork(
    before=_fork_lock.acquire,
    after_in_parent=_fork_lock.release,
    after_in_child=_after_fork,
)
