"""Many steps over many sessions through a network that breaks some of the replies.

    python -m benchmarks.soak [--steps 100000] [--sessions 64] [--broken 0.01]

Three quarters of the sessions are `AsyncORSEnv` on one loop, the others `ORSEnv`, each
in a thread; all with ``on_error="truncate"``. The server writes down each run of a tool
and each session, so that afterwards every reward that was shown is found there once.
"""

from __future__ import annotations

import argparse
import asyncio
import dataclasses
import gc
import os
import statistics
import threading
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import ors_gym
from benchmarks.breaking_proxy import breaking_proxy
from ors_gym.client.background._thread import background
from tests.support.servers.process import RunningServer, start_server

__all__ = ["Report", "soak"]

_COUNT = {"tool": "count", "input": {}}
_EPISODE_STEPS = 25
_ENV: dict[str, Any] = {
    "on_error": "truncate",
    "max_episode_steps": _EPISODE_STEPS,
    "call_timeout": 60,
    "setup_timeout": 60,
}
_SETTLE_SECONDS = 30.0


@dataclasses.dataclass
class Report:
    """What was seen, and what was wrong with it.

    Args:
        steps: Steps that were taken.
        shown: Steps that showed a result.
        seconds: How long they took together.
        ends: What ended the episodes.
        exchanges: Requests that went through the proxy.
        broken: How many of these it broke.
        runs: How often the tool ran.
        sessions: How many sessions the server had.
        memory: Resident memory in MB: the second quarter's median, the last one's.
        wrong: What should not be; nothing, if all is well.
    """

    steps: int = 0
    shown: int = 0
    seconds: float = 0.0
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
        ends = ", ".join(f"{kind} {count}" for kind, count in self.ends.most_common())
        part = self.broken / max(1, self.exchanges)
        rows = [
            ("steps", f"{self.steps}, {self.steps / self.seconds:.0f} a second"),
            ("exchanges", f"{self.exchanges}, {self.broken} ({part:.2%}) broken"),
            ("sessions on the server", f"{self.sessions}"),
            ("episodes ended by", ends),
            ("tool runs", f"{self.runs}, {self.shown} shown"),
            ("memory", f"{early:.1f} MB, then {late:.1f} MB"),
            ("wrong", "; ".join(self.wrong) or "nothing"),
        ]
        lines = [f"| {name} | {value} |" for name, value in rows]
        return "\n".join(["| | |", "|---|---|", *lines])


class _Ledger:
    """Takes down what the players see. Threads share it."""

    def __init__(self, steps: int) -> None:
        self._lock = threading.Lock()
        self._left = steps
        self.steps = 0
        self.ends: Counter[str] = Counter()
        self.shown: dict[str, int] = {}
        """How many results each session showed."""
        self.wrong: list[str] = []

    @property
    def over(self) -> bool:
        """Whether all steps are taken."""
        return self._left <= 0

    def take(self) -> bool:
        """Take one of the steps that are to be done; False if none is left."""
        with self._lock:
            self._left -= 1
            return self._left >= 0

    def note(self, session: str, text: str, reward: float, end: str) -> None:
        """Take down a step."""
        with self._lock:
            self.steps += 1
            if end:
                self.ends[end] += 1
            if end not in ("", "limit"):
                if reward != 0.0:
                    self.wrong.append(f"{end} with a reward of {reward}")
                return
            number = self.shown[session] = self.shown.get(session, 0) + 1
            if (text, reward) != (str(number), 1.0):
                self.wrong.append(f"result {number} was {text!r} for {reward}")


def _end_of(step: tuple[Any, ...]) -> str:
    _, _, _, truncated, info = step
    return str(info["error_kind"]) or ("limit" if truncated else "")


def _play_blocking(url: str, ledger: _Ledger) -> None:
    env = ors_gym.ORSEnv("contract", url, **_ENV)
    end = "none yet"
    while not ledger.over:
        if end:
            try:
                env.reset()
            except ors_gym.ORSError as error:
                ledger.ends[f"reset: {error.kind}"] += 1
                continue
        if not ledger.take():
            break
        session = env.session_id or ""
        step = env.step(_COUNT)
        end = _end_of(step)
        ledger.note(session, step[0], float(step[1]), end)
    env.close()


async def _play_async(client: ors_gym.AsyncORSClient, ledger: _Ledger) -> None:
    env = ors_gym.AsyncORSEnv("contract", client=client, **_ENV)
    end = "none yet"
    while not ledger.over:
        if end:
            try:
                await env.reset()
            except ors_gym.ORSError as error:
                ledger.ends[f"reset: {error.kind}"] += 1
                continue
        if not ledger.take():
            break
        session = env.session_id or ""
        step = await env.step(_COUNT)
        end = _end_of(step)
        ledger.note(session, step[0], float(step[1]), end)
    await env.close()


async def _play_all_async(url: str, ledger: _Ledger, count: int) -> None:
    async with ors_gym.AsyncORSClient(url) as client:
        await asyncio.gather(*(_play_async(client, ledger) for _ in range(count)))
    left = len(asyncio.all_tasks()) - 1
    if left:
        ledger.wrong.append(f"{left} asyncio tasks left")


def _play(url: str, ledger: _Ledger, sessions: int) -> None:
    blocking = sessions // 4
    threads = [
        threading.Thread(target=_play_blocking, args=(url, ledger))
        for _ in range(blocking)
    ]
    for thread in threads:
        thread.start()
    asyncio.run(_play_all_async(url, ledger, sessions - blocking))
    for thread in threads:
        thread.join()


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
    """What this process holds."""

    threads: int
    descriptors: int

    @classmethod
    def now(cls) -> _Held:
        gc.collect()
        descriptors = sum(1 for _ in Path("/proc/self/fd").iterdir())
        return cls(threading.active_count(), descriptors)


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
    server: RunningServer, shown: Mapping[str, int], report: Report
) -> Sequence[str]:
    """Hold what was shown against what the server has written down."""
    wrong = []
    runs = Counter(entry["session"] for entry in server.log("run"))
    paid = Counter(entry["session"] for entry in server.log("done"))
    report.runs = runs.total()
    report.sessions = len(server.log("ready"))
    for session in {*runs, *shown}:
        # A result that was lost ends its episode, so there is one at most.
        if not 0 <= runs[session] - shown.get(session, 0) <= 1:
            wrong.append(f"{runs[session]} runs, {shown.get(session)} shown")
        if paid[session] < shown.get(session, 0):
            wrong.append(f"{paid[session]} paid, {shown.get(session)} shown")
    left = server.open_sessions()
    if left:
        wrong.append(f"{len(left)} sessions left on the server")
    return wrong


def soak(steps: int, sessions: int, broken: float, sdk: str) -> Report:
    """Play, and look for what should not be.

    Args:
        steps: How many steps, in all sessions together.
        sessions: How many sessions at a time.
        broken: The part of the replies that are broken.
        sdk: The server, by its name among `tests.support.servers.venvs.SDKS`.

    Returns:
        What was seen.
    """
    report = Report()
    ledger = _Ledger(steps)
    _settle()
    with (
        start_server(sdk, environments=["Contract"]) as server,
        breaking_proxy(server.base_url, broken) as proxy,
    ):
        before = _Held.now()
        started = time.monotonic()
        with _Memory() as memory:
            _play(proxy.url, ledger, sessions)
        report.seconds = time.monotonic() - started
        report.memory = memory.quarters()
        report.steps = ledger.steps
        report.ends = ledger.ends
        report.shown = sum(ledger.shown.values())
        held = _settle()
        if held.threads > before.threads or held.descriptors > before.descriptors:
            report.wrong.append(f"held {before} before, {held} after")
        report.wrong += ledger.wrong
        report.wrong += _audit(server, ledger.shown, report)
        counts = proxy.end()
    report.exchanges, report.broken = counts["exchanges"], counts["broken"]
    early, late = report.memory
    if late > early * 1.1 + 5:
        report.wrong.append("memory grew")
    return report


def main() -> None:
    """Play as the command line says and print the report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=100_000)
    parser.add_argument("--sessions", type=int, default=64)
    parser.add_argument("--broken", type=float, default=0.01)
    parser.add_argument("--sdk", default="openreward-0.1.167")
    given = parser.parse_args()
    report = soak(given.steps, given.sessions, given.broken, given.sdk)
    print(report.as_markdown())
    raise SystemExit(bool(report.wrong))


if __name__ == "__main__":
    main()
