"""Traces and metrics of OpenTelemetry, in its own in-memory exporters."""

import asyncio
import contextlib
import doctest
import inspect
import json
import re
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import gymnasium
import httpx
import httpx2
import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ALWAYS_ON, Sampler

from ors_gym import AsyncORSClient, ORSClient, ORSEnv, evaluate, run_episode
from ors_gym.client import Session, _run_operation
from ors_gym.client._settings import find_version
from ors_gym.env import AsyncTaskEnv, TaskEnv
from ors_gym.errors import AmbiguousCallError, CallTimeoutError
from ors_gym.integrations import opentelemetry
from ors_gym.integrations.opentelemetry import _late_spans, instrument, uninstrument
from ors_gym.integrations.opentelemetry._late_spans import LateSpan
from ors_gym.rollout import Episode, LiveEpisode, Turn, _turn_by_turn
from tests.support.proxy.faults import Answer, Close, Point, Reset, Stall

Tree = list[Any]
OPENING = [
    "POST /create_session",
    "POST /create",
    "GET /contract/prompt",
    "GET /contract/task_tools",
]
ASKED_ONCE = ["GET /openapi.json", "GET /list_environments", "GET /contract/splits"]
CLOSING = ["POST /delete", "POST /delete_session"]
SUBMIT = {"tool": "submit", "input": {"answer": "0"}}
ADD = {"tool": "add", "input": {"a": 1, "b": 2}}
CALL = ["POST /contract/call"]


class Traces:
    def __init__(self, sampler: Sampler = ALWAYS_ON) -> None:
        self._exporter = InMemorySpanExporter()
        self.tracers = TracerProvider(sampler=sampler)
        self.tracers.add_span_processor(SimpleSpanProcessor(self._exporter))
        self._reader = InMemoryMetricReader()
        self.meters = MeterProvider([self._reader])

    def start(self, **options: Any) -> None:
        instrument(tracer_provider=self.tracers, meter_provider=self.meters, **options)

    def spans(self, name: str = "") -> list[ReadableSpan]:
        found = self._exporter.get_finished_spans()
        return [span for span in found if span.name.startswith(name)]

    def one(self, name: str) -> ReadableSpan:
        (span,) = self.spans(name)
        return span

    def trees(self, root: str = "") -> list[Tree]:
        """Return the names of spans, each followed by those below it, if any are.

        Questions that are asked once for a client are left out.
        """
        spans = sorted(self.spans(), key=lambda span: span.start_time or 0)
        spans = [span for span in spans if span.name not in ASKED_ONCE]
        known = {_id(span) for span in spans}

        def below(parent: int | None) -> Tree:
            found: Tree = []
            for span in spans:
                above = span.parent.span_id if span.parent is not None else None
                if (above if above in known else None) == parent:
                    found.append(span.name.replace("/messages", "/prompt"))
                    if inner := below(_id(span)):
                        found.append(inner)
            return found

        roots = [s for s in spans if s.parent is None or s.parent.span_id not in known]
        return [
            [span.name, below(_id(span))]
            for span in roots
            if span.name.startswith(root)
        ]

    def metrics(self) -> dict[str, list[Any]]:
        data = self._reader.get_metrics_data()
        assert data is not None
        return {
            metric.name: list(metric.data.data_points)
            for resource in data.resource_metrics
            for scope in resource.scope_metrics
            for metric in scope.metrics
        }

    def everything(self) -> str:
        """Return all that an exporter would send."""
        spans = [span.to_json() for span in self.spans()]
        data = self._reader.get_metrics_data()
        return "\n".join([*spans, "" if data is None else data.to_json()])


def _id(span: ReadableSpan) -> int:
    assert span.context is not None
    return int(span.context.span_id)


def attributes(span: ReadableSpan) -> dict[str, Any]:
    return dict(span.attributes or {})


@pytest.fixture
def traces() -> Iterator[Traces]:
    traces = Traces()
    yield traces
    uninstrument()


def right(episode: Episode) -> Any:
    """Call a tool twice in one turn, then submit."""
    if not episode.turns:
        return Turn([ADD, ADD], extra={"model": "m1", "usage": USAGE})
    return SUBMIT


USAGE = {"prompt_tokens": 120, "completion_tokens": 7}
TURNS = [
    *("turn", ["chat m1", "execute_tool add", CALL, "execute_tool add", CALL]),
    *("turn", ["chat", "execute_tool submit", CALL]),
]


def test_an_episode_of_a_rollout(server, traces):
    traces.start(agent_name="adder")
    evaluate(
        *(server.base_url, "contract", range(2), right),
        split="train",
        progress=False,
        max_concurrent=2,
    )
    expected = ["invoke_agent adder", [*OPENING, *TURNS, *CLOSING]]
    assert traces.trees("invoke_agent") == [expected, expected]
    first = attributes(traces.spans("invoke_agent")[0])
    index = first.pop("ors.task_index")
    session = first.pop("gen_ai.conversation.id")
    assert first == {
        "gen_ai.operation.name": "invoke_agent",
        "gen_ai.agent.name": "adder",
        "ors.environment": "contract",
        "ors.split": "train",
        "ors.episode": 0,
        "ors.steps": 3,
        "ors.reward": 1.0 + float(index == 0),
        "ors.finished": True,
        "ors.stop_reason": "finished",
    }
    call = next(
        attributes(span)
        for span in traces.spans("execute_tool submit")
        if attributes(span)["gen_ai.conversation.id"] == session
    )
    assert call == {
        "gen_ai.operation.name": "execute_tool",
        "gen_ai.tool.name": "submit",
        "gen_ai.conversation.id": session,
        "ors.environment": "contract",
        "ors.reward": float(index == 0),
        "ors.finished": True,
    }
    assert attributes(traces.spans("chat m1")[0]) == {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "ors_gym",
        "gen_ai.request.model": "m1",
        "gen_ai.usage.input_tokens": 120,
        "gen_ai.usage.output_tokens": 7,
    }
    assert attributes(traces.spans("POST /contract/call")[0]) == {
        "http.request.method": "POST",
        "url.full": f"{server.base_url}/contract/call",
        "server.address": "127.0.0.1",
        "server.port": server.port,
        "http.response.status_code": 200,
    }


def test_an_env_that_is_stepped_by_hand(one_server, traces):
    traces.start()
    with (
        traces.tracers.get_tracer("mine").start_as_current_span("training"),
        ORSEnv("contract", one_server.base_url, split="train") as env,
    ):
        env.reset(options={"task_index": 0})
        env.step(ADD)
        env.step({"tool": "fail", "input": {"message": "no"}})
        env.step(SUBMIT)
        # What is current when the metrics are collected is not the call.
        points = traces.metrics()["gen_ai.execute_tool.duration"]
        assert [list(point.exemplars) for point in points] == [[]] * 3
    (tree,) = traces.trees("training")
    calls = [f"execute_tool {name}" for name in ("add", "fail", "submit")]
    below = [part for call in calls for part in (call, CALL)]
    inner = [part for part in tree[1] if isinstance(part, list)]
    assert inner == [[*OPENING, *below, *CLOSING]]
    failed = traces.one("execute_tool fail")
    assert attributes(failed)["error.type"] == "tool_failed"
    assert not failed.status.is_ok
    # A tool that raised is no outage.
    assert attributes(traces.one("invoke_agent"))["ors.reward"] == 1.5
    assert "ors.outages" not in traces.metrics()


def test_heartbeats_and_late_deletes_are_no_part_of_a_trace(fault_proxy, traces):
    traces.start()
    with ORSClient(fault_proxy.url) as client:
        client._server.ping_every = 0.05
        session = client.session("contract", split="train", index=0).open()
        fault_proxy.wait_for(2, "/ping")
        session.close(wait=False)
        fault_proxy.wait_for(1, "/delete")
    names = {span.name for span in traces.spans()}
    assert "POST /create" in names
    assert not [name for name in names if "ping" in name or "delete" in name]


def test_vector_envs_and_open_ended_ones(one_server, traces):
    traces.start()
    env: Any = gymnasium.make_vec(
        "ors/remote",
        num_envs=2,
        env_name="contract",
        base_url=one_server.base_url,
        split="train",
    )
    env.reset(seed=0)
    env.step([SUBMIT, ADD])
    env.close()
    found = sorted(
        (attributes(span)["ors.task_index"], attributes(span)["ors.steps"])
        for span in traces.spans("invoke_agent")
    )
    assert found == [(0, 1), (1, 1)]
    assert {tree[1][0] for tree in traces.trees("invoke_agent")} == {OPENING[0]}


@pytest.mark.parametrize("is_async", [False, True], ids=["blocking", "async"])
def test_a_call_that_is_resumed(fault_proxy, traces, is_async):
    traces.start()
    fault_proxy.plan(faults=[Close(Point.AFTER_TASK_ID)])
    if is_async:

        async def play() -> None:
            async with (
                AsyncORSClient(fault_proxy.url) as client,
                client.session("contract", split="train", index=0) as session,
            ):
                await session.call_tool("count", {})

        asyncio.run(play())
    else:
        with (
            ORSClient(fault_proxy.url) as client,
            client.session("contract", split="train", index=0) as session,
        ):
            session.call_tool("count", {})
    span = traces.one("execute_tool count")
    events = [(event.name, dict(event.attributes or {})) for event in span.events]
    assert events[-1] == ("ors.resume", {"error.type": "reset"})
    assert {name for name, _ in events} <= {"ors.retry", "ors.resume"}
    assert span.status.is_ok
    assert traces.trees("execute_tool") == [["execute_tool count", [*CALL, *CALL]]]
    first, second = traces.spans("POST /contract/call")
    assert attributes(first)["error.type"] == "reset"
    assert "error.type" not in attributes(second)


def test_requests_that_are_repeated(fault_proxy, traces):
    traces.start()
    starting = (("X-Backend-State", "starting"), ("Retry-After", "0"))
    fault_proxy.plan(faults=[Answer(503, starting)])
    with TaskEnv("contract", fault_proxy.url, split="train") as env:
        env.open(0)
        env.step(ADD)
    span = traces.one("execute_tool add")
    (event,) = span.events
    assert event.name == "ors.retry"
    assert dict(event.attributes or {})["error.type"] == "503"
    codes = [
        attributes(call)["http.response.status_code"] for call in traces.spans(*CALL)
    ]
    assert codes == [503, 200]


def test_an_outage(fault_proxy, traces):
    traces.start()
    fault_proxy.plan(faults=[Reset(Point.BEFORE_REPLY)])
    evaluation = evaluate(
        *(fault_proxy.url, "contract", range(1), lambda _: ADD),
        split="train",
        progress=False,
    )
    assert evaluation["results"][0]["error_kind"] == "ambiguous_call"
    for name in ("invoke_agent", "execute_tool add"):
        span = traces.one(name)
        assert attributes(span)["error.type"] == "ambiguous_call"
        assert not span.status.is_ok
    episode = attributes(traces.one("invoke_agent"))
    assert "ors.reward" not in episode
    assert episode["ors.stop_reason"] == "error"
    metrics = traces.metrics()
    (outages,) = metrics["ors.outages"]
    assert (outages.value, dict(outages.attributes)) == (
        1,
        {"error.type": "ambiguous_call", "ors.environment": "contract"},
    )
    assert "ors.episode.reward.sum" not in metrics
    assert "ors.episode.reward.count" not in metrics


def test_a_call_that_times_out_and_is_waited_for_longer(fault_proxy, traces):
    traces.start()
    fault_proxy.plan(faults=[Stall(Point.AFTER_TASK_ID)])
    with (
        ORSClient(fault_proxy.url) as client,
        client.session("contract", split="train", index=0) as session,
    ):
        with pytest.raises((CallTimeoutError, AmbiguousCallError)) as caught:
            session.call_tool("count", {}, timeout=0.2)
        fault_proxy.release()
        session.resume_call(caught.value.task_id)
    timed_out, resumed = traces.spans("execute_tool")
    assert attributes(timed_out)["error.type"] == caught.value.kind
    assert [event.name for event in resumed.events] == ["ors.resume"]
    assert resumed.status.is_ok


def test_the_server_is_told_the_trace(fault_proxy, traces):
    traces.start()
    with TaskEnv("contract", fault_proxy.url, split="train") as env:
        env.open(0)
        for _ in range(3):
            env.step(ADD)
    told = [request.header("traceparent") for request in fault_proxy.requests("/call")]
    spans = traces.spans("POST /contract/call")
    assert told == [
        f"00-{span.context.trace_id:032x}-{span.context.span_id:016x}-{span.context.trace_flags:02x}"
        for span in spans
        if span.context is not None
    ]
    assert len(set(told)) == 3
    uninstrument()
    fault_proxy.clear()
    with TaskEnv("contract", fault_proxy.url, split="train") as env:
        env.open(0)
    assert not any(request.header("traceparent") for request in fault_proxy.requests())


@pytest.mark.parametrize("library", [httpx, httpx2], ids=["httpx", "httpx2"])
def test_the_server_is_told_the_trace_over_a_user_s_client(
    fault_proxy, traces, library
):
    traces.start()
    headers = {"Traceparent": "00-mine"}
    with (
        library.Client() as brought,
        ORSClient(fault_proxy.url, client=brought, headers=headers) as client,
        client.session("contract", split="train", index=0) as session,
    ):
        session.call_tool("count", {})
    (request,) = fault_proxy.requests("/call")
    (span,) = traces.spans("POST /contract/call")
    assert f"{_id(span):016x}" in request.header("traceparent")


def test_a_late_span_is_the_sdk_s_in_every_field(one_server, traces):
    traces.start()
    with TaskEnv("contract", one_server.base_url, split="train") as env:
        env.open(0)
        env.step(ADD)
    tracer = traces.tracers.get_tracer("ors_gym", find_version())
    for span in traces.spans("execute_tool") + traces.spans("POST /contract/call"):
        assert isinstance(span, LateSpan)
        usual = ReadableSpan(
            span.name,
            span.context,
            span.parent,
            tracer.resource,
            span.attributes,
            kind=span.kind,
            status=span.status,
            start_time=span.start_time,
            end_time=span.end_time,
            instrumentation_scope=tracer._instrumentation_scope,
        )
        assert span.to_json() == usual.to_json()
        for name, found in inspect.getmembers(ReadableSpan):
            if isinstance(found, property) and name != "instrumentation_info":
                assert getattr(span, name) == getattr(usual, name), name


def test_an_sdk_whose_spans_have_more_fields_makes_them_itself(
    one_server, traces, monkeypatch
):
    monkeypatch.setattr(_late_spans, "_FIELDS", {*_late_spans._FIELDS, "_more"})
    traces.start()
    with TaskEnv("contract", one_server.base_url, split="train") as env:
        env.open(0)
        env.step(ADD)
    below = [*OPENING, "execute_tool add", CALL, *CLOSING]
    assert traces.trees("invoke") == [["invoke_agent", below]]
    assert not [span for span in traces.spans() if isinstance(span, LateSpan)]


def test_what_is_current_may_change_between_two_calls(one_server, traces):
    tracer = traces.tracers.get_tracer("mine")
    traces.start()
    with (
        ORSClient(one_server.base_url) as client,
        client.session("contract", split="train", index=0) as session,
        TaskEnv("contract", one_server.base_url, split="train") as env,
    ):
        env.open(0)
        env.step(ADD)
        for name in ("one", "two"):
            with tracer.start_as_current_span(name):
                env.step(ADD)
                session.call_tool("count", {})
        env.step(ADD)
    # A call of an episode is below it, one without an episode below what is current.
    calls = ["execute_tool add", CALL] * 4
    expected = ["invoke_agent", [*OPENING, *calls, *CLOSING]]
    assert traces.trees("invoke_agent") == [expected]
    for name in ("one", "two"):
        assert traces.trees(name) == [[name, ["execute_tool count", CALL]]]


def test_what_the_policy_traces_is_below_its_model_call(one_server, traces):
    tracer = traces.tracers.get_tracer("mine")

    def plain(episode: Episode) -> Any:
        with tracer.start_as_current_span("openai"):
            return SUBMIT

    async def awaited(episode: Episode) -> Any:
        return plain(episode)

    traces.start()
    for policy in (plain, awaited):
        evaluate(
            *(one_server.base_url, "contract", range(1), policy),
            split="train",
            progress=False,
        )
    with ORSEnv("contract", one_server.base_url, split="train") as env:
        run_episode(env, plain)
    turn = ["turn", ["chat", ["openai"], "execute_tool submit", CALL]]
    episodes = traces.trees("invoke_agent")
    assert [tree[1] for tree in episodes] == [[*OPENING, *turn, *CLOSING]] * 3


@contextlib.asynccontextmanager
async def begin_live_episode(url: str) -> AsyncIterator[LiveEpisode]:
    """Yield a live episode that has begun."""
    async with (
        AsyncORSClient(url) as client,
        LiveEpisode(client, "contract", 0, split="train") as live,
    ):
        await live.start()
        yield live


def test_an_episode_that_a_trainer_plays(one_server, traces):
    traces.start()

    async def play() -> None:
        async with begin_live_episode(one_server.base_url) as live:
            # Each turn in a task of its own, as a server of a trainer may do it.
            for action in (ADD, SUBMIT):
                await asyncio.create_task(live.take(json.dumps(action)))

    asyncio.run(play())
    turns = [["chat", f"execute_tool {name}", CALL] for name in ("add", "submit")]
    between = ["turn", turns[0], "turn", turns[1]]
    (tree,) = traces.trees("invoke_agent")
    assert tree[1] == [*OPENING, *between, *CLOSING]


def test_a_policy_that_raises_ends_its_spans(one_server, traces):
    traces.start()

    def policy(_: Episode) -> Any:
        raise ValueError("it is canary-of-an-error")

    evaluate(
        *(one_server.base_url, "contract", range(1), policy),
        split="train",
        progress=False,
    )
    assert attributes(traces.one("chat"))["error.type"] == "policy"
    assert traces.spans("turn")
    assert "canary-of-an-error" not in traces.everything()


def raise_on_turn_2(episode: Episode) -> Any:
    if episode.turns:
        raise ValueError("no idea")
    return ADD


def play_evaluated(url: str, policy: Any, **options: Any) -> Episode:
    """Return the record of an episode of an evaluation."""
    evaluation = evaluate(
        url, "contract", range(1), policy, split="train", progress=False, **options
    )
    return evaluation.records[0].episode


def play_live(url: str, policy: Any) -> Episode:
    """Return the record of a live episode, whatever its policy raises."""

    async def play() -> Episode:
        async with begin_live_episode(url) as live:
            with contextlib.suppress(ValueError):
                await live.play(policy)
            return live.episode

    return asyncio.run(play())


@pytest.mark.parametrize("play", [play_evaluated, play_live])
def test_an_episode_whose_policy_raised_has_no_outcome(one_server, traces, play):
    traces.start()
    episode = play(one_server.base_url, raise_on_turn_2)
    assert (episode.error_kind, episode.total_reward) == ("policy", None)
    span = traces.one("invoke_agent")
    assert not span.status.is_ok
    known = attributes(span)
    assert known["error.type"] == "policy"
    assert known["ors.stop_reason"] == "error"
    assert "ors.reward" not in known
    assert "ors.episode.reward.count" not in traces.metrics()
    (duration,) = traces.metrics()["gen_ai.invoke_agent.duration"]
    assert duration.attributes["error.type"] == "policy"


def test_a_deadline_is_the_reason_of_its_span(one_server, traces):
    traces.start()

    async def policy(_: Episode) -> Any:
        await asyncio.Event().wait()

    episode = play_evaluated(one_server.base_url, policy, deadline=2)
    assert episode.stop_reason == "deadline"
    known = attributes(traces.one("invoke_agent"))
    assert known["ors.stop_reason"] == "deadline"
    assert known["ors.reward"] == episode.total_reward == 0


def test_a_turn_that_is_cancelled_has_the_reason_of_its_record(one_server, traces):
    traces.start()

    async def play() -> Episode:
        async with begin_live_episode(one_server.base_url) as live:
            asked = asyncio.Event()

            async def policy(_: Episode) -> Any:
                asked.set()
                await asyncio.Event().wait()

            playing = asyncio.create_task(live.play(policy))
            await asyncio.wait_for(asked.wait(), 30)
            playing.cancel()
            await asyncio.wait([playing], timeout=30)
            return live.episode

    episode = asyncio.run(play())
    known = attributes(traces.one("invoke_agent"))
    assert known["ors.stop_reason"] == episode.stop_reason == "deadline"


CANARIES = {"key": "canary-key-712", "secret": "canary-secret-88"}
CONTENT = {"argument": "canary-argument", "answer": "canary-message"}


@pytest.mark.parametrize("captures", [False, True])
def test_no_secret_and_no_content_unless_it_is_asked_for(server, traces, captures):
    traces.start(capture_content=captures)
    secret = CANARIES["secret"]

    def policy(episode: Episode) -> Any:
        text = f"{CONTENT['argument']} {secret}"
        calls = [
            {"tool": "echo", "input": {"text": text}},
            {"tool": "fail", "input": {"message": text}},
        ]
        message = {"role": "assistant", "content": f"{CONTENT['answer']} {secret}"}
        return Turn([*calls, SUBMIT], message=message)

    evaluate(
        *(server.base_url, "contract", range(1), policy),
        split="train",
        progress=False,
        secrets={"MINE": secret},
        client_options={"api_key": CANARIES["key"]},
    )
    told = traces.everything()
    assert not [canary for canary in CANARIES.values() if canary in told]
    assert [text in told for text in CONTENT.values()] == [captures] * 2
    assert ("0 + 0" in told) is False
    assert ("[redacted]" in told) is captures


def test_metrics(one_server, traces):
    traces.start()
    evaluate(
        *(one_server.base_url, "contract", range(3), right),
        split="train",
        progress=False,
    )
    metrics = traces.metrics()
    calls = {
        point.attributes["gen_ai.tool.name"]: point.count
        for point in metrics["gen_ai.execute_tool.duration"]
    }
    assert calls == {"add": 6, "submit": 3}
    (episodes,) = metrics["gen_ai.invoke_agent.duration"]
    (reward_sum,) = metrics["ors.episode.reward.sum"]
    (reward_count,) = metrics["ors.episode.reward.count"]
    assert (episodes.count, reward_count.value, reward_sum.value) == (3, 3, 4.0)
    tokens = {
        point.attributes["gen_ai.token.type"]: point.sum
        for point in metrics["gen_ai.client.token.usage"]
    }
    assert tokens == {"input": 360, "output": 21}
    asked = sum(point.count for point in metrics["gen_ai.client.operation.duration"])
    assert asked == 6
    assert [point.value for point in metrics["ors.episodes.open"]] == [0]


def test_every_metric_is_in_the_docs(fault_proxy, traces):
    traces.start()
    evaluate(
        *(fault_proxy.url, "contract", range(1), right), split="train", progress=False
    )
    fault_proxy.plan(faults=[Reset(Point.BEFORE_REPLY)])
    play_evaluated(fault_proxy.url, lambda _: ADD)
    text = (Path(__file__).parents[2] / "docs" / "runs.md").read_text()
    paragraph = text.partition("\nThe metrics are ")[2].partition(". ")[0]
    assert set(re.findall("`(.+?)`", paragraph)) == set(traces.metrics())


def test_negative_rewards_count_in_the_mean(one_server, traces):
    traces.start()
    lose = {"tool": "reward", "input": {"kind": "negative"}}
    episode = play_evaluated(one_server.base_url, lambda _: lose, max_turns=1)
    won = play_evaluated(one_server.base_url, lambda _: ADD, max_turns=1)
    assert (episode.total_reward or 0) < 0
    metrics = traces.metrics()
    (total,) = metrics["ors.episode.reward.sum"]
    (count,) = metrics["ors.episode.reward.count"]
    expected = (episode.total_reward or 0) + (won.total_reward or 0)
    assert (total.value, count.value) == (pytest.approx(expected), 2)


def test_metrics_go_on_when_it_is_called_again(one_server, traces):
    before, elsewhere = traces, Traces()
    before.start()
    elsewhere.start()
    before.start()
    with (
        TaskEnv("contract", one_server.base_url, split="train") as env,
        TaskEnv("contract", one_server.base_url, split="train") as other,
    ):
        for one in (env, other):
            one.open(0)
            one.step(ADD)
        metrics = before.metrics()
        (calls,) = metrics["gen_ai.execute_tool.duration"]
        assert calls.count == 2
        assert [point.value for point in metrics["ors.episodes.open"]] == [2]
        metrics = elsewhere.metrics()
        assert "gen_ai.execute_tool.duration" not in metrics
        assert [point.value for point in metrics["ors.episodes.open"]] == [0]


SET_LATER = """
from opentelemetry import metrics
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from ors_gym.env import TaskEnv
from ors_gym.integrations.opentelemetry import instrument

instrument()
reader = InMemoryMetricReader()
metrics.set_meter_provider(MeterProvider([reader]))
instrument(agent_name="mine")
with TaskEnv("guess") as env:
    env.open(0)
    (resource,) = reader.get_metrics_data().resource_metrics
    for metric in resource.scope_metrics[0].metrics:
        if metric.name == "ors.episodes.open":
            print([point.value for point in metric.data.data_points])
"""


def test_the_meters_of_the_process_may_be_set_between_two_calls():
    done = subprocess.run(
        [sys.executable, "-c", SET_LATER], capture_output=True, check=True, text=True
    )
    assert done.stdout.strip() == "[1]", done.stderr


class EverySpan(Sampler):
    """One of the user's own, which may decide about each span."""

    def should_sample(self, *arguments: Any, **named: Any) -> Any:
        return ALWAYS_ON.should_sample(*arguments, **named)

    def get_description(self) -> str:
        return "EverySpan"


@pytest.mark.parametrize("sampler", [ALWAYS_OFF, EverySpan()], ids=["off", "own"])
def test_a_sampler_decides(fault_proxy, sampler):
    traces = Traces(sampler)
    traces.start()
    with contextlib.closing(TaskEnv("contract", fault_proxy.url, split="train")) as env:
        env.open(0)
        env.step(ADD)
    uninstrument()
    below = [*OPENING, "execute_tool add", CALL, *CLOSING]
    sampled = sampler is not ALWAYS_OFF
    assert traces.trees("invoke") == [["invoke_agent", below]] * sampled
    (request,) = fault_proxy.requests("/call")
    assert int(request.header("traceparent")[-2:], 16) & 1 == sampled


def test_uninstrumenting_leaves_nothing(traces):
    owners: tuple[type[Any], ...] = (TaskEnv, AsyncTaskEnv, *Session.__mro__[:2])
    before = [dict(vars(owner)) for owner in owners]
    traces.start()
    assert [dict(vars(owner)) for owner in owners] != before
    traces.start()
    uninstrument()
    assert [dict(vars(owner)) for owner in owners] == before
    assert _run_operation.observe is None
    assert _turn_by_turn.observe is None


def test_nothing_is_imported_where_it_is_off():
    script = (
        "import sys, ors_gym, ors_gym.evaluation; ors_gym.ORSEnv, ors_gym.run_episode; "
        "print(json.dumps([n for n in sys.modules if n.startswith('opentelemetry')]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", f"import json; {script}"],
        capture_output=True,
        check=True,
        text=True,
    )
    assert json.loads(done.stdout) == []


def test_its_examples_run() -> None:
    assert doctest.testmod(opentelemetry) == (0, 4)
