"""`ORSVectorEnv`: CPU of a lockstep step, and what send and recv make of uneven tools.

    python -m benchmarks.vector [--rounds 15] [--steps 20]

The CPU of a step is measured per env, beside that of a raw asyncio exchange of the same
bytes, in each round one after the other; the figures are medians over the rounds.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import heapq
import json
import random
import statistics
import time
import urllib.parse
from collections.abc import Callable
from typing import Any

from benchmarks.loopserver import loopserver
from benchmarks.rows import Row
from benchmarks.tool_time_server import tool_time_server
from ors_gym.vector import ORSVectorEnv

__all__ = ["lockstep_cpu", "measure", "send_recv_efficiency"]

_ENVS = (64, 256)
_CALL = {"tool": "think", "input": {"answer": "4"}}
_END = b"event: end\r\ndata: "


class _RawExchange(asyncio.Protocol):
    """The least that calls a tool on an event loop, with nothing checked."""

    def __init__(self, host: str) -> None:
        self._reply = b""
        self._waiter: asyncio.Future[bytes] | None = None
        self._transport: Any = None
        self._head = (
            f"POST /math/call HTTP/1.1\r\nHost: {host}\r\n"
            "X-Session-ID: 8c5a4a2e-9b1e-4a53-9d51-2f2f0f1c7a11\r\n"
            "Content-Type: application/json\r\nAccept: text/event-stream\r\n"
        ).encode()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._reply += data
        if self._reply.endswith(b"\r\n0\r\n\r\n") and self._waiter is not None:
            self._waiter.set_result(self._reply)

    async def call(self) -> Any:
        body = json.dumps({"name": _CALL["tool"], "input": _CALL["input"]}).encode()
        self._reply = b""
        self._waiter = asyncio.get_running_loop().create_future()
        self._transport.write(
            b"%bContent-Length: %d\r\n\r\n%b" % (self._head, len(body), body)
        )
        reply = await self._waiter
        start = reply.index(_END) + len(_END)
        return json.loads(reply[start : reply.index(b"\r\n", start)])


def _raw_steps(runner: asyncio.Runner, url: str, count: int) -> Callable[[int], None]:
    """Return what does so many lockstep steps with raw asyncio exchanges."""
    address = urllib.parse.urlsplit(url)
    host, port = str(address.hostname), address.port or 80
    loop = runner.get_loop()

    async def connect() -> list[_RawExchange]:
        made = [
            loop.create_connection(lambda: _RawExchange(address.netloc), host, port)
            for _ in range(count)
        ]
        return [protocol for _, protocol in await asyncio.gather(*made)]

    exchanges = runner.run(connect())

    async def step() -> None:
        await asyncio.gather(*(exchange.call() for exchange in exchanges))

    def steps(number: int) -> None:
        for _ in range(number):
            runner.run(step())

    return steps


def _vector_steps(stack: contextlib.ExitStack, url: str, count: int) -> Any:
    """Return what does so many lockstep steps with a vector env."""
    envs = ORSVectorEnv("math", url, count)
    stack.callback(envs.close)
    envs.reset(seed=0)
    actions = [_CALL] * count

    def steps(number: int) -> None:
        for _ in range(number):
            envs.step(actions)

    return steps


def _sent_and_received(stack: contextlib.ExitStack, url: str, count: int) -> Any:
    """Return what does as many steps with send and recv."""
    envs = ORSVectorEnv("math", url, count)
    stack.callback(envs.close)
    envs.reset(seed=0)

    def steps(number: int) -> None:
        envs.send([_CALL] * count)
        left = number * count
        sent = count
        while left:
            ids = envs.recv()[4]["env_id"][:left]
            left -= len(ids)
            again = ids[: number * count - sent]
            sent += len(again)
            if len(again):
                envs.send([_CALL] * len(again), again)

    return steps


def lockstep_cpu(rounds: int, steps: int) -> dict[str, float]:
    """Measure CPU microseconds per env and step.

    Args:
        rounds: How often all rows are measured.
        steps: Steps of 64 envs in each measurement, or as many exchanges.

    Returns:
        Medians by row.
    """
    rows: dict[str, tuple[Callable[[int], None], int]] = {}
    with (
        loopserver() as url,
        asyncio.Runner() as runner,
        contextlib.ExitStack() as stack,
    ):
        for count in _ENVS:
            rows[f"raw asyncio, {count}"] = _raw_steps(runner, url, count), count
            rows[f"step, {count}"] = _vector_steps(stack, url, count), count
            rows[f"send/recv, {count}"] = _sent_and_received(stack, url, count), count
        times: dict[str, list[float]] = {name: [] for name in rows}
        for number in range(rounds + 1):
            for name, (run, count) in rows.items():
                repeats = max(steps * _ENVS[0] // count, 1)
                start = time.process_time()
                run(repeats)
                spent = (time.process_time() - start) / (repeats * count) * 1e6
                if number:
                    times[name].append(spent)
    return {name: statistics.median(values) for name, values in times.items()}


def send_recv_efficiency(count: int, calls: int, mean: float) -> float:
    """Measure the throughput of send and recv with log-normal tool times.

    Args:
        count: The number of envs.
        calls: How many calls each of them makes on average.
        mean: Seconds that a call takes on average.

    Returns:
        Calls per second, to those of as many envs that never wait for another.
    """
    draw = random.Random(1)
    seconds: list[float] = []

    def action() -> dict[str, Any]:
        # exp(-1/2) makes the mean of this log-normal 1.
        seconds.append(mean * draw.lognormvariate(-0.5, 1.0))
        return {"tool": "wait", "input": {"seconds": seconds[-1]}}

    with tool_time_server() as url:
        envs = ORSVectorEnv("e", url, count)
        try:
            envs.reset(seed=0)
            start = time.monotonic()
            envs.send([action() for _ in range(count)])
            received = 0
            while received < count * calls:
                ids = envs.recv()[4]["env_id"]
                received += len(ids)
                envs.send([action() for _ in ids], ids)
            elapsed = time.monotonic() - start
        finally:
            envs.close()
    return _ideal_seconds(seconds, count, received) / elapsed


def _ideal_seconds(seconds: list[float], count: int, calls: int) -> float:
    """Return when so many calls are over, if nobody ever waits for another."""
    free = seconds[:count]
    heapq.heapify(free)
    now = 0.0
    for following in seconds[count : count + calls]:
        now = heapq.heapreplace(free, free[0] + following)
    return now


def measure(rounds: int, steps: int) -> tuple[list[Row], dict[str, float]]:
    """Measure what the design promises of vector envs.

    Args:
        rounds: How often the CPU is measured.
        steps: Steps of 64 envs in each measurement.

    Returns:
        The promises, and the CPU in microseconds of each way to step.
    """
    cpu = lockstep_cpu(rounds, steps)
    rows = [
        Row(
            f"CPU per env of a lockstep step, {count} envs, to raw asyncio",
            cpu[f"step, {count}"] / cpu[f"raw asyncio, {count}"],
            2.5,
        )
        for count in _ENVS
    ]
    for count in _ENVS:
        share = send_recv_efficiency(count, 15, 0.2)
        what = f"send/recv of {count} envs, log-normal tools, to the ideal"
        rows.append(Row(what, share, 0.9, at_least=True))
    return rows, cpu


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--steps", type=int, default=20)
    options = parser.parse_args()
    rows, cpu = measure(options.rounds, options.steps)
    print(f"{'CPU us per env and step':28}{'us':>8}{'to raw':>8}")
    for name, value in cpu.items():
        raw = cpu[f"raw asyncio, {name.rpartition(' ')[2]}"]
        print(f"{name + ' envs':28}{value:8.1f}{value / raw:7.2f}x")
    for row in rows:
        print(f"{row.what}: {row.value:.3f}, budget {row.budget}")


if __name__ == "__main__":
    main()
