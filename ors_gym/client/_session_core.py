"""What the blocking and the async session have in common."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any, Final

from ors_gym._shown_text import even_half_made
from ors_gym.client._remote_server import RemoteServer
from ors_gym.client.background import Registered, background
from ors_gym.errors import InvalidRequestError, SessionClosedError, UnknownTaskError
from ors_gym.protocol import _operations as operations
from ors_gym.protocol._exchange import Operation, check_seconds
from ors_gym.protocol._redaction import hide
from ors_gym.protocol._reply_json import flatten_messages
from ors_gym.protocol._requests import call_head, read_index
from ors_gym.protocol._server_state import SessionState
from ors_gym.types import Block, JSONObject, Secrets, TaskSpec, ToolOutput, ToolSpec

CALL_TIMEOUT: Final = 600.0
"""Seconds that a tool call gets unless told otherwise."""
SETUP_TIMEOUT: Final = 600.0
"""Seconds that opening a session gets, its set-up included."""
CLOSE_TIMEOUT: Final = 5.0
"""Seconds for which closing a session waits for the server."""


def task_request(
    task_spec: TaskSpec | None, split: str | None, index: int | None
) -> dict[str, Any]:
    """Return the fields of /create that name a task."""
    if task_spec is not None and split is None and index is None:
        return {"task_spec": task_spec}
    if task_spec is None and split is not None and index is not None:
        index = read_index(index)
        if index < 0:
            # Servers count a negative index from the end.
            raise UnknownTaskError(f"a task's index counts from 0; got {index}")
        return {"split": split, "index": index}
    raise InvalidRequestError("name the task: either task_spec, or split and index")


class SessionCore:
    """The state of a session and the operations on it, without a way to run them.

    The background answers for every session that this process opened: it deletes one
    that nobody refers to any more, and all that are open when the interpreter exits.
    """

    def __init__(
        self,
        server: RemoteServer,
        environment: str,
        task: Mapping[str, Any],
        *,
        secrets: Secrets | None = None,
        toolset: str | None = None,
        env_overrides: Mapping[str, str] | None = None,
        create_options: Mapping[str, Any] | None = None,
        session_options: Mapping[str, Any] | None = None,
        call_timeout: float = CALL_TIMEOUT,
        setup_timeout: float = SETUP_TIMEOUT,
    ) -> None:
        self.server = server.at(environment)
        """The server; at a gateway, the deployment that the environment names."""
        self._environment = environment
        self._task = task
        self._secrets: Secrets | None = hide(secrets)
        self._env_overrides: Mapping[str, str] | None = hide(env_overrides)
        if toolset is not None:
            create_options = {**(create_options or {}), "toolset_name": toolset}
        self._create_options = create_options
        self._session_options = session_options
        check_seconds("call_timeout", call_timeout)
        check_seconds("setup_timeout", setup_timeout)
        self._call_timeout = call_timeout
        self._setup_timeout = setup_timeout
        self._state: SessionState | None = None
        self.redact = self.server.redact
        """Hides the client's secrets; once the session is open, the session's too."""
        self._is_attached = False
        self._closed = False
        """Whether it was closed while it was not open yet."""
        self.conversation: list[JSONObject] | None = None
        """The prompt as messages with roles, once somebody asked for it."""
        self.tool_options: JSONObject = {}
        """What the server said beside the tools, such as ``terminal_tool``."""

    @even_half_made
    def __repr__(self) -> str:
        state = self._state
        if self._is_closed or state is None:
            condition = "closed" if self._is_closed else "not open"
        else:
            condition = "finished" if state.finished else "open"
        return f"<{type(self).__name__} of {self._environment!r}, {condition}>"

    @property
    def session_id(self) -> str:
        """The server's id of the session.

        Raises:
            SessionClosedError: If it is not open.
        """
        return self.state.session_id

    @property
    def finished(self) -> bool:
        """Whether the episode is over."""
        return self._state is not None and self._state.finished

    @property
    def terminal_tool(self) -> JSONObject | None:
        """The tool that takes plain text: its ``name`` and ``arg``, or None."""
        tool = self.tool_options.get("terminal_tool")
        return tool if isinstance(tool, dict) else None

    @property
    def state(self) -> SessionState:
        """What is known of the session.

        Raises:
            SessionClosedError: If it is not open.
        """
        if self._state is None:
            raise SessionClosedError(
                f"the session of {self._environment!r} is not open; enter it with "
                "`with client.session(...) as session:`"
            )
        if self._state.closed:
            raise SessionClosedError(
                f"{self.redact(self._state.name)} was closed; open a new session"
            )
        return self._state

    @property
    def is_attached(self) -> bool:
        """Whether somebody else opened the session: closing it does not delete it."""
        return self._is_attached

    @property
    def _is_closed(self) -> bool:
        return self._closed or (self._state is not None and self._state.closed)

    def adopt(self, state: SessionState) -> None:
        """Take a session whose episode was just created, and keep it alive."""
        self._state = state
        self.redact = state.redact
        background().note_open(state.session_id)

    def attach(self, session_id: str, environment: str) -> None:
        """Take a session that somebody else opened and will close."""
        server = self.server
        head = server.address(call_head(environment, session_id))
        self._state = SessionState(session_id, environment, head, server.redact)
        self._is_attached = True

    def open_operation(self) -> Operation[SessionState]:
        """Return the operation that opens the session."""
        if self._state is not None or self._is_closed:
            raise SessionClosedError("a session is opened once; make a new one")
        return operations.open_session(
            self.server,
            self._environment,
            self._task,
            timeout=self._setup_timeout,
            secrets=self._secrets,
            create_options=self._create_options,
            session_options=self._session_options,
            env_overrides=self._env_overrides,
        )

    def start_operation(self) -> Operation[tuple[list[Block], list[ToolSpec]]]:
        """Return the operation that opens it, waits for the prompt and lists the tools.

        If any of it fails or is interrupted, nothing is left on the server.
        """
        try:
            self.adopt((yield from self.open_operation()))
            prompt = flatten_messages((yield from self.messages_operation()))
            tools = yield from self.tools_operation()
        except BaseException as error:
            # The driver knows only the client's secrets; the session's are hidden here.
            self.redact.clear(error)
            self.discard()
            raise
        return prompt, tools

    def messages_operation(self) -> Operation[list[JSONObject]]:
        """Return the operation that gets the prompt as a conversation.

        A session keeps the answer: in some environments the question begins the game.
        So the clients run one of these operations at a time.
        """
        state = self.state
        if self.conversation is None:
            self.conversation = yield from operations.get_messages(
                self.server, state, timeout=self._setup_timeout
            )
            self._note_set_up()
        return list(self.conversation)

    def _note_set_up(self) -> None:
        registered = background().find(self.state.session_id)
        if registered is not None:
            registered.is_set_up = True

    def tools_operation(self) -> Operation[list[ToolSpec]]:
        """Return the operation that lists the session's tools."""
        tools, self.tool_options = yield from operations.list_task_tools(
            self.server, self.state, timeout=self._setup_timeout
        )
        return tools

    def call_operation(
        self, tool: str, tool_input: Mapping[str, Any], timeout: float | None
    ) -> Operation[ToolOutput]:
        """Return the operation that runs a tool."""
        if timeout is None:
            timeout = self._call_timeout
        else:
            check_seconds("timeout", timeout)
        return operations.call_tool(
            self.server, self.state, tool, tool_input, timeout=timeout
        )

    def resume_operation(
        self, task_id: str, timeout: float | None
    ) -> Operation[ToolOutput]:
        """Return the operation that waits longer for a call."""
        if timeout is None:
            timeout = self._call_timeout
        else:
            check_seconds("timeout", timeout)
        return operations.resume_call(self.server, self.state, task_id, timeout=timeout)

    def score_operation(
        self, candidates: Sequence[Mapping[str, Any]], timeout: float | None
    ) -> Operation[list[JSONObject]]:
        """Return the operation that scores a group of rollouts."""
        if timeout is None:
            timeout = self._call_timeout
        else:
            check_seconds("timeout", timeout)
        return operations.score_group(
            self.server, self.state, candidates, timeout=timeout
        )

    def close_operation(self) -> Operation[None]:
        """Return the operation that closes the session and waits for its deletion.

        The background deletes what the server did not confirm.
        """
        registered = self._registered()
        waits = registered is not None and registered.is_set_up
        if registered is not None and waits:
            # Until then the background leaves the delete to this operation.
            registered.deleted_by = time.monotonic() + 2 * CLOSE_TIMEOUT
        self._mark_closed()
        if registered is None:
            return
        confirmed = False
        try:
            # A delete may be lost while the environment is still being set up, so it
            # is not worth waiting for (docs/wire.md, point 11).
            if waits:
                confirmed = yield from operations.delete_session(
                    self.server, registered.session_id, timeout=CLOSE_TIMEOUT
                )
        finally:
            if confirmed:
                background().forget(registered.session_id)
            else:
                registered.is_given_up = True
                background().wake()

    def discard(self) -> None:
        """Close the session without waiting: the background deletes it."""
        self._mark_closed()
        background().wake()

    def _mark_closed(self) -> None:
        if self._state is None:
            self._closed = True
        else:
            # This one assignment tells the background to delete it, if it knows it.
            self._state.closed = True

    def _registered(self) -> Registered | None:
        """Return the session's entry in the background; None if there is none.

        There is none if it is closed, if somebody else opened it, or if this process
        was forked from the one that opened it.
        """
        state = self._state
        if state is None or state.closed or self._is_attached:
            return None
        return background().find(state.session_id)
