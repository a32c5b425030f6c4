"""The model answers as real servers do: the same script, the same answers."""

from __future__ import annotations

import uuid
from typing import Any

import pytest

from tests.support.servers.process import RunningServer, start_server
from tests.support.servers.raw import events_of, raw_client
from tests.system.simulation.wires import ModelWire, RealWire, ScriptedWire, describe

FLAVOURS = {"ors-sdk-0.1.0": "ors-sdk", "openreward-0.1.167": "openreward"}


def play_script(wire: ScriptedWire) -> list[tuple[str, Any]]:
    """Play a script of all that sessions go through, and say what came of each step."""
    told: list[tuple[str, Any]] = []
    here, broken, waiting, nobody = (uuid.uuid4().hex for _ in range(4))

    def tell(what: str, answer: tuple[int, dict[str, str], str]) -> str:
        told.append((what, describe(answer)))
        return answer[2]

    def send(what: str, method: str, path: str, session_id: str) -> None:
        tell(what, wire.send(method, path, session_id))

    send("create_session", "POST", "/create_session", nobody)
    for path in ("/ping", "/delete"):
        send(f"unknown {path}", "POST", path, nobody)
    send("unknown prompt", "GET", "/env/prompt", nobody)
    tell("unknown call", wire.call(nobody, "plain"))
    tell("create", wire.create(here))
    tell("create again", wire.create(here))
    send("ping", "POST", "/ping", here)
    for name in ("prompt", "task_tools"):
        send(name, "GET", f"/env/{name}", here)
    first = tell("call", wire.call(here, "plain"))
    task_id = events_of(first)[0][1]
    again = tell("resume", wire.call(here, "resume", task_id))
    told.append(("the same result", first == again))
    tell("resume nothing", wire.call(here, "resume", "0" * 32))
    raised = tell("raise", wire.call(here, "raise"))
    tell("resume what raised", wire.call(here, "resume", events_of(raised)[0][1]))
    tell("no such tool", wire.call(here, "unknown"))
    tell("finish", wire.call(here, "finish"))
    tell("call after the end", wire.call(here, "plain"))
    tell("resume after the end", wire.call(here, "resume", task_id))
    send("delete", "POST", "/delete", here)
    send("ping after delete", "POST", "/ping", here)
    tell("call after delete", wire.call(here, "plain"))
    tell("resume after delete", wire.call(here, "resume", task_id))
    send("delete again", "POST", "/delete", here)
    # As when a gateway delivers the first one late, or twice.
    tell("create after delete", wire.create(here))
    tell("call of what came back", wire.call(here, "plain"))
    send("delete what came back", "POST", "/delete", here)
    send("delete_session", "POST", "/delete_session", here)
    tell("create anew", wire.create(uuid.uuid4().hex))
    tell("broken create", wire.create(broken, broken=True))
    send("broken prompt", "GET", "/env/prompt", broken)
    tell("broken call", wire.call(broken, "plain"))
    send("broken ping", "POST", "/ping", broken)
    waited, deleted = wire.delete_while_waiting(waiting)
    # 410 for who waited already, 404 for who came after the delete.
    told.append(("waiter", waited[0] in (404, 410)))
    tell("delete in set-up", deleted)
    return told


def test_the_model_answers_like_the_server(server: RunningServer) -> None:
    with raw_client(server) as client:
        real = play_script(RealWire(server, client))
    model = play_script(ModelWire(FLAVOURS[server.sdk.name]))
    assert dict(model) == _without_details(dict(real), dict(model))


def _without_details(real: dict[str, Any], model: dict[str, Any]) -> dict[str, Any]:
    """Take the model's word for texts that no client goes by."""
    for name, answer in model.items():
        free = answer[0] == 500 if isinstance(answer, tuple) else False
        if free and isinstance(real.get(name), tuple) and real[name][0] == 500:
            real[name] = answer
    return real


def test_starting_and_lost_results_are_as_modelled() -> None:
    with (
        start_server("openreward-0.1.167", setup_wait=0.05, linger=0.0) as server,
        raw_client(server) as client,
    ):
        real = RealWire(server, client)
        session_id = uuid.uuid4().hex
        real.create_task(session_id, setup_seconds=1)
        starting = real.send("GET", "/env/prompt", session_id)
        answers = [real.send("GET", "/env/prompt", session_id) for _ in range(100)]
        task_id = events_of(real.call(session_id, "plain")[2])[0][1]
        for _ in range(100):
            lost = real.call(session_id, "resume", task_id)
            if "unknown" in lost[2]:
                break
    model = ModelWire("openreward", setup=30.0)
    body = {"env_name": "env", "task_spec": {}}
    model.send("POST", "/create", "one", body)
    expected = model.send("GET", "/env/prompt", "one")
    assert (
        describe(starting)
        == describe(expected)
        == (503, "Environment still starting.", "starting")
    )
    assert {status for status, _, _ in answers} == {200, 503}
    assert describe(lost) == describe(model.call(_later(model), "resume", "none"))


def _later(model: ModelWire) -> str:
    """Open a session in the model that is set up."""
    model.server.setup = 0.01
    model.create("two")
    return "two"


@pytest.mark.parametrize("seconds", [59.0, 61.0])
def test_the_model_keeps_results_for_a_minute(seconds: float) -> None:
    model = ModelWire("openreward")
    model.create("one")
    task_id = events_of(model.call("one", "plain")[2])[0][1]
    model._world.now += seconds
    answer = model.call("one", "resume", task_id)
    assert ("unknown task_id" in answer[2]) is (seconds > 60)
