"""Processes that run a script, such as owners of a server, and whether they live."""

import contextlib
import os
import select
import socket
import subprocess
import sys
import textwrap
from collections.abc import Iterator, Mapping
from pathlib import Path
from urllib.parse import urlsplit

ROOT = Path(__file__).parents[2]
SECONDS = 20.0


def fresh_variables(**extra: str) -> dict[str, str]:
    """Return the environment variables of a process that shares no server with us."""
    hidden = ("ORS_GYM_EMBEDDED_URL", "ORS_BASE_URL", "PYTEST_XDIST_WORKER")
    kept = {name: value for name, value in os.environ.items() if name not in hidden}
    return {**kept, "PYTHONPATH": str(ROOT), **extra}


def run_script(
    script: str,
    *,
    stdin: bool = False,
    cwd: Path | None = None,
    variables: Mapping[str, str] | None = None,
) -> subprocess.CompletedProcess[str]:
    """Run a script to its end, from ``-c`` or from standard input."""
    source = textwrap.dedent(script)
    return subprocess.run(
        [sys.executable, "-"] if stdin else [sys.executable, "-c", source],
        input=source if stdin else "",
        env=fresh_variables(**(variables or {})),
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@contextlib.contextmanager
def owner(script: str) -> Iterator[subprocess.Popen[str]]:
    """Start a script that prints lines and waits for its standard input to end."""
    process = subprocess.Popen(
        [sys.executable, "-u", "-c", textwrap.dedent(script)],
        env=fresh_variables(),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait()
        for stream in (process.stdin, process.stdout):
            assert stream is not None
            stream.close()


def next_line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def wait_for_end(pid: int) -> None:
    """Wait until a process that need not be ours has ended."""
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        poll = select.poll()
        poll.register(descriptor, select.POLLIN)
        assert poll.poll(SECONDS * 1000), f"process {pid} still runs"
    finally:
        os.close(descriptor)


def is_running(pid: int) -> bool:
    """Say whether a process runs; one that only waits to be reaped does not."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state not in "ZX"


def is_listening(base_url: str) -> bool:
    address = urlsplit(base_url)
    assert address.hostname is not None
    assert address.port is not None
    try:
        socket.create_connection((address.hostname, address.port), SECONDS).close()
    except ConnectionRefusedError:
        return False
    return True
