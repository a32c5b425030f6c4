"""OpenTelemetry: episodes, turns, model calls, tool calls and requests as spans.

    from ors_gym.integrations.opentelemetry import instrument

    instrument()

The spans go to the tracer provider of the process, or to one that you pass. Nothing of
this is imported, and nothing is paid, where it is not asked for.

Tested with opentelemetry-api 1.45 and the GenAI semantic conventions of version 1.41.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, Final

from ors_gym.client import _run_operation
from ors_gym.client._session_core import SessionCore
from ors_gym.client._settings import find_version
from ors_gym.env import AsyncTaskEnv, TaskEnv
from ors_gym.errors import needs_extra
from ors_gym.rollout import _turn_by_turn
from ors_gym.rollout._policies import PolicyCaller

__all__ = ["instrument", "uninstrument"]

with needs_extra("otel", "ors_gym.integrations.opentelemetry"):
    from opentelemetry import metrics, trace

    from ors_gym.integrations.opentelemetry._observer import (
        SCOPE,
        Instruments,
        Observer,
    )


def instrument(
    *,
    tracer_provider: trace.TracerProvider | None = None,
    meter_provider: metrics.MeterProvider | None = None,
    agent_name: str | None = None,
    capture_content: bool = False,
) -> None:
    """Take traces and metrics of everything that is played in this process from now on.

    Spans and their attributes follow the GenAI semantic conventions: ``invoke_agent``
    for an episode, ``chat`` for a model call, ``execute_tool`` for a tool call. In a
    rollout a ``turn`` lies between the episode and these calls. Each request has an
    HTTP client span and sends its ``traceparent``. Attributes that have no
    convention begin with ``ors.``. An outage is the ``error.type`` of its spans, a
    repeated and a resumed request are events.

    Calling it again replaces what was set before.

    Args:
        tracer_provider: Makes the spans; the provider of the process if None.
        meter_provider: Makes the metrics; the provider of the process if None.
        agent_name: What the policy is called, for the spans of episodes.
        capture_content: Whether arguments and results of tools, and the messages of
            the model, are attributes as well. Secrets of the client and of the session
            are masked in them.

    Example:
        >>> from opentelemetry.sdk.trace import TracerProvider
        >>> instrument(tracer_provider=TracerProvider(), agent_name="my agent")
        >>> uninstrument()
    """
    uninstrument()
    tracer = trace.get_tracer(SCOPE, find_version(), tracer_provider)
    instruments = Instruments(meter_provider, find_version())
    observer = Observer(tracer, instruments, agent_name, capture_content)
    _ending.append(observer.close)
    _run_operation.observe = observer.observe_operation
    _turn_by_turn.observe = observer.observe_game
    _wrap(SessionCore, "call_operation", observer.wrap_call)
    _wrap(SessionCore, "resume_operation", observer.wrap_resumption)
    for name in ("leave", "close", "discard"):
        _wrap(TaskEnv, name, observer.wrap_leaving)
    for name in ("leave", "close"):
        _wrap(AsyncTaskEnv, name, observer.wrap_leaving_async)
    _wrap(AsyncTaskEnv, "discard", observer.wrap_leaving)
    _wrap(TaskEnv, "open", observer.wrap_opening)
    _wrap(AsyncTaskEnv, "open", observer.wrap_opening_async)
    _wrap(PolicyCaller, "call", observer.wrap_asking)


def uninstrument() -> None:
    """Take no traces and no metrics any more.

    Example:
        >>> uninstrument()  # also where nothing was instrumented
    """
    _run_operation.observe = None
    _turn_by_turn.observe = None
    while _wrapped:
        owner, name, original = _wrapped.pop()
        if original is None:
            delattr(owner, name)
        else:
            setattr(owner, name, original)
    while _ending:
        _ending.pop()()


_wrapped: Final[list[tuple[type[Any], str, Any]]] = []
"""Methods that were replaced: their class, their name, and what the class had."""
_ending: Final[list[Callable[[], None]]] = []
"""What is left to do when no more traces are taken."""


def _wrap(owner: type[Any], name: str, make: Callable[[Any], Any]) -> None:
    """Replace a method, as OpenTelemetry's own instrumentations do.

    So a step costs nothing where no trace is taken.
    """
    original = getattr(owner, name)
    _wrapped.append((owner, name, vars(owner).get(name)))
    setattr(owner, name, functools.wraps(original)(make(original)))
