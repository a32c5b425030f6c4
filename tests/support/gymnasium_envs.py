"""Gymnasium envs that the tests serve: a nested one, and hostile ones."""

import functools
import math
import threading
from copy import deepcopy
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces

_INNER: dict[str, Any] = {
    "box": spaces.Box(-np.inf, np.inf, (2, 2), np.float16),
    "bytes": spaces.Box(0, 255, (3, 0, 2), np.uint8),
    "count": spaces.Box(-(2**62), 2**62, (1,), np.int64),
    "flags": spaces.MultiBinary((2, 3)),
    "kinds": spaces.MultiDiscrete(
        np.array([[2, 3], [4, 5]]), start=np.eye(2, dtype=int)
    ),
    "name": spaces.Text(5, min_length=1, charset="ab^]-\\é"),
    "number": spaces.Discrete(3, start=-1),
    "one_of": spaces.OneOf([spaces.Discrete(2), spaces.Box(-1, 1, (2,))]),
    "pair": spaces.Tuple([spaces.Discrete(2), spaces.Box(0, 1, (1,), np.float64)]),
    "series": spaces.Sequence(spaces.Dict(x=spaces.Discrete(4))),
    "stack": spaces.Sequence(spaces.Box(0, 1, (2,)), stack=True),
    "yes": spaces.Box(0, 1, (2,), np.bool_),
}


class Nested(gym.Env[Any, Any]):
    """Observes what it likes of a nested space, and in its info the last action."""

    def __init__(self) -> None:
        self.action_space = spaces.Dict(deepcopy(_INNER))
        graph = spaces.Graph(spaces.Box(-1, 1, (2,)), spaces.Discrete(3))
        self.observation_space = spaces.Dict(
            {
                **deepcopy(_INNER),
                "graph": graph,
                "image": spaces.Box(0, 255, (20, 16, 3), np.uint8),
            }
        )

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        self.observation_space.seed(int(self.np_random.integers(2**31)))
        return self.observation_space.sample(), {"options": options, "seed": seed}

    def step(self, action):
        assert action in self.action_space
        reward = self.np_random.choice([math.nan, math.inf, -0.0, 0.1])
        over, cut = self.np_random.random(2) < 0.05
        info = {
            # In a tuple, as Gymnasium batches no arrays of different shapes.
            "action": (action,),
            "dtypes": [str(action["box"].dtype), str(action["yes"].dtype)],
            "nan": math.nan,
            "pair": (1, np.int8(2)),
            5: "a key that is no text",
        }
        return self.observation_space.sample(), reward, over, cut, info


class Hostile(gym.Env[Any, Any]):
    """Misbehaves as its name in `HOSTILE` says."""

    render_mode = "rgb_array"

    def __init__(self, fault: str) -> None:
        self.fault = fault
        self.action_space = spaces.Discrete(9)
        self.observation_space = spaces.Box(0, 1, (2,))
        self._thread = threading.get_ident()
        self._steps = 0

    def _observe(self) -> Any:
        if self.fault == "an object as an observation" and self._steps:
            return object()
        if self.fault == "outside its space":
            return np.array([5, math.nan], np.float64)
        return np.zeros(2, np.float32)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self._check_thread()
        if self.fault == "reset raises" and seed:
            raise ZeroDivisionError("reset said no")
        return self._observe(), {}

    def step(self, action):
        self._check_thread()
        self._steps += 1
        if self.fault == "step raises" and action == 1:
            raise ZeroDivisionError("step said no")
        if self.fault == "step raises" and action == 2:
            raise StopIteration
        if self.fault == "step raises" and action == 3:
            raise SystemExit(3)
        info = {"plain": 1, "odd": self, "set": {1}} if "info" in self.fault else {}
        reward = math.nan if "reward" in self.fault else 1
        if self.fault == "four values":
            return self._observe(), reward, True, info
        return self._observe(), reward, self._steps == 4, False, info

    def render(self):
        if self.fault == "render raises":
            raise ZeroDivisionError("render said no")
        return

    def close(self):
        self._check_thread()
        if self.fault == "close raises":
            raise ZeroDivisionError("close said no")

    def _check_thread(self) -> None:
        if threading.get_ident() != self._thread:
            raise RuntimeError("this env may only be used in the thread that made it")


def make_hostile(fault: str, task: Any) -> gym.Env[Any, Any]:
    del task
    return Hostile(fault)


FAULTS = (
    "reset raises",
    "step raises",
    "an object as an observation",
    "outside its space",
    "info is no JSON",
    "reward is NaN",
    "render raises",
    "render gives None",
    "close raises",
    "four values",
)


def hostile(fault: str) -> Any:
    """Return a function that makes hostile envs, and is named for the fault."""
    made = functools.partial(make_hostile, fault)
    made.__name__ = fault.replace(" ", "_")  # type: ignore[attr-defined]
    return made


class Overlapping(gym.Env[Any, Any]):
    """Fails if two threads use envs of its class at a time."""

    busy = False

    def __init__(self) -> None:
        self.action_space = spaces.Discrete(1)
        self.observation_space = spaces.Discrete(1)

    def reset(self, *, seed=None, options=None):
        return 0, {}

    def step(self, action):
        assert not Overlapping.busy
        Overlapping.busy = True
        # Lets other threads run.
        for _ in range(20):
            threading.Event().wait(0.0005)
        Overlapping.busy = False
        return 0, 1.0, False, False, {}
