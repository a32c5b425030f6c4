"""The dialects of docs/wire.md, asked of the servers.

These test the servers, not this project: they fail when the table is wrong.
"""

import base64
import dataclasses
import functools
import hashlib
import json
import socket
import sys
import threading
import uuid
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from tests.support.servers.dialects import DIALECTS, ServerDialect
from tests.support.servers.process import RunningServer
from tests.support.servers.raw import RawSession, events_of, open_session, raw_client

HALL = "salle%20%C3%A0%20manger%20%E6%88%BF%E9%97%B4"


@dataclasses.dataclass
class Wire:
    """A server, what it speaks, and a session id that nothing was created for yet."""

    server: RunningServer
    client: httpx.Client

    @property
    def dialect(self) -> ServerDialect:
        return DIALECTS[self.server.sdk.name]

    @functools.cached_property
    def session(self) -> RawSession:
        return RawSession(self.client, uuid.uuid4().hex, "contract")

    def create(
        self, session: RawSession | None = None, headers: Any = None, **body: Any
    ) -> httpx.Response:
        if self.dialect.secrets == "required":
            body.setdefault("secrets", {})
        session = session or self.session
        return session.request("POST", "/create", json=body, headers=headers or {})


@pytest.fixture
def wire(any_server: RunningServer) -> Iterator[Wire]:
    with raw_client(any_server) as client:
        yield Wire(any_server, client)


@pytest.fixture
def session(wire: Wire) -> Iterator[RawSession]:
    with open_session(wire.server) as session:
        yield session


def test_openapi_tells_the_dialect(wire: Wire) -> None:
    document = wire.client.get("/openapi.json").json()
    create = document["components"]["schemas"]["CreateSession"]
    assert set(create["properties"]) == wire.dialect.properties
    assert set(create.get("required", ())) == wire.dialect.required
    paths = set(document["paths"])
    assert ("/create_session" in paths) is (wire.dialect.create_session != "none")
    assert ("/{env_name}/num_tasks" in paths) is wire.dialect.index
    assert ("/{env_name}/task" in paths) is wire.dialect.index
    assert ("/{env_name}/task_range" in paths) is wire.dialect.task_range
    assert ("/{env_name}/task_tools" in paths) is wire.dialect.task_range
    # The header dialect cannot be seen here: no header is declared, in any version.
    assert "X-Secrets" not in wire.client.get("/openapi.json").text


def test_create_session(wire: Wire) -> None:
    reply = wire.client.post("/create_session", json={"anything": "goes"})
    kind = reply.headers["Content-Type"]
    if wire.dialect.create_session == "none":
        assert reply.status_code == 404
    elif wire.dialect.create_session == "json":
        assert kind == "application/json"
        assert len(reply.json()["sid"]) == 36
    else:
        assert kind.startswith("text/event-stream")
        (first, session), last = events_of(reply.text)
        assert (first, len(session), last) == ("task_id", 36, ("end", ""))


def test_health_and_environments(wire: Wire) -> None:
    assert wire.client.get("/health").json() == {"status": "ok"}
    names = wire.client.get("/list_environments").json()
    assert names[:2] == ["contract", "salle à manger 房间"]  # all in lower case
    reply = wire.client.get("/version")
    expected = 200 if wire.dialect.version else 308 if wire.dialect.redirects else 404
    assert reply.status_code == expected


def test_splits(wire: Wire) -> None:
    splits = wire.client.get("/contract/splits").json()
    odd = wire.client.get("/listonly/splits").json()
    if wire.dialect.split_objects:
        assert splits[0] == {"name": "train", "type": "train"}
        assert odd == [{"name": "hard", "type": "test"}]
    else:
        assert splits == ["train", "validation", "test"]
        assert odd == ["hard"]


def test_tools(wire: Wire) -> None:
    tools = {t["name"]: t for t in wire.client.get("/contract/tools").json()["tools"]}
    assert tools["count"]["input_schema"] is None
    assert tools["add"]["input_schema"]["required"] == ["a", "b"]
    assert tools["add"]["description"] == "Add two numbers."


def test_tasks(wire: Wire) -> None:
    reply = wire.client.post("/contract/tasks", json={"split": "validation"}).json()
    assert [task["id"] for task in reply["tasks"]] == [
        *("validation-0", "validation-1", "validation-2")
    ]
    assert ("env_name" in reply) is ("tasks" in wire.dialect.named)
    wrong = wire.client.post("/contract/tasks", json={"split": "nonesuch"})
    if wire.dialect.checks_split:
        assert wrong.status_code == 400
        assert wrong.json() == {"detail": "Invalid split"}
    else:
        assert wrong.status_code == 200


def test_tasks_by_number(wire: Wire) -> None:
    number = wire.client.post("/contract/num_tasks", json={"split": "train"})
    task = wire.client.post("/contract/task", json={"split": "train", "index": 1})
    if not wire.dialect.index:
        assert (number.status_code, task.status_code) == (404, 404)
        return
    assert number.json() == {"num_tasks": 12}
    assert task.json()["task"]["id"] == "train-1"
    assert ("env_name" in task.json()) is ("task" in wire.dialect.named)
    beyond = wire.client.post("/contract/task", json={"split": "train", "index": 99})
    assert (beyond.status_code, beyond.json()) == (400, {"detail": "Invalid index"})
    # Python's own indexing: a client has to refuse this by itself.
    last = wire.client.post("/contract/task", json={"split": "train", "index": -1})
    assert last.json()["task"]["id"] == "train-11"


def test_task_range(wire: Wire) -> None:
    body = {"split": "train", "start": 2, "stop": 4}
    reply = wire.client.post("/contract/task_range", json=body)
    if not wire.dialect.task_range:
        assert reply.status_code == 404
        return
    assert [task["id"] for task in reply.json()["tasks"]] == ["train-2", "train-3"]
    assert ("env_name" in reply.json()) is ("task_range" in wire.dialect.named)


def test_a_vast_set_is_counted_but_not_listed(wire: Wire) -> None:
    if not wire.dialect.index:
        assert "vast" not in wire.client.get("/list_environments").json()
        return
    number = wire.client.post("/vast/num_tasks", json={"split": "train"})
    assert number.json() == {"num_tasks": 10**9}
    body = {"split": "train", "index": 10**9 - 1}
    assert wire.client.post("/vast/task", json=body).json()["task"]["id"] == "999999999"
    assert wire.server.log("list_tasks") == []
    listed = wire.client.post("/vast/tasks", json={"split": "train"})
    assert listed.status_code == wire.dialect.vast_tasks


def test_an_unknown_environment_in_the_path(wire: Wire) -> None:
    for path in ("/nonesuch/tools", "/tools", "/"):
        reply = wire.client.get(path)
        assert reply.status_code == (308 if wire.dialect.redirects else 404)
        if wire.dialect.redirects:
            assert reply.headers["Location"] == f"/contract{path}"


def test_names_are_matched_without_case_and_percent_encoded(wire: Wire) -> None:
    assert wire.client.get("/CONTRACT/tools").status_code == 200
    assert wire.client.get(f"/{HALL}/tools").status_code == 200
    upper = HALL.replace("salle", "SALLE").replace("%C3%A0", "%C3%80")
    assert wire.client.get(f"/{upper}/tools").status_code == 200


def test_a_trailing_slash_redirects_to_an_absolute_url(wire: Wire) -> None:
    reply = wire.client.get("/health/", headers={"Host": "elsewhere.example"})
    assert reply.status_code == 307
    assert reply.headers["Location"] == "http://elsewhere.example/health"


DIGEST = hashlib.sha256(b"hunter2").hexdigest()


def errors_of(reply: httpx.Response) -> set[tuple[str, str]]:
    assert reply.status_code == 422
    return {
        (error["type"], ".".join(map(str, error["loc"])))
        for error in reply.json()["detail"]
    }


def arrived(server: RunningServer) -> list[dict[str, str]]:
    return [entry["secrets"] for entry in server.log("construct")]


def test_secrets_in_the_body(wire: Wire) -> None:
    body = {"env_name": "contract", "task_spec": {}, "secrets": {"KEY": "hunter2"}}
    reply = wire.session.request("POST", "/create", json=body)
    if wire.dialect.secrets in {"body", "required"}:
        assert reply.status_code == 200
        wire.session.get("prompt")
        assert arrived(wire.server) == [{"KEY": DIGEST}]
    else:
        assert errors_of(reply) == {("extra_forbidden", "body.secrets")}
        # The answer repeats them: whoever shows it must leave that out.
        assert "hunter2" in reply.text
        assert arrived(wire.server) == []


def test_secrets_left_out(wire: Wire) -> None:
    body = {"env_name": "contract", "task_spec": {}}
    reply = wire.session.request("POST", "/create", json=body)
    if wire.dialect.secrets == "required":
        assert errors_of(reply) == {("missing", "body.secrets")}
    else:
        assert reply.status_code == 200


def test_secrets_in_the_header(wire: Wire) -> None:
    secret = base64.b64encode(json.dumps({"KEY": {"value": "hunter2"}}).encode())
    headers = {"X-Secrets": secret.decode()}
    reply = wire.create(env_name="contract", task_spec={}, headers=headers)
    assert reply.status_code == 200
    wire.session.get("prompt")
    # All but the header dialect ignore it without a word.
    expected = {"KEY": DIGEST} if wire.dialect.secrets == "header" else {}
    assert arrived(wire.server) == [expected]


def test_the_probe_for_the_dialect_creates_nothing(wire: Wire) -> None:
    reply = wire.session.request("POST", "/create", json={"secrets": {}})
    forbidden = ("extra_forbidden", "body.secrets")
    missing = {("missing", "body.env_name"), ("missing", "body.task_spec")}
    # `extra_forbidden` alone does not mean the header: 0.1.0 has no channel at all.
    expected = {
        "header": {forbidden},
        "none": {forbidden, *missing},
        "required": missing,
        "body": {("value_error", "body")},
    }
    assert errors_of(reply) == expected[wire.dialect.secrets]
    assert arrived(wire.server) == []
    assert wire.session.request("POST", "/ping").status_code == 404


def test_a_task_by_split_and_index(wire: Wire) -> None:
    task: Any = {"env_name": "contract", "split": "train"}
    reply = wire.create(**task, index=3)
    if not wire.dialect.index:
        assert reply.status_code == 422
        return
    assert reply.status_code == 200
    assert wire.session.get("prompt").json()[0]["text"] == "3 + 3 = ?"
    other = RawSession(wire.client, "another", "contract")
    wrong = wire.create(other, **task, index=99)
    assert (wrong.status_code, wrong.json()) == (400, {"detail": "Invalid index"})
    wrong = wire.create(other, env_name="contract", split="nonesuch", index=0)
    assert (wrong.status_code, wrong.json()) == (400, {"detail": "Invalid split"})


def test_an_unknown_environment(wire: Wire) -> None:
    reply = wire.create(env_name="nonesuch", task_spec={})
    unknown = {"detail": "unknown environment 'nonesuch'"}
    if wire.dialect.checks_environment:
        assert (reply.status_code, reply.json()) == (404, unknown)
        return
    # Found out in set-up only: this 404 does not mean that the session is lost.
    assert reply.status_code == 200
    prompt = wire.session.get("prompt")
    assert (prompt.status_code, prompt.json()) == (404, unknown)
    assert wire.session.request("POST", "/ping").status_code == 200


def test_creating_twice(wire: Wire, session: RawSession) -> None:
    session.get("prompt")
    body: dict[str, Any] = {"env_name": "contract", "task_spec": {}}
    again = wire.create(session, **body)
    assert again.status_code == 400
    assert again.json() == {"detail": "Session already exists"}
    assert len(wire.server.log("construct")) == 1


def test_an_id_may_be_used_again_after_delete(wire: Wire, session: RawSession) -> None:
    assert session.request("POST", "/delete").status_code == 200
    again = session.request("POST", "/delete")
    assert again.status_code == wire.dialect.delete_unknown
    reply = wire.create(session, env_name="contract", task_spec={})
    assert reply.status_code == 200


def test_a_set_up_that_raises(wire: Wire) -> None:
    with open_session(wire.server, setup_error="no\ndisk") as session:
        for reply in (session.get("prompt"), session.call("count")):
            assert reply.status_code == 500
            if wire.dialect.setup_cause:
                assert reply.json() == {"detail": "RuntimeError: no\ndisk"}
            else:
                assert reply.text == "Internal Server Error"
                assert reply.headers["Connection"] == "close"
        tools = session.get("task_tools")
        assert tools.status_code == (500 if wire.dialect.task_range else 404)
        assert session.request("POST", "/ping").status_code == 200
        assert session.request("POST", "/delete").status_code == 200
        assert session.request("POST", "/ping").status_code == 404


def test_a_constructor_that_raises(wire: Wire) -> None:
    spec = {"construct_error": "no memory"}
    reply = wire.create(env_name="contract", task_spec=spec)
    if wire.dialect.constructs_at_once:
        assert reply.status_code == 500
        assert reply.json() == {"detail": "RuntimeError: no memory"}
        assert wire.session.request("POST", "/ping").status_code == 404
    else:
        assert reply.status_code == 200
        assert wire.session.get("prompt").status_code == 500
        assert wire.session.request("POST", "/ping").status_code == 200


def test_the_prompt_waits_for_set_up(wire: Wire) -> None:
    with open_session(wire.server, "tasktools", setup_seconds=0.8) as session:
        assert session.request("POST", "/ping").status_code == 200
        if wire.dialect.task_range:
            early = session.get("task_tools").json()["tools"]
            assert bool(wire.server.log("ready")) is wire.dialect.waits_for_tools
            names = [tool["name"] for tool in early]
            assert ("after_setup" in names) is wire.dialect.waits_for_tools
        assert session.get("prompt").status_code == 200
        assert wire.server.log("ready")


def test_a_session_deleted_during_set_up(wire: Wire) -> None:
    with open_session(wire.server, setup_seconds=30) as session:
        address = ("127.0.0.1", wire.server.port)
        with socket.create_connection(address, timeout=10) as waiting:
            waiting.sendall(
                b"GET /contract/prompt HTTP/1.1\r\nHost: h\r\nConnection: close\r\n"
                b"X-Session-ID: " + session.session_id.encode() + b"\r\n\r\n"
            )
            # Once these are answered the server's loop has come to the prompt's wait.
            for _ in range(5):
                assert session.request("POST", "/ping").status_code == 200
            assert session.request("POST", "/delete").status_code == 200
            reply = b"".join(iter(lambda: waiting.recv(4096), b""))
        # From Python 3.12 on openreward wakes the waiter before it forgets the session.
        early = sys.version_info >= (3, 12) and wire.server.sdk.package == "openreward"
        if not (early and reply.startswith(b"HTTP/1.1 200 ")):
            assert reply.startswith(b"HTTP/1.1 410 ")
            assert reply.endswith(b'{"detail":"Session deleted"}')
        gone = session.get("prompt")
        assert gone.json() == {"detail": "Active environment not found"}


UNKNOWN = {"detail": "Active environment not found"}


def test_the_exact_bytes_of_a_call(wire: Wire, session: RawSession) -> None:
    reply = session.call("add", a=1, b=2)
    assert reply.headers["Content-Type"] == "text/event-stream; charset=utf-8"
    task_id = events_of(reply.text)[0][1]
    assert reply.content == (
        b"event: task_id\r\ndata: " + task_id.encode() + b"\r\n\r\n"
        b'event: end\r\ndata: {"ok":true,"output":{"blocks":[{"text":"3",'
        b'"detail":null,"type":"text"}],"metadata":null,"reward":0.5,'
        b'"finished":false}}\r\n\r\n'
    )


@pytest.mark.parametrize("kind", ["separators", "blanks", "wide", "lines", "quotes"])
def test_a_result_is_cut_every_4096_characters(wire, session, kind):
    reply = session.call("speak", kind=kind, size=20_000)
    events = events_of(reply.content.decode())[1:]
    assert {kind for kind, _ in events} == {"chunk", "end"}
    assert all(len(data) == 4096 for kind, data in events if kind == "chunk")
    result = json.loads("".join(data for _, data in events))
    text = result["output"]["blocks"][0]["text"]
    wire.server.check_spoken(text)
    if kind == "blanks":
        assert all(data.startswith("  \u00a0") for _, data in events[1:])
    if kind == "separators":
        assert "\u2028".encode() in reply.content
        assert "\u0085".encode() in reply.content


@pytest.mark.parametrize(
    ("message", "lines"),
    [
        ("one\ntwo\n\n three", [b"one", b"two", b"", b" three"]),
        ("cr\rcrlf\r\nend", [b"cr", b"crlf", b"end"]),
        ("a\u2028b\u0085c", ["a\u2028b\u0085c".encode()]),
        ("", [b""]),
        ("unknown task_id", [b"unknown task_id"]),
    ],
)
def test_a_tool_that_raises(wire, session, message, lines):
    content = session.call("fail", message=message).content
    first, second, rest = content.split(b"\r\n\r\n")
    assert first.startswith(b"event: task_id\r\n")
    data = [b"data: " + line for line in lines]
    assert second.split(b"\r\n") == [b"event: error", *data]
    assert rest == b""
    assert session.result("count")["ok"]


def test_refused_calls(wire: Wire, session: RawSession) -> None:
    reason = wire.dialect.reason
    unknown = session.result("nonesuch")
    wrong = session.result("add", a="x")
    assert session.result("add", a="5", b=True)["ok"]  # the server decides
    assert wire.server.runs() == 1
    assert (unknown["ok"], wrong["ok"]) == (False, False)
    assert unknown["error"] == "'nonesuch' is not a valid tool"
    assert wrong["error"].startswith("Tool input validation error: ")
    assert unknown.get("reason") == ("not_found" if reason else None)
    assert wrong.get("reason") == ("input_validation" if reason else None)


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        *(("nan", None), ("inf", None), ("-inf", None), ("null", None), ("int", 3.0)),
        *(("negative", -2.5), ("huge", 1e308), ("tiny", 5e-324), ("zero", 0.0)),
    ],
)
def test_rewards(wire, session, kind, expected):
    assert session.result("reward", kind=kind)["output"]["reward"] == expected


def test_metadata_arrives_exactly(wire: Wire, session: RawSession) -> None:
    metadata = session.result("metadata")["output"]["metadata"]
    assert metadata["big"] == 2**53 + 1
    assert metadata["nested"]["list"] == [1, 2.5, None, True, "é"]


def test_a_call_after_the_end(wire: Wire) -> None:
    with open_session(wire.server, answer="yes") as session:
        assert session.result("submit", answer="yes")["output"]["finished"] is True
        again = session.result("submit", answer="yes")
    if wire.dialect.refuses_after_end:
        assert again["reason"] == "episode_finished"
        assert wire.server.rewards() == [1.0]
    else:
        assert wire.server.rewards() == [1.0, 1.0]  # runs and pays again


def test_a_call_is_resumed_on_another_connection(wire, session):
    first = session.call("count").content
    task_id = events_of(first.decode())[0][1]
    other = RawSession(wire.client, session.session_id, "contract")
    # Name and input do not matter any more, nor does the environment's name.
    assert other.call("nonesuch", task_id).content == first
    other.environment = "listonly"
    assert other.call("nonesuch", task_id).content == first
    assert wire.server.runs() == 1
    session.request("POST", "/delete")
    assert other.call("count", task_id).json() == UNKNOWN


@pytest.mark.parametrize("task_id", ["", "nonesuch", "0" * 32])
def test_a_task_id_of_ones_own_is_refused(wire, session, task_id):
    reply = session.call("count", task_id)
    assert reply.status_code == 200
    assert reply.text == "event: error\r\ndata: unknown task_id\r\n\r\n"
    assert wire.server.runs() == 0


def test_a_task_id_of_null_is_a_new_run(wire: Wire, session: RawSession) -> None:
    body: dict[str, Any] = {"name": "count", "input": {}, "task_id": None}
    reply = session.request("POST", "/contract/call", json=body)
    assert reply.status_code == 200
    assert wire.server.runs() == 1


def test_json_has_to_say_that_it_is_json(wire: Wire, session: RawSession) -> None:
    body = b'{"name": "count", "input": {}}'
    reply = session.request("POST", "/contract/call", content=body)
    assert reply.status_code == 422
    assert wire.server.runs() == 0


def test_a_tool_runs_to_its_end_without_its_client(wire, session):
    body = json.dumps({"name": "slow", "input": {"seconds": 0.1}})
    address = ("127.0.0.1", wire.server.port)
    with socket.create_connection(address, timeout=10) as connection:
        connection.sendall(
            f"POST /contract/call HTTP/1.1\r\nHost: h\r\nX-Session-ID: "
            f"{session.session_id}\r\nContent-Type: application/json\r\n"
            f"Content-Length: {len(body)}\r\n\r\n{body}".encode()
        )
        wire.server.wait_for("run", tool="slow")
    wire.server.wait_for("done", tool="slow")
    assert wire.server.rewards() == [0.25]


def test_whether_a_tool_blocks_everybody(wire: Wire, session: RawSession) -> None:
    mine = RawSession(wire.client, session.session_id, "contract")
    seconds = {"seconds": 1.0}
    caller = threading.Thread(target=mine.call, args=("slow_sync",), kwargs=seconds)
    caller.start()
    wire.server.wait_for("run", tool="slow_sync")
    assert session.request("POST", "/ping").status_code == 200
    ended_before_the_ping = bool(wire.server.log("done"))
    caller.join(10)
    assert ended_before_the_ping is wire.dialect.blocks


def test_an_unknown_session(wire: Wire) -> None:
    with raw_client(wire.server) as client:
        session = RawSession(client, "nonesuch", "contract")
        replies = [
            *(session.get("prompt"), session.call("count")),
            session.request("POST", "/ping"),
        ]
        if wire.dialect.task_range:
            replies.append(session.get("task_tools"))
        for reply in replies:
            assert (reply.status_code, reply.json()) == (404, UNKNOWN)
        delete = session.request("POST", "/delete")
        assert delete.status_code == wire.dialect.delete_unknown
        freed = session.request("POST", "/delete_session")
        never = wire.dialect.create_session == "none"
        assert freed.status_code == (404 if never else 200)


@pytest.mark.parametrize("name", ["ping", "delete", "contract/prompt", "contract/call"])
def test_no_session_id(wire: Wire, name: str) -> None:
    with raw_client(wire.server) as client:
        if name.endswith("prompt"):
            reply = client.get(f"/{name}")
        else:
            reply = client.post(f"/{name}", json={"name": "count", "input": {}})
    assert reply.status_code == 400
    assert reply.json() == {"detail": "X-Session-ID header is required"}


def test_a_session_outlives_its_connection(wire: Wire, session: RawSession) -> None:
    session.result("count")
    with httpx.Client(base_url=wire.server.base_url) as client:
        session.client, kept = client, session.client
        assert session.result("count")["output"]["blocks"][0]["text"] == "2"
        session.client = kept


@pytest.mark.slow
def test_a_heartbeat_comes_every_ten_seconds(server: RunningServer) -> None:
    with open_session(server) as session:
        lines = session.call("slow", seconds=10.5).text.split("\r\n")
    assert [line[:9] for line in lines if line.startswith(":")] == [": ping - "]
