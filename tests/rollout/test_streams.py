"""Streams of groups on real servers."""

import asyncio
import gc
import itertools
import json
import weakref
from collections import Counter
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any, Final

import pytest

from ors_gym import AsyncORSClient, errors
from ors_gym.evaluation import Evaluation
from ors_gym.rollout import Episode, Group, GroupStream, Turn, stream_groups
from tests.rollout.contract_episodes import ADD, SDK
from tests.support.proxy.faults import Answer, Point, Reset
from tests.support.proxy.proxy import FaultProxy
from tests.support.servers.process import RunningServer, start_server

BOUND: Final = 60.0
"""Seconds after which a test has hung."""


async def answer(episode: Episode) -> Any:
    """Pay 0.5, then end with 1 for the task that is answered rightly."""
    if not episode.steps:
        return ADD
    right = str(2 * episode.task_index)
    return {"tool": "submit", "input": {"answer": right}}


def stream(url: str, tasks: Any, policy: Any = answer, **options: Any) -> GroupStream:
    options = {"n": 2, "max_concurrent": 4, "split": "train", **options}
    return stream_groups(url, "Contract", tasks, policy, **options)


async def take(
    groups: GroupStream, count: int | None = None, close: bool = True
) -> list[Group]:
    """Take groups of a stream, then close it."""
    taken: list[Group] = []
    async with asyncio.timeout(BOUND):
        if count != 0:
            async for group in groups:
                taken.append(group)
                if len(taken) == count:
                    break
        if close:
            await groups.aclose()
    return taken


def play(url: str, tasks: Any, policy: Any = answer, **options: Any) -> list[Group]:
    async def main() -> list[Group]:
        return await take(stream(url, tasks, policy, **options))

    return asyncio.run(main())


async def until(reached: Callable[[], bool]) -> None:
    """Let the event loop go on until something is so."""
    async with asyncio.timeout(BOUND):
        while not reached():  # noqa: ASYNC110 - the server is another process
            await asyncio.sleep(0.002)


def check_nothing_is_left(server: RunningServer) -> None:
    server.wait_until_none_is_open()


def test_every_group_has_n_outcomes_and_no_session_is_left(server):
    groups = play(server.base_url, range(12), n=3, max_concurrent=8)
    assert sorted(group.task for group in groups) == list(range(12))
    assert sorted(group.number for group in groups) == list(range(12))
    for group in groups:
        assert group.complete
        assert group.rewards == [1.5] * 3
        assert [episode.number for episode in group] == [0, 1, 2]
        assert {episode.task_index for episode in group} == {group.task}
        assert (group.staleness, group.lost, group.kept) == (None, [], False)
    assert sum(server.rewards()) == 12 * 3 * 1.5
    check_nothing_is_left(server)


def test_groups_come_in_the_order_in_which_they_end(contract):
    ended: list[int] = []

    async def main() -> list[int]:
        let_go = [asyncio.Event() for _ in range(3)]

        async def policy(episode: Episode) -> Any:
            await let_go[episode.task_index].wait()
            return None

        groups = stream(contract.base_url, range(3), policy, max_concurrent=6)
        for task in (1, 2, 0):
            let_go[task].set()
            [group] = await take(groups, 1, close=False)
            ended.append(group.task)
        return [group.task for group in await take(groups)]

    assert asyncio.run(main()) == []
    assert ended == [1, 2, 0]


@pytest.mark.parametrize("tasks", ["list", "generator", "async", "specs", "pairs", ""])
def test_tasks_are_any_iterable(contract, tasks):
    async def generate() -> AsyncIterator[int]:
        for task in (3, 1):
            await asyncio.sleep(0)
            yield task

    spec = {"id": "mine", "question": "1 + 1?", "answer": "two"}
    given: dict[str, tuple[Any, list[Any]]] = {
        "list": ([1, 3], [1, 3]),
        "generator": (iter((1, 3)), [1, 3]),
        "async": (generate(), [1, 3]),
        "specs": ([spec], [spec]),
        "pairs": ([("test", 1), ("train", 1)], [("test", 1), ("train", 1)]),
        "": (None, list(range(12))),
    }
    tasks, expected = given[tasks]
    groups = play(contract.base_url, tasks, lambda episode: None, n=1)
    assert sorted((group.task for group in groups), key=repr) == sorted(
        expected, key=repr
    )


def test_a_sampler_reacts_to_results(contract):
    results: dict[int, float] = {}

    def sample() -> Iterator[int]:
        """Climb while every task so far was solved."""
        yield from range(2)
        while all(results.values()):
            yield len(results)

    async def policy(episode: Episode) -> Any:
        wrong = {"tool": "submit", "input": {"answer": "no"}}
        return wrong if episode.task_index == 6 else await answer(episode)

    async def main() -> None:
        groups = stream(contract.base_url, sample(), policy, n=1, max_concurrent=1)
        async for group in groups:
            results[group.task] = group.rewards[0]
            assert len(results) < 12

    asyncio.run(main())
    assert results[6] == 0
    assert 6 < max(results) + 1 <= 8 + 1


def test_a_slow_consumer_holds_the_rollouts_back(contract):
    begun = itertools.count()

    async def main() -> None:
        groups = stream(contract.base_url, (0 for _ in begun), max_concurrent=4, n=2)
        async with groups:
            for taken in range(1, 4):
                await anext(groups)
                # All that has begun ends, and nothing more begins: two that wait, and
                # as many as can end once that is seen.
                await until(lambda: not groups.under_way)
                seen = next(begun)
                assert seen - 2 * taken <= taken + 2 + 4
                await asyncio.sleep(0.05)
                assert not groups.under_way

    asyncio.run(main())
    check_nothing_is_left(contract)


async def wait_for_ever(_: Episode) -> Any:
    await asyncio.Event().wait()


async def take_one(groups: GroupStream) -> None:
    async for _ in groups:
        break


async def enter_and_take_one(groups: GroupStream) -> None:
    async with groups:
        await anext(groups)


async def lose_patience(groups: GroupStream) -> None:
    """Leave a stream that nobody closes, as Ctrl-C does."""
    await anext(groups)
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(anext(groups), 0.1)


async def fail_after_one(groups: GroupStream) -> None:
    async for _ in groups:
        raise ZeroDivisionError


async def take_all(groups: GroupStream) -> None:
    async for _ in groups:
        pass


@pytest.mark.parametrize(
    "way", ["break", "exception", "block", "cancelled", "policy", "tasks"]
)
def test_however_a_stream_is_left_no_session_is(contract, caplog, way):
    ways: dict[str, Callable[[GroupStream], Coroutine[Any, Any, None]]] = {
        "break": take_one,
        "block": enter_and_take_one,
        "cancelled": lose_patience,
        "exception": fail_after_one,
        "policy": take_all,
        "tasks": take_all,
    }

    async def policy(episode: Episode) -> Any:
        if episode.task_index == 0:
            return await answer(episode)
        if way == "policy" and episode.task_index == 2:
            raise ZeroDivisionError
        return await wait_for_ever(episode)

    def tasks() -> Iterator[int]:
        yield from (0, 1, 2)
        if way == "tasks":
            raise ZeroDivisionError
        yield from itertools.repeat(1)

    async def main() -> None:
        options: Any = {"attempts": 1, "max_concurrent": 8}
        await ways[way](stream(contract.base_url, tasks(), policy, **options))
        if way == "break":
            # The last reference went with the loop.
            await until(lambda: not contract.open_sessions())

    if way in ("exception", "policy", "tasks"):
        with pytest.raises(ZeroDivisionError):
            asyncio.run(main())
    else:
        asyncio.run(main())
    check_nothing_is_left(contract)
    assert not caplog.records


def test_an_outage_is_repaired_on_a_new_session(server):
    with FaultProxy(server.base_url) as proxy:
        # The tool runs, and its reply is lost: nobody may call it again.
        proxy.plan("/call", [Reset(Point.BEFORE_REPLY)])
        groups = play(proxy.url, range(3))
    episodes = [episode for group in groups for episode in group]
    assert [group.complete for group in groups] == [True] * 3
    [repaired] = [episode for episode in episodes if episode.attempts]
    [attempt] = repaired.attempts
    assert (attempt.kind, attempt.steps) == ("ambiguous_call", 1)
    assert 0 < attempt.seconds < BOUND
    assert attempt.time > 1.7e9
    assert {episode.total_reward for episode in episodes} == {1.5}
    assert Episode.from_json(repaired.to_json()) == repaired
    check_nothing_is_left(server)


class Lossy:
    """A policy whose model is away for one rollout of each group of odd tasks."""

    def __init__(self, times: int) -> None:
        self.left = Counter(dict.fromkeys(range(1, 12, 2), times))

    async def __call__(self, episode: Episode) -> Any:
        if episode.steps and episode.number == 1 and self.left[episode.task_index]:
            self.left[episode.task_index] -= 1
            raise errors.ConnectionFailedError("the model is away")
        return await answer(episode)


@pytest.mark.parametrize("times", [1, 2])
def test_attempts_are_recorded_until_there_is_an_outcome(contract, times):
    groups = play(contract.base_url, range(4), Lossy(times))
    assert all(group.complete for group in groups)
    for group in groups:
        kinds = [[one.kind for one in episode.attempts] for episode in group]
        assert kinds == [[], ["policy"] * times if group.task % 2 else []]
        assert group.rewards == [1.5, 1.5]
    assert contract.runs("add") == 8 + 2 * times


def test_incomplete_groups_are_kept_and_say_so(contract):
    groups = play(contract.base_url, range(4), Lossy(99))
    assert len(groups) == 4
    for group in groups:
        odd = group.task % 2
        assert group.complete is not bool(odd)
        assert (len(group), len(group.lost)) == ((1, 1) if odd else (2, 0))
        # What is lost is no zero.
        assert set(group.rewards) == {1.5}
        for lost in group.lost:
            assert lost.total_reward is None
            assert [one.steps for one in lost.attempts] == [1, 1]
            assert "the model is away" in lost.error


def test_incomplete_groups_are_dropped_as_a_whole(contract):
    groups = play(contract.base_url, range(4), Lossy(99), incomplete="drop")
    assert sorted(group.task for group in groups) == [0, 2]
    assert all(group.complete for group in groups)


def test_an_incomplete_group_is_an_error_if_you_ask_for_it(contract):
    with pytest.raises(errors.IncompleteGroupError, match="1 of 2 outcomes") as raised:
        play(contract.base_url, range(4), Lossy(99), incomplete="raise")
    assert "3 attempts" in str(raised.value)
    check_nothing_is_left(contract)


def test_a_set_up_that_fails_is_tried_again(contract):
    with FaultProxy(contract.base_url) as proxy:
        proxy.plan("/prompt", [Answer(500)])
        groups = play(proxy.url, range(3))
    assert all(group.complete for group in groups)


def test_what_a_policy_raises_again_and_again_ends_the_stream(contract):
    asked: Counter[int] = Counter()

    async def policy(episode: Episode) -> Any:
        asked[episode.task_index] += 1
        if episode.task_index == 1 and asked[1] <= 2:
            raise ZeroDivisionError
        if episode.task_index == 2:
            raise LookupError("a bug")
        return None

    [group] = play(contract.base_url, [1], policy, n=1)
    assert [one.kind for one in group[0].attempts] == ["policy", "policy"]
    with pytest.raises(LookupError, match="a bug"):
        play(contract.base_url, [2], policy, n=1)
    assert asked == {1: 3, 2: 3}


def test_mistakes_of_the_caller_are_raised_at_once(contract):
    url = contract.base_url
    with pytest.raises(errors.UnknownEnvironmentError):
        asyncio.run(take(stream_groups(url, "nothing", [0], answer)))
    with pytest.raises(errors.UnknownTaskError):
        play(url, [0], split="nothing")
    with pytest.raises(errors.InvalidRequestError):
        play(url, [99])
    with pytest.raises(errors.InvalidRequestError, match="colour"):
        play(url, [0], colour="red")
    wrong: list[dict[str, Any]] = [
        {"n": 0},
        {"max_concurrent": 0},
        {"attempts": 0},
        {"extra": -1},
        {"incomplete": "zero"},
        {"max_staleness": 1},
        {"max_staleness": -1, "version": int},
        {"groups_per_version": 0},
        {"engine": "dask"},
    ]
    for options in wrong:
        with pytest.raises(errors.InvalidRequestError):
            stream(url, [0], **options)
    tasks: Any
    for tasks in ("test", 3, 3.5, print, {"id": 1}):
        with pytest.raises(errors.InvalidRequestError, match="tasks= takes"):
            stream(url, tasks)
    with pytest.raises(errors.InvalidRequestError, match="needs an integer"):
        play(url, [0], version=lambda: "a", max_staleness=1)


def test_the_version_is_asked_at_each_turn(contract):
    version = itertools.count(5)

    async def ask() -> int:
        return next(version)

    async def policy(episode: Episode) -> Any:
        action = await answer(episode)
        return Turn(action, version="mine") if episode.steps else action

    [group] = play(contract.base_url, [0], policy, n=1, version=ask)
    first, second = (turn.version for turn in group[0].turns)
    # One that the policy knows better is its own.
    assert first > 5
    assert second == "mine"
    assert 5 <= group.version < first


@pytest.mark.parametrize("per_version", [None, 2])
@pytest.mark.parametrize("limit", [0, 1, 3])
def test_no_group_is_older_than_allowed(contract, limit, per_version):
    version = 0
    batch: list[Group] = []
    trained: list[tuple[int, Group]] = []

    async def policy(episode: Episode) -> Any:
        # Some take much longer than others.
        for _ in range(40 if episode.task_index % 4 == 0 else 1):
            await asyncio.sleep(0)
        return await answer(episode)

    async def main() -> None:
        nonlocal version
        groups = stream(
            contract.base_url,
            itertools.cycle(range(12)),
            policy,
            max_concurrent=16,
            max_staleness=limit,
            groups_per_version=per_version,
            version=lambda: version,
        )
        async with groups, asyncio.timeout(BOUND):
            async for group in groups:
                batch.append(group)
                if len(batch) == 2:
                    trained.extend((version, group) for group in batch)
                    batch.clear()
                    version += 1
                if version == 8:
                    break

    asyncio.run(main())
    for now, group in trained:
        oldest = min(turn.version for episode in group for turn in episode.turns)
        assert group.version <= oldest
        assert now - group.version == group.staleness <= limit


def test_a_new_version_lets_groups_begin_while_one_is_awaited(contract):
    async def policy(episode: Episode) -> Any:
        return await (wait_for_ever if episode.task_index else answer)(episode)

    async def main() -> None:
        version = 0
        groups = stream(
            *(contract.base_url, itertools.chain((0, 0), itertools.repeat(1))),
            policy,
            max_staleness=0,
            groups_per_version=2,
            version=lambda: version,
        )
        async with groups:
            await take(groups, 2, close=False)
            # This version's groups are taken; whoever asks for more gets one.
            more = asyncio.ensure_future(anext(groups))
            await until(lambda: len(groups.under_way) == 1)
            version = 1
            await until(lambda: len(groups.under_way) == 2)
            more.cancel()

    asyncio.run(main())


def is_paused(groups: GroupStream) -> bool:
    return groups.paused


def test_a_pause_holds_every_policy_and_no_deadline_passes(contract):
    asked, may_answer = 0, asyncio.Event()

    async def policy(episode: Episode) -> Any:
        nonlocal asked
        asked += 1
        if not episode.steps:
            await may_answer.wait()
        return await answer(episode)

    async def main() -> list[Group]:
        groups = stream(contract.base_url, range(4), policy, deadline=1.0)
        async with groups:
            await until(lambda: asked == 4)
            paused = groups.pause()
            assert is_paused(groups)
            may_answer.set()
            # What was asked before ends, and its tool runs; nothing else is asked.
            await paused
            await until(lambda: contract.runs("add") == 4)
            await asyncio.sleep(1.2)
            assert asked == 4
            assert len(contract.open_sessions()) == 4
            await groups.pause()
            await groups.resume()
            assert not is_paused(groups)
            return await take(groups)

    groups = asyncio.run(main())
    assert [group.rewards for group in groups] == [[1.5, 1.5]] * 4
    stops = {episode.stop_reason for group in groups for episode in group}
    assert stops == {"finished"}
    assert max(turn.seconds for e in groups[0] for turn in e.turns) < 1.0


def test_a_cancelled_group_is_not_handed_over_and_its_sessions_go(contract):
    async def policy(episode: Episode) -> Any:
        if episode.task_index == 1:
            return await wait_for_ever(episode)
        return await answer(episode)

    async def main() -> list[Group]:
        groups = stream(contract.base_url, [0, 1, 2], policy)
        async with groups:
            first = await anext(groups)
            await until(lambda: any(one.task == 1 for one in groups.under_way))
            [stuck] = [one for one in groups.under_way if one.task == 1]
            await until(lambda: len(contract.open_sessions()) >= 2)
            await groups.cancel(stuck)
            assert stuck not in groups.under_way
            await groups.cancel(stuck)
            return [first, *await take(groups)]

    groups = asyncio.run(main())
    assert [group.task for group in groups] == [0, 2]
    check_nothing_is_left(contract)


def test_extra_rollouts_are_cancelled_once_there_are_enough(contract):
    async def policy(episode: Episode) -> Any:
        if episode.number == 1:
            return await wait_for_ever(episode)
        return await answer(episode)

    groups = play(contract.base_url, range(4), policy, extra=1, max_concurrent=6)
    assert [[one.number for one in group] for group in groups] == [[0, 2]] * 4
    assert all(group.complete for group in groups)
    check_nothing_is_left(contract)


def test_groups_that_were_taken_are_gone(contract):
    episodes: list[weakref.ref[Episode]] = []

    async def policy(episode: Episode) -> Any:
        episodes.append(weakref.ref(episode))

    async def main() -> list[int]:
        alive = []
        tasks = itertools.islice(itertools.cycle(range(12)), 120)
        async with stream(contract.base_url, tasks, policy) as groups:
            async for group in groups:
                if group.number % 20 == 19:
                    gc.collect()
                    alive.append(sum(one() is not None for one in episodes))
        return alive

    alive = asyncio.run(main())
    assert len(episodes) == 240
    # Those in flight, those that wait, and the group that was just taken.
    assert max(alive) <= 4 + 2 * (2 + 4) + 2


def test_the_client_of_the_caller_stays_open(contract):
    async def main() -> None:
        async with AsyncORSClient(contract.base_url) as client:
            groups = stream_groups(client, "Contract", [0], answer, n=1)
            assert len(await take(groups)) == 1
            assert await client.list_environments()

    asyncio.run(main())


def rows_of(path: Path) -> Counter[tuple[int, int]]:
    _, *lines = path.read_text().splitlines()
    rows = map(json.loads, lines)
    return Counter((row["task_index"], row["episode"]) for row in rows)


def test_the_output_has_each_group_once_and_the_stream_goes_on(contract, tmp_path):
    output = tmp_path / "groups.jsonl"
    tasks = [*range(6), 0, 1]

    async def some() -> None:
        async with stream(contract.base_url, tasks, output=output) as groups:
            for _ in range(3):
                await anext(groups)

    asyncio.run(some())
    kept = len(rows_of(output)) // 2
    assert kept >= 3
    contract.mark()
    groups = play(contract.base_url, tasks, output=output)
    assert sorted(group.task for group in groups) == sorted(tasks)
    assert sum(group.kept for group in groups) == kept
    assert contract.runs("submit") == 2 * (len(tasks) - kept)
    assert all(group.rewards == [1.5, 1.5] for group in groups)
    # A task that comes twice has further episodes.
    expected = {(task, number) for task in range(6) for number in range(2)}
    expected |= {(task, number) for task in (0, 1) for number in (2, 3)}
    assert rows_of(output) == dict.fromkeys(expected, 1)
    # The figures of an evaluation read it.
    assert Evaluation.load(output).outcomes == 16
    with pytest.raises(errors.InvalidRequestError, match=r'is now .*"n": 3'):
        play(contract.base_url, tasks, output=output, n=3)


def test_what_an_output_lacks_of_a_group_is_played(contract, tmp_path):
    output = tmp_path / "groups.jsonl"
    lost = play(contract.base_url, range(4), Lossy(99), output=output, policy_name="p")
    assert sum(group.complete for group in lost) == 2
    assert len(rows_of(output)) == 8
    contract.mark()
    groups = play(contract.base_url, range(4), output=output, policy_name="p")
    assert all(group.complete for group in groups)
    assert contract.runs("submit") == 2
    assert sum(group.kept for group in groups) == 2
    assert rows_of(output) == {(i, j): 1 for i in range(4) for j in range(2)}


@pytest.mark.slow
def test_outages_of_a_whole_server_are_repaired():
    with start_server(SDK, environments=["Contract"]) as server:

        async def main() -> list[Group]:
            groups = stream(server.base_url, itertools.cycle(range(12)))
            taken: list[Group] = []
            async with groups, asyncio.timeout(BOUND):
                async for group in groups:
                    taken.append(group)
                    if len(taken) == 3:
                        await asyncio.to_thread(server.restart)
                    if len(taken) == 10:
                        break
            return taken

        groups = asyncio.run(main())
        assert all(group.complete for group in groups)
        assert {reward for group in groups for reward in group.rewards} == {1.5}
        # Those of the server before are gone with it.
        server.mark()
