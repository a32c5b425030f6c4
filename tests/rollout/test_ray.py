"""What of ``engine="ray"`` needs no Ray."""

import asyncio
import contextlib
import dataclasses
import functools
import json
import pickle
import sys
from collections.abc import AsyncIterator, Callable, Coroutine
from types import SimpleNamespace
from typing import Any

import pytest

from ors_gym.client import AsyncORSClient
from ors_gym.env._task_order import Task
from ors_gym.errors import (
    AuthenticationError,
    InvalidRequestError,
    MissingExtraError,
    ORSError,
)
from ors_gym.evaluation import Record, evaluate
from ors_gym.rollout import Attempt, Episode, Policy, Rules, _ray, stream_groups
from ors_gym.rollout._limits import Budget, RunLimits
from ors_gym.rollout._planned_rollout import Planned
from ors_gym.rollout._player import Turns
from ors_gym.rollout._ray import (
    RayScheduler,
    Worker,
    _pickle_error,
    read_played,
    write_planned,
)
from ors_gym.rollout._scheduler import Settings
from tests.evaluation.contract_evaluations import answer

PLANNED = Planned(Task("train", 3), 2)
NO_LIMITS = RunLimits()


@pytest.mark.unit
def test_without_ray_it_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(MissingExtraError, match=r'pip install "ors-gym\[ray\]"'):
        evaluate("http://127.0.0.1:9", "math", [0], answer, engine="ray")


@pytest.mark.unit
@pytest.mark.parametrize(
    "options",
    [
        {"engine": "dask"},
        {"actors": 2},
        {"actor_options": {"num_cpus": 1}},
        {"engine": "ray", "actors": 0},
    ],
)
def test_engines_that_cannot_be_right_are_refused(options):
    for play in (evaluate, stream_groups):
        with pytest.raises(InvalidRequestError):
            play("http://127.0.0.1:9", "math", [0], answer, **options)


@pytest.mark.unit
def test_a_row_travels_with_the_error_that_ended_it():
    episode = Episode("math", 3, "test", 1)
    episode.fail(AuthenticationError("no", status=401), "policy")
    row: dict[str, Any] = {"row": json.dumps(Record(episode, None).row())}
    row |= {"cause": b"", "raised": b""}
    assert read_played(row).episode == episode
    assert read_played(row).episode.cause is None
    found = read_played(row | {"cause": pickle.dumps(episode.cause)})
    assert isinstance(found.episode.cause, AuthenticationError)
    assert found.episode.cause.status == 401
    assert found.key == ("test", 3, 1)


class OwnError(Exception):
    """A class that another process may not know."""


class UnpicklableError(ValueError):
    def __reduce__(self):
        raise TypeError("it holds a lock")


class TwoPartsError(ORSError):
    """Takes other arguments than an exception keeps for its copy."""

    def __init__(self, what: str, why: str) -> None:
        super().__init__(f"{what}: {why}")


@pytest.mark.unit
@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (ZeroDivisionError("x"), ZeroDivisionError),
        (AuthenticationError("x"), AuthenticationError),
        (SystemExit("x"), SystemExit),
        (KeyboardInterrupt("x"), KeyboardInterrupt),
        (OwnError("x"), ORSError),
        (UnpicklableError("x"), ORSError),
        (TwoPartsError("x", "y"), ORSError),
        (GeneratorExit("x"), SystemExit),
    ],
)
def test_what_is_raised_on_a_worker_is_raised_here(error, kind):
    reply = {"row": "", "cause": b"", "raised": _pickle_error(error)}
    with pytest.raises(kind, match="x") as raised:
        read_played(reply)
    assert type(raised.value) is kind


@pytest.mark.unit
def test_a_rollout_that_was_cancelled_on_a_worker_is_cancelled_here():
    with pytest.raises(asyncio.CancelledError):
        read_played({"row": "", "cause": b"", "raised": b""})


def make_settings(make_policy: Callable[[], Policy], env_name: str = "x") -> Settings:
    return Settings(
        env_name=env_name,
        make_policy=make_policy,
        rules=Rules(),
        max_concurrent=3,
        seed=7,
        env_arguments={},
    )


class LostError(Exception):
    """What Ray raises of an actor that is gone."""


LostError.__module__ = "ray.exceptions"


class _Method:
    """A method of an actor; a call of it begins at once."""

    def __init__(self, work: Callable[..., Coroutine[Any, Any, Any]]) -> None:
        self._work = work

    def remote(self, *arguments: object) -> asyncio.Task[Any]:
        return asyncio.create_task(self._work(*arguments))


class StandIn:
    """Stands for Ray and its cluster: actors begin and play as they are told to."""

    cloudpickle = pickle

    def __init__(self, *begins: Callable[..., Coroutine[Any, Any, Any]]) -> None:
        self.begins = list(begins)
        self.lost = 0
        """How many more rollouts end with their actor."""
        self.attempts: list[Attempt] = []
        """Those before the one that each rollout ends with."""
        self.noted: asyncio.Queue[Any] = asyncio.Queue()

    def cluster_resources(self) -> dict[str, float]:
        return {"CPU": 2.0}

    def remote(self, _: object) -> Any:
        actors = SimpleNamespace(remote=self._start)
        return SimpleNamespace(options=lambda **_: actors)

    def kill(self, _: object) -> None:
        pass

    def _start(self, job: bytes) -> Any:
        self.settings: Settings = pickle.loads(job)[1]
        begin = self.begins.pop(0) if self.begins else answer_nothing
        methods = {"begin": begin, "note": self._note, "play": self.make_play()}
        methods |= dict.fromkeys(("cancel", "close", "hold"), answer_nothing)
        return type("Actor", (), {name: _Method(one) for name, one in methods.items()})

    def make_play(self) -> Callable[..., Coroutine[Any, Any, Any]]:
        """Return how a new actor plays a rollout."""
        return self._play

    async def _note(self, version: Any) -> None:
        self.noted.put_nowait(version)

    async def _play(self, *_: object) -> dict[str, Any]:
        if self.lost:
            self.lost -= 1
            raise LostError
        episode = Episode("x", 3, "train", 2, attempts=self.attempts)
        row = Record(episode, success=True).row()
        return {"row": json.dumps(row), "cause": b"", "raised": b""}


class Crashing(StandIn):
    """Task 0 ends its actor, and so every rollout that is on it then."""

    def make_play(self) -> Callable[..., Coroutine[Any, Any, Any]]:
        ended = asyncio.Event()

        async def play(token: int, planned: str, *_: object) -> dict[str, Any]:
            index = json.loads(planned)[1]
            # Turns of the loop: enough for all rollouts to have begun.
            for _turn in range(20 if index == 0 else 100):
                await asyncio.sleep(0)
                if ended.is_set():
                    raise LostError
            if index == 0:
                ended.set()
                raise LostError
            return await self._play()

        return play


async def answer_nothing(*_: object) -> None:
    pass


async def fail(*_: object) -> None:
    raise LostError("no room")


def make_answer() -> Policy:
    return answer


@contextlib.asynccontextmanager
async def scheduling(
    monkeypatch: pytest.MonkeyPatch,
    cluster: StandIn,
    turns: Turns | None = None,
    limits: RunLimits = NO_LIMITS,
    actors: int | None = None,
) -> AsyncIterator[RayScheduler]:
    monkeypatch.setattr(_ray, "connect", lambda: cluster)
    async with (
        asyncio.timeout(20),
        AsyncORSClient("http://127.0.0.1:9") as client,
        contextlib.aclosing(
            RayScheduler(
                client,
                dataclasses.replace(make_settings(make_answer), limits=limits),
                turns,
                Budget(limits),
                actors=actors,
                actor_options={},
            )
        ) as scheduler,
    ):
        yield scheduler


@pytest.mark.unit
def test_a_rollout_that_is_given_up_keeps_its_seed(monkeypatch):
    async def play() -> Record | None:
        cluster = StandIn()
        cluster.lost = 3
        async with scheduling(monkeypatch, cluster) as scheduler:
            return await scheduler.play_record(PLANNED)

    record = asyncio.run(play())
    assert record is not None
    assert record.episode.error_kind == "worker"
    assert (record.episode.number, record.episode.seed) == (2, 9)


@pytest.mark.unit
@pytest.mark.parametrize("attempts", [None, 2, 3, 4])
def test_who_crashes_workers_is_blamed_and_nobody_else(monkeypatch, attempts):
    """Many rollouts are lost with it before; at its last start it is alone."""

    async def play() -> list[str]:
        async with scheduling(monkeypatch, Crashing(), actors=1) as scheduler:
            rollouts = [Planned(Task("train", index), 0) for index in range(3)]
            if attempts is not None:
                again = functools.partial(
                    scheduler.play_to_an_outcome, attempts=attempts
                )
                episodes = await asyncio.gather(*map(again, rollouts))
                return [episode.error_kind for episode in episodes]
            records = await asyncio.gather(*map(scheduler.play_record, rollouts))
            return [record.episode.error_kind for record in records if record]

    assert asyncio.run(play()) == ["worker", "", ""]


@pytest.mark.unit
def test_what_attempts_on_a_worker_used_counts_for_the_limits(monkeypatch):
    prices = {"model": {"input": 1.0, "output": 1.0}}

    async def play() -> Budget:
        cluster = StandIn()
        used = {"input_tokens": 5, "output_tokens": 2, "cost": 0.25}
        cluster.attempts = [Attempt("timeout", "slow", 0.0, 1.0, 1, used)] * 2
        limits = RunLimits(max_cost=9, max_outages=9, prices=prices)
        async with scheduling(monkeypatch, cluster, limits=limits) as scheduler:
            await scheduler.play_to_an_outcome(PLANNED, 3)
            assert cluster.settings.limits == RunLimits(prices=prices)
            return scheduler._budget

    budget = asyncio.run(play())
    assert (budget.tokens, budget.cost, budget.outages) == (14, 0.5, 2)


@pytest.mark.unit
def test_a_cluster_that_recovered_has_not_failed(monkeypatch):
    async def play() -> Record | None:
        has_failed, has_room = asyncio.Event(), asyncio.Event()

        async def fail_last() -> None:
            has_failed.set()
            await fail()

        cluster = StandIn(fail, has_room.wait, fail, fail_last)
        cluster.lost = 1
        async with scheduling(monkeypatch, cluster) as scheduler:
            await has_failed.wait()
            has_room.set()
            await cluster.noted.get()
            return await scheduler.play_record(PLANNED)

    record = asyncio.run(play())
    assert record is not None
    assert record.success


@pytest.mark.unit
def test_a_version_that_cannot_be_told_once_is_asked_for_again(monkeypatch):
    told = iter([1, 0])

    def version() -> int:
        said = next(told, 2)
        if said == 0:
            raise OSError("not now")
        return said

    async def wait_for_version() -> None:
        cluster = StandIn()
        async with scheduling(monkeypatch, cluster, Turns(version)):
            while await cluster.noted.get() != 2:
                pass

    asyncio.run(wait_for_version())


class Clinging:
    """Ends, once it is cancelled, as soon as all are: in bounded time none by one."""

    together: asyncio.Barrier
    began: asyncio.Queue[None]
    ends: list[str]

    async def __call__(self, _: Episode) -> None:
        self.began.put_nowait(None)
        try:
            await asyncio.Event().wait()
        finally:
            await self.together.wait()
            self.ends.append("policy")


def test_a_worker_that_is_closed_cancels_its_rollouts_at_once(contract):
    async def play() -> list[str]:
        Clinging.together = asyncio.Barrier(3)
        Clinging.began = asyncio.Queue()
        ends = Clinging.ends = []
        settings = make_settings(Clinging, "Contract")
        async with AsyncORSClient(contract.base_url) as client:
            worker = Worker(pickle.dumps((client.settings, settings, False)))
        await worker.begin()
        plays = [
            asyncio.create_task(
                worker.play(
                    number, write_planned(Planned(Task("train", 0), number)), None, ()
                )
            )
            for number in range(3)
        ]
        for one in plays:
            one.add_done_callback(lambda _: ends.append("rollout"))
            await Clinging.began.get()
        await worker.close()
        await asyncio.gather(*plays)
        assert worker._scheduler is not None
        await worker._scheduler._client.aclose()
        return ends

    assert asyncio.run(play()) == ["policy"] * 3 + ["rollout"] * 3
