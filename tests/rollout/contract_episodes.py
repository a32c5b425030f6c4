"""Episodes of the environment ``Contract`` on a real server."""

import asyncio
from typing import Any

from ors_gym.rollout import Episode, Policy, run_episode_async
from tests.rollout.scripted_env import call
from tests.support.servers.process import RunningServer

SDK = "ors-sdk-0.1.0"
ADD = call("add", a=1, b=2)
"""Pays 0.5."""
SUBMIT = call("submit", answer="0")
"""Ends an episode of the first task with a reward of 1."""


def scripted(*answers: Any) -> Policy:
    """Return a policy that gives these answers, then gives up."""
    queue = list(answers)
    return lambda episode: queue.pop(0) if queue else None


def play(
    server: RunningServer, policy: Policy, task: Any = 0, **arguments: Any
) -> Episode:
    work = run_episode_async(server.base_url, "Contract", task, policy, **arguments)
    return asyncio.run(work)
