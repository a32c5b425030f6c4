"""How policies are called and named, and the random one."""

import asyncio
import functools
import sys
from typing import Any

import pytest

from ors_gym.errors import InvalidRequestError
from ors_gym.rollout import Episode, random_policy, reference_policy, run_episode_async
from ors_gym.rollout._policies import (
    PolicyCaller,
    choose_policy,
    is_async,
    name_policy,
)

pytestmark = pytest.mark.unit


class AsyncPolicy:
    async def __call__(self, episode):
        return None


async def asked(episode, hint=""):
    return None


@pytest.mark.parametrize(
    ("policy", "name", "awaits"),
    [
        (random_policy(3), "random(seed=3)", False),
        (random_policy(), "random", False),
        (reference_policy(), "reference", False),
        (asked, "asked", True),
        (functools.partial(asked, hint="x"), "asked", True),
        (AsyncPolicy(), "AsyncPolicy", True),
        (AsyncPolicy, "AsyncPolicy", False),
    ],
)
def test_the_name_of_a_policy_and_whether_it_is_async(policy, name, awaits):
    assert name_policy(policy) == name
    if policy is not AsyncPolicy:
        assert is_async(policy) is awaits


@pytest.mark.skipif(
    sys.version_info < (3, 12), reason="Python 3.12 brought eager tasks"
)
def test_an_async_policy_is_asked_under_eager_tasks():
    async def at_once(episode: Episode) -> str:
        return episode.environment

    async def later(episode: Episode) -> str:
        await asyncio.sleep(0)
        return episode.environment

    async def fail(_: Episode) -> None:
        raise OSError("no model")

    async def run() -> None:
        eager: Any = asyncio
        asyncio.get_running_loop().set_task_factory(eager.eager_task_factory)
        caller = PolicyCaller()
        async with asyncio.timeout(30):
            assert await caller.call(at_once, Episode("math")) == "math"
            assert await caller.call(later, Episode("maze")) == "maze"
            with pytest.raises(OSError, match="no model"):
                await caller.call(fail, Episode("math"))

    asyncio.run(run())


def test_a_negative_seed_is_refused_before_any_episode():
    with pytest.raises(InvalidRequestError, match="at least 0, not -1"):
        random_policy(-1)
    with pytest.raises(InvalidRequestError, match="at least 0, not -1"):
        asyncio.run(run_episode_async(None, "guess", 0, random_policy(), seed=-1))


@pytest.mark.parametrize("given", [(None, None), (asked, AsyncPolicy), (3, None)])
def test_one_policy_or_one_factory_is_needed(given):
    with pytest.raises(InvalidRequestError, match="policy"):
        choose_policy(*given)
