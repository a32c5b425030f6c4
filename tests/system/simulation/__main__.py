"""Play many episodes.

``python -m tests.system.simulation EPISODES`` plays random ones; ``--faults N`` every
sequence of up to N faults, and each fault for ever; ``--seed N`` one episode, with its
trace. The work is shared by as many processes as there are cores.
"""

import argparse
import concurrent.futures
import functools
import sys
import time
from collections.abc import Callable, Sequence
from typing import TypeAlias

from tests.system.simulation import episodes
from tests.system.simulation.virtual_time import ViolationError

_BATCH = 5_000

Work: TypeAlias = Callable[[], episodes.Tally]


def main(arguments: Sequence[str] | None = None) -> int:
    """Play what the command line asks for; 1 if the client broke its contract."""
    parser = argparse.ArgumentParser(prog="python -m tests.system.simulation")
    parser.add_argument("episodes", type=int, nargs="?", default=0)
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    parser.add_argument("--seed", type=int, help="play one episode and show its trace")
    parser.add_argument("--faults", type=int, help="every sequence of so many faults")
    parser.add_argument("--scenario", choices=episodes.SCENARIOS, help="for --faults")
    parser.add_argument("--processes", type=int, help="as many as there are cores")
    given = parser.parse_args(arguments)
    if given.seed is not None:
        _say(episodes.explain(episodes.random_episode(given.seed)))
        return 0
    with concurrent.futures.ProcessPoolExecutor(given.processes) as pool:
        try:
            if given.faults is not None:
                for name in [given.scenario] if given.scenario else episodes.SCENARIOS:
                    _timed(pool, name, _explore(name, given.faults))
            if given.episodes:
                last = given.first + given.episodes
                work = [
                    functools.partial(
                        episodes.play_random, first, min(_BATCH, last - first)
                    )
                    for first in range(given.first, last, _BATCH)
                ]
                _timed(pool, f"seeds {given.first:,} to {last - 1:,}", work)
        except ViolationError as error:
            pool.shutdown(cancel_futures=True)
            _say(f"the contract was broken: {error}")
            return 1
    return 0


def _explore(name: str, depth: int) -> list[Work]:
    """Return pieces of the work, one for each exchange that the first fault hurts."""
    scenario = episodes.SCENARIOS[name]
    exchanges = episodes.checked(scenario).exchanges
    numbers = range(exchanges if depth else 0)
    return [
        functools.partial(_play_endless, name),
        *(functools.partial(_explore_at, name, depth, number) for number in numbers),
    ]


def _play_endless(name: str) -> episodes.Tally:
    return episodes.tally_of(episodes.endless(episodes.SCENARIOS[name]))


def _explore_at(name: str, depth: int, number: int) -> episodes.Tally:
    scenario = episodes.SCENARIOS[name]
    return episodes.tally_of(episodes.explore_at(scenario, depth, number, {}))


def _timed(
    pool: concurrent.futures.Executor, what: str, pieces: Sequence[Work]
) -> None:
    started = time.perf_counter()
    tally = episodes.Tally()
    for future in [pool.submit(piece) for piece in pieces]:
        tally += future.result()
    took = time.perf_counter() - started
    _say(f"{what}: {tally}\n{took:.1f} s, {tally.episodes / took:,.0f} episodes/s\n")


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
