"""Checks that run tools."""

from __future__ import annotations

import math
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
from typing import Any, Final

from ors_gym.errors import ORSError
from ors_gym.protocol._requests import session_head
from ors_gym.testing._subject import (
    Played,
    Subject,
    Verdict,
    ask,
    failed,
    passed,
    skipped,
    warned,
)
from ors_gym.types import ToolCall

__all__ = ["CALL_CHECKS"]

_HEARTBEAT_SECONDS: Final = 15.0
_SLOW_CALL_SECONDS: Final = 0.3
_PING_EVERY_SECONDS: Final = 0.02
_NOBODY: Final = "no_such_tool_of_this_environment"


def check_event_stream(subject: Subject) -> Verdict:
    """The form of the replies to calls."""
    for played in subject.episode.played:
        tool, reply = played.call["tool"], played.reply
        if reply.failure:
            return failed(
                f"{tool}: {reply.failure}", "see the server's log; or pass other calls="
            )
        if reply.status != 200 or not reply.is_stream:
            return failed(
                f"{tool}: {reply.status} {reply.content_type}, not an event stream",
                "answer /call with 200 text/event-stream",
            )
        if played.problem or not {"end", "error"} & set(played.events):
            return failed(
                f"{tool}: {played.problem or 'the stream has no end event'}",
                "send task_id, chunk*, and end or error",
            )
        if played.events[0] != "task_id":
            return warned(
                f"{tool}: the first event is {played.events[0]}, not task_id",
                "send task_id first: without it no call survives a broken connection",
            )
    kinds = {kind for played in subject.episode.played for kind in played.events}
    return passed(f"events: {', '.join(sorted(kinds))}")


def check_results(subject: Subject) -> Verdict:
    """What tools give back."""
    for played in subject.episode.played:
        problem = _find_problem(played)
        if problem:
            return failed(
                f"{played.call['tool']}: {problem}",
                "return blocks, reward (a finite number or null), finished (a boolean)",
            )
    outcomes = [f"{one.call['tool']} {one.outcome}" for one in subject.episode.played]
    return passed(", ".join(outcomes))


def _find_problem(played: Played) -> str:
    if played.outcome == "no result":
        return f"no result: {played.text[:100]!r}"
    if played.outcome != "ran":
        return ""
    output = played.output
    reward = output.get("reward")
    if reward is not None and (
        isinstance(reward, bool)
        or not isinstance(reward, int | float)
        or not math.isfinite(reward)
    ):
        return f"the reward is {reward!r}"
    if not isinstance(output.get("finished"), bool):
        return f"finished is {output.get('finished')!r}"
    if not isinstance(output.get("blocks"), list):
        return f"blocks are {output.get('blocks')!r:.100}"
    return ""


def check_resume(subject: Subject) -> Verdict:
    """A result, asked for once more by its task_id."""
    first, resumed = subject.episode.played[0], subject.episode.resumed
    if resumed is None:
        return warned(
            "calls have no task_id", "name one: a broken connection loses the result"
        )
    if resumed.text == first.text and resumed.events[-1:] == first.events[-1:]:
        return passed("the same result came again by its task_id")
    return failed(
        f"asked again by its task_id, a call gave {resumed.reply}",
        "keep a result for 60 s, and replay it to a POST with its task_id",
    )


def check_unknown_task_id(subject: Subject) -> Verdict:
    """A task_id that the server never gave."""
    with subject.session() as session:
        session.get_prompt()
        played = subject.play(session, subject.calls[0], "never-given")
    if played.outcome == "ran":
        return failed(
            "a task_id that was never given ran the tool",
            "refuse it with `event: error`, or a resumed call may run twice",
        )
    return passed("refused")


def check_unknown_tool(subject: Subject) -> Verdict:
    """A tool that is not there."""
    return _judge_refusal(subject, {"tool": _NOBODY, "input": {}}, "an unknown tool")


def check_invalid_input(subject: Subject) -> Verdict:
    """A call without the arguments that it needs."""
    for tool in subject.task_tools:
        schema = tool["input_schema"]
        if isinstance(schema, dict) and schema.get("required"):
            call: ToolCall = {"tool": tool["name"], "input": {}}
            what = f"{tool['name']} without {', '.join(map(str, schema['required']))}"
            return _judge_refusal(subject, call, what)
    return skipped("no tool needs an argument")


def _judge_refusal(subject: Subject, call: ToolCall, what: str) -> Verdict:
    with subject.session() as session:
        session.get_prompt()
        played = subject.play(session, call)
    if played.outcome == "refused":
        reason = played.result.get("reason")
        return passed(f"{what} is refused" + (f" ({reason})" if reason else ""))
    if played.outcome == "ran":
        reward = played.output.get("reward")
        return warned(
            f"{what} ran" + (f" and was paid {reward}" if reward else ""),
            "refuse it with ok: false, or agents learn to make such calls",
        )
    if played.outcome == "raised":
        return warned(
            f"{what} raised in the tool: {played.text[:100]}",
            "refuse it with ok: false, which says that nothing ran",
        )
    return failed(f"{what}: {played.reply}", "refuse it with ok: false")


def check_finished_latch(subject: Subject) -> Verdict:
    """A call after the end of the episode."""
    after = subject.episode.after_end
    if after is None:
        return skipped(
            "no call finished the episode; pass calls= (--calls) that end with one"
        )
    if after.outcome == "ran":
        reward = after.output.get("reward")
        return warned(
            f"a call after the end runs again, and is paid {reward}",
            "refuse calls once finished; this client does it for you, others may not",
        )
    return passed("a call after the end is refused")


def check_pings_during_a_call(subject: Subject) -> Verdict:
    """Whether a tool that takes a while blocks everybody else."""
    slowest = max(subject.episode.played, key=lambda played: played.reply.seconds)
    tool, seconds = slowest.call["tool"], slowest.reply.seconds
    if slowest.reply.failure or seconds < _SLOW_CALL_SECONDS:
        return skipped(
            f"the slowest call ({tool}) took {seconds:.2f} s; pass calls= "
            "(--calls) with one that takes longer"
        )
    with subject.session() as session, ThreadPoolExecutor(1) as pool:
        session.get_prompt()
        head = session_head("POST", "/ping", session.session_id)
        under_way = pool.submit(subject.play, session, slowest.call)
        pings = []
        while not wait([under_way], timeout=_PING_EVERY_SECONDS).done:
            pings.append(ask(subject.client, head, b"{}").seconds)
        took = under_way.result().reply.seconds
    longest = max(pings, default=0.0)
    if longest > took / 2:
        return warned(
            f"while {tool} ran for {took:.2f} s, a ping waited {longest:.2f} s",
            "make the tool `async def`, or run its work in asyncio.to_thread: it "
            "blocks all sessions of the server",
        )
    return passed(f"at most {longest:.3f} s while {tool} ran for {took:.2f} s")


def check_heartbeats(subject: Subject) -> Verdict:
    """Comments while a call takes long."""
    slow = [
        played
        for played in subject.episode.played
        if played.reply.seconds >= _HEARTBEAT_SECONDS
    ]
    if not slow:
        return skipped(f"no call took {_HEARTBEAT_SECONDS:.0f} s")
    if any(line.startswith(b":") for line in slow[0].reply.body.splitlines()):
        return passed("a long call sends heartbeats")
    return warned(
        f"{slow[0].call['tool']} was silent for {slow[0].reply.seconds:.0f} s",
        "send a comment every 10 s, and let tools not block the server",
    )


def _needs_a_call(check: Callable[[Subject], Verdict]) -> Callable[[Subject], Verdict]:
    """Skip a check where nothing may be called, or nothing can be."""

    def guarded(subject: Subject) -> Verdict:
        if not subject.runs_tools:
            return skipped("tools are not called")
        try:
            played: list[Any] = subject.episode.played
        except ORSError as error:
            return skipped(f"no episode can be played: {error}")
        return check(subject) if played else skipped("there is no tool to call")

    return guarded


CALL_CHECKS: Final = tuple(
    (name, _needs_a_call(check))
    for name, check in (
        ("event stream", check_event_stream),
        ("results", check_results),
        ("resume", check_resume),
        ("unknown task_id", check_unknown_task_id),
        ("unknown tool", check_unknown_tool),
        ("invalid input", check_invalid_input),
        ("call after the end", check_finished_latch),
        ("pings during a call", check_pings_during_a_call),
        ("heartbeats", check_heartbeats),
    )
)
