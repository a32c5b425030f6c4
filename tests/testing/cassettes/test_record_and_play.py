"""A server is recorded, and what was recorded is played without it."""

import asyncio
import functools
import json
import ssl
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import gymnasium
import httpx
import pytest
import trustme

from ors_gym import AsyncORSClient, ORSClient, ORSEnv, evaluate
from ors_gym.errors import (
    AmbiguousCallError,
    InvalidRequestError,
    ORSError,
    ServerError,
    SessionLostError,
    ToolFailedError,
    ToolRejectedError,
)
from ors_gym.rollout import run_group
from ors_gym.server import serve
from ors_gym.testing import check_server
from ors_gym.testing._cassettes.player import Player
from ors_gym.testing._cassettes.recorder import Recorder
from tests.support.proxy.faults import Close, Point, Stall
from tests.support.proxy.gateway import KEY, Gateway
from tests.support.proxy.proxy import FaultProxy
from tests.system.test_gateway import play_officially
from tests.testing.cassettes.serving import recording, serve_cassette, serving

CALLS: list[tuple[str, dict[str, Any]]] = [
    ("add", {"a": 1, "b": 2}),
    ("add", {"a": "x"}),  # refused
    ("nothing", {}),  # no such tool
    ("fail", {"message": "one\ntwo"}),
    ("fail_like_resume", {}),
    ("image", {}),
    ("metadata", {}),
    ("many", {"n": 3}),
    *(("speak", {"kind": kind, "size": 9000}) for kind in ("separators", "blanks")),
    *(("speak", {"kind": kind, "size": 9000}) for kind in ("wide", "lines", "quotes")),
    *(("reward", {"kind": kind}) for kind in ("nan", "null", "huge", "tiny", "int")),
    ("count", {}),
    ("count", {}),
    ("submit", {"answer": "0"}),
]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "cassette.jsonl"


class Polyglot(BaseHTTPRequestHandler):
    """Answers with a header in UTF-8 and an empty text, and notes what it was sent."""

    got: ClassVar[list[str]] = []

    def do_GET(self) -> None:
        self.got.append(self.headers["X-Title"])
        text = "X-Title: caf\u00e9 \u65e5\u672c\r\n".encode()
        kind = b"Content-Type: application/json\r\nContent-Length: 13\r\n"
        body = b'{"motto": ""}'
        self.wfile.write(b"HTTP/1.1 200 OK\r\n" + text + kind + b"\r\n" + body)

    def log_message(self, format: str, *arguments: Any) -> None:
        """Say nothing."""


def test_a_header_in_any_encoding_is_passed_on(path):
    with HTTPServer(("127.0.0.1", 0), Polyglot) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            upstream = f"http://127.0.0.1:{server.server_port}"
            with recording(upstream, path) as url:
                headers = {b"X-Title": "\u65e5\u672c".encode()}
                reply = httpx.get(f"{url}/health", headers=headers)
        finally:
            server.shutdown()
            thread.join()
    assert reply.status_code == 200
    [title] = [value for name, value in reply.headers.raw if name == b"x-title"]
    assert title.decode() == "caf\u00e9 \u65e5\u672c"
    assert Polyglot.got[-1].encode("latin-1").decode() == "\u65e5\u672c"
    # Some clients name a session with every request.
    with serve_cassette(path) as url:
        reply = httpx.get(f"{url}/health", headers={"X-Session-ID": "mine"})
    assert reply.json() == {"motto": ""}


def attempt(work: Callable[[], Any]) -> Any:
    try:
        return work()
    except (ToolFailedError, ToolRejectedError) as error:
        return type(error), str(error)


def play_everything(base_url: str, environment: str) -> list[Any]:
    """Return all that a client sees of an episode and of the server."""
    with ORSClient(base_url) as client:
        seen: list[Any] = [
            client.list_environments(),
            client.list_tools(environment),
            client.list_splits(environment),
            client.num_tasks(environment, "train"),
            client.get_task(environment, "train", 1),
            client.list_tasks(environment, "test"),
        ]
        with client.session(environment, split="train", index=0) as session:
            assert client.ping(session.session_id) in (True, False)
            seen += [session.get_prompt(), session.list_tools()]
            for call in CALLS:
                seen.append(attempt(functools.partial(session.call_tool, *call)))
    return seen


def rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()[1:]]


def test_all_that_a_server_says_is_played_as_it_was(server, path):
    with recording(server.base_url, path) as base_url:
        seen = play_everything(base_url, "contract")
    assert seen == play_everything(server.base_url, "contract")
    server.mark()
    # Any number of times, and by several at once.
    with serve_cassette(path) as base_url, ThreadPoolExecutor(4) as pool:
        played = pool.map(lambda _: play_everything(base_url, "contract"), range(4))
        assert list(played) == [seen] * 4
    assert server.log() == []


@pytest.mark.slow
def test_every_dialect_can_be_recorded(any_server, path):
    def play(base_url: str) -> list[Any]:
        with ORSClient(base_url) as client:
            task = client.list_tasks("contract", "train")[2]
            with client.session("contract", task) as session:
                prompt = session.get_prompt()
                return [prompt, session.call_tool("submit", {"answer": "4"})]

    with recording(any_server.base_url, path) as base_url:
        seen = play(base_url)
    any_server.mark()
    with serve_cassette(path) as base_url:
        assert play(base_url) == seen
    assert any_server.log() == []


def test_an_argument_that_was_not_recorded_fails_and_names_the_nearest(server, path):
    def play(base_url: str, *calls: tuple[str, dict[str, Any]], index: int = 0) -> None:
        with ORSEnv("contract", base_url, split="train") as env:
            env.reset(options={"task_index": index})
            for tool, given in calls:
                env.step({"tool": tool, "input": given})

    echo, add = ("echo", {"text": "hello"}), ("add", {"a": 1, "b": 2})
    with recording(server.base_url, path) as base_url:
        play(base_url, echo, add)
        play(base_url, add)
    with serve_cassette(path) as base_url:
        play(base_url, echo, add)
        play(base_url, echo)  # fewer calls
        for calls, said in (
            ([("echo", {"text": "hallo"})], r'text is "hallo", was "hello"'),
            ([echo, ("add", {"a": 1, "b": 2.0})], r"input.b is 2.0, was 2\)"),
            # Each call was recorded, and not in this order.
            ([add, echo], "the recording ends after 1 calls"),
            ([echo, add, add], "the recording ends after 2 calls"),
        ):
            with pytest.raises(InvalidRequestError, match=said) as caught:
                play(base_url, *calls)
            assert f"ors-gym record URL {path}"[:20] in str(caught.value)
        with pytest.raises(ORSError, match=r"index is 1, was 0"):
            play(base_url, index=1)
        with (
            ORSClient(base_url) as client,
            pytest.raises(InvalidRequestError, match=r'split is "validation", was'),
        ):
            client.num_tasks("contract", "validation")


def test_an_evaluation_that_leaves_the_recording_has_no_outcome(server, path):
    arguments: dict[str, Any] = {"split": "train", "progress": False}

    def right(episode):
        return {"tool": "submit", "input": {"answer": str(2 * episode.task_index)}}

    def wrong(episode):
        return {"tool": "submit", "input": {"answer": "?"}}

    with recording(server.base_url, path) as base_url:
        first = evaluate(base_url, "contract", range(6), right, **arguments)
    server.mark()
    with serve_cassette(path) as base_url:
        second = evaluate(base_url, "contract", range(6), right, **arguments)
        third = evaluate(base_url, "contract", range(6), wrong, **arguments)
    assert first.avg_reward == second.avg_reward == 1
    assert [one["success"] for one in third["results"]] == [None] * 6
    assert all("was not recorded" in one["error"] for one in third["results"])
    assert server.log() == []


@pytest.mark.slow
def test_gym_make_and_vector_envs_play_a_cassette(path):
    def play(base_url: str) -> list[Any]:
        env = gymnasium.make("ors/guess", base_url=base_url)
        seen: list[Any] = [env.reset(seed=3)[0]]
        seen += [env.step({"tool": "guess", "input": {"number": 8}})[:4]]
        env.close()
        envs: Any = gymnasium.make_vec("ors/guess", num_envs=4, base_url=base_url)
        seen += [envs.reset(seed=5)[0]]
        action = {"tool": "guess", "input": {"number": 4}}
        seen += [part.tolist() for part in envs.step([action] * 4)[1:4]]
        envs.close()
        return [str(one) for one in seen]

    with serve() as server_url, recording(server_url, path) as base_url:
        seen = play(base_url)
    with serve_cassette(path) as base_url:
        assert play(base_url) == seen
        assert play(base_url) == seen


def test_rollouts_of_one_task_that_differed_are_played_in_turn(newest, path):
    """Groups, messages with roles, terminal tools and the scores of a group."""

    def policy_of(number: int) -> Callable[[Any], Any]:
        async def policy(episode: Any) -> str:
            return f"answer {number}"

        return policy

    def group(base_url: str) -> list[Any]:
        numbers = iter(range(3))
        episodes = asyncio.run(
            run_group(
                *(base_url, "Conversation", 0),
                policy_factory=lambda: policy_of(next(numbers)),
                n=3,
                score_group=True,
                on_plain_text="submit",
            )
        )
        return [(e.messages(), e.total_reward, e.group_score) for e in episodes]

    with recording(newest.base_url, path) as base_url:
        seen = group(base_url)
    newest.mark()
    with serve_cassette(path) as base_url:
        assert group(base_url) == seen
        assert group(base_url) == seen
    assert newest.log() == []


def test_a_set_up_that_fails_fails_again(server, path):
    def play(base_url: str) -> str:
        with (
            ORSClient(base_url) as client,
            pytest.raises(ORSError) as caught,
            client.session("brokensetup", split="train", index=0) as session,
        ):
            session.get_prompt()
        return str(caught.value).replace(base_url, "")

    with recording(server.base_url, path) as base_url:
        said = play(base_url)
    with serve_cassette(path) as base_url:
        assert play(base_url) == said
    assert "database is locked" in said


def test_a_stream_reaches_the_client_as_it_comes(fault_proxy, path):
    fault_proxy.plan(faults=[Stall(Point.AFTER_TASK_ID)])
    with recording(fault_proxy.url, path) as base_url:
        session_id = _create(base_url)
        headers = {"X-Session-ID": session_id}
        body = {"name": "add", "input": {"a": 1, "b": 2}}
        url = f"{base_url}/contract/call"
        with httpx.stream("POST", url, json=body, headers=headers) as response:
            lines = response.iter_lines()
            assert next(lines) == "event: task_id"
            # The rest is still held back.
            fault_proxy.release()
            assert "event: end" in list(lines)


def _create(base_url: str) -> str:
    reply = httpx.post(f"{base_url}/create_session")
    session_id = reply.text.split("data: ")[1].split()[0]
    httpx.post(
        f"{base_url}/create",
        json={"env_name": "contract", "split": "train", "index": 0},
        headers={"X-Session-ID": session_id},
    ).raise_for_status()
    return session_id


def test_a_call_that_was_resumed_is_one_call(fault_proxy, path):
    """The server's stream breaks twice; the result comes at the third time."""
    fault_proxy.plan(faults=[Close(Point.AFTER_TASK_ID), Close(Point.BEFORE_END)])

    def play(base_url: str) -> Any:
        session = ORSClient(base_url).session("contract", split="train", index=0)
        with session:
            session.get_prompt()
            return session.call_tool("count", {})

    with recording(fault_proxy.url, path) as base_url:
        seen = play(base_url)
    assert len(fault_proxy.requests("/call")) == 3
    assert [row["body"] for row in rows(path) if row["path"] == "/contract/call"] == [
        {"name": "count", "input": {}}
    ]
    with serve_cassette(path) as base_url:
        assert play(base_url) == seen


def test_the_result_of_a_call_is_kept_though_its_client_has_gone(server, path):
    with recording(server.base_url, path) as base_url:
        headers = {"X-Session-ID": _create(base_url)}
        body = {"name": "slow", "input": {"seconds": 0.2}}
        url = f"{base_url}/contract/call"
        with httpx.stream("POST", url, json=body, headers=headers) as response:
            assert next(response.iter_lines()) == "event: task_id"
        server.wait_for("done", tool="slow")
        # Requests of a session are recorded in their order: this one comes later.
        httpx.get(f"{base_url}/health")
        prompt = httpx.get(f"{base_url}/contract/prompt", headers=headers)
        assert prompt.status_code == 200
    (call,) = (row for row in rows(path) if row["path"] == "/contract/call")
    assert call["events"][-1]["end"]["output"]["reward"] == 0.25


def test_what_is_cut_in_the_middle_is_not_recording(fault_proxy, path):
    fault_proxy.plan(faults=[Close(Point.BEFORE_REPLY)])
    with (
        recording(fault_proxy.url, path) as base_url,
        ORSClient(base_url) as client,
        client.session("contract", split="train", index=0) as session,
    ):
        session.get_prompt()
        with pytest.raises(AmbiguousCallError):
            session.call_tool("count", {})
    assert not [row for row in rows(path) if row["path"] == "/contract/call"]


def test_a_played_call_can_be_resumed_and_a_deleted_session_is_lost(server, path):
    with (
        recording(server.base_url, path) as base_url,
        ORSClient(base_url).session("contract", split="train", index=0) as session,
    ):
        session.get_prompt()
        session.call_tool("count", {})
    with serve_cassette(path) as base_url, FaultProxy(base_url) as proxy:
        proxy.plan(faults=[Close(Point.AFTER_TASK_ID)])
        with ORSClient(proxy.url) as client:
            session = client.session("contract", split="train", index=0)
            with session:
                session.get_prompt()
                assert session.call_tool("count", {})["reward"] == 1.0
                session_id = session.session_id
            assert not client.ping(session_id)
            with pytest.raises(SessionLostError):
                client.call_tool(session_id, "contract", "count", {})
        assert [b"task_id" in r.body for r in proxy.requests("/call")][:2] == [
            False,
            True,
        ]


def test_a_gateway_can_be_recorded(shared_server, path):
    servers = [shared_server("openreward-0.1.167"), shared_server("ors-sdk-0.1.0")]
    names = ("Somebody/One", "Somebody/Two")

    def play(base_url: str) -> list[Any]:
        seen = []
        with ORSClient(base_url, api_key=KEY) as client:
            for name in names:
                with client.session(
                    f"{name}/contract", split="train", index=3
                ) as session:
                    seen += [session.get_prompt(), session.call_tool("count", {})]
        return seen

    urls = {name: one.base_url for name, one in zip(names, servers, strict=True)}
    with Gateway(urls) as gateway, recording(gateway.url, path) as base_url:
        seen = play(base_url)
    assert KEY not in path.read_text()
    with serve_cassette(path) as base_url:
        assert play(base_url) == seen


async def _many(base_url: str, count: int) -> list[Any]:
    async with AsyncORSClient(base_url) as client:

        async def one(index: int) -> Any:
            async with client.session(
                "contract", split="train", index=index
            ) as session:
                await session.get_prompt()
                text = f"episode {index}"
                results = [
                    await session.call_tool("echo", {"text": text}),
                    await session.call_tool("count", {}),
                ]
                return [result["blocks"][0]["text"] for result in results]

        return await asyncio.gather(*(one(index % 12) for index in range(count)))


@pytest.mark.slow
def test_many_sessions_are_recorded_and_played_at_once(server, path):
    expected = [[f"episode {index % 12}", "1"] for index in range(24)]
    with recording(server.base_url, path) as base_url:
        assert asyncio.run(_many(base_url, 24)) == expected
    with serve_cassette(path) as base_url:
        assert asyncio.run(_many(base_url, 48)) == expected * 2
    sessions = [row["session"] for row in rows(path) if row["path"] == "/create"]
    assert sorted(sessions) == list(range(1, 25))


@pytest.mark.slow
def test_the_official_client_plays_a_cassette(newest, path):
    def play(url: str) -> dict[str, Any]:
        there: Any = SimpleNamespace(url=url)
        return play_officially(there, **options)

    options: dict[str, Any] = {"secrets": {"TOKEN": ("hunter22", ["api.mine.org"])}}
    with (
        Gateway({"Owner/Name": newest.base_url}) as gateway,
        recording(gateway.url, path) as url,
    ):
        seen = play(url)
    assert "hunter22" not in path.read_text()
    newest.mark()
    with serve_cassette(path) as url:
        assert play(url) == seen
    assert newest.log() == []


@pytest.mark.slow
def test_the_contract_check_finds_of_a_cassette_what_it_found_of_its_server(
    server, path
):
    calls: Any = [
        {"tool": "slow", "input": {"seconds": 0.5}},
        {"tool": "submit", "input": {"answer": "0"}},
    ]
    with recording(server.base_url, path) as url:
        before = check_server(url, "contract", calls=calls)
    with serve_cassette(path) as url:
        now = check_server(url, "contract", calls=calls)
    differ = {
        one.name
        for one, other in zip(before.findings, now.findings, strict=True)
        if one.status != other.status
    }
    # The replies come at once, so no call is slow enough for it.
    assert differ == {"pings during a call"}


def test_a_server_behind_tls_can_be_recorded(contract, path, tmp_path):
    authority = trustme.CA()
    trusting, presenting = ssl.create_default_context(), tmp_path / "certificate.pem"
    authority.configure_trust(trusting)
    authority.issue_cert("127.0.0.1").private_key_and_cert_chain_pem.write_to_path(
        presenting
    )

    def play(base_url: str) -> Any:
        session = ORSClient(base_url).session("contract", split="train", index=0)
        with session:
            return session.get_prompt(), session.call_tool("count", {})

    plain = path.with_name("plain.jsonl")
    with recording(contract.base_url, plain) as url:
        seen = play(url)
    # The server behind TLS is itself a player, which a recorder records.
    with serving(Player(str(plain)), certificate=str(presenting)) as secure:
        recorder = Recorder(secure, str(path), ssl_context=trusting)
        with serving(recorder) as url:
            assert play(url) == seen
        with (
            serving(Recorder(secure, str(tmp_path / "none"))) as url,
            pytest.raises(ServerError, match="certificate"),
        ):
            ORSClient(url, timeout=1.0).list_environments()
    with serve_cassette(path) as url:
        assert play(url) == seen
