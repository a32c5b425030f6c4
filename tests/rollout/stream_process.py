"""A stream of groups in a process of its own, to be killed.

Run as ``python -m tests.rollout.stream_process URL OUTPUT GROUPS N``. It prints the
groups that were handed over, as JSON.
"""

import asyncio
import itertools
import json
import random
import sys
from typing import Any

from ors_gym.rollout import Episode, stream_groups

TASKS = 12


async def policy(episode: Episode) -> Any:
    """Call a tool with a number that no other episode has, then answer."""
    if not episode.steps:
        numbers = {"a": random.SystemRandom().randrange(2**53), "b": 1}
        return {"tool": "add", "input": numbers}
    right = str(2 * episode.task_index)
    given = "no" if episode.task_index % 3 == 2 else right
    return {"tool": "submit", "input": {"answer": given}}


async def main(url: str, output: str, groups: int, n: int) -> list[Any]:
    taken = []
    stream = stream_groups(
        *(url, "Contract", itertools.islice(itertools.cycle(range(TASKS)), groups)),
        policy,
        n=n,
        max_concurrent=32,
        attempts=20,
        split="train",
        output=output,
    )
    async with stream:
        async for group in stream:
            numbers = [episode.number for episode in group]
            taken.append([group.task, numbers, group.rewards, group.kept])
    return taken


if __name__ == "__main__":
    url, output, groups, n = sys.argv[1:]
    found = asyncio.run(main(url, output, int(groups), int(n)))
    sys.stdout.write(f"\n{json.dumps(found)}\n")
