"""The published sample's usage, with only imports changed and arguments added.

Printed figures are collected in place of the sample's ``print``.
"""

import asyncio

import pytest

from ors_gym import ORSClient
from ors_gym.evaluation import evaluate, parallel_evaluate
from ors_gym.rollout import EpisodeRunner, reference_policy
from ors_gym.server import REFERENCE_PLAYERS, embedded_base_url

policy = reference_policy()


@pytest.fixture(scope="module")
def client():
    with ORSClient(embedded_base_url()) as client:
        yield client


@pytest.fixture(scope="module")
def tasks(client):
    return client.list_tasks("math", "test")


def test_the_episode_runner_with_a_selected_action(client, tasks):
    class Solver(EpisodeRunner):
        def select_action(self, observation):
            return REFERENCE_PLAYERS["math"]()(observation[0]["text"], [])

    result = Solver(client, "math").run_episode(tasks[0])
    figures = {"success": True, "total_reward": 1.0, "steps": 1}
    assert result == {**figures, "task": tasks[0]}


def test_the_batch_evaluation(client, tasks):
    metrics = evaluate(client, "math", tasks[:20], policy, progress=False)
    assert f"Success rate: {metrics['success_rate']:.1%}" == "Success rate: 100.0%"
    assert f"Average reward: {metrics['avg_reward']:.3f}" == "Average reward: 1.000"
    assert metrics["avg_steps"] == 1.0
    for task, result in zip(tasks, metrics["results"], strict=False):
        assert result["task"] == task
        assert result["success"] is True
        assert f"{result['total_reward']:.2f} {result['steps']}" == "1.00 1"


def test_the_parallel_execution(client, tasks):
    work = parallel_evaluate(client, "math", tasks[:20], policy, progress=False)
    results = asyncio.run(work)
    assert set(results) == {"success_rate", "avg_reward", "avg_steps", "results"}
    assert len(results["results"]) == 20


def test_no_tasks_and_null_rewards_are_no_division_by_zero(client):
    none = evaluate(client, "math", [], policy, progress=False)
    assert none["results"] == []
    assert none["success_rate"] != none["success_rate"]
    assert str(none)
