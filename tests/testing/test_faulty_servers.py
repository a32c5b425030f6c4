"""Each check finds what it is for: a server with that one fault, and no other."""

from __future__ import annotations

import threading
import uuid
from typing import Any, Final

import pytest

from ors_gym.testing import _checks as checks
from ors_gym.testing import check_server
from ors_gym.testing._checks import CHECKS
from tests.testing.small_server import CALLS, Answer, Session, Sums, serving, tool

UNSATISFIABLE = tool("submit", properties={"answer": {"enum": []}}, required=["answer"])


NEED_A_SLOW_CALL: Final = ("pings during a call", "heartbeats")
NEVER: Final = 1000.0


def not_passed(sums: Sums, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """Check a server, and return what did not pass."""
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


class Thoughtful(Sums):
    thinks = 0.6


def test_a_server_that_keeps_to_the_standard_passes_every_check(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert not_passed(Thoughtful(), monkeypatch) == {}


def with_answers(name: str, *answers: Any) -> type[Sums]:
    """Make a server one of whose methods gives these answers, the last for ever."""

    def answer(self: Sums, *_: Any) -> Any:
        asked: int = vars(self).setdefault(f"asked_{name}", 0)
        vars(self)[f"asked_{name}"] = asked + 1
        return answers[min(asked, len(answers) - 1)]

    return type(f"With{name}", (Sums,), {name: answer})


class NoTaskTools(Sums):
    def endpoints(self) -> list[str]:
        return [path for path in super().endpoints() if "task_tools" not in path]


class SecretsRequired(Sums):
    create_required = ["secrets"]  # noqa: RUF012


class NothingSaidOfATool(Sums):
    tools = [{**tool("think"), "description": " "}, Sums.tools[1]]  # noqa: RUF012


class AToolTwice(Sums):
    tools = [*Sums.tools, Sums.tools[0]]  # noqa: RUF012


class NoTool(Sums):
    tools = []  # noqa: RUF012


class BadSchema(Sums):
    tools = [UNSATISFIABLE]  # noqa: RUF012


class BadSessionSchema(Sums):
    task_tools = [UNSATISFIABLE]  # noqa: RUF012


class NoTasksToTest(Sums):
    def tasks(self, split: str) -> list[Any]:
        return [] if split == "test" else super().tasks(split)


class OneTaskInBoth(Sums):
    def tasks(self, split: str) -> list[Any]:
        return super().tasks("train")


class OneIdTwice(Sums):
    def new_id(self) -> str:
        return self.given[0] if len(self.given) == 1 else uuid.uuid4().hex


class SlowSetup(Sums):
    prepares = 0.01


class RandomPrompt(Sums):
    def prompt(self) -> list[Any]:
        return [{"type": "text", "text": uuid.uuid4().hex}]


class DeniesSessions(Sums):
    def ping(self, session_id: str) -> Answer:
        return 404, {"detail": "Active environment not found"}


class KnowsEverySession(Sums):
    def unknown_session(self, session_id: str) -> Answer:
        if session_id in self.deleted:
            return super().unknown_session(session_id)
        return 200, self.prompt()


class ForgetsNothing(Sums):
    def unknown_session(self, session_id: str) -> Answer:
        if session_id in self.deleted:
            return 200, self.prompt()
        return super().unknown_session(session_id)


class DeletesOnce(Sums):
    def delete(self, session_id: str) -> Answer:
        if session_id in self.deleted:
            return 500, {"detail": "KeyError"}
        return super().delete(session_id)


class StateInTheClass(Sums):
    def think(self) -> dict[str, Any] | str:
        return self.refused("busy") if self.thoughts == 2 else super().think()


class AnotherEventFirst(Sums):
    def stream(self, task_id: str, result: dict[str, Any] | str) -> bytes:
        return b"event: hello\r\ndata: there\r\n\r\n" + super().stream(task_id, result)


class NoCallIds(Sums):
    def stream(self, task_id: str, result: dict[str, Any] | str) -> bytes:
        return super().stream(task_id, result).partition(b"\r\n\r\n")[2]


class NoEnd(Sums):
    def stream(self, task_id: str, result: dict[str, Any] | str) -> bytes:
        return super().stream(task_id, result).replace(b"event: end", b"event: chunk")


class NoStream(Sums):
    def call(self, session: Session, body: dict[str, Any]) -> Answer:
        return 200, self.run(session, body)


class RewardAsText(Sums):
    def ran(self, text: str, reward: Any, finished: Any = False) -> dict[str, Any]:
        return super().ran(text, str(reward), finished)


class RewardIsNoNumber(Sums):
    def ran(self, text: str, reward: Any, finished: Any = False) -> dict[str, Any]:
        return super().ran(text, bool(reward), finished)


class Forgetful(Sums):
    def resume(self, session: Session, task_id: str, body: dict[str, Any]) -> bytes:
        return self.error("unknown task_id")


class RunsAnyCallId(Sums):
    def resume(self, session: Session, task_id: str, body: dict[str, Any]) -> bytes:
        known = session.results.get(task_id)
        return known or self.stream(task_id, self.run(session, body))


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


class Silent(Sums):
    thinks = 0.3

    def heartbeat(self) -> bytes:
        return b""


PAID: Final = Sums().ran("Thank you.", 1.0)

FAULTS: Final[list[tuple[type[Sums], dict[str, str]]]] = [
    (with_answers("health", (503, {})), {"health": "warn"}),
    (NoTaskTools, {"endpoints": "warn"}),
    (SecretsRequired, {"secrets": "warn"}),
    (with_answers("unknown_environment", (308, {})), {"unknown environment": "warn"}),
    (with_answers("splits", ["train", "test"]), {"splits": "warn"}),
    (NoTasksToTest, {"tasks": "warn"}),
    (with_answers("unknown_task", (500, {})), {"unknown task": "warn"}),
    (OneTaskInBoth, {"tasks in two splits": "warn"}),
    (NothingSaidOfATool, {"tool schemas": "warn"}),
    (AToolTwice, {"tool schemas": "warn"}),
    (NoTool, {"tool schemas": "warn"}),
    (BadSchema, {"tool schemas": "fail"}),
    (OneIdTwice, {"session ids": "fail"}),
    (SlowSetup, {"set-up": "warn"}),
    (RandomPrompt, {"prompt": "warn"}),
    (with_answers("prompt", []), {"prompt": "warn"}),
    (BadSessionSchema, {"session tools": "fail"}),
    (with_answers("ping", (200, {})), {"ping": "warn"}),
    (DeniesSessions, {"ping": "fail"}),
    (KnowsEverySession, {"unknown session": "fail"}),
    (
        with_answers("create_unknown_task", (200, {"sid": "x"})),
        {"create unknown task": "warn"},
    ),
    (ForgetsNothing, {"delete": "fail"}),
    (DeletesOnce, {"delete": "warn"}),
    (StateInTheClass, {"sessions at once": "fail"}),
    (AnotherEventFirst, {"event stream": "warn"}),
    (NoCallIds, {"event stream": "warn", "resume": "warn"}),
    (RewardAsText, {"results": "fail"}),
    (RewardIsNoNumber, {"results": "fail"}),
    (Forgetful, {"resume": "fail"}),
    (RunsAnyCallId, {"unknown task_id": "fail"}),
    (with_answers("unknown_tool", PAID), {"unknown tool": "warn"}),
    (with_answers("unknown_tool", "KeyError"), {"unknown tool": "warn"}),
    (with_answers("invalid_input", PAID), {"invalid input": "warn"}),
    (with_answers("invalid_input", "KeyError"), {"invalid input": "warn"}),
    (with_answers("after_the_end", PAID), {"call after the end": "warn"}),
    (BlocksPings, {"pings during a call": "warn"}),
    (Silent, {"heartbeats": "warn"}),
]


@pytest.mark.parametrize(
    ("faulty", "expected"),
    [
        pytest.param(faulty, expected, id=f"{next(iter(expected))}-{faulty.__name__}")
        for faulty, expected in FAULTS
    ],
)
def test_a_fault_is_found_by_its_check_and_no_other(
    faulty: type[Sums], expected: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    found = not_passed(faulty(), monkeypatch)
    if faulty is Silent:
        # Its calls are as slow as those that a ping may wait for.
        found.pop("pings during a call", None)
    assert found == expected


def test_every_check_has_its_fault() -> None:
    assert {name for _, expected in FAULTS for name in expected} == {
        check.name for check in CHECKS
    }


@pytest.mark.parametrize("faulty", [NoEnd, NoStream])
def test_replies_that_are_no_results_fail(
    faulty: type[Sums], monkeypatch: pytest.MonkeyPatch
) -> None:
    found = not_passed(faulty(), monkeypatch)
    assert found["event stream"] == "fail"
    assert found["results"] == "fail"
