"""A proxy in a process of its own that breaks some of the replies.

    python -m benchmarks.breaking_proxy UPSTREAM PART

Prints its URL, and when its standard input ends, how many exchanges there were and how
many it broke, as JSON.
"""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from typing import Any

from tests.support.proxy.faults import (
    Answer,
    Chaos,
    Close,
    Fault,
    Point,
    Reset,
    Trickle,
    Truncate,
)
from tests.support.proxy.proxy import FaultProxy

__all__ = ["BreakingProxy", "breaking_proxy"]

_POINTS = [point for point in Point if point is not Point.BEFORE_REQUEST]
_FAULTS: list[Fault] = [
    *(Reset(point) for point in Point),
    *(Close(point) for point in Point),
    *(Truncate(point) for point in _POINTS),
    *(Answer(status, ran=True) for status in (500, 502, 504)),
    Answer(503),
    Trickle(),
]
_SEED = 7


class BreakingProxy:
    """The running proxy, seen from its parent.

    Args:
        process: The proxy's process.
        url: Where it listens.
    """

    def __init__(self, process: subprocess.Popen[str], url: str) -> None:
        self.url = url
        self._process = process

    def end(self) -> dict[str, Any]:
        """End the proxy; returns how many ``exchanges`` it saw and how many broke."""
        output, _ = self._process.communicate(timeout=30)
        counts: dict[str, Any] = json.loads(output)
        return counts


@contextlib.contextmanager
def breaking_proxy(upstream: str, part: float) -> Iterator[BreakingProxy]:
    """Run the proxy before a server.

    Args:
        upstream: The server's URL.
        part: The part of the exchanges that are broken.

    Yields:
        The proxy, listening.
    """
    command = [sys.executable, "-m", "benchmarks.breaking_proxy", upstream, str(part)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stdout is not None
            yield BreakingProxy(process, process.stdout.readline().strip())
        finally:
            process.kill()


class _Counter:
    """Counts exchanges, and forgets them: there may be very many."""

    def __init__(self, proxy: FaultProxy) -> None:
        self._proxy = proxy
        self.exchanges = 0
        self.broken = 0

    def count(self) -> None:
        done = [exchange for exchange in self._proxy.exchanges if exchange.done]
        for exchange in done:
            self._proxy.exchanges.remove(exchange)
        self.exchanges += len(done)
        self.broken += sum(exchange.struck for exchange in done)


def main(upstream: str, part: float) -> None:
    """Break replies until standard input ends."""
    with FaultProxy(upstream) as proxy:
        proxy.chaos(Chaos(_SEED, part, _FAULTS))
        print(proxy.url, flush=True)
        counter = _Counter(proxy)
        ended = threading.Event()

        def wait() -> None:
            sys.stdin.read()
            ended.set()

        threading.Thread(target=wait, daemon=True).start()
        while not ended.wait(0.5):
            counter.count()
        counter.count()
    print(json.dumps({"exchanges": counter.exchanges, "broken": counter.broken}))


if __name__ == "__main__":
    main(sys.argv[1], float(sys.argv[2]))
