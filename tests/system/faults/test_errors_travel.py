"""Every error survives the ways in which Python carries errors between processes."""

import concurrent.futures
import copy
import functools
import multiprocessing
import pickle
from collections.abc import Iterator
from typing import Any

import gymnasium
import pytest
from gymnasium.vector import AsyncVectorEnv

from ors_gym import errors

NAMES = errors.__all__
FIELDS = {"status": 503, "task_id": "7f", "reason": "not_found"}


def make_error(name: str) -> errors.ORSError:
    kind: type[errors.ORSError] = getattr(errors, name)
    fields = {key: value for key, value in FIELDS.items() if hasattr(kind, key)}
    return kind(f"a message\nof {name}", **fields)  # type: ignore[arg-type]


def raise_error(name: str) -> None:
    raise make_error(name)


class RaisingEnv(gymnasium.Env[Any, Any]):
    observation_space = gymnasium.spaces.Discrete(2)
    action_space = gymnasium.spaces.Discrete(2)

    def __init__(self, name: str) -> None:
        self._name = name

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[int, dict[str, Any]]:
        return 0, {}

    def step(self, action: object) -> tuple[int, float, bool, bool, dict[str, Any]]:
        raise make_error(self._name)


def check_same(one: BaseException, other: BaseException) -> None:
    assert type(one) is type(other)
    assert str(one) == str(other)
    assert vars(one) == vars(other)


@pytest.mark.parametrize("name", NAMES)
def test_plain_values_only(name: str) -> None:
    error = make_error(name)
    assert all(type(arg) is str for arg in error.args)
    for value in vars(error).values():
        assert type(value) in (str, int) or value is None


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_pickled_and_back(name: str, protocol: int) -> None:
    error = make_error(name)
    check_same(pickle.loads(pickle.dumps(error, protocol)), error)


@pytest.mark.parametrize("name", NAMES)
def test_copied(name: str) -> None:
    error = make_error(name)
    check_same(copy.copy(error), error)
    check_same(copy.deepcopy(error), error)


@pytest.mark.parametrize("name", NAMES)
def test_rebuilt_from_one_argument(name: str) -> None:
    error = make_error(name)
    check_same(type(error)(error), error)
    assert str(type(error)(str(error))) == str(error)
    assert type(error)().args is not None


@pytest.mark.parametrize("name", NAMES)
def test_fields_are_there_without_being_given(name: str) -> None:
    bare = getattr(errors, name)("said")
    for field in ("status", "task_id", "reason"):
        if hasattr(make_error(name), field):
            assert getattr(bare, field) in (0, "")
    with pytest.raises(TypeError, match="no field"):
        type(bare)("said", colour="red")


@pytest.fixture(scope="module")
def pool() -> Iterator[concurrent.futures.Executor]:
    context = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(1, mp_context=context) as executor:
        yield executor


def test_through_a_pool_of_processes(pool: concurrent.futures.Executor) -> None:
    for name in NAMES:
        raised = pool.submit(raise_error, name).exception(timeout=60)
        assert raised is not None
        check_same(raised, make_error(name))


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
@pytest.mark.filterwarnings("ignore::UserWarning:gymnasium")
@pytest.mark.parametrize("name", NAMES)
def test_through_the_workers_of_a_vector_env(name: str) -> None:
    envs = AsyncVectorEnv(
        [functools.partial(RaisingEnv, name)] * 2, context="fork", shared_memory=False
    )
    try:
        envs.reset()
        with pytest.raises(getattr(errors, name)) as caught:
            envs.step([0, 0])
        check_same(caught.value, make_error(name))
    finally:
        envs.close(terminate=True)
