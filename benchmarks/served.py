"""A served CartPole: steps a second through `NativeSpaces`, to a bare client's calls.

    python -m benchmarks.served [--pairs 60]

Both play the same episodes in turn, a block each, without the opening of the session.
Client and server wait for each other, so the time of a step is that of the one and of
the other: the CPU of both is counted, and other work of the machine does not matter.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from typing import Any, Final, TypeAlias

import gymnasium as gym

import ors_gym
from benchmarks.real_server import cpu_seconds
from benchmarks.rows import Row
from ors_gym.server import serve
from ors_gym.server._process import find_process
from ors_gym.wrappers import NativeSpaces

__all__ = ["measure"]

_STEPS: Final = 20
"""Steps of a block; the pole of every seed stands for so long."""
Costs: TypeAlias = tuple[float, float]
"""Seconds of CPU of the client and of the server."""
Clock: TypeAlias = Callable[[], Costs]


def _play_native(env: Any, seed: int, clock: Clock) -> Costs:
    env.reset(seed=seed)
    start = clock()
    for step in range(_STEPS):
        env.step(step % 2)
    costs = _since(start, clock)
    # The next block does not pay for the end of this session.
    env.unwrapped.leave()
    return costs


def _play_bare(client: ors_gym.ORSClient, seed: int, clock: Clock) -> Costs:
    with client.session("cartpole-v1", split="train", index=seed) as session:
        session.get_prompt()
        start = clock()
        for step in range(_STEPS):
            session.call_tool("step", {"action": step % 2})
        return _since(start, clock)


def _since(start: Costs, clock: Clock) -> Costs:
    client, server = clock()
    return client - start[0], server - start[1]


def measure(pairs: int) -> list[Row]:
    """Compare the two.

    Args:
        pairs: How many pairs of blocks are counted.

    Returns:
        One row.
    """
    native, bare = [], []
    with serve("gymnasium:CartPole-v1") as base_url:
        process = find_process(base_url)
        assert process is not None

        def clock() -> Costs:
            return time.process_time(), cpu_seconds(process.pid)

        client = ors_gym.ORSClient(base_url)
        there: dict[str, Any] = {"env_name": "cartpole-v1", "base_url": base_url}
        env = NativeSpaces(gym.make("ors/remote", **there))
        for pair in range(pairs):
            native.append(_play_native(env, pair, clock))
            bare.append(_play_bare(client, pair, clock))
        env.close()
        client.close()
    # The server is asked for the same by both.
    server = statistics.median(cost for _, cost in native + bare)
    ours, theirs = (
        server + statistics.median(cost for cost, _ in costs)
        for costs in (native, bare)
    )
    what = "steps/s of NativeSpaces on a served CartPole to a bare client"
    return [Row(what, theirs / ours, 0.95, at_least=True)]


def main() -> None:
    """Print the figure."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--pairs", type=int, default=60, help="default 60")
    for row in measure(parser.parse_args().pairs):
        print(f"{row.what}: {row.figure}, budget {row.budget}")


if __name__ == "__main__":
    main()
