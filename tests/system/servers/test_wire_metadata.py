"""The dialects of docs/wire.md, asked of the servers: what needs no session.

These test the servers, not this project: they fail when the table is wrong.
"""

from __future__ import annotations

from collections.abc import Iterator

import httpx
import pytest

from tests.support.servers.dialects import DIALECTS, ServerDialect
from tests.support.servers.process import RunningServer
from tests.support.servers.raw import events_of, raw_client

HALL = "salle%20%C3%A0%20manger%20%E6%88%BF%E9%97%B4"


@pytest.fixture
def dialect(any_server: RunningServer) -> ServerDialect:
    return DIALECTS[any_server.sdk.name]


@pytest.fixture
def client(any_server: RunningServer) -> Iterator[httpx.Client]:
    with raw_client(any_server) as made:
        yield made


def test_openapi_tells_the_dialect(
    client: httpx.Client, dialect: ServerDialect
) -> None:
    document = client.get("/openapi.json").json()
    create = document["components"]["schemas"]["CreateSession"]
    assert set(create["properties"]) == dialect.properties
    assert set(create.get("required", ())) == dialect.required
    paths = set(document["paths"])
    assert ("/create_session" in paths) is (dialect.create_session != "none")
    assert ("/{env_name}/num_tasks" in paths) is dialect.index
    assert ("/{env_name}/task" in paths) is dialect.index
    assert ("/{env_name}/task_range" in paths) is dialect.task_range
    assert ("/{env_name}/task_tools" in paths) is dialect.task_range
    # The header dialect cannot be seen here: no header is declared, in any version.
    assert "X-Secrets" not in client.get("/openapi.json").text


def test_create_session(client: httpx.Client, dialect: ServerDialect) -> None:
    reply = client.post("/create_session", json={"anything": "goes"})
    kind = reply.headers["Content-Type"]
    if dialect.create_session == "none":
        assert reply.status_code == 404
    elif dialect.create_session == "json":
        assert kind == "application/json"
        assert len(reply.json()["sid"]) == 36
    else:
        assert kind.startswith("text/event-stream")
        (first, session), last = events_of(reply.text)
        assert (first, len(session), last) == ("task_id", 36, ("end", ""))


def test_health_and_environments(client: httpx.Client, dialect: ServerDialect) -> None:
    assert client.get("/health").json() == {"status": "ok"}
    names = client.get("/list_environments").json()
    assert names[:2] == ["contract", "salle à manger 房间"]  # all in lower case
    reply = client.get("/version")
    expected = 200 if dialect.version else 308 if dialect.redirects else 404
    assert reply.status_code == expected


def test_splits(client: httpx.Client, dialect: ServerDialect) -> None:
    splits = client.get("/contract/splits").json()
    odd = client.get("/listonly/splits").json()
    if dialect.split_objects:
        assert splits[0] == {"name": "train", "type": "train"}
        assert odd == [{"name": "hard", "type": "test"}]
    else:
        assert splits == ["train", "validation", "test"]
        assert odd == ["hard"]


def test_tools(client: httpx.Client) -> None:
    tools = {t["name"]: t for t in client.get("/contract/tools").json()["tools"]}
    assert tools["count"]["input_schema"] is None
    assert tools["add"]["input_schema"]["required"] == ["a", "b"]
    assert tools["add"]["description"] == "Add two numbers."


def test_tasks(client: httpx.Client, dialect: ServerDialect) -> None:
    reply = client.post("/contract/tasks", json={"split": "validation"}).json()
    assert [task["id"] for task in reply["tasks"]] == [
        *("validation-0", "validation-1", "validation-2")
    ]
    assert ("env_name" in reply) is ("tasks" in dialect.named)
    wrong = client.post("/contract/tasks", json={"split": "nonesuch"})
    if dialect.checks_split:
        assert wrong.status_code == 400
        assert wrong.json() == {"detail": "Invalid split"}
    else:
        assert wrong.status_code == 200


def test_tasks_by_number(client: httpx.Client, dialect: ServerDialect) -> None:
    number = client.post("/contract/num_tasks", json={"split": "train"})
    task = client.post("/contract/task", json={"split": "train", "index": 1})
    if not dialect.index:
        assert (number.status_code, task.status_code) == (404, 404)
        return
    assert number.json() == {"num_tasks": 12}
    assert task.json()["task"]["id"] == "train-1"
    assert ("env_name" in task.json()) is ("task" in dialect.named)
    beyond = client.post("/contract/task", json={"split": "train", "index": 99})
    assert (beyond.status_code, beyond.json()) == (400, {"detail": "Invalid index"})
    # Python's own indexing: a client has to refuse this by itself.
    last = client.post("/contract/task", json={"split": "train", "index": -1})
    assert last.json()["task"]["id"] == "train-11"


def test_task_range(client: httpx.Client, dialect: ServerDialect) -> None:
    body = {"split": "train", "start": 2, "stop": 4}
    reply = client.post("/contract/task_range", json=body)
    if not dialect.task_range:
        assert reply.status_code == 404
        return
    assert [task["id"] for task in reply.json()["tasks"]] == ["train-2", "train-3"]
    assert ("env_name" in reply.json()) is ("task_range" in dialect.named)


def test_a_vast_set_is_counted_but_not_listed(
    any_server: RunningServer, client: httpx.Client, dialect: ServerDialect
) -> None:
    if not dialect.index:
        assert "vast" not in client.get("/list_environments").json()
        return
    number = client.post("/vast/num_tasks", json={"split": "train"})
    assert number.json() == {"num_tasks": 10**9}
    body = {"split": "train", "index": 10**9 - 1}
    assert client.post("/vast/task", json=body).json()["task"]["id"] == "999999999"
    assert any_server.log("list_tasks") == []
    listed = client.post("/vast/tasks", json={"split": "train"})
    assert listed.status_code == dialect.vast_tasks


def test_an_unknown_environment_in_the_path(
    client: httpx.Client, dialect: ServerDialect
) -> None:
    for path in ("/nonesuch/tools", "/tools", "/"):
        reply = client.get(path)
        assert reply.status_code == (308 if dialect.redirects else 404)
        if dialect.redirects:
            assert reply.headers["Location"] == f"/contract{path}"


def test_names_are_matched_without_case_and_percent_encoded(
    client: httpx.Client,
) -> None:
    assert client.get("/CONTRACT/tools").status_code == 200
    assert client.get(f"/{HALL}/tools").status_code == 200
    upper = HALL.replace("salle", "SALLE").replace("%C3%A0", "%C3%80")
    assert client.get(f"/{upper}/tools").status_code == 200


def test_a_trailing_slash_redirects_to_an_absolute_url(client: httpx.Client) -> None:
    reply = client.get("/health/", headers={"Host": "elsewhere.example"})
    assert reply.status_code == 307
    assert reply.headers["Location"] == "http://elsewhere.example/health"
