"""Tool calls as numbers, for vector envs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import gymnasium
import numpy as np
from gymnasium.vector import VectorEnv
from gymnasium.vector.utils import batch_space
from numpy.typing import NDArray

from ors_gym.types import ToolCall
from ors_gym.vector._env import list_actions
from ors_gym.wrappers._discrete_tools import CallMenu
from ors_gym.wrappers.vector._vector_view import Results, VectorView


class DiscreteTools(VectorView):
    """Numbers the tool calls of every env alike: actions are ``MultiDiscrete``.

    The rules are those of `ors_gym.wrappers.DiscreteTools`.
    ``infos["action_mask"]`` has the shape (num_envs, n) and belongs to the sessions
    that the observations are of; with ``SameStep`` autoreset, the mask of a session
    that ended is in ``infos["final_info"]``.

    Args:
        env: A vector env whose actions are tool calls.
        calls: The calls to number; every call of the tools if None.

    Raises:
        SchemaError: If ``calls`` is None and the tools take infinitely many different
            calls, more than 1000 or none.
        InvalidRequestError: If one of the calls cannot be read, or the env's actions
            are not tool calls.

    Example:
        >>> import gymnasium as gym
        >>> import ors_gym
        >>> envs = DiscreteTools(gym.make_vec("ors/guess", num_envs=2))
        >>> envs.action_space
        MultiDiscrete([16 16])
        >>> observations, infos = envs.reset(seed=7)
        >>> infos["action_mask"].shape
        (2, 16)
        >>> envs.step([8, 8])[0][0]
        'It is higher than 9. It is in 10..16, and you have 9 guesses left.'
        >>> envs.close()
    """

    def __init__(
        self,
        env: VectorEnv[Any, Any, NDArray[Any]],
        calls: Sequence[object] | None = None,
    ) -> None:
        super().__init__(env)
        self._menu = CallMenu(env.single_action_space, calls)
        count = len(self._menu)
        self.single_action_space = gymnasium.spaces.Discrete(count)
        self.action_space = batch_space(self.single_action_space, self.num_envs)
        self._masks = np.ones((self.num_envs, count), np.int8)

    @property
    def calls(self) -> tuple[ToolCall, ...]:
        """The calls by number."""
        return self._menu.calls

    def choose(self, actions: Any, envs: NDArray[np.int64]) -> Any:
        """Return the calls of numbers (see `VectorView.choose`)."""
        listed = list_actions(actions, len(envs))
        return tuple(
            self._menu.choose(action, self._masks[env])
            for action, env in zip(listed, envs, strict=True)
        )

    def show(self, results: Results) -> Any:
        """Add the masks to the infos (see `VectorView.show`)."""
        infos = results.infos
        if results.final.any():
            ended = self._masks[results.envs]
            ended[~results.final] = 0
            infos["final_info"]["action_mask"] = ended
            infos["final_info"]["_action_mask"] = results.final.copy()
        if results.starts.any():
            # The batched space does not follow the sessions of Gymnasium's vector envs.
            tools = self.unwrapped.get_attr("tools")  # type: ignore[attr-defined]
            for env in results.envs[results.starts]:
                self._masks[env] = self._menu.mask(tools[env])
        infos["action_mask"] = self._masks[results.envs]
        infos["_action_mask"] = results.fresh.copy()
        return results.observations
