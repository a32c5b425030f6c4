"""A served CartPole: steps a second through `NativeSpaces`, to a bare client's calls.

    python -m benchmarks.served [--pairs 60]

Both play the same episodes in turn, a block each, and a block is timed without the
opening of its session. Where there are two cores the server has one and the client the
other.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import statistics
import time
from collections.abc import Callable
from typing import Any, Final

import gymnasium as gym

import ors_gym
from benchmarks.cores import keep_client, keep_server
from benchmarks.rows import Row, quartiles
from ors_gym.server import serve
from ors_gym.server._process import find_process
from ors_gym.wrappers import NativeSpaces

__all__ = ["measure"]

_STEPS: Final = 20
"""Steps of a block; the pole of every seed stands for so long."""


def _time_native(env: Any, seed: int) -> float:
    env.reset(seed=seed)
    start = time.perf_counter()
    for step in range(_STEPS):
        env.step(step % 2)
    return time.perf_counter() - start


def _time_bare(client: ors_gym.ORSClient, seed: int) -> float:
    with client.session("cartpole-v1", split="train", index=seed) as session:
        session.get_prompt()
        start = time.perf_counter()
        for step in range(_STEPS):
            session.call_tool("step", {"action": step % 2})
        return time.perf_counter() - start


def measure(pairs: int) -> list[Row]:
    """Compare the two.

    Args:
        pairs: How many pairs of blocks are counted.

    Returns:
        One row.
    """
    with serve("gymnasium:CartPole-v1") as base_url:
        if process := find_process(base_url):
            keep_server(process.pid)
        keep_client()
        client = ors_gym.ORSClient(base_url)
        there: dict[str, Any] = {"env_name": "cartpole-v1", "base_url": base_url}
        env = NativeSpaces(gym.make("ors/remote", **there))
        turns: list[Callable[[int], float]] = [
            lambda seed: _time_native(env, seed),
            lambda seed: _time_bare(client, seed),
        ]
        ratios = []
        for pair in range(pairs + 2):
            # Who is second must not always be the same.
            order = (0, 1) if pair % 2 else (1, 0)
            seconds = {turn: turns[turn](pair) for turn in order}
            ratios.append(seconds[1] / seconds[0])
        env.close()
        client.close()
    counted = ratios[2:]
    return [
        Row(
            "steps/s of NativeSpaces on a served CartPole to a bare client",
            statistics.median(counted),
            0.95,
            at_least=True,
            spread=quartiles(counted),
        )
    ]


def main() -> None:
    """Print the figure."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--pairs", type=int, default=60, help="default 60")
    parser.add_argument("--json", action="store_true", help="print the row as JSON")
    options = parser.parse_args()
    rows = measure(options.pairs)
    if options.json:
        print(json.dumps([dataclasses.asdict(row) for row in rows]))
        return
    for row in rows:
        print(f"{row.what}: {row.figure}, budget {row.budget}")


if __name__ == "__main__":
    main()
