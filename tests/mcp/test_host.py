"""Live episodes at addresses of their own, played by the official MCP client."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import httpx
import pytest

from ors_gym.mcp import EpisodeHost, ServedEpisode
from ors_gym.rollout import LiveEpisode, connect
from tests.mcp.agents import agent_at, call


def run_hosted(server: Any, script: Callable[..., Awaitable[Any]], n: int = 1) -> Any:
    """Serve the first tasks of Contract, one episode each, and run a script."""

    async def work() -> Any:
        async with connect(server.base_url) as client, EpisodeHost() as host:
            lives = [LiveEpisode(client, "Contract", index) for index in range(n)]
            async with asyncio.timeout(60):
                return await serve_all(host, lives, [])

    async def serve_all(host: Any, lives: Any, served: list[ServedEpisode]) -> Any:
        if len(served) == len(lives):
            return await script(*served)
        async with lives[len(served)] as live:
            await live.start()
            async with host.serve(live) as one:
                return await serve_all(host, lives, [*served, one])

    return asyncio.run(work())


@pytest.mark.parametrize("mode", ["auto", "legacy"])
def test_an_agent_plays_an_episode_at_its_address(contract, mode):
    async def script(served: ServedEpisode) -> None:
        async with agent_at(served.url, mode=mode) as agent:
            listed = (await agent.list_tools()).tools
            assert [tool.name for tool in listed] == [
                tool["name"] for tool in served.episode.tools
            ]
            assert await call(agent, "add", a=1, b=2) == (False, "3")
            assert not served.ended.is_set()
            await call(agent, "submit", answer="0")
            await served.ended.wait()
            is_error, text = await call(agent, "add", a=1, b=2)
            assert is_error
            assert "episode is over (finished)" in text
        assert served.episode.stop_reason == "finished"
        assert served.episode.total_reward == 1.5
        assert contract.runs("add") == 1

    run_hosted(contract, script)
    assert contract.open_sessions() == set()


def test_each_address_is_an_episode_of_its_own(contract):
    async def play(served: ServedEpisode) -> None:
        async with agent_at(served.url) as agent:
            assert await call(agent, "count") == (False, "1")
            assert await call(agent, "count") == (False, "2")

    async def script(*served: ServedEpisode) -> None:
        await asyncio.gather(*map(play, served))
        assert [one.episode.task_index for one in served] == [0, 1, 2, 3]

    run_hosted(contract, script, n=4)
    assert contract.runs("count") == 8


def test_nobody_finds_an_episode_without_its_address(contract):
    async def script(served: ServedEpisode) -> None:
        base = served.url.rpartition("/")[0]
        refused = [
            (base[:-1] + "/mcp", {}, 404),
            (base.rpartition("/")[0] + "/mcp", {}, 404),
            (served.url, {"Host": "rebound.example:80"}, 403),
            (served.url, {"Origin": "http://page.example"}, 403),
        ]
        async with httpx.AsyncClient() as http:
            for url, headers, status in refused:
                reply = await http.post(url, json={}, headers=headers)
                assert reply.status_code == status, url

    run_hosted(contract, script)


def test_an_address_is_gone_with_its_block(contract):
    async def script(served: ServedEpisode) -> str:
        return served.url

    url = run_hosted(contract, script)
    with pytest.raises(httpx.ConnectError):
        httpx.get(url)
