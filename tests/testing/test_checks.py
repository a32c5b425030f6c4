"""Each check finds what it is for: a server with that one fault, and no other."""

import threading
import uuid
from collections.abc import Callable
from typing import Any, ClassVar, Final, TypeAlias

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
    (
        {"session tools": "fail", "invalid input": "skipped"},
        {"task_tools": [tool("think"), tool("submit", required=True)]},
    ),
    warns(
        "call after the end",
        call=lambda sums, session, body: (
            (500, {})
            if session.finished and "task_id" not in body
            else Sums.call(sums, session, body)
        ),
    ),
    warns(
        "unknown task_id",
        call=lambda sums, session, body: (
            (500, {})
            if body.get("task_id") == "never-given"
            else Sums.call(sums, session, body)
        ),
    ),
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


def test_every_session_that_was_asked_for_is_deleted(monkeypatch):
    sums = faulty({})
    assert not_passed(sums, monkeypatch) == {}
    assert set(sums.given) <= sums.deleted


def test_every_check_has_its_fault():
    found = {name for expected, _ in FAULTS for name in expected}
    assert found | {"pings during a call"} == {check.name for check in CHECKS}


def test_a_task_past_the_end_is_tried_in_a_form_that_the_server_reads(monkeypatch):
    class WantsSecrets(Sums):
        create_required: ClassVar = ["secrets"]

        def create(self, session_id: str, body: dict[str, Any]) -> Answer:
            if "secrets" not in body:
                return 422, {"detail": "secrets are missing"}
            return super().create(session_id, body)

        def create_unknown_task(self, session_id: str) -> Answer:
            return 200, {"sid": session_id}

    found = not_passed(WantsSecrets(), monkeypatch)
    assert found == {"secrets": "warn", "create unknown task": "warn"}


@pytest.mark.parametrize("reward", [10**400, 1e999], ids=["long", "inf"])
def test_a_reward_that_no_float_holds_fails(reward, monkeypatch):
    found = not_passed(
        faulty({"think": lambda sums: sums.ran("", reward)}), monkeypatch
    )
    assert found == {"results": "fail"}


def test_a_result_that_is_nested_too_deeply_fails(monkeypatch):
    deep = b"event: end\r\ndata: " + b"[" * 100_000 + b"\r\n\r\n"
    found = not_passed(
        faulty(
            {
                "stream": lambda *given: (
                    Sums.stream(*given).partition(b": ping")[0] + deep
                )
            }
        ),
        monkeypatch,
    )
    assert found["results"] == "fail"


@pytest.mark.parametrize("attributes", [NO_END, NO_STREAM])
def test_replies_without_a_result_fail(attributes, monkeypatch):
    found = not_passed(faulty(attributes), monkeypatch)
    assert found["event stream"] == found["results"] == "fail"
    assert found["resume"] != "pass"


def test_a_report_is_plain_json_and_says_what_cannot_be_known():
    only_think = {"tools": [tool("think")], "task_tools": [tool("think")]}
    with serving(faulty(only_think)) as base_url:
        report = check_server(base_url, split="test")
    assert report["invalid input"].status == "skipped"
    assert report["call after the end"].status == "skipped"
    value = report.to_dict()
    assert value["environment"] == "sums"
    assert set(value["findings"][0]) == {"name", "status", "detail", "fix"}


def test_what_was_not_looked_at_does_not_pass():
    class Reticent(Sums):
        """Its only tool is the terminal one, and it does not describe itself."""

        tools: ClassVar = [tool("submit", properties={"answer": {"type": "string"}})]
        task_tools = tools
        beside_tools: ClassVar = {"terminal_tool": {"name": "submit", **tools[0]}}

        def openapi(self) -> Answer:
            return 404, {"detail": "Not Found"}

        def create(self, session_id: str, body: dict[str, Any]) -> Answer:
            if "split" not in body:
                # What a server says that lacks the fields of a probe.
                return 422, {"detail": [{"loc": ["body", "env_name"]}]}
            return super().create(session_id, body)

    with serving(Reticent()) as base_url:
        report = check_server(base_url)
    looked_at = ("endpoints", "refused calls")
    assert {report[name].status for name in looked_at} == {"skipped"}
