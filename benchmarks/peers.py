"""Clients in processes of their own, measured in turn: A B C, A B C, ..."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from benchmarks.cores import keep_client

__all__ = ["Worker", "interleave", "openreward_python", "working"]

_WORKER: Final = pathlib.Path(__file__).with_name("peer_worker.py")
_OPENREWARD: Final = "openreward==0.1.167"


def openreward_python() -> str | None:
    """Return an interpreter that has the openreward client, made where it is missing.

    Returns:
        Its path; None where the package cannot be installed.
    """
    cache = pathlib.Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")).expanduser()
    digest = hashlib.sha256((_OPENREWARD + sys.version).encode()).hexdigest()[:12]
    home = cache / "ors_gym" / "benchmarks" / f"openreward-{digest}"
    done = home / "done"
    python = home / "bin" / "python"
    if not done.exists():
        subprocess.run([sys.executable, "-m", "venv", home], check=True)
        pip = [str(python), "-m", "pip", "install", "--quiet", _OPENREWARD]
        if subprocess.run(pip, check=False).returncode != 0:
            return None
        done.touch()
    return str(python)


class Worker:
    """One client, ready to play steps.

    Args:
        client: A client of ``peer_worker.py``.
        base_url: The server.
        sessions: How many sessions play at once; 0 for one, blocking.
        call: The tool that is called: ``environment``, ``tool`` and ``input``; those
            of the do-nothing server where they are missing.
        python: The interpreter.

    Raises:
        RuntimeError: If the client does not run.
    """

    def __init__(
        self,
        client: str,
        base_url: str,
        sessions: int = 0,
        call: Mapping[str, Any] | None = None,
        python: str = sys.executable,
    ) -> None:
        command = [python, str(_WORKER), client, base_url, str(sessions)]
        self.errors = tempfile.TemporaryFile("w+")  # noqa: SIM115  # see `close`
        self.process = subprocess.Popen(
            [*command, json.dumps(call or {})],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.errors,
            text=True,
        )
        keep_client(self.process.pid)
        if self._read() != "ready":
            self.process.wait()
            self.errors.seek(0)
            said = self.errors.read().strip().splitlines()
            self.close()
            raise RuntimeError(
                f"the client {client!r} does not run: {said[-1] if said else ''}"
            )

    def _read(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def play(self, steps: int) -> dict[str, float]:
        """Play steps in each session; returns what they cost."""
        assert self.process.stdin is not None
        print(steps, file=self.process.stdin, flush=True)
        cost: dict[str, float] = json.loads(self._read())
        return cost

    def close(self) -> None:
        """End the process."""
        self.process.kill()
        self.process.communicate()
        self.errors.close()


@contextlib.contextmanager
def working(workers: Mapping[str, Sequence[Any]]) -> Iterator[dict[str, Worker]]:
    """Start workers; those that do not run are left out, and said."""
    with contextlib.ExitStack() as stack:
        started = {}
        for name, arguments in workers.items():
            try:
                started[name] = Worker(*arguments)
            except RuntimeError as error:
                print(f"{name}: {error}", file=sys.stderr)
                continue
            stack.callback(started[name].close)
        yield started


def interleave(
    workers: Mapping[str, Worker], steps: Mapping[str, int] | int, rounds: int
) -> dict[str, dict[str, float]]:
    """Play the workers in turn.

    Args:
        workers: The workers by name.
        steps: Steps per session and turn, for all or by name.
        rounds: How many turns are counted, after one that is not.

    Returns:
        By name the medians: ``cpu_us`` and ``wall_us`` per step, ``steps_per_s``,
        ``memory_mb``.
    """
    costs: dict[str, list[dict[str, float]]] = {name: [] for name in workers}
    for turn in range(rounds + 1):
        for name, worker in workers.items():
            count = steps if isinstance(steps, int) else steps[name]
            cost = worker.play(max(1, count // 4) if turn == 0 else count)
            if turn:
                costs[name].append(cost)
    return {name: _medians(cost) for name, cost in costs.items()}


def _medians(costs: Sequence[Mapping[str, float]]) -> dict[str, float]:
    cpu = statistics.median(cost["cpu"] / cost["steps"] for cost in costs)
    wall = statistics.median(cost["wall"] / cost["steps"] for cost in costs)
    return {
        "cpu_us": cpu * 1e6,
        "wall_us": wall * 1e6,
        "steps_per_s": 1 / wall,
        "memory_mb": max(cost["memory_mb"] for cost in costs),
    }
