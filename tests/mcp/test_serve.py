"""Environments for agents over HTTP: sessions, tasks, rows, and who may play."""

import asyncio
import gc
import json
import weakref
from pathlib import Path
from typing import Any

import httpx
import pytest
from mcp.shared.exceptions import MCPError

import ors_gym.server
from ors_gym.errors import InvalidRequestError, UnknownTaskError
from ors_gym.evaluation import evaluate
from ors_gym.mcp import _serve, serve, serve_async, serve_stdio
from ors_gym.mcp._episode_server import STOP_REASON, EpisodeServer
from ors_gym.rollout import LiveEpisode
from tests.mcp.agents import Wire, agent_at, call, within_a_minute
from tests.mcp.requests import ACCEPT, begin, call_of, post
from tests.mcp.secretive import ANSWER, REWARD
from tests.rollout.contract_episodes import ADD, SUBMIT, scripted
from tests.support.proxy.faults import Answer
from tests.support.proxy.proxy import FaultProxy


def rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()[1:]]


async def play(address: str, *, mode: str = "legacy") -> None:
    async with agent_at(address, mode=mode) as agent:
        assert await call(agent, "add", a=1, b=2) == (False, "3")
        await call(agent, "submit", answer="0")


def test_the_row_is_that_of_an_evaluation(contract, tmp_path):
    played, evaluated = tmp_path / "played.jsonl", tmp_path / "evaluated.jsonl"
    with serve("Contract", contract.base_url, task=0, output=played) as address:
        asyncio.run(play(address))
    evaluate(
        contract.base_url,
        "Contract",
        [0],
        scripted(ADD, SUBMIT),
        output=evaluated,
        policy_name="mcp",
        progress=False,
    )

    def strip(value: Any) -> Any:
        """Take out the times and the agent's name, but not that they are there."""
        if isinstance(value, dict):
            differ = {"seconds", "setup_seconds", "created", "extra"}
            return {k: None if k in differ else strip(v) for k, v in value.items()}
        return [strip(one) for one in value] if isinstance(value, list) else value

    both = [
        [strip(json.loads(line)) for line in path.read_text().splitlines()]
        for path in (played, evaluated)
    ]
    # How many agents will come is not known.
    assert both[1][0].pop("planned") == 1
    assert both[0] == both[1]
    assert both[0][1]["total_reward"] == 1.5
    assert rows(played)[0]["trajectory"]["extra"]["agent"].startswith("mcp ")


def test_a_row_that_cannot_be_written_is_warned_of(contract, tmp_path, monkeypatch):
    output = tmp_path / "run.jsonl"

    def fail(self: object, record: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("ors_gym.rollout._output.Output.append", fail)
    with (
        pytest.warns(UserWarning, match=r"run\.jsonl cannot be written: No space left"),
        serve("Contract", contract.base_url, task=0, output=output) as address,
    ):
        asyncio.run(play(address))
    assert rows(output) == []


def test_a_file_that_another_run_took_is_warned_of(contract, tmp_path, monkeypatch):
    """The agent has its answer, although its row can go nowhere."""
    output = tmp_path / "run.jsonl"
    answers = []

    async def play_over_streams(episode_server: EpisodeServer) -> None:
        output.write_text("no rows\n")
        answers.append(await episode_server._run("submit", {"answer": "0"}))

    monkeypatch.setattr(_serve, "_serve_streams", play_over_streams)
    with pytest.warns(UserWarning, match=r"row of an episode of task 0 is lost: .*run"):
        within_a_minute(serve_stdio("Contract", contract.base_url, output=output))
    [answer] = answers
    assert not answer.is_error
    assert output.read_text() == "no rows\n"


def test_a_success_function_that_raises_is_warned_of(contract, tmp_path):
    output = tmp_path / "run.jsonl"

    def judge(episode: object) -> bool:
        raise LookupError("no such answer")

    async def work() -> None:
        async with (
            serve_async(
                "Contract", contract.base_url, output=output, success=judge
            ) as url,
            agent_at(url, "legacy") as agent,
        ):
            result = await agent.call_tool("submit", {"answer": "0"})
            assert not result.is_error
            assert result.meta == {STOP_REASON: "finished"}

    with pytest.warns(UserWarning, match="raised LookupError: no such answer"):
        within_a_minute(work())
    [row] = rows(output)
    assert (row["success"], row["error_kind"]) == (None, "success")
    assert row["steps"] == 1


def test_a_request_that_is_cut_prints_no_traceback(contract, caplog):
    async def work() -> None:
        async with (
            serve_async("Contract", contract.base_url) as url,
            httpx.AsyncClient() as http,
        ):
            address = httpx.URL(url)
            for path in ("/mcp", "/mcp/anna"):
                _, writer = await asyncio.open_connection(address.host, address.port)
                head = [
                    f"POST {path} HTTP/1.1",
                    f"Host: {address.netloc.decode()}",
                    "Accept: application/json, text/event-stream",
                    "Content-Type: application/json",
                    "Content-Length: 100",
                ]
                writer.write("\r\n".join([*head, "", '{"json']).encode())
                await writer.drain()
                await begin(http, url)
                writer.close()
                await begin(http, url)

    within_a_minute(work())
    assert not caplog.records


def test_each_agent_plays_a_task_of_its_own(contract, tmp_path):
    output = tmp_path / "run.jsonl"

    async def work() -> None:
        async with serve_async("Contract", contract.base_url, output=output) as url:
            await asyncio.gather(*(play(url) for _ in range(4)))

    within_a_minute(work())
    assert sorted(row["task_index"] for row in rows(output)) == [0, 1, 2, 3]
    assert contract.runs("add") == 4
    assert contract.open_sessions() == set()
    # Whoever goes on later plays what has no row yet.
    with serve("Contract", contract.base_url, output=output) as address:
        asyncio.run(play(address))
    assert rows(output)[-1]["task_index"] == 4


def test_a_task_that_an_outage_ended_is_played_again(contract, tmp_path):
    output = tmp_path / "run.jsonl"
    with FaultProxy(contract.base_url) as proxy:
        proxy.plan("/call", [Answer(502)], "forever")
        with serve("Contract", proxy.url, output=output) as address:

            async def fail() -> None:
                async with agent_at(address, "legacy") as agent:
                    is_error, text = await call(agent, "add", a=1, b=2)
                    assert is_error
                    assert "The episode is over (error)" in text

            asyncio.run(fail())
    with serve("Contract", contract.base_url, output=output) as address:
        asyncio.run(play(address))
    ended = [
        (row["task_index"], row["episode"], row["error_kind"]) for row in rows(output)
    ]
    assert ended == [(0, 0, "ambiguous_call"), (0, 1, "")]


def test_agents_of_one_task_have_rows_of_their_own(contract, tmp_path):
    output = tmp_path / "run.jsonl"
    for _ in range(2):
        with serve("Contract", contract.base_url, task=2, output=output) as address:
            asyncio.run(play(address))
            asyncio.run(play(address))
    listed = [(row["task_index"], row["episode"]) for row in rows(output)]
    assert listed == [(2, 0), (2, 1), (2, 2), (2, 3)]


def test_a_program_that_only_looks_leaves_no_row_and_takes_no_task(contract, tmp_path):
    output = tmp_path / "run.jsonl"

    async def work() -> None:
        async with serve_async("Contract", contract.base_url, output=output) as url:
            async with agent_at(url) as agent:
                await agent.list_tools()
            await play(url)

    within_a_minute(work())
    assert [row["task_index"] for row in rows(output)] == [0]


def test_who_leaves_amid_an_episode_has_a_row_of_it_at_once(contract, tmp_path):
    output = tmp_path / "run.jsonl"

    async def work() -> None:
        async with serve_async("Contract", contract.base_url, output=output) as url:
            async with agent_at(url) as agent:
                await call(agent, "add", a=1, b=2)
                assert rows(output) == []
            [row] = rows(output)
            assert row["stop_reason"] == "policy_stopped"
            assert row["total_reward"] == 0.5
            assert contract.open_sessions() == set()

    within_a_minute(work())


def test_an_address_with_a_name_is_one_episode_for_all_versions(contract, tmp_path):
    output = tmp_path / "run.jsonl"

    async def work() -> None:
        async with serve_async("Contract", contract.base_url, output=output) as url:
            for number, mode in enumerate(("auto", "2026-07-28", "legacy"), 1):
                async with agent_at(f"{url}/anna", mode=mode) as agent:
                    assert await call(agent, "count") == (False, str(number))
            async with agent_at(f"{url}/bertil") as agent:
                assert await call(agent, "count") == (False, "1")

    within_a_minute(work())
    assert [(row["task_index"], row["steps"]) for row in rows(output)] == [
        (0, 3),
        (1, 1),
    ]


def test_a_version_without_sessions_is_told_what_to_do(contract):
    async def work() -> None:
        async with (
            serve_async("Contract", contract.base_url) as url,
            agent_at(url, mode="2026-07-28") as agent,
        ):
            with pytest.raises(MCPError, match="mcp/NAME"):
                await agent.list_tools()

    within_a_minute(work())
    assert contract.log("ready") == []


def test_an_agent_that_asks_for_nothing_has_left(contract, tmp_path):
    output = tmp_path / "run.jsonl"

    async def work() -> None:
        async with (
            serve_async(
                "Contract", contract.base_url, output=output, idle_timeout=0.2
            ) as url,
            httpx.AsyncClient() as http,
        ):
            session = await begin(http, url)
            await post(http, url, session, 2, "add", a=1, b=2)
            await asyncio.to_thread(contract.wait_for, "teardown")
            late = await post(http, url, session, 3, "add", a=1, b=2)
            assert late.status_code == 404

    within_a_minute(work())
    assert contract.open_sessions() == set()
    assert contract.runs("add") == 1


def test_no_more_agents_than_allowed_play_at_once(contract):
    async def work() -> None:
        async with serve_async("Contract", contract.base_url, max_sessions=1) as url:
            async with agent_at(url, mode="legacy"):
                async with httpx.AsyncClient() as http:
                    reply = await http.post(
                        url, json=call_of("initialize"), headers=ACCEPT
                    )
                assert reply.status_code == 503
            await play(url)

    within_a_minute(work())


def test_what_begins_no_session_opens_none(contract):
    async def work() -> None:
        async with (
            serve_async("Contract", contract.base_url, max_sessions=1) as url,
            httpx.AsyncClient(headers=ACCEPT) as http,
        ):
            for _ in range(3):
                assert (await http.post(url, json={})).status_code == 400
                assert (await http.post(url, content=b"{")).status_code == 400
                assert (await http.get(url)).status_code == 405
                assert (await http.get(url[:-4])).status_code == 404
                assert (await post(http, url, "x", 1, "add")).status_code == 404
                assert (await http.get(f"{url}/nobody")).status_code == 405
            await play(url)

    within_a_minute(work())
    assert len(contract.log("ready")) == 1


def test_web_pages_cannot_play(contract):
    async def work() -> None:
        async with (
            serve_async("Contract", contract.base_url) as url,
            httpx.AsyncClient(headers=ACCEPT) as http,
        ):
            for headers in (
                {"Host": "page.example"},
                {"Origin": "http://page.example"},
            ):
                reply = await http.post(
                    url, json=call_of("initialize"), headers=headers
                )
                assert reply.status_code == 403

    within_a_minute(work())
    assert contract.log("ready") == []


def test_a_token_is_needed_where_other_machines_may_ask(contract):
    with (
        pytest.raises(InvalidRequestError, match="token="),
        serve("Contract", contract.base_url, host="0.0.0.0"),
    ):
        pass

    async def work() -> None:
        async with serve_async(
            "Contract", contract.base_url, host="0.0.0.0", token="t-secret"
        ) as url:
            address = url.replace("0.0.0.0", "127.0.0.1")
            async with httpx.AsyncClient(headers=ACCEPT) as http:
                for given in ({}, {"Authorization": "Bearer t-secre"}):
                    reply = await http.post(
                        address, json=call_of("initialize"), headers=given
                    )
                    assert reply.status_code == 401
            async with agent_at(address, token="t-secret") as agent:
                assert await call(agent, "add", a=1, b=2) == (False, "3")

    within_a_minute(work())


def test_mistakes_are_said_before_anybody_plays(contract, tmp_path):
    wrong: list[tuple[dict[str, Any], type[Exception], str]] = [
        ({"task": 1000}, UnknownTaskError, "no task 1000"),
        ({"split": "nowhere"}, UnknownTaskError, "no split"),
        ({"nonsense": 1}, InvalidRequestError, "nonsense"),
        ({"output": tmp_path}, InvalidRequestError, "no file"),
    ]
    for arguments, error, words in wrong:
        with (
            pytest.raises(error, match=words),
            serve("Contract", contract.base_url, **arguments),
        ):
            pass


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["auto", "legacy"])
def test_nothing_that_is_sent_tells_of_the_reward(tmp_path, mode):
    output = tmp_path / "run.jsonl"

    async def work(base_url: str) -> bytes:
        async with (
            serve_async("Secretive", base_url, output=output) as url,
            Wire(f"{url}/anna") as wire,
        ):
            async with agent_at(wire.url, mode=mode) as agent:
                await agent.list_tools()
                await agent.get_prompt("task")
                await agent.read_resource("ors://prompt")
                for tool, given in (
                    ("guess", {"word": "x"}),
                    ("guess", {"word": "fail"}),
                    ("guess", {}),
                    ("nonsense", {}),
                    ("give_up", {}),
                    ("give_up", {}),
                ):
                    await agent.call_tool(tool, given)
            return bytes(wire.said)

    with ors_gym.server.serve("tests.mcp.secretive:Secretive") as base_url:
        said = within_a_minute(work(base_url))
    assert said.count(b"Noted.") == 2
    assert b"The episode is over" in said
    for secret in (b"reward", str(REWARD)[2:].encode(), ANSWER.encode(), b"expected"):
        assert secret not in said.lower()
    [row] = rows(output)
    assert row["total_reward"] == pytest.approx(2 * REWARD)


class SlowEnd:
    """An end of episodes that takes until it is let go on."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.begun, self.go_on = asyncio.Event(), asyncio.Event()
        close = LiveEpisode.close

        async def close_slowly(live: LiveEpisode) -> None:
            self.begun.set()
            await self.go_on.wait()
            await close(live)

        monkeypatch.setattr(LiveEpisode, "close", close_slowly)


def test_who_leaves_while_the_row_is_written_has_it(contract, tmp_path, monkeypatch):
    output = tmp_path / "run.jsonl"

    async def work() -> None:
        end = SlowEnd(monkeypatch)
        async with (
            serve_async("Contract", contract.base_url, output=output) as url,
            httpx.AsyncClient() as http,
        ):
            session = await begin(http, url)
            last = post(http, url, session, 2, "submit", answer="0")
            last_call = asyncio.create_task(last)
            await end.begun.wait()
            headers = {**ACCEPT, "mcp-session-id": session}
            leaving = asyncio.create_task(http.delete(url, headers=headers))
            # It is answered once the agent is taken to have left.
            await last_call
            end.go_on.set()
            await leaving
            [row] = rows(output)
            assert row["stop_reason"] == "finished"

    within_a_minute(work())


def test_a_second_signal_loses_no_row(contract, tmp_path, monkeypatch):
    output = tmp_path / "run.jsonl"
    called = asyncio.Event()

    async def play_over_streams(episode_server: EpisodeServer) -> None:
        await episode_server._run("add", {"a": 1, "b": 2})
        called.set()
        await asyncio.Event().wait()

    monkeypatch.setattr(_serve, "_serve_streams", play_over_streams)

    async def work() -> None:
        end = SlowEnd(monkeypatch)
        serving = asyncio.create_task(
            serve_stdio("Contract", contract.base_url, output=output)
        )
        await called.wait()
        serving.cancel()
        await end.begun.wait()
        serving.cancel()
        await asyncio.sleep(0)
        end.go_on.set()
        await asyncio.wait([serving])
        assert serving.cancelled()

    within_a_minute(work())
    [row] = rows(output)
    assert (row["stop_reason"], row["steps"]) == ("policy_stopped", 1)


def test_nothing_is_kept_of_agents_that_have_left(contract, monkeypatch):
    made: list[weakref.ref[object]] = []
    make = _serve.make_episode_server

    def make_and_note(run: Any) -> EpisodeServer:
        episode_server = make(run)
        made.append(weakref.ref(episode_server))
        return episode_server

    monkeypatch.setattr(_serve, "make_episode_server", make_and_note)

    async def work() -> None:
        async with serve_async("Contract", contract.base_url) as url:
            await play(url)
            for _ in range(100):
                gc.collect()
                if made[0]() is None:
                    return
                await asyncio.sleep(0.02)
            pytest.fail("the episode of an agent that has left is kept")

    within_a_minute(work())
