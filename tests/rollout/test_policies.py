"""How policies are called and named, and the random one."""

from __future__ import annotations

import asyncio
import functools
import threading
from typing import Any

import pytest

from ors_gym import AsyncORSClient
from ors_gym.errors import InvalidRequestError
from ors_gym.rollout import (
    Episode,
    random_policy,
    reference_policy,
    run_episode_async,
    run_group,
)
from ors_gym.rollout._policies import choose_policy, is_async, name_policy


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


@pytest.mark.parametrize("given", [(None, None), (asked, AsyncPolicy), (3, None)])
def test_one_policy_or_one_factory_is_needed(given):
    with pytest.raises(InvalidRequestError, match="policy"):
        choose_policy(*given)


def test_random_policies_draw_the_same_however_many_play(contract):
    def actions(n: int) -> list[Any]:
        work = run_group(
            contract.base_url, "ListOnly", 1, random_policy(5), n=n, max_turns=2
        )
        return [episode.turns[0].actions for episode in asyncio.run(work)]

    alone, among = actions(1), actions(4)
    assert alone == among[:1]
    assert among[0] != among[1]


def test_a_plain_policy_runs_in_a_thread_and_a_second_one_beside_it(contract):
    both = threading.Barrier(2, timeout=20)

    def policy(episode):
        both.wait()

    async def main() -> list[Episode]:
        async with AsyncORSClient(contract.base_url) as client:
            one = run_episode_async(client, "Contract", 0, policy)
            two = run_episode_async(client, "Contract", 1, policy)
            return list(await asyncio.gather(one, two))

    ends = [episode.stop_reason for episode in asyncio.run(main())]
    assert ends == ["policy_stopped", "policy_stopped"]
