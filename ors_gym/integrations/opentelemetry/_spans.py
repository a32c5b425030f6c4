"""Spans of calls and requests: late ones where that is possible, or the usual ones.

Late spans are for the SDK's tracer, and for samplers that do not decide about each span
(`_late_spans.py`). Elsewhere spans are made in the usual way.
"""

from __future__ import annotations

from typing import Any, Protocol

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.trace import SpanKind, Status

try:
    from ors_gym.integrations.opentelemetry import _late_spans as late
except ModuleNotFoundError:  # pragma: no cover - an application without the SDK
    late = None  # type: ignore[assignment]


class Parent(Protocol):
    """What spans are started under."""

    def start(
        self,
        name: str,
        attributes: dict[str, Any],
        kind: SpanKind = SpanKind.INTERNAL,
    ) -> AnySpan:
        """Start a span below this one. The attributes belong to it from now on."""

    def add_event(self, name: str, attributes: dict[str, Any]) -> None: ...


class AnySpan(Parent, Protocol):
    """A span of a call or a request."""

    def traceparent(self) -> str:
        """Return what a server is told of it, or ``""`` where there is no trace."""

    def set_attribute(self, name: str, value: Any) -> None: ...
    def set_status(self, status: Status) -> None: ...
    def end(self) -> None: ...


class SpanMaker:
    """Makes spans of calls and requests."""

    def __init__(self, tracer: trace.Tracer) -> None:
        self._tracer = tracer
        self._late = None if late is None else late.find_late_tracer(tracer)

    def under(self, context: Context) -> Parent:
        """Return what starts spans under the one that is current in a context."""
        span = trace.get_current_span(context)
        if self._late is not None:
            above = span.get_span_context()
            if above.is_valid and above.trace_flags.sampled:
                return late.LateParent(self._late, span)
        return _UsualSpan(self._tracer, span, context)


class _UsualSpan:
    """A span that any tracer made."""

    def __init__(
        self, tracer: trace.Tracer, span: trace.Span, context: Context | None
    ) -> None:
        self._tracer = tracer
        self._span = span
        self._context = context

    def start(
        self,
        name: str,
        attributes: dict[str, Any],
        kind: SpanKind = SpanKind.INTERNAL,
    ) -> _UsualSpan:
        context = self._context
        if context is None:
            context = trace.set_span_in_context(self._span)
        span = self._tracer.start_span(name, context, kind, attributes)
        return _UsualSpan(self._tracer, span, None)

    def traceparent(self) -> str:
        context = self._span.get_span_context()
        if not context.trace_id:
            return ""
        ids = f"{context.trace_id:032x}-{context.span_id:016x}"
        return f"00-{ids}-{context.trace_flags:02x}"

    def set_attribute(self, name: str, value: Any) -> None:
        self._span.set_attribute(name, value)

    def add_event(self, name: str, attributes: dict[str, Any]) -> None:
        self._span.add_event(name, attributes)

    def set_status(self, status: Status) -> None:
        self._span.set_status(status)

    def end(self) -> None:
        self._span.end()
