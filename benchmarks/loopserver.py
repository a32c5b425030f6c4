"""Starts the do-nothing server, so that a benchmark measures the client alone."""

from __future__ import annotations

import contextlib
import os
import pathlib
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator

from benchmarks.cores import keep_server

__all__ = ["loopserver"]

_SOURCE = pathlib.Path(__file__).with_name("loopserver.c")


@contextlib.contextmanager
def loopserver(*, joined: bool = False) -> Iterator[str]:
    """Compile the server and run it on a free port of the loopback interface.

    Args:
        joined: One write per reply, instead of the four of uvicorn.

    Yields:
        Its base URL.

    Raises:
        RuntimeError: If there is no C compiler, or the server does not start.
    """
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        raise RuntimeError("the do-nothing server is written in C: install a compiler")
    with tempfile.TemporaryDirectory(prefix="loopserver-") as directory:
        program = pathlib.Path(directory, "loopserver")
        subprocess.run([compiler, "-O2", "-o", program, _SOURCE], check=True)
        port = _free_port()
        environment = {**os.environ, **({"JOIN": "1"} if joined else {})}
        environment = {k: v for k, v in environment.items() if joined or k != "JOIN"}
        server = subprocess.Popen([program, str(port)], env=environment)
        try:
            _await_server(port)
            keep_server(server.pid)
            yield f"http://127.0.0.1:{port}"
        finally:
            server.kill()
            server.wait()


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


def _await_server(port: int) -> None:
    deadline = time.monotonic() + 10
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            if time.monotonic() > deadline:
                raise RuntimeError("the do-nothing server did not start") from None
            time.sleep(0.01)
        else:
            return
