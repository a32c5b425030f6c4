"""Play many episodes.

``python -m tests.system.simulation EPISODES`` plays random ones; ``--faults N`` every
sequence of up to N faults, and each fault for ever; ``--seed N`` one episode, with its
trace.
"""

import argparse
import functools
import itertools
import sys
import time
from collections.abc import Callable, Sequence

from tests.system.simulation import episodes
from tests.system.simulation.virtual_time import ViolationError

_BATCH = 10_000


def main(arguments: Sequence[str] | None = None) -> int:
    """Play what the command line asks for; 1 if the client broke its contract."""
    parser = argparse.ArgumentParser(prog="python -m tests.system.simulation")
    parser.add_argument("episodes", type=int, nargs="?", default=0)
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    parser.add_argument("--seed", type=int, help="play one episode and show its trace")
    parser.add_argument("--faults", type=int, help="every sequence of so many faults")
    parser.add_argument("--scenario", choices=episodes.SCENARIOS, help="for --faults")
    given = parser.parse_args(arguments)
    if given.seed is not None:
        _say(episodes.explain(episodes.random_episode(given.seed)))
        return 0
    try:
        if given.faults is not None:
            for name in [given.scenario] if given.scenario else episodes.SCENARIOS:
                _timed(name, functools.partial(_explore, name, given.faults))
        last = given.first + given.episodes
        for first in range(given.first, last, _BATCH):
            play = functools.partial(
                episodes.play_random, first, min(_BATCH, last - first)
            )
            _timed(f"from seed {first}", play)
    except ViolationError as error:
        _say(f"the contract was broken: {error}")
        return 1
    return 0


def _explore(name: str, depth: int) -> episodes.Tally:
    scenario = episodes.SCENARIOS[name]
    return episodes.tally_of(
        itertools.chain(episodes.endless(scenario), episodes.explore(scenario, depth))
    )


def _timed(what: str, play: Callable[[], episodes.Tally]) -> None:
    started = time.perf_counter()
    tally = play()
    took = time.perf_counter() - started
    _say(f"{what}: {tally}\n{took:.1f} s, {tally.episodes / took:,.0f} episodes/s\n")


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
