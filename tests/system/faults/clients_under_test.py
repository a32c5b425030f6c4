"""The ways to call a tool that the matrix of faults compares."""

import abc
import asyncio
import concurrent.futures
import dataclasses
import json
import queue
import threading
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Final, Literal

import ors_gym
from ors_gym.rollout import (
    Episode,
    Generated,
    Group,
    LiveEpisode,
    TokenPolicy,
    stream_groups,
)
from ors_gym.vector import ORSVectorEnv
from tests.rollout.small_tokenizer import SmallTokenizer
from tests.support.proxy.proxy import FaultProxy

RESULT: Final = "result"
_PLENTY: Final = 20.0
_LONGEST: Final = 110.0
"""Seconds after which a test has hung."""
_COUNT: Final = {"tool": "count", "input": {}}
_IN_DOUBT: Final = ("ambiguous_call", "timeout", "session_lost", "protocol")
"""What a session does not go on after."""


@dataclasses.dataclass(frozen=True, slots=True)
class Shown:
    outcome: str  # `RESULT`, or the ``kind`` of an error
    text: str
    reward: float = 0.0
    task_id: str = ""  # what the error names for `resume_call`
    wrong: str = ""  # what else is not as it should be


@dataclasses.dataclass(frozen=True, slots=True)
class Options:
    call_timeout: float = _PLENTY
    setup_timeout: float = _PLENTY
    for_client: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    @property
    def timeouts(self) -> dict[str, float]:
        return {"call_timeout": self.call_timeout, "setup_timeout": self.setup_timeout}


USUAL: Final = Options()


def _failed(error: ors_gym.ORSError, wrong: str = "") -> Shown:
    task_id = getattr(error, "task_id", "")
    return Shown(error.kind, str(error), task_id=task_id, wrong=wrong)


class ClientUnderTest(abc.ABC):
    """One way to play, on one session that is to be harmed."""

    name: ClassVar[str]

    def __init__(self, url: str, options: Options) -> None:
        self.url = url
        self.options = options
        self.opened = False  # whether `open` went well
        self.bystander_is_safe = True  # whether the fault is the victim's alone

    @property
    @abc.abstractmethod
    def victim(self) -> str | None:
        """The id of the session that is to be harmed; None while it is not open."""

    @property
    def bystander(self) -> str | None:
        return None

    def start(self) -> Shown | None:
        """Open a session and get its prompt; returns why that failed."""
        try:
            failure = self.open()
        except ors_gym.ORSError as error:
            failure = _failed(error)
        self.opened = failure is None
        return failure

    @abc.abstractmethod
    def open(self) -> Shown | None:
        """Do what `start` says, or raise."""

    @abc.abstractmethod
    def call(self, tool: str, arguments: Mapping[str, Any]) -> Shown:
        """Call a tool once."""

    @abc.abstractmethod
    def after(self, shown: Shown, proxy: FaultProxy) -> str:
        """Go on once the network is well again; returns what is wrong then."""

    @abc.abstractmethod
    def close(self) -> None:
        """Close whatever is open."""


class BlockingSession(ClientUnderTest):
    name = "ORSClient"
    client_class: ClassVar[Any] = ors_gym.ORSClient
    _session: Any = None

    def __init__(self, url: str, options: Options) -> None:
        super().__init__(url, options)
        self._client = self.client_class(url, **options.for_client)

    def done(self, result: Any) -> Any:
        """Return what a method of the client gave, awaited if need be."""
        return result

    @property
    def victim(self) -> str | None:
        return self._session.session_id if self._session is not None else None

    def open(self) -> None:
        timeouts = self.options.timeouts
        session = self._client.session("contract", split="train", index=0, **timeouts)
        self._session = self.done(session.open())
        self.done(session.get_prompt())
        self.done(session.list_tools())

    def call(self, tool: str, arguments: Mapping[str, Any]) -> Shown:
        try:
            output = self.done(self._session.call_tool(tool, arguments))
        except ors_gym.ORSError as error:
            return _failed(error)
        text = "\n\n".join(block["text"] for block in output["blocks"])
        return Shown(RESULT, text, output["reward"] or 0.0)

    def after(self, shown: Shown, proxy: FaultProxy) -> str:
        if not self.opened or shown.outcome not in _IN_DOUBT:
            return ""
        sent = len(proxy.requests("/call"))
        again = self.call("count", {})
        if again.outcome == RESULT or len(proxy.requests("/call")) > sent:
            return f"another call went out on a session in doubt: {again}"
        return self._check_resumed(shown.task_id) if shown.task_id else ""

    def _check_resumed(self, task_id: str) -> str:
        try:
            self.done(self._session.resume_call(task_id, timeout=_PLENTY))
        except ors_gym.SessionLostError:
            return ""  # this server is not the one that had it
        except ors_gym.ORSError as error:
            kept_none = error.kind == "ambiguous_call" and "no longer has" in str(error)
            return "" if kept_none else f"not resumed: {error}"
        return ""

    def close(self) -> None:
        if self._session is not None:
            self.done(self._session.close())
        self._client.close()


class AsyncioSession(BlockingSession):
    name = "AsyncORSClient"
    client_class = ors_gym.AsyncORSClient

    def __init__(self, url: str, options: Options) -> None:
        super().__init__(url, options)
        self._runner = asyncio.Runner(loop_factory=asyncio.new_event_loop)

    def done(self, result: Any) -> Any:
        return self._runner.run(result)

    def close(self) -> None:
        if self._session is not None:
            self.done(self._session.close())
        self.done(self._client.aclose())
        self._runner.close()


class _Env(ClientUnderTest):
    """`ORSEnv`, in one of its ways to treat an outage."""

    on_error: ClassVar[Literal["raise", "truncate"]]
    _env: ors_gym.ORSEnv | None = None

    @property
    def victim(self) -> str | None:
        return self._env.session_id if self._env is not None else None

    def open(self) -> None:
        given: Any = self.options.timeouts
        client_options = self.options.for_client
        self._env = ors_gym.ORSEnv(
            *("contract", self.url),
            on_error=self.on_error,
            client_options=client_options,
            **given,
        )
        self._env.reset(seed=0)

    def call(self, tool: str, arguments: Mapping[str, Any]) -> Shown:
        assert self._env is not None
        action = {"tool": tool, "input": dict(arguments)}
        try:
            observation, reward, _, truncated, info = self._env.step(action)
        except ors_gym.ORSError as error:
            quiet = error.outage and self.on_error == "truncate"
            return _failed(error, "an outage was raised" if quiet else "")
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
                self._env.step(_COUNT)
            except (ors_gym.EpisodeOverError, ors_gym.SessionClosedError):
                self._reset_unhurried()
            else:
                return "an episode went on after its end"
        again = self.call("count", {})
        return "" if again.outcome == RESULT else f"no episode follows: {again}"

    def _reset_unhurried(self) -> None:
        """Reset the env, twice where a row's short time is over on a busy machine."""
        assert self._env is not None
        try:
            self._env.reset()
        except ors_gym.ConnectionFailedError:
            self._env.reset()

    def close(self) -> None:
        if self._env is not None:
            self._env.close()


class RaisingEnv(_Env):
    name = "ORSEnv, raise"
    on_error = "raise"


class TruncatingEnv(_Env):
    name = "ORSEnv, truncate"
    on_error = "truncate"


class VectorEnv(ClientUnderTest):
    """`ORSVectorEnv` of two, of which the first is harmed."""

    name = "ORSVectorEnv"
    _envs: ORSVectorEnv | None = None

    def _session_id(self, number: int) -> str | None:
        ids = self._envs.get_attr("session_id") if self._envs is not None else ()
        return ids[number] if ids else None

    @property
    def victim(self) -> str | None:
        return self._session_id(0)

    @property
    def bystander(self) -> str | None:
        return self._session_id(1)

    def open(self) -> Shown | None:
        given: Any = self.options.timeouts
        client_options = self.options.for_client
        self._envs = ORSVectorEnv(
            "contract", self.url, num_envs=2, client_options=client_options, **given
        )
        texts, infos = self._envs.reset(seed=0)
        kinds = [str(kind) for kind in infos["error_kind"] if kind]
        return Shown(kinds[0], texts[0]) if kinds else None

    def call(self, tool: str, arguments: Mapping[str, Any]) -> Shown:
        assert self._envs is not None
        action = {"tool": tool, "input": dict(arguments)}
        try:
            steps = self._envs.step([action, _COUNT])
        except ors_gym.ORSError as error:
            return _failed(error, "an outage was raised" if error.outage else "")
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
        if not (self.opened and self.bystander_is_safe):
            self._envs.reset()
        try:
            # One that ended is reset by the first of these steps.
            first = self._envs.step([_COUNT, _COUNT])
        except ors_gym.EpisodeOverError:
            # It raised what is no outage: all are reset.
            self._envs.reset()
            first = self._envs.step([_COUNT, _COUNT])
        second = self._envs.step([_COUNT, _COUNT])
        kinds = [*first[4]["error_kind"], *second[4]["error_kind"]]
        if any(kinds) or list(second[1]) != [1.0, 1.0]:
            return f"the envs do not go on: {kinds} {second}"
        return ""

    def close(self) -> None:
        if self._envs is not None:
            self._envs.close()


class _Driven:
    """A policy that does what another thread says, and tells it what came of that.

    No attempt but the first begins before ``go_on`` is set.
    """

    def __init__(self) -> None:
        self.told: queue.Queue[Shown | None] = queue.Queue()
        """None where the policy is to act, else what its action led to."""
        self.actions: asyncio.Queue[Any] = asyncio.Queue()
        self.go_on = asyncio.Event()

    async def __call__(self, episode: Episode) -> Any:
        step = episode.steps[-1] if episode.steps else None
        if step is None:
            self.told.put(None)
        else:
            text = "\n\n".join(block["text"] for block in step.blocks)
            self.told.put(Shown(step.error_kind or RESULT, text, step.reward))
        return await self.actions.get()

    async def end_episode(self, episode: Episode) -> None:
        if episode.total_reward is None:
            self.told.put(Shown(episode.error_kind, episode.error))
            await self.go_on.wait()


class StreamOfGroups(ClientUnderTest):
    """`stream_groups`, of one group of one rollout."""

    name = "stream_groups"

    def __init__(self, url: str, options: Options) -> None:
        super().__init__(url, options)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self._policy = _Driven()
        given: Any = options.timeouts
        self._stream = stream_groups(
            *(url, "contract", [0], self._policy),
            n=1,
            split="train",
            client_options=dict(options.for_client),
            **given,
        )
        self._taken: concurrent.futures.Future[Group] | None = None
        self._paid = 0.0

    @property
    def victim(self) -> str | None:
        return None  # it has one session

    def open(self) -> Shown | None:
        self._taken = asyncio.run_coroutine_threadsafe(self._take(), self._loop)
        return self._hear()

    async def _take(self) -> Group:
        try:
            return await anext(self._stream)
        except ors_gym.ORSError as error:
            self._policy.told.put(_failed(error))
            raise

    def _hear(self) -> Shown | None:
        return self._policy.told.get(timeout=_LONGEST)

    def _act(self, action: Any) -> None:
        self._loop.call_soon_threadsafe(self._policy.actions.put_nowait, action)

    def call(self, tool: str, arguments: Mapping[str, Any]) -> Shown:
        self._act({"tool": tool, "input": dict(arguments)})
        shown = self._hear()
        assert shown is not None
        self._paid = shown.reward if shown.outcome == RESULT else 0.0
        return shown

    def after(self, shown: Shown, proxy: FaultProxy) -> str:
        """Let the group end: with an outcome, whatever happened before."""
        self._loop.call_soon_threadsafe(self._policy.go_on.set)
        assert self._taken is not None
        if shown.outcome == "authentication":
            return "" if self._taken.exception(_LONGEST) else "it went on"
        lost = [] if shown.outcome == RESULT else [shown.outcome]
        if lost:
            while (again := self._hear()) is not None:
                lost.append(again.outcome)  # a row's short time is over
            self._act(_COUNT)
            self._paid = 1.0
        self._act(None)
        [episode] = self._taken.result(_LONGEST)
        if [one.kind for one in episode.attempts] != lost:
            return f"{lost} is recorded as {episode.attempts}"
        if episode.total_reward != self._paid:
            return f"{episode.total_reward} for what paid {self._paid}"
        return ""

    def close(self) -> None:
        self._loop.call_soon_threadsafe(self._policy.go_on.set)
        closing = self._stream.aclose()
        asyncio.run_coroutine_threadsafe(closing, self._loop).result(_LONGEST)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


class TokenRollout(ClientUnderTest):
    """An episode of `TokenPolicy`, one turn a call, its tokens compared each time."""

    name = "TokenPolicy"
    _live: LiveEpisode | None = None

    def __init__(self, url: str, options: Options) -> None:
        super().__init__(url, options)
        self._runner = asyncio.Runner(loop_factory=asyncio.new_event_loop)
        self._client = ors_gym.AsyncORSClient(url, **options.for_client)
        self._tokenizer = SmallTokenizer()
        self._policy = TokenPolicy(self._generate, self._tokenizer)
        self._says = ""
        self._seen: list[int] = []

    @property
    def victim(self) -> str | None:
        return self._live._env.session_id if self._live is not None else None

    def open(self) -> None:
        given: Any = self.options.timeouts
        self._live = LiveEpisode(self._client, "contract", 0, split="train", **given)
        self._runner.run(self._live.start())

    async def _generate(self, ids: list[int], *, stop: list[int], **_: Any) -> Any:
        assert ids[: len(self._seen)] == self._seen
        sampled = [*self._tokenizer.encode(self._says), stop[0]]
        self._seen = ids + sampled
        return Generated(sampled, [-1.0] * len(sampled), version=1)

    def call(self, tool: str, arguments: Mapping[str, Any]) -> Shown:
        assert self._live is not None
        self._says = json.dumps({"tool": tool, "input": dict(arguments)})
        try:
            self._runner.run(self._turn(self._live))
        except ors_gym.ORSError as error:
            paid = self._live.episode.total_reward is not None
            wrong = "an outage has a reward" if error.outage and paid else ""
            return _failed(error, wrong or self._compare())
        step = self._live.episode.steps[-1]
        text = "\n\n".join(block["text"] for block in step.reply)
        kind = step.error_kind or RESULT
        return Shown(kind, text, step.reward, wrong=self._compare())

    async def _turn(self, live: LiveEpisode) -> None:
        await live.take(await self._policy(live.episode))  # type: ignore[misc]

    def _compare(self) -> str:
        """Compare the sequence with what the engine read and sampled."""
        assert self._live is not None
        episode = Episode.from_json(self._live.episode.to_json())
        (sequence,) = episode.sequences()
        if sequence.ids != self._seen:
            return f"the tokens are not those of the engine: {sequence}"
        earned = sum(step.reward for step in episode.steps)
        paid = sequence.reward is None or sequence.reward == sum(sequence.rewards)
        return "" if paid and sum(sequence.rewards) == earned else f"paid: {sequence}"

    def after(self, shown: Shown, proxy: FaultProxy) -> str:
        if self.opened and shown.outcome != RESULT:
            again = self.call("count", {})
            if again.outcome != "episode_over":
                return f"an episode went on after its end: {again}"
        if not self.opened or shown.outcome != RESULT:
            self._seen = []
            if self._live is not None:
                self._runner.run(self._live.close())
            self.open()
        again = self.call("count", {})
        return "" if again.outcome == RESULT else f"no episode follows: {again}"

    def close(self) -> None:
        if self._live is not None:
            self._runner.run(self._live.close())
        self._runner.run(self._client.aclose())
        self._runner.close()


CLIENTS: Final[Sequence[type[ClientUnderTest]]] = (
    BlockingSession,
    AsyncioSession,
    RaisingEnv,
    TruncatingEnv,
    VectorEnv,
    StreamOfGroups,
    TokenRollout,
)
"""All of them, in the order in which the table names them."""
