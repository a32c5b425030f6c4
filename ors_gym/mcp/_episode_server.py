"""One episode as an MCP server: its tools, its prompt, and calls that run once.

It knows nothing of connections. Whatever reaches it, over however many of them, plays
the same episode.
"""

from __future__ import annotations

import asyncio
import dataclasses
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Sequence
from typing import Any, Final, Protocol, TypeAlias

import mcp_types as types
from mcp.server.context import CallNext, HandlerResult, ServerRequestContext
from mcp.server.lowlevel import NotificationOptions, Server
from mcp.server.models import InitializationOptions
from mcp.server.subscriptions import InMemorySubscriptionBus, ListenHandler
from mcp.shared.exceptions import MCPError
from mcp.shared.subscriptions import ToolsListChanged

from ors_gym.client._settings import find_version
from ors_gym.errors import ORSError
from ors_gym.formats import render_text, to_mcp_content, to_mcp_tools
from ors_gym.rollout import Episode, Step
from ors_gym.types import Block, JSONObject

PROMPT: Final = "task"
"""The name of the MCP prompt."""
RESOURCE: Final = "ors://prompt"
"""The address of the MCP resource that is the prompt."""
STOP_REASON: Final = "ors_gym/stop_reason"
"""The metadata key of the stop reason, in results from the last call on."""
_DESCRIPTION: Final = "What is to be done."
_PATIENCE: Final = 20.0
"""Seconds for which a client that connects or lists waits for the set-up. Clients give
a request 30 seconds or more."""
_PROGRESS_EVERY: Final = 5.0
"""Seconds between two notifications of progress."""
_RESULTS_KEPT: Final = 32
"""The latest results, which a client that lost one can ask for again."""

Context: TypeAlias = ServerRequestContext[Any, Any]
_Key: TypeAlias = tuple[str, str | int]


class Played(Protocol):
    """What the server shows: a `LiveEpisode`, or what plays one in its place."""

    episode: Episode

    @property
    def ended(self) -> bool:
        """Whether no further turn is taken."""

    async def step(self, answer: Any) -> Sequence[Step]:
        """Play one turn, and return what came of it."""


class EpisodeServer:
    """Shows one episode to agents.

    ``start`` sets the episode up when the first agent asks for something; None if it
    is set up already. ``when_over`` is called once it is over, before an agent hears.
    """

    def __init__(
        self,
        live: Played,
        start: Callable[[], Awaitable[object]] | None = None,
        when_over: Callable[[], Coroutine[Any, Any, None]] | None = None,
    ) -> None:
        self.live = live
        self.ended = asyncio.Event()
        """Set when the episode is over, or could not be set up."""
        self.agent: str | None = None
        """Name and version of the client that made the latest call."""
        self._start = start
        self._when_over = when_over
        self._starting: asyncio.Future[None] | None = None
        self._calls: dict[_Key, _Call] = {}
        self._latest: deque[_Call] = deque()
        """The calls whose results are kept."""
        self._asked_last: _Call | None = None
        """The latest request, if it was a call."""
        self._announcements: list[asyncio.Task[None]] = []
        self._noting: asyncio.Future[None] | None = None
        self._bus = InMemorySubscriptionBus()
        self.server = self._make_server()
        if start is None:
            self._show_prompt()

    def _make_server(self) -> _Server:
        server = _Server(
            "ors_gym",
            version=find_version(),
            get_tool_input_schema=self._find_schema,
            on_subscriptions_listen=ListenHandler(self._bus),
        )
        server.middleware.append(self._around_request)
        add = server.add_request_handler
        add("tools/list", types.PaginatedRequestParams, self._list_tools)
        add("tools/call", types.CallToolRequestParams, self._call_tool)
        add("prompts/list", types.PaginatedRequestParams, self._list_prompts)
        add("prompts/get", types.GetPromptRequestParams, self._get_prompt)
        add("resources/list", types.PaginatedRequestParams, self._list_resources)
        add("resources/read", types.ReadResourceRequestParams, self._read_resource)
        return server

    async def close(self) -> None:
        """Cancel what is under way. A tool that was called may have run."""
        tasks: list[asyncio.Future[Any]] = [*self._announcements]
        tasks += [call.task for call in self._latest if call.task is not None]
        if self._starting is not None:
            tasks.append(self._starting)
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
        await self._note_end()

    async def _note_end(self) -> None:
        """Call ``when_over`` once. It runs on if whoever waits for it is cancelled."""
        is_first = not self.ended.is_set()
        if is_first:
            self.ended.set()
            if self._when_over is not None:
                self._noting = asyncio.create_task(self._when_over())
        if self._noting is not None:
            await asyncio.wait([self._noting])
            if is_first:
                self._noting.result()

    # The set-up

    async def _begin(self, start: Callable[[], Awaitable[object]]) -> None:
        try:
            await start()
        except ORSError:
            await self._note_end()
            raise
        self._show_prompt()

    def _show_prompt(self) -> None:
        self.server.instructions = render_text(self.live.episode.prompt) or None

    async def _wait_for_start(self, patience: float | None = None) -> bool:
        """Say whether the episode is set up; raise the error if it cannot be."""
        if self._start is None:
            return True
        if self._starting is None:
            self._starting = asyncio.ensure_future(self._begin(self._start))
        await asyncio.wait([self._starting], timeout=patience)
        if self._starting.done():
            self._starting.result()
        return self._starting.done()

    async def _around_request(self, ctx: Context, call_next: CallNext) -> HandlerResult:
        """Wait for the set-up before a client connects; turn errors into MCP's."""
        if ctx.method != "tools/call":
            self._asked_last = None
        try:
            if ctx.method in ("initialize", "server/discover"):
                await self._wait_for_start(_PATIENCE)
            return await call_next(ctx)
        except ORSError as error:
            raise MCPError(types.INTERNAL_ERROR, str(error)) from None

    async def _announce(self, context: Context) -> None:
        """Announce the tools to a client that listed them before the set-up."""
        await self._wait_for_start()
        await context.session.send_tool_list_changed()
        await self._bus.publish(ToolsListChanged())

    # What the agent reads

    async def _list_tools(self, context: Context, _: object) -> HandlerResult:
        if not await self._wait_for_start(_PATIENCE):
            self._announcements.append(asyncio.create_task(self._announce(context)))
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
            {"role": one["role"] if one["role"] == "assistant" else "user"}
            | {"content": part}
            for one in said
            for part in to_mcp_content(one["blocks"])
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
        if (client := context.session.client_params) is not None:
            self.agent = f"{client.client_info.name} {client.client_info.version}"
        call = self._find_call(context, params)
        task = call.task
        if task is None:
            return _refuse(f"{params.name} was run; its result is no longer kept.")
        call.waiting += 1
        try:
            return await _wait_with_progress(context, task, params.name)
        except asyncio.CancelledError:
            if call.waiting == 1:
                task.cancel()
            raise
        finally:
            call.waiting -= 1

    def _find_call(
        self, context: Context, params: types.CallToolRequestParams
    ) -> _Call:
        """Find the call that a request repeats, or begin a new one.

        Within a session a client uses the id of a request once (MCP, "Requests"), so
        a second request with it is the first one again. From 2026-07-28 on there is no
        session over HTTP, and every program that plays the episode counts from 1. There
        an identical call repeats the first one if that is under way or was the latest
        request: a program that has just started asks for the tools first.
        """
        request = context.request
        session = "" if request is None else request.headers.get("mcp-session-id", "")
        key = session, context.request_id or 0
        asked = params.name, params.arguments or {}
        known = self._calls.get(key)
        if known is not None:
            if request is not None and not session:
                is_recent = known is self._asked_last or known.is_under_way
                if is_recent and known.asked == asked:
                    return known
            elif known.asked == asked:
                return known
            else:
                raise MCPError(
                    types.INVALID_REQUEST,
                    f"the request id {context.request_id!r} was used for another call",
                )
        call = _Call(asked, asyncio.create_task(self._run(*asked)))
        self._latest.append(call)
        if not self.live.ended:
            # After the end a call runs nothing, so no repetition has to be recognised.
            self._calls[key] = self._asked_last = call
        while len(self._latest) > _RESULTS_KEPT and not self._latest[0].is_under_way:
            self._latest.popleft().task = None
        return call

    async def _run(self, name: str, arguments: JSONObject) -> types.CallToolResult:
        """Run a tool, and return what the agent reads of it: never the reward."""
        live = self.live
        try:
            await self._wait_for_start()
            steps = (
                []
                if live.ended
                else await live.step({"tool": name, "input": arguments})
            )
        except ORSError as error:
            return _refuse(f"{error}. {self._describe_end()}", self._meta())
        finally:
            if live.ended:
                await self._note_end()
        if not steps:
            return _refuse(self._describe_end(), self._meta())
        is_error = steps[-1].error_kind not in ("", "broken_image")
        return _result(steps[-1].reply, self._meta(), is_error=is_error)

    def _describe_end(self) -> str:
        why = self.live.episode.stop_reason
        return f"The episode is over ({why}): no further call is run."

    def _meta(self) -> JSONObject | None:
        """Tell a program, not a model, that this was the last call."""
        return {STOP_REASON: self.live.episode.stop_reason} if self.live.ended else None


@dataclasses.dataclass(slots=True)
class _Call:
    """A call of a tool, and who waits for it."""

    asked: tuple[str, JSONObject]
    task: asyncio.Task[types.CallToolResult] | None
    """None once the result is no longer kept."""
    waiting: int = 0

    @property
    def is_under_way(self) -> bool:
        return self.task is not None and not self.task.done()


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


def _result(
    blocks: Iterable[Block], meta: JSONObject | None = None, *, is_error: bool
) -> types.CallToolResult:
    content = {"content": to_mcp_content(blocks), "isError": is_error, "_meta": meta}
    return types.CallToolResult.model_validate(content)


def _refuse(text: str, meta: JSONObject | None = None) -> types.CallToolResult:
    return _result([{"type": "text", "text": text}], meta, is_error=True)
