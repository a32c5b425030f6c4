"""Which task an episode plays: pure arithmetic, without a server."""

import itertools
from typing import Any

import numpy as np
import pytest

from ors_gym.env._task_order import Task, TaskSchedule, choose_split, permute, read_task
from ors_gym.errors import InvalidRequestError, UnknownTaskError

pytestmark = pytest.mark.unit

ORDERS = ("sequential", "shuffle", "random")
MANY = 10**9


def play(
    schedule: TaskSchedule, episodes: int, count: int | None = 10, random: int = 0
) -> list[int]:
    generator = np.random.default_rng(random)
    tasks = [schedule.next_task("train", count, generator) for _ in range(episodes)]
    assert {task.split for task in tasks} == {"train"}
    return [task.index for task in tasks]


def play_seeded(seed: int, episodes: int, count: int = 10, **arguments: Any):
    schedule = TaskSchedule(**arguments)
    schedule.seed(seed)
    return play(schedule, episodes, count)


def test_a_seed_selects_a_task_and_later_episodes_go_on_from_there():
    assert play_seeded(8, 4) == [8, 9, 0, 1]
    assert play_seeded(28, 2) == [8, 9]


@pytest.mark.parametrize("order", ORDERS)
def test_the_same_seed_gives_the_same_tasks_whatever_the_generator(order):
    schedules = [TaskSchedule(order=order) for _ in range(2)]
    for schedule in schedules:
        schedule.seed(11)
    first, second = schedules
    assert play(first, 20, random=1) == play(second, 20, random=2)
    first.seed(11)
    second.seed(12)
    assert play(first, 20) != play(second, 20)


def test_the_orders_are_the_same_on_every_machine():
    assert play_seeded(7, 6, order="shuffle") == [5, 2, 4, 3, 7, 9]
    assert play_seeded(7, 6, order="random") == [4, 1, 1, 9, 0, 7]
    assert permute(123_456_789, MANY, key=7) == 585_853_962


@pytest.mark.parametrize("order", ["sequential", "shuffle"])
@pytest.mark.parametrize("count", [1, 2, 3, 10, 64, 100])
def test_every_task_is_played_once_before_one_is_repeated(order, count):
    played = play_seeded(5, 2 * count, count, order=order)
    assert sorted(played[:count]) == list(range(count))
    assert played[count:] == played[:count]


def test_a_shuffle_is_another_permutation_for_each_seed():
    orders = {tuple(permute(i, 10, key) for i in range(10)) for key in range(50)}
    assert len(orders) == 50
    assert all(sorted(order) == list(range(10)) for order in orders)


@pytest.mark.parametrize("order", ORDERS)
def test_a_thousand_million_tasks_take_no_memory(order):
    played = play_seeded(3, 200, MANY, order=order)
    assert all(0 <= index < MANY for index in played)
    if order != "sequential":
        assert max(played) > MANY // 2
    assert len(set(played)) == 200


def test_a_random_order_repeats_tasks_and_reaches_all():
    played = play_seeded(0, 400, order="random")
    assert set(played) == set(range(10))
    assert len(set(played[:10])) < 10


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("seed", [None, 6])
def test_envs_that_share_a_set_play_different_tasks(order, seed):
    envs = [TaskSchedule(order=order, offset=i, stride=3) for i in range(3)]
    if seed is not None:
        for i, schedule in enumerate(envs):
            schedule.seed(seed + i)
    # Unseeded, their generators differ, and they agree on a start all the same.
    played = [play(one, 4, 12, random=i) for i, one in enumerate(envs)]
    rounds = list(zip(*played, strict=True))
    assert all(len(set(tasks)) == 3 for tasks in rounds)
    if order != "random":
        assert sorted(itertools.chain(*rounds)) == list(range(12))


def test_an_unseeded_start_is_drawn_by_the_env_itself():
    starts = {play(TaskSchedule(), 1, MANY, random=i)[0] for i in range(8)}
    assert len(starts) == 8


def test_a_choice_made_ahead_can_be_taken_back():
    schedule = TaskSchedule(order="shuffle")
    schedule.seed(4)
    first, second = play(schedule, 2)
    schedule.step_back()
    assert play(schedule, 1) == [second]
    schedule.seed(4)
    schedule.step_back()
    assert play(schedule, 1) == [first]


def test_a_functions_choice_takes_no_place_of_the_order():
    schedule = TaskSchedule()
    schedule.seed(0)
    assert play(schedule, 3) == [0, 1, 2]
    schedule.set_tasks(lambda random, history: 7)
    assert play(schedule, 1) == [7]
    schedule.step_back()
    schedule.set_tasks(None)
    assert play(schedule, 1) == [3]


@pytest.mark.parametrize("order", ORDERS)
def test_a_split_aside_has_an_order_of_its_own(order):
    schedule = TaskSchedule(order=order)
    schedule.seed(2)
    random = np.random.default_rng(0)
    played = play(schedule, 2)
    for expected in played:
        task = schedule.next_task("test", 10, random, aside=True)
        assert (task.split, task.index) == ("test", expected)
    third = play(schedule, 1)
    schedule.seed(2)
    assert schedule.next_task("test", 10, random, aside=True).index == played[0]
    assert play(schedule, 3) == [*played, *third]


def test_a_narrowed_set_is_counted_by_itself_and_may_change():
    schedule = TaskSchedule(range(3, 6))
    schedule.seed(2)
    assert (schedule.size, play(schedule, 2, count=None)) == (3, [5, 3])
    schedule.set_tasks([7, 1])
    assert (schedule.size, play(schedule, 2, count=None)) == (2, [7, 1])
    schedule.set_tasks(None)
    assert (schedule.size, play(schedule, 1)) == (None, [6])


def test_task_specs_have_no_index():
    specs = [{"id": "a"}, {"id": "b"}]
    schedule = TaskSchedule(specs)
    schedule.seed(1)
    random = np.random.default_rng(0)
    assert schedule.next_task("train", None, random) == Task("train", -1, {"id": "b"})


def test_a_curriculum_sees_the_history_and_the_generator():
    seen = []

    def choose(random, history):
        seen.append(history)
        return len(history) + int(random.integers(1))

    schedule = TaskSchedule(choose)
    assert schedule.size is None
    assert not schedule.is_foreseeable
    assert TaskSchedule().is_foreseeable
    schedule.history.append((4, 0.5))
    assert play(schedule, 1) == [1]
    schedule.history.append((1, None))
    assert play(schedule, 1) == [2]
    assert seen == [((4, 0.5),), ((4, 0.5), (1, None))]


@pytest.mark.parametrize("index", [-1, 10, "1", 1.0, True, None])
def test_an_index_that_names_no_task(index):
    with pytest.raises(UnknownTaskError, match=r"index|no task"):
        TaskSchedule().task_at("train", index, 10)
    with pytest.raises(UnknownTaskError):
        play(TaskSchedule(lambda *_: index), 1)


def test_an_index_of_numpy_and_an_unknown_number_of_tasks():
    assert TaskSchedule().task_at("a", np.int64(3), None) == Task("a", 3)


def test_a_split_without_tasks():
    with pytest.raises(UnknownTaskError, match="has no tasks"):
        play(TaskSchedule(), 1, count=0)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"order": "sorted"}, "task_order is 'sorted'"),
        ({"offset": -1}, "task_offset"),
        ({"stride": 0}, "task_stride"),
        ({"tasks": []}, "empty"),
        ({"tasks": range(0)}, "empty"),
        ({"tasks": "train"}, "not str"),
        ({"tasks": {"id": 1}}, "not dict"),
        ({"tasks": 7}, "not int"),
        ({"tasks": {1, 2}}, "not set"),
    ],
)
def test_arguments_that_cannot_be_right(arguments, said):
    with pytest.raises(InvalidRequestError, match=said):
        TaskSchedule(**arguments)


@pytest.mark.parametrize(
    ("names", "wanted", "chosen"),
    [
        (["test", "train"], None, "train"),
        (["only"], None, "only"),
        (["train", "test"], "test", "test"),
        (["validation", "test"], None, "pass split=, one of: 'validation', 'test'"),
        (["train"], "dev", "no split 'dev'; the splits: 'train'"),
        ([], None, "one of: none"),
    ],
)
def test_a_split_is_never_chosen_silently(names, wanted, chosen):
    splits: Any = [{"name": name, "type": "train"} for name in names]
    if chosen in names:
        assert choose_split(splits, wanted) == chosen
    else:
        with pytest.raises(UnknownTaskError, match=chosen):
            choose_split(splits, wanted)


@pytest.mark.parametrize(
    ("given", "read"),
    [
        (3, Task("dev", 3)),
        (np.int64(3), Task("dev", 3)),
        (("test", 2), Task("test", 2)),
        (Task("", 1), Task("", 1)),
        ({"question": "1+1"}, Task("dev", -1, {"question": "1+1"})),
    ],
)
def test_a_task_as_users_give_it(given, read):
    assert read_task(given, "dev") == read


@pytest.mark.parametrize("given", [True, "3", None, 1.0, ("test", "2"), ("test", 1, 2)])
def test_what_names_no_task(given):
    with pytest.raises(UnknownTaskError, match="a task is an index"):
        read_task(given, None)


def test_what_people_call_a_task():
    assert Task("train", 3).title == "task 3 of train"
    assert Task("", 3).title == "task 3"
    assert Task("train", -1, {"answer": "42"}).title == "a task of your own"
