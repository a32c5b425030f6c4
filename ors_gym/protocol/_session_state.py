"""Whether a session is alive and may be called."""

from __future__ import annotations

from ors_gym.errors import (
    InvalidRequestError,
    SessionClosedError,
    SessionLostError,
    ToolRejectedError,
)
from ors_gym.protocol._exchange import Head
from ors_gym.protocol._redaction import Redactor

__all__ = ["SessionState"]


class SessionState:
    """What is known of one session."""

    __slots__ = (
        "__weakref__",
        "busy",
        "call_head",
        "closed",
        "environment",
        "finished",
        "lost",
        "pending",
        "redact",
        "session_id",
    )

    def __init__(
        self, session_id: str, environment: str, call_head: Head, redact: Redactor
    ) -> None:
        self.session_id = session_id
        self.environment = environment
        """The environment's name as the server spells it."""
        self.call_head = call_head
        self.redact = redact
        """Hides the session's secrets in errors."""
        self.finished = False
        self.closed = False
        self.busy = False
        self.lost = ""
        """Why the server no longer has the session; empty while it has."""
        self.pending: str | None = None
        """The task_id of a call whose end is unknown; ``""`` if the server named none,
        None if there is no such call."""

    @property
    def name(self) -> str:
        """The session as messages call it."""
        return f"session {self.session_id} of {self.environment!r}"

    def check_open(self) -> None:
        """Raise if the session was closed or is lost."""
        if self.closed:
            raise SessionClosedError(f"{self.name} was closed; open a new session")
        if self.lost:
            raise SessionLostError(
                f"{self.name} is lost ({self.lost}); open a new session"
            )

    def check_callable(self, task_id: str | None = None) -> None:
        """Raise unless the session takes this call, which is new without a task_id.

        One call at a time, and none while the end of another is unknown: servers run
        tools of one session at the same time (docs/wire.md, points 8 and 9).
        """
        self.check_open()
        if self.busy:
            raise InvalidRequestError(
                f"{self.name} has a call under way; one at a time, or one session each"
            )
        if task_id is not None:
            return
        if self.finished:
            raise ToolRejectedError(
                "the episode is finished; open a new session", reason="episode_finished"
            )
        if self.pending is not None:
            raise InvalidRequestError(
                f"{self.name} takes no further call: the outcome of an earlier one is "
                "unknown. Resume that call, or open a new session"
            )
