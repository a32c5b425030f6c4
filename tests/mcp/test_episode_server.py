"""What an agent reads and does. A call runs once, whatever is sent again or breaks."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import anyio
import httpx
import pytest
from mcp.shared.exceptions import MCPError
from mcp.shared.subscriptions import ToolsListChanged
from mcp_types import ImageContent, TextContent, ToolListChangedNotification

from ors_gym.formats import render_text
from ors_gym.mcp import EpisodeHost, ServedEpisode, _episode_server, _host, serve_async
from ors_gym.rollout import LiveEpisode, connect
from tests.mcp.agents import Wire, agent_at, call, within_a_minute
from tests.mcp.requests import ACCEPT, begin, call_of, post, read_reply
from tests.support.slow_cases import mostly_slow


@contextlib.asynccontextmanager
async def hosted(server: Any, name: str = "Contract") -> AsyncIterator[ServedEpisode]:
    async with (
        connect(server.base_url) as client,
        EpisodeHost() as host,
        LiveEpisode(client, name, 0) as live,
    ):
        await live.start()
        async with host.serve(live) as served:
            yield served


def has_run(server: Any, tool: str) -> Any:
    return asyncio.to_thread(server.wait_for, "run", tool=tool)


def test_a_request_that_is_sent_again_is_the_same_call(contract):
    async def work() -> None:
        async with hosted(contract) as served, httpx.AsyncClient() as http:
            session = await begin(http, served.url)
            for number in (2, 3, 2, 3, 3):
                reply = await post(http, served.url, session, number, "count")
                assert read_reply(reply)["content"][0]["text"] == str(number - 1)
            other = await post(http, served.url, session, 3, "add", a=1, b=2)
            assert "was used for another call" in read_reply(other)["message"]
            # Another program that plays the same episode counts from 1 as well.
            session = await begin(http, served.url)
            reply = await post(http, served.url, session, 2, "count")
            assert read_reply(reply)["content"][0]["text"] == "3"

    within_a_minute(work())
    assert contract.runs() == 3


def test_a_client_that_disconnects_and_asks_again_gets_the_result(contract):
    async def work() -> None:
        async with hosted(contract) as served, httpx.AsyncClient() as http:
            session = await begin(http, served.url)
            asked = (http, served.url, session, 2, "slow")
            first = asyncio.ensure_future(post(*asked, seconds=0.5))
            await has_run(contract, "slow")
            first.cancel()
            again = read_reply(await post(*asked, seconds=0.5))
            assert again["content"][0]["text"] == "slept"
            assert not served.ended.is_set()

    within_a_minute(work())
    assert contract.runs("slow") == 1


def test_without_a_session_the_same_request_is_the_same_call(contract):
    async def work() -> None:
        async with hosted(contract) as served, httpx.AsyncClient() as http:
            asked = (http, served.url, None, 7, "slow")
            both = (post(*asked, seconds=0.5), post(*asked, seconds=0.5))
            replies = await asyncio.gather(*both)
            late = await post(*asked, seconds=0.5)
            texts = [read_reply(one)["content"][0]["text"] for one in (*replies, late)]
            assert texts == ["slept"] * 3
            assert contract.runs("slow") == 1
            # A program that starts anew asks for more than calls, and counts anew.
            async with agent_at(served.url) as agent:
                await agent.list_tools()
            await post(*asked, seconds=0.5)
            assert contract.runs("slow") == 2

    within_a_minute(work())


def test_who_closes_a_connection_without_a_session_cancels(contract):
    async def work() -> None:
        async with hosted(contract) as served, httpx.AsyncClient() as http:
            asked = (http, served.url, None, 7, "slow")
            first = asyncio.ensure_future(post(*asked, seconds=30))
            await has_run(contract, "slow")
            first.cancel()
            await served.ended.wait()
            again = read_reply(await post(*asked, seconds=30))
            assert again["isError"]
            assert again["content"][0]["text"].startswith("slow was cancelled.")
        assert served.episode.stop_reason == "deadline"

    within_a_minute(work())
    assert contract.runs("slow") == 1
    contract.wait_for("teardown")


def test_a_result_comes_although_its_connection_broke(contract):
    async def work() -> None:
        async with (
            hosted(contract) as served,
            Wire(served.url) as wire,
            agent_at(wire.url, mode="legacy") as agent,
        ):
            # The result itself, but not the event before it, which the client resumes
            # from.
            wire.cut = lambda piece: b"slept" in piece and not wire.cuts
            assert await call(agent, "slow", seconds=0.1) == (False, "slept")
            assert wire.cuts == 1
            assert await call(agent, "count") == (False, "1")

    within_a_minute(work())
    assert contract.runs("slow") == 1


@pytest.mark.parametrize("mode", ["auto", "legacy"])
def test_a_client_whose_connection_breaks_before_the_reply_runs_nothing_twice(
    contract, mode
):
    async def break_off(wire: Wire) -> None:
        async with agent_at(wire.url, mode) as agent:
            await agent.list_tools()
            asked = wire.said.count(b"tools/call")
            wire.cut = lambda _: wire.said.count(b"tools/call") > asked
            await call(agent, "count")

    async def work() -> None:
        async with hosted(contract) as served, Wire(served.url) as wire:
            with pytest.raises(ExceptionGroup):
                await break_off(wire)
            assert wire.cuts
            # What was cut may have been the head of the reply, before the tool ran.
            await has_run(contract, "count")
            assert contract.runs("count") == 1
            async with agent_at(served.url, mode) as agent:
                later = await call(agent, "count")
            # Without a session, who is gone before the result has cancelled the call.
            assert later == (False, "2") or served.ended.is_set()

    within_a_minute(work())


@pytest.mark.parametrize("mode", ["auto", "legacy"])
def test_a_call_that_is_cancelled_ends_the_episode(contract, mode):
    async def work() -> None:
        async with hosted(contract) as served:
            async with agent_at(served.url, mode=mode) as agent:
                await call(agent, "add", a=1, b=2)
                with anyio.move_on_after(30) as scope:
                    async with anyio.create_task_group() as group:
                        group.start_soon(lambda: call(agent, "slow", seconds=30))
                        await has_run(contract, "slow")
                        group.cancel_scope.cancel()
                assert not scope.cancelled_caught
                await served.ended.wait()
                await asyncio.to_thread(contract.wait_for, "teardown")
                is_error, text = await call(agent, "add", a=1, b=2)
                assert is_error
                assert "The episode is over" in text
            assert served.episode.stop_reason == "deadline"
            assert served.episode.total_reward == 0.5

    within_a_minute(work())
    assert contract.runs("slow") == 1


def test_an_old_result_is_not_kept_but_its_call_is_not_run_again(contract, monkeypatch):
    monkeypatch.setattr(_episode_server, "_RESULTS_KEPT", 1)

    async def work() -> None:
        async with hosted(contract) as served, httpx.AsyncClient() as http:
            session = await begin(http, served.url)
            for number in (2, 3, 2):
                reply = await post(http, served.url, session, number, "count")
            result = read_reply(reply)
            assert result["isError"]
            assert "no longer kept" in result["content"][0]["text"]

    within_a_minute(work())
    assert contract.runs("count") == 2


def test_calls_after_the_end_are_not_kept(contract, monkeypatch):
    episode_servers: list[_episode_server.EpisodeServer] = []

    def make(live: Any) -> _episode_server.EpisodeServer:
        episode_servers.append(_episode_server.EpisodeServer(live))
        return episode_servers[-1]

    monkeypatch.setattr(_host, "EpisodeServer", make)

    async def work() -> None:
        async with hosted(contract) as served, httpx.AsyncClient() as http:
            session = await begin(http, served.url)
            last = await post(http, served.url, session, 2, "submit", answer="0")
            for number in range(3, 9):
                reply = await post(http, served.url, session, number, "count")
                assert "The episode is over" in reply.text
            again = await post(http, served.url, session, 2, "submit", answer="0")
            assert read_reply(again) == read_reply(last)
            assert len(episode_servers[0]._calls) == 1

    within_a_minute(work())
    assert contract.runs() == 1


@pytest.mark.parametrize("mode", mostly_slow(["auto", "legacy"]))
def test_a_long_call_tells_that_it_goes_on(contract, monkeypatch, mode):
    monkeypatch.setattr(_episode_server, "_PROGRESS_EVERY", 0.05)
    told: list[tuple[float, str | None]] = []
    twice = asyncio.Event()

    async def note(progress: float, total: float | None, message: str | None) -> None:
        assert total is None
        told.append((progress, message))
        if len(told) > 1:
            twice.set()

    async def work() -> None:
        async with hosted(contract) as served, agent_at(served.url, mode=mode) as agent:
            slow = agent.call_tool("slow", {"seconds": 30.0}, progress_callback=note)
            call = asyncio.create_task(slow)
            await twice.wait()
            call.cancel()
            await asyncio.wait([call])

    within_a_minute(work())
    assert told == sorted(told)
    assert "slow has run for" in (told[0][1] or "")


def test_tools_that_a_slow_set_up_makes_known_are_announced(contract, monkeypatch):
    monkeypatch.setattr(_episode_server, "_PATIENCE", 0.01)
    announced = asyncio.Event()

    async def note(message: Any) -> None:
        if isinstance(message, ToolListChangedNotification):
            announced.set()

    async def work() -> None:
        async with (
            serve_async("SlowSetup", contract.base_url, task=5) as url,
            agent_at(url, mode="legacy", message_handler=note) as agent,
        ):
            assert agent.instructions is None
            tools = agent.server_capabilities.tools
            assert tools is not None
            assert tools.list_changed
            assert (await agent.list_tools()).tools == []
            await announced.wait()
            assert (await agent.list_tools()).tools != []
            assert (await agent.get_prompt("task")).messages

    within_a_minute(work())


def test_they_are_announced_also_without_a_session(contract, monkeypatch):
    monkeypatch.setattr(_episode_server, "_PATIENCE", 0.01)

    async def work() -> None:
        async with (
            serve_async("SlowSetup", contract.base_url, task=5) as url,
            agent_at(f"{url}/anna", mode="2026-07-28") as agent,
            agent.listen(tools_list_changed=True) as changes,
        ):
            assert (await agent.list_tools()).tools == []
            assert isinstance(await anext(aiter(changes)), ToolsListChanged)
            assert (await agent.list_tools()).tools != []

    within_a_minute(work())


def test_a_call_waits_for_the_set_up(contract, monkeypatch):
    monkeypatch.setattr(_episode_server, "_PATIENCE", 0.01)

    async def work() -> None:
        async with (
            serve_async("SlowSetup", contract.base_url, task=5) as url,
            agent_at(url, mode="legacy") as agent,
        ):
            assert not (await call(agent, "submit", answer="0"))[0]

    within_a_minute(work())
    assert contract.runs("submit") == 1


def test_a_set_up_that_fails_is_said_at_once_and_has_a_row(contract, tmp_path):
    output = tmp_path / "run.jsonl"

    async def work() -> None:
        async with (
            serve_async("BrokenSetup", contract.base_url, output=output) as url,
            httpx.AsyncClient(headers=ACCEPT) as http,
        ):
            reply = read_reply(await http.post(url, json=call_of("initialize")))
            assert "the database is locked" in reply["message"]
            with pytest.raises(ExceptionGroup) as raised:
                async with agent_at(f"{url}/anna", mode="legacy"):
                    pass
            assert raised.group_contains(MCPError, match="the database is locked")

    within_a_minute(work())
    assert output.read_text().count('"error_kind":"setup_failed"') == 2 * 2


def test_each_session_has_the_tools_of_its_task(newest):
    async def work() -> None:
        for task, extra in ((0, set()), (1, {"extra"})):
            async with (
                serve_async("TaskTools", newest.base_url, task=task) as url,
                agent_at(url) as agent,
            ):
                listed = {tool.name: tool for tool in (await agent.list_tools()).tools}
                assert {"extra"} & set(listed) == extra
                assert "after_setup" in listed

    within_a_minute(work())


def test_schemas_are_those_of_the_environment(contract):
    async def work() -> None:
        async with hosted(contract) as served:
            specs = {tool["name"]: tool for tool in served.episode.tools}
            for mode in ("auto", "legacy"):
                async with agent_at(served.url, mode=mode) as agent:
                    for tool in (await agent.list_tools()).tools:
                        schema = specs[tool.name]["input_schema"]
                        assert tool.input_schema == (schema or {"type": "object"})
                        assert tool.description == specs[tool.name]["description"]
                        assert tool.output_schema is None

    within_a_minute(work())


def test_a_prompt_of_messages_keeps_who_said_what(newest):
    async def work() -> None:
        async with hosted(newest, "Conversation") as served:
            async with agent_at(served.url) as agent:
                said = (await agent.get_prompt("task")).messages
                assert [one.role for one in said] == ["user", "user"]
                texts = [one.content.text for one in said]  # type: ignore[union-attr]
                assert texts[0] == "Be short."
                assert agent.instructions == render_text(served.episode.prompt)
                [tool] = [
                    tool
                    for tool in (await agent.list_tools()).tools
                    if tool.name == "answer"
                ]
                await agent.call_tool("answer", {"answer": "mine"})
            assert tool.input_schema["required"] == ["answer"]
        assert served.episode.finished

    within_a_minute(work())


def test_there_is_one_prompt_and_one_resource(contract):
    async def work() -> None:
        async with hosted(contract) as served, agent_at(served.url) as agent:
            [prompt] = (await agent.list_prompts()).prompts
            [resource] = (await agent.list_resources()).resources
            [content] = (await agent.read_resource(resource.uri)).contents
            [message] = (await agent.get_prompt(prompt.name)).messages
            text = served.episode.prompt[0]["text"]
            assert content.text == message.content.text == text  # type: ignore[union-attr]
            with pytest.raises(MCPError, match="the only prompt is 'task'"):
                await agent.get_prompt("other")
            with pytest.raises(MCPError, match="the only resource is ors://prompt"):
                await agent.read_resource("ors://other")

    within_a_minute(work())


@pytest.mark.parametrize("mode", mostly_slow(["auto", "legacy"]))
def test_text_and_images_are_content(contract, mode):
    async def work() -> None:
        async with hosted(contract) as served, agent_at(served.url, mode=mode) as agent:
            content = (await agent.call_tool("image", {})).content
            first, picture, last = content
            assert isinstance(picture, ImageContent)
            block = served.episode.steps[0].blocks[1]
            assert (picture.data, picture.mime_type) == (block["data"], "image/png")
            assert isinstance(first, TextContent)
            assert isinstance(last, TextContent)
            assert (first.text, last.text) == ("before", "after")
            many = (await agent.call_tool("many", {"n": 3})).content
            assert len(many) == 3
            for kind in ("separators", "wide", "lines", "empty"):
                given = {"kind": kind, "size": 5000}
                [text] = (await agent.call_tool("speak", given)).content
                assert isinstance(text, TextContent)
                assert text.text == served.episode.steps[-1].blocks[0]["text"]

    within_a_minute(work())


@pytest.mark.parametrize("mode", mostly_slow(["auto", "legacy"]))
def test_what_goes_wrong_is_an_error_for_the_model(contract, mode):
    async def work() -> None:
        async with hosted(contract) as served, agent_at(served.url, mode=mode) as agent:
            for tool, given, words in (
                ("fail", {"message": "it broke"}, "it broke"),
                ("add", {"a": "x"}, "a"),
                ("nonsense", {}, "nonsense"),
            ):
                is_error, text = await call(agent, tool, **given)
                assert is_error
                assert words in text
            assert await call(agent, "add", a=1, b=2) == (False, "3")
            assert [step.error_kind for step in served.episode.steps] == [
                *("tool_failed", "invalid_action", "invalid_action", ""),
            ]

    within_a_minute(work())


def test_a_client_that_asks_for_a_task_gets_the_result_itself(contract):
    """The package serves no tasks; a server without them takes no notice (MCP)."""

    async def work() -> None:
        async with hosted(contract) as served, httpx.AsyncClient() as http:
            session = await begin(http, served.url)
            request = call_of(
                "tools/call", 2, name="count", arguments={}, task={"ttl": 60_000}
            )
            headers = {**ACCEPT, "Mcp-Session-Id": session}
            reply = await http.post(served.url, json=request, headers=headers)
            assert read_reply(reply)["content"][0]["text"] == "1"

    within_a_minute(work())


def test_calls_at_once_are_run_one_after_the_other(contract):
    async def work() -> None:
        async with hosted(contract) as served, agent_at(served.url) as agent:
            results = await asyncio.gather(*(call(agent, "count") for _ in range(8)))
            assert sorted(results) == [(False, str(n)) for n in range(1, 9)]

    within_a_minute(work())
    assert contract.runs("count") == 8
