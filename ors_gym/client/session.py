"""The blocking session: one episode on a server."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any, Self

from ors_gym.client.drivers import Exchange, run_blocking
from ors_gym.client.link import Link
from ors_gym.client.session_core import CLOSE_TIMEOUT, SessionCore
from ors_gym.protocol import operations
from ors_gym.types import Block, JSONObject, ToolOutput, ToolSpec

__all__ = ["Session"]


class Session(SessionCore):
    """One episode on a server, as a context manager. Made by `ORSClient.session`.

    Args:
        link: How the server is reached.
        exchange: Does the exchanges.
        environment: The environment's name, in any case.
        task: The fields of /create that name the task.
        **options: As for `ORSClient.session`.
    """

    def __init__(
        self,
        link: Link,
        exchange: Exchange,
        environment: str,
        task: Mapping[str, Any],
        **options: Any,
    ) -> None:
        super().__init__(link, environment, task, **options)
        self._exchange = exchange

    def open(self) -> Self:
        """Open the session on the server, unless `__enter__` did.

        Returns:
            The session itself.

        Raises:
            ORSError: If it cannot be opened; nothing is left on the server then.
        """
        self.adopt(run_blocking(self.open_operation(), self._exchange))
        return self

    def __enter__(self) -> Self:
        return self.open()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def get_prompt(self) -> list[Block]:
        """Get the prompt; waits until the environment is set up.

        Returns:
            The blocks of the prompt.

        Raises:
            SetupFailedError: If the set-up raised.
        """
        return run_blocking(self.prompt_operation(), self._exchange)

    def get_messages(self) -> list[JSONObject]:
        """Get the prompt as a conversation.

        Returns:
            Turns with ``role`` and ``blocks``; on older servers, one user turn.
        """
        return run_blocking(self.messages_operation(), self._exchange)

    def list_tools(self) -> list[ToolSpec]:
        """List the tools of this session; ask after the prompt.

        Returns:
            The tools.
        """
        return run_blocking(self.tools_operation(), self._exchange)

    def call_tool(
        self, tool: str, input: Mapping[str, Any], *, timeout: float | None = None
    ) -> ToolOutput:
        """Run a tool, exactly once whatever breaks.

        Args:
            tool: The tool's name.
            input: Its arguments, plain JSON.
            timeout: Seconds; the session's ``call_timeout`` if None.

        Returns:
            ``blocks``, ``metadata``, ``reward`` and ``finished``.

        Raises:
            ToolRejectedError: If the server refused the call.
            ToolFailedError: If the tool raised; the session is alive.
            AmbiguousCallError: If the tool may have run and its result is lost.
            CallTimeoutError: If the time passed.
            SessionLostError: If the server no longer has the session.
        """
        return run_blocking(self.call_operation(tool, input, timeout), self._exchange)

    def resume_call(self, task_id: str, *, timeout: float | None = None) -> ToolOutput:
        """Wait longer for a call that timed out.

        Args:
            task_id: The ``task_id`` of the error.
            timeout: Seconds; the session's ``call_timeout`` if None.

        Returns:
            What the tool gave back.

        Raises:
            AmbiguousCallError: If the server no longer has the result.
        """
        return run_blocking(self.resume_operation(task_id, timeout), self._exchange)

    def score_group(
        self,
        candidates: Sequence[Mapping[str, Any]],
        *,
        timeout: float | None = None,
    ) -> list[JSONObject]:
        """Have a group of rollouts of this task scored together.

        Args:
            candidates: Objects with ``messages`` and, if wanted, ``metadata``.
            timeout: Seconds; the session's ``call_timeout`` if None.

        Returns:
            One object with ``reward`` and ``metadata`` for each candidate.

        Raises:
            InvalidRequestError: If the server cannot score groups.
        """
        return run_blocking(self.score_operation(candidates, timeout), self._exchange)

    def close(self, *, wait: bool = True) -> None:
        """Delete the session on the server, in bounded time. Closing twice is fine.

        Args:
            wait: Whether to wait for the server's word; the background deletes
                otherwise, and where the server does not answer.
        """
        state = self.release()
        if state is None:
            return
        confirmed = False
        try:
            if wait and self._set_up:
                operation = operations.delete_session(
                    self._link.wire, state.session_id, timeout=CLOSE_TIMEOUT
                )
                confirmed = run_blocking(operation, self._exchange)
        finally:
            if not confirmed:
                self.delete_later(state)
