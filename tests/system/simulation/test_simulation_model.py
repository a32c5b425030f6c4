"""The model answers as real servers do: the same script, the same answers."""

import json
import sys
import threading
import uuid
from collections.abc import Mapping
from typing import Any, ClassVar

import httpx
import pytest

from ors_gym.protocol._exchange import Head, Outcome, Send
from ors_gym.protocol._replies import BodyReader
from tests.support.servers.process import RunningServer, start_server
from tests.support.servers.raw import events_of, raw_client
from tests.system.simulation.client import Script
from tests.system.simulation.network import Network
from tests.system.simulation.server import FLAVOURS, Server
from tests.system.simulation.virtual_time import Process, VirtualClock

FLAVOUR_OF = {"ors-sdk-0.1.0": "ors-sdk", "openreward-0.1.167": "openreward"}
CREATE = {"env_name": "env", "task_spec": {}}

Answer = tuple[int, dict[str, str], str]  # status, header lines and body of a reply


class ComparedServer:
    tools: ClassVar[Mapping[str, tuple[str, dict[str, Any]]]]

    def send(self, method: str, path: str, session_id: str, body: Any = None) -> Answer:
        raise NotImplementedError

    def call(self, session_id: str, kind: str, task_id: str = "") -> Answer:
        name, given = self.tools[kind]
        resumed = {"task_id": task_id} if task_id else {}
        body = {"name": name, "input": given, **resumed}
        return self.send("POST", "/env/call", session_id, body)

    def create(self, session_id: str, *, broken: bool = False) -> Answer:
        raise NotImplementedError

    def delete_while_waiting(self, session_id: str) -> tuple[Answer, Answer]:
        raise NotImplementedError


class ModelServer(ComparedServer):
    tools: ClassVar = {
        "plain": ("play", {"play": [0, 0.01, False, False]}),
        "raise": ("play", {"play": [0, 0.01, True, False]}),
        "finish": ("play", {"play": [0, 0.01, False, True]}),
        "unknown": ("nothing", {"play": [0, 0.01, False, False]}),
        "resume": ("play", {"play": [0, 0.01, False, False]}),
    }

    def __init__(self, flavour: str, **options: Any) -> None:
        self._clock = VirtualClock()
        self.server = Server(self._clock, FLAVOURS[flavour], strict=False, **options)
        self._network = Network(self._clock, self.server, lambda number, send: None)

    def send(self, method: str, path: str, session_id: str, body: Any = None) -> Answer:
        answers: list[Answer] = []
        self._spawn(method, path, session_id, body, answers)
        self._clock.run()
        return answers[0]

    def create(self, session_id: str, *, broken: bool = False) -> Answer:
        self.server.broken = broken
        answer = self.send("POST", "/create", session_id, CREATE)
        if not broken:
            self.send("GET", "/env/prompt", session_id)
        return answer

    def delete_while_waiting(self, session_id: str) -> tuple[Answer, Answer]:
        self.server.setup = 20.0
        self.send("POST", "/create", session_id, CREATE)
        waited: list[Answer] = []
        deleted: list[Answer] = []
        self._spawn("GET", "/env/prompt", session_id, None, waited)
        self._spawn("POST", "/delete", session_id, None, deleted)
        self._clock.run()
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

        Process(self._clock, self._network, script(), "script")


class RealServer(ComparedServer):
    tools: ClassVar = {
        "plain": ("add", {"a": 1, "b": 2}),
        "raise": ("fail", {"message": "tool 0 raised"}),
        "finish": ("submit", {"answer": "4"}),
        "unknown": ("nothing", {}),
        "resume": ("add", {"a": 1, "b": 2}),
    }

    def __init__(self, server: RunningServer, client: httpx.Client) -> None:
        self._server = server
        self._client = client

    def send(self, method: str, path: str, session_id: str, body: Any = None) -> Answer:
        path = path.replace("/env/", "/contract/")
        headers = {"X-Session-ID": session_id}
        reply = self._client.request(method, path, headers=headers, json=body)
        return reply.status_code, dict(reply.headers), reply.text

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


def play_script(compared: ComparedServer) -> list[tuple[str, Any]]:
    """Play a script of all that sessions go through, and say what came of each step."""
    told: list[tuple[str, Any]] = []
    here, broken, waiting, nobody = (uuid.uuid4().hex for _ in range(4))

    def tell(what: str, answer: tuple[int, dict[str, str], str]) -> str:
        told.append((what, describe(answer)))
        return answer[2]

    def send(what: str, method: str, path: str, session_id: str) -> None:
        tell(what, compared.send(method, path, session_id))

    send("create_session", "POST", "/create_session", nobody)
    for path in ("/ping", "/delete"):
        send(f"unknown {path}", "POST", path, nobody)
    send("unknown prompt", "GET", "/env/prompt", nobody)
    tell("unknown call", compared.call(nobody, "plain"))
    tell("create", compared.create(here))
    tell("create again", compared.create(here))
    send("ping", "POST", "/ping", here)
    for name in ("prompt", "task_tools"):
        send(name, "GET", f"/env/{name}", here)
    first = tell("call", compared.call(here, "plain"))
    task_id = events_of(first)[0][1]
    again = tell("resume", compared.call(here, "resume", task_id))
    told.append(("the same result", first == again))
    tell("resume nothing", compared.call(here, "resume", "0" * 32))
    raised = tell("raise", compared.call(here, "raise"))
    tell("resume what raised", compared.call(here, "resume", events_of(raised)[0][1]))
    tell("no such tool", compared.call(here, "unknown"))
    tell("finish", compared.call(here, "finish"))
    tell("call after the end", compared.call(here, "plain"))
    tell("resume after the end", compared.call(here, "resume", task_id))
    send("delete", "POST", "/delete", here)
    send("ping after delete", "POST", "/ping", here)
    tell("call after delete", compared.call(here, "plain"))
    tell("resume after delete", compared.call(here, "resume", task_id))
    send("delete again", "POST", "/delete", here)
    # As when a gateway delivers the first one late, or twice.
    tell("create after delete", compared.create(here))
    tell("call of what came back", compared.call(here, "plain"))
    send("delete what came back", "POST", "/delete", here)
    send("delete_session", "POST", "/delete_session", here)
    tell("create anew", compared.create(uuid.uuid4().hex))
    tell("broken create", compared.create(broken, broken=True))
    send("broken prompt", "GET", "/env/prompt", broken)
    tell("broken call", compared.call(broken, "plain"))
    send("broken ping", "POST", "/ping", broken)
    waited, deleted = compared.delete_while_waiting(waiting)
    # 410 for who waited already, 404 for who came after the delete. From Python 3.12 on
    # openreward wakes the waiter before it forgets the session.
    early = waited[0] == 200 and sys.version_info >= (3, 12)
    told.append(("waiter", waited[0] in (404, 410) or early))
    tell("delete in set-up", deleted)
    return told


def test_the_model_answers_like_the_server(server: RunningServer) -> None:
    with raw_client(server) as client:
        real = play_script(RealServer(server, client))
    model = play_script(ModelServer(FLAVOUR_OF[server.sdk.name]))
    assert dict(model) == _without_details(dict(real), dict(model))


def _without_details(real: dict[str, Any], model: dict[str, Any]) -> dict[str, Any]:
    """Take the model's word for texts that no client goes by."""
    for name, answer in model.items():
        free = answer[0] == 500 if isinstance(answer, tuple) else False
        if free and isinstance(real.get(name), tuple) and real[name][0] == 500:
            real[name] = answer
    return real


@pytest.mark.slow
def test_starting_and_lost_results_are_as_modelled() -> None:
    with (
        start_server("openreward-0.1.167", setup_wait=0.05, linger=0.0) as server,
        raw_client(server) as client,
    ):
        real = RealServer(server, client)
        session_id = uuid.uuid4().hex
        real.create_task(session_id, setup_seconds=1)
        starting = real.send("GET", "/env/prompt", session_id)
        answers = [real.send("GET", "/env/prompt", session_id) for _ in range(100)]
        task_id = events_of(real.call(session_id, "plain")[2])[0][1]
        for _ in range(100):
            lost = real.call(session_id, "resume", task_id)
            if "unknown" in lost[2]:
                break
    model = ModelServer("openreward", setup=30.0)
    model.send("POST", "/create", "one", CREATE)
    expected = model.send("GET", "/env/prompt", "one")
    assert describe(starting) == describe(expected)
    assert describe(starting) == (503, "Environment still starting.", "starting")
    assert {status for status, _, _ in answers} == {200, 503}
    model.server.setup = 0.01
    model.create("two")
    assert describe(lost) == describe(model.call("two", "resume", "none"))


@pytest.mark.parametrize("seconds", [59.0, 61.0])
def test_the_model_keeps_results_for_a_minute(seconds: float) -> None:
    model = ModelServer("openreward")
    model.create("one")
    task_id = events_of(model.call("one", "plain")[2])[0][1]
    model._clock.now += seconds
    answer = model.call("one", "resume", task_id)
    assert ("unknown task_id" in answer[2]) is (seconds > 60)
