"""What operations know: a client's server, and a session on it."""

from __future__ import annotations

import copy
import dataclasses
import uuid
from collections import deque
from collections.abc import Callable
from random import Random
from typing import Final, Self

from ors_gym._shown_text import even_half_made
from ors_gym.errors import (
    InvalidRequestError,
    SessionClosedError,
    SessionLostError,
    ToolRejectedError,
)
from ors_gym.protocol._dialect import (
    DEPLOYMENT_HEADER,
    Dialect,
    SecretsChannel,
    split_deployment,
)
from ors_gym.protocol._exchange import Head, Limits
from ors_gym.protocol._redaction import Redactor
from ors_gym.protocol._retries import Patience, Retry, Reuse
from ors_gym.types import Split, TaskSpec, ToolSpec

_OWN_RANDOM: Final = Random()  # noqa: S311 - it spreads retries, no more
"""Not the global generator, whose sequence belongs to the user's seed."""
_PATIENCE_WITH_A_STRANGER: Final = 2.0
"""Seconds of refused connections that a server which never answered gets."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ClientSettings:
    """What the user of a client chose. It can be pickled, and `repr` hides the key."""

    base_url: str
    origin: str
    """Scheme, host and port of the base URL: a redirect stays within them."""
    headers: tuple[tuple[str, str], ...] = dataclasses.field(default=(), repr=False)
    """Sent with every request; the API key is among them."""
    timeout: float = 60.0
    """Seconds for a request that is neither a call nor part of set-up."""
    trust_env: bool = False
    may_send_secrets: bool = True
    """Whether secrets may travel: TLS, loopback, or the user's own word."""
    limits: Limits = dataclasses.field(default_factory=Limits)
    redact: Redactor = dataclasses.field(default_factory=Redactor, compare=False)
    """Hides the secrets among the headers."""
    share_api_key: bool = False
    """Whether environments get the API key as a secret."""
    repeat_calls_after_429: bool = True
    """Whether 429 proves that a call was not run (docs/wire.md, point 5)."""


@dataclasses.dataclass(slots=True)
class Listing:
    """What the server said of an environment; None and absent: it was not asked."""

    tools: list[ToolSpec] | None = None
    """The tools that every session has."""
    splits: list[Split] | None = None
    counts: dict[str, int] = dataclasses.field(default_factory=dict)
    """The number of tasks of each split."""


@dataclasses.dataclass(slots=True)
class ServerKnowledge:
    """What a server was found to speak and to have; copies of a client share it."""

    dialect: Dialect | None = None
    environments: tuple[str, ...] = ()
    reached: bool = False
    """Whether the server ever answered."""
    listings: dict[str, Listing] = dataclasses.field(default_factory=dict)
    """By environment, as the server spells it."""
    task_lists: dict[tuple[str, str], list[TaskSpec]] = dataclasses.field(
        default_factory=dict
    )
    """Whole task sets, of servers that cannot give a task by its index."""
    deployments: dict[str, ServerKnowledge] = dataclasses.field(default_factory=dict)
    """What is known of each deployment behind a gateway."""

    def listing(self, environment: str) -> Listing:
        """Return what is known of an environment, to be filled in."""
        return self.listings.setdefault(environment, Listing())


def _ignore(*_: object) -> None:
    """Do nothing."""


@dataclasses.dataclass(slots=True, kw_only=True)
class Hooks:
    """What operations call: a client sets most of them, tests set all."""

    on_retry: Callable[[Retry], None] = _ignore
    """Told before a request is repeated."""
    on_round_trip: Callable[[float], None] = _ignore
    """Told how many seconds a request took in which no environment's code ran."""
    register: Callable[[Server, SessionState], None] = _ignore
    """Takes a session whose /create is about to be sent: who gets it answers for it."""
    forget: Callable[[str], None] = _ignore
    """Takes the id of a registered session that turned out to be somebody else's."""
    discard: Callable[[Server, str], None] = _ignore
    """Takes a session that may exist and that nobody will use, by its server and id: to
    be deleted now and once more later (docs/wire.md, points 10 and 11)."""
    random: Callable[[], float] = _OWN_RANDOM.random
    """Gives numbers in [0, 1), for back-off."""
    new_id: Callable[[], str] = lambda: str(uuid.uuid4())
    """Makes a session id for a server that hands out none."""
    clock: Callable[[], float] = lambda: 0.0
    """Returns the time in seconds. With the default, which stands still, `Reuse` learns
    nothing."""


class Server:
    """What every operation takes: a client's settings, knowledge and hooks.

    Behind a gateway each deployment is a server of its own, which `at` returns.
    """

    def __init__(
        self,
        settings: ClientSettings,
        known: ServerKnowledge | None = None,
        hooks: Hooks | None = None,
    ) -> None:
        self.settings = settings
        self.known = known or ServerKnowledge()
        self.hooks = hooks or Hooks()
        self.reuse = Reuse(self.hooks.clock)
        # What a gateway is to route to; the user may have said so with a header.
        headers = {name.lower(): value for name, value in settings.headers}
        self.deployment = headers.get(DEPLOYMENT_HEADER.lower(), "")
        self._deployments: dict[str, Self] = {}

    def at(self, environment: str) -> Self:
        """Return the deployment that a name such as ``Owner/Name`` is of, else self."""
        deployment, _ = split_deployment(environment)
        if deployment in ("", self.deployment):
            return self
        server = copy.copy(self)
        server.deployment = deployment
        known = self.known.deployments
        server.known = known.setdefault(deployment, ServerKnowledge(deployments=known))
        return self._deployments.setdefault(deployment, server)

    def address(self, head: Head) -> Head:
        """Name the deployment in a request, if there is one."""
        if not self.deployment:
            return head
        named = (*head.headers, (DEPLOYMENT_HEADER, self.deployment))
        return Head(head.method, head.target, named)

    def discard(self, session_id: str) -> None:
        """Have a session deleted that may exist and that nobody will use."""
        self.hooks.discard(self, session_id)

    @even_half_made
    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.base_url!r})"

    @property
    def base_url(self) -> str:
        return self.settings.base_url

    @property
    def redact(self) -> Redactor:
        """Hides the client's secrets."""
        return self.settings.redact

    @property
    def dialect(self) -> Dialect:
        """The dialect; operations that need it run after `connect`."""
        return self.known.dialect or Dialect(secrets=SecretsChannel.NONE)

    def patience(self, budget: float) -> Patience:
        """Return the patience for one operation of so many seconds."""
        # Before the server ever answered, a refused connection is not tried again for
        # long: the address is probably wrong.
        timeout = self.settings.timeout
        unreachable = timeout if self.known.reached else _PATIENCE_WITH_A_STRANGER
        return Patience(budget, unreachable, random=self.hooks.random, reuse=self.reuse)


class SessionState:
    """What is known of one session."""

    __slots__ = (
        "__weakref__",
        "call_head",
        "closed",
        "environment",
        "finished",
        "free",
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
        self.free: deque[None] = deque([None])
        """Holds one item while no call is under way. Threads take it in one step."""
        self.lost = ""
        """Why the server no longer has the session; empty while it has."""
        self.pending: str | None = None
        """The task_id of a call whose end is unknown; ``""`` if the server named none,
        None if there is no such call."""

    @property
    def busy(self) -> bool:
        """Whether a call is under way."""
        return not self.free

    @property
    def name(self) -> str:
        """The session as messages call it."""
        return f"session {self.session_id} of {self.environment!r}"

    def check_open(self) -> None:
        if self.closed:
            raise SessionClosedError(f"{self.name} was closed; open a new session")
        if self.lost:
            raise SessionLostError(
                f"{self.name} is lost ({self.lost}); open a new session"
            )

    def claim(self, task_id: str | None = None) -> None:
        """Take the session for a call, which is new without a task_id, or raise.

        Whoever takes it puts an item into ``free`` when the call is over. One call at a
        time, and none while the end of another is unknown: servers run tools of one
        session at the same time (docs/wire.md, points 8 and 9).
        """
        self.check_open()
        try:
            self.free.pop()
        except IndexError:
            raise InvalidRequestError(
                f"{self.name} has a call under way; one at a time, or one session each"
            ) from None
        if task_id is not None or not (self.finished or self.pending is not None):
            return
        self.free.append(None)
        if self.finished:
            raise ToolRejectedError(
                "the episode is finished; open a new session", reason="episode_finished"
            )
        raise InvalidRequestError(
            f"{self.name} takes no further call: the outcome of an earlier one is "
            "unknown. Resume that call, or open a new session"
        )
