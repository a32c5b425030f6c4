"""Rollouts per second through our factory and through TRL's own adapter.

``python -m benchmarks.trl_throughput``. Both do what GRPOTrainer does with an
``environment_factory``: reset every rollout of a batch in turn, call a tool in each and
ask for the rewards. They take turns against the same server, so that whatever else the
machine does meets both. TRL's adapter needs the package ``openreward`` beside the extra
``trl``, and name resolution patched here: its client calls ``sessions.localhost``.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import dataclasses
import json
import pathlib
import socket
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final

from ors_gym.integrations.trl import trl_environment
from ors_gym.server import BUNDLED, serve
from ors_gym.server.environments.math import Math

__all__ = ["Batch", "SlowMath", "main", "measure"]

_TASKS: Final = 4
_GROUP: Final = 16
_SETUP_SECONDS: Final = 0.2
_PREFIX: Final = "sessions."


class SlowMath(Math):
    """``math`` with a set-up that takes a while and leaves the server free."""

    served_name = "slowmath"

    async def setup(self) -> None:
        """Wait, as for a container."""
        await asyncio.sleep(_SETUP_SECONDS)


@dataclasses.dataclass
class Batch:
    """Rollouts as a trainer plays them, through one adapter.

    Args:
        name: The adapter's.
        environments: The trainer's pool, made once and reset often.
        score: Its reward function.
        rates: Rollouts per second, a figure a round.
    """

    name: str
    environments: Sequence[Any]
    score: Callable[..., list[float | None]]
    rates: list[float] = dataclasses.field(default_factory=list)

    def play(self) -> None:
        """Play a batch and note how quick it was."""
        started = time.perf_counter()
        for number, environment in enumerate(self.environments):
            environment.reset(task_index=number // _GROUP)
        for environment in self.environments:
            environment.submit(answer="7")
        rewards = self.score(environments=self.environments)
        seconds = time.perf_counter() - started
        if any(reward is None for reward in rewards):
            raise RuntimeError(f"{self.name}: rollouts were lost")
        self.rates.append(len(self.environments) / seconds)


@contextlib.contextmanager
def _sessions_host() -> Iterator[None]:
    """Let ``sessions.localhost`` be this machine."""
    original = socket.getaddrinfo

    def resolve(host: Any, *rest: Any, **named: Any) -> Any:
        if isinstance(host, str):
            host = host.removeprefix(_PREFIX)
        return original(host, *rest, **named)

    socket.getaddrinfo = resolve
    try:
        yield
    finally:
        socket.getaddrinfo = original


def _make_batches(base_url: str, env_name: str, tasks: int) -> list[Batch]:
    """Make the batches of every adapter that is installed."""
    count = tasks * _GROUP
    batches = []
    for name, group in (("ours, in turn", 1), ("ours, in groups", _GROUP)):
        made = trl_environment(
            env_name, base_url, tasks=range(tasks), num_generations=group
        )
        rollouts = [made.environment_factory() for _ in range(count)]
        batches.append(Batch(name, rollouts, made.reward_funcs[0]))
    try:
        from trl.experimental.openreward import OpenRewardSpec

        spec = OpenRewardSpec(base_url, indices=list(range(tasks)))
        rollouts = [spec.environment_factory() for _ in range(count)]
    except ImportError as error:
        print(f"without TRL's own adapter: {error}")
    else:
        batches.append(Batch("TRL's own", rollouts, spec.reward_funcs))
    return batches


def measure(environment: Any, env_name: str, tasks: int, rounds: int) -> list[Batch]:
    """Measure every adapter, in turns.

    Args:
        environment: The environment that is served, the server's only one.
        env_name: Its name.
        tasks: Groups in a batch.
        rounds: Batches of each, after one that does not count.

    Returns:
        The adapters with their rates.
    """
    with serve(environment) as address, _sessions_host():
        batches = _make_batches(
            address.replace("127.0.0.1", "localhost"), env_name, tasks
        )
        for number in range(rounds + 1):
            for batch in batches:
                batch.play()
                if number == 0:
                    batch.rates.clear()
        for rollout in batches[-1].environments:
            # TRL closes nothing, and its client would ping on without a server.
            getattr(rollout, "_close", lambda: None)()
    return batches


def main() -> None:
    """Measure, print, and write the figures if asked to."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.trl_throughput", description=__doc__
    )
    parser.add_argument("--rounds", type=int, default=5, help="batches; default 5")
    parser.add_argument("--json", type=pathlib.Path, help="write the figures here")
    options = parser.parse_args()
    cases = {
        f"a batch of {_TASKS} x {_GROUP}, no set-up": (BUNDLED["math"], "math", _TASKS),
        f"a group of {_GROUP}, {_SETUP_SECONDS} s of set-up": (SlowMath, "slowmath", 1),
    }
    record = {}
    for case, (environment, env_name, tasks) in cases.items():
        batches = measure(environment, env_name, tasks, options.rounds)
        record[case] = {batch.name: batch.rates for batch in batches}
        slowest = statistics.median(batches[-1].rates)
        for batch in batches:
            rate = statistics.median(batch.rates)
            print(
                f"{case}: {batch.name:16} {rate:7.1f} rollouts/s "
                f"({rate / slowest:.1f}x {batches[-1].name})"
            )
    if options.json:
        options.json.write_text(json.dumps(record, indent=2) + "\n")


if __name__ == "__main__":
    main()
