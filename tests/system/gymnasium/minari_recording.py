"""Records and reloads Minari datasets; runs in an environment that has Minari.

python -m tests.system.gymnasium.minari_recording BASE_URL FORMAT
"""

import importlib
import json
import sys
from typing import Any

import gymnasium as gym
import numpy as np

from ors_gym.wrappers import DiscreteTools, ParsedText, PlainInfo
from tests.spaces.texts import TEXTS

minari: Any = importlib.import_module("minari")

COUNT = 2
INFO_KEYS = ("task_index", "split", "tool", "error_kind", "blocks", "metadata")


def call(tool: str, **arguments: Any) -> str:
    return json.dumps({"tool": tool, "input": arguments}, ensure_ascii=False)


def record(env: Any, actions: list[Any], name: str) -> tuple[Any, list[Any]]:
    """Play episodes of the same actions; return the dataset and what was seen."""
    episodes = []
    for seed in range(COUNT):
        observation, info = env.reset(seed=seed)
        observations, infos, rewards = [observation], [info], []
        for action in actions:
            observation, reward, terminated, truncated, info = env.step(action)
            observations.append(observation)
            infos.append(info)
            rewards.append(reward)
        episodes.append((observations, infos, rewards, terminated, truncated))
    author = {"author": "ors_gym", "author_email": "nobody@example.org"}
    about = {"algorithm_name": "scripted", "code_permalink": "https://example.org"}
    about |= {"description": "A recording.", **author}
    env.create_dataset(name, eval_env=env.env, **about)
    env.close()
    return minari.load_dataset(name), episodes


def text_of(value: Any) -> Any:
    return value.decode() if isinstance(value, bytes) else value


def check_text(base_url: str, data_format: str, *, infos: bool) -> None:
    # HDF5 ends a text at its first NUL, and h5py refuses such texts.
    texts = [text for text in TEXTS if data_format != "hdf5" or "\0" not in text]
    actions = [call("echo", text=text) for text in texts]
    actions += ["no call", call("metadata"), call("submit", answer="é")]
    env: Any = gym.make(
        "ors/remote", env_name="contract", base_url=base_url, action_mode="text"
    )
    env = PlainInfo(env) if infos else env
    collector = minari.DataCollector(env, data_format=data_format, record_infos=infos)
    dataset, played = record(collector, actions, f"ors/text-{infos}-v0")
    for episode, seen in zip(dataset.iterate_episodes(), played, strict=True):
        assert list(episode.observations) == seen[0]
        assert list(episode.observations)[1 : len(texts) + 1] == texts
        assert list(episode.actions) == actions
        assert episode.rewards.tolist() == seen[2]
        assert (episode.terminations[-1], episode.truncations[-1]) == seen[3:]
        for key in INFO_KEYS if infos else ():
            stored = [text_of(value) for value in episode.infos[key].tolist()]
            assert stored == [info[key] for info in seen[1]]
    again = dataset.recover_environment()
    assert again.reset(seed=1)[0] == played[1][0][0]
    again.close()


def check_numbers(base_url: str, data_format: str) -> None:
    calls = [{"tool": "add", "input": {"a": i, "b": 1}} for i in range(3)]
    calls.append({"tool": "submit", "input": {"answer": "0"}})
    env: Any = gym.make("ors/remote", env_name="contract", base_url=base_url)
    env = DiscreteTools(ParsedText(env, r"^(\d+)"), calls)
    collector = minari.DataCollector(env, data_format=data_format)
    dataset, played = record(collector, [2, 0, 1, 3], "ors/numbers-v0")
    for episode, seen in zip(dataset.iterate_episodes(), played, strict=True):
        assert np.array_equal(episode.observations, seen[0])
        assert episode.actions.tolist() == [2, 0, 1, 3]
    again = dataset.recover_environment()
    assert again.get_wrapper_attr("calls") == tuple(calls)
    again.close()


def main(base_url: str, data_format: str) -> None:
    check_text(base_url, data_format, infos=False)
    check_text(base_url, data_format, infos=True)
    check_numbers(base_url, data_format)


if __name__ == "__main__":
    main(*sys.argv[1:])
