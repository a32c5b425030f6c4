"""Spans of calls and requests, at a tenth of what the SDK's own take.

A span that is made when it ends needs no lock and no copies. So such spans are handed
to the processors of OpenTelemetry's SDK as finished ones: `on_end` is called,
`on_start` is not. Where the tracer is not the SDK's, or its sampler may decide about
each span, they are made in the usual way.
"""

from __future__ import annotations

import time
from typing import Any, TypeAlias

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.trace import SpanContext, SpanKind, Status, StatusCode

try:
    from opentelemetry.sdk import trace as sdk
    from opentelemetry.sdk.trace import sampling
except ModuleNotFoundError:  # pragma: no cover - an application without the SDK
    sdk = None  # type: ignore[assignment]

_UNSET = Status(StatusCode.UNSET)


class LateSpan:
    """A span that is made when it ends. It has what is used here of `trace.Span`."""

    __slots__ = (
        "_attributes",
        "_context",
        "_events",
        "_kind",
        "_name",
        "_parent",
        "_start",
        "_status",
        "_tracer",
    )

    def __init__(
        self,
        tracer: sdk.Tracer,
        name: str,
        parent: SpanContext,
        attributes: dict[str, Any],
        kind: SpanKind,
    ) -> None:
        self._tracer = tracer
        self._name = name
        self._parent = parent
        self._attributes = attributes
        self._kind = kind
        self._status = _UNSET
        self._events: list[sdk.Event] = []
        span_id = tracer.id_generator.generate_span_id()
        self._context = SpanContext(
            parent.trace_id, span_id, False, parent.trace_flags, parent.trace_state
        )
        self._start = time.time_ns()

    def get_span_context(self) -> SpanContext:
        return self._context

    def set_attribute(self, name: str, value: Any) -> None:
        self._attributes[name] = value

    def add_event(self, name: str, attributes: dict[str, Any] | None = None) -> None:
        self._events.append(sdk.Event(name, attributes))

    def set_status(self, status: Status) -> None:
        self._status = status

    def end(self) -> None:
        tracer = self._tracer
        tracer.span_processor.on_end(
            sdk.ReadableSpan(
                self._name,
                self._context,
                self._parent,
                tracer.resource,
                self._attributes,
                self._events,
                (),
                self._kind,
                None,
                self._status,
                self._start,
                time.time_ns(),
                tracer._instrumentation_scope,  # noqa: SLF001 - an exporter needs it
            )
        )


AnySpan: TypeAlias = trace.Span | LateSpan


class SpanMaker:
    """Makes spans of calls and requests."""

    def __init__(self, tracer: trace.Tracer) -> None:
        self._tracer = tracer
        self._late = _find_late(tracer)

    def start(
        self,
        name: str,
        parent: Context | LateSpan,
        attributes: dict[str, Any],
        kind: SpanKind = SpanKind.INTERNAL,
    ) -> AnySpan:
        """Start a span under another one, or under what is current in a context."""
        if type(parent) is LateSpan:
            return LateSpan(parent._tracer, name, parent._context, attributes, kind)  # noqa: SLF001
        assert not isinstance(parent, LateSpan)  # noqa: S101 - for the type checker
        if self._late is not None:
            above = trace.get_current_span(parent).get_span_context()
            if above.is_valid and above.trace_flags.sampled:
                return LateSpan(self._late, name, above, attributes, kind)
        return self._tracer.start_span(name, parent, kind, attributes)


def below(span: AnySpan) -> Context | LateSpan:
    """Return what the children of a span are started under."""
    return span if isinstance(span, LateSpan) else trace.set_span_in_context(span)


def _find_late(tracer: trace.Tracer) -> sdk.Tracer | None:
    """Return the SDK's tracer if whatever is below a sampled span is sampled too."""
    if sdk is None or not isinstance(tracer, sdk.Tracer):
        return None
    sampler = tracer.sampler
    decided = isinstance(sampler, sampling.ParentBased | sampling.StaticSampler)
    return tracer if decided else None
