"""What a trace costs: the CPU of one `ORSEnv.step` without, with it, and afterwards.

    python -m benchmarks.tracing [--rounds 40]

The spans go into the queue of OpenTelemetry's SDK; what an exporter does with them is
left out. Metrics are measured beside the traces, since each of the two can be had
without the other. Steps that were never traced are played by a process of their own.
Client and server share a core. The kinds take turns of a few milliseconds, since a
machine may run at one speed for a second and at another for the next; each figure is
the least of its turns.
"""

from __future__ import annotations

import argparse
import contextlib
import multiprocessing
import time
from collections.abc import Iterator
from multiprocessing.connection import Connection
from typing import Any, Final

from opentelemetry.metrics import NoOpMeterProvider
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import (
    BatchSpanProcessor,
    SpanExporter,
    SpanExportResult,
)

import ors_gym
from benchmarks.cores import client_kept
from benchmarks.loopserver import loopserver
from ors_gym.integrations.opentelemetry import instrument, uninstrument

__all__ = ["measure"]

_ACTION: Final[dict[str, Any]] = {"tool": "think", "input": {"thought": "2 + 2 is 4"}}
_CALLS: Final = 200


class _Nowhere(SpanExporter):
    """Takes spans and does nothing."""

    def export(self, _spans: Any) -> SpanExportResult:
        """Take them."""
        return SpanExportResult.SUCCESS


def _round(env: ors_gym.ORSEnv) -> float:
    """Return the CPU microseconds of a step, over a turn of them."""
    start = time.thread_time()
    for _ in range(_CALLS):
        env.step(_ACTION)
    return (time.thread_time() - start) / _CALLS * 1e6


@contextlib.contextmanager
def _started_env(base_url: str) -> Iterator[ors_gym.ORSEnv]:
    with contextlib.closing(ors_gym.ORSEnv("math", base_url=base_url)) as env:
        env.reset()
        _round(env)
        yield env


def _play_when_asked(base_url: str, pipe: Connection) -> None:
    with _started_env(base_url) as env:
        while pipe.recv():
            pipe.send(_round(env))


@contextlib.contextmanager
def _never_traced(base_url: str) -> Iterator[Connection]:
    """Yield a pipe to a process that plays a turn for each True it gets."""
    spawn = multiprocessing.get_context("spawn")
    ours, theirs = spawn.Pipe()
    child = spawn.Process(target=_play_when_asked, args=(base_url, theirs))
    child.start()
    theirs.close()
    try:
        yield ours
    finally:
        with contextlib.suppress(BrokenPipeError):
            ours.send(False)
        child.join()


def measure(rounds: int) -> dict[str, float]:
    """Return the CPU microseconds of a step.

    ``never`` traced, with ``traces``, with ``metrics`` as well, and ``off`` again.
    """
    tracers, meters = TracerProvider(), MeterProvider([InMemoryMetricReader()])
    tracers.add_span_processor(BatchSpanProcessor(_Nowhere()))
    providers = {"traces": NoOpMeterProvider(), "metrics": meters}
    best = dict.fromkeys(("never", *providers, "off"), float("inf"))
    with contextlib.ExitStack() as stack:
        stack.enter_context(client_kept(beside_server=True))
        base_url = stack.enter_context(loopserver())
        never = stack.enter_context(_never_traced(base_url))
        env = stack.enter_context(_started_env(base_url))
        stack.callback(tracers.shutdown)
        stack.callback(meters.shutdown)
        stack.callback(uninstrument)
        for _ in range(rounds):
            never.send(True)
            best["never"] = min(best["never"], never.recv())
            for kind, provider in providers.items():
                instrument(tracer_provider=tracers, meter_provider=provider)
                # So that the steps belong to an episode.
                env.reset()
                best[kind] = min(best[kind], _round(env))
                # The thread of the queue would work beside the steps that follow.
                tracers.force_flush()
            uninstrument()
            best["off"] = min(best["off"], _round(env))
    return best


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=40, help="default 40")
    cost = measure(parser.parse_args().rounds)
    for name, microseconds in cost.items():
        print(f"{name:8}{microseconds:8.1f} us a step")
    traces, both = (cost[kind] - cost["off"] for kind in ("traces", "metrics"))
    print(f"traces cost {traces:.1f} us a step, traces and metrics {both:.1f}")


if __name__ == "__main__":
    main()
