"""How policies are called and named, and the random one."""

import asyncio
import functools

import pytest

from ors_gym.errors import InvalidRequestError
from ors_gym.rollout import random_policy, reference_policy, run_episode_async
from ors_gym.rollout._policies import choose_policy, is_async, name_policy

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


def test_a_negative_seed_is_refused_before_any_episode():
    with pytest.raises(InvalidRequestError, match="at least 0, not -1"):
        random_policy(-1)
    with pytest.raises(InvalidRequestError, match="at least 0, not -1"):
        asyncio.run(run_episode_async(None, "guess", 0, random_policy(), seed=-1))


@pytest.mark.parametrize("given", [(None, None), (asked, AsyncPolicy), (3, None)])
def test_one_policy_or_one_factory_is_needed(given):
    with pytest.raises(InvalidRequestError, match="policy"):
        choose_policy(*given)
