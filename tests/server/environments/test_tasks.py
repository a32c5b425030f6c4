"""The tasks of the bundled environments: numbered, apart, the same everywhere."""

import asyncio
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ors_gym.server import BUNDLED
from ors_gym.server._load_served import import_environment
from ors_gym.server.environments._base import SPLITS, NumberedTasks
from tests.support.processes import run_python

ENVIRONMENTS: dict[str, type[NumberedTasks]] = {
    name: import_environment(reference) for name, reference in BUNDLED.items()
}
every_environment = pytest.mark.parametrize("name", ENVIRONMENTS)


async def prompt_of(name: str, task: Any) -> str:
    environment: Any = ENVIRONMENTS[name](task)
    ready = environment.setup()
    if ready is not None:
        await ready
    prompt = json.dumps([block.model_dump() for block in environment.get_prompt()])
    environment.teardown()
    return prompt


@every_environment
def test_hundreds_of_tasks_per_split_listed_or_by_index_each_with_its_id(name: str):
    environment = ENVIRONMENTS[name]
    assert environment.name() == name
    assert [split.name for split in environment.list_splits()] == list(SPLITS)  # type: ignore[union-attr]
    ids = set()
    for split in SPLITS:
        count = asyncio.run(environment.num_tasks(split))
        tasks = environment.list_tasks(split)
        assert count == len(tasks) >= 200
        assert asyncio.run(environment.get_task(split, count - 1)) == tasks[-1]
        ids |= {task["id"] for task in tasks}
    assert len(ids) == sum(SPLITS.values())


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("math", ["question"]),
        ("blackjack", ["deck_seed"]),
        ("maze", ["maze_seed", "size", "distance"]),
        ("sql", ["data_seed"]),
    ],
)
def test_no_content_is_in_two_splits(name: str, content: list[str]):
    contents = [
        {json.dumps([task[key] for key in content]) for task in environment_tasks}
        for environment_tasks in map(ENVIRONMENTS[name].list_tasks, SPLITS)
    ]
    assert all(contents)
    assert sum(map(len, contents)) == len(set.union(*contents))


def test_the_numbers_to_guess_are_spread_over_the_interval():
    secrets = [task["secret"] for task in ENVIRONMENTS["guess"].list_tasks("train")]
    counts = [secrets.count(number) for number in range(1, 17)]
    assert sum(counts) == len(secrets)
    assert min(counts) > 30


@every_environment
@pytest.mark.parametrize("index", [-1, 200])
def test_an_index_outside_the_split_is_refused(name: str, index: int):
    with pytest.raises(IndexError, match="0 to 199"):
        asyncio.run(ENVIRONMENTS[name].get_task("test", index))


def test_a_split_that_does_not_exist_is_refused():
    with pytest.raises(IndexError, match="train, validation, test"):
        ENVIRONMENTS["math"].list_tasks("dev")


@pytest.mark.parametrize(
    ("name", "task"),
    [
        *((name, {"id": "x"}) for name in BUNDLED),
        ("guess", {"secret": 17}),
        ("maze", {"maze_seed": 1, "size": 1000, "distance": 8}),
        ("maze", {"maze_seed": 1, "size": 5, "distance": 12}),
        ("sql", {"data_seed": 1, "questions": [1], "repair": None}),
        ("sql", {"data_seed": 1, "questions": [{"kind": 99}], "repair": None}),
    ],
)
def test_a_task_that_cannot_be_read_says_so(name: str, task: dict[str, Any]):
    with pytest.raises(ValueError, match=f"The {name} environment cannot read"):
        ENVIRONMENTS[name](task)


@given(seed=st.integers(), size=st.integers(2, 8), power=st.integers(0, 8))
@settings(max_examples=30, deadline=None)
def test_any_maze_can_be_set_up(seed: int, size: int, power: int):
    task = {"maze_seed": seed, "size": size, "distance": 2**power}
    assert "G" in asyncio.run(prompt_of("maze", task))


FINGERPRINT = """
import asyncio, hashlib, json
from tests.server.environments.test_tasks import ENVIRONMENTS, prompt_of
for name, environment in ENVIRONMENTS.items():
    tasks = [environment.task_at(split, 7) for split in ("train", "test")]
    prompts = [asyncio.run(prompt_of(name, task)) for task in tasks]
    written = json.dumps([tasks, prompts])
    print(name, hashlib.sha256(written.encode()).hexdigest())
"""


@pytest.mark.slow
def test_tasks_and_prompts_are_the_same_in_every_process():
    one, other = (
        run_python("-c", FINGERPRINT, environment={"PYTHONHASHSEED": hash_seed})
        for hash_seed in ("1", "2")
    )
    assert (one.returncode, other.returncode) == (0, 0)
    assert one.stdout == other.stdout
    assert len(one.stdout.splitlines()) == len(ENVIRONMENTS)


def test_tasks_stay_the_same_from_release_to_release():
    first = {name: one.task_at("train", 0) for name, one in ENVIRONMENTS.items()}
    assert first["math"]["question"] == (
        "Hana shares marbles with friends: 12 people get 6 each, then everybody gets "
        "9 more. How many are given away?"
    )
    assert first["guess"]["secret"] == 13
    assert first["blackjack"]["deck_seed"] == 3626764237
