"""A model learns while it plays: ``python -m benchmarks.async_grpo``.

``docs/examples/async_grpo.py``, a process for each seed. A third of the way the
server is killed, and started again while the trainer waits. Each model has to come to
nine tenths of what the player of reference earns.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import multiprocessing
import os
import runpy
import statistics
import threading
import time
from concurrent.futures import ProcessPoolExecutor
from typing import Any, Final

from benchmarks.grpo import Curve, draw, make_parser
from ors_gym.rollout import reference_policy, stream_groups
from ors_gym.server import serve

__all__ = ["learn", "main"]

_EXAMPLE: Final = "docs/examples/async_grpo.py"
_OUTAGE_SECONDS: Final = 2.0
_SHARE: Final = 0.9
_WINDOW: Final = 20


class _Server:
    """The embedded server on a port of its own, which can be away for a while."""

    def __init__(self) -> None:
        self._stack = contextlib.ExitStack()
        self.url = self._stack.enter_context(serve())
        self._port = int(self.url.rpartition(":")[2])

    def fail(self) -> None:
        """Go away, and come back on the same port."""
        self._stack.close()
        time.sleep(_OUTAGE_SECONDS)
        self._stack.enter_context(serve(port=self._port))

    def close(self) -> None:
        """End it."""
        self._stack.close()


async def _learn(curve: Curve, steps: int, until: float, server: _Server) -> list[int]:
    example: Any = runpy.run_path(_EXAMPLE)
    ages: list[int] = []
    outage = threading.Thread(target=server.fail)
    learning = example["learn"](server.url, curve.seed)
    async with contextlib.aclosing(learning):
        async for reward, stale in learning:
            curve.rewards.append(reward)
            ages.append(stale)
            if len(ages) == steps // 3:
                outage.start()
            if len(ages) % 20 == 0:
                said = f"  seed {curve.seed}, step {len(ages)}: {curve.end:.2f}"
                print(said, flush=True)
            has_learned = statistics.fmean(curve.rewards[-_WINDOW:]) >= until
            if len(ages) == steps or (has_learned and len(ages) > steps // 3):
                break
    outage.join()
    return ages


def learn(seed: int, steps: int, until: float = math.inf) -> tuple[Curve, list[int]]:
    """Train a model from random weights.

    Args:
        seed: Of everything that is random in the model.
        steps: Steps of training, at most.
        until: A mean reward of 20 steps after which no more is learned, but not before
            the outage.

    Returns:
        Its curve, and how many versions old the rollouts of each step were at most.
    """
    curve = Curve(seed)
    started = time.monotonic()
    with contextlib.closing(_Server()) as server:
        ages = asyncio.run(_learn(curve, steps, until, server))
    curve.seconds = time.monotonic() - started
    return curve, ages


async def _play_by_reference() -> float:
    player = reference_policy()
    async with stream_groups(None, "guess", range(200), player, n=1) as groups:
        return statistics.fmean([sum(group.rewards) async for group in groups])


def main() -> int:
    """Train the models side by side, and print and draw how they learned."""
    options = make_parser("async_grpo", __doc__, steps=320).parse_args()
    goal = _SHARE * asyncio.run(_play_by_reference())
    seeds = range(options.first_seed, options.first_seed + options.seeds)
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(os.cpu_count(), mp_context=spawn) as pool:
        learned = list(pool.map(learn, seeds, [options.steps] * len(seeds)))
    curves = [curve for curve, _ in learned]
    for curve, ages in learned:
        print(
            f"seed {curve.seed}: mean reward {curve.start:.2f} -> {curve.end:.2f} in "
            f"{len(curve.rewards)} steps, {curve.seconds:.0f} s, rollouts at most "
            f"{max(ages)} versions old"
        )
    if options.picture:
        draw(curves, options.picture, goal=goal)
    good = sum(curve.end >= goal for curve in curves)
    print(f"{good} of {len(curves)} reached {goal:.3f}")
    return 0 if good == len(curves) else 1


if __name__ == "__main__":
    raise SystemExit(main())
