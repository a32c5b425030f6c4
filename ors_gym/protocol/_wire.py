"""What an operation has to know of its server, its client and its session."""

from __future__ import annotations

import dataclasses
import uuid
from collections.abc import Callable
from random import Random
from typing import Final

from ors_gym.errors import (
    InvalidRequestError,
    SessionClosedError,
    SessionLostError,
    ToolRejectedError,
)
from ors_gym.protocol._dialect import Dialect, SecretsChannel
from ors_gym.protocol._exchange import Head, Limits
from ors_gym.protocol._redaction import Redactor
from ors_gym.protocol._retries import Patience, Retry
from ors_gym.types import Split, TaskSpec, ToolSpec

__all__ = ["Listing", "SessionState", "Wire"]


def _ignore(_: object) -> None:
    """Do nothing."""


_OWN_RANDOM: Final = Random()  # noqa: S311 - it spreads retries, no more
"""Not the global generator, whose sequence belongs to the user's seed."""
_PATIENCE_WITH_A_STRANGER: Final = 2.0
"""Seconds of refused connections that a server which never answered gets."""


@dataclasses.dataclass(slots=True)
class Listing:
    """What the server said of an environment, as far as it was asked.

    Args:
        tools: The tools that every session has.
        splits: The splits.
        counts: The number of tasks of each split.
    """

    tools: list[ToolSpec] | None = None
    splits: list[Split] | None = None
    counts: dict[str, int] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(slots=True, kw_only=True)
class Wire:
    """A client's knowledge of one server, shared by all its operations.

    Args:
        where: The base URL, for messages.
        origin: Scheme, host and port, to compare redirects with.
        dialect: What the server speaks, once it was asked.
        environments: The names it serves, once it was asked.
        limits: Bounds on replies.
        timeout: Seconds for a request that is neither a call nor part of set-up.
        redact: Hides the client's secrets.
        secure: Whether secrets may travel: TLS, loopback, or the user's own word.
        reached: Whether the server ever answered. Before it did, a refused
            connection is not tried again for long: the address is probably wrong.
        repeat_calls_after_429: Whether 429 proves that a call was not run, as point 5
            of docs/wire.md has it, so that the call is sent again.
        on_retry: Told before a request is repeated.
        abandon: Takes the id of a session that may exist on the server and that
            nobody will use: to be deleted now and once more later (docs/wire.md, points
            10 and 11).
        random: Gives numbers in [0, 1), for back-off.
        new_id: Makes a session id for servers that hand out none.
    """

    where: str
    origin: str
    dialect: Dialect | None = None
    environments: tuple[str, ...] = ()
    limits: Limits = dataclasses.field(default_factory=Limits)
    timeout: float = 60.0
    redact: Redactor = dataclasses.field(default_factory=Redactor)
    secure: bool = True
    reached: bool = False
    repeat_calls_after_429: bool = True
    task_lists: dict[tuple[str, str], list[TaskSpec]] = dataclasses.field(
        default_factory=dict
    )
    """Whole task sets, of servers that cannot give a task by its index."""
    listings: dict[str, Listing] = dataclasses.field(default_factory=dict)
    """By environment, as the server spells it: all envs of a client ask once."""
    on_retry: Callable[[Retry], None] = _ignore
    abandon: Callable[[str], None] = _ignore
    random: Callable[[], float] = _OWN_RANDOM.random
    new_id: Callable[[], str] = lambda: str(uuid.uuid4())

    def listing(self, environment: str) -> Listing:
        """Return what is known of an environment, to be looked at and filled in.

        Args:
            environment: Its name as the server spells it.
        """
        return self.listings.setdefault(environment, Listing())

    def share_knowledge_of(self, other: Wire) -> None:
        """Take over what another client knows of the same server."""
        self.dialect = other.dialect
        self.environments = other.environments
        self.reached = other.reached
        self.task_lists = other.task_lists
        self.listings = other.listings

    def patience(self, budget: float) -> Patience:
        """Return the patience for one operation.

        Args:
            budget: Seconds for the whole operation.

        Returns:
            A budget that has not been touched yet.
        """
        unreachable = self.timeout if self.reached else _PATIENCE_WITH_A_STRANGER
        return Patience(budget, unreachable, random=self.random)

    @property
    def spoken(self) -> Dialect:
        """The dialect; operations that need it run after `connect`."""
        return self.dialect or Dialect(secrets=SecretsChannel.NONE)


class SessionState:
    """What is known of one session: is it alive, may it be called.

    Args:
        session_id: The server's id.
        environment: The environment's name as the server spells it.
        call_head: The head of its tool calls.
        redact: Hides the session's secrets in errors.
    """

    __slots__ = (
        "__weakref__",
        "busy",
        "call_head",
        "closed",
        "created",
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
        self.call_head = call_head
        self.redact = redact
        self.created = False
        """Whether /create was answered, so that pings make sense."""
        self.finished = False
        self.closed = False
        self.busy = False
        self.lost = ""
        """Why the server no longer has the session, if it has not."""
        self.pending: str | None = None
        """A call whose end is unknown: its task_id, or ``""`` if it has none."""

    @property
    def name(self) -> str:
        """What messages call it."""
        return f"session {self.session_id} of {self.environment!r}"

    def check_open(self) -> None:
        """Raise if the session is over.

        Raises:
            SessionClosedError: If it was closed.
            SessionLostError: If the server no longer has it.
        """
        if self.closed:
            raise SessionClosedError(f"{self.name} was closed; open a new session")
        if self.lost:
            raise SessionLostError(
                f"{self.name} is lost ({self.lost}); open a new session"
            )

    def check_callable(self, task_id: str | None = None) -> None:
        """Raise unless the session takes this call (docs/wire.md, points 8 and 9).

        Args:
            task_id: The call to be resumed; None for a new call.

        Raises:
            SessionClosedError: If it was closed.
            SessionLostError: If the server no longer has it.
            ToolRejectedError: If its episode is finished.
            InvalidRequestError: If another call is under way or undecided.
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
