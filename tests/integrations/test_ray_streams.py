"""Streams of groups on a Ray cluster: the same groups, whatever becomes of workers."""

import asyncio
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import ray

from ors_gym.rollout import Episode, Group, GroupStream, stream_groups

GROUP = "rllib"

BOUND = 100.0


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    """Start Ray on this machine, with more processors than it may have."""
    ray.init(num_cpus=4, include_dashboard=False, log_to_driver=False)
    yield
    ray.shutdown()


def answer(episode: Episode) -> dict[str, Any]:
    if not episode.steps:
        return {"tool": "add", "input": {"a": 1, "b": 2}}
    return {"tool": "submit", "input": {"answer": str(2 * episode.task_index)}}


def stream(url: str, tasks: Any, policy: Any = answer, **options: Any) -> GroupStream:
    given: dict[str, Any] = {"n": 2, "max_concurrent": 8, "split": "train"}
    given |= {"engine": "ray", "actors": 2, **options}
    return stream_groups(url, "Contract", tasks, policy, **given)


async def take_all(groups: GroupStream) -> list[Group]:
    async with groups, asyncio.timeout(BOUND):
        return [group async for group in groups]


def test_the_groups_are_those_of_one_process(cluster, tidy_server):
    version = 3
    groups = asyncio.run(
        take_all(stream(tidy_server.base_url, range(12), version=lambda: version))
    )
    assert sorted(group.task for group in groups) == list(range(12))
    for group in groups:
        assert group.rewards == [1.5, 1.5]
        assert group.version == 3
        assert {turn.version for episode in group for turn in episode.turns} == {3}
    tidy_server.wait_for("teardown", 24)


def test_a_lost_workers_rollouts_are_played_again(cluster, one_server, tmp_path):
    workers = tmp_path / "workers"
    workers.mkdir()
    path = str(workers)

    async def policy(episode: Episode) -> dict[str, Any]:
        if not episode.attempts and not episode.steps:
            (Path(path) / str(os.getpid())).touch()
        return answer(episode)

    async def main() -> list[Group]:
        groups = stream(one_server.base_url, [*range(12)] * 4, policy, attempts=5)
        taken: list[Group] = []
        killed = False
        async with groups, asyncio.timeout(BOUND):
            async for group in groups:
                taken.append(group)
                playing = [int(one.name) for one in workers.iterdir()]
                if len(playing) >= 2 and not killed:
                    killed = True
                    os.kill(playing[0], signal.SIGKILL)
        assert killed
        return taken

    groups = asyncio.run(main())
    assert len(groups) == 48
    assert all(group.complete for group in groups)
    episodes = [episode for group in groups for episode in group]
    assert {episode.total_reward for episode in episodes} == {1.5}
    kinds = {one.kind for episode in episodes for one in episode.attempts}
    assert kinds <= {"worker"}


def test_a_rollout_that_ends_its_workers_is_lost(cluster, one_server):
    def policy(episode: Episode) -> dict[str, Any]:
        if episode.task_index == 1:
            os._exit(1)
        return answer(episode)

    [group] = asyncio.run(
        take_all(stream(one_server.base_url, [1], policy, n=1, attempts=2, actors=1))
    )
    assert not group.complete
    [lost] = group.lost
    assert (lost.error_kind, lost.total_reward) == ("worker", None)
    assert [one.kind for one in lost.attempts] == ["worker"]


def test_a_pause_a_version_and_a_cancel_reach_the_workers(cluster, tidy_server):
    version = 0

    async def policy(episode: Episode) -> dict[str, Any]:
        if episode.task_index == 1:
            await asyncio.Event().wait()
        return answer(episode)

    async def main() -> list[Group]:
        nonlocal version
        groups = stream(
            *(tidy_server.base_url, [0, 1, 2, 3], policy),
            max_concurrent=4,
            version=lambda: version,
        )
        async with groups, asyncio.timeout(BOUND):
            first = await anext(groups)
            [stuck] = [one for one in groups.under_way if one.task == 1]
            await groups.cancel(stuck)
            await groups.pause()
            version = 1
            await asyncio.sleep(0.5)
            runs = tidy_server.runs()
            await asyncio.sleep(0.5)
            assert tidy_server.runs() == runs
            await groups.resume()
            rest = [group async for group in groups]
        return [first, *rest]

    groups = asyncio.run(main())
    assert sorted(group.task for group in groups) == [0, 2, 3]
    versions = {t.version for group in groups for e in group for t in e.turns}
    assert 0 in versions
    assert versions <= {0, 1}


def test_what_a_policy_raises_is_raised_here(cluster, tidy_server):
    def policy(episode: Episode) -> dict[str, Any]:
        raise ZeroDivisionError("a bug")

    with pytest.raises(ZeroDivisionError, match="a bug"):
        asyncio.run(take_all(stream(tidy_server.base_url, range(3), policy)))


def test_leaving_deletes_the_sessions_of_the_workers(cluster, tidy_server):
    async def policy(episode: Episode) -> dict[str, Any]:
        if episode.task_index:
            await asyncio.Event().wait()
        return answer(episode)

    async def main() -> None:
        async with stream(tidy_server.base_url, [0, 1, 2, 3], policy) as groups:
            await anext(groups)

    asyncio.run(main())
    tidy_server.wait_until_none_is_open()
