"""An agent that plays over MCP, before whom the connection to the server breaks."""

import contextlib
from collections.abc import AsyncIterator, Mapping
from typing import Any

from anyio.from_thread import start_blocking_portal
from mcp import Client
from mcp_types import TextContent

from ors_gym.mcp import EpisodeHost
from ors_gym.rollout import LiveEpisode, connect
from tests.support.proxy.proxy import FaultProxy
from tests.system.faults.clients_under_test import RESULT, ClientUnderTest, Shown


class MCPAgent(ClientUnderTest):
    name = "MCP"
    _live: LiveEpisode | None = None
    _agent: Client

    def __init__(self, *given: Any) -> None:
        super().__init__(*given)
        self._stack = contextlib.ExitStack()
        self._portal = self._stack.enter_context(start_blocking_portal())

    @property
    def victim(self) -> str | None:
        return self._live._env.session_id if self._live is not None else None

    @contextlib.asynccontextmanager
    async def _serve(self) -> AsyncIterator[str]:
        options: Any = self.options.for_client
        timeouts: Any = self.options.timeouts
        async with (
            connect(self.url, client_options=options) as client,
            EpisodeHost() as host,
            LiveEpisode(client, "contract", 0, **timeouts) as live,
        ):
            await live.start()
            self._live = live
            async with host.serve(live) as served:
                yield served.url

    def open(self) -> None:
        enter, portal = self._stack.enter_context, self._portal
        url = enter(portal.wrap_async_context_manager(self._serve()))
        self._agent = enter(portal.wrap_async_context_manager(Client(url)))

    def call(self, tool: str, arguments: Mapping[str, Any]) -> Shown:
        assert self._live is not None
        episode = self._live.episode
        before = len(episode.steps)
        result = self._portal.call(self._agent.call_tool, tool, dict(arguments))
        texts = [c.text for c in result.content if isinstance(c, TextContent)]
        text = "\n\n".join(texts)
        if not result.is_error:
            return Shown(RESULT, text, episode.steps[-1].reward)
        if not episode.steps[before:]:
            return Shown("episode_over", text)
        wrong = "" if "The episode is over (error)" in text else "it seems to go on"
        return Shown(episode.steps[-1].error_kind, text, wrong=wrong)

    def after(self, shown: Shown, proxy: FaultProxy) -> str:
        if not self.opened:
            return ""
        sent = len(proxy.requests("/call"))
        again = self.call("count", {})
        if shown.outcome == RESULT:
            return "" if again.outcome == RESULT else f"it does not go on: {again}"
        if again.outcome != "episode_over" or len(proxy.requests("/call")) > sent:
            return f"another call went out after the end: {again}"
        return ""

    def close(self) -> None:
        self._stack.close()
