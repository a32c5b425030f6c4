"""What the design promises, measured: one row a promise."""

from __future__ import annotations

import dataclasses
import os
import statistics
import subprocess
import sys
import tempfile
import time
from typing import Any, Final

import ors_gym
from benchmarks.loopserver import loopserver
from benchmarks.peers import interleave, openreward_python, working
from tests.servers.process import start_server

__all__ = ["Row", "measure"]

_SESSIONS: Final = (1, 8, 64, 256, 1024)
_IMPORT: Final = """
import time, gymnasium, httpx
start = time.process_time()
import ors_gym
print(time.process_time() - start)
"""


@dataclasses.dataclass(frozen=True, slots=True)
class Row:
    """A promise and what was measured.

    Args:
        what: The promise.
        value: The figure.
        limit: What it may be.
        at_least: Whether it has to be at least the limit, rather than at most.
        unit: What follows the figure.
    """

    what: str
    value: float
    limit: float
    at_least: bool = False
    unit: str = "x"

    @property
    def met(self) -> bool:
        """Whether the promise is kept."""
        return (self.value >= self.limit) if self.at_least else self.value <= self.limit

    @property
    def figure(self) -> str:
        """The figure with its unit."""
        return f"{self.value:.2f} {self.unit}"

    @property
    def budget(self) -> str:
        """The limit with its sign."""
        return f"{'>=' if self.at_least else '<='} {self.limit:g}"

    def as_json(self) -> dict[str, Any]:
        """Return the row for a file."""
        return {**dataclasses.asdict(self), "met": self.met}


def measure(rounds: int) -> tuple[list[Row], dict[str, dict[int, float]]]:
    """Measure everything.

    Args:
        rounds: How many turns of each client are counted.

    Returns:
        The rows, and by client the CPU per call in microseconds by sessions.
    """
    rows: list[Row] = []
    with loopserver() as base_url:
        rows += _one_session(base_url, rounds)
        rows += _large_result(base_url, rounds)
        many, curves = _many_sessions(base_url, max(3, rounds // 2))
        rows += many
    rows += _real_server(rounds)
    rows.append(_prefetch())
    rows.append(_import())
    return rows, curves


def _one_session(base_url: str, rounds: int) -> list[Row]:
    python = openreward_python() or "openreward cannot be installed"
    clients: dict[str, tuple[Any, ...]] = {
        name: (name, base_url)
        for name in ("raw", "ours", "env", "published", "ors-sdk")
    }
    clients["openreward"] = ("openreward", base_url, 0, "2 + 2 is 4", python)
    with working(clients) as workers:
        cost = interleave(workers, 400, rounds)
    raw = cost["raw"]["cpu_us"]
    rows = [
        Row(
            "CPU of Session.call_tool to a raw socket", cost["ours"]["cpu_us"] / raw, 2
        ),
        Row("CPU of ORSEnv.step to a raw socket", cost["env"]["cpu_us"] / raw, 2.5),
    ]
    for peer, limit in (("openreward", 5), ("ors-sdk", 5), ("published", 3.5)):
        if peer in cost:
            ratio = cost["env"]["steps_per_s"] / cost[peer]["steps_per_s"]
            rows.append(
                Row(f"steps/s of ORSEnv to {peer}", ratio, limit, at_least=True)
            )
    return rows


def _large_result(base_url: str, rounds: int) -> list[Row]:
    with working(
        {name: (name, base_url, 0, "m5") for name in ("raw", "ours")}
    ) as workers:
        cost = interleave(workers, 4, rounds)
    ratio = cost["ours"]["wall_us"] / cost["raw"]["wall_us"]
    return [Row("a 5 MB result, time to a raw socket", ratio, 1.5)]


def _many_sessions(
    base_url: str, rounds: int
) -> tuple[list[Row], dict[str, dict[int, float]]]:
    curves: dict[str, dict[int, float]] = {}
    memory = 0.0
    for sessions in _SESSIONS:
        names = ["raw", "ours", "ors-sdk", "aiohttp"]
        # Stock httpx is quadratic in its connections; beyond 64 it takes minutes.
        names += ["httpx"] if sessions <= 64 else []
        with working({name: (name, base_url, sessions) for name in names}) as workers:
            cost = interleave(workers, max(4, 2048 // sessions), rounds)
        for name, figures in cost.items():
            curves.setdefault(name, {})[sessions] = figures["cpu_us"]
        if sessions == 1024:
            memory = cost["ours"]["memory_mb"]
    ours, peer = curves["ours"], curves.get("ors-sdk", {})
    rows = [
        Row(f"CPU per call at {n} sessions to ors-sdk", ours[n] / peer[n], 0.2)
        for n in (64, 256, 1024)
        if n in peer
    ]
    rows.append(Row("CPU per call, 1024 sessions to 64", ours[1024] / ours[64], 1.5))
    rows.append(Row("memory at 1024 sessions", memory, 70, unit="MB"))
    return rows, curves


def _real_server(rounds: int) -> list[Row]:
    rows = []
    for name in ("ors-sdk-0.1.0", "openreward-0.1.167"):
        with start_server(name) as server:
            rates: dict[str, list[float]] = {"raw": [], "ours": []}
            for _ in range(rounds):
                for kind, seen in rates.items():
                    seen.append(_calls_per_second(server.base_url, kind))
            ratio = statistics.median(rates["ours"]) / statistics.median(rates["raw"])
            what = f"calls/s of 64 sessions on {name} to a raw client"
            rows.append(Row(what, ratio, 0.95, at_least=True))
    return rows


def _calls_per_second(base_url: str, kind: str) -> float:
    script = [sys.executable, "-m", "benchmarks.real_server", base_url, kind]
    done = subprocess.run(script, check=True, capture_output=True, text=True)
    return float(done.stdout)


def _prefetch() -> Row:
    """Measure what is left of a set-up of 2 s when the episode before is longer."""
    waits: dict[bool, list[float]] = {False: [], True: []}
    with start_server("openreward-0.1.167") as server:
        for prefetch, times in waits.items():
            env = ors_gym.ORSEnv(
                "slowsetup", server.base_url, prefetch=prefetch, tasks=[20]
            )
            env.reset(seed=0)
            for _ in range(2):
                time.sleep(2.5)
                start = time.perf_counter()
                env.reset()
                times.append(time.perf_counter() - start)
            env.close()
    left = statistics.median(waits[True]) / statistics.median(waits[False])
    return Row("wait left of a reset with prefetch", 100 * left, 5, unit="%")


def _import() -> Row:
    """Measure with compiled bytecode, as an installed package has it."""
    with tempfile.TemporaryDirectory() as cache:
        environment = {
            k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"
        }
        environment["PYTHONPYCACHEPREFIX"] = cache
        seconds = []
        for _ in range(8):
            done = subprocess.run(
                [sys.executable, "-c", _IMPORT],
                check=True,
                capture_output=True,
                text=True,
                env=environment,
            )
            seconds.append(float(done.stdout))
    cost = 1000 * statistics.median(seconds[1:])
    return Row("import ors_gym beyond gymnasium and httpx", cost, 60, unit="ms")
