"""The arguments of an env, declared and checked once for every kind of env."""

from __future__ import annotations

import dataclasses
import inspect
import math
import os
from collections.abc import Callable, Mapping
from typing import Any, Final, Literal, Self, TypeAlias, TypeVar, cast, get_args

from ors_gym.env._task_order import TaskOrder, TaskSet
from ors_gym.errors import InvalidRequestError
from ors_gym.protocol._exchange import check_seconds
from ors_gym.protocol._redaction import is_secret_name, takes_secrets
from ors_gym.spaces._narrow_tools import ToolSchemas, check_tool_schemas
from ors_gym.types import Secrets, TerminalToolAs

F = TypeVar("F", bound=Callable[..., None])

_CHOICES: Final = {
    "observation_mode": ("text", "dict"),
    "action_mode": ("tool_call", "text"),
    "plain_text": ("invalid", "submit"),
    "terminal_tool_as": ("both", "tool", "text"),
    "on_error": ("raise", "truncate"),
    "render_mode": ("ansi", "human", "rgb_array", None),
}
OnToolError: TypeAlias = Literal["observe", "raise", "truncate"]
"""What becomes of a tool that raised: an observation, an exception, or the end."""
UNPICKLED: Final = {"": "secrets do not travel in a pickle"}
"""Stands for the secrets of an unpickled env, which must not run without them."""
CLIENT_ARGUMENTS: Final = ("api_key", "headers", "client_options")
"""Arguments of an env that its own client is made with."""
_LEFT_OUT: Final = ("api_key", "secrets", "env_overrides", "client", "transport")


@dataclasses.dataclass(frozen=True, kw_only=True)
class TaskEnvSettings:
    """The arguments of a `TaskEnv`; `ors_gym.env.ORSEnv` documents them.

    Raises InvalidRequestError if one of them cannot be right.
    """

    env_name: str
    base_url: str | None = None
    split: str | None = None
    observation_mode: Literal["text", "dict"] = "text"
    action_mode: Literal["tool_call", "text"] = "tool_call"
    plain_text: Literal["invalid", "submit"] = "invalid"
    terminal_tool_as: TerminalToolAs = "both"
    tool_schemas: ToolSchemas | None = None
    max_episode_steps: int | None = None
    call_timeout: float = 600.0
    setup_timeout: float = 600.0
    invalid_action_reward: float = 0.0
    on_tool_error: OnToolError | Mapping[str, OnToolError] = "observe"
    on_error: Literal["raise", "truncate"] = "raise"
    render_mode: str | None = None
    api_key: str | None = dataclasses.field(default=None, repr=False)
    secrets: Secrets | None = dataclasses.field(default=None, repr=False)
    toolset: str | None = None
    env_overrides: Mapping[str, str] | None = dataclasses.field(
        default=None, repr=False
    )
    headers: Mapping[str, str] | None = dataclasses.field(default=None, repr=False)
    create_options: Mapping[str, Any] | None = None
    session_options: Mapping[str, Any] | None = None
    client_options: Mapping[str, Any] | None = dataclasses.field(
        default=None, repr=False
    )

    def __post_init__(self) -> None:
        if self.env_name in ("", None):
            raise InvalidRequestError(
                "env_name= is missing: pass the name of an environment on the server; "
                "`ors-gym list URL` lists them"
            )
        if not isinstance(self.env_name, str):
            raise InvalidRequestError(
                f"env_name is the name of an environment on the server, "
                f"not {self.env_name!r}"
            )
        for name, choices in _CHOICES.items():
            value = getattr(self, name)
            if value not in choices:
                listed = " or ".join(repr(choice) for choice in choices)
                raise InvalidRequestError(f"{name} is {value!r}; it must be {listed}")
        _check_on_tool_error(self.on_tool_error)
        for name in ("call_timeout", "setup_timeout"):
            check_seconds(name, getattr(self, name))
        if self.max_episode_steps is not None and self.max_episode_steps < 1:
            raise InvalidRequestError("max_episode_steps must be at least 1")
        if not math.isfinite(self.invalid_action_reward):
            raise InvalidRequestError("invalid_action_reward must be a finite number")
        check_tool_schemas(self.tool_schemas)

    @classmethod
    def read(cls, owner: str, arguments: Mapping[str, Any]) -> Self:
        """Make settings of the arguments that the class named ``owner`` was given."""
        known = {field.name for field in dataclasses.fields(cls)}
        for name in arguments:
            if name not in known:
                raise TypeError(f"{owner} got an unexpected keyword argument {name!r}")
        return cls(**arguments)

    def on_error_of(self, tool: str) -> OnToolError:
        """Return what becomes of this tool's failure."""
        if isinstance(self.on_tool_error, Mapping):
            return self.on_tool_error.get(tool, "observe")
        return self.on_tool_error

    def session_arguments(self) -> dict[str, Any]:
        """Return what every session of the env is opened with."""
        return {
            "secrets": self.secrets,
            "toolset": self.toolset,
            "env_overrides": self.env_overrides,
            "create_options": self.create_options,
            "session_options": self.session_options,
            "call_timeout": self.call_timeout,
            "setup_timeout": self.setup_timeout,
        }

    def client_arguments(self) -> dict[str, Any]:
        """Return what the env's own client is made with, beside its address."""
        return merge_client_arguments(vars(self))

    def without_client_arguments(self) -> dict[str, Any]:
        """Return the arguments of an env that is given the client of these settings."""
        return {k: v for k, v in vars(self).items() if k not in CLIENT_ARGUMENTS}


@dataclasses.dataclass(frozen=True, kw_only=True)
class EnvSettings(TaskEnvSettings):
    """The arguments of an env that chooses its tasks itself."""

    tasks: TaskSet | None = None
    task_order: TaskOrder = "sequential"
    task_offset: int = 0
    task_stride: int = 1
    prefetch: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if not isinstance(self.prefetch, bool):
            raise InvalidRequestError(
                f"prefetch is {self.prefetch!r}; it must be True or False"
            )


def shows_settings(
    settings: type[TaskEnvSettings], **defaults: Any
) -> Callable[[F], F]:
    """Let a constructor's signature show each setting in place of ``**arguments``.

    ``defaults`` are those that differ from the defaults of the settings. The
    constructor gets secrets that no traceback shows.
    """

    def decorate(constructor: F) -> F:
        construct = takes_secrets(constructor)
        signature = inspect.signature(constructor)
        parameters = {
            name: parameter
            for name, parameter in signature.parameters.items()
            if parameter.kind is not parameter.VAR_KEYWORD
        }
        for field in dataclasses.fields(settings):
            shown = inspect.Parameter(
                field.name,
                inspect.Parameter.KEYWORD_ONLY,
                default=defaults.get(field.name, field.default),
                annotation=field.type,
            )
            parameters.setdefault(field.name, shown)
        construct.__signature__ = signature.replace(  # type: ignore[attr-defined]
            parameters=list(parameters.values())
        )
        return cast(F, construct)

    return decorate


def _check_on_tool_error(value: object) -> None:
    given = value if isinstance(value, Mapping) else {"": value}
    for tool, choice in given.items():
        if choice not in get_args(OnToolError) or not isinstance(tool, str):
            listed = " or ".join(map(repr, get_args(OnToolError)))
            raise InvalidRequestError(
                f"on_tool_error is {value!r}; it must be {listed}, or a table of these "
                'by tool, such as {"submit": "raise"}'
            )


def without_secrets(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Leave out the arguments that hold a secret: for an ``EnvSpec``, a pickle, a log.

    Example:
        >>> without_secrets({"env_name": "math", "api_key": "hunter22"})
        {'env_name': 'math'}
        >>> without_secrets({"headers": {"X-Deployment": "a/b", "Authorization": "x"}})
        {'headers': {'X-Deployment': 'a/b'}}
    """
    kept = {k: v for k, v in arguments.items() if k not in _LEFT_OUT}
    if kept.get("headers"):
        kept["headers"] = {
            # A text that shows itself again: it is no secret.
            name: str(value)
            for name, value in kept["headers"].items()
            if not is_secret_name(name)
        }
    if kept.get("client_options"):
        kept["client_options"] = without_secrets(kept["client_options"])
    return kept


def spec_arguments(arguments: Mapping[str, Any], base_url: str) -> dict[str, Any]:
    """Return an env's arguments for its ``EnvSpec``, without the secrets.

    In place of a client, which a spec cannot hold, is the address of its server.
    """
    kept = without_secrets(arguments)
    if arguments.get("client") is not None:
        kept["base_url"] = base_url
    return kept


def find_server(base_url: str | None) -> str:
    """Return the given address, else ``ORS_BASE_URL``, else the embedded server's.

    An empty address, which ``ors/remote`` has, stands for ``ORS_BASE_URL`` only.

    The embedded server is started if it does not run yet.
    """
    if base_url:
        return base_url
    if from_environment := os.environ.get("ORS_BASE_URL"):
        return from_environment
    if base_url is not None:
        raise InvalidRequestError(
            'no server is named: pass base_url="http://host:8080", or set ORS_BASE_URL,'
            ' or take a bundled environment by its own id, as gym.make("ors/math")'
        )
    # Imported here, as most users never need it.
    from ors_gym.server import embedded_base_url  # noqa: PLC0415

    return embedded_base_url()


def merge_client_arguments(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a client is made with, of the arguments of an env.

    ``api_key`` and ``headers`` may be among ``client_options``, too, but not in both.
    """
    merged = {**(arguments.get("client_options") or {})}
    for name in ("api_key", "headers"):
        given = arguments.get(name)
        if given is None:
            continue
        if merged.get(name) is not None:
            raise InvalidRequestError(
                f"{name}= is given twice: it is in client_options as well; pass it once"
            )
        merged[name] = given
    return merged


def refuse_client_arguments(arguments: Mapping[str, Any]) -> None:
    """Refuse, beside a client, the arguments that a client is made with."""
    for name in CLIENT_ARGUMENTS:
        if arguments.get(name) is not None:
            raise InvalidRequestError(
                f"{name}= is of no use beside a client, which has its own: pass it to "
                "ORSClient or AsyncORSClient"
            )
