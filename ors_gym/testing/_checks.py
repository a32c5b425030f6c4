"""The checks of the contract, in the order in which they run.

A new check is a function here: it looks at the `Subject` and returns a `Verdict`.
`_check` gives it its name in reports and says what it needs: a ``metadata`` check opens
no session, a ``session`` check runs no tool, a ``call`` check runs tools.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
import math
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from typing import Final, Literal, TypeAlias, cast
from urllib.parse import quote

from ors_gym.errors import ORSError, SchemaError, SetupFailedError
from ors_gym.formats import parse_action
from ors_gym.formats._tools import find_text_tool
from ors_gym.protocol._dialect import SecretsChannel
from ors_gym.protocol._requests import (
    encode,
    environment_head,
    plain_head,
    session_head,
)
from ors_gym.spaces import ToolCallSpace
from ors_gym.testing._checked_environment import (
    Played,
    Reply,
    Subject,
    Verdict,
    draw_call,
    failed,
    passed,
    skipped,
    warned,
)
from ors_gym.types import Block, ToolCall, ToolSpec

_Kind: TypeAlias = Literal["metadata", "session", "call"]
_Judge: TypeAlias = Callable[[Subject], Verdict]


@dataclasses.dataclass(frozen=True)
class Check:
    """One check: its name in reports, what it needs, and the function that judges."""

    name: str
    kind: _Kind
    judge: _Judge


CHECKS: Final[list[Check]] = []


def _check(name: str, kind: _Kind) -> Callable[[_Judge], _Judge]:
    def add(judge: _Judge) -> _Judge:
        CHECKS.append(Check(name, kind, judge))
        return judge

    return add


# What a server says of itself.

_UNKNOWN_ENVIRONMENT: Final = "no-such-environment-of-this-server"
_COMPARED_TASKS: Final = 50
_OPTIONAL: Final = {
    "num_tasks": "tasks are only listed whole, which a large set cannot afford",
    "create_by_index": "each episode must send its task, answer and all",
    "task_tools": "tools that depend on the task cannot be listed",
}


@_check("health", "metadata")
def check_health(subject: Subject) -> Verdict:
    reply = subject.ask(plain_head("GET", "/health"))
    if reply.status == 200:
        return passed("GET /health says 200")
    return warned(
        f"GET /health: {reply}",
        "answer 200 when the server can take sessions; orchestrators ask for it",
    )


@_check("endpoints", "metadata")
def check_endpoints(subject: Subject) -> Verdict:
    spoken = subject.client.dialect
    missing = [
        f"{name} ({why})"
        for name, why in _OPTIONAL.items()
        if getattr(spoken, name) is False
    ]
    if missing:
        return warned(f"missing: {'; '.join(missing)}", "update the server's SDK")
    if any(getattr(spoken, name) is None for name in _OPTIONAL):
        return skipped("the server does not describe itself in /openapi.json")
    return passed("tasks can be counted and played by index; sessions list tools")


@_check("secrets", "metadata")
def check_secrets(subject: Subject) -> Verdict:
    channel = subject.client.dialect.secrets
    if channel is SecretsChannel.NONE:
        return warned(
            "sessions cannot be given secrets",
            "update the server's SDK if environments need keys of their users",
        )
    if channel is SecretsChannel.REQUIRED_BODY:
        return warned(
            "/create is refused without `secrets`, which newer clients do not send",
            "make the field optional, or update the server's SDK",
        )
    place = "X-Secrets header" if channel is SecretsChannel.HEADER else "body"
    return passed(f"in the {place} of /create")


@_check("unknown environment", "metadata")
def check_unknown_environment(subject: Subject) -> Verdict:
    reply = subject.ask(environment_head("GET", _UNKNOWN_ENVIRONMENT, "splits"))
    if reply.status == 404:
        return passed("a path of an unknown environment is 404")
    return warned(
        f"a path of an unknown environment is {reply.status}, not 404",
        "answer 404: a client that follows a redirect plays another environment",
    )


@_check("splits", "metadata")
def check_splits(subject: Subject) -> Verdict:
    names = [split["name"] for split in subject.splits]
    if not names:
        return failed("there is no split", "return at least one from list_splits")
    listed = ", ".join(f"{one['name']} ({one['type']})" for one in subject.splits)
    head = environment_head("GET", subject.environment, "splits")
    raw = subject.ask(head).value
    if isinstance(raw, list) and any(isinstance(split, str) for split in raw):
        return warned(
            f"{listed}; the types are guessed, as the server gives names only",
            'give objects: {"name": ..., "type": "train" | "validation" | "test"}',
        )
    if len(names) > 1 and "train" not in names:
        return warned(
            f"{listed}; none is called train",
            "name one train, or tell users which split to pass",
        )
    return passed(listed)


@_check("tasks", "metadata")
def check_tasks(subject: Subject) -> Verdict:
    client, name = subject.client, subject.environment
    counts = {
        one["name"]: client.num_tasks(name, one["name"]) for one in subject.splits
    }
    listed = ", ".join(f"{split}: {count}" for split, count in counts.items())
    empty = [split for split, count in counts.items() if not count]
    if empty:
        return warned(
            f"{listed}; without a task: {', '.join(empty)}",
            "leave out splits that have no tasks",
        )
    for split, count in counts.items():
        for index in {0, count - 1}:
            client.get_task(name, split, index)
    return passed(listed)


@_check("unknown task", "metadata")
def check_unknown_task(subject: Subject) -> Verdict:
    if subject.client.dialect.num_tasks is False:
        return skipped("the server gives no task by its index")
    count = subject.client.num_tasks(subject.environment, subject.split)
    head = environment_head("POST", subject.environment, "task")
    statuses = {}
    for split, index in ((subject.split, count), ("no-such-split", 0)):
        body = encode({"split": split, "index": index}, "the request")
        statuses[f"{split}[{index}]"] = subject.ask(head, body).status
    listed = ", ".join(f"{task}: {status}" for task, status in statuses.items())
    if all(400 <= status < 500 for status in statuses.values()):
        return passed(listed)
    return warned(
        f"{listed}; a task that is not there should be 4xx",
        "answer 400 or 404; raise IndexError or ValueError in get_task",
    )


@_check("tasks in two splits", "metadata")
def check_tasks_in_two_splits(subject: Subject) -> Verdict:
    found = {}
    for split in subject.splits:
        try:
            tasks = subject.client.get_task_range(
                subject.environment, split["name"], 0, _COMPARED_TASKS
            )
        except ORSError as error:
            return skipped(f"the tasks of {split['name']} cannot be had: {error}")
        found[split["name"]] = {json.dumps(task, sort_keys=True) for task in tasks}
    if len(found) < 2:
        return skipped("there is only one split")
    for first, second in itertools.combinations(found, 2):
        common = found[first] & found[second]
        if common:
            return warned(
                f"{len(common)} of the first {_COMPARED_TASKS} tasks are in {first!r} "
                f"and in {second!r}",
                "keep splits apart, or a test measures what was trained on",
            )
    return passed(f"the first {_COMPARED_TASKS} tasks of each split differ")


@_check("tool schemas", "metadata")
def check_tool_schemas(subject: Subject) -> Verdict:
    return _judge_tools(subject.client.list_tools(subject.environment))


def _judge_tools(tools: list[ToolSpec]) -> Verdict:
    """Fail if a tool cannot be sampled, warn if one is hard to use."""
    if not tools:
        return warned("no tool", "mark the methods that an agent may call with @tool")
    for tool in tools:
        try:
            call = ToolCallSpace([tool], seed=0).sample()
            fits = call in ToolCallSpace([tool])
        except SchemaError as error:
            return failed(str(error), "mend the input_schema of that tool")
        if not fits:
            return failed(
                f"tool {tool['name']!r}: no input satisfies its schema",
                "mend the input_schema of that tool",
            )
    names = [tool["name"] for tool in tools]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        return warned(f"listed twice: {', '.join(twice)}", "give each a name")
    silent = [tool["name"] for tool in tools if not tool["description"].strip()]
    if silent:
        return warned(
            f"without a description: {', '.join(silent)}",
            "write a docstring: it is all that a model knows of the tool",
        )
    return passed(f"{len(tools)}, each described, and each schema can be sampled")


# Sessions, without a call of a tool.

_SLOW_SETUP_SECONDS: Final = 25.0
"""What openreward waits before it answers ``starting`` (docs/wire.md, "Dialects")."""
_SESSIONS_AT_ONCE: Final = 4


@_check("session ids", "session")
def check_session_ids(subject: Subject) -> Verdict:
    if subject.client.dialect.create_session is False:
        return warned(
            "there is no /create_session: clients bring ids of their own",
            "update the server's SDK",
        )
    first, second = (subject.client.create_session() for _ in range(2))
    for session_id in {first, second}:
        # A gateway may have begun a container for each.
        subject.client.delete_episode(session_id)
    if first == second:
        return failed("the same id was given twice", "make each id anew")
    return passed("two sessions have two ids")


@_check("set-up", "session")
def check_setup(subject: Subject) -> Verdict:
    began = time.monotonic()
    try:
        with subject.session() as session:
            session.get_prompt()
    except SetupFailedError as error:
        return failed(str(error), "see the server's log for the traceback of setup()")
    seconds = time.monotonic() - began
    if seconds > _SLOW_SETUP_SECONDS:
        return warned(
            f"took {seconds:.0f} s",
            "do it once per process instead, or have users set prefetch=True",
        )
    return passed(f"took {seconds:.2f} s")


@_check("prompt", "session")
def check_prompt(subject: Subject) -> Verdict:
    first, second = _prompt(subject), _prompt(subject)
    if not first:
        return warned("the prompt is empty", "return at least one block of text")
    if first != second:
        return warned(
            "two sessions of one task have different prompts",
            "draw what is random from the task, so that episodes can be replayed and "
            "a group of rollouts answers one question",
        )
    return passed(f"{len(first)} block(s), the same in two sessions of one task")


def _prompt(subject: Subject) -> list[Block]:
    with subject.session() as session:
        return session.get_prompt()


@_check("session tools", "session")
def check_session_tools(subject: Subject) -> Verdict:
    return _judge_tools(subject.task_tools)


@_check("ping", "session")
def check_ping(subject: Subject) -> Verdict:
    with subject.session() as session:
        alive = subject.client.ping(session.session_id)
    stranger = subject.ask(session_head("POST", "/ping", uuid.uuid4().hex), b"{}")
    if not alive:
        return failed("/ping denies a session that is open", "answer it with 200")
    if stranger.status not in (404, 410):
        return warned(
            f"/ping of an unknown session is {stranger.status}, not 404",
            "answer 404, or a client keeps pinging a session that is gone",
        )
    return passed("200 for an open session, and 404 for an unknown one")


@_check("unknown session", "session")
def check_unknown_session(subject: Subject) -> Verdict:
    reply = _ask_for_prompt(subject, uuid.uuid4().hex)
    if reply.status in (404, 410):
        return passed(f"its prompt is {reply.status}")
    return failed(
        f"the prompt of an unknown session is {reply.status}, not 404",
        "answer 404 `Active environment not found`",
    )


@_check("create unknown task", "session")
def check_create_unknown_task(subject: Subject) -> Verdict:
    if subject.client.dialect.create_by_index is False:
        return skipped("the server plays no task by its index")
    session_id = subject.client.create_session()
    count = subject.client.num_tasks(subject.environment, subject.split)
    task = {"split": subject.split, "index": count, "env_name": subject.environment}
    if subject.client.dialect.secrets is SecretsChannel.REQUIRED_BODY:
        # Else it would be refused for the lack of them.
        task["secrets"] = {}
    created = subject.ask(
        session_head("POST", "/create", session_id), encode(task, "it")
    )
    subject.client.delete_episode(session_id)
    if 400 <= created.status < 500:
        return passed(f"/create of a task past the end is {created.status}")
    return warned(
        f"/create of a task past the end is {created.status}",
        "answer 400 or 404 at once; later it looks like a broken set-up",
    )


@_check("delete", "session")
def check_delete(subject: Subject) -> Verdict:
    with subject.session() as session:
        session.get_prompt()
        session_id = session.session_id
    reply = _ask_for_prompt(subject, session_id)
    if reply.status not in (404, 410):
        return failed(
            f"the prompt of a deleted session is {reply.status}, not 404",
            "forget a session when it is deleted, and tear it down",
        )
    again = subject.ask(session_head("POST", "/delete", session_id), b"{}")
    if again.status in (200, 404, 410):
        return passed(f"the session is gone; deleting it twice is {again.status}")
    return warned(
        f"deleting a session twice is {again.status}", "answer 200 or 404, as others do"
    )


@_check("sessions at once", "session")
def check_sessions_at_once(subject: Subject) -> Verdict:
    def play(_: int) -> tuple[str, str]:
        with subject.session() as session:
            session.get_prompt()
            if not subject.calls:
                return session.session_id, ""
            return session.session_id, subject.play(session, subject.calls[0]).outcome

    subject.calls  # noqa: B018 - drawn once, before the threads
    with ThreadPoolExecutor(_SESSIONS_AT_ONCE) as pool:
        played = list(pool.map(play, range(_SESSIONS_AT_ONCE)))
    if len(dict(played)) < len(played):
        return failed("two sessions have one id", "make each id anew")
    outcomes = {outcome for _, outcome in played}
    if len(outcomes) > 1:
        return failed(
            f"the same call in {len(played)} sessions: {', '.join(sorted(outcomes))}",
            "keep the state of an episode in its own instance, not in the class",
        )
    return passed(f"{len(played)} sessions at once behave alike")


def _ask_for_prompt(subject: Subject, session_id: str) -> Reply:
    name = quote(subject.environment, safe="")
    return subject.ask(session_head("GET", f"/{name}/prompt", session_id))


# Calls of tools.

_HEARTBEAT_SECONDS: Final = 15.0
_SLOW_CALL_SECONDS: Final = 0.3
_PING_EVERY_SECONDS: Final = 0.02
_SAMPLES: Final = 4
"""Calls that are drawn for each tool."""
_MOST_SAMPLED_TOOLS: Final = 8
_LAST_MESSAGE: Final = "I do not know."
_UNKNOWN_TOOL: Final = "no_such_tool_of_this_environment"


@_check("event stream", "call")
def check_event_stream(subject: Subject) -> Verdict:
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


@_check("results", "call")
def check_results(subject: Subject) -> Verdict:
    for played in subject.episode.played:
        problem = _find_problem(played)
        if played.task_id and played.reply.failure and subject.episode.alive:
            return failed(
                f"{played.call['tool']} has no result after "
                f"{played.reply.seconds:.0f} s, and its session answers pings",
                "if the tool is slow, raise call_timeout= (--call-timeout). If not, it "
                "may have raised StopIteration, as next() of an empty iterator does: "
                "a thread cannot hand that on, and the call never ends",
            )
        if problem:
            return failed(
                f"{played.call['tool']}: {problem}",
                "return blocks, reward (a finite number or null), finished (a boolean)",
            )
    outcomes = [f"{one.call['tool']} {one.outcome}" for one in subject.episode.played]
    return passed(f"well formed: {', '.join(outcomes)}")


def _find_problem(played: Played) -> str:
    if played.outcome == "no result":
        return f"no result: {played.text[:100]!r}"
    if played.outcome != "ran":
        return ""
    output = played.output
    reward = output.get("reward")
    if reward is not None and not _is_finite_number(reward):
        return f"the reward is {reward!r:.100}"
    if not isinstance(output.get("finished"), bool):
        return f"finished is {output.get('finished')!r}"
    if not isinstance(output.get("blocks"), list):
        return f"blocks are {output.get('blocks')!r:.100}"
    return ""


def _is_finite_number(value: object) -> bool:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    try:
        return math.isfinite(value)
    except OverflowError:
        # An integer that no float can hold.
        return False


@_check("refused calls", "call")
def check_refused_calls(subject: Subject) -> Verdict:
    """Whether the schemas say what the server accepts, and each tool can be called."""
    by_tool: dict[str, list[Played]] = {}
    for played in subject.episode.played if subject.script else _play_samples(subject):
        by_tool.setdefault(played.call["tool"], []).append(played)
    if not by_tool:
        return skipped("no call can be drawn for any tool but the terminal one")
    said = [told for tool, calls in by_tool.items() if (told := _why_not(tool, calls))]
    if not said:
        return passed("no call that fits its schema was refused")
    return warned(
        "; ".join(said),
        "put constraints into the schema (Literal, Enum, Field(ge=...)); until then "
        "pass tool_schemas=, which ors_gym.testing.suggest_schemas proposes. See the "
        "server's log for a tool that raised",
    )


def _why_not(tool: str, calls: list[Played]) -> str:
    """Say which calls of a tool were refused, or that none of them ever ran."""
    never = all(played.outcome in ("refused", "raised") for played in calls)
    wrong = calls if never else [one for one in calls if one.outcome == "refused"]
    if not wrong:
        return ""
    words = " ".join(str(wrong[0].result.get("error") or wrong[0].text).split())
    kinds = Counter(played.outcome for played in wrong)
    counts = " and ".join(f"{count} {kind}" for kind, count in kinds.items())
    if never:
        return f"no call of {tool} ever ran: of {len(calls)}, {counts} ({words:.160})"
    return f"of {len(calls)} calls of {tool}, {counts} ({words:.160})"


def _play_samples(subject: Subject) -> Iterator[Played]:
    """Play some calls of each tool but the terminal one, in few sessions."""
    tools = [tool for tool in subject.task_tools if "terminal" not in tool]
    drawn = [
        draw_call(tool, seed)
        for tool in tools[:_MOST_SAMPLED_TOOLS]
        for seed in range(_SAMPLES)
    ]
    calls = [call for call in drawn if call is not None]
    while calls:
        with subject.session() as session:
            session.get_prompt()
            while calls:
                played = subject.play(session, calls.pop(0))
                yield played
                if played.finished or played.reply.failure:
                    break


@_check("terminal tool", "call")
def check_terminal_tool(subject: Subject) -> Verdict:
    """Whether the tool that takes a model's last message ends the episode."""
    terminal = find_text_tool(subject.task_tools)
    if terminal is None:
        return passed("the server declares none")
    name = terminal["name"]
    call = parse_action(_LAST_MESSAGE, tools=[terminal])
    with subject.session() as session:
        session.get_prompt()
        played = subject.play(session, cast("ToolCall", call))
    if played.outcome != "ran":
        return warned(
            f"{name} does not take the message {_LAST_MESSAGE!r}: {played.outcome}",
            "give its input model one field of type str; pay 0 for a wrong answer",
        )
    if not played.finished:
        return warned(
            f"{name} took a message and did not end the episode",
            "return finished=True: clients end a rollout with this message",
        )
    return passed(f"plain text goes to {name}, which ends the episode")


@_check("resume", "call")
def check_resume(subject: Subject) -> Verdict:
    """A result, asked for once more by its task_id."""
    first, resumed = subject.episode.played[0], subject.episode.resumed
    if resumed is None:
        return warned(
            "calls have no task_id", "name one: a broken connection loses the result"
        )
    if not {"end", "error"} & set(first.events):
        return skipped(f"{first.call['tool']} has no result that could come again")
    if resumed.text == first.text and resumed.events[-1:] == first.events[-1:]:
        return passed("the same result came again by its task_id")
    return failed(
        f"asked again by its task_id, a call gave {resumed.reply}",
        "keep a result for 60 s, and replay it to a POST with its task_id",
    )


@_check("unknown task_id", "call")
def check_unknown_task_id(subject: Subject) -> Verdict:
    with subject.session() as session:
        session.get_prompt()
        played = subject.play(session, subject.calls[0], "never-given")
    if played.outcome == "ran":
        return failed(
            "a task_id that was never given ran the tool",
            "refuse it with `event: error`, or a resumed call may run twice",
        )
    if _is_unanswered(played):
        return warned(
            f"a task_id that was never given has no answer: {played.reply}",
            "refuse it with `event: error`",
        )
    return passed("refused")


def _is_unanswered(played: Played) -> bool:
    """Whether neither a result nor a 4xx says what became of a call."""
    refused = not played.reply.failure and 400 <= played.reply.status < 500
    return played.outcome == "no result" and not refused


@_check("unknown tool", "call")
def check_unknown_tool(subject: Subject) -> Verdict:
    return _judge_refusal(
        subject, {"tool": _UNKNOWN_TOOL, "input": {}}, "an unknown tool"
    )


@_check("invalid input", "call")
def check_invalid_input(subject: Subject) -> Verdict:
    """A call without the arguments that it needs."""
    for tool in subject.task_tools:
        schema = tool["input_schema"]
        required = schema.get("required") if isinstance(schema, dict) else None
        if isinstance(required, list) and required:
            call: ToolCall = {"tool": tool["name"], "input": {}}
            what = f"{tool['name']} without {', '.join(map(str, required))}"
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


@_check("call after the end", "call")
def check_finished_latch(subject: Subject) -> Verdict:
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
    if _is_unanswered(after):
        return warned(
            f"a call after the end has no answer: {after.reply}",
            "refuse calls once finished",
        )
    return passed("a call after the end is refused")


@_check("pings during a call", "call")
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
            pings.append(subject.ask(head, b"{}").seconds)
        took = under_way.result().reply.seconds
    if not pings:
        return skipped(f"{tool} took {took:.2f} s in a second session: no time to ping")
    longest = max(pings)
    if longest > took / 2:
        return warned(
            f"while {tool} ran for {took:.2f} s, a ping waited {longest:.2f} s",
            "make the tool `async def`, or run its work in asyncio.to_thread: it "
            "blocks all sessions of the server",
        )
    return passed(f"at most {longest:.3f} s while {tool} ran for {took:.2f} s")


@_check("heartbeats", "call")
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
