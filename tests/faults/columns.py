"""The ways in which a call is made: the columns of the matrix of faults."""

from __future__ import annotations

import abc
import asyncio
import dataclasses
from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import Any, ClassVar, Final, Literal, TypeVar

import ors_gym
from ors_gym.vector import ORSVectorEnv
from tests.proxy.proxy import FaultProxy

__all__ = ["COLUMNS", "RESULT", "USUAL", "Column", "Options", "Shown"]

T = TypeVar("T")

RESULT: Final = "result"
_PLENTY: Final = 20.0
_COUNT: Final = "count"


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
    """

    call_timeout: float = _PLENTY
    setup_timeout: float = _PLENTY

    def as_arguments(self) -> dict[str, Any]:
        """Return them as keyword arguments."""
        return {
            "call_timeout": self.call_timeout,
            "setup_timeout": self.setup_timeout,
        }


USUAL: Final = Options()


def _failed(error: ors_gym.ORSError) -> Shown:
    task_id = getattr(error, "task_id", "")
    return Shown(error.kind, str(error), task_id=task_id)


def _given(output: Mapping[str, Any]) -> Shown:
    text = "\n\n".join(block["text"] for block in output["blocks"])
    return Shown(RESULT, text, output["reward"] or 0.0)


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


def _check_refused(call: Callable[[], Shown], proxy: FaultProxy) -> str:
    """Check that a session whose call has an unknown end takes no other."""
    sent = len(proxy.requests("/call"))
    again = call()
    if again.outcome == RESULT or len(proxy.requests("/call")) > sent:
        return f"another call went out on a session in doubt: {again}"
    return ""


def _check_resumed(resume: Callable[[str], Shown], shown: Shown) -> str:
    """Check that the result of a call that was cut off can still be had."""
    if not shown.task_id:
        return ""
    resumed = resume(shown.task_id)
    # Unless the server keeps no result, or is not the one that had it.
    if resumed.outcome in (RESULT, "session_lost"):
        return ""
    if resumed.outcome == "ambiguous_call" and "no longer has" in resumed.text:
        return ""
    return f"not resumed: {resumed}"


_IN_DOUBT: Final = ("ambiguous_call", "timeout", "session_lost", "protocol")
"""What a session does not go on after."""


class BlockingSession(Column):
    """`ORSClient` and its session."""

    name = "ORSClient"

    def __init__(self, url: str, options: Options) -> None:
        super().__init__(url, options)
        self._client = ors_gym.ORSClient(url)
        self._session: ors_gym.Session | None = None

    @property
    def victim(self) -> str | None:
        return self._session.session_id if self._session is not None else None

    def open(self) -> Shown | None:
        try:
            session = self._client.session(
                "contract", split="train", index=0, **self.options.as_arguments()
            )
            self._session = session.open()
            session.get_prompt()
            session.list_tools()
        except ors_gym.ORSError as error:
            return _failed(error)
        return None

    def call(self, tool: str, arguments: Mapping[str, Any]) -> Shown:
        assert self._session is not None
        try:
            return _given(self._session.call_tool(tool, arguments))
        except ors_gym.ORSError as error:
            return _failed(error)

    def _resume(self, task_id: str) -> Shown:
        assert self._session is not None
        try:
            return _given(self._session.resume_call(task_id, timeout=_PLENTY))
        except ors_gym.ORSError as error:
            return _failed(error)

    def after(self, shown: Shown, proxy: FaultProxy) -> str:
        if not self.opened or shown.outcome not in _IN_DOUBT:
            return ""
        wrong = _check_refused(lambda: self.call(_COUNT, {}), proxy)
        return wrong or _check_resumed(self._resume, shown)

    def close(self) -> None:
        if self._session is not None:
            self._session.close()
        self._client.close()


class AsyncioSession(Column):
    """`AsyncORSClient` and its session."""

    name = "AsyncORSClient"

    def __init__(self, url: str, options: Options) -> None:
        super().__init__(url, options)
        self._runner = asyncio.Runner(loop_factory=asyncio.new_event_loop)
        self._client = ors_gym.AsyncORSClient(url)
        self._session: ors_gym.AsyncSession | None = None

    def _run(self, work: Coroutine[Any, Any, T]) -> T:
        return self._runner.run(work)

    @property
    def victim(self) -> str | None:
        return self._session.session_id if self._session is not None else None

    def open(self) -> Shown | None:
        try:
            self._run(self._open())
        except ors_gym.ORSError as error:
            return _failed(error)
        return None

    async def _open(self) -> None:
        session = self._client.session(
            "contract", split="train", index=0, **self.options.as_arguments()
        )
        self._session = await session.open()
        await session.get_prompt()
        await session.list_tools()

    def call(self, tool: str, arguments: Mapping[str, Any]) -> Shown:
        assert self._session is not None
        try:
            return _given(self._run(self._session.call_tool(tool, arguments)))
        except ors_gym.ORSError as error:
            return _failed(error)

    def _resume(self, task_id: str) -> Shown:
        assert self._session is not None
        try:
            resumed = self._session.resume_call(task_id, timeout=_PLENTY)
            return _given(self._run(resumed))
        except ors_gym.ORSError as error:
            return _failed(error)

    def after(self, shown: Shown, proxy: FaultProxy) -> str:
        if not self.opened or shown.outcome not in _IN_DOUBT:
            return ""
        wrong = _check_refused(lambda: self.call(_COUNT, {}), proxy)
        return wrong or _check_resumed(self._resume, shown)

    def close(self) -> None:
        self._run(self._close())
        self._runner.close()

    async def _close(self) -> None:
        if self._session is not None:
            await self._session.close()
        await self._client.aclose()


class _Env(Column):
    """`ORSEnv`, in one of its ways to treat an outage."""

    on_error: ClassVar[Literal["raise", "truncate"]]

    def __init__(self, url: str, options: Options) -> None:
        super().__init__(url, options)
        self._env: ors_gym.ORSEnv | None = None

    @property
    def victim(self) -> str | None:
        return self._env.session_id if self._env is not None else None

    def open(self) -> Shown | None:
        try:
            self._env = ors_gym.ORSEnv(
                "contract",
                self.url,
                on_error=self.on_error,
                **self.options.as_arguments(),
            )
            self._env.reset(seed=0)
        except ors_gym.ORSError as error:
            return _failed(error)
        return None

    def call(self, tool: str, arguments: Mapping[str, Any]) -> Shown:
        assert self._env is not None
        action = {"tool": tool, "input": dict(arguments)}
        try:
            observation, reward, _, truncated, info = self._env.step(action)
        except ors_gym.ORSError as error:
            quiet = error.outage and self.on_error == "truncate"
            return dataclasses.replace(
                _failed(error), wrong="an outage was raised" if quiet else ""
            )
        kind = info["error_kind"] or RESULT
        wrong = ""
        if truncated is not (kind != RESULT) or (kind != RESULT and reward != 0.0):
            wrong = f"truncated is {truncated}, the reward {reward}"
        return Shown(kind, observation, float(reward), wrong=wrong)

    def after(self, shown: Shown, proxy: FaultProxy) -> str:
        if self._env is None:
            return ""
        if shown.outcome != RESULT:
            try:
                self._env.step({"tool": _COUNT, "input": {}})
            except (ors_gym.EpisodeOverError, ors_gym.SessionClosedError):
                self._env.reset()
            else:
                return "an episode went on after its end"
        again = self.call(_COUNT, {})
        return "" if again.outcome == RESULT else f"no episode follows: {again}"

    def close(self) -> None:
        if self._env is not None:
            self._env.close()


class RaisingEnv(_Env):
    """`ORSEnv` that raises an outage."""

    name = "ORSEnv, raise"
    on_error = "raise"


class TruncatingEnv(_Env):
    """`ORSEnv` that ends the episode at an outage."""

    name = "ORSEnv, truncate"
    on_error = "truncate"


class VectorEnv(Column):
    """`ORSVectorEnv` of two, of which the first is harmed."""

    name = "ORSVectorEnv"

    def __init__(self, url: str, options: Options) -> None:
        super().__init__(url, options)
        self._envs: ORSVectorEnv | None = None

    @property
    def victim(self) -> str | None:
        if self._envs is None:
            return None
        victim: str | None = self._envs.get_attr("session_id")[0]
        return victim

    @property
    def bystander(self) -> str | None:
        if self._envs is None:
            return None
        bystander: str | None = self._envs.get_attr("session_id")[1]
        return bystander

    def open(self) -> Shown | None:
        try:
            self._envs = ORSVectorEnv(
                "contract", self.url, num_envs=2, **self.options.as_arguments()
            )
            texts, infos = self._envs.reset(seed=0)
        except ors_gym.ORSError as error:
            return _failed(error)
        kinds = [str(kind) for kind in infos["error_kind"] if kind]
        return Shown(kinds[0], texts[0]) if kinds else None

    def call(self, tool: str, arguments: Mapping[str, Any]) -> Shown:
        assert self._envs is not None
        action = {"tool": tool, "input": dict(arguments)}
        try:
            steps = self._envs.step([action, {"tool": _COUNT, "input": {}}])
        except ors_gym.ORSError as error:
            quiet = "an outage was raised" if error.outage else ""
            return dataclasses.replace(_failed(error), wrong=quiet)
        texts, rewards, _, truncations, infos = steps
        kind = str(infos["error_kind"][0] or RESULT)
        wrong = ""
        if bool(truncations[0]) is not (kind != RESULT):
            wrong = f"truncated is {truncations[0]}"
        neighbour = (texts[1], float(rewards[1]), str(infos["error_kind"][1]))
        if self.bystander_is_safe and (neighbour != ("1", 1.0, "") or truncations[1]):
            wrong = f"the neighbour saw {neighbour}"
        return Shown(kind, texts[0], float(rewards[0]), wrong=wrong)

    def after(self, shown: Shown, proxy: FaultProxy) -> str:
        if self._envs is None:
            return ""
        action = {"tool": _COUNT, "input": {}}
        if not (self.opened and self.bystander_is_safe):
            self._envs.reset()
        try:
            # One that ended is reset by the first of these steps.
            first = self._envs.step([action, action])
        except ors_gym.EpisodeOverError:
            # It raised what is no outage: all are reset.
            self._envs.reset()
            first = self._envs.step([action, action])
        second = self._envs.step([action, action])
        kinds = [*first[4]["error_kind"], *second[4]["error_kind"]]
        if any(kinds) or list(second[1]) != [1.0, 1.0]:
            return f"the envs do not go on: {kinds} {second}"
        return ""

    def close(self) -> None:
        if self._envs is not None:
            self._envs.close()


COLUMNS: Final[Sequence[type[Column]]] = (
    BlockingSession,
    AsyncioSession,
    RaisingEnv,
    TruncatingEnv,
    VectorEnv,
)
