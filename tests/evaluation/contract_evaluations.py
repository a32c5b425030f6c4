"""Evaluations of the environment ``Contract``, and the records they may give."""

from typing import Any

from ors_gym.evaluation import Evaluation, Record, evaluate
from ors_gym.rollout import Episode, reference_policy
from ors_gym.rollout._episode import Step
from tests.support.servers.process import RunningServer


def submit(episode: Episode) -> dict[str, Any]:
    return {"tool": "submit", "input": {"answer": "0"}}


def answer(episode: Episode) -> dict[str, Any]:
    """Submit what is right for two tasks of three, also of the math environment."""
    if episode.environment == "math":
        right: dict[str, Any] = reference_policy()(episode)
    else:
        right = {"tool": "submit", "input": {"answer": str(2 * episode.task_index)}}
    if episode.task_index % 3 == 2:
        right["input"]["answer"] = "no idea"
    return right


def play(
    server: RunningServer, tasks: Any = range(4), policy: Any = answer, **options: Any
) -> Evaluation:
    options = {"split": "train", "progress": False, **options}
    return evaluate(server.base_url, "Contract", tasks, policy, **options)


def unfold(text: str) -> str:
    """Put the lines of a figure into one, as they are without the terminal's width."""
    return text.replace("\n" + " " * 16, " ")


def make_record(
    index: int,
    reward: float | None = 1.0,
    *,
    split: str = "test",
    tool: str = "submit",
    number: int = 0,
) -> Record:
    """Make the record of one episode; without a reward, an outage ended it."""
    step = Step(0, "c", tool, {}, [], reward or 0.0, seconds=0.5)
    episode = Episode("math", index, split, number, steps=[step])
    if reward is None:
        episode.end_without_outcome("<b>gone</b>", "connection")
        return Record(episode, None)
    episode.stop_reason, episode.total_reward = "finished", reward
    return Record(episode, reward > 0)


FOUND = Evaluation(
    [make_record(index, reward) for index, reward in enumerate((1.0, 0.0, 0.5, None))],
    head={"environment": "<math>", "policy": "a & b", "split": "test"},
    planned=5,
)
"""An evaluation with three outcomes and an outage; one episode was not played."""
