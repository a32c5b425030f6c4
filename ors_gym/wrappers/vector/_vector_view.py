"""The common part of the vector wrappers: it knows where episodes begin and end."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from gymnasium.vector import AutoresetMode, VectorEnv, VectorWrapper
from numpy.typing import NDArray

from ors_gym.errors import InvalidRequestError
from ors_gym.vector._env import ORSVectorEnv, list_env_ids

if TYPE_CHECKING:
    _Wrapper: TypeAlias = VectorWrapper[Any, Any, Any, Any, NDArray[Any]]
else:
    # Not generic before Gymnasium 1.3.
    _Wrapper = VectorWrapper

Steps: TypeAlias = tuple[
    Any, NDArray[np.float64], NDArray[np.bool_], NDArray[np.bool_], dict[str, Any]
]
Judged: TypeAlias = tuple[NDArray[np.float64], NDArray[np.bool_], NDArray[np.bool_]]
"""Rewards, terminations and truncations."""


@dataclasses.dataclass(frozen=True, slots=True)
class Results:
    """Batched observations and infos of some envs, one row for each env."""

    observations: Any
    infos: dict[str, Any]
    envs: NDArray[np.int64]
    """The env of each row."""
    fresh: NDArray[np.bool_]
    """Which rows are new; the others repeat what their env showed before."""
    starts: NDArray[np.bool_]
    """Which observations begin an episode."""
    over: NDArray[np.bool_]
    """In which rows the step ended an episode."""
    final: NDArray[np.bool_]
    """Which rows ended an episode and already show the prompt of the next one
    (SameStep)."""


class VectorView(_Wrapper):
    """A wrapper of a vector env in any autoreset mode; a subclass overrides its hooks.

    It has ``send`` and ``recv`` where the env has them, as `ORSVectorEnv` does.
    """

    def __init__(self, env: VectorEnv[Any, Any, NDArray[Any]]) -> None:
        super().__init__(env)
        mode = env.metadata.get("autoreset_mode", AutoresetMode.NEXT_STEP)
        self._mode = AutoresetMode(mode)
        self._due = np.zeros(self.num_envs, np.bool_)
        """Whether the next result of an env begins an episode."""

    def choose(self, actions: Any, envs: NDArray[np.int64]) -> Any:
        """Return the wrapped env's actions for this env's; a hook."""
        del envs
        return actions

    def judge(self, results: Results, judged: Judged) -> Judged:
        """Return the rewards and flags of steps; a hook, called before `show`."""
        del results
        return judged

    def show(self, results: Results) -> Any:
        """Return what this env observes, and add to the infos; a hook."""
        return results.observations

    def reset(
        self,
        *,
        seed: int | Sequence[int | None] | None = None,
        options: dict[str, Any] | None = None,
    ) -> tuple[Any, dict[str, Any]]:
        """Start an episode in each env, or in those of ``options["reset_mask"]``."""
        fresh = self._chosen(options)
        observations, infos = self.env.reset(seed=seed, options=options)  # type: ignore[arg-type]
        self._due[fresh] = False
        none = np.zeros(self.num_envs, np.bool_)
        envs = np.arange(self.num_envs)
        results = Results(observations, infos, envs, fresh, fresh, none, none)
        return self.show(results), infos

    def step(self, actions: Any) -> Steps:
        """Take a step in each env."""
        envs = np.arange(self.num_envs)
        due = self._find_due()
        results = self.env.step(self.choose(actions, envs))
        self._due = due
        return self._see(results, envs)

    def async_reset(
        self,
        *,
        seed: int | Sequence[int | None] | None = None,
        options: dict[str, Any] | None = None,
    ) -> None:
        """Start episodes without waiting: `recv` gives the results."""
        chosen = self._chosen(options)
        self._queue.async_reset(seed=seed, options=options)
        self._due[chosen] = True

    def send(self, actions: Any, env_ids: Any = None) -> None:
        """Have envs take a step without waiting: `recv` gives the results.

        Args:
            actions: One action for each of these envs.
            env_ids: Their indexes; all if None.
        """
        envs = np.array(list_env_ids(env_ids, self.num_envs), np.int64)
        due = self._find_due()
        self._queue.send(self.choose(actions, envs), envs)
        self._due[envs] = due[envs]

    def recv(self, min_envs: int = 1) -> Steps:
        """Return the results of the envs that are ready, of at least ``min_envs``."""
        results = self._queue.recv(min_envs)
        return self._see(results, results[4]["env_id"])

    def _find_due(self) -> NDArray[np.bool_]:
        """Find out for which envs a step begins an episode."""
        if isinstance(self.unwrapped, ORSVectorEnv):
            # Their results may not have come this far: of a step in which one env
            # raises, those of the others are lost.
            return np.array(self.unwrapped.get_attr("reset_is_due"), np.bool_)
        return self._due

    @property
    def _queue(self) -> Any:
        if not hasattr(self.env, "send"):
            raise InvalidRequestError(
                f"{self.env} has no send() and recv(). ORSVectorEnv has them, and "
                f"ors_gym's wrappers directly around it"
            )
        return self.env

    def _see(self, results: Any, envs: NDArray[np.int64]) -> Steps:
        observations, rewards, terminations, truncations, infos = results
        over = np.logical_or(terminations, truncations)
        none = np.zeros(len(envs), np.bool_)
        final = over if self._mode is AutoresetMode.SAME_STEP else none
        starts = self._due[envs] | final
        self._due[envs] = over if self._mode is AutoresetMode.NEXT_STEP else none
        seen = Results(observations, infos, envs, ~none, starts, over, final)
        judged = self.judge(seen, (rewards, terminations, truncations))
        return self.show(seen), *judged, infos

    def _chosen(self, options: Mapping[str, Any] | None) -> NDArray[np.bool_]:
        """Read which envs are reset; Gymnasium's vector envs take the mask out."""
        mask = (options or {}).get("reset_mask")
        if isinstance(mask, np.ndarray) and mask.shape == (self.num_envs,):
            return mask.astype(np.bool_)
        return np.ones(self.num_envs, np.bool_)
