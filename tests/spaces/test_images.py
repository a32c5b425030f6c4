"""`ImageTuple`: images of any size in checks, vector envs and pickles."""

import contextlib
import copy
import json
import pickle
from functools import partial
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium.spaces import Dict
from gymnasium.spaces.utils import flatdim, flatten, flatten_space, unflatten
from gymnasium.utils.env_checker import check_env
from gymnasium.vector import AsyncVectorEnv, SyncVectorEnv
from gymnasium.vector.utils import batch_differing_spaces, batch_space

from ors_gym.spaces import FreeText, ImageTuple

pytestmark = pytest.mark.unit

SIZES = [[], [(1, 1)], [(2, 3), (5, 1)], [(600, 400)], []]


def draw_images(random: np.random.Generator, step: int) -> Any:
    return tuple(
        random.integers(0, 256, (*size, 3), np.uint8)
        for size in SIZES[step % len(SIZES)]
    )


class ImageEnv(gymnasium.Env[Any, Any]):
    def __init__(self, offset: int = 0) -> None:
        self.observation_space = Dict({"text": FreeText(), "images": ImageTuple()})
        self.action_space = gymnasium.spaces.Discrete(2)
        self.offset = offset
        self.steps = 0

    def observe(self) -> dict[str, Any]:
        step = self.offset + self.steps
        return {"text": f"é {step}", "images": draw_images(self.np_random, step)}

    def reset(self, *, seed: Any = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        self.steps = 0
        return self.observe(), {}

    def step(self, action: Any) -> Any:
        self.steps += 1
        return self.observe(), 0.0, False, False, {}


def assert_same(left: Any, right: Any) -> None:
    assert len(left) == len(right)
    for a, b in zip(left, right, strict=True):
        assert a.dtype == b.dtype
        assert np.array_equal(a, b)


def test_contains():
    space = ImageTuple()
    image = np.zeros((2, 3, 3), np.uint8)
    for inside in [(), (image,), (image, np.zeros((1, 1, 3), np.uint8))]:
        assert inside in space
    wrong = (image.astype(np.int64), image[0], image[..., :2], image.tolist())
    for outside in [image, [image], None, *((one,) for one in wrong)]:
        assert outside not in space


def test_samples_are_seeded_and_inside():
    first, second = ImageTuple(seed=3), ImageTuple(seed=3)
    for _ in range(20):
        sample = first.sample()
        assert sample in first
        assert_same(sample, second.sample())
    with pytest.raises(ValueError, match="neither a mask nor probabilities"):
        first.sample(mask=1)  # type: ignore[arg-type]  # what is being tested


def test_equality_repr_and_pickle():
    space = ImageTuple(seed=1)
    assert space == ImageTuple()
    assert space != FreeText()
    assert repr(space) == "ImageTuple()"
    assert_same(pickle.loads(pickle.dumps(space)).sample(), space.sample())


def test_json_round_trip():
    space = ImageTuple(seed=1)
    samples = [space.sample() for _ in range(5)]
    samples.append((np.zeros((4, 6, 3), np.uint8)[::2, ::3],))
    back = space.from_jsonable(json.loads(json.dumps(space.to_jsonable(samples))))
    for left, right in zip(samples, back, strict=True):
        assert_same(left, right)
    back[-1][0][:] = 7


def test_flattening_leaves_images_as_they_are():
    space = Dict({"images": ImageTuple(seed=1)})
    assert flatten_space(space) == space
    sample = space.sample()
    assert_same(unflatten(space, flatten(space, sample))["images"], sample["images"])
    with pytest.raises(ValueError, match="no fixed size"):
        flatdim(space["images"])


def test_check_env():
    check_env(ImageEnv(), skip_render_check=True)


def test_batched_spaces():
    batch = batch_space(ImageTuple(seed=1), 3)
    assert batch.sample() in batch
    batch = batch_differing_spaces([ImageTuple(), ImageTuple()])
    assert batch.sample() in batch


@pytest.mark.slow
@pytest.mark.parametrize(
    "make",
    [
        SyncVectorEnv,
        partial(SyncVectorEnv, observation_mode="different"),
        AsyncVectorEnv,
        partial(AsyncVectorEnv, context="spawn"),
        partial(AsyncVectorEnv, shared_memory=False),
        partial(AsyncVectorEnv, observation_mode="different"),
    ],
    ids=["sync", "different", "async", "spawn", "no shared memory", "async different"],
)
def test_images_survive_every_vector_env(make):
    offsets = range(3)
    envs = make([partial(ImageEnv, offset) for offset in offsets])
    twins = [ImageEnv(offset) for offset in offsets]
    try:
        observations, _ = envs.reset(seed=5)
        expected = [twin.reset(seed=5 + i)[0] for i, twin in enumerate(twins)]
        for _ in range(len(SIZES)):
            assert observations in envs.observation_space
            texts = tuple(observation["text"] for observation in expected)
            assert tuple(observations["text"]) == texts
            images = tuple(observation["images"] for observation in expected)
            for left, right in zip(observations["images"], images, strict=True):
                assert_same(left, right)
            observations = envs.step([0, 1, 0])[0]
            expected = [twin.step(0)[0] for twin in twins]
    finally:
        envs.close()


def test_observations_are_copies_unless_asked_otherwise():
    with contextlib.closing(AsyncVectorEnv([ImageEnv])) as envs:
        first = envs.reset(seed=1)[0]["images"]
        second = envs.step([0])[0]["images"]
        assert len(first[0]) == 0
        assert len(second[0]) == 1
    with contextlib.closing(AsyncVectorEnv([ImageEnv], copy=False)) as live:
        view = live.reset(seed=1)[0]["images"]
        assert len(view) == 1
        assert view[0] == ()
        live.step([0])
        assert len(view[0]) == len(view[-1]) == len(view[:1][0]) == 1
        for copied in (copy.copy(view), pickle.loads(pickle.dumps(view))):
            assert isinstance(copied, tuple)
            assert_same(copied[0], view[0])
