"""What the design promises, measured: one row a promise, one function a part."""

from __future__ import annotations

import json
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from typing import Any, Final, NamedTuple

import ors_gym
from benchmarks import agents, first_episode, rollouts, spaces, tracing, vector
from benchmarks.cores import client_kept, keep_server
from benchmarks.loopserver import loopserver
from benchmarks.peers import interleave, openreward_python, working
from benchmarks.rows import Row
from benchmarks.served import measure as measure_served
from tests.integrations.venvs import GROUPS
from tests.support.servers.process import start_server
from tests.support.virtual_environments import ROOT, ensure

__all__ = ["PARTS", "Part"]

_SESSIONS: Final = (1, 8, 64, 256, 1024)
_HTTPX_SESSIONS: Final = 64
"""Stock httpx is quadratic in its connections; beyond this it takes minutes."""
_SERVERS: Final = ("ors-sdk-0.1.0", "openreward-0.1.167")
_ADD: Final = {"environment": "contract", "tool": "add", "input": {"a": 1, "b": 2}}
_IMPORT: Final = """
import time, gymnasium
start = time.process_time()
import ors_gym
print(time.process_time() - start)
"""


class Part(NamedTuple):
    """What one part of the benchmarks found."""

    rows: list[Row]
    figures: Any = None
    """What else is worth keeping, as plain JSON."""


def _workers(
    base_url: str, sessions: int, names: list[str], call: Mapping[str, Any] | None
) -> dict[str, tuple[Any, ...]]:
    """Return the arguments of the workers that play these clients."""
    clients: dict[str, tuple[Any, ...]] = {
        name: (name, base_url, sessions, call) for name in names
    }
    python = openreward_python()
    if python is None:
        print("openreward: it cannot be installed", file=sys.stderr)
    else:
        clients["openreward"] = ("openreward", base_url, sessions, call, python)
    return clients


def one_session(rounds: int) -> Part:
    """Measure one session, blocking, beside a raw socket and the other clients."""
    names = ["raw", "ours", "env", "published", "ors-sdk"]
    with loopserver() as base_url, working(_workers(base_url, 0, names, None)) as found:
        cost = interleave(found, 200, 3 * rounds)
    raw, env = cost["raw"], cost["env"]
    ours = cost["ours"]["cpu_us"] / raw["cpu_us"]
    rows = [
        Row("CPU of Session.call_tool to a raw socket", ours, 2),
        Row("CPU of ORSEnv.step to a raw socket", env["cpu_us"] / raw["cpu_us"], 2.5),
    ]
    for peer, limit in (("openreward", 5), ("ors-sdk", 5), ("published", 3.5)):
        if peer in cost:
            ratio = env["steps_per_s"] / cost[peer]["steps_per_s"]
            what = f"steps/s of ORSEnv to {peer}"
            rows.append(Row(what, ratio, limit, at_least=True))
    return Part(rows, cost)


def large_result(rounds: int) -> Part:
    """Measure a result of 5 MB."""
    call = {"input": {"thought": "m5"}}
    with (
        loopserver() as base_url,
        working({n: (n, base_url, 0, call) for n in ("raw", "ours")}) as workers,
    ):
        cost = interleave(workers, 4, rounds)
    ratio = cost["ours"]["wall_us"] / cost["raw"]["wall_us"]
    return Part([Row("a 5 MB result, time to a raw socket", ratio, 1.5)], cost)


def many_sessions(rounds: int) -> Part:
    """Measure many sessions in one process; the figures are the curves."""
    curves: dict[str, dict[int, float]] = {}
    memory = 0.0
    with loopserver() as base_url:
        for sessions in _SESSIONS:
            names = ["raw", "ours", "ors-sdk", "aiohttp"]
            names += ["httpx"] if sessions <= _HTTPX_SESSIONS else []
            workers = _workers(base_url, sessions, names, None)
            # The slow ones need no longer turns to be measured as well.
            few = max(2, 1024 // sessions)
            steps = dict.fromkeys(workers, few)
            steps |= dict.fromkeys(("raw", "ours"), 2 * few)
            with working(workers) as found:
                cost = interleave(found, steps, max(3, rounds // 2))
            for name, figures in cost.items():
                curves.setdefault(name, {})[sessions] = figures["cpu_us"]
            if sessions == _SESSIONS[-1]:
                memory = cost["ours"]["memory_mb"]
    ours, peer = curves["ours"], curves.get("ors-sdk", {})
    rows = [
        Row(f"CPU per call at {n} sessions to ors-sdk", ours[n] / peer[n], 0.2)
        for n in _SESSIONS[2:]
        if n in peer
    ]
    rows.append(Row("CPU per call, 1024 sessions to 64", ours[1024] / ours[64], 1.5))
    rows.append(Row("memory at 1024 sessions", memory, 70, unit="MB"))
    return Part(rows, curves)


def real_servers(rounds: int) -> Part:
    """Measure 64 sessions on both real servers, beside raw sockets."""
    rows: list[Row] = []
    figures: dict[str, Any] = {}
    for name in _SERVERS:
        # In a process of its own, which keeps to one core.
        script = [sys.executable, "-m", "benchmarks.real_server", name, "--json"]
        script += ["--pairs", str(4 * rounds)]
        done = subprocess.run(script, check=True, stdout=subprocess.PIPE, text=True)
        found = figures[name] = json.loads(done.stdout)
        for key, what in (
            ("rate", f"calls/s of 64 sessions on {name} to a raw client"),
            ("server_cpu", f"CPU of {name} for a raw client's call to ours"),
        ):
            spread = found[f"{key}_quartiles"]
            rows.append(Row(what, found[key], 0.95, at_least=True, spread=spread))
    return Part(rows, figures)


def real_peers(rounds: int) -> Part:
    """Measure every client on both real servers: figures, no promises."""
    figures: dict[str, Any] = {}
    for name in _SERVERS:
        for sessions in (1, 64):
            with start_server(name) as server:
                keep_server(server.pid)
                names = ["raw", "ours", "ors-sdk", "aiohttp", "httpx"]
                workers = _workers(server.base_url, sessions, names, _ADD)
                with working(workers) as found:
                    cost = interleave(found, 100 if sessions == 1 else 6, rounds)
            figures[f"{name}, {sessions} sessions"] = cost
    return Part([], figures)


def vectors(rounds: int) -> Part:
    """Measure `ORSVectorEnv`."""
    return Part(*vector.measure(rounds + 2, steps=20))


def served(rounds: int) -> Part:
    """Measure what it costs to have a Gymnasium env on the other side of HTTP."""
    return Part(measure_served(10 * rounds))


def action_spaces(rounds: int) -> Part:
    """Measure sampling and listing."""
    return Part(*spaces.measure(rounds))


def prefetch(rounds: int) -> Part:
    """Measure what is left of a set-up of 2 s when the episode before is longer."""
    waits: dict[bool, list[float]] = {False: [], True: []}
    with start_server("openreward-0.1.167") as server:
        for ahead, times in waits.items():
            env = ors_gym.ORSEnv(
                "slowsetup", server.base_url, prefetch=ahead, tasks=[20]
            )
            env.reset(seed=0)
            for _ in range(max(1, rounds // 3)):
                if ahead:
                    time.sleep(2.5)
                start = time.perf_counter()
                env.reset()
                times.append(time.perf_counter() - start)
            env.close()
    left = statistics.median(waits[True]) / statistics.median(waits[False])
    return Part([Row("wait left of a reset with prefetch", 100 * left, 5, unit="%")])


def imports(rounds: int) -> Part:
    """Measure the import with compiled bytecode, as an installed package has it."""
    with tempfile.TemporaryDirectory() as cache:
        environment = {
            k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"
        }
        environment["PYTHONPYCACHEPREFIX"] = cache
        seconds = []
        for _ in range(rounds + 1):
            done = subprocess.run(
                [sys.executable, "-c", _IMPORT],
                check=True,
                capture_output=True,
                text=True,
                env=environment,
            )
            seconds.append(float(done.stdout))
    cost = 1000 * statistics.median(seconds[1:])
    return Part([Row("import ors_gym beyond gymnasium", cost, 60, unit="ms")])


def first_episodes(rounds: int) -> Part:
    """Measure how long a new user waits."""
    return Part(first_episode.measure(max(2, rounds // 2)))


def tokens(rounds: int) -> Part:
    """Measure rendering and bookkeeping, where `transformers` and torch are."""
    python = ensure(GROUPS["training"].recipe)
    with tempfile.TemporaryDirectory() as directory:
        kept = pathlib.Path(directory, "rows.json")
        command = [str(python), "-m", "benchmarks.tokens", "--json", str(kept)]
        single = {**os.environ, "OMP_NUM_THREADS": "1"}
        subprocess.run(
            [*command, "--rounds", str(rounds)],
            env={**single, "PYTHONPATH": str(ROOT)},
            cwd=ROOT,
            check=False,  # it exits with 1 where a budget is not met
            stdout=subprocess.DEVNULL,
        )
        found = json.loads(kept.read_text())
    for row in found:
        del row["met"]
    return Part([Row(**row) for row in found])


def traces(rounds: int) -> Part:
    """Measure a step with and without OpenTelemetry."""
    cost = tracing.measure(8 * rounds)
    rows = [
        # 24 and 32 us on a machine where a step takes 54. Of these 8 are the
        # processor's, and 8 the histogram's.
        Row("CPU of a trace, to that of a step", cost["traces"] / cost["off"] - 1, 0.5),
        Row("with metrics, to that of a step", cost["metrics"] / cost["off"] - 1, 0.66),
        Row("CPU of a step, traces off again", cost["off"] / cost["never"], 1.1),
    ]
    return Part(rows, cost)


def over_mcp(rounds: int) -> Part:
    """Measure episodes that agents play."""
    return Part(agents.measure(rounds))


def rollouts_beside_bare(rounds: int) -> Part:
    """Measure `evaluate` and `stream_groups` beside the bare async client."""
    # A plain policy's thread that is woken on another core costs half as much more.
    with client_kept():
        return Part(rollouts.measure(rounds))


PARTS: Final[dict[str, Callable[[int], Part]]] = {
    "one": one_session,
    "large": large_result,
    "many": many_sessions,
    "vector": vectors,
    "real": real_servers,
    "peers": real_peers,
    "served": served,
    "prefetch": prefetch,
    "rollouts": rollouts_beside_bare,
    "spaces": action_spaces,
    "import": imports,
    "first": first_episodes,
    "tokens": tokens,
    "traces": traces,
    "mcp": over_mcp,
}
"""Everything that is measured, by name, in order."""
