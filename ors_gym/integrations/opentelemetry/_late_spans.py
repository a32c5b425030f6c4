"""Spans of calls and requests, at a tenth of what the SDK's own take.

A span that is made when it ends needs no lock and no copies. So such spans are handed
to the processors of OpenTelemetry's SDK as finished ones: `on_end` is called,
`on_start` is not.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any, Final

from opentelemetry import trace
from opentelemetry.sdk.trace import Event, ReadableSpan, Tracer, sampling
from opentelemetry.trace import SpanContext, SpanKind, Status, StatusCode

_UNSET: Final = Status(StatusCode.UNSET)
_FIELDS: Final = {
    "_attributes",
    "_context",
    "_end_time",
    "_events",
    "_instrumentation_info",
    "_instrumentation_scope",
    "_kind",
    "_links",
    "_name",
    "_parent",
    "_resource",
    "_start_time",
    "_status",
}
"""Those of a `ReadableSpan`, in the versions 1.30 and 1.45."""


class _Above:
    """What late spans are started under."""

    _context: SpanContext
    _trace: _Trace

    def start(
        self,
        name: str,
        attributes: dict[str, Any],
        kind: SpanKind = SpanKind.INTERNAL,
    ) -> LateSpan:
        return LateSpan(self._trace, name, self._context, attributes, kind)


class LateParent(_Above):
    """A span that the SDK made, with late ones below it."""

    def __init__(self, tracer: Tracer, span: trace.Span) -> None:
        self._span = span
        self._context = span.get_span_context()
        self._trace = _Trace(tracer, self._context)

    def add_event(self, name: str, attributes: dict[str, Any]) -> None:
        self._span.add_event(name, attributes)


class LateSpan(_Above, ReadableSpan):
    """A span that the SDK's processors see when it ends.

    It sets the fields of a `ReadableSpan` itself. Making a second object at its end
    takes as long as all the rest.
    """

    _context: SpanContext
    _attributes: dict[str, Any]
    _end_time = None
    _events: Sequence[Event] = ()
    _instrumentation_info = None
    _links = ()
    _status = _UNSET

    def __init__(
        self,
        trace: _Trace,
        name: str,
        parent: SpanContext,
        attributes: dict[str, Any],
        kind: SpanKind,
    ) -> None:
        tracer = trace.tracer
        self._trace = trace
        self._name = name
        self._parent = parent
        self._kind = kind
        self._attributes = attributes
        self._resource = tracer.resource
        self._instrumentation_scope = tracer._instrumentation_scope  # noqa: SLF001 - an exporter needs it
        self._span_id = tracer.id_generator.generate_span_id()
        self._context = SpanContext(
            trace.trace_id, self._span_id, False, trace.flags, trace.state
        )
        self._start_time = time.time_ns()

    def traceparent(self) -> str:
        trace = self._trace
        return f"{trace.before}{self._span_id:016x}{trace.after}"

    def set_attribute(self, name: str, value: Any) -> None:
        self._attributes[name] = value

    def add_event(self, name: str, attributes: dict[str, Any]) -> None:
        self._events = (*self._events, Event(name, attributes))

    def set_status(self, status: Status) -> None:
        self._status = status

    def end(self) -> None:
        self._end_time = time.time_ns()
        self._trace.tracer.span_processor.on_end(self)


class _Trace:
    """What the late spans of a trace have in common."""

    __slots__ = ("after", "before", "flags", "state", "trace_id", "tracer")

    def __init__(self, tracer: Tracer, above: SpanContext) -> None:
        self.tracer = tracer
        self.trace_id = above.trace_id
        self.flags = above.trace_flags
        self.state = above.trace_state
        # What a `traceparent` has before and after the id of a span.
        self.before = f"00-{above.trace_id:032x}-"
        self.after = f"-{above.trace_flags:02x}"


def find_late_tracer(tracer: trace.Tracer) -> Tracer | None:
    """Return the SDK's tracer if whatever is below a sampled span is sampled too."""
    if not isinstance(tracer, Tracer):
        return None
    if vars(ReadableSpan("")).keys() != _FIELDS:
        # An SDK of another version, whose spans have to be made by itself.
        return None
    decided = isinstance(tracer.sampler, sampling.ParentBased | sampling.StaticSampler)
    return tracer if decided else None
