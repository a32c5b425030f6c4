"""Gymnasium ids for the environments of a server, and what a client sends with them."""

import json
import traceback
from collections.abc import Iterator
from typing import Any

import gymnasium as gym
import pytest

import ors_gym
from ors_gym.registration import BUNDLED_NAMES
from ors_gym.server import BUNDLED, serve
from tests.support.proxy.proxy import FaultProxy
from tests.support.proxy.scripted import ScriptedServer, json_reply
from tests.support.servers.process import RunningServer

OPENAPI: dict[str, Any] = {
    "paths": {"/create": {}, "/{env}/call": {}, "/create_session": {}}
}


@pytest.fixture
def namespace() -> Iterator[str]:
    yield "registered"
    for identifier in [i for i in gym.registry if i.startswith("registered/")]:
        del gym.registry[identifier]


def test_the_bundled_ids_are_there() -> None:
    assert list(BUNDLED_NAMES) == list(BUNDLED)
    for name in (*BUNDLED_NAMES, "remote"):
        spec = gym.spec(f"ors/{name}")
        assert spec.entry_point == "ors_gym.env:ORSEnv"
        assert spec.nondeterministic == (name == "remote")
        assert spec.to_json()


def test_a_servers_environments_get_ids(server: RunningServer, namespace: str) -> None:
    ids = ors_gym.register_envs(server.base_url, namespace=namespace)
    assert f"{namespace}/contract" in ids
    # The blanks and letters that an id cannot hold are replaced; the name is kept.
    hall = next(i for i in ids if "manger" in i)
    assert hall == f"{namespace}/salle_manger"
    env = gym.make(hall)
    assert env.reset(seed=1)[0] == "1 + 1 = ?"
    assert env.unwrapped.environment.startswith("salle \u00e0")  # type: ignore[attr-defined]
    env.close()


def test_registering_again_changes_nothing(server, namespace):
    first = ors_gym.register_envs(server.base_url, namespace=namespace, split="test")
    assert ors_gym.register_envs(f"{server.base_url}/", namespace=namespace) == first


def test_an_id_is_never_bound_to_another_server(server, namespace):
    ors_gym.register_envs(server.base_url, namespace=namespace)
    with (
        FaultProxy(server.base_url) as other,
        pytest.raises(ors_gym.InvalidRequestError) as caught,
    ):
        ors_gym.register_envs(other.url, namespace=namespace)
    assert server.base_url in str(caught.value)
    assert other.url in str(caught.value)
    assert "namespace=" in str(caught.value)


@pytest.mark.slow
def test_a_server_with_a_taken_name_gets_a_namespace_of_its_own() -> None:
    with serve() as base_url:
        port = base_url.rpartition(":")[2]
        ids = ors_gym.register_envs(base_url)
        assert ids == [f"127-0-0-1-{port}/{name}" for name in BUNDLED_NAMES]
        assert ors_gym.register_envs(base_url) == ids
        env = gym.make(ids[0])
        assert env.unwrapped.base_url == base_url  # type: ignore[attr-defined]
        env.reset(seed=0)
        env.close()
        with pytest.raises(ors_gym.InvalidRequestError, match=r"'ors/math'.*bundled"):
            ors_gym.register_envs(base_url, namespace="ors")
    for identifier in ids:
        del gym.registry[identifier]


def test_a_server_with_free_names_is_in_the_namespace_of_all() -> None:
    with ScriptedServer(
        {
            "/openapi.json": lambda _: json_reply(OPENAPI),
            "/list_environments": lambda _: json_reply(["MathEnv"]),
        }
    ) as server:
        ids = ors_gym.register_envs(server.url, headers={"X-Deployment": "a/b"})
        assert ids == ["ors/mathenv"]
        assert server.requests[0].header("X-Deployment") == "a/b"
    del gym.registry["ors/mathenv"]


@pytest.mark.parametrize("make", [gym.make, gym.make_vec])
def test_a_remote_environment_needs_an_address(make, server, monkeypatch) -> None:
    with pytest.raises(ors_gym.InvalidRequestError) as caught:
        make("ors/remote", env_name="math")
    for way in ("base_url=", "ORS_BASE_URL", 'gym.make("ors/math")'):
        assert way in str(caught.value)
    monkeypatch.setenv("ORS_BASE_URL", server.base_url)
    env = make("ors/remote", env_name="contract")
    env.reset(seed=0)
    env.close()


def test_an_id_holds_no_key(server: RunningServer, namespace: str) -> None:
    ors_gym.register_envs(
        server.base_url,
        namespace=namespace,
        api_key="KEY-hunter22",
        headers={"X-Deployment": "a/b", "Authorization": "hunter22"},
    )
    spec = gym.spec(f"{namespace}/contract")
    assert "hunter22" not in spec.to_json()
    assert repr(spec.kwargs["headers"]) == "{'X-Deployment': 'a/b'}"


@pytest.mark.parametrize("namespace", [None, "a/b"])
def test_a_traceback_with_locals_shows_no_key(namespace: str | None) -> None:
    key = "KEY-hunter22"
    arguments: Any = {
        "api_key": key,
        "secrets": {"TOKEN": key},
        "headers": {"Authorization": f"Bearer {key}"},
    }
    with pytest.raises(ors_gym.ORSError) as caught:
        ors_gym.register_envs("http://127.0.0.1:1", namespace, **arguments)
    trace = caught.tb.tb_next
    shown = "".join(
        traceback.TracebackException(
            caught.type, caught.value, trace, capture_locals=True
        ).format()
    )
    assert "in register_envs" in shown and "[redacted]" in shown
    assert key not in shown


def test_a_namespace_that_cannot_be() -> None:
    with pytest.raises(ors_gym.InvalidRequestError, match="namespace"):
        ors_gym.register_envs("http://127.0.0.1:1", namespace="a/b")


def test_headers_and_options_go_where_they_belong(server: RunningServer) -> None:
    with FaultProxy(server.base_url) as proxy:
        env = gym.make(
            "ors/remote",
            env_name="contract",
            base_url=proxy.url,
            headers={"X-Deployment": "team/contract"},
            session_options={"env": {"REGION": "north"}},
        )
        env.reset(seed=0)
        env.step({"tool": "add", "input": {"a": 1, "b": 2}})
        env.close()
        requests = proxy.requests()
        assert len(requests) > 6
        for request in requests:
            headers = {k.lower(): v for k, v in request.headers}
            assert headers["x-deployment"] == "team/contract"
        (opened,) = proxy.requests("/create_session")
        assert json.loads(opened.body) == {"env": {"REGION": "north"}}
        # A field of /create that this server does not know is its to refuse.
        env = gym.make(
            "ors/remote",
            env_name="contract",
            base_url=proxy.url,
            create_options={"colour": "green"},
        )
        with pytest.raises(ors_gym.InvalidRequestError, match="colour"):
            env.reset(seed=0)
        env.close()
        assert json.loads(proxy.requests("/create")[-1].body)["colour"] == "green"
