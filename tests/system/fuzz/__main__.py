"""Fuzz for a while: ``python -m tests.system.fuzz SECONDS [replies files schemas]``.

It goes from one to the next, prints how many inputs each had and what came of them, and
stops at the first failure with the input that shows it.
"""

import argparse
import json
import sys
import time
from collections.abc import Callable, Sequence
from random import Random
from typing import Final

from tests.system.fuzz import files, replies, schemas
from tests.system.fuzz.tally import FuzzError, Tally

FUZZERS: Final[dict[str, Callable[[Random, Tally], None]]] = {
    "replies": replies.play,
    "files": files.play,
    "schemas": schemas.play,
}


def fuzz(what: str, seconds: float, seed: int, most: int | None = None) -> Tally:
    play = FUZZERS[what]
    random = Random(seed)
    tally = Tally()
    began = time.monotonic()
    while tally.inputs != most and time.monotonic() - began < seconds:
        play(random, tally)
        tally.inputs += 1
    tally.seconds = time.monotonic() - began
    return tally


def main(arguments: Sequence[str] | None = None) -> int:
    """Fuzz as long as the command line says; 1 if something failed."""
    parser = argparse.ArgumentParser(prog="python -m tests.system.fuzz")
    parser.add_argument("seconds", type=float, help="for each")
    parser.add_argument("what", nargs="*", help=f"{', '.join(FUZZERS)}; default: all")
    parser.add_argument("--seed", type=int, default=None)
    given = parser.parse_args(arguments)
    if unknown := set(given.what) - FUZZERS.keys():
        parser.error(f"there is no fuzzer for {', '.join(sorted(unknown))}")
    seed = time.time_ns() if given.seed is None else given.seed
    for what in given.what or FUZZERS:
        try:
            tally = fuzz(what, given.seconds, seed)
        except FuzzError as error:
            sys.stdout.write(f"{what}, seed {seed}: {error}\n")
            return 1
        counts = json.dumps(dict(sorted(tally.outcomes.items())), indent=1)
        rate = tally.inputs / max(tally.seconds, 1e-9)
        sys.stdout.write(
            f"{what}, seed {seed}: {tally.inputs:,} inputs in {tally.seconds:.1f} s "
            f"({rate:,.0f}/s)\n{counts}\n"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
