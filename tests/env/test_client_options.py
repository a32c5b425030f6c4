"""What ``client_options`` holds reaches the server, as what has a name of its own."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

import ors_gym
from ors_gym.env import TaskEnv
from ors_gym.evaluation import evaluate
from ors_gym.rollout import random_policy
from tests.support.proxy.proxy import FaultProxy

GIVEN: dict[str, Any] = {
    "client_options": {"api_key": "KEY-hunter22", "headers": {"X-Deployment": "blue"}}
}


def reset_env(url: str) -> None:
    with ors_gym.ORSEnv("contract", url, split="train", **GIVEN) as env:
        env.reset(seed=0)


def reset_async_env(url: str) -> None:
    async def play() -> None:
        async with ors_gym.AsyncORSEnv("contract", url, split="train", **GIVEN) as env:
            await env.reset(seed=0)

    asyncio.run(play())


def reset_vector_env(url: str) -> None:
    envs = ors_gym.ORSVectorEnv("contract", url, 2, split="train", **GIVEN)
    envs.reset(seed=0)
    envs.close()


def open_task(url: str) -> None:
    with TaskEnv("contract", url, split="train", **GIVEN) as env:
        env.open(0)


def evaluate_random(url: str) -> None:
    options: dict[str, Any] = {"split": "train", "max_turns": 1, "progress": False}
    evaluate(url, "contract", [0], random_policy(0), **options, **GIVEN)


def register(url: str) -> None:
    ors_gym.register_envs(url, namespace="client-options", **GIVEN)


@pytest.mark.parametrize(
    "work",
    [
        *(reset_env, reset_async_env, reset_vector_env),
        *(open_task, evaluate_random, register),
    ],
)
def test_client_options_are_sent(proxy: FaultProxy, work: Callable[[str], None]):
    work(proxy.url)
    requests = proxy.requests()
    assert requests
    for request in requests:
        assert request.header("x-api-key") == "KEY-hunter22", request.path
        assert request.header("x-deployment") == "blue", request.path
