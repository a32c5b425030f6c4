"""One script of requests, for the model and for a real server alike."""

from __future__ import annotations

import json
import threading
from typing import Any, Protocol

import httpx

from ors_gym.protocol._exchange import Head, Outcome, Send
from ors_gym.protocol._replies import BodyReader
from tests.support.servers.process import RunningServer
from tests.support.servers.raw import events_of
from tests.system.simulation.client import Script
from tests.system.simulation.network import Network
from tests.system.simulation.server import FLAVOURS, Server
from tests.system.simulation.world import Process, World

Answer = tuple[int, dict[str, str], str]
"""Status, header lines and body of a reply."""


class ScriptedWire(Protocol):
    """What the script needs of a server, real or not."""

    def send(
        self, method: str, path: str, session_id: str, body: Any = None
    ) -> Answer: ...

    def call(self, session_id: str, kind: str, task_id: str = "") -> Answer: ...

    def create(self, session_id: str, *, broken: bool = False) -> Answer: ...

    def delete_while_waiting(self, session_id: str) -> tuple[Answer, Answer]: ...


class ModelWire:
    def __init__(self, flavour: str, **options: Any) -> None:
        self._world = World()
        self.server = Server(self._world, FLAVOURS[flavour], strict=False, **options)
        self._network = Network(self._world, self.server, lambda number, send: None)

    def send(self, method: str, path: str, session_id: str, body: Any = None) -> Answer:
        answers: list[Answer] = []
        self._spawn(method, path, session_id, body, answers)
        self._world.run()
        return answers[0]

    def call(self, session_id: str, kind: str, task_id: str = "") -> Answer:
        asked = {"play": [0, 0.01, kind == "raise", kind == "finish"]}
        name = "nothing" if kind == "unknown" else "play"
        body = {"name": name, "input": asked}
        if task_id:
            body["task_id"] = task_id
        return self.send("POST", "/env/call", session_id, body)

    def create(self, session_id: str, *, broken: bool = False) -> Answer:
        self.server.broken = broken
        body = {"env_name": "env", "task_spec": {}}
        answer = self.send("POST", "/create", session_id, body)
        if not broken:
            self.send("GET", "/env/prompt", session_id)
        return answer

    def delete_while_waiting(self, session_id: str) -> tuple[Answer, Answer]:
        self.server.setup = 20.0
        body = {"env_name": "env", "task_spec": {}}
        self.send("POST", "/create", session_id, body)
        waited: list[Answer] = []
        deleted: list[Answer] = []
        self._spawn("GET", "/env/prompt", session_id, None, waited)
        self._spawn("POST", "/delete", session_id, None, deleted)
        self._world.run()
        return waited[0], deleted[0]

    def _spawn(
        self, method: str, path: str, session_id: str, body: Any, answers: list[Answer]
    ) -> None:
        encoded = None if body is None else json.dumps(body).encode()

        def script() -> Script:
            sink = BodyReader()
            head = Head(method, path, (("X-Session-ID", session_id),))
            outcome: Outcome = yield Send(head, encoded, sink, 60.0, 50.0)
            headers = {k.decode().lower(): v.decode() for k, v in outcome.headers}
            answers.append((outcome.status, headers, sink.body.decode()))

        Process(self._world, self._network, script(), "script")


_TOOLS = {
    "plain": ("add", {"a": 1, "b": 2}),
    "raise": ("fail", {"message": "tool 0 raised"}),
    "finish": ("submit", {"answer": "4"}),
    "unknown": ("nothing", {}),
    "resume": ("add", {"a": 1, "b": 2}),
}


class RealWire:
    def __init__(self, server: RunningServer, client: httpx.Client) -> None:
        self._server = server
        self._client = client

    def send(self, method: str, path: str, session_id: str, body: Any = None) -> Answer:
        path = path.replace("/env/", "/contract/")
        headers = {"X-Session-ID": session_id}
        reply = self._client.request(method, path, headers=headers, json=body)
        return reply.status_code, dict(reply.headers), reply.text

    def call(self, session_id: str, kind: str, task_id: str = "") -> Answer:
        name, given = _TOOLS[kind]
        body: dict[str, Any] = {"name": name, "input": given}
        if task_id:
            body["task_id"] = task_id
        return self.send("POST", "/env/call", session_id, body)

    def create(self, session_id: str, *, broken: bool = False) -> Answer:
        spec = {"setup_error": "it broke"} if broken else {}
        return self.create_task(session_id, **spec)

    def delete_while_waiting(self, session_id: str) -> tuple[Answer, Answer]:
        self.create_task(session_id, setup_seconds=20)
        self._server.wait_for("setup", session=session_id)
        waited: list[Answer] = []

        def wait() -> None:
            waited.append(self.send("GET", "/env/prompt", session_id))

        thread = threading.Thread(target=wait)
        thread.start()
        # Whether the waiter or the delete comes first, the waiter finds nothing.
        deleted = self.send("POST", "/delete", session_id)
        thread.join(30)
        return waited[0], deleted

    def create_task(self, session_id: str, **spec: Any) -> Answer:
        spec = {"id": "0", "answer": "4", **spec}
        body = {"env_name": "contract", "task_spec": spec}
        return self.send("POST", "/create", session_id, body)


def describe(answer: Answer) -> Any:
    """Say of an answer what a client goes by.

    The status; of a stream the names of its events, a result's verdict and an
    error's text; of a refusal its text; whether it says that it is starting.
    """
    status, headers, body = answer
    if headers.get("content-type", "").startswith("text/event-stream"):
        events = events_of(body)
        names = [name for name, _ in events if name != "chunk"]
        if "end" in names and names != ["task_id", "end"]:
            return status, names
        if events[-1][0] == "error":
            return status, names, events[-1][1]
        result = "".join(data for name, data in events if name != "task_id")
        if not result:
            return status, names
        value = json.loads(result)
        output = value.get("output") or {}
        return status, names, value["ok"], output.get("finished"), value.get("reason")
    value = json.loads(body)
    detail = value.get("detail") if isinstance(value, dict) else None
    return status, detail, headers.get("x-backend-state")
