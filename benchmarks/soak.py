"""Everything at once, for as long as you like; then the server's log against ours.

    python -m benchmarks.soak [--seconds 3600] [--sessions 64] [--broken 0.01]

Replies are broken, the server is killed and started again, set-ups are slow, policies
raise, interrupts strike, two evaluations share a client, the process forks, and it may
open 1,024 files. Envs play on a loop and in threads, a vector env in the main thread.
Each call adds a number of its own, so the server's log says what became of it.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import dataclasses
import gc
import itertools
import json
import os
import random
import resource
import signal
import statistics
import sys
import threading
import time
import warnings
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, Self

import ors_gym
from benchmarks.breaking_proxy import breaking_proxy
from ors_gym.client.background import background
from ors_gym.rollout import Episode
from tests.support.servers.process import RunningServer, start_server

__all__ = ["Report", "soak"]

_DESCRIPTORS: Final = 1024
_ENVS: Final = 4
_EPISODES: Final = 48
_CHILD_STEPS: Final = 5
_CHILD_SECONDS: Final = 600
"""More than all the deadlines of a forked child's episode together."""
_ENV: Final[dict[str, Any]] = {
    "on_error": "truncate",
    "max_episode_steps": 25,
    "call_timeout": 60,
    "setup_timeout": 60,
    # One set-up in six takes half a second.
    "tasks": [{"id": f"{i}", "setup_seconds": 0.5 * (i % 6 == 0)} for i in range(48)],
}
_SETTLE_SECONDS: Final = 30.0


@dataclasses.dataclass
class Report:
    """What was seen, and what was wrong with it.

    Args:
        seconds: How long it took.
        shown: Steps that showed a result.
        counts: What else happened, and how often.
        ends: What ended the episodes.
        exchanges: Requests that went through the proxy.
        broken: How many of these it broke.
        runs: How often the tool ran.
        sessions: How many sessions the server had.
        memory: Resident memory in MB: the second quarter's median, the last one's.
        wrong: What should not be; nothing, if all is well.
    """

    seconds: float = 0.0
    shown: int = 0
    counts: Counter[str] = dataclasses.field(default_factory=Counter)
    ends: Counter[str] = dataclasses.field(default_factory=Counter)
    exchanges: int = 0
    broken: int = 0
    runs: int = 0
    sessions: int = 0
    memory: tuple[float, float] = (0.0, 0.0)
    wrong: list[str] = dataclasses.field(default_factory=list)

    def as_markdown(self) -> str:
        """Return the report as a table."""
        early, late = self.memory
        part = self.broken / max(1, self.exchanges)
        rows = [
            ("seconds", f"{self.seconds:.0f}"),
            ("exchanges", f"{self.exchanges}, {self.broken} ({part:.2%}) broken"),
            ("sessions on the server", f"{self.sessions}"),
            ("tool runs", f"{self.runs}, {self.shown} shown"),
            ("meanwhile", _listed(self.counts)),
            ("episodes ended by", _listed(self.ends)),
            ("memory", f"{early:.1f} MB, then {late:.1f} MB"),
            ("wrong", "; ".join(self.wrong[:20]) or "nothing"),
        ]
        lines = [f"| {name} | {value} |" for name, value in rows]
        return "\n".join(["| | |", "|---|---|", *lines])


def _listed(counts: Counter[str]) -> str:
    return ", ".join(f"{name} {count}" for name, count in counts.most_common())


class _Ledger:
    """Takes down what the players send and see. Threads share it."""

    def __init__(self, seconds: float) -> None:
        self._deadline = time.monotonic() + seconds
        self._numbers = itertools.count(1)
        # Not replaced, only added to: an interrupt may strike between two lines.
        self.shown: list[int] = []
        self.ends: Counter[str] = Counter()
        self.counts: Counter[str] = Counter()
        self.wrong: list[str] = []

    @property
    def over(self) -> bool:
        return time.monotonic() > self._deadline

    @property
    def drawn(self) -> int:
        """How many numbers were drawn; asked once, at the end."""
        return next(self._numbers)

    def draw(self) -> int:
        """Return a number that no other call adds."""
        return next(self._numbers)

    def note(self, number: int, text: str, reward: float, error_kind: str) -> None:
        """Take down what came of a call."""
        if error_kind:
            if reward != 0.0:
                self.wrong.append(f"{error_kind} with a reward of {reward}")
        elif (text, reward) == (f"{number}", 0.5):
            self.shown.append(number)
        else:
            self.wrong.append(f"the result of {number} was {text!r} for {reward}")

    def note_episode(self, episode: Episode) -> None:
        """Take down an episode of an evaluation."""
        self.ends[f"evaluation: {episode.error_kind or episode.stop_reason}"] += 1
        for step in episode.steps:
            text = "".join(block.get("text", "") for block in step.blocks)
            self.note(step.input["a"], text, step.reward, step.error_kind)


def _add(number: int) -> dict[str, Any]:
    return {"tool": "add", "input": {"a": number, "b": 0}}


def _end_of(truncated: object, info: dict[str, Any]) -> str:
    return str(info["error_kind"]) or ("limit" if truncated else "")


def _play_blocking(url: str, ledger: _Ledger, seed: int) -> None:
    """Play an env, made anew if the server's answer to its first question is broken."""
    while not ledger.over:
        try:
            env = ors_gym.ORSEnv("contract", url, prefetch=bool(seed % 2), **_ENV)
        except ors_gym.ORSError as error:
            ledger.ends[f"env: {error.kind} at the start"] += 1
            continue
        with contextlib.closing(env):
            _play_env(env, ledger)


def _play_env(env: ors_gym.ORSEnv, ledger: _Ledger) -> None:
    end = "none yet"
    while not ledger.over:
        try:
            if end:
                env.reset()
            number = ledger.draw()
            text, reward, _, truncated, info = env.step(_add(number))
        except ors_gym.ORSError as error:
            end = f"{error.kind}"
        else:
            end = _end_of(truncated, info)
            ledger.note(number, text, float(reward), info["error_kind"])
        if end:
            ledger.ends[f"env: {end}"] += 1


async def _play_async(client: ors_gym.AsyncORSClient, ledger: _Ledger) -> None:
    env = ors_gym.AsyncORSEnv("contract", client=client, **_ENV)
    end = "none yet"
    while not ledger.over:
        try:
            if end:
                await env.reset()
            number = ledger.draw()
            text, reward, _, truncated, info = await env.step(_add(number))
        except ors_gym.ORSError as error:
            end = f"{error.kind}"
        else:
            end = _end_of(truncated, info)
            ledger.note(number, text, float(reward), info["error_kind"])
        if end:
            ledger.ends[f"async env: {end}"] += 1
    await env.close()


async def _evaluate(
    client: ors_gym.AsyncORSClient, ledger: _Ledger, *, in_threads: bool
) -> None:
    """Evaluate again and again with a policy that raises now and then."""

    def act(_: Episode) -> dict[str, Any]:
        if random.random() < 0.01:
            raise RuntimeError("the policy has an error")
        return _add(ledger.draw())

    async def act_async(episode: Episode) -> dict[str, Any]:
        return act(episode)

    while not ledger.over:
        try:
            evaluation = await ors_gym.parallel_evaluate(
                client,
                "contract",
                range(12),
                act if in_threads else act_async,
                max_concurrent=8,
                episodes_per_task=_EPISODES // 12,
                max_turns=8,
                call_timeout=60,
                setup_timeout=60,
                on_episode=ledger.note_episode,
                progress=False,
            )
        except ors_gym.ORSError as error:
            # The server is down as it begins.
            ledger.ends[f"evaluation: {error.kind} at the start"] += 1
            await asyncio.sleep(0.1)
            continue
        ledger.counts["evaluations"] += 1
        played = {(row["task_index"], row["episode"]) for row in evaluation["results"]}
        if len(played) != _EPISODES or len(evaluation["results"]) != _EPISODES:
            ledger.wrong.append(f"an evaluation has {len(played)} of {_EPISODES} rows")


async def _play_all_async(url: str, ledger: _Ledger, count: int) -> None:
    async with ors_gym.AsyncORSClient(url) as client:
        await asyncio.gather(
            *(_play_async(client, ledger) for _ in range(count)),
            *(_evaluate(client, ledger, in_threads=way) for way in (False, True)),
        )
    left = len(asyncio.all_tasks()) - 1
    if left:
        ledger.wrong.append(f"{left} asyncio tasks left")


class _Interrupted(KeyboardInterrupt):
    """Raised by the timer's signal in the main thread."""


@contextlib.contextmanager
def _interrupted_now_and_then() -> Iterator[None]:
    """Let a signal strike the block at some moment, if it takes that long."""
    try:
        signal.setitimer(signal.ITIMER_REAL, random.uniform(0.005, 0.5))
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)


def _play_vector(url: str, ledger: _Ledger) -> None:
    """Play a vector env in the main thread, interrupted, and fork in between."""

    def strike(*_: object) -> None:
        raise _Interrupted

    before = signal.signal(signal.SIGALRM, strike)
    envs: ors_gym.ORSVectorEnv | None = None
    over: list[bool] | None = None
    fork_at = time.monotonic()
    while not ledger.over:
        if time.monotonic() > fork_at:
            _fork(url, ledger)
            fork_at = time.monotonic() + 1.0
        try:
            with _interrupted_now_and_then():
                if envs is None:
                    envs = ors_gym.ORSVectorEnv("contract", url, _ENVS, **_ENV)
                if over is None:
                    envs.reset()
                    over = [False] * _ENVS
                over = _step_vector(envs, ledger, over)
        except _Interrupted:
            ledger.counts["interrupts"] += 1
            over = None
        except ors_gym.ORSError as error:
            ledger.ends[f"vector env: {error.kind}"] += 1
            over = None
    signal.signal(signal.SIGALRM, before)
    if envs is not None:
        envs.close()


def _step_vector(
    envs: ors_gym.ORSVectorEnv, ledger: _Ledger, over: list[bool]
) -> list[bool]:
    """Step each env, or begin its next episode; return whose episode is over."""
    numbers = [ledger.draw() for _ in range(_ENVS)]
    texts, rewards, _, truncations, infos = envs.step([_add(n) for n in numbers])
    for i, number in enumerate(numbers):
        kind = str(infos["error_kind"][i])
        if not over[i]:
            ledger.note(number, texts[i], float(rewards[i]), kind)
        if truncations[i]:
            ledger.ends[f"vector env: {kind or 'limit'}"] += 1
    return [bool(truncated) for truncated in truncations]


def _fork(url: str, ledger: _Ledger) -> None:
    """Play an episode in a forked child, and take down what it saw."""
    numbers = [ledger.draw() for _ in range(_CHILD_STEPS)]
    reading, writing = os.pipe()
    with warnings.catch_warnings():
        # Python 3.12 and later warn of forks beside threads.
        warnings.simplefilter("ignore", DeprecationWarning)
        child = os.fork()
    if child == 0:
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.alarm(_CHILD_SECONDS)
        try:
            os.write(writing, json.dumps(_play_in_child(url, numbers)).encode())
        finally:
            os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as pipe:
        said = pipe.read()
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if status or not said:
        ledger.wrong.append(f"a forked child ended with {status} and said {said!r}")
        return
    ledger.counts["forks"] += 1
    for result in json.loads(said):
        ledger.note(*result)


def _play_in_child(url: str, numbers: list[int]) -> list[tuple[Any, ...]]:
    gc.collect()
    seen: list[tuple[Any, ...]] = []
    with contextlib.suppress(ors_gym.ORSError):
        env = ors_gym.ORSEnv("contract", url, **{**_ENV, "setup_timeout": 20})
        try:
            env.reset()
            for number in numbers:
                text, reward, _, truncated, info = env.step(_add(number))
                seen.append((number, text, float(reward), info["error_kind"]))
                if truncated:
                    break
        finally:
            env.close()
    background().delete_all(10.0)
    return seen


class _Restarts:
    """Kills the server now and then, and starts it again on its port."""

    def __init__(self, server: RunningServer, ledger: _Ledger, every: float) -> None:
        self._server = server
        self._ledger = ledger
        self._every = every
        self.last = 0.0
        """When the server was killed last: all sessions before that died with it."""

    def work(self) -> None:
        due = time.monotonic() + self._every
        while not self._ledger.over:
            time.sleep(0.1)
            if time.monotonic() > due:
                self._server.kill()
                self.last = time.time()
                self._server.start()
                self._ledger.counts["restarts"] += 1
                due = time.monotonic() + self._every


def _play(url: str, ledger: _Ledger, sessions: int, restarts: _Restarts) -> None:
    blocking = sessions // 4
    works: list[Any] = [restarts.work]
    works += [lambda i=i: _play_blocking(url, ledger, i) for i in range(blocking)]
    works += [lambda: asyncio.run(_play_all_async(url, ledger, sessions - blocking))]
    raised: list[BaseException] = []

    def run(work: Any) -> None:
        try:
            work()
        except BaseException as error:  # noqa: BLE001 - it is reported
            raised.append(error)

    threads = [threading.Thread(target=run, args=(work,)) for work in works]
    for thread in threads:
        thread.start()
    _play_vector(url, ledger)
    for thread in threads:
        thread.join()
    ledger.wrong += [f"a player raised {error!r}" for error in raised]


class _Memory:
    """Watches this process's resident memory from a thread."""

    def __init__(self) -> None:
        self._samples: list[float] = []
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._work)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _work(self) -> None:
        page = os.sysconf("SC_PAGE_SIZE")
        while not self._stop.wait(0.25):
            pages = int(Path("/proc/self/statm").read_text().split()[1])
            self._samples.append(pages * page / 2**20)

    def quarters(self) -> tuple[float, float]:
        """Return the medians of the second and of the last quarter, in MB."""
        quarter = max(1, len(self._samples) // 4)
        second = self._samples[quarter : 2 * quarter] or self._samples
        return statistics.median(second), statistics.median(self._samples[-quarter:])


@dataclasses.dataclass(frozen=True)
class _Held:
    """What this process holds: threads, and descriptors by their kind."""

    threads: int
    descriptors: Counter[str]

    @classmethod
    def now(cls) -> _Held:
        gc.collect()
        kinds: Counter[str] = Counter()
        for path in Path("/proc/self/fd").iterdir():
            with contextlib.suppress(OSError):
                kinds[path.readlink().name.split(":[")[0]] += 1
        return cls(threading.active_count(), kinds)


def _settle() -> _Held:
    """Wait until the background has ended what it does, and its thread."""
    background().delete_all(30.0)
    deadline = time.monotonic() + _SETTLE_SECONDS
    pause = threading.Event()
    while time.monotonic() < deadline:
        names = [thread.name for thread in threading.enumerate()]
        if "ors_gym" not in names:
            break
        pause.wait(0.25)
    return _Held.now()


def _audit(
    server: RunningServer, ledger: _Ledger, killed: float, report: Report
) -> None:
    """Hold what was shown against what the server has written down."""
    drawn = ledger.drawn
    runs = Counter(entry["input"]["a"] for entry in server.log("run", tool="add"))
    shown = Counter(ledger.shown)
    report.runs, report.shown = runs.total(), shown.total()
    report.sessions = len(server.log("ready"))
    ours = range(1, drawn)
    report.wrong += [
        *(f"{n} ran {count} times" for n, count in runs.items() if count > 1),
        *(f"{n} was shown {count} times" for n, count in shown.items() if count > 1),
        *(f"{n} ran and nobody sent it" for n in runs if n not in ours),
        *(f"{n} was shown and did not run" for n in shown if n not in runs),
    ]
    begun = {e["session"] for e in server.log("construct") if e["time"] > killed}
    if left := server.open_sessions() & begun:
        report.wrong.append(f"{len(left)} sessions left on the server")


@contextlib.contextmanager
def _noting_what_finalisers_raise(ledger: _Ledger) -> Iterator[None]:
    """Take down what nobody can catch, but for an interrupt that strikes there."""

    def note(unraisable: Any) -> None:
        error = unraisable.exc_value
        if isinstance(error, _Interrupted):
            ledger.counts["interrupts of finalisers"] += 1
        else:
            ledger.wrong.append(f"{unraisable.object!r} raised {error!r}")

    before, sys.unraisablehook = sys.unraisablehook, note
    try:
        yield
    finally:
        sys.unraisablehook = before


@contextlib.contextmanager
def _few_descriptors() -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(soft, _DESCRIPTORS), hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def soak(
    seconds: float,
    sessions: int,
    broken: float,
    sdk: str,
    *,
    restart_every: float = 20.0,
) -> Report:
    """Play, and look for what should not be.

    Args:
        seconds: How long to play.
        sessions: How many sessions at a time, beside those of the evaluations, the
            vector env and the forked children.
        broken: The part of the replies that are broken.
        sdk: The server, by its name among `tests.support.servers.venvs.SDKS`.
        restart_every: Seconds between two restarts of the server.

    Returns:
        What was seen.
    """
    report = Report()
    _settle()
    with (
        _few_descriptors(),
        warnings.catch_warnings(),
        start_server(sdk, environments=["Contract"]) as server,
        breaking_proxy(server.base_url, broken) as proxy,
    ):
        warnings.filterwarnings("ignore", message=".*could not start an episode")
        before = _Held.now()
        ledger = _Ledger(seconds)
        restarts = _Restarts(server, ledger, restart_every)
        started = time.monotonic()
        with _noting_what_finalisers_raise(ledger), _Memory() as memory:
            _play(proxy.url, ledger, sessions, restarts)
        report.seconds = time.monotonic() - started
        report.memory = memory.quarters()
        held = _settle()
        if held.threads > before.threads or held.descriptors - before.descriptors:
            report.wrong.append(f"held {before} before, {held} after")
        report.wrong += ledger.wrong
        _audit(server, ledger, restarts.last, report)
        counts = proxy.end()
    report.ends, report.counts = ledger.ends, ledger.counts
    report.exchanges, report.broken = counts["exchanges"], counts["broken"]
    early, late = report.memory
    if late > early * 1.1 + 10:
        report.wrong.append("memory grew")
    return report


def main() -> None:
    """Play as the command line says and print the report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=600.0)
    parser.add_argument("--sessions", type=int, default=64)
    parser.add_argument("--broken", type=float, default=0.01)
    parser.add_argument("--sdk", default="openreward-0.1.167")
    given = parser.parse_args()
    report = soak(given.seconds, given.sessions, given.broken, given.sdk)
    print(report.as_markdown())
    raise SystemExit(bool(report.wrong))


if __name__ == "__main__":
    main()
