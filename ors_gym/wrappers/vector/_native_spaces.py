"""Served Gymnasium environments as they were before, for vector envs."""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from typing import Any

import numpy as np
from gymnasium.vector import VectorEnv
from gymnasium.vector.utils import (
    batch_space,
    concatenate,
    create_empty_array,
    iterate,
)
from numpy.typing import NDArray

from ors_gym.errors import InvalidArgumentError
from ors_gym.vector._env import merge_info
from ors_gym.wrappers._native_spaces import NativeView
from ors_gym.wrappers.vector._vector_view import Judged, Results, VectorView


class NativeSpaces(VectorView):
    """Gives served Gymnasium environments their own spaces, values and flags back.

    The rules are those of `ors_gym.wrappers.NativeSpaces`, for each env by itself. With
    ``SameStep`` autoreset, ``infos["final_obs"]`` and ``infos["final_info"]`` are the
    environments' as well. Options of a reset that choose no task are refused: each
    environment would need a task of its own.

    Args:
        env: A vector env of Gymnasium environments.

    Raises:
        InvalidRequestError: If the environments are not Gymnasium environments.

    Example:
        >>> import gymnasium as gym
        >>> import ors_gym
        >>> from ors_gym.server import serve
        >>> with serve("gymnasium:CartPole-v1") as base_url:
        ...     remote = gym.make_vec(
        ...         "ors/remote", 2, env_name="cartpole-v1", base_url=base_url
        ...     )
        ...     envs = NativeSpaces(remote)
        ...     observations, infos = envs.reset(seed=7)
        ...     rewards = envs.step(np.array([0, 1]))[1]
        ...     envs.close()
        >>> envs.action_space, observations.shape, rewards
        (MultiDiscrete([2 2]), (2, 4), array([1., 1.]))
    """

    def __init__(self, env: VectorEnv[Any, Any, NDArray[Any]]) -> None:
        super().__init__(env)
        self._view = NativeView(env.single_action_space)
        self.single_action_space = self._view.action_space
        self.single_observation_space = self._view.observation_space
        self.action_space = batch_space(self.single_action_space, self.num_envs)
        self.observation_space = batch_space(
            self.single_observation_space, self.num_envs
        )
        self._last: list[Any] = [self._view.nothing() for _ in range(self.num_envs)]

    def choose(self, actions: Any, envs: NDArray[np.int64]) -> Any:
        """Return the calls of actions (see `VectorView.choose`)."""
        del envs
        try:
            listed = list(iterate(self.action_space, actions))
        except (AttributeError, LookupError, TypeError, ValueError) as error:
            raise InvalidArgumentError(
                f"the actions {actions!r:.100} are not of {self.action_space}: {error}"
            ) from None
        return tuple(map(self._view.call, listed))

    def judge(self, results: Results, judged: Judged) -> Judged:
        """Return the environments' rewards and flags (see `VectorView.judge`)."""
        rewards, terminations, truncations = deepcopy(judged)
        for row in range(len(results.envs)):
            ended = results.final[row]
            info = _row(results.infos["final_info"] if ended else results.infos, row)
            if results.fresh[row] and info:
                reward, terminations[row], truncations[row] = self._view.judge(
                    info, rewards[row], terminations[row], truncations[row]
                )
                rewards[row] = np.asarray(reward).item()
        return rewards, terminations, truncations

    def show(self, results: Results) -> Any:
        """Read the observations and infos (see `VectorView.show`)."""
        infos: dict[str, Any] = {}
        count = len(results.envs)
        for row, env in enumerate(results.envs):
            if results.fresh[row]:
                merge_info(infos, self._show_row(results, row, env), row, count)
        kept = {
            key: results.infos[key]
            for key in ("env_id", "_env_id")
            if key in results.infos
        }
        results.infos.clear()
        results.infos.update(infos | kept)
        values = [self._last[env] for env in results.envs]
        space = self.single_observation_space
        batch: Any = create_empty_array(space, count)
        return concatenate(space, values, batch)

    def _show_row(self, results: Results, row: int, env: int) -> dict[str, Any]:
        view = self._view
        info = _row(results.infos, row)
        native: dict[str, Any] = {}
        if results.final[row]:
            ended = _row(results.infos["final_info"], row)
            last, final = view.stepped(ended, self._last[env], over=True)
            native = {"final_obs": last, "final_info": final}
        if results.starts[row]:
            self._last[env], own = view.begun(info, view.nothing())
        else:
            over = bool(results.over[row])
            self._last[env], own = view.stepped(info, self._last[env], over=over)
        return {**native, **own}


def _row(infos: Mapping[str, Any], row: int) -> dict[str, Any]:
    """Return the info of one env; nothing if it has none."""
    return {
        key: values[row]
        for key, values in infos.items()
        if f"_{key}" in infos and infos[f"_{key}"][row] and not isinstance(values, dict)
    }
