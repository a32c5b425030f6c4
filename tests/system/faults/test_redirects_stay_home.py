"""Nothing of ours reaches another origin, whatever a server answers."""

import asyncio
import contextlib
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

import ors_gym
from ors_gym.vector import ORSVectorEnv
from tests.support.proxy.http1 import ReceivedRequest
from tests.support.proxy.scripted import (
    Handler,
    OtherOrigin,
    RawReply,
    json_reply,
    status_reply,
)
from tests.system.faults.scripted_ors import scripted_ors, scripted_session

ENDPOINTS = (
    *("openapi.json", "list_environments", "tools", "splits", "num_tasks"),
    *("create_session", "create", "prompt", "task_tools", "call", "delete"),
)
TASK: Any = {"split": "train", "index": 0, "secrets": {"DB": "hunter22"}}
STATUSES = (301, 302, 303, 307, 308)


def elsewhere(url: str, status: int) -> Handler:
    return lambda request: status_reply(status, ("Location", url + request.path))


def play(client: ors_gym.ORSClient) -> None:
    client.list_tools("box")
    client.list_splits("box")
    client.num_tasks("box", "train")
    with client.session("box", **TASK, setup_timeout=2) as session:
        session.get_prompt()
        session.list_tools()
        session.call_tool("go", {"text": "private"})


@contextlib.contextmanager
def luring(endpoint: str, status: int = 307) -> Iterator[str]:
    """Serve an endpoint that sends clients to an origin which nothing may reach."""
    with (
        OtherOrigin() as other,
        scripted_ors(**{endpoint: elsewhere(other.url, status)}) as server,
    ):
        try:
            yield server.url
        except ors_gym.ORSError as error:
            assert "hunter22" not in str(error)
        else:
            # The description is not needed, and the delete is done in the background.
            assert endpoint in ("openapi.json", "delete")
        other.assert_untouched()


@pytest.mark.parametrize("status", STATUSES)
@pytest.mark.parametrize("endpoint", ENDPOINTS)
def test_another_origin_gets_nothing(endpoint: str, status: int) -> None:
    with (
        luring(endpoint, status) as url,
        ors_gym.ORSClient(url, api_key="key-123456") as client,
    ):
        play(client)


@pytest.mark.parametrize("endpoint", ENDPOINTS)
def test_nor_through_a_client_of_httpx_that_would_follow(endpoint: str) -> None:
    with (
        luring(endpoint) as url,
        httpx.Client(follow_redirects=True) as own,
        ors_gym.ORSClient(url, api_key="key-123456", client=own) as client,
    ):
        play(client)


@pytest.mark.parametrize("endpoint", ENDPOINTS)
def test_nor_from_the_async_client(endpoint: str) -> None:
    async def play_async(url: str) -> None:
        async with (
            ors_gym.AsyncORSClient(url, api_key="key-123456") as client,
            client.session("box", **TASK) as session,
        ):
            await client.list_tools("box")
            await client.num_tasks("box", "train")
            await client.list_splits("box")
            await session.get_prompt()
            await session.list_tools()
            await session.call_tool("go", {"text": "private"})

    with luring(endpoint) as url:
        asyncio.run(play_async(url))


def test_nor_from_envs() -> None:
    with OtherOrigin() as other, scripted_ors(call=elsewhere(other.url, 308)) as server:
        action = {"tool": "go", "input": {}}
        env = ors_gym.ORSEnv("box", server.url, on_error="truncate", api_key="k-12345")
        env.reset(seed=0)
        assert env.step(action)[4]["error_kind"] == "ambiguous_call"
        env.close()
        envs = ORSVectorEnv("box", server.url, num_envs=2, api_key="k-12345")
        envs.reset(seed=0)
        assert list(envs.step([action] * 2)[3]) == [True, True]
        envs.close()
        other.assert_untouched()


@pytest.mark.parametrize(
    "location",
    [
        "//127.0.0.1:{port}{path}",
        "http://127.0.0.1:{port}{path}",
        "http://localhost:{port}{path}",
        "http:\\\\127.0.0.1:{port}{path}",
        "http://{host}@127.0.0.1:{port}{path}",
        "http://127.0.0.1:{port}\\@{host}{path}",
        " http://127.0.0.1:{port}{path}",
        "HTTP://127.0.0.1:{port}{path}",
    ],
)
def test_however_the_other_origin_is_written(location: str) -> None:
    with OtherOrigin() as other:
        port = other.url.rpartition(":")[2]

        def answer(request: ReceivedRequest) -> RawReply:
            host = request.header("Host") or ""
            where = location.format(port=port, path=request.path, host=host)
            return status_reply(307, ("Location", where))

        with (
            scripted_session({"api_key": "key-123456"}, prompt=answer) as (_, session),
            pytest.raises(ors_gym.ORSError),
        ):
            session.get_prompt()
        other.assert_untouched()


def test_within_the_origin_it_is_followed_once() -> None:
    hops = {"*/prompt": "/box/first", "*/first": "/box/second"}
    prompt = [{"type": "text", "text": "Go."}]

    def hop(request: ReceivedRequest) -> RawReply:
        target = hops[f"*/{request.path.rpartition('/')[2]}"]
        return status_reply(307, ("Location", target))

    last = json_reply(prompt)
    with scripted_session(prompt=hop, first=lambda _: last) as (server, session):
        assert session.get_prompt() == prompt
        server.handlers = {**server.handlers, "*/first": hop}
        # A session asks for its prompt once.
        with (
            ors_gym.ORSClient(server.url) as client,
            client.session("box", split="train", index=0) as another,
            pytest.raises(ors_gym.ProtocolError, match="redirected"),
        ):
            another.get_prompt()
        assert not [r for r in server.requests if r.path.endswith("second")]


def test_a_call_follows_no_redirect_at_all() -> None:
    def again(_: ReceivedRequest) -> RawReply:
        return status_reply(307, ("Location", "/box/elsewhere"))

    with scripted_session(call=again) as (server, session):
        with pytest.raises(ors_gym.AmbiguousCallError, match="redirected"):
            session.call_tool("go", {})
        assert not [r for r in server.requests if r.path.endswith("elsewhere")]


def test_a_closed_client_of_httpx_is_an_error_of_ours() -> None:
    with scripted_ors() as server:
        own = httpx.Client()
        client = ors_gym.ORSClient(server.url, client=own)
        session = client.session("box", split="train", index=0).open()
        session.get_prompt()
        own.close()
        with pytest.raises(ors_gym.InvalidRequestError, match="was closed"):
            session.call_tool("go", {})
