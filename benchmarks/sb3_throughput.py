"""SB3 with tools that take 20 ms: ``python -m benchmarks.sb3_throughput``.

Steps per second through `ORSVecEnv` and through SB3's own ``DummyVecEnv`` over as many
single envs, on one server, in turns; and the most that there can be, which is as many
steps at once as there are envs. It needs the extra ``sb3``; the virtual environment
that ``python -m tests.integrations.venvs training`` makes has it.
"""

from __future__ import annotations

import argparse
import statistics
import time
from typing import Any, Final

import numpy as np
from gymnasium.spaces import Box
from stable_baselines3.common.vec_env import DummyVecEnv, VecEnv

from benchmarks.tool_time_server import tool_time_server
from ors_gym import ORSEnv, ORSVectorEnv, wrappers
from ors_gym.integrations.sb3 import ORSVecEnv

__all__ = ["compare"]

_EPISODE_STEPS: Final = 50


def _view(env: Any, views: Any, seconds: float) -> Any:
    calls = [{"tool": "wait", "input": {"seconds": seconds}}]
    env = views.ParsedText(env, len, Box(0, 1e6, (1,), np.float32))
    return views.DiscreteTools(env, calls)


def _make_dummy(url: str, count: int, seconds: float) -> Any:
    def make() -> Any:
        env = ORSEnv("e", url, max_episode_steps=_EPISODE_STEPS)
        return _view(env, wrappers, seconds)

    return DummyVecEnv([make] * count)


def _make_ours(url: str, count: int, seconds: float) -> Any:
    envs = ORSVectorEnv(
        "e",
        url,
        count,
        max_episode_steps=_EPISODE_STEPS,
        autoreset_mode="SameStep",
    )
    return ORSVecEnv(_view(envs, wrappers.vector, seconds))


def _steps_per_second(env: VecEnv, steps: int) -> float:
    actions = np.zeros(env.num_envs, np.int64)
    start = time.perf_counter()
    for _ in range(steps):
        env.step(actions)
    return float(steps * env.num_envs / (time.perf_counter() - start))


def compare(
    url: str, count: int, *, seconds: float = 0.02, steps: int = 25, rounds: int = 3
) -> tuple[float, float]:
    """Measure both, one after the other in each round.

    Args:
        url: A `tool_time_server`.
        count: How many envs.
        seconds: How long a tool takes.
        steps: Steps of each env in a round; fewer through SB3's, which takes as many
            times longer as there are envs.
        rounds: How many rounds.

    Returns:
        Steps per second of all envs together, through SB3's and through ours: the
        medians of the rounds.
    """
    envs = _make_dummy(url, count, seconds), _make_ours(url, count, seconds)
    counts = max(1, 8 * steps // count), steps
    rates: tuple[list[float], list[float]] = [], []
    for env in envs:
        env.reset()
    for _ in range(rounds):
        for env, number, measured in zip(envs, counts, rates, strict=True):
            measured.append(_steps_per_second(env, number))
    for env in envs:
        env.close()
    return statistics.median(rates[0]), statistics.median(rates[1])


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.sb3_throughput")
    parser.add_argument("--envs", type=int, nargs="+", default=[1, 8, 32, 128])
    parser.add_argument("--seconds", type=float, default=0.02, help="of a tool")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    print(f"steps/s, tools of {1000 * options.seconds:.0f} ms")
    print("envs  DummyVecEnv  ORSVecEnv  ratio  of the most possible")
    with tool_time_server() as url:
        for count in options.envs:
            theirs, ours = compare(
                url, count, seconds=options.seconds, rounds=options.rounds
            )
            share = ours * options.seconds / count
            print(f"{count:4} {theirs:12.0f} {ours:10.0f}", end="")
            print(f" {ours / theirs:6.1f} {share:11.0%}", flush=True)


if __name__ == "__main__":
    main()
