"""Stable-Baselines3: a ``VecEnv`` whose envs call their tools at the same time.

SB3's ``DummyVecEnv`` waits for each env in turn, and its ``SubprocVecEnv`` needs a
process for each. `ORSVecEnv` is a thin layer over `ORSVectorEnv`: one process, one
event loop, any number of sessions.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final, TypeAlias

import numpy as np
from gymnasium import Wrapper
from gymnasium.envs.registration import EnvSpec
from gymnasium.spaces import Box, Dict, Discrete, MultiBinary, MultiDiscrete, Space
from gymnasium.vector import AutoresetMode
from numpy.typing import NDArray

from ors_gym import wrappers
from ors_gym.errors import InvalidRequestError, needs_extra
from ors_gym.vector import ORSVectorEnv
from ors_gym.wrappers.vector._vector_view import VectorView

__all__ = ["ORSVecEnv"]

with needs_extra("sb3", "ors_gym.integrations.sb3"):
    from stable_baselines3.common.vec_env import VecEnv

Steps: TypeAlias = tuple[
    Any, NDArray[np.float32], NDArray[np.bool_], list[dict[str, Any]]
]
Indices: TypeAlias = int | Iterable[int] | None

_NUMERIC: Final = (Box, Discrete, MultiBinary, MultiDiscrete)
_OF_THE_BATCH: Final = ("env_id", "final_obs", "final_info")
_TWINS: Final[dict[type[Any], type[VectorView]]] = {
    wrappers.DiscreteTools: wrappers.vector.DiscreteTools,
    wrappers.ParsedText: wrappers.vector.ParsedText,
}


class ORSVecEnv(VecEnv):
    r"""Many sessions of an ORS environment as a Stable-Baselines3 ``VecEnv``.

    It returns what ``DummyVecEnv`` returns for single envs with the same wrappers. When
    an episode ends, the next begins in the same step: the info has
    ``terminal_observation`` and ``TimeLimit.truncated``, and ``reset_infos`` has the
    new episode's info. ``step_async`` sends every call; ``step_wait`` waits for the
    replies.

    An outage ends the episode of its env as a time limit does (unless the vector env
    was made with ``on_error="raise"``). The reward is 0, and the terminal observation
    is the last one that the env showed. SB3 adds the value of that observation, so the
    outage teaches nothing. The info has the kind in ``error_kind``;
    ``VecMonitor(env, info_keywords=("error_kind",))`` keeps it with the episode.

    ``env_method("action_masks")`` returns the masks of ``DiscreteTools`` in the form
    that ``MaskablePPO`` needs.

    Args:
        envs: An `ORSVectorEnv` with ``autoreset_mode="SameStep"``, inside wrappers of
            `ors_gym.wrappers.vector` that make its actions and observations numbers.
            `close` closes it.

    Raises:
        InvalidRequestError: If ``envs`` is another kind of vector env, has another
            autoreset mode, or has actions or observations that are not numbers.

    Example:
        >>> from gymnasium.spaces import MultiDiscrete
        >>> from ors_gym import ORSVectorEnv
        >>> from ors_gym.wrappers.vector import DiscreteTools, ParsedText
        >>> envs = ORSVectorEnv("guess", num_envs=2, autoreset_mode="SameStep")
        >>> envs = ParsedText(envs, r"in (\d+)\.\.(\d+)", MultiDiscrete([17, 17]))
        >>> env = ORSVecEnv(DiscreteTools(envs))
        >>> env.seed(7)
        [7, 8]
        >>> env.reset()
        array([[ 1, 16],
               [ 1, 16]])
        >>> observations, rewards, dones, infos = env.step([8, 8])
        >>> observations
        array([[10, 16],
               [ 1,  8]])
        >>> rewards, dones
        (array([-0.0625, -0.0625], dtype=float32), array([False, False]))
        >>> infos[0]["tool"]
        'guess'
        >>> env.close()
    """

    def __init__(self, envs: ORSVectorEnv | VectorView) -> None:
        self._envs = envs
        self._views, self._base = _unwrap(envs)
        _check_spaces(envs.single_observation_space, envs.single_action_space)
        self._masks: list[NDArray[np.int8]] | None = None
        if any(isinstance(v, wrappers.vector.DiscreteTools) for v in self._views):
            count = int(envs.single_action_space.n)  # type: ignore[attr-defined]
            self._masks = [np.ones(count, np.int8) for _ in range(envs.num_envs)]
        super().__init__(
            envs.num_envs, envs.single_observation_space, envs.single_action_space
        )

    @property
    def spec(self) -> EnvSpec | None:
        """The spec of the vector env, if Gymnasium made it."""
        return self._envs.spec

    def reset(self) -> Any:
        """Start an episode in each env, with the seeds and options set before.

        Returns:
            The batched observations. The infos are in ``reset_infos``.
        """
        for options, chosen in _group(self._options):
            mask = np.zeros(self.num_envs, np.bool_)
            mask[chosen] = True
            self._envs.async_reset(
                seed=self._seeds, options={**options, "reset_mask": mask}
            )
        observations, _, _, _, infos, rows = self._receive()
        for env, row in enumerate(rows):
            self._begin(env, _info_of(infos, row))
        # Seeds and options count for one reset.
        self._reset_seeds()
        self._reset_options()
        return observations

    def step_async(self, actions: Any) -> None:
        """Send a call in each env, without waiting.

        Args:
            actions: One action for each env.
        """
        self._envs.send(actions)

    def step_wait(self) -> Steps:
        """Wait for the replies to `step_async`.

        Returns:
            Observations, rewards, dones and infos, one for each env.
        """
        observations, rewards, terminated, truncated, infos, rows = self._receive()
        dones = terminated | truncated
        listed: list[dict[str, Any]] = []
        for env, row in enumerate(rows):
            info = _info_of(infos, row)
            if dones[env]:
                self._begin(env, info)
                info = _info_of(infos["final_info"], row)
                info["terminal_observation"] = infos["final_obs"][row]
            elif self._masks is not None:
                self._masks[env] = info["action_mask"]
            info["TimeLimit.truncated"] = bool(truncated[env] and not terminated[env])
            listed.append(info)
        return observations, rewards.astype(np.float32), dones, listed

    def _receive(self) -> tuple[Any, Any, Any, Any, dict[str, Any], list[int]]:
        """Receive a result of every env, in order, and the rows of their infos."""
        results = self._envs.recv(min_envs=self.num_envs)
        observations, rewards, terminated, truncated, infos = results
        rows = np.argsort(infos["env_id"])
        if isinstance(observations, dict):
            observations = {key: part[rows] for key, part in observations.items()}
        else:
            observations = observations[rows]
        ends = terminated[rows], truncated[rows]
        return observations, rewards[rows], *ends, infos, rows.tolist()

    def _begin(self, env: int, info: dict[str, Any]) -> None:
        self.reset_infos[env] = info
        if self._masks is not None:
            self._masks[env] = info["action_mask"]

    def close(self) -> None:
        """Delete all sessions and close the vector env."""
        self._envs.close()

    def get_attr(self, attr_name: str, indices: Indices = None) -> list[Any]:
        """Return an attribute of envs, from the outermost wrapper that has it.

        Args:
            attr_name: Its name: ``tools``, ``task``, ``session_id``, ``calls``, ...
            indices: Which envs; all if None.

        Returns:
            One value for each env.
        """
        return [self._find(attr_name, i) for i in self._get_indices(indices)]

    def set_attr(self, attr_name: str, value: Any, indices: Indices = None) -> None:
        """Set an attribute of envs.

        Args:
            attr_name: Its name.
            value: The value for all of them.
            indices: Which envs; all if None.
        """
        for i in self._get_indices(indices):
            setattr(self._slots[i], attr_name, value)

    def env_method(
        self,
        method_name: str,
        *method_args: Any,
        indices: Indices = None,
        **method_kwargs: Any,
    ) -> list[Any]:
        """Call a method of envs.

        Args:
            method_name: Its name: ``action_masks``, ``set_tasks``, ``render``, ...
            *method_args: Arguments for the method.
            indices: Which envs; all if None.
            **method_kwargs: Arguments for the method.

        Returns:
            One result for each env.
        """
        methods = self.get_attr(method_name, indices)
        return [method(*method_args, **method_kwargs) for method in methods]

    def env_is_wrapped(
        self, wrapper_class: type[Wrapper[Any, Any, Any, Any]], indices: Indices = None
    ) -> list[bool]:
        """Tell whether envs are in a wrapper.

        Args:
            wrapper_class: A vector wrapper, or its twin for single envs.
            indices: Which envs; all if None.

        Returns:
            The same answer for each env.
        """
        wanted = _TWINS.get(wrapper_class, wrapper_class)
        wrapped = any(isinstance(view, wanted) for view in self._views)
        return [wrapped for _ in self._get_indices(indices)]

    def get_images(self) -> Sequence[NDArray[np.uint8] | None]:
        """Return a picture of each env, with ``render_mode="rgb_array"``."""
        if self.render_mode != "rgb_array":
            warnings.warn(
                f"there are no pictures with render_mode={self.render_mode!r}; make "
                "the envs with render_mode='rgb_array'",
                stacklevel=2,
            )
            return [None] * self.num_envs
        return self.env_method("render")

    @property
    def _slots(self) -> Sequence[Any]:
        # The vector env's own get_attr and call concern all envs at once.
        return self._base._slots  # noqa: SLF001

    def _find(self, name: str, env: int) -> Any:
        if name == "action_masks" and self._masks is not None:
            return self._tell_mask(env)
        if name in ("action_space", "observation_space"):
            return getattr(self._envs, f"single_{name}")
        for view in self._views:
            if name in vars(type(view)):
                return getattr(view, name)
        return self._slots[env].get(name)

    def _tell_mask(self, env: int) -> Callable[[], NDArray[np.bool_]]:
        masks = self._masks or []
        return lambda: masks[env].astype(np.bool_)


def _unwrap(envs: ORSVectorEnv | VectorView) -> tuple[list[VectorView], ORSVectorEnv]:
    """Return the wrappers, from the outside in, and the vector env within."""
    views: list[VectorView] = []
    inner: Any = envs
    while isinstance(inner, VectorView):
        views.append(inner)
        inner = inner.env
    if not isinstance(inner, ORSVectorEnv):
        raise InvalidRequestError(
            f"ORSVecEnv takes an ORSVectorEnv, inside wrappers of "
            f"ors_gym.wrappers.vector only, not {inner!r}. Put the VecEnv wrappers of "
            f"Stable-Baselines3 around ORSVecEnv"
        )
    mode = inner.metadata["autoreset_mode"]
    if mode is not AutoresetMode.SAME_STEP:
        raise InvalidRequestError(
            f"the vector env has autoreset_mode={mode.value!r}. Stable-Baselines3 "
            f"starts an episode in the step that ended the one before; make the vector "
            f'env with autoreset_mode="SameStep"'
        )
    return views, inner


def _check_spaces(observations: Space[Any], actions: Space[Any]) -> None:
    if not isinstance(actions, _NUMERIC):
        raise InvalidRequestError(
            f"Stable-Baselines3 chooses numbers, and the actions are {actions}; put "
            f"ors_gym.wrappers.vector.DiscreteTools around the vector env"
        )
    parts = (
        observations.spaces if isinstance(observations, Dict) else {"": observations}
    )
    if not all(isinstance(part, _NUMERIC) for part in parts.values()):
        raise InvalidRequestError(
            f"Stable-Baselines3 reads numbers, and the envs show {observations}; put "
            f"ors_gym.wrappers.vector.ParsedText around the vector env"
        )


def _group(
    options: Sequence[Mapping[str, Any]],
) -> list[tuple[Mapping[str, Any], list[int]]]:
    """Group the envs that have equal options."""
    groups: list[tuple[Mapping[str, Any], list[int]]] = []
    for env, wanted in enumerate(options):
        for known, envs in groups:
            if known == wanted:
                envs.append(env)
                break
        else:
            groups.append((wanted, [env]))
    return groups


def _info_of(infos: Mapping[str, Any], row: int) -> dict[str, Any]:
    """Return one env's info from a batch."""
    return {
        key: _value_at(values, row)
        for key, values in infos.items()
        if key not in _OF_THE_BATCH and f"_{key}" in infos and infos[f"_{key}"][row]
    }


def _value_at(values: Any, row: int) -> Any:
    if isinstance(values, Mapping):
        return _info_of(values, row)
    value = values[row]
    if isinstance(value, np.generic):
        return value.item()
    return value.copy() if isinstance(value, np.ndarray) else value
