"""Runs that are exported: episodes with images, and with answers where they may be."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from ors_gym.rollout import Episode, Step, Turn
from ors_gym.rollout._output import FORMAT, Output, Record
from tests.formats.images import RED, image_block

CANARY = "canary-of-an-answer"
HEAD = {
    "format": FORMAT,
    "server": "http://127.0.0.1:8080",
    "environment": "Pictures",
    "split": "train",
    "policy": "painter",
    "limits": {},
    "version": "0.1.0",
}
TOOLS: list[Any] = [
    {
        "name": "look",
        "description": "Look.",
        "input_schema": {"type": "object", "properties": {"at": {"type": "integer"}}},
    }
]
USAGE: dict[str, Any] = {
    "prompt_tokens": 11,
    "completion_tokens": 3,
    "prompt_tokens_details": {"cached_tokens": 5},
}


def make_run(
    index: int = 0,
    reward: float | None = 1.0,
    *,
    number: int = 0,
    split: str = "train",
    image: str | None = RED,
    steps: int = 2,
    task: Any = None,
    said: str = "I look.",
    seen: str = "a picture",
) -> Record:
    """Make a record with a step for each turn; the last one finishes it.

    The answer of the task is wherever an episode or a record may hold it.
    """
    picture = [] if image is None else [image_block(image)]
    turns, played = [], []
    for at in range(steps):
        given = {"at": at, "how": {"a": None, "b": [1.5]}}
        call = {"tool": "look", "input": given}
        turns.append(Turn([call], said, {"usage": USAGE}, [f"call_{at}_0"]))
        blocks = [{"type": "text", "text": seen}, *picture]
        step = Step(at, f"call_{at}_0", "look", given, blocks, reward or 0.0)
        step.metadata = {"expected": CANARY}
        step.finished = at == steps - 1
        played.append(step)
    prompt: Any = [{"type": "text", "text": f"What is in {index}?"}, *picture]
    episode = Episode("Pictures", index, split, number, 7, prompt, tools=TOOLS)
    episode.turns, episode.steps = turns, played
    episode.group_score = {"reward": 1.0, "metadata": {"expected": CANARY}}
    episode.stop_reason, episode.total_reward = "finished", reward
    if reward is None:
        episode.end_without_outcome(CANARY, "connection")
    success = None if reward is None else reward > 0
    return Record(episode, success, task)


def with_task(record: Record) -> Record:
    """Make the record one of a task without an index, which holds the answer."""
    record.episode.task_index = -1
    return Record(record.episode, record.success, {"id": "x", "answer": CANARY})


def write_run(path: Path, records: Iterable[Record]) -> Path:
    with Output(path, HEAD, ()) as output:
        for record in records:
            output.append(record)
    return path
