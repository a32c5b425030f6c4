"""Runs operations on replies that a test has written down, without a network."""

import dataclasses
import itertools
import json
from collections.abc import Callable
from typing import Any, TypeVar

from ors_gym.protocol._dialect import Dialect, SecretsChannel
from ors_gym.protocol._exchange import Failure, Operation, Outcome, Pause, Send
from ors_gym.protocol._redaction import Redactor
from ors_gym.protocol._requests import call_head
from ors_gym.protocol._retries import Retry
from ors_gym.protocol._server_state import (
    ClientSettings,
    Hooks,
    Server,
    ServerKnowledge,
    SessionState,
)

T = TypeVar("T")

SETTINGS = ClientSettings(base_url="http://h:1/base", origin="http://h:1")
JSON = ((b"Content-Type", b"application/json"),)
STREAM = ((b"Content-Type", b"text/event-stream; charset=utf-8"),)

NEW = Dialect(
    SecretsChannel.HEADER,
    create_session=True,
    create_by_index=True,
    num_tasks=True,
    task_range=True,
    task_tools=True,
    messages=True,
    score_group=True,
    delete_session=True,
)
"""What openreward 0.1.167 speaks."""


@dataclasses.dataclass
class Reply:
    status: int = 200
    body: bytes = b""
    headers: tuple[tuple[bytes, bytes], ...] = JSON
    failure: Failure | None = None
    sent: bool = True
    elapsed: float = 0.0
    reused: bool = False


def ok(value: Any, **fields: Any) -> Reply:
    return Reply(body=json.dumps(value).encode(), **fields)


def refused(status: int, detail: Any = "no", **fields: Any) -> Reply:
    """A reply with an error status, as FastAPI writes it."""
    return Reply(status, json.dumps({"detail": detail}).encode(), **fields)


def stream(*events: tuple[str, str], **fields: Any) -> Reply:
    written = "".join(f"event: {name}\r\ndata: {data}\r\n\r\n" for name, data in events)
    return Reply(body=written.encode(), headers=STREAM, **fields)


def failing(failure: Failure, **fields: Any) -> Reply:
    fields.setdefault("sent", failure is not Failure.CONNECT)
    return Reply(0, failure=failure, **fields)


def result_of(text: str = "hi", **fields: Any) -> str:
    output: dict[str, Any] = {"blocks": [{"type": "text", "text": text}]}
    output |= {"metadata": None, "reward": 1.0, "finished": False, **fields}
    return json.dumps({"ok": True, "output": output})


class Script:
    """Runs operations on replies that were written down, and keeps what was sent."""

    def __init__(self, *replies: Reply, then: Reply | None = None) -> None:
        self.replies = list(replies)
        self.then = then
        self.sends: list[Send] = []
        self.pauses: list[float] = []
        self.idle: list[float | None] = []
        self.elapsed = 0.0

    def run(self, operation: Operation[T]) -> T:
        """Run an operation; every reply must be asked for."""
        result: T = self.run_all(operation)[0]
        return result

    def run_all(self, *operations: Operation[Any]) -> list[Any]:
        results = [self.run_partly(operation) for operation in operations]
        assert not self.replies, "not every reply was asked for"
        return results

    def run_partly(self, operation: Operation[T]) -> T:
        """Run an operation; replies may be left over."""
        try:
            step = next(operation)
            while True:
                step = operation.send(self._do(step))
        except StopIteration as stop:
            result: T = stop.value
            return result
        finally:
            operation.close()

    @property
    def targets(self) -> list[str]:
        return [f"{send.head.method} {send.head.target}" for send in self.sends]

    def body(self, number: int) -> Any:
        return json.loads(self.sends[number].body or b"null")

    def header(self, number: int, name: str) -> str | None:
        return dict(self.sends[number].head.headers).get(name)

    def _do(self, step: Send | Pause) -> Outcome:
        if isinstance(step, Pause):
            self.pauses.append(step.seconds)
            self.elapsed += step.seconds
            return Outcome(elapsed=step.seconds)
        self.sends.append(step)
        self.idle.append(step.sink.idle_timeout)
        reply = self.replies.pop(0) if self.replies else self.then
        assert reply is not None, f"unexpected: {step.head.method} {step.head.target}"
        elapsed = min(reply.elapsed, step.timeout)
        satisfied = False
        if reply.status:
            step.sink.start(reply.status, reply.headers)
            satisfied = bool(reply.body) and step.sink.feed(reply.body)
        self.elapsed += elapsed
        return Outcome(
            sent=reply.sent,
            status=reply.status,
            headers=reply.headers if reply.status else (),
            failure=None if satisfied else reply.failure,
            detail=f"it was {reply.failure.value}" if reply.failure else "",
            elapsed=elapsed,
            reused=reply.reused,
        )


class RecordingServer(Server):
    """A server that keeps the ids of the sessions that operations discard."""

    def __init__(
        self,
        dialect: Dialect | None = NEW,
        *,
        environments: tuple[str, ...] = ("Math", "guess"),
        on_retry: Callable[[Retry], None] = lambda _: None,
        **settings: Any,
    ) -> None:
        self.discarded: list[str] = []
        self.now = 0.0
        numbers = itertools.count()
        super().__init__(
            dataclasses.replace(SETTINGS, **settings),
            # One that was not asked for its dialect yet has told nothing else either.
            ServerKnowledge(dialect, environments if dialect else (), reached=True),
            Hooks(
                on_retry=on_retry,
                discard=lambda _, session_id: self.discarded.append(session_id),
                random=lambda: 0.0,
                new_id=lambda: f"own-{next(numbers)}",
                clock=lambda: self.now,
            ),
        )


def open_state(*secrets: str) -> SessionState:
    return SessionState("s1", "Math", call_head("Math", "s1"), Redactor(secrets))
