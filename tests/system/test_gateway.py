"""The platform's gateway, before real servers, and the official client beside ours."""

import asyncio
import hashlib
import json
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import gymnasium as gym
import pytest

import ors_gym
from tests.support.proxy.gateway import DIFFICULTY, KEY, SECRETS_WANTED, Gateway
from tests.support.servers import official_episode
from tests.support.servers.process import RunningServer
from tests.support.servers.venvs import OFFICIAL_CLIENT
from tests.support.virtual_environments import ensure

SUBMIT = {"tool": "submit", "input": {"answer": "6"}}
DEPLOYMENT = "Owner/Name"
SECRET = ("hunter22", ["api.mine.org"])
TOLD = {"value": "hunter22", "allowed_domains": ["api.mine.org"]}


def digest(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()


@pytest.fixture
def gateway(server: RunningServer) -> Iterator[Gateway]:
    """A gateway before a server of each current SDK."""
    with Gateway({DEPLOYMENT: server.base_url}) as gateway:
        yield gateway


def make(gateway: Gateway, env_name: str = DEPLOYMENT, **arguments: Any) -> Any:
    arguments = {"api_key": KEY, **arguments}
    return gym.make(
        "ors/remote", env_name=env_name, base_url=gateway.url, **arguments
    ).unwrapped


def play_officially(gateway: Gateway, **options: Any) -> dict[str, Any]:
    """Play task 3 of `Owner/Name` with the official client, in a child process."""
    job = {"url": gateway.url, "key": KEY, "name": DEPLOYMENT, "secrets": {}, **options}
    done = subprocess.run(
        [ensure(OFFICIAL_CLIENT), "-I", Path(official_episode.__file__)],
        input=json.dumps(job),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    seen: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return seen


def play(gateway: Gateway, name: str = DEPLOYMENT, **options: Any) -> dict[str, Any]:
    """Do with our client what `play_officially` does."""
    with ors_gym.ORSClient(gateway.url, api_key=KEY, share_api_key=True) as client:
        seen: dict[str, Any] = {
            "splits": [split["name"] for split in client.list_splits(name)],
            "num_tasks": client.num_tasks(name, "train"),
            "task": client.get_task(name, "train", 3),
            "tools": [tool["name"] for tool in client.list_tools(name)],
            "required_secrets": client.list_required_secrets(name),
            "difficulty": client.get_task_difficulty(name)[0]["avg_reward"],
        }
        with client.session(name, split="train", index=3, **options) as session:
            seen["prompt"] = session.get_prompt()[0]["text"]
            seen["session_tools"] = [tool["name"] for tool in session.list_tools()]
            result = session.call_tool("submit", {"answer": "6"})
            text = result["blocks"][0]["text"]
            seen["result"] = [text, result["reward"], result["finished"]]
    return seen


@pytest.mark.slow
def test_our_client_sees_what_the_official_one_sees(
    shared_server: Callable[[str], RunningServer],
) -> None:
    # The official client cannot get a task of an ors-sdk server.
    server = shared_server("openreward-0.1.167")
    with Gateway({DEPLOYMENT: server.base_url}) as gateway:
        compare_clients(gateway, server)


def compare_clients(gateway: Gateway, server: RunningServer) -> None:
    options: dict[str, Any] = {"env_overrides": {"OPENAI_BASE_URL": "http://model"}}
    official = play_officially(gateway, secrets={"TOKEN": SECRET}, **options)
    sent = {request.path for request in gateway.requests()}
    server.wait_for("teardown")
    told = gateway.created
    gateway.clear()
    gateway.created = []
    ours = play(gateway, secrets={"TOKEN": SECRET}, **options)
    assert ours == official
    assert ours["result"] == ["right", 1.0, True]
    assert ours["required_secrets"] == SECRETS_WANTED
    # The gateway was told the same of the one session that is played.
    for created in (told, gateway.created):
        played = [one for one in created if one["body"]]
        assert [one["body"] for one in played] == [{"env": options["env_overrides"]}]
        secrets = played[0]["secrets"]
        assert secrets["TOKEN"] == TOLD
        assert secrets["api_key"]["value"] == KEY
        assert secrets["OPENREWARD_API_KEY"]["value"] == KEY
        assert "127.0.0.1" in secrets["api_key"]["allowed_domains"]
    # The official client asks bare paths, which the server redirects.
    named = {path for path in sent if path.startswith("/contract/")}
    # Ours asks for the prompt as a conversation.
    named.discard("/contract/prompt")
    assert named <= {request.path for request in gateway.requests()}
    server.wait_for("teardown", 2)
    gateway.await_that(lambda: not gateway.sessions, "a session id was not handed back")


def test_every_request_is_routed(gateway: Gateway, server: RunningServer) -> None:
    env = make(gateway, secrets={"TOKEN": SECRET})
    assert env.reset(seed=3)[0] == "3 + 3 = ?"
    assert env.environment == "Owner/Name/contract"
    assert env.step(SUBMIT)[1:3] == (1.0, True)
    env.close()
    server.wait_for("teardown")
    gateway.await_that(lambda: not gateway.sessions, "a session id was not handed back")
    unrouted = [
        request
        for request in gateway.requests()
        if request.path != "/create_session" and not request.session_id
    ]
    # The question that tells a gateway from a server.
    assert [request.path for request in unrouted] == ["/openapi.json"]
    named = {request.header("X-Deployment") for request in gateway.requests()}
    assert named == {DEPLOYMENT}
    assert gateway.secrets_told() == [{"TOKEN": TOLD}]
    (entry,) = server.log("construct")
    assert entry["secrets"] == {"TOKEN": digest("hunter22")}


def test_a_second_episode_asks_nothing_again(
    gateway: Gateway, server: RunningServer
) -> None:
    has_conversations = server.sdk.name.startswith("openreward")
    prompt = "messages" if has_conversations else "prompt"
    env = make(gateway)
    env.reset(seed=1)
    gateway.clear()
    env.reset(seed=2)
    env.step(SUBMIT)
    asked = [request.path for request in gateway.requests()]
    assert [path for path in asked if "delete" not in path] == [
        *("/create_session", "/create", f"/contract/{prompt}", "/contract/task_tools"),
        "/contract/call",
    ]
    env.close()


@pytest.mark.parametrize("name", ["Owner/Name/vast", "Owner/Name/VAST"])
def test_a_variant_is_named_after_the_deployment(gateway: Gateway, name: str) -> None:
    with ors_gym.ORSClient(gateway.url, api_key=KEY) as client:
        assert client.num_tasks(name, "train") == 10**9
        with pytest.raises(ors_gym.UnknownEnvironmentError, match="'contract'"):
            client.num_tasks("Owner/Name/nothing", "train")


@pytest.mark.parametrize("name", ["contract", "Contract"])
def test_the_deployment_may_be_a_header(gateway: Gateway, name: str) -> None:
    env = make(gateway, name, headers={"X-Deployment": DEPLOYMENT})
    assert env.reset(seed=3)[0] == "3 + 3 = ?"
    assert env.environment == "contract"
    env.close()


def test_one_client_plays_several_deployments(
    shared_server: Callable[[str], RunningServer],
) -> None:
    names = {"A/one": "ors-sdk-0.1.0", "B/two": "openreward-0.1.167"}
    servers = {name: shared_server(sdk) for name, sdk in names.items()}
    urls = {name: server.base_url for name, server in servers.items()}
    with (
        Gateway(urls) as gateway,
        ors_gym.ORSClient(gateway.url, api_key=KEY) as client,
    ):
        for name, server in servers.items():
            task: dict[str, Any] = {"split": "train", "index": 3}
            with client.session(name, **task, secrets={"TOKEN": SECRET}) as session:
                session.get_prompt()
                assert session.call_tool("add", {"a": 1, "b": 2})["reward"] == 0.5
            # Each by its own dialect: one in the body, one in the header.
            (entry,) = server.log("construct")
            assert entry["secrets"] == {"TOKEN": digest("hunter22")}
            assert server.runs("add") == 1


def test_an_evaluation_and_a_vector_env(gateway: Gateway) -> None:
    work: Any = (DEPLOYMENT, [3, 4], lambda _: SUBMIT)
    client = ors_gym.ORSClient(gateway.url, api_key=KEY)
    found = ors_gym.evaluate(client, *work, progress=False)
    assert [one["total_reward"] for one in found["results"]] == [1.0, 0.0]
    client.close()
    envs = gym.make_vec(
        "ors/remote",
        num_envs=2,
        env_name=DEPLOYMENT,
        base_url=gateway.url,
        api_key=KEY,
    )
    assert envs.reset(seed=3)[0] == ("3 + 3 = ?", "4 + 4 = ?")
    envs.close()


async def play_with_ids(gateway: Gateway) -> float | None:
    async with ors_gym.AsyncORSClient(gateway.url, api_key=KEY) as client:
        session_id = await client.create_session(DEPLOYMENT)
        await client.create_episode(session_id, DEPLOYMENT, split="train", index=3)
        await client.get_prompt(session_id, DEPLOYMENT)
        given: Any = (session_id, DEPLOYMENT, "submit", SUBMIT["input"])
        result = await client.call_tool(*given)
        assert await client.ping(session_id)
        await client.delete_episode(session_id)
        assert await client.list_required_secrets(DEPLOYMENT) == SECRETS_WANTED
        found = await client.get_task_difficulty(DEPLOYMENT, split="train")
        assert found == [DIFFICULTY]
    return result["reward"]


def test_the_published_methods_take_deployments(gateway: Gateway) -> None:
    assert asyncio.run(play_with_ids(gateway)) == 1.0
    assert not gateway.sessions
    (asked,) = gateway.requests("/task-difficulty")
    assert asked.target.endswith("?split=train")


@pytest.mark.parametrize(
    ("arguments", "error", "text"),
    [
        ({"env_name": "contract"}, ors_gym.ProtocolError, "name the environment Owner"),
        (
            {"env_name": "Owner/Nmae"},
            ors_gym.UnknownEnvironmentError,
            "'Owner/Nmae'.*Deployment not found.*case-sensitive",
        ),
        ({"api_key": "wrong-key"}, ors_gym.AuthenticationError, "401"),
    ],
)
def test_what_a_gateway_does_not_know(
    gateway: Gateway,
    arguments: dict[str, Any],
    error: type[ors_gym.ORSError],
    text: str,
) -> None:
    with pytest.raises(error, match=text):
        make(gateway, **arguments)
    gateway.await_that(lambda: not gateway.sessions, "a session id was not handed back")


def test_a_secret_without_domains_is_refused_before_a_session(gateway: Gateway) -> None:
    env = make(gateway, secrets={"TOKEN": "hunter22"})
    with pytest.raises(
        ors_gym.InvalidRequestError, match=r"'TOKEN'.*api\.example"
    ) as e:
        env.reset()
    assert "hunter22" not in str(e.value)
    env.close()
    assert gateway.secrets_told() == []


def test_well_known_secrets_have_their_domains(gateway: Gateway) -> None:
    env = make(gateway, secrets={"openai_api_key": "sk-hunter22"})
    env.reset(seed=0)
    env.close()
    told = {"value": "sk-hunter22", "allowed_domains": ["api.openai.com"]}
    assert gateway.secrets_told() == [{"openai_api_key": told}]


def test_without_a_gateway_nothing_is_dropped(server: RunningServer) -> None:
    given: dict[str, Any] = {"env_name": "contract", "base_url": server.base_url}
    env = gym.make("ors/remote", **given, env_overrides={"A_KEY": "hunter22"})
    with pytest.raises(ors_gym.InvalidRequestError, match="would ignore them") as e:
        env.reset()
    assert "hunter22" not in str(e.value)
    env.close()
    options = {"share_api_key": True}
    env = gym.make(
        "ors/remote",
        **given,
        api_key=KEY,
        secrets={"TOKEN": SECRET},
        client_options=options,
    )
    env.reset(seed=0)
    env.close()
    secrets = {"TOKEN": "hunter22", "api_key": KEY, "OPENREWARD_API_KEY": KEY}
    (entry,) = server.log("construct")
    assert entry["secrets"] == {name: digest(text) for name, text in secrets.items()}
    elsewhere = pytest.raises(ors_gym.InvalidRequestError, match=r"api\.openreward\.ai")
    with ors_gym.ORSClient(server.base_url) as client, elsewhere:
        client.list_required_secrets(DEPLOYMENT)
