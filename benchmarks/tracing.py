"""What a trace costs: the CPU of one `ORSEnv.step` without one, with one, and after.

    python -m benchmarks.tracing [--rounds 40]

The spans are made by OpenTelemetry's SDK and put into its queue; what an exporter does
with them is left out. A figure is the least CPU time of many short rounds, so it holds
on a busy machine too.
"""

from __future__ import annotations

import argparse
import contextlib
import time
from collections.abc import Callable
from typing import Any, Final

from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import (
    BatchSpanProcessor,
    SpanExporter,
    SpanExportResult,
)

import ors_gym
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


def _round(action: Callable[[], object]) -> float:
    start = time.thread_time()
    for _ in range(_CALLS):
        action()
    return (time.thread_time() - start) / _CALLS * 1e6


def measure(rounds: int) -> dict[str, float]:
    """Return the CPU microseconds of a step: ``never``, ``on``, and ``off`` again."""
    tracers, meters = TracerProvider(), MeterProvider([InMemoryMetricReader()])
    tracers.add_span_processor(BatchSpanProcessor(_Nowhere()))
    best = dict.fromkeys(("never", "on", "off"), float("inf"))
    with contextlib.ExitStack() as stack:
        base_url = stack.enter_context(loopserver())
        env = stack.enter_context(
            contextlib.closing(ors_gym.ORSEnv("math", base_url=base_url))
        )
        stack.callback(tracers.shutdown)
        stack.callback(meters.shutdown)
        stack.callback(uninstrument)
        env.reset()

        def step() -> object:
            return env.step(_ACTION)

        _round(step)
        for name in best:
            if name == "on":
                instrument(tracer_provider=tracers, meter_provider=meters)
                # So that the steps belong to an episode.
                env.reset()
            else:
                uninstrument()
            best[name] = min(_round(step) for _ in range(rounds))
    return best


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=40, help="default 40")
    cost = measure(parser.parse_args().rounds)
    for name, microseconds in cost.items():
        print(f"{name:8}{microseconds:8.1f} us a step")
    print(f"a trace costs {cost['on'] - cost['off']:.1f} us a step")


if __name__ == "__main__":
    main()
