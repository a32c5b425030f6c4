"""An interrupt at any place where CPython looks for signals: docs/wire.md, point 14.

    python -m tests.system.interrupts [env|prefetch|vector] [every n-th place]
        [--first PLACE]

plays a whole episode for each place, from the constructor to the close. Every place
takes ten minutes of env and of prefetch, and half an hour of vector; the tests take a
sample.
"""

import argparse
import contextlib
import faulthandler
import gc
import logging
import sys
import warnings
from collections.abc import Callable, Iterator
from typing import Any, Final

import ors_gym
from ors_gym.client.background import background
from ors_gym.vector._loop import SlotLoop
from tests.support.interrupts import Interrupt, Interrupted, count_places
from tests.support.servers.process import RunningServer, start_server

ADD: Final = {"tool": "add", "input": {"a": 1, "b": 2}}
_LONGEST: Final = 60.0
"""Seconds after which the command line takes an episode for hanging."""

MAKERS: Final[dict[str, Callable[[str], Any]]] = {
    "env": lambda url: ors_gym.ORSEnv("contract", url),
    "prefetch": lambda url: ors_gym.ORSEnv("contract", url, prefetch=True),
    "vector": lambda url: ors_gym.ORSVectorEnv("contract", url, 2),
}


def step(env: Any) -> Any:
    several = isinstance(env, ors_gym.ORSVectorEnv)
    return env.step([ADD, ADD] if several else ADD)[1]


def play(kind: str, url: str, holder: list[Any]) -> None:
    env = MAKERS[kind](url)
    holder.append(env)
    env.reset(seed=0)
    step(env)
    env.reset()
    env.close()


def strike(kind: str, server: RunningServer, place: int) -> Iterator[str]:
    """Play an episode that is interrupted at a place; yield what is wrong then."""
    server.mark()
    holder: list[Any] = []
    interrupt = Interrupt(place)
    try:
        with interrupt:
            play(kind, server.base_url, holder)
        if interrupt.where:
            yield "the interrupt vanished"
    except Interrupted:
        pass
    except BaseException as error:  # noqa: BLE001 - whatever it became is the finding
        yield f"the interrupt came out as {error!r}"
    runs = server.runs()
    if runs > (2 if kind == "vector" else 1):
        yield f"the tools ran {runs} times"
    try:
        for env in holder:
            # Unless it was closed, it can be used again.
            with contextlib.suppress(ors_gym.SessionClosedError):
                env.reset(seed=3)
                step(env)
            env.close()
    except BaseException as error:  # noqa: BLE001
        yield f"afterwards it raised {error!r}"
    env = None
    holder.clear()
    gc.collect()
    background().delete_all()
    # What the background was busy with at the first collection, it may have held.
    gc.collect()
    loops = [each for each in gc.get_objects() if type(each) is SlotLoop]
    if loops:
        yield "the loop of a vector env was left"
    if background()._submitted:
        yield "the background still waits for an opening"
    if left := server.open_sessions():
        yield f"{len(left)} sessions were left"


def describe(kind: str, server: RunningServer, place: int) -> list[str]:
    return [f"{kind}, place {place}: {wrong}" for wrong in strike(kind, server, place)]


def places_of(kind: str, server: RunningServer) -> int:
    play(kind, server.base_url, [])
    return count_places(lambda: play(kind, server.base_url, []))


def main() -> int:
    """Strike every n-th place, and print what is wrong as soon as it is found."""
    parser = argparse.ArgumentParser(prog="python -m tests.system.interrupts")
    parser.add_argument("kind", choices=MAKERS, nargs="?", default="env")
    parser.add_argument("every", type=int, nargs="?", default=1, help="n-th place")
    parser.add_argument("--first", type=int, default=1, help="the first place")
    given = parser.parse_args()
    warnings.simplefilter("ignore")
    logging.getLogger("asyncio").setLevel(logging.CRITICAL)
    struck = findings = 0
    with start_server("ors-sdk-0.1.0") as server:
        count = places_of(given.kind, server)
        gc.freeze()  # each place looks for what it left, among new objects alone
        for place in range(given.first, count + 1, given.every):
            faulthandler.dump_traceback_later(_LONGEST, exit=True)
            struck += 1
            for found in describe(given.kind, server, place):
                findings += 1
                _say(found)
        faulthandler.cancel_dump_traceback_later()
    _say(f"{given.kind}: {struck} of {count} places, {findings} faults")
    return int(findings > 0)


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
