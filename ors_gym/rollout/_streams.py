"""Streams of groups: many rollouts in flight, handed over one group after another."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import os
from collections import Counter, deque
from collections.abc import (
    AsyncIterable,
    AsyncIterator,
    Awaitable,
    Callable,
    Iterable,
    Iterator,
    Mapping,
)
from typing import Any, Final, Literal, Self, TypeAlias, get_args

from ors_gym.client import AsyncORSClient
from ors_gym.env._task_order import Task, TaskChoice, choose_split
from ors_gym.errors import InvalidRequestError
from ors_gym.protocol._redaction import takes_secrets
from ors_gym.rollout._clients import AnyClient, borrow_async, split_client_arguments
from ors_gym.rollout._episode import Episode
from ors_gym.rollout._episode_rules import Rules, take_rules
from ors_gym.rollout._groups import Group, GroupPlan, Incomplete, Pacing, Rollout
from ors_gym.rollout._limits import Budget, PricesOption, RunLimits
from ors_gym.rollout._output import (
    OUTPUT,
    Output,
    Record,
    describe_run,
    is_success,
    name_success,
)
from ors_gym.rollout._planned_rollout import Key, Planned, read_planned_task
from ors_gym.rollout._player import Turns, make_rollout_env
from ors_gym.rollout._policies import Policy, choose_policy, name_policy
from ors_gym.rollout._ray import (
    RayScheduler,
    connect,
    make_scheduler,
    read_ray_options,
)
from ors_gym.rollout._scheduler import Scheduler, Settings

GroupTasks: TypeAlias = Iterable[TaskChoice] | AsyncIterable[TaskChoice] | None

_NO_MORE: Final = object()
_LOOK_SECONDS: Final = 0.05
"""How often ``version`` is asked while its next value may let a group begin."""


@takes_secrets
def stream_groups(
    client: AnyClient,
    env_name: str,
    tasks: GroupTasks,
    policy: Policy | None = None,
    *,
    n: int = 8,
    max_concurrent: int = 256,
    min_concurrent: int = 1,
    adapt_to_latency: bool = False,
    attempts: int = 3,
    max_staleness: int | None = None,
    groups_per_version: int | None = None,
    version: Callable[[], Any] | None = None,
    incomplete: Incomplete = "keep",
    extra: int = 0,
    output: str | os.PathLike[str] | None = None,
    engine: Literal["local", "ray"] = "local",
    actors: int | None = None,
    actor_options: Mapping[str, Any] | None = None,
    policy_factory: Callable[[], Policy] | None = None,
    policy_name: str | None = None,
    split: str | None = None,
    seed: int | None = None,
    max_cost: float | None = None,
    max_tokens: int | None = None,
    max_seconds: float | None = None,
    max_outages: int | None = None,
    prices: PricesOption | None = None,
    rules: Rules | None = None,
    **arguments: Any,
) -> GroupStream:
    """Play groups of rollouts without end, and hand each over as soon as it is over.

    Rollouts are kept in flight while the consumer trains. A rollout that an outage
    ended is played again on a new session. Once the consumer is slower than the
    rollouts, no further group begins. Nothing is played before the first group is
    asked for, or ``async with`` is entered.

    Args:
        client: A client (a blocking one lends its settings), a server's address, or
            None for ``ORS_BASE_URL`` or the embedded server.
        env_name: The environment's name on the server.
        tasks: What the groups are played on: any iterable or async iterable, which
            may be endless; None for the whole split, once. Each task is taken when its
            group begins, so a sampler may choose it by the results so far.
        policy: As for `run_episode_async`.
        n: The number of outcomes of a group.
        max_concurrent: The most rollouts that are played at once; fewer while the
            server answers 429.
        min_concurrent: The least, however busy the server is.
        adapt_to_latency: Whether there are also fewer while requests wait for each
            other at the server.
        attempts: How often a rollout is played at most until it has an outcome. The
            earlier attempts are recorded in ``episode.attempts``.
        max_staleness: The most versions that may pass between the beginning of a group
            and its hand-over; None for no limit. Groups begin later for that, and no
            rollout is thrown away. It needs ``version``.
        groups_per_version: The least number of groups that are taken between two
            versions. If None, it is learned; within the first version, groups then
            begin only slowly.
        version: Returns the version of the weights; may be async. It is asked at each
            turn, and recorded in the turn.
        incomplete: What becomes of a group that lacks outcomes after all attempts:
            ``keep`` hands it over with those that it has, ``drop`` leaves it out as a
            whole, ``raise`` ends the stream.
        extra: How many rollouts of a group are played beyond ``n``; once ``n`` have an
            outcome, the others are cancelled. It favours short episodes.
        output: The path of a JSON-lines file that each group is appended to, as that
            of `ors_gym.evaluation.evaluate`. The same call again hands over the groups
            that it holds as they are (``group.kept``), and plays what is missing.
        engine: Where rollouts are played: in this process, or by the actors of a Ray
            cluster. A new version, a pause and its end reach the actors a moment later.
        actors: How many processes play with ``engine="ray"``; one per CPU of it if
            None.
        actor_options: What each actor asks Ray for: ``num_cpus``, ``num_gpus``,
            ``memory``, ``runtime_env``, ...
        policy_factory: Makes a policy for each rollout, in place of ``policy``.
        policy_name: The policy's name in the output; the policy's own name if None.
        split: The split of indexes; ``train`` if None and there is one, else the only
            one.
        seed: ``episode.seed`` is this plus the number of the rollout.
        max_cost: What all rollouts may cost; see ``prices``. At this and the other
            limits no rollout and no turn begins any more, groups that are over are
            handed over, the stream ends, and its ``stopped`` says why. Groups that are
            not over are not handed over; with ``output`` their outcomes are kept there.
        max_tokens: How many tokens the models of all rollouts may read and write.
        max_seconds: Seconds that the stream may take; rollouts in flight are ended.
        max_outages: How many attempts may end without an outcome; rollouts in flight
            are ended then.
        prices: What tokens cost, by model: ``{model: {"input": ..., "output": ...}}``
            per million, or ``genai-prices``; if None, the cost is what the policy
            reports.
        rules: As for `run_episode_async`.
        **arguments: As for `run_episode_async`.

    Returns:
        The stream, an async iterator.

    Raises:
        InvalidRequestError: If an argument cannot be right.

    Example:
        >>> from ors_gym.rollout import reference_policy
        >>> async def train():
        ...     groups = stream_groups(None, "math", range(3), reference_policy(), n=2)
        ...     return [sum(group.rewards) async for group in groups]
        >>> asyncio.run(train())
        [2.0, 2.0, 2.0]
    """
    _check(n=n, max_concurrent=max_concurrent, attempts=attempts)
    _check(groups_per_version=groups_per_version)
    _check(0, extra=extra, max_staleness=max_staleness)
    _check_choices(tasks, incomplete)
    if max_staleness is not None and version is None:
        raise InvalidRequestError("max_staleness= needs version=")
    ray = read_ray_options(engine, actors, actor_options)
    if ray is not None:
        # In the caller's thread: Ray sets its signal handlers in the main thread only.
        connect()
    rules = rules or take_rules(arguments)
    connection, arguments = split_client_arguments(arguments)
    pacing = Pacing(max_staleness, groups_per_version)
    settings = Settings(
        env_name=env_name,
        make_policy=choose_policy(policy, policy_factory),
        rules=rules,
        max_concurrent=max_concurrent,
        min_concurrent=min_concurrent,
        adapt_to_latency=adapt_to_latency,
        seed=seed,
        limits=RunLimits(
            max_cost=max_cost,
            max_tokens=max_tokens,
            max_seconds=max_seconds,
            max_outages=max_outages,
            prices=prices,
        ),
        env_arguments=arguments,
    )
    job = _Job(
        client=client,
        connection=connection,
        settings=settings,
        tasks=tasks,
        split=split,
        n=n,
        extra=extra,
        attempts=attempts,
        output=output,
        policy_name=policy_name or name_policy(policy or policy_factory),
        ray=ray,
    )
    most_ready = -(-max_concurrent // n)
    plan = GroupPlan(most_ready, pacing, incomplete)
    return GroupStream(_Run(job, plan, pacing, Turns(version)))


def _check(least: int = 1, **given: int | None) -> None:
    for name, value in given.items():
        if value is not None and value < least:
            raise InvalidRequestError(f"{name} must be at least {least}")


def _check_choices(tasks: object, incomplete: object) -> None:
    is_no_list = isinstance(tasks, str | bytes | Mapping)
    if is_no_list or not isinstance(tasks, Iterable | AsyncIterable | None):
        raise InvalidRequestError(
            "tasks= takes an iterable of indexes, of tasks as the server lists them, "
            f"or of pairs of split and index; not {type(tasks).__name__}"
        )
    if incomplete not in get_args(Incomplete):
        raise InvalidRequestError(
            f"incomplete is {incomplete!r}; it must be 'keep', 'drop' or 'raise'"
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Job:
    """The checked arguments of a stream."""

    client: AnyClient
    connection: Mapping[str, Any]
    settings: Settings
    tasks: GroupTasks
    split: str | None
    n: int
    extra: int
    attempts: int
    output: str | os.PathLike[str] | None
    policy_name: str
    ray: tuple[int | None, Mapping[str, Any]] | None


class GroupStream(AsyncIterator[Group]):
    """The groups of `stream_groups`, in the order in which they end.

    The stream ends, and its sessions are deleted, when an ``async with`` block is left,
    by `aclose`, with the event loop (Ctrl-C, an exception), and when nobody refers to
    it any more.
    After ``break``, iteration can go on while somebody holds the stream.

    `pause`, `resume` and `cancel` act when they are called. Awaiting what they return
    only waits for the effect.

    Example:
        >>> from ors_gym.rollout import reference_policy, stream_groups
        >>> async def train():
        ...     player = reference_policy()
        ...     async with stream_groups(None, "math", range(99), player) as groups:
        ...         async for group in groups:
        ...             return group.complete
        >>> asyncio.run(train())
        True
    """

    def __init__(self, run: _Run) -> None:
        self._run = run

    @property
    def under_way(self) -> list[Group]:
        """The groups that have begun and are not over, with their episodes so far."""
        return list(self._run.plan.open)

    @property
    def stopped(self) -> str:
        """The limit that ended the stream, with the numbers; empty if none did."""
        return self._run.stopped

    @property
    def paused(self) -> bool:
        """Whether no policy is asked for now."""
        return self._run.turns.paused

    def pause(self) -> Awaitable[Any]:
        """Ask no policy any more, say because new weights are being loaded.

        Sessions are kept alive meanwhile, and no deadline passes.

        Returns:
            Awaited, it waits for the policies that were asked before.
        """
        return self._run.turns.pause()

    def resume(self) -> Awaitable[Any]:
        """Let all rollouts go on.

        Returns:
            Awaited, it waits until they do, also on a cluster.
        """
        return self._run.turns.resume() or _done()

    def cancel(self, group: Group) -> Awaitable[Any]:
        """Give up a group that is under way: it is not handed over.

        What is cancelled because it takes long is missing in what you train on, so this
        favours short episodes.

        Args:
            group: One of `under_way`.

        Returns:
            Awaited, it waits until its sessions are deleted, in bounded time.
        """
        return self._run.cancel(group)

    async def aclose(self) -> None:
        """End the stream: all rollouts are cancelled, and their sessions deleted."""
        await self._run.aclose()

    async def __aenter__(self) -> Self:
        self._run.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Group:
        group = await self._run.next_group()
        if group is None:
            raise StopAsyncIteration
        return group

    def __del__(self) -> None:
        # The run does not refer to the stream, so that this comes with the last user.
        if hasattr(self, "_run"):
            self._run.abandon()


class _Run:
    """A stream under way: the workers that play, and the consumers that wait."""

    def __init__(
        self, job: _Job, plan: GroupPlan, pacing: Pacing, turns: Turns
    ) -> None:
        self.plan = plan
        self.turns = turns
        self._job = job
        self._pacing = pacing
        self._task: asyncio.Task[None] | None = None
        self._closed = False
        self._source: _Tasks | None = None
        self._exhausted = False
        self._is_pulling = False
        self._output: Output | None = None
        self._kept: dict[Group, list[Episode]] = {}
        """Episodes of groups under way that the output holds already."""
        self._scheduler: Scheduler | RayScheduler | None = None
        self._budget = Budget()
        self._is_cut = False
        self._playing: dict[Rollout, asyncio.Task[Any]] = {}
        self._cancelled: dict[Rollout, asyncio.Future[None]] = {}
        self._idle: deque[asyncio.Future[None]] = deque()
        """Workers that wait for a rollout to play."""
        self._consumers: set[asyncio.Future[None]] = set()
        """Those that wait for a group."""

    @property
    def stopped(self) -> str:
        """The limit that ended it."""
        return self._budget.stopped if self._is_cut else ""

    def start(self) -> None:
        if self._task is None and not self._closed:
            self._task = asyncio.create_task(self._main())
            self._task.add_done_callback(self._tell)

    def abandon(self) -> None:
        """End it from anywhere, without waiting."""
        if self._task is not None and not self._task.done():
            # The loop is closed where nothing is played any more.
            with contextlib.suppress(RuntimeError):
                self._task.get_loop().call_soon_threadsafe(self._task.cancel)

    async def aclose(self) -> None:
        self._closed = True
        self._tell()
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])

    async def next_group(self) -> Group | None:
        """Wait for a group; None after the last.

        Raises:
            BaseException: What ended the stream.
        """
        self.start()
        heard = asyncio.get_running_loop().create_future()
        self._consumers.add(heard)
        try:
            while not self._closed:
                self._pacing.note(await self.turns.ask_version())
                group = self.plan.hand_over()
                self._wake()
                if group is not None:
                    return group
                if self._task is None or self._task.done():
                    self._raise_failure()
                    return None
                wait = _LOOK_SECONDS if self._pacing.has_limit else None
                await asyncio.wait([heard], timeout=wait)
                if heard.done():
                    self._consumers.discard(heard)
                    heard = asyncio.get_running_loop().create_future()
                    self._consumers.add(heard)
            return None
        finally:
            self._consumers.discard(heard)

    def _raise_failure(self) -> None:
        task = self._task
        if task is not None and not task.cancelled() and (error := task.exception()):
            self._closed = True
            raise error

    def _tell(self, task: asyncio.Task[None] | None = None) -> None:
        """Have the consumers look whether there is something for them."""
        for heard in self._consumers:
            if not heard.done():
                heard.set_result(None)
        if task is not None and not task.cancelled():
            task.exception()  # else asyncio says that nobody asked

    def _wake(self, workers: int = 1) -> None:
        """Have workers that wait look whether there is something to play."""
        while workers and self._idle:
            idle = self._idle.popleft()
            if not idle.done():
                idle.set_result(None)
                workers -= 1

    async def _main(self) -> None:
        job = self._job
        async with contextlib.AsyncExitStack() as stack:
            borrowed = borrow_async(job.client, job.connection)
            client = await stack.enter_async_context(borrowed)
            settings = job.settings
            # Refuses wrong arguments before anything is played.
            make_rollout_env(client, settings.env_name, **settings.env_arguments)
            name = await client.run(client.catalog.resolve(settings.env_name))
            settings = dataclasses.replace(settings, env_name=name)
            if job.output is not None:
                head = self._describe(client, name)
                self._output = Output(job.output, head, _Everything())
                stack.enter_context(self._output)
            used = {} if self._output is None else self._output.used
            budget = self._budget = Budget(settings.limits, used)
            budget.on_stop(lambda: self._wake(len(self._idle)))
            source = self._source = _Tasks(job, client, name)
            stack.push_async_callback(source.aclose)
            scheduler = self._scheduler = make_scheduler(
                client, settings, self.turns, budget, job.ray
            )
            await stack.enter_async_context(contextlib.aclosing(scheduler))
            await scheduler.run(self._work)
            self._is_cut = bool(self.plan.open or not self._exhausted)
            if self.stopped:
                await self._end_early()

    async def _end_early(self) -> None:
        """Write down what groups under way have; they are not handed over."""
        for group, open_group in list(self.plan.open.items()):
            if self._output is not None:
                await self._write(self._output, group, open_group.task)
            self.plan.cancel(group)

    def _describe(self, client: AsyncORSClient, name: str) -> dict[str, Any]:
        job = self._job
        group = {"n": job.n, "extra": job.extra, "success": name_success(None)}
        return describe_run(
            client,
            environment=name,
            split=job.split,
            policy=job.policy_name,
            limits=job.settings.describe() | group,
            env_arguments=job.settings.env_arguments,
        )

    async def _work(self) -> None:
        """Play one rollout after another."""
        while (rollout := await self._next_rollout()) is not None:
            await self._play(rollout)

    async def _next_rollout(self) -> Rollout | None:
        """Wait for a rollout to play; None if there is none any more."""
        while not self._budget.stopped:
            rollout = self.plan.next_rollout()
            if rollout is not None or self._exhausted:
                return rollout
            awaited = bool(self._consumers)
            if not self._is_pulling and self.plan.may_begin(awaited=awaited):
                await self._begin_group()
            else:
                idle = asyncio.get_running_loop().create_future()
                self._idle.append(idle)
                await idle
        return None

    async def _begin_group(self) -> None:
        assert self._source is not None  # noqa: S101 - made before the workers
        job = self._job
        self._is_pulling = True
        try:
            given = await self._source.next()
            self._pacing.note(await self.turns.ask_version())
        finally:
            self._is_pulling = False
        if given is None:
            self._exhausted = True
            self._wake(len(self._idle))
            return
        group = self.plan.new_group(given.given, job.n)
        rollouts = self._read_kept(group, given.planned(job.n + job.extra))
        self.plan.begin(group, rollouts)
        if group.kept:
            self._tell()
        # One of those that wait, beside those for the rollouts, begins the next group.
        self._wake(max(1, len(rollouts)))

    def _read_kept(self, group: Group, planned: list[Planned]) -> list[Planned]:
        """Take what the output holds of a group; return what is left to be played."""
        if self._output is None:
            return planned
        kept = self._output.records
        left = []
        for one in planned:
            record = kept.pop(one.key, None)
            if record is None:
                left.append(one)
            elif not group.complete:
                group.episodes.append(record.episode)
        group.kept = group.complete
        if group.kept:
            group.version = _oldest_version(group.episodes)
        elif group.episodes:
            self._kept[group] = list(group.episodes)
        return left

    async def _play(self, rollout: Rollout) -> None:
        assert self._scheduler is not None  # noqa: S101 - made before the workers
        worker: Any = asyncio.current_task()
        self._playing[rollout] = worker
        try:
            attempts = self._job.attempts
            episode = await self._scheduler.play_to_an_outcome(
                rollout.planned, attempts
            )
        except asyncio.CancelledError:
            if rollout not in self._cancelled or worker.uncancel():
                raise
            return
        finally:
            del self._playing[rollout]
            if rollout in self._cancelled:
                ended = self._cancelled.pop(rollout)
                if not ended.done():
                    ended.set_result(None)
        if episode.total_reward is None and self._budget.stopped:
            # It is not over, and nor is its group.
            rollout.group.group.lost.append(episode)
        elif self.plan.end(rollout, episode):
            self._cancel(rollout.group.playing)
            await self._finish(rollout.group.group, rollout.planned.task)

    async def _finish(self, group: Group, task: Task) -> None:
        """Keep a group that is over, and let it be handed over."""
        if self.plan.is_wanted(group):
            if self._output is not None:
                await self._write(self._output, group, task)
            self.plan.finish(group)
            self._tell()

    async def _write(self, output: Output, group: Group, task: Task) -> None:
        kept = self._kept.pop(group, [])
        records = [
            Record(episode, is_success(None, episode), task.spec)
            for episode in (*group.episodes, *group.lost)
            if episode not in kept
        ]
        try:
            written = output.append(*records)
            if output.needs_sync:
                await asyncio.to_thread(output.sync)
        except OSError as error:
            told = OUTPUT.describe_failure(output.path, error)
            raise InvalidRequestError(told) from None
        # What is not JSON has lost its outcome.
        group.episodes = [*kept, *(one.episode for one in written if one.has_outcome)]
        group.episodes.sort(key=_number_of)
        group.lost = [one.episode for one in written if not one.has_outcome]

    def cancel(self, group: Group) -> Awaitable[Any]:
        ended = self._cancel(self.plan.cancel(group))
        self._wake()
        return asyncio.gather(*ended) if ended else _done()

    def _cancel(self, rollouts: Iterable[Rollout]) -> list[asyncio.Future[None]]:
        """Cancel rollouts; each future is done once the session is deleted."""
        loop = asyncio.get_running_loop()
        ended = []
        for rollout in rollouts:
            worker = self._playing.get(rollout)
            if worker is not None and rollout not in self._cancelled:
                future = self._cancelled[rollout] = loop.create_future()
                ended.append(future)
                worker.cancel()
        return ended


def _done() -> Awaitable[None]:
    done = asyncio.get_running_loop().create_future()
    done.set_result(None)
    return done


def _number_of(episode: Episode) -> int:
    return episode.number


def _oldest_version(episodes: list[Episode]) -> Any:
    versions = [turn.version for episode in episodes for turn in episode.turns]
    return min((one for one in versions if isinstance(one, int)), default=None)


class _Everything:
    """The keys of a stream: it may come to play any episode again."""

    def __contains__(self, key: object) -> bool:
        return True


@dataclasses.dataclass(frozen=True)
class _Given:
    """A task as it was given, and as it is played."""

    given: Any
    task: Task
    first: int  # the number of its first rollout

    def planned(self, count: int) -> list[Planned]:
        return [Planned(self.task, self.first + number) for number in range(count)]


class _Tasks:
    """The tasks of a stream, one after another, from any iterable."""

    def __init__(self, job: _Job, client: AsyncORSClient, env_name: str) -> None:
        self._client = client
        self._env_name = env_name
        self._split = job.split
        self._given: Any = job.tasks
        self._size = job.n + job.extra
        # A task that is played again has further rollouts. Nobody can tell them apart
        # without a seed and without an output, and the table grows with the tasks.
        counts = job.output is not None or job.settings.seed is not None
        self._groups: Counter[Key] | None = Counter() if counts else None
        self._iterator: Iterator[Any] | AsyncIterator[Any] | None = None
        self._split_is_known = False

    async def next(self) -> _Given | None:
        given = await self._pull()
        if given is _NO_MORE:
            return None
        if not isinstance(given, Mapping | tuple | Task):
            await self._choose_split()
        task = read_planned_task(given, self._split)
        group = 0
        if self._groups is not None:
            key = Planned(task, 0).key
            group = self._groups[key]
            self._groups[key] += 1
        return _Given(given, task, group * self._size)

    async def _pull(self) -> Any:
        iterator = self._iterator
        if iterator is None:
            tasks = self._given
            if tasks is None:
                await self._choose_split()
                split = self._split or ""
                tasks = range(await self._client.num_tasks(self._env_name, split))
            is_async = isinstance(tasks, AsyncIterable)
            iterator = self._iterator = aiter(tasks) if is_async else iter(tasks)
        if isinstance(iterator, AsyncIterator):
            return await anext(iterator, _NO_MORE)
        return next(iterator, _NO_MORE)

    async def _choose_split(self) -> None:
        if not self._split_is_known:
            splits = await self._client.list_splits(self._env_name)
            self._split = choose_split(splits, self._split)
            self._split_is_known = True

    async def aclose(self) -> None:
        close = getattr(self._iterator, "aclose", None)
        if close is not None:
            await close()
