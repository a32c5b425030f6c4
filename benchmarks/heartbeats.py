"""What a thousand idle sessions cost: the CPU of this process while they are pinged.

    python -m benchmarks.heartbeats [--sessions 1000] [--seconds 60]

The server is in a process of its own and is not counted. The pings come every 45
seconds, as they do by default.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import subprocess
import sys
import threading
import time
from collections.abc import Iterator

import ors_gym
from tests.system.faults.scripted_ors import scripted_ors

__all__ = ["Cost", "measure"]


@dataclasses.dataclass(frozen=True)
class Cost:
    """What was measured.

    Args:
        sessions: How many were idle.
        seconds: For how long.
        cpu: Seconds of CPU that this process took meanwhile.
        pings: How many pings the server got, from the first session's opening on.
    """

    sessions: int
    seconds: float
    cpu: float
    pings: int


class _Server:
    """A server in a process of its own."""

    def __init__(self, process: subprocess.Popen[str], url: str) -> None:
        self.url = url
        self._process = process

    def end(self) -> int:
        """End it; returns how many pings it got."""
        output, _ = self._process.communicate(timeout=30)
        return int(output)


@contextlib.contextmanager
def _server() -> Iterator[_Server]:
    command = [sys.executable, "-m", "benchmarks.heartbeats", "--serve"]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stdout is not None
            yield _Server(process, process.stdout.readline().strip())
        finally:
            process.kill()


def _serve() -> None:
    with scripted_ors() as server:
        print(server.url, flush=True)
        sys.stdin.read()
        print(sum(request.path == "/ping" for request in server.requests))


def measure(sessions: int, seconds: float) -> Cost:
    """Open sessions, leave them idle, and count the CPU.

    Args:
        sessions: How many.
        seconds: How long.

    Returns:
        The cost.
    """
    with _server() as server, ors_gym.ORSClient(server.url) as client:
        idle = []
        for _ in range(sessions):
            session = client.session("box", split="train", index=0).open()
            session.get_prompt()
            idle.append(session)
        started, before = time.monotonic(), time.process_time()
        threading.Event().wait(seconds)
        cpu = time.process_time() - before
        took = time.monotonic() - started
        pings = server.end()
        for session in idle:
            # There is nobody any more whom a delete would reach.
            session.state.closed = True
    return Cost(sessions, took, cpu, pings)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sessions", type=int, default=1000)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.serve:
        _serve()
        return
    cost = measure(given.sessions, given.seconds)
    print(
        f"{cost.sessions} idle sessions for {cost.seconds:.0f} s: {cost.pings} pings, "
        f"{cost.cpu:.3f} s of CPU, {cost.cpu / cost.seconds:.2%} of a core"
    )


if __name__ == "__main__":
    main()
