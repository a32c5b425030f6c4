"""What both clients have: settings, copies, subscribers to retries, the catalog."""

import ast
import asyncio
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

import ors_gym
from ors_gym.client import AsyncORSClient, ORSClient
from ors_gym.client._client_core import Catalog
from ors_gym.client._session_core import task_request
from ors_gym.errors import (
    InvalidRequestError,
    UnknownEnvironmentError,
    UnknownTaskError,
)
from ors_gym.protocol._dialect import Dialect, SecretsChannel
from ors_gym.protocol._retries import Retry
from tests.protocol.scripted_exchanges import RecordingServer, Script, ok, refused

URL = "http://127.0.0.1:1"
KEY = "hunter22-key"
RETRY = Retry("POST /create", "status 429", 1, 0.1)


@pytest.fixture(params=[ORSClient, AsyncORSClient])
def make(request: pytest.FixtureRequest) -> Callable[..., Any]:
    kind: Callable[..., Any] = request.param
    return kind


def test_settings_survive_a_pickle_and_hide_the_key(make, monkeypatch):
    client = make(URL, api_key=KEY, headers={"X-Deployment": "blue"}, timeout=7.0)
    assert KEY not in repr(client.settings)
    settings = pickle.loads(pickle.dumps(client.settings))
    # The other process may have another key.
    monkeypatch.setenv("ORS_API_KEY", "another-key")
    copy = AsyncORSClient.from_settings(settings)
    assert copy.settings == client.settings
    assert ("X-API-Key", KEY) in copy.settings.headers
    assert copy.settings.timeout == 7.0


@pytest.mark.parametrize("seconds", ["5", None, True, 0, -1.0, float("nan")])
def test_a_time_that_is_none_is_refused(make, seconds: Any) -> None:
    with pytest.raises(InvalidRequestError, match="timeout"):
        make(URL, timeout=seconds)
    client = make(URL)
    for name in ("call_timeout", "setup_timeout"):
        with pytest.raises(InvalidRequestError, match=name):
            client.session("math", split="train", index=0, **{name: seconds})


@pytest.mark.parametrize(
    ("index", "words"),
    [("0", "whole number"), (0.0, "whole number"), (True, "whole"), (-1, "from 0")],
)
def test_an_index_that_is_none_is_refused(make, index: Any, words: str) -> None:
    with pytest.raises(UnknownTaskError, match=words):
        make(URL).session("math", split="train", index=index)


def test_an_index_may_be_one_of_numpy() -> None:
    task = task_request(None, "train", np.int64(3))  # type: ignore[arg-type]
    assert task == {"split": "train", "index": 3}
    assert type(task["index"]) is int


@pytest.mark.parametrize("other", [ORSClient, AsyncORSClient])
def test_a_copy_shares_what_is_known_and_tells_of_its_retries(make, other):
    told: list[Retry] = []
    client = other(URL, on_retry=told.append)
    known = client._server.known
    known.dialect = Dialect(SecretsChannel.HEADER, create_session=True)
    known.environments = ("math",)
    known.listing("math").counts["train"] = 3
    copy = make.from_client(client)
    assert copy.dialect == known.dialect
    assert copy._connections is not client._connections
    # No request is made: nobody listens at this port.
    count = copy.catalog.count_tasks("Math", "train")
    with pytest.raises(StopIteration, match="3"):
        next(count)

    own: list[Retry] = []
    copy.subscribe_to_retries(own.append)
    copy._server.hooks.on_retry(RETRY)
    assert (told, own) == ([RETRY], [RETRY])
    client._server.hooks.on_retry(RETRY)
    assert (told, own) == ([RETRY, RETRY], [RETRY])


@pytest.mark.parametrize("target", [ORSClient, AsyncORSClient])
def test_connections_of_the_users_own_are_not_copied(make, target):
    blocking = make is ORSClient
    own = httpx.Client() if blocking else httpx.AsyncClient()
    client = make(URL, client=own)
    with pytest.raises(InvalidRequestError, match="was given an httpx transport"):
        target.from_client(client)
    if isinstance(own, httpx.Client):
        own.close()
    else:
        asyncio.run(own.aclose())


def test_several_are_told_of_retries_until_they_unsubscribe(make: Callable[..., Any]):
    told: list[str] = []
    client = make(URL, on_retry=lambda _: told.append("first"))

    def tell(_: Retry) -> None:
        told.append("twice")

    # The same function may subscribe twice, and each subscription ends by itself.
    end_one, end_other = (client.subscribe_to_retries(tell) for _ in range(2))
    client._server.hooks.on_retry(RETRY)
    assert told == ["first", "twice", "twice"]
    end_one()
    end_one()
    client._server.hooks.on_retry(RETRY)
    assert told[3:] == ["first", "twice"]
    end_other()
    client._server.hooks.on_retry(RETRY)
    assert told[5:] == ["first"]


def test_an_operation_runs_in_the_background() -> None:
    def answer() -> Any:
        yield from ()
        return 42

    assert ORSClient(URL).run_in_background(answer()).result(10) == 42


def test_the_session_of_another_client_is_deleted_only_when_asked() -> None:
    deleted: list[str] = []

    def answer(request: httpx.Request) -> httpx.Response:
        if request.url.path == "/delete":
            deleted.append(request.headers["X-Session-ID"])
        return httpx.Response(200, json=[])

    with ORSClient(URL, transport=httpx.MockTransport(answer)) as client:
        client._server.known = RecordingServer().known
        assert client.get_prompt("s1", "math") == []
        assert client.get_prompt("s2", "math") == []
        assert client.delete_episode("s1") == {"sid": "s1"}
        assert deleted == ["s1"]
    assert deleted == ["s1"]


def test_an_episode_is_created_once_on_an_id(one_server) -> None:
    with ORSClient(one_server.base_url) as client:
        session_id = client.create_session()
        task: Any = {"split": "train", "index": 0}
        client.create_episode(session_id, "contract", **task)
        with pytest.raises(InvalidRequestError, match="take a new id"):
            client.create_episode(session_id, "contract", **task)
        with pytest.raises(InvalidRequestError, match="take a new id"):
            client.create_episode(session_id, "contract", {"x": float("nan")})
        assert client.ping(session_id)
        client.get_prompt(session_id, "contract")
    one_server.wait_until_none_is_open()


@pytest.mark.parametrize("seconds", ["5", 0, float("nan"), True])
def test_a_call_needs_a_time(one_server, seconds: Any) -> None:
    with (
        ORSClient(one_server.base_url) as client,
        client.session("contract", split="train", index=0) as session,
    ):
        with pytest.raises(InvalidRequestError, match="timeout"):
            session.call_tool("add", {"a": 1, "b": 2}, timeout=seconds)
        with pytest.raises(InvalidRequestError, match="timeout"):
            session.resume_call("t1", timeout=seconds)
        assert session.call_tool("add", {"a": 1, "b": 2})["reward"] is not None


def test_tasks_are_asked_for_by_numbers_of_numpy(one_server) -> None:
    zero: Any = np.int64(0)
    one: Any = np.int64(1)
    text: Any = "0"
    with ORSClient(one_server.base_url) as client:
        task = client.get_task("contract", "train", zero)
        assert client.get_task_range("contract", "train", zero, one) == [task]
        with pytest.raises(UnknownTaskError, match="whole number"):
            client.get_task("contract", "train", text)


def test_a_client_that_closes_leaves_the_session_of_another_one(one_server) -> None:
    with (
        ORSClient(one_server.base_url) as owner,
        owner.session("contract", split="train", index=0) as session,
    ):
        prompt = session.get_prompt()
        with ORSClient(one_server.base_url) as guest:
            assert guest.get_prompt(session.session_id, "contract") == prompt
        assert session.call_tool("add", {"a": 1, "b": 2})["blocks"]


TOOLS = [{"name": "say", "description": "", "input_schema": None}]


def test_each_question_is_asked_once_however_the_environment_is_written() -> None:
    server = RecordingServer()
    catalog = Catalog(server)
    script = Script(ok({"tools": TOOLS}), ok(["train"]), ok({"num_tasks": 3}))
    for name in ("math", "Math"):
        assert script.run_all(
            catalog.tools(name),
            catalog.splits(name),
            catalog.count_tasks(name, "train"),
        ) == [TOOLS, [{"name": "train", "type": "train"}], 3]
    assert script.targets == [
        "GET /Math/tools",
        "GET /Math/splits",
        "POST /Math/num_tasks",
    ]


def test_an_environment_that_the_server_lacks() -> None:
    server = RecordingServer()
    with pytest.raises(UnknownEnvironmentError, match="it has 'Math', 'guess'"):
        Script().run(Catalog(server).tools("chess"))


def test_a_failed_question_is_asked_again() -> None:
    server = RecordingServer()
    catalog = Catalog(server)
    script = Script(refused(500), ok(["train"]))
    with pytest.raises(Exception, match="500"):
        script.run_partly(catalog.splits("Math"))
    assert script.run(catalog.splits("Math"))[0]["name"] == "train"


def test_nothing_above_the_clients_touches_their_inside() -> None:
    package = Path(ors_gym.__file__).parent
    inside = {"_connections", "_server", "hooks", "known", "link", "wire"}
    used = {
        f"{path.relative_to(package)}:{node.lineno}: .{node.attr}"
        for path in package.rglob("*.py")
        if path.relative_to(package).parts[0] not in ("client", "protocol", "server")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Attribute) and node.attr in inside
    }
    assert used == set()
