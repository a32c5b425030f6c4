"""What rollouts cost beside the bare async client: `evaluate` and `stream_groups`.

    python -m benchmarks.rollouts [--rounds 7] [--rate SERVER] [--groups 100000]

CPU and rates are measured in short blocks in turn, bare client and rollouts, so that
how busy the machine is at the moment is the same for both. The rate is that on a server
of an SDK, whose tool does nothing. On the benchmarks' own server (``--rate loop``),
which is written in C and costs nearly nothing, it is the client's CPU that is compared:
a stream keeps a record of each call, and a bare client keeps none. ``--groups`` streams
so many groups and prints the memory at a tenth of them and at the end.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import pathlib
import random
import resource
import statistics
import sys
import time
from collections.abc import Awaitable, Callable
from typing import Any, Final

from benchmarks.cores import keep_client, keep_server
from benchmarks.loopserver import loopserver
from benchmarks.rows import Row, quartiles
from ors_gym import AsyncORSClient
from ors_gym.evaluation import parallel_evaluate
from ors_gym.rollout import Episode, stream_groups
from tests.support.servers.process import start_server

__all__ = ["measure", "stream_many"]

_CALLS: Final = 16
"""Tool calls of an episode."""
_SESSIONS: Final = 64
_IN_FLIGHT: Final = 256
_THINK: Final[Any] = {"tool": "think", "input": {"thought": "x"}}
_ADD: Final[Any] = {"tool": "add", "input": {"a": 1, "b": 2}}
_MEAN_SECONDS: Final = 2.0
_TURNS: Final = 8
_RATE_SERVER: Final = "ors-sdk-0.1.0"
_LOOP: Final = "loop"

Block = Callable[[], Awaitable[None]]


async def _bare(
    client: AsyncORSClient, environment: str, call: Any, sessions: int, episodes: int
) -> None:
    """Play a block by the client alone, with the requests that rollouts send."""
    left = iter(range(episodes))

    async def work() -> None:
        for _ in left:
            async with client.session(environment, split="train", index=0) as session:
                await session.get_prompt()
                await session.list_tools()
                for _ in range(_CALLS):
                    await session.call_tool(call["tool"], call["input"])

    await asyncio.gather(*(work() for _ in range(sessions)))


async def _evaluated(
    client: AsyncORSClient, environment: str, policy: Any, episodes: int
) -> None:
    found = await parallel_evaluate(
        client,
        environment,
        [0],
        policy,
        max_concurrent=_SESSIONS,
        episodes_per_task=episodes,
        max_turns=_CALLS,
        split="train",
        progress=False,
    )
    if found.outcomes != episodes:
        raise RuntimeError(f"episodes without an outcome: {found.errors}")


async def _streamed(
    client: AsyncORSClient, environment: str, call: Any, episodes: int
) -> None:
    async def policy(_: Episode) -> Any:
        return call

    stream = stream_groups(
        client,
        environment,
        itertools.repeat(0, episodes // 8),
        policy,
        n=8,
        max_concurrent=_IN_FLIGHT,
        max_turns=_CALLS,
        split="train",
    )
    async for group in stream:
        if not group.complete:
            raise RuntimeError(f"a group lacks outcomes: {group.lost[0].error}")


async def _compare(
    blocks: dict[str, Block], rounds: int, clock: Callable[[], float]
) -> dict[str, list[float]]:
    """Return what each kind took, in blocks in turn."""
    taken: dict[str, list[float]] = {kind: [] for kind in blocks}
    for turn in range(rounds + 1):
        for kind, play in blocks.items():
            start = clock()
            await play()
            if turn:
                taken[kind].append(clock() - start)
    return taken


async def _measure_cpu(rounds: int) -> list[Row]:
    """Measure the CPU of a call of `evaluate`, beside the bare client's."""

    async def asynchronous(_: Episode) -> Any:
        return _THINK

    def plain(_: Episode) -> Any:
        return _THINK

    episodes = 2 * _SESSIONS
    with loopserver() as url:
        async with AsyncORSClient(url) as client:
            blocks: dict[str, Block] = {
                "bare": lambda: _bare(client, "math", _THINK, _SESSIONS, episodes),
                "async": lambda: _evaluated(client, "math", asynchronous, episodes),
                "plain": lambda: _evaluated(client, "math", plain, episodes),
            }
            taken = await _compare(blocks, rounds, time.process_time)
    rows = []
    for kind, limit in (("async", 1.6), ("plain", 2.5)):
        ratios = [a / b for a, b in zip(taken[kind], taken["bare"], strict=True)]
        what = f"CPU per call of evaluate, {kind} policy, to the bare client"
        ratio = statistics.median(ratios)
        rows.append(Row(what, ratio, limit, spread=quartiles(ratios)))
    return rows


def _measure_rate(name: str, rounds: int) -> Row:
    """Measure calls a second of a stream on a server, beside the bare client's."""
    if name == _LOOP:
        with loopserver() as url:
            ratios = asyncio.run(_compare_rates(url, "math", _THINK, rounds))
    else:
        with start_server(name, environments=["Contract"]) as server:
            keep_server(server.pid)
            url = server.base_url
            ratios = asyncio.run(_compare_rates(url, "contract", _ADD, rounds))
    what = f"calls/s of stream_groups, {_IN_FLIGHT} on {name}, to the bare client"
    ratio = statistics.median(ratios)
    return Row(what, ratio, 0.9, at_least=True, spread=quartiles(ratios))


async def _compare_rates(
    url: str, environment: str, call: Any, rounds: int
) -> list[float]:
    episodes = 2 * _IN_FLIGHT
    async with AsyncORSClient(url) as client:
        blocks: dict[str, Block] = {
            "bare": lambda: _bare(client, environment, call, _IN_FLIGHT, episodes),
            "stream": lambda: _streamed(client, environment, call, episodes),
        }
        taken = await _compare(blocks, rounds, time.perf_counter)
    return [a / b for a, b in zip(taken["bare"], taken["stream"], strict=True)]


async def _measure_utilisation(seconds: float) -> Row:
    """Measure turns a second where generation times are log-normal."""
    chance = random.Random(0)
    turns = 0

    async def policy(_: Episode) -> Any:
        nonlocal turns
        # The mean of a log-normal of sigma 1 is the root of e.
        await asyncio.sleep(_MEAN_SECONDS * chance.lognormvariate(-0.5, 1.0))
        turns += 1
        return _THINK

    with loopserver() as url:
        stream = stream_groups(
            *(url, "math", itertools.repeat(0), policy),
            n=8,
            max_concurrent=_IN_FLIGHT,
            max_turns=_TURNS,
            split="train",
        )
        async with stream:
            for _ in range(_IN_FLIGHT // 8):
                await anext(stream)
            before, start = turns, time.perf_counter()
            while time.perf_counter() - start < seconds:
                await anext(stream)
            rate = (turns - before) / (time.perf_counter() - start)
    what = "turns/s of stream_groups, log-normal generation, to N / mean"
    return Row(what, rate * _MEAN_SECONDS / _IN_FLIGHT, 0.95, at_least=True)


async def stream_many(groups: int) -> tuple[float, float]:
    """Stream groups of two episodes of one call.

    Returns:
        Resident memory in MB after a tenth of them, and at the end.
    """

    async def policy(_: Episode) -> Any:
        return _THINK

    early = 0.0
    with loopserver() as url:
        stream = stream_groups(
            *(url, "math", itertools.repeat(0, groups), policy),
            n=2,
            max_concurrent=64,
            max_turns=1,
            split="train",
        )
        taken = 0
        async for group in stream:
            taken += group.complete
            if taken == groups // 10:
                early = _memory()
    if taken != groups:
        raise RuntimeError(f"{taken} of {groups} groups are complete")
    return early, _memory()


def _memory() -> float:
    """Return the resident memory in MB."""
    statm = pathlib.Path("/proc/self/statm").read_text(encoding="ascii").split()
    return int(statm[1]) * resource.getpagesize() / 2**20


def measure(rounds: int) -> list[Row]:
    """Return all rows."""
    # A block takes a fifth of a second, in which another process may run for a part.
    rows = asyncio.run(_measure_cpu(6 * rounds))
    # A block takes the server many seconds.
    rows.append(_measure_rate(_RATE_SERVER, max(3, rounds // 2)))
    rows.append(asyncio.run(_measure_utilisation(6.0 * rounds)))
    return rows


def main() -> int:
    """Print the rows, or the memory of many groups.

    Returns:
        The exit status.
    """
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument(
        "--rate", help=f"only the rate, on {_RATE_SERVER}, {_LOOP}, ..."
    )
    parser.add_argument("--groups", type=int, default=0, help="stream so many")
    options = parser.parse_args()
    keep_client()
    if options.groups:
        early, late = asyncio.run(stream_many(options.groups))
        print(f"{options.groups} groups: {early:.1f} MB after a tenth, then {late:.1f}")
        return 0 if late < 1.1 * early else 1
    rows = (
        [_measure_rate(options.rate, options.rounds)]
        if options.rate
        else measure(options.rounds)
    )
    for row in rows:
        verdict = "met" if row.met else "FAILED"
        print(f"{row.what}  {row.figure}  budget {row.budget}  {verdict}")
    return 0 if all(row.met for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
