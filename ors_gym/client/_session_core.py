"""What the blocking and the async session have in common."""

from __future__ import annotations

import os
import weakref
from collections.abc import Mapping, Sequence
from typing import Any, Final

from ors_gym.client._remote_server import RemoteServer
from ors_gym.client.background import background
from ors_gym.errors import InvalidRequestError, SessionClosedError, UnknownTaskError
from ors_gym.protocol import _operations as operations
from ors_gym.protocol._exchange import Operation
from ors_gym.protocol._requests import call_head
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
        if index < 0:
            # Servers count a negative index from the end.
            raise UnknownTaskError(f"a task's index counts from 0; got {index}")
        return {"split": split, "index": index}
    raise InvalidRequestError("name the task: either task_spec, or split and index")


class SessionCore:
    """The state of a session and the operations on it, without a way to run them.

    The background deletes a session that nobody refers to any more, and every session
    that is open when the interpreter exits.
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
        """The server; behind a gateway, the deployment."""
        self._environment = environment
        self._task = task
        self._secrets = secrets
        self._env_overrides = env_overrides
        if toolset is not None:
            create_options = {**(create_options or {}), "toolset_name": toolset}
        self._create_options = create_options
        self._session_options = session_options
        self._call_timeout = call_timeout
        self._setup_timeout = setup_timeout
        self._state: SessionState | None = None
        self._finalizer: weakref.finalize[..., Any] | None = None
        self._closed = False
        self._set_up = False
        self._owner = os.getpid()
        self.tool_options: JSONObject = {}
        """What the server said beside the tools, such as ``terminal_tool``."""

    def __repr__(self) -> str:
        state = self._state
        if self._closed or state is None:
            condition = "closed" if self._closed else "not open"
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
        if self._closed:
            raise SessionClosedError(
                f"session {self._state.session_id} of {self._environment!r} was "
                "closed; open a new session"
            )
        return self._state

    @property
    def is_attached(self) -> bool:
        """Whether somebody else opened the session: closing it does not delete it."""
        return self._state is not None and self._finalizer is None

    def adopt(self, state: SessionState) -> None:
        """Take an episode that was just created, and keep it alive from now on."""
        self._state = state
        self._finalizer = weakref.finalize(
            self, _delete_unreferenced, self.server, state, self._owner
        )
        # The background deletes what is open when the interpreter exits.
        self._finalizer.atexit = False
        background().watch(self.server, state)

    def attach(self, session_id: str, environment: str) -> None:
        """Take a session that somebody else opened and will close."""
        server = self.server
        head = server.address(call_head(environment, session_id))
        self._state = SessionState(session_id, environment, head, server.redact)

    def open_operation(self) -> Operation[SessionState]:
        """Return the operation that opens the session."""
        if self._state is not None or self._closed:
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
        """Return the operation that opens, waits for the prompt and lists the tools.

        If any of it fails or is interrupted, nothing is left on the server.
        """
        try:
            self.adopt((yield from self.open_operation()))
            prompt = yield from self.prompt_operation()
            tools = yield from self.tools_operation()
        except BaseException:
            self.discard()
            raise
        return prompt, tools

    def prompt_operation(self) -> Operation[list[Block]]:
        """Return the operation that gets the prompt."""
        prompt = yield from operations.get_prompt(
            self.server, self.state, timeout=self._setup_timeout
        )
        self._set_up = True
        return prompt

    def messages_operation(self) -> Operation[list[JSONObject]]:
        """Return the operation that gets the prompt as a conversation."""
        messages = yield from operations.get_messages(
            self.server, self.state, timeout=self._setup_timeout
        )
        self._set_up = True
        return messages

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
        return operations.call_tool(
            self.server, self.state, tool, tool_input, timeout=timeout
        )

    def resume_operation(
        self, task_id: str, timeout: float | None
    ) -> Operation[ToolOutput]:
        """Return the operation that waits longer for a call."""
        if timeout is None:
            timeout = self._call_timeout
        return operations.resume_call(self.server, self.state, task_id, timeout=timeout)

    def score_operation(
        self, candidates: Sequence[Mapping[str, Any]], timeout: float | None
    ) -> Operation[list[JSONObject]]:
        """Return the operation that scores a group of rollouts."""
        if timeout is None:
            timeout = self._call_timeout
        return operations.score_group(
            self.server, self.state, candidates, timeout=timeout
        )

    def close_operation(self) -> Operation[None]:
        """Return the operation that closes the session and waits for its deletion.

        The background deletes what the server did not confirm.
        """
        state = self._end()
        if state is None:
            return
        confirmed = False
        try:
            # While the environment is set up a delete may be lost, so it is not worth
            # waiting for (docs/wire.md, point 11).
            if self._set_up:
                confirmed = yield from operations.delete_session(
                    self.server, state.session_id, timeout=CLOSE_TIMEOUT
                )
        finally:
            if not confirmed:
                self._delete_soon(state)

    def discard(self) -> None:
        """Close the session without waiting: the background deletes it."""
        state = self._end()
        if state is not None:
            self._delete_soon(state)

    def _end(self) -> SessionState | None:
        """Close the session on this side; return it if it is to be deleted.

        It is not if it was closed before, or belongs to somebody else or to the parent
        process.
        """
        state, finalizer = self._state, self._finalizer
        if self._closed or state is None:
            self._closed = True
            return None
        self._closed = state.closed = True
        background().unwatch(state)
        if finalizer is None or not finalizer.detach() or os.getpid() != self._owner:
            return None
        return state

    def _delete_soon(self, state: SessionState) -> None:
        background().delete_soon(self.server, state.session_id, again=not self._set_up)


def _delete_unreferenced(server: RemoteServer, state: SessionState, owner: int) -> None:
    """Finalise a session: note its id, do nothing else (docs/wire.md, point 14)."""
    if not state.closed and os.getpid() == owner:
        state.closed = True
        background().note_for_deletion(server, state.session_id)
