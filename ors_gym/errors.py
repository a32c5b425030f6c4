"""The errors of ors_gym, in one tree.

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
    """Raised when the server cannot be reached, or the connection broke.

    Example:
        >>> from ors_gym import ORSClient
        >>> ORSClient("http://127.0.0.1:1", timeout=0.1).list_environments()
        Traceback (most recent call last):
            ...
        ors_gym.errors.ConnectionFailedError: ... Is the server running, ...?
    """

    kind = "connection"
    outage = True


class ServerError(ORSError):
    """Raised for an error status that has no class of its own, such as 429 or 502.

    Example:
        >>> error = ServerError("the gateway is down", status=502)
        >>> error.kind, error.outage, error.status
        ('server', True, 502)
    """

    kind = "server"
    outage = True
    status: int = 0
    """The HTTP status code."""


class ProtocolError(ORSError):
    """Raised when an answer is not what the Open Reward Standard allows.

    Example:
        >>> ProtocolError("the reply is no JSON").kind
        'protocol'
    """

    kind = "protocol"
    outage = True


class LimitExceededError(ProtocolError):
    """Raised when an answer is larger than the client's limits allow.

    Example:
        >>> from ors_gym import Limits, ORSClient
        >>> from ors_gym.server import embedded_base_url
        >>> with ORSClient(embedded_base_url(), limits=Limits(tools=0)) as client:
        ...     client.list_tools("guess")
        Traceback (most recent call last):
            ...
        ors_gym.errors.LimitExceededError: ... Limits.tools allows 0
    """

    kind = "limit"


class AuthenticationError(ORSError):
    """Raised when the server answers 401 or 403.

    Example:
        >>> AuthenticationError("the key is not known", status=401).status
        401
    """

    kind = "authentication"
    status: int = 0
    """The HTTP status code."""


class InvalidRequestError(ORSError):
    """Raised when a request or an argument is wrong; repeating it does not help.

    Example:
        >>> from ors_gym import ORSEnv
        >>> ORSEnv("guess", task_order="backwards")
        Traceback (most recent call last):
            ...
        ors_gym.errors.InvalidRequestError: ...
    """

    kind = "invalid_request"
    status: int = 0
    """The HTTP status code, or 0 if nothing was sent."""


class UnknownEnvironmentError(InvalidRequestError):
    """Raised when the server has no environment of that name.

    Example:
        >>> from ors_gym import ORSEnv
        >>> ORSEnv("nowhere").reset()
        Traceback (most recent call last):
            ...
        ors_gym.errors.UnknownEnvironmentError: ... no environment 'nowhere'; it has ...
    """

    kind = "unknown_environment"


class UnknownTaskError(InvalidRequestError):
    """Raised when there is no such split, or no such task in it.

    Example:
        >>> from ors_gym import ORSEnv
        >>> ORSEnv("guess", split="nowhere").reset()
        Traceback (most recent call last):
            ...
        ors_gym.errors.UnknownTaskError: there is no split 'nowhere'; the splits: ...
    """

    kind = "unknown_task"


class InvalidArgumentError(InvalidRequestError, ValueError, TypeError):
    """Raised for a value that cannot be an action, such as a number or None.

    A vector env also raises it for actions, seeds or options that cannot be right.
    Gymnasium's own envs raise ValueError or TypeError then; this is both.

    Example:
        >>> from ors_gym import ORSEnv
        >>> env = ORSEnv("guess")
        >>> observation, info = env.reset(seed=0)
        >>> env.step(7)
        Traceback (most recent call last):
            ...
        ors_gym.errors.InvalidArgumentError: step() was given a number, ...
        >>> env.close()
    """

    kind = "invalid_argument"


class UnknownToolsetError(InvalidRequestError):
    """Raised when the server has no toolset of that name, or none for this task.

    Example:
        >>> issubclass(UnknownToolsetError, InvalidRequestError)
        True
    """

    kind = "unknown_toolset"


class InsecureTransportError(InvalidRequestError):
    """Raised before a key or a secret would travel over plain http.

    Example:
        >>> from ors_gym import ORSClient
        >>> ORSClient("http://example.com", api_key="key").list_environments()
        Traceback (most recent call last):
            ...
        ors_gym.errors.InsecureTransportError: an API key would travel in the clear ...
    """

    kind = "insecure_transport"


class SchemaError(InvalidRequestError):
    """Raised when a tool's JSON Schema cannot be sampled or enumerated.

    Example:
        >>> from ors_gym.spaces import ToolCallSpace
        >>> schema = {"properties": {"x": {"type": "word"}}, "required": ["x"]}
        >>> tool = {"name": "say", "description": "", "input_schema": schema}
        >>> ToolCallSpace([tool]).sample()
        Traceback (most recent call last):
            ...
        ors_gym.errors.SchemaError: tool 'say': input: at #/properties/x/type: ...
    """

    kind = "schema"


class SetupFailedError(ORSError):
    """Raised when the environment's own set-up raised on the server.

    Example:
        >>> SetupFailedError("environment 'shop' failed to start").outage
        False
    """

    kind = "setup_failed"


class SessionLostError(ORSError):
    """Raised when the server no longer has the session.

    Example:
        >>> error = SessionLostError("the server was restarted")
        >>> error.kind, error.outage
        ('session_lost', True)
    """

    kind = "session_lost"
    outage = True


class SessionClosedError(ORSError):
    """Raised when a session is used after this process closed it.

    Example:
        >>> from ors_gym import ORSClient
        >>> from ors_gym.server import embedded_base_url
        >>> with ORSClient(embedded_base_url()) as client:
        ...     with client.session("guess", split="train", index=0) as session:
        ...         pass
        ...     session.get_prompt()
        Traceback (most recent call last):
            ...
        ors_gym.errors.SessionClosedError: ... was closed; open a new session
    """

    kind = "session_closed"


class AmbiguousCallError(ORSError):
    """Raised when a tool may have run but its result is lost.

    The call is never sent again. If the server had named its ``task_id``,
    ``Session.resume_call(task_id)`` asks for the result once more.

    Example:
        >>> error = AmbiguousCallError("the reply was lost", task_id="7f")
        >>> error.kind, error.outage, error.task_id
        ('ambiguous_call', True, '7f')
    """

    kind = "ambiguous_call"
    outage = True
    task_id: str = ""
    """The server's id of the call, or ``""`` if it never named one."""


class CallTimeoutError(AmbiguousCallError):
    """Raised when the deadline of a tool call passed; the tool may still run.

    Example:
        >>> error = CallTimeoutError("not answered in 600 s")
        >>> error.kind, isinstance(error, AmbiguousCallError)
        ('timeout', True)
    """

    kind = "timeout"


class ToolFailedError(ORSError):
    """Raised when a tool raised on the server; its session stays open.

    Example:
        >>> error = ToolFailedError("ZeroDivisionError: division by zero")
        >>> error.kind, error.outage
        ('tool_failed', False)
    """

    kind = "tool_failed"


class ToolRejectedError(ORSError):
    """Raised when the server refused a call (``ok: false``); nothing ran.

    Example:
        >>> from ors_gym import ORSClient
        >>> from ors_gym.server import embedded_base_url
        >>> with (
        ...     ORSClient(embedded_base_url()) as client,
        ...     client.session("guess", split="train", index=0) as session,
        ... ):
        ...     session.call_tool("jump", {})
        Traceback (most recent call last):
            ...
        ors_gym.errors.ToolRejectedError: 'jump' is not a valid tool
    """

    kind = "invalid_action"
    reason: str = ""
    """The server's reason, such as ``not_found``, or ``""`` if it gives none."""
    original: str = ""
    """The server's own words where the message is a shorter form of them."""


class ReplayDiffersError(ORSError):
    """Raised when an environment does not answer as in the episode that is revived.

    Example:
        >>> error = ReplayDiffersError("another text", step=2, what="blocks")
        >>> error.step, error.what
        (2, 'blocks')
    """

    kind = "replay_differs"
    step: int = -1
    """The number of the step, from 0; -1 for the prompt."""
    what: str = ""
    """What differs: ``prompt``, a field of the step, or ``steps`` for their number."""


class EpisodeOverError(ORSError, ResetNeeded):
    """Raised when an env is stepped before a reset, after its end, or closed.

    Example:
        >>> from ors_gym import ORSEnv
        >>> ORSEnv("guess").step({"tool": "guess", "input": {"number": 8}})
        Traceback (most recent call last):
            ...
        ors_gym.errors.EpisodeOverError: cannot step the env: it was not reset yet; ...
    """

    kind = "episode_over"


class IncompleteGroupError(ORSError):
    """Raised when outages left a group of rollouts short of outcomes.

    Example:
        >>> IncompleteGroupError("2 of 8 rollouts have no outcome").kind
        'incomplete_group'
    """

    kind = "incomplete_group"


class MissingExtraError(ORSError, ImportError):
    """Raised when an optional dependency is missing; says how to install it.

    Example:
        >>> import_extra("no_such_module", "eval", "A plot")
        Traceback (most recent call last):
            ...
        ors_gym.errors.MissingExtraError: A plot needs a library that is missing ...
    """

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
