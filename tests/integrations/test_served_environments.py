"""Every env of Gymnasium, and data sets of reasoning-gym, served and played."""

import atexit
import functools
import os
import shutil
import tempfile
import warnings
from collections.abc import Iterator
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from reasoning_gym.factory import DATASETS

from ors_gym.client import ORSClient
from ors_gym.errors import InvalidRequestError
from ors_gym.evaluation import evaluate
from ors_gym.server import serve
from ors_gym.testing import check_server
from ors_gym.wrappers import NativeSpaces
from tests.support.side_by_side import check_cleanly, play_side_by_side

GROUP = "environments"

# Before JAX is imported, here and in the servers: it would compile each env of theirs
# anew, for each episode.
JAX_CACHE = tempfile.mkdtemp(prefix="ors_gym-jax-")
atexit.register(shutil.rmtree, JAX_CACHE, ignore_errors=True)
os.environ["JAX_COMPILATION_CACHE_DIR"] = JAX_CACHE
os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
os.environ["JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES"] = "-1"

STEPS = 1000
# Gymnasium registers them, but nothing can be installed that makes them.
GONE = ("has been moved", "have been moved", "shimmy", "only supported on `mujoco<3`")


def find_family(identifier: str) -> str:
    entry = str(gym.spec(identifier).entry_point)
    family = entry.removeprefix("gymnasium.envs.").partition(".")[0].partition(":")[0]
    return family + identifier[-3:] * (family == "mujoco")


def is_installable(identifier: str) -> bool:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            gym.make(identifier).close()
    except ImportError as error:
        assert any(part in str(error) for part in GONE), error
        return False
    return True


ALL = [one for one in sorted(gym.registry) if not one.startswith(("ors/", "GymV2"))]
PLAYED = [identifier for identifier in ALL if is_installable(identifier)]


def test_most_of_what_is_registered_is_played():
    families = {find_family(identifier) for identifier in PLAYED}
    assert {"classic_control", "toy_text", "box2d", "mujoco-v4", "mujoco-v5"} < families
    assert {"phys2d", "tabular"} <= families
    assert len(PLAYED) >= 43


@functools.cache
def family_of(family: str) -> list[str]:
    return [identifier for identifier in PLAYED if find_family(identifier) == family]


@pytest.fixture(scope="module")
def addresses() -> Iterator[Any]:
    """Give the address of one server for each family of envs, started when needed."""
    running: dict[str, Any] = {}

    def find(identifier: str) -> str:
        family = find_family(identifier)
        if family not in running:
            context = serve(*(f"gymnasium:{one}" for one in family_of(family)))
            running[family] = context, context.__enter__()
        return str(running[family][1])

    yield find
    for context, _ in running.values():
        context.__exit__(None, None, None)


# After some episodes a seed starts another episode than in a new env of theirs.
NOT_RESET = ("BipedalWalker-v3", "BipedalWalkerHardcore-v3")


class Plain(gym.Wrapper[Any, Any, Any, Any]):
    """Gives NumPy's arrays for those of JAX, which is what is carried."""

    def reset(self, **arguments: Any) -> Any:
        if self.env.spec is not None and self.env.spec.id in NOT_RESET:
            # Each session has a new env. The space was seeded, and stays.
            self.action_space = self.action_space
            self.env.close()
            self.env = gym.make(self.env.spec.id, disable_env_checker=True)
        return tuple(map(plain, self.env.reset(**arguments)))

    def step(self, action: Any) -> Any:
        return tuple(map(plain, self.env.step(action)))


def plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: plain(one) for key, one in value.items()}
    foreign = hasattr(value, "__array__") and not isinstance(
        value, np.ndarray | np.generic
    )
    return np.asarray(value) if foreign else value


@pytest.mark.parametrize("identifier", PLAYED)
@pytest.mark.timeout(600)
def test_every_bit_is_that_of_the_env_itself(identifier, addresses, closing):
    name = identifier.replace("/", "-").lower()
    remote = gym.make("ors/remote", env_name=name, base_url=addresses(identifier))
    env = closing(NativeSpaces(remote))
    native = closing(Plain(gym.make(identifier, disable_env_checker=True)))
    play_side_by_side(env, native, steps=STEPS, seed=11)
    check_cleanly(env)


# Of each kind; some have a scorer of their own.
SETS = [
    *("ab", "basic_arithmetic", "caesar_cipher", "chain_sum", "count_primes"),
    *("countdown", "family_relationships", "figlet_font", "game_of_life"),
    *("knights_knaves", "leg_counting", "letter_counting", "maze", "mini_sudoku"),
    *("number_sorting", "polynomial_equations", "shortest_path", "simple_equations"),
    *("spell_backward", "string_manipulation", "syllogism", "tower_of_hanoi"),
    *("word_ladder", "zebra_puzzles"),
]


@pytest.fixture(scope="module")
def sets() -> Iterator[str]:
    with serve(*(f"reasoning_gym:{name}" for name in SETS)) as base_url:
        yield base_url


@pytest.mark.parametrize("name", SETS)
def test_a_data_set_passes_the_check_and_its_answers_score(name, sets):
    assert name in DATASETS
    report = check_server(sets, name)
    assert report.ok, report.summary

    with ORSClient(sets) as client:

        def answer(episode: Any) -> Any:
            # The policy does not see the task; the test looks it up.
            task = client.get_task(name, "test", episode.task_index)
            return {"tool": "submit", "input": {"answer": task["answer"]}}

        result = evaluate(client, name, range(4), answer, split="test", progress=False)
        assert [row["total_reward"] for row in result.results] == [1.0] * 4
        tasks = [client.get_task(name, split, 0) for split in ("train", "test")]
        assert tasks[0]["question"] != tasks[1]["question"]


def test_arguments_of_a_data_set_stand_after_its_name():
    source = "reasoning_gym:leg_counting?min_animals=2&max_animals=2&size=21"
    with serve(source) as base_url, ORSClient(base_url) as client:
        splits = ("train", "validation", "test")
        sizes = [client.num_tasks("leg_counting", split) for split in splits]
        assert sizes == [15, 3, 3]
        tasks = [
            task
            for split in splits
            for task in client.list_tasks("leg_counting", split)
        ]
        assert [task["item"] for task in tasks] == list(range(21))
        assert all(task["question"].count(",") == 2 for task in tasks)


@pytest.mark.parametrize(
    ("source", "said"),
    [
        (
            "reasoning_gym:no_such_set",
            "no data set 'no_such_set'; it has .*leg_counting",
        ),
        ("reasoning_gym:leg_counting?no_such=1", "leg_counting.*no_such"),
        ("reasoning_gym:leg_counting?size=2", "size is 2"),
        ("reasoning_gym:composite", "composite.*cannot be made"),
    ],
)
def test_a_data_set_that_cannot_be_had_is_an_error(source, said):
    with pytest.raises(InvalidRequestError, match=said), serve(source):
        pass
