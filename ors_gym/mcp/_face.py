"""One episode as an MCP server: its tools, its prompt, and calls that run once.

It knows nothing of connections. Whatever reaches it, over however many of them, plays
the same episode.
"""

from __future__ import annotations

import asyncio
import dataclasses
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from importlib import metadata
from typing import Any, Final, Protocol, TypeAlias

import mcp_types as types
from mcp.server.context import CallNext, HandlerResult, ServerRequestContext
from mcp.server.lowlevel import NotificationOptions, Server
from mcp.server.models import InitializationOptions
from mcp.server.subscriptions import InMemorySubscriptionBus, ListenHandler
from mcp.shared.exceptions import MCPError
from mcp.shared.subscriptions import ToolsListChanged

from ors_gym.errors import ORSError
from ors_gym.formats import render_text, to_mcp_content, to_mcp_tools
from ors_gym.rollout import Episode, Step
from ors_gym.types import Block, JSONObject

PROMPT: Final = "task"
"""The name of the MCP prompt."""
RESOURCE: Final = "ors://prompt"
"""The address of the MCP resource that is the prompt."""
_DESCRIPTION: Final = "What is to be done."
_PATIENCE: Final = 20.0
"""Seconds for which a client that connects or lists waits for the set-up. Clients give
a request 30 seconds or more."""
_PROGRESS_EVERY: Final = 5.0
"""Seconds between two notifications of progress."""
_RESULTS_KEPT: Final = 32
"""The latest results that a client which lost one gets again."""

Context: TypeAlias = ServerRequestContext[Any, Any]
_Key: TypeAlias = tuple[str, str | int]


class Played(Protocol):
    """What a face shows: a `LiveEpisode`, or what plays one in its place."""

    episode: Episode

    @property
    def ended(self) -> bool:
        """Whether no further turn is taken."""

    async def step(self, answer: Any) -> Sequence[Step]:
        """Play one turn, and return what came of it."""


class Face:
    """Shows one episode to agents.

    ``starting`` ends when the episode is set up, or raises an `ORSError`; None if it
    is set up already.
    """

    def __init__(
        self, live: Played, starting: asyncio.Future[Any] | None = None
    ) -> None:
        self.live = live
        self.ended = asyncio.Event()
        """Set when the episode has ended, or could not be set up."""
        self._starting = starting
        self._calls: OrderedDict[_Key, _Call] = OrderedDict()
        self._told_early: list[Context] = []
        """Who was told of the tools before the set-up was done."""
        self._bus = InMemorySubscriptionBus()
        self.server = self._make_server()
        if starting is None:
            self._note_started()
        else:
            self._announcing = asyncio.ensure_future(self._announce(starting))

    def _make_server(self) -> _Server:
        server = _Server(
            "ors_gym",
            version=metadata.version("ors-gym"),
            get_tool_input_schema=self._find_schema,
            on_subscriptions_listen=ListenHandler(self._bus),
        )
        server.middleware.append(self._wait_before_greeting)
        add = server.add_request_handler
        add("tools/list", types.PaginatedRequestParams, self._list_tools)
        add("tools/call", types.CallToolRequestParams, self._call_tool)
        add("prompts/list", types.PaginatedRequestParams, self._list_prompts)
        add("prompts/get", types.GetPromptRequestParams, self._get_prompt)
        add("resources/list", types.PaginatedRequestParams, self._list_resources)
        add("resources/read", types.ReadResourceRequestParams, self._read_resource)
        return server

    async def close(self) -> None:
        """Give up the calls that are under way."""
        tasks: list[asyncio.Task[Any]] = [
            call.task for call in self._calls.values() if not call.task.done()
        ]
        if self._starting is not None:
            tasks += [self._announcing]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
        self.ended.set()

    # The set-up

    async def _announce(self, starting: asyncio.Future[Any]) -> None:
        """Tell who was told of no tools, once the session's own are known."""
        await asyncio.wait([starting])
        self._note_started()
        for context in self._told_early:
            await context.session.send_tool_list_changed()
        self._told_early.clear()
        await self._bus.publish(ToolsListChanged())

    def _note_started(self) -> None:
        self.server.instructions = render_text(self.live.episode.prompt) or None
        if self.live.ended:
            self.ended.set()

    async def _wait_for_start(self, patience: float | None = None) -> bool:
        """Say whether the episode is set up; raise if it cannot be."""
        starting = self._starting
        if starting is None:
            return True
        await asyncio.wait([starting], timeout=patience)
        if not starting.done():
            return False
        error = (
            asyncio.CancelledError() if starting.cancelled() else starting.exception()
        )
        if error is not None:
            raise MCPError(
                types.INTERNAL_ERROR, f"the episode cannot be set up: {error}"
            )
        self._note_started()
        return True

    async def _wait_before_greeting(
        self, ctx: Context, call_next: CallNext
    ) -> HandlerResult:
        """Have the prompt before a client is given the server's instructions."""
        if ctx.method in ("initialize", "server/discover"):
            await self._wait_for_start(_PATIENCE)
        return await call_next(ctx)

    # What the agent reads

    async def _list_tools(self, context: Context, _: object) -> HandlerResult:
        if not await self._wait_for_start(_PATIENCE):
            self._told_early.append(context)
        tools = to_mcp_tools(self.live.episode.tools)
        return types.ListToolsResult.model_validate({"tools": tools})

    def _find_schema(self, name: str) -> JSONObject | None:
        tools = self.live.episode.tools
        return next((one["input_schema"] for one in tools if one["name"] == name), None)

    async def _list_prompts(self, _: Context, __: object) -> HandlerResult:
        return types.ListPromptsResult(
            prompts=[types.Prompt(name=PROMPT, description=_DESCRIPTION)]
        )

    async def _get_prompt(
        self, _: Context, params: types.GetPromptRequestParams
    ) -> HandlerResult:
        if params.name != PROMPT:
            raise MCPError(
                types.INVALID_PARAMS,
                f"the only prompt is {PROMPT!r}, not {params.name!r}",
            )
        await self._wait_for_start()
        episode = self.live.episode
        said = episode.conversation or [{"role": "user", "blocks": episode.prompt}]
        messages = [
            # MCP knows no other roles.
            {
                "role": "assistant" if one["role"] == "assistant" else "user",
                "content": c,
            }
            for one in said
            for c in to_mcp_content(one["blocks"])
        ]
        return types.GetPromptResult.model_validate({"messages": messages})

    async def _list_resources(self, _: Context, __: object) -> HandlerResult:
        listed = types.Resource(uri=RESOURCE, name=PROMPT, description=_DESCRIPTION)
        return types.ListResourcesResult(resources=[listed])

    async def _read_resource(
        self, _: Context, params: types.ReadResourceRequestParams
    ) -> HandlerResult:
        if str(params.uri) != RESOURCE:
            raise MCPError(
                types.INVALID_PARAMS,
                f"the only resource is {RESOURCE}, not {params.uri}",
            )
        await self._wait_for_start()
        contents = [
            {"uri": RESOURCE, "mimeType": "text/plain", "text": part["text"]}
            if part["type"] == "text"
            else {"uri": RESOURCE, "mimeType": part["mimeType"], "blob": part["data"]}
            for part in to_mcp_content(self.live.episode.prompt)
        ]
        return types.ReadResourceResult.model_validate({"contents": contents})

    # What the agent does

    async def _call_tool(
        self, context: Context, params: types.CallToolRequestParams
    ) -> HandlerResult:
        """Answer a call, which a client may have sent before."""
        call = self._find_call(context, params)
        call.waiting += 1
        try:
            return await _wait_with_progress(context, call.task, params.name)
        except asyncio.CancelledError:
            if call.waiting == 1:
                call.task.cancel()
            raise
        finally:
            call.waiting -= 1

    def _find_call(
        self, context: Context, params: types.CallToolRequestParams
    ) -> _Call:
        """Find the call that a request is the repetition of, or begin one.

        Within a session a client uses the id of a request once (MCP, "Requests").
        """
        key = _identify(context)
        asked = (params.name, params.arguments or {})
        known = self._calls.get(key)
        if known is not None and known.asked == asked:
            return known
        task = asyncio.ensure_future(self._run(*asked))
        call = self._calls[key] = _Call(asked, task)
        self._calls.move_to_end(key)
        while (
            len(self._calls) > _RESULTS_KEPT
            and next(iter(self._calls.values())).task.done()
        ):
            self._calls.popitem(last=False)
        return call

    async def _run(self, name: str, arguments: JSONObject) -> types.CallToolResult:
        """Run a tool, and return what the agent reads of it: never the reward."""
        live = self.live
        try:
            await self._wait_for_start()
            if live.ended:
                return _refuse(_describe_end(live.episode))
            steps = await live.step({"tool": name, "input": arguments})
        except ORSError as error:
            text = (
                f"{error} {_describe_end(live.episode)}" if live.ended else str(error)
            )
            return _refuse(text)
        finally:
            if live.ended:
                self.ended.set()
        if not steps:
            return _refuse(_describe_end(live.episode))
        step = steps[-1]
        is_error = step.error_kind not in ("", "broken_image")
        return _result(step.reply, is_error=is_error)


@dataclasses.dataclass(slots=True)
class _Call:
    """A call of a tool, and who waits for it."""

    asked: tuple[str, JSONObject]
    task: asyncio.Task[types.CallToolResult]
    waiting: int = 0


class _Server(Server[Any]):
    """A server that tells of changes to its tools, over HTTP as well."""

    def create_initialization_options(
        self,
        notification_options: NotificationOptions | None = None,
        experimental_capabilities: dict[str, dict[str, Any]] | None = None,
        extensions: dict[str, dict[str, Any]] | None = None,
    ) -> InitializationOptions:
        """Announce that the list of tools may change."""
        return super().create_initialization_options(
            notification_options or NotificationOptions(tools_changed=True),
            experimental_capabilities,
            extensions,
        )


def _identify(context: Context) -> _Key:
    """Return what a client repeats when it repeats a request: its session and the id.

    From 2026-07-28 on there is no session over HTTP, and a request repeats the latest
    one where all of it is the same.
    """
    headers = {} if context.request is None else context.request.headers
    return headers.get("mcp-session-id", ""), context.request_id or 0


async def _wait_with_progress(
    context: Context, task: asyncio.Task[types.CallToolResult], name: str
) -> types.CallToolResult:
    """Wait for a call; tell a client that asked for it that the call goes on."""
    began = asyncio.get_running_loop().time()
    while True:
        await asyncio.wait([task], timeout=_PROGRESS_EVERY)
        if task.cancelled():
            return _refuse(f"{name} was cancelled. What came of it is not known.")
        if task.done():
            return task.result()
        seconds = asyncio.get_running_loop().time() - began
        await context.session.report_progress(
            seconds, message=f"{name} has run for {seconds:.0f} s"
        )


def _result(blocks: Iterable[Block], *, is_error: bool) -> types.CallToolResult:
    content = {"content": to_mcp_content(blocks), "isError": is_error}
    return types.CallToolResult.model_validate(content)


def _refuse(text: str) -> types.CallToolResult:
    return _result([{"type": "text", "text": text}], is_error=True)


def _describe_end(episode: Episode) -> str:
    return f"The episode is over ({episode.stop_reason}): no further call is run."
