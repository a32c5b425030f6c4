"""Every error that ors_gym raises, in one tree.

    ORSError
    ├── ConnectionFailedError       the server could not be reached
    ├── ServerError                 the server answered with an error status
    ├── ProtocolError               the server's answer is not ORS
    │   └── LimitExceededError      the answer is larger than the limits allow
    ├── AuthenticationError         401 or 403
    ├── InvalidRequestError         the request is wrong
    │   ├── UnknownEnvironmentError
    │   ├── UnknownTaskError        unknown split, index or task
    │   ├── UnknownToolsetError     the server has no such toolset
    │   ├── InvalidArgumentError    an argument of the wrong type or length
    │   ├── InsecureTransportError  a key or secret over plain http
    │   └── SchemaError             a tool's schema cannot be sampled or enumerated
    ├── SetupFailedError            the environment's set-up raised
    ├── SessionLostError            the server no longer has the session
    ├── SessionClosedError          the session was closed by this process
    ├── AmbiguousCallError          the tool may have run; its result is lost
    │   └── CallTimeoutError        ... because the deadline passed
    ├── ToolFailedError             the tool raised; the session is alive
    ├── ToolRejectedError           the server refused the call; nothing ran
    ├── ReplayDiffersError          an environment does not answer as before
    ├── EpisodeOverError            step before reset, after the end, after close
    ├── IncompleteGroupError        a group of rollouts lacks outcomes
    └── MissingExtraError           an optional dependency is not installed

An error holds a message and plain fields, nothing of an HTTP library. So it can be
pickled, and rebuilt from one argument, as Gymnasium's vector workers do.
"""

from __future__ import annotations

import contextlib
import importlib
from collections.abc import Iterator
from typing import Any, ClassVar

from gymnasium.error import ResetNeeded

from ors_gym._shown_text import clean

__all__ = [
    "AmbiguousCallError",
    "AuthenticationError",
    "CallTimeoutError",
    "ConnectionFailedError",
    "EpisodeOverError",
    "IncompleteGroupError",
    "InsecureTransportError",
    "InvalidArgumentError",
    "InvalidRequestError",
    "LimitExceededError",
    "MissingExtraError",
    "ORSError",
    "ProtocolError",
    "ReplayDiffersError",
    "SchemaError",
    "ServerError",
    "SessionClosedError",
    "SessionLostError",
    "SetupFailedError",
    "ToolFailedError",
    "ToolRejectedError",
    "UnknownEnvironmentError",
    "UnknownTaskError",
    "UnknownToolsetError",
]


class ORSError(Exception):
    """The base class of every error of this package.

    Args:
        message: What happened, where, and what to do. It may be another error of this
            package; then its message and fields are copied.
        **fields: Values for the fields that the class declares.

    Raises:
        TypeError: If a field is not one of the class.

    Example:
        >>> error = AmbiguousCallError("lost", task_id="7f")
        >>> error.task_id, AmbiguousCallError(error).task_id
        ('7f', '7f')
    """

    kind: ClassVar[str] = "error"
    """The value of ``info["error_kind"]`` for this error."""

    outage: ClassVar[bool] = False
    """Whether the network or the server failed, rather than the caller."""

    def __init__(self, message: object = "", **fields: str | int) -> None:
        if isinstance(message, ORSError):
            super().__init__(message.message)
            self.__dict__.update(vars(message))
        else:
            super().__init__(str(message))
        for name, value in fields.items():
            if not hasattr(type(self), name):
                raise TypeError(f"{type(self).__name__} has no field {name!r}")
            setattr(self, name, value)

    @property
    def message(self) -> str:
        """The message as a model gets it, with whatever characters a server sent."""
        return str(self.args[0]) if self.args else ""

    def __str__(self) -> str:
        return clean(self.message)


class ConnectionFailedError(ORSError):
    """Raised when the server cannot be reached, or the connection broke."""

    kind = "connection"
    outage = True


class ServerError(ORSError):
    """Raised when the server answers with an error status of its own making."""

    kind = "server"
    outage = True
    status: int = 0
    """The HTTP status code."""


class ProtocolError(ORSError):
    """Raised when an answer is not what the Open Reward Standard allows."""

    kind = "protocol"
    outage = True


class LimitExceededError(ProtocolError):
    """Raised when an answer is larger than the client's limits allow."""

    kind = "limit"


class AuthenticationError(ORSError):
    """Raised when the server answers 401 or 403."""

    kind = "authentication"
    status: int = 0
    """The HTTP status code."""


class InvalidRequestError(ORSError):
    """Raised when a request is wrong, whatever server receives it."""

    kind = "invalid_request"
    status: int = 0
    """The HTTP status code, or 0 if nothing was sent."""


class UnknownEnvironmentError(InvalidRequestError):
    """Raised when the server has no environment of that name."""

    kind = "unknown_environment"


class UnknownTaskError(InvalidRequestError):
    """Raised when there is no such split, or no such task in it."""

    kind = "unknown_task"


class InvalidArgumentError(InvalidRequestError, ValueError, TypeError):
    """Raised for an action that is none, such as a number, None or a function.

    A vector env raises it for actions, seeds or options that cannot be right.
    Gymnasium's own envs raise ValueError or TypeError then; this is both.
    """

    kind = "invalid_argument"


class UnknownToolsetError(InvalidRequestError):
    """Raised when the server has no toolset of that name, or none for this task."""

    kind = "unknown_toolset"


class InsecureTransportError(InvalidRequestError):
    """Raised before a key or a secret would travel over plain http."""

    kind = "insecure_transport"


class SchemaError(InvalidRequestError):
    """Raised when a tool's JSON Schema cannot be sampled or enumerated."""

    kind = "schema"


class SetupFailedError(ORSError):
    """Raised when the environment's own set-up raised on the server."""

    kind = "setup_failed"


class SessionLostError(ORSError):
    """Raised when the server no longer has the session."""

    kind = "session_lost"
    outage = True


class SessionClosedError(ORSError):
    """Raised when a session is used after this process closed it."""

    kind = "session_closed"


class AmbiguousCallError(ORSError):
    """Raised when a tool may have run but its result is lost.

    The call is never sent again. If the server had named its ``task_id``,
    ``Session.resume_call(task_id)`` asks for the result once more.
    """

    kind = "ambiguous_call"
    outage = True
    task_id: str = ""
    """The server's id of the call, or ``""`` if it never named one."""


class CallTimeoutError(AmbiguousCallError):
    """Raised when the deadline of a tool call passed; the tool may still run."""

    kind = "timeout"


class ToolFailedError(ORSError):
    """Raised when a tool raised on the server; its session stays open."""

    kind = "tool_failed"


class ToolRejectedError(ORSError):
    """Raised when the server refused a call (``ok: false``); nothing ran."""

    kind = "invalid_action"
    reason: str = ""
    """The server's reason, such as ``not_found``, or ``""`` if it gives none."""
    original: str = ""
    """The server's own words where the message is a shorter form of them."""


class ReplayDiffersError(ORSError):
    """Raised when an environment does not answer as in the episode that is revived."""

    kind = "replay_differs"
    step: int = -1
    """The number of the step, from 0; -1 for the prompt."""
    what: str = ""
    """What differs: ``prompt``, a field of the step, or ``steps`` for their number."""


class EpisodeOverError(ORSError, ResetNeeded):
    """Raised when an env is stepped before a reset, after its end, or closed."""

    kind = "episode_over"


class IncompleteGroupError(ORSError):
    """Raised when outages left a group of rollouts short of outcomes."""

    kind = "incomplete_group"


class MissingExtraError(ORSError, ImportError):
    """Raised when an optional dependency is missing; says how to install it."""

    kind = "missing_extra"


@contextlib.contextmanager
def needs_extra(extra: str, purpose: str, alternative: str = "") -> Iterator[None]:
    """Turn a failed import of the block into an error that says what to install.

    Args:
        extra: The extra of ors-gym that brings the library.
        purpose: What the library is needed for; the message begins with it.
        alternative: What to do without the library; the message ends with it.

    Raises:
        MissingExtraError: If the block raised an `ImportError`.
    """
    try:
        yield
    except ImportError as error:
        otherwise = f"; or {alternative}" if alternative else ""
        raise MissingExtraError(
            f"{purpose} needs a library that is missing ({error}). Install it with: "
            f'pip install "ors-gym[{extra}]"{otherwise}'
        ) from error


def import_extra(module: str, extra: str, purpose: str, alternative: str = "") -> Any:
    """Import an optional module by its name; the rest is as for `needs_extra`.

    Example:
        >>> import_extra("json", "eval", "A plot").__name__
        'json'
    """
    with needs_extra(extra, purpose, alternative):
        return importlib.import_module(module)
