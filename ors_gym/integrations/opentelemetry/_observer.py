"""Makes the spans of episodes, turns, model calls, tool calls and requests."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import json
import time
import weakref
from collections.abc import Callable, Generator, Iterator, Mapping
from typing import Any, ClassVar, Final, TypeVar
from urllib.parse import urlsplit

from opentelemetry import context as contexts
from opentelemetry import metrics, trace
from opentelemetry.context import Context
from opentelemetry.trace import Span, SpanKind, Status, StatusCode

from ors_gym.client._session_core import SessionCore
from ors_gym.env import AsyncTaskEnv, TaskEnv
from ors_gym.errors import ORSError, ToolFailedError, ToolRejectedError
from ors_gym.integrations.opentelemetry._spans import (
    AnySpan,
    Parent,
    SpanMaker,
)
from ors_gym.protocol._exchange import Head, Operation, Outcome, Send
from ors_gym.rollout import Episode
from ors_gym.rollout._policies import PolicyCaller
from ors_gym.rollout._turn_by_turn import AskPolicy, Game, PlannedAction, resume
from ors_gym.types import ToolOutput

T = TypeVar("T")

SCOPE: Final = "ors_gym"
_ERROR: Final = Status(StatusCode.ERROR)
_SECONDS: Final = (0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28)
_SECONDS_BUCKETS: Final = (*_SECONDS, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92)
_TOKENS_BUCKETS: Final = tuple(4.0**power for power in range(14))
"""The bounds that the conventions recommend."""
_CALLS_IN_A_ROW: Final = 64
_NOWHERE: Final = contexts.set_value("ors_gym-nowhere", True, Context())
"""A context without a span: calls are recorded later, when another span is current."""
_USAGE: Final = {
    "input_tokens": "input",
    "prompt_tokens": "input",
    "output_tokens": "output",
    "completion_tokens": "output",
}
"""What APIs call the tokens that a model read and wrote."""


class Instruments:
    """The metrics."""

    _newest: ClassVar[Instruments]

    def __init__(self, provider: metrics.MeterProvider | None, version: str) -> None:
        meter = metrics.get_meter(SCOPE, version, provider)

        def seconds(name: str, what: str) -> metrics.Histogram:
            bounds = _SECONDS_BUCKETS
            return meter.create_histogram(
                name, "s", what, explicit_bucket_boundaries_advisory=bounds
            )

        self._tool = seconds("gen_ai.execute_tool.duration", "Duration of tool calls.")
        self.chat = seconds(
            "gen_ai.client.operation.duration", "Duration of model calls."
        )
        self.episode = seconds("gen_ai.invoke_agent.duration", "Duration of episodes.")
        self.tokens = meter.create_histogram(
            "gen_ai.client.token.usage",
            "{token}",
            "Tokens that a model read and wrote.",
            explicit_bucket_boundaries_advisory=_TOKENS_BUCKETS,
        )
        # Not a histogram: it would leave negative rewards out.
        self._reward_sum = meter.create_up_down_counter(
            "ors.episode.reward.sum", "{reward}", "Total rewards of episodes, summed."
        )
        self._reward_count = meter.create_counter(
            "ors.episode.reward.count", "{episode}", "Episodes with a total reward."
        )
        self.outages = meter.create_counter(
            "ors.outages", "{outage}", "Calls and set-ups that an outage ended."
        )
        self.open_episodes: Callable[[], int] = int
        self._calls: list[tuple[float, dict[str, Any]]] = []
        self._provider = provider
        Instruments._newest = self
        # The last, since it may be observed at once.
        meter.create_observable_up_down_counter(
            "ors.episodes.open", [self._observe], "{episode}", "Episodes under way."
        )

    def note_call(self, seconds: float, figures: dict[str, Any]) -> None:
        """Take the duration of a tool call.

        Many are recorded in a row, which takes a third of the time.
        """
        self._calls.append((seconds, figures))
        if len(self._calls) >= _CALLS_IN_A_ROW:
            self.flush()

    def note_reward(self, reward: float, figures: dict[str, Any]) -> None:
        """Take the total reward of an episode."""
        self._reward_sum.add(reward, figures)
        self._reward_count.add(1, figures)

    def flush(self) -> None:
        """Record the tool calls so far."""
        calls, self._calls = self._calls, []
        for seconds, figures in calls:
            self._tool.record(seconds, figures, _NOWHERE)

    def _observe(self, _: metrics.CallbackOptions) -> Iterator[metrics.Observation]:
        # A provider keeps the first callback that it was given: it speaks for those
        # that came after.
        newest = Instruments._newest
        current = newest if newest.find_provider() is self.find_provider() else self
        # The metrics are being collected: what is collected is to be complete.
        current.flush()
        yield metrics.Observation(current.open_episodes())

    def find_provider(self) -> metrics.MeterProvider:
        # That of the process may have been set after this was made.
        return self._provider or metrics.get_meter_provider()


class _Play:
    """The span of an episode, and what is known of the episode so far."""

    def __init__(self, span: Span, environment: str) -> None:
        self.span = span
        self.attributes = {"ors.environment": environment}
        """Those that its tool calls have too."""
        context = trace.set_span_in_context(span)
        self.context = contexts.set_value(_PLAY, self, context)
        self._above: tuple[Context, Parent] | None = None
        """The context of the last call, and the parent of that call's span."""
        self._tools: dict[str, _Tool] = {}
        self.place = _RequestTarget("")
        """Where its calls go."""
        self.started = time.perf_counter()
        self.redact: Callable[[str], str] = str
        self.steps = 0
        self.reward = 0.0
        self.finished = False
        self.ended = False
        self.error = ""
        self.episode: Episode | None = None
        """Its record, while a rollout plays it."""

    def start_call(self, spans: SpanMaker, tool: str) -> tuple[AnySpan, dict[str, Any]]:
        """Start the span of a call; return the figures of its duration as well.

        It is below the turn, if one is current, or else below the episode.
        """
        context, above = contexts.get_current(), self._above
        if above is None or above[0] is not context:
            is_inside = contexts.get_value(_PLAY, context) is self
            parent = spans.under(context if is_inside else self.context)
            above = self._above = context, parent
        what = self._tools.get(tool)
        if what is None:
            what = self._tools[tool] = _Tool(tool, self.attributes)
        return above[1].start(what.span_name, what.attributes.copy()), what.figures


_PLAY: Final = contexts.create_key("ors_gym-episode")
"""The context key of the episode that a context belongs to."""
_opened: contextvars.ContextVar[_Play | None] = contextvars.ContextVar(
    "ors_gym_opened", default=None
)
"""The episode that was opened last in this thread or task: its game follows."""


class Observer:
    """Makes the spans."""

    def __init__(
        self,
        tracer: trace.Tracer,
        instruments: Instruments,
        agent_name: str | None,
        capture_content: bool,
    ) -> None:
        self._tracer = tracer
        self._spans = SpanMaker(tracer)
        self._instruments = instruments
        self._agent = {} if agent_name is None else {"gen_ai.agent.name": agent_name}
        self._captures = capture_content
        self._plays: weakref.WeakKeyDictionary[Any, _Play] = weakref.WeakKeyDictionary()
        """By their envs."""
        instruments.open_episodes = lambda: len(self._plays)
        self._of_sessions: weakref.WeakKeyDictionary[SessionCore, _Play] = (
            weakref.WeakKeyDictionary()
        )
        self._chats: dict[int, Context] = {}
        """The context in which a policy is called, by the ``id()`` of its episode."""
        self._places: dict[str, _RequestTarget] = {}
        """Where requests go, by the server's address."""

    def close(self) -> None:
        """End the spans of the episodes under way, and record what is left."""
        for play in list(self._plays.values()):
            self._finish(play)
        self._plays.clear()
        self._instruments.flush()

    # Episodes.

    def wrap_opening(self, opens: Callable[..., Any]) -> Callable[..., Any]:
        def open_(env: TaskEnv, *arguments: Any, **named: Any) -> Any:
            with self._opening(env) as play:
                result = opens(env, *arguments, **named)
                self._opened(env, play, result[1])
            return result

        return open_

    def wrap_opening_async(self, opens: Callable[..., Any]) -> Callable[..., Any]:
        async def open_(env: AsyncTaskEnv, *arguments: Any, **named: Any) -> Any:
            with self._opening(env) as play:
                result = await opens(env, *arguments, **named)
                self._opened(env, play, result[1])
            return result

        return open_

    @contextlib.contextmanager
    def _opening(self, env: TaskEnv | AsyncTaskEnv) -> Iterator[_Play]:
        self._end_play(env)
        span = self._tracer.start_span(
            " ".join(["invoke_agent", *self._agent.values()]),
            attributes={
                "gen_ai.operation.name": "invoke_agent",
                "ors.environment": env.environment,
                **self._agent,
            },
        )
        play = _Play(span, env.environment)
        token = contexts.attach(play.context)
        try:
            yield play
        except BaseException as error:
            self._note_failure(play, error)
            self._finish(play)
            raise
        finally:
            contexts.detach(token)

    def _opened(
        self, env: TaskEnv | AsyncTaskEnv, play: _Play, info: Mapping[str, Any]
    ) -> None:
        session = env.session
        self._plays[env] = play
        _opened.set(play)
        if session is not None:
            self._of_sessions[session] = play
            play.place = _RequestTarget(session.server.base_url)
            play.redact = session.redact
            session_id = session.session_id
            play.attributes["gen_ai.conversation.id"] = session_id
        play.attributes["ors.environment"] = env.environment
        play.span.set_attributes(play.attributes)
        place = {"ors.split": info["split"], "ors.task_index": info["task_index"]}
        play.span.set_attributes(place)

    def wrap_leaving(self, leaves: Callable[..., Any]) -> Callable[..., Any]:
        def leave(env: TaskEnv, *arguments: Any, **named: Any) -> Any:
            with self._leaving(env):
                return leaves(env, *arguments, **named)

        return leave

    def wrap_leaving_async(self, leaves: Callable[..., Any]) -> Callable[..., Any]:
        async def leave(env: AsyncTaskEnv, *arguments: Any, **named: Any) -> Any:
            with self._leaving(env):
                return await leaves(env, *arguments, **named)

        return leave

    @contextlib.contextmanager
    def _leaving(self, env: TaskEnv | AsyncTaskEnv) -> Iterator[None]:
        play = self._plays.get(env)
        if play is None:
            yield
            return
        token = contexts.attach(play.context)
        try:
            yield
        finally:
            contexts.detach(token)
            self._end_play(env)

    def _end_play(self, env: TaskEnv | AsyncTaskEnv) -> None:
        play = self._plays.pop(env, None)
        if play is not None:
            self._finish(play)

    def _finish(self, play: _Play) -> None:
        play.ended = True
        span = play.span
        where = {"ors.environment": play.attributes["ors.environment"]}
        _note_stop(play)
        play.episode = None
        span.set_attribute("ors.steps", play.steps)
        figures: dict[str, Any] = dict(where)
        if play.error:
            # Without an outcome there is no reward.
            _mark_failed(span, play.error)
            figures["error.type"] = play.error
        else:
            span.set_attribute("ors.reward", play.reward)
            span.set_attribute("ors.finished", play.finished)
            self._instruments.note_reward(play.reward, where)
        self._instruments.episode.record(time.perf_counter() - play.started, figures)
        span.end()

    def _note_failure(self, play: _Play | None, error: BaseException) -> str:
        """Note what went wrong in an episode; return what kind of error it is."""
        kind = _kind_of(error)
        if isinstance(error, ORSError) and error.outage:
            where = {} if play is None else play.attributes
            figures = {"error.type": kind}
            if "ors.environment" in where:
                figures["ors.environment"] = where["ors.environment"]
            self._instruments.outages.add(1, figures)
        if play is not None and _ends_episode(error):
            play.error = kind
        return kind

    # Tool calls.

    def wrap_call(self, makes: Callable[..., Any]) -> Callable[..., Any]:
        def call_operation(
            session: SessionCore,
            tool: str,
            tool_input: Mapping[str, Any],
            timeout: float | None,
        ) -> Operation[ToolOutput]:
            operation = makes(session, tool, tool_input, timeout)
            return self._observe_call(session, operation, tool, tool_input)

        return call_operation

    def wrap_resumption(self, makes: Callable[..., Any]) -> Callable[..., Any]:
        def resume_operation(
            session: SessionCore, task_id: str, timeout: float | None
        ) -> Operation[ToolOutput]:
            operation = makes(session, task_id, timeout)
            return self._observe_call(session, operation, "", None)

        return resume_operation

    def _observe_call(
        self,
        session: SessionCore,
        operation: Operation[ToolOutput],
        tool: str,
        tool_input: Mapping[str, Any] | None,
    ) -> Operation[ToolOutput]:
        play = self._of_sessions.get(session)
        if play is None:
            above, what = self._spans.under(contexts.get_current()), _Tool(tool, {})
            span, figures = above.start(what.span_name, what.attributes), what.figures
            place = self._find_place(session.server.base_url)
        else:
            span, figures = play.start_call(self._spans, tool)
            place = play.place
        started = time.perf_counter()
        try:
            output = yield from self._observe_requests(
                operation, span, place, session.state
            )
        except BaseException as error:
            kind = self._note_failure(play, error)
            figures = {**figures, "error.type": kind}
            _mark_failed(span, kind)
            if play is not None:
                play.steps += 1
            raise
        else:
            _note_output(play, span, output)
            if self._captures:
                self._capture_call(session, span, tool_input, output)
            return output
        finally:
            self._instruments.note_call(time.perf_counter() - started, figures)
            span.end()

    def _capture_call(
        self,
        session: SessionCore,
        span: AnySpan,
        tool_input: Mapping[str, Any] | None,
        output: ToolOutput,
    ) -> None:
        said = {"gen_ai.tool.call.result": output["blocks"]}
        if tool_input is not None:
            said["gen_ai.tool.call.arguments"] = tool_input  # type: ignore[assignment]
        for name, value in said.items():
            span.set_attribute(name, session.redact(json.dumps(value, default=str)))

    # Requests.

    def observe_operation(
        self, operation: Operation[T], exchange: Callable[..., Any]
    ) -> Operation[T]:
        """Observe an operation that a driver is about to run."""
        if operation.gi_code is _CALL:  # type: ignore[attr-defined]
            # It is observed already.
            return operation
        origin = getattr(getattr(exchange, "__self__", None), "origin", None)
        address = (
            ""
            if origin is None
            else f"{origin.scheme}://{origin.authority}{origin.prefix}"
        )
        above = self._spans.under(contexts.get_current())
        return self._observe_requests(operation, above, self._find_place(address))

    def _find_place(self, address: str) -> _RequestTarget:
        place = self._places.get(address)
        if place is None:
            place = self._places[address] = _RequestTarget(address)
        return place

    def _observe_requests(
        self,
        operation: Operation[T],
        above: Parent,
        place: _RequestTarget,
        state: Any = None,
    ) -> Operation[T]:
        """Make a span of each request; retries become events of the span above.

        ``state`` is that of the session, for a call.
        """
        said = ""
        try:
            step = next(operation)
            while True:
                if type(step) is not Send:
                    seconds: float = step.seconds  # type: ignore[union-attr]
                    waited: dict[str, Any] = {"error.type": said, "ors.delay": seconds}
                    above.add_event("ors.retry", waited)
                    step = operation.send((yield step))
                    continue
                if state is not None and state.pending:
                    # The server has the call: its result is asked for.
                    above.add_event("ors.resume", {"error.type": said})
                name, attributes = place.describe(step.head)
                span = above.start(name, attributes.copy(), SpanKind.CLIENT)
                step.traceparent = span.traceparent()
                try:
                    outcome = yield step
                except BaseException:
                    _mark_failed(span, "interrupted")
                    span.end()
                    raise
                said = _end_request(span, outcome)
                step = operation.send(outcome)
        except StopIteration as stop:
            result: T = stop.value
            return result
        finally:
            operation.close()

    # Turns and model calls.

    def observe_game(self, game: Game, episode: Episode) -> Game:
        """Make a span of each turn of a rollout, and of each question to its policy."""
        play = _opened.get()
        if play is not None and play.ended:
            # What is played now is no env of ours.
            play = None
        above = contexts.get_current() if play is None else play.context
        if play is not None:
            play.episode = episode
            number = {"ors.episode": episode.number}
            play.span.set_attributes(number)
        try:
            redact = str if play is None else play.redact
            yield from self._observe_turns(game, episode, above, redact)
        finally:
            if play is not None:
                # As well as at the end: what is repaired empties its record before.
                _note_stop(play)

    def _observe_turns(
        self,
        game: Game,
        episode: Episode,
        above: Context,
        redact: Callable[[str], str],
    ) -> Game:
        turn: Span | None = None
        context = above
        try:
            request = resume(game)
            while request is not None:
                if isinstance(request, PlannedAction):
                    request = yield from _step_within(game, request, context)
                    continue
                if turn is not None:
                    turn.end()
                number = {"ors.turn": len(episode.turns)}
                turn = self._tracer.start_span("turn", above, attributes=number)
                context = trace.set_span_in_context(turn, above)
                request = yield from self._observe_chat(
                    game, request, episode, context, redact
                )
        finally:
            game.close()
            if turn is not None:
                turn.end()

    def _observe_chat(
        self,
        game: Game,
        request: AskPolicy,
        episode: Episode,
        above: Context,
        redact: Callable[[str], str],
    ) -> Generator[AskPolicy, Any, AskPolicy | PlannedAction | None]:
        """Ask the policy, and return what comes next."""
        model: dict[str, Any] = {
            "gen_ai.operation.name": "chat",
            "gen_ai.provider.name": SCOPE,
        }
        chat = self._tracer.start_span("chat", above, SpanKind.CLIENT, model)
        started, ended = time.perf_counter(), None
        context = self._chats[id(episode)] = trace.set_span_in_context(chat, above)
        try:
            answer = yield from _ask_within(request, context)
            ended = time.time_ns()
            seconds = time.perf_counter() - started
            played = len(episode.turns)
            found = resume(game, answer)
            if len(episode.turns) > played:
                self._describe_turn(chat, episode, model, seconds)
                message = episode.turns[-1].message
                if self._captures and message is not None:
                    said = redact(json.dumps([message], default=str))
                    chat.set_attribute("gen_ai.output.messages", said)
        except GeneratorExit:
            # The policy raised, or its time was over.
            _mark_failed(chat, "policy")
            raise
        else:
            return found
        finally:
            self._chats.pop(id(episode), None)
            chat.end(ended)

    def _describe_turn(
        self, span: Span, episode: Episode, model: Mapping[str, Any], seconds: float
    ) -> None:
        turn = episode.turns[-1]
        extra = turn.extra if isinstance(turn.extra, Mapping) else {}
        known = dict(model)
        name = extra.get("model")
        if isinstance(name, str):
            span.update_name(f"chat {name}")
            known["gen_ai.request.model"] = name
            span.set_attribute("gen_ai.request.model", name)
        reason = extra.get("finish_reason")
        if isinstance(reason, str):
            span.set_attribute("gen_ai.response.finish_reasons", [reason])
        for kind, count in _count_tokens(episode, extra).items():
            span.set_attribute(f"gen_ai.usage.{kind}_tokens", count)
            counted = {**known, "gen_ai.token.type": kind}
            self._instruments.tokens.record(count, counted)
        self._instruments.chat.record(seconds, known)

    def wrap_asking(self, calls: Callable[..., Any]) -> Callable[..., Any]:
        async def call(caller: PolicyCaller, policy: Any, episode: Episode) -> Any:
            context = self._chats.get(id(episode))
            if context is not None:
                # The policy has a context of its own: its spans belong to the chat.
                caller._context.run(contexts.attach, context)  # noqa: SLF001
            return await calls(caller, policy, episode)

        return call


_CALL: Final = Observer._observe_call.__code__  # noqa: SLF001 - of this module


def _step_within(
    game: Game, request: PlannedAction, context: Context
) -> Generator[PlannedAction, Any, AskPolicy | PlannedAction | None]:
    """Have the env stepped in the context of the turn, and return what comes next."""
    before = contexts.get_current()
    contexts.attach(context)
    try:
        answer = yield request
    except ORSError as error:
        contexts.attach(before)
        return resume(game, error=error)
    finally:
        # Not detached: an episode that is given up may end in another task.
        contexts.attach(before)
    return resume(game, answer)


def _ask_within(request: AskPolicy, context: Context) -> Generator[AskPolicy, Any, Any]:
    """Have the policy asked in the context of the chat, if it is asked in this thread.

    An async rollout gives it the context itself (see `Observer.wrap_asking`).
    """
    if asyncio._get_running_loop() is not None:  # noqa: SLF001 - it raises no error
        return (yield request)
    before = contexts.get_current()
    contexts.attach(context)
    try:
        return (yield request)
    finally:
        contexts.attach(before)


def _note_stop(play: _Play) -> None:
    """Note why a rollout stopped, as far as its record says so yet."""
    episode = play.episode
    if episode is None or not episode.stop_reason:
        return
    play.span.set_attribute("ors.stop_reason", episode.stop_reason)
    if episode.total_reward is None:
        play.error = play.error or episode.error_kind


def _note_output(play: _Play | None, span: AnySpan, output: ToolOutput) -> None:
    reward = output["reward"]
    if reward is not None:
        span.set_attribute("ors.reward", reward)
    if output["finished"]:
        span.set_attribute("ors.finished", True)
    if play is not None:
        play.steps += 1
        play.reward += reward or 0.0
        play.finished = play.finished or output["finished"]


def _count_tokens(episode: Episode, extra: Mapping[str, Any]) -> dict[str, int]:
    """Count the tokens of the last turn, where the policy knows them."""
    if (tokens := episode.turns[-1].tokens) is not None:
        found = {"input": len(tokens.prompt_ids), "output": len(tokens.ids)}
        # It read what the turns of its sequence before it read and wrote.
        for turn in reversed(episode.turns[:-1]):
            if tokens is None or tokens.starts_sequence:
                break
            tokens = turn.tokens
            if tokens is not None:
                found["input"] += len(tokens.prompt_ids) + len(tokens.ids)
        return found
    usage = extra.get("usage")
    if not isinstance(usage, Mapping):
        return {}
    return {
        kind: usage[name]
        for name, kind in _USAGE.items()
        if type(usage.get(name)) is int
    }


class _Tool:
    """What the calls of a tool have in common."""

    def __init__(self, name: str, attributes: dict[str, Any]) -> None:
        self.span_name = f"execute_tool {name}" if name else "execute_tool"
        self.figures: dict[str, Any] = {"gen_ai.tool.name": name}
        self.attributes: dict[str, Any] = {
            "gen_ai.operation.name": "execute_tool",
            **self.figures,
            **attributes,
        }


class _RequestTarget:
    """Where requests go."""

    def __init__(self, address: str) -> None:
        self._address = address
        self._attributes: dict[str, Any] = {}
        if address:
            parts = urlsplit(address)
            port = parts.port or {"https": 443}.get(parts.scheme, 80)
            self._attributes["server.address"] = parts.hostname or ""
            self._attributes["server.port"] = port
        self._last: tuple[Head, tuple[str, dict[str, Any]]] | None = None

    def describe(self, head: Head) -> tuple[str, dict[str, Any]]:
        """Return the name and the attributes of a request's span."""
        last = self._last
        if last is None or last[0] is not head:
            attributes = {
                "http.request.method": head.method,
                "url.full": self._address + head.target,
                **self._attributes,
            }
            last = self._last = head, (f"{head.method} {head.target}", attributes)
        return last[1]


def _end_request(span: AnySpan, outcome: Outcome) -> str:
    """End the span of a request; return in a word what went wrong, or ``""``."""
    if outcome.status:
        span.set_attribute("http.response.status_code", outcome.status)
    said = ""
    if outcome.failure is not None or outcome.status >= 400:
        said = _describe_failure(outcome)
        _mark_failed(span, said)
    span.end()
    return said


def _describe_failure(outcome: Outcome) -> str:
    """Say in a word what went wrong with a request."""
    if outcome.failure is not None:
        return str(outcome.failure.value)
    return str(outcome.status)


def _kind_of(error: BaseException) -> str:
    """Name the kind of an error. Its text is left out: it may hold a secret."""
    if isinstance(error, ORSError):
        return error.kind
    if isinstance(error, Exception):
        return type(error).__name__
    return "interrupted"


def _ends_episode(error: BaseException) -> bool:
    """Say whether an error leaves the episode without an outcome."""
    return not isinstance(error, ToolFailedError | ToolRejectedError)


def _mark_failed(span: Span | AnySpan, kind: str) -> None:
    span.set_attribute("error.type", kind)
    span.set_status(_ERROR)
