"""A way in which a call is made: a column of the matrix of faults."""

from __future__ import annotations

import abc
import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar, Final

import ors_gym
from tests.support.proxy.proxy import FaultProxy

__all__ = ["RESULT", "USUAL", "Column", "Options", "Shown", "failed"]

RESULT: Final = "result"
_PLENTY: Final = 20.0


@dataclasses.dataclass(frozen=True, slots=True)
class Shown:
    """What the user of a column sees of a call.

    Args:
        outcome: `RESULT`, or the ``kind`` of an error.
        text: The result's text, or what the error says.
        reward: The result's reward.
        task_id: What the error names for `resume_call`.
        wrong: What else is not as it should be; "" if nothing.
    """

    outcome: str
    text: str
    reward: float = 0.0
    task_id: str = ""
    wrong: str = ""


@dataclasses.dataclass(frozen=True, slots=True)
class Options:
    """What a session is opened with.

    Args:
        call_timeout: Seconds for a call.
        setup_timeout: Seconds for opening.
        for_client: What the client is made with.
    """

    call_timeout: float = _PLENTY
    setup_timeout: float = _PLENTY
    for_client: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    def for_session(self) -> dict[str, Any]:
        """Return the keyword arguments of a session."""
        return {
            "call_timeout": self.call_timeout,
            "setup_timeout": self.setup_timeout,
        }

    def for_env(self) -> dict[str, Any]:
        """Return the keyword arguments of an env."""
        return {**self.for_session(), "client_options": self.for_client}


USUAL: Final = Options()


def failed(error: ors_gym.ORSError) -> Shown:
    """Return what the user sees of an error."""
    task_id = getattr(error, "task_id", "")
    return Shown(error.kind, str(error), task_id=task_id)


class Column(abc.ABC):
    """One way to play, on one session that is to be harmed.

    Args:
        url: The server, or the proxy before it.
        options: What the session is opened with.
    """

    name: ClassVar[str]

    def __init__(self, url: str, options: Options) -> None:
        self.url = url
        self.options = options
        self.opened = False
        """Whether `open` went well."""
        self.bystander_is_safe = True
        """Whether the fault is the victim's alone."""

    @property
    @abc.abstractmethod
    def victim(self) -> str | None:
        """The id of the session that is to be harmed; None while it is not open."""

    @property
    def bystander(self) -> str | None:
        """The id of the session that is not to be harmed, if there is one."""
        return None

    def start(self) -> Shown | None:
        """Open a session and get its prompt; returns why that failed."""
        failed = self.open()
        self.opened = failed is None
        return failed

    @abc.abstractmethod
    def open(self) -> Shown | None:
        """Do what `start` says."""

    @abc.abstractmethod
    def call(self, tool: str, arguments: Mapping[str, Any]) -> Shown:
        """Call a tool once."""

    @abc.abstractmethod
    def after(self, shown: Shown, proxy: FaultProxy) -> str:
        """Go on once the network is well again; returns what is wrong then."""

    @abc.abstractmethod
    def close(self) -> None:
        """Close whatever is open."""
