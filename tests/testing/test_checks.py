"""Each check finds what it is for: a server with that one fault, and no other."""

import threading
import uuid
from collections.abc import Callable
from typing import Any, Final, TypeAlias

import pytest

from ors_gym.testing import _checks as checks
from ors_gym.testing import check_server
from ors_gym.testing._checks import CHECKS
from tests.testing.small_server import CALLS, GONE, Answer, Sums, serving, tool

NEED_A_SLOW_CALL: Final = ("pings during a call", "heartbeats")
NEVER: Final = 1000.0
PAID: Final = Sums().ran("Thank you.", 1.0)
UNSATISFIABLE = tool("submit", properties={"answer": {"enum": []}}, required=["answer"])


def not_passed(sums: Sums, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    # What is slow here is slow, and nothing else, however busy the machine is.
    slow = sums.thinks or NEVER
    monkeypatch.setattr(checks, "_SLOW_CALL_SECONDS", slow)
    monkeypatch.setattr(checks, "_HEARTBEAT_SECONDS", slow)
    monkeypatch.setattr(checks, "_SLOW_SETUP_SECONDS", sums.prepares or NEVER)
    with serving(sums) as base_url:
        report = check_server(base_url, calls=CALLS)
    assert all(f.fix for f in report.findings if f.status in ("warn", "fail"))
    found = {n: str(status) for n, status in report.statuses.items()}
    if not sums.thinks:
        skipped = [found.pop(name) for name in NEED_A_SLOW_CALL]
        assert skipped == ["skipped", "skipped"]
    return {name: status for name, status in found.items() if status != "pass"}


def always(answer: Any) -> Callable[..., Any]:
    return lambda *_: answer


class BlocksPings(Sums):
    thinks = 0.3

    def __init__(self) -> None:
        super().__init__()
        self.lock = threading.Lock()

    def think(self) -> dict[str, Any] | str:
        with self.lock:
            return super().think()

    def ping(self, session_id: str) -> Answer:
        with self.lock:
            return super().ping(session_id)


Fault: TypeAlias = tuple[dict[str, str], dict[str, Any]]
SILENT: Final = {"thinks": 0.3, "heartbeat": always(b"")}
SHOWN: Final = (200, Sums().prompt())
NO_STREAM: Final = {"call": lambda sums, session, body: (200, sums.run(session, body))}
NO_END: Final = {
    "stream": lambda *given: Sums.stream(*given).replace(b"event: end", b"event: chunk")
}


def warns(check: str, **attributes: Any) -> Fault:
    return {check: "warn"}, attributes


def fails(check: str, **attributes: Any) -> Fault:
    return {check: "fail"}, attributes


# What a check should find, and the attributes of `Sums` that make it so.
FAULTS: Final[list[Fault]] = [
    warns("health", health=always((503, {}))),
    warns(
        "endpoints",
        endpoints=lambda sums: [
            p for p in Sums.endpoints(sums) if "task_tools" not in p
        ],
    ),
    warns("secrets", create_required=["secrets"]),
    warns("unknown environment", unknown_environment=always((308, {}))),
    warns("splits", splits=always(["train", "test"])),
    warns(
        "tasks", tasks=lambda sums, split: Sums.tasks(sums, split) * (split != "test")
    ),
    warns("unknown task", unknown_task=always((500, {}))),
    warns("tasks in two splits", tasks=lambda sums, _: Sums.tasks(sums, "train")),
    warns("tool schemas", tools=[{**tool("think"), "description": " "}, Sums.tools[1]]),
    warns("tool schemas", tools=[*Sums.tools, Sums.tools[0]]),
    warns("tool schemas", tools=[]),
    fails("tool schemas", tools=[UNSATISFIABLE]),
    fails(
        "session ids",
        new_id=lambda sums: sums.given[0] if len(sums.given) == 1 else uuid.uuid4().hex,
    ),
    warns("set-up", prepares=0.01),
    warns("prompt", prompt=lambda _: [{"type": "text", "text": uuid.uuid4().hex}]),
    warns("prompt", prompt=always([])),
    fails("session tools", task_tools=[UNSATISFIABLE]),
    warns("ping", ping=always((200, {}))),
    fails("ping", ping=always(GONE)),
    fails(
        "unknown session",
        unknown_session=lambda sums, sid: GONE if sid in sums.deleted else SHOWN,
    ),
    warns("create unknown task", create_unknown_task=always((200, {"sid": "x"}))),
    fails(
        "delete",
        unknown_session=lambda sums, sid: SHOWN if sid in sums.deleted else GONE,
    ),
    warns(
        "delete",
        delete=lambda sums, sid: (
            (500, {}) if sid in sums.deleted else Sums.delete(sums, sid)
        ),
    ),
    fails(
        "sessions at once",
        think=lambda sums: (
            sums.refused("busy") if sums.thoughts == 2 else Sums.think(sums)
        ),
    ),
    warns(
        "event stream",
        stream=lambda *given: b"event: a\r\ndata: b\r\n\r\n" + Sums.stream(*given),
    ),
    (
        {"event stream": "warn", "resume": "warn"},
        {"stream": lambda *given: Sums.stream(*given).partition(b"\r\n\r\n")[2]},
    ),
    fails(
        "results",
        ran=lambda sums, text, paid, **end: Sums.ran(sums, text, str(paid), **end),
    ),
    fails(
        "results",
        ran=lambda sums, text, paid, **end: Sums.ran(sums, text, paid > 0, **end),
    ),
    warns("refused calls", think=lambda sums: sums.refused("busy")),
    warns("refused calls", think=always("the grader is down")),
    warns(
        "terminal tool",
        beside_tools={"terminal_tool": {"name": "think", "description": "Think."}},
    ),
    warns(
        "terminal tool",
        beside_tools={"terminal_tool": {"name": "muse", "description": "Muse."}},
    ),
    fails("resume", resume=lambda sums, *_: sums.error("unknown task_id")),
    fails(
        "unknown task_id",
        resume=lambda sums, session, task_id, body: (
            session.results.get(task_id)
            or sums.stream(task_id, sums.run(session, body))
        ),
    ),
    warns("unknown tool", unknown_tool=always(PAID)),
    warns("unknown tool", unknown_tool=always("KeyError")),
    warns("invalid input", invalid_input=always(PAID)),
    warns("invalid input", invalid_input=always("KeyError")),
    warns("call after the end", after_the_end=always(PAID)),
    warns("heartbeats", **SILENT),
]


def faulty(attributes: dict[str, Any]) -> Sums:
    return type("Faulty", (Sums,), attributes)()  # type: ignore[no-any-return]


def test_a_server_that_keeps_to_the_standard_passes_every_check(monkeypatch):
    assert not_passed(faulty({"thinks": 0.6}), monkeypatch) == {}


@pytest.mark.parametrize(
    ("expected", "attributes"),
    [pytest.param(*row, id="-".join((*row[0], *row[1]))) for row in FAULTS],
)
def test_a_fault_is_found_by_its_check_and_no_other(expected, attributes, monkeypatch):
    found = not_passed(faulty(attributes), monkeypatch)
    if attributes == SILENT:
        # Its calls are as slow as those that a ping may wait for.
        found.pop("pings during a call", None)
    assert found == expected


def test_a_call_that_blocks_pings_is_found(monkeypatch):
    assert not_passed(BlocksPings(), monkeypatch) == {"pings during a call": "warn"}


def test_every_check_has_its_fault():
    found = {name for expected, _ in FAULTS for name in expected}
    assert found | {"pings during a call"} == {check.name for check in CHECKS}


@pytest.mark.parametrize("attributes", [NO_END, NO_STREAM])
def test_replies_without_a_result_fail(attributes, monkeypatch):
    found = not_passed(faulty(attributes), monkeypatch)
    assert found["event stream"] == found["results"] == "fail"


def test_a_report_is_plain_json_and_says_what_cannot_be_known():
    only_think = {"tools": [tool("think")], "task_tools": [tool("think")]}
    with serving(faulty(only_think)) as base_url:
        report = check_server(base_url, split="test")
    assert report["invalid input"].status == "skipped"
    assert report["call after the end"].status == "skipped"
    value = report.to_dict()
    assert value["environment"] == "sums"
    assert set(value["findings"][0]) == {"name", "status", "detail", "fix"}
