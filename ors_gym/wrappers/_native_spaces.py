"""A served Gymnasium environment as it was before it was served."""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from typing import Any, SupportsFloat

import gymnasium
import numpy as np
from gymnasium.utils import RecordConstructorArgs
from gymnasium.wrappers.utils import create_zero_array

from ors_gym._gymnasium_json.spaces import SPACES_KEYWORD, read_space, write_action
from ors_gym._gymnasium_json.values import UncarriedError, read_value, write_value
from ors_gym.env._env import RESET_OPTIONS
from ors_gym.env._step_rules import Metadata
from ors_gym.env._task_order import NextTask
from ors_gym.errors import (
    InvalidArgumentError,
    InvalidRequestError,
    ProtocolError,
    ToolFailedError,
)
from ors_gym.types import ToolCall
from ors_gym.wrappers._discrete_tools import calls_within


class NativeSpaces(gymnasium.Wrapper[Any, Any, Any, Any], RecordConstructorArgs):
    """Gives a served Gymnasium environment its own spaces, values and flags back.

    It is for what ``ors_gym.server.serve("gymnasium:...")``, or a function that makes
    Gymnasium envs, serves. Actions and observations are those of the environment's
    own spaces, to the bit: dtypes, shapes, NaN. An action reaches the environment in
    the dtype of its space. ``terminated``, ``truncated`` and the reward are the
    environment's, also a reward that is not finite. The info is the environment's
    as far as JSON holds it. Beside it ``info["ors"]`` is the info of the wrapped env, a
    read-only mapping, whose ``["metadata"]["left_out"]`` lists what JSON does not hold.

    ``reset(seed=s)`` resets the environment with the seed s, if ``split`` is ``train``
    and s is below 2**30. Resets without a seed go on with s + 1, s + 2 and so forth,
    since each episode has an environment of its own. Options that choose no task, as
    those of `ORSEnv.reset` do, are given to the environment.

    What would raise in the environment raises here. Only where the wrapped env ends an
    episode by an error (``on_error="truncate"``), the last observation is repeated.

    Args:
        env: An ORS env of a Gymnasium environment.

    Raises:
        InvalidRequestError: If the environment is not a Gymnasium environment.

    Example:
        >>> import gymnasium as gym
        >>> import ors_gym
        >>> from ors_gym.server import serve
        >>> with serve("gymnasium:CartPole-v1") as base_url:
        ...     remote = gym.make(
        ...         "ors/remote", env_name="cartpole-v1", base_url=base_url
        ...     )
        ...     env = NativeSpaces(remote)
        ...     print(env.action_space, env.reset(seed=7)[0].dtype)
        ...     observation, reward, terminated, truncated, info = env.step(1)
        ...     env.close()
        Discrete(2) float32
        >>> reward, terminated, truncated
        (1.0, False, False)
    """

    def __init__(self, env: gymnasium.Env[Any, Any]) -> None:
        RecordConstructorArgs.__init__(self)
        gymnasium.Wrapper.__init__(self, env)
        self._view = NativeView(env.action_space)
        self.action_space = self._view.action_space
        self.observation_space = self._view.observation_space
        self._last: Any = None

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        """Start an episode, as the env does, with the environment's observation.

        Raises:
            InvalidArgumentError: If the options cannot be carried.
        """
        if options and options.keys().isdisjoint(RESET_OPTIONS):
            options = {"task": self._view.task(seed, options)}
        _, info = self.env.reset(seed=seed, options=options)
        self._last, native = self._view.begun(info, self._view.nothing())
        return self._last, native

    def step(
        self, action: Any
    ) -> tuple[Any, SupportsFloat, bool, bool, dict[str, Any]]:
        """Take a step in the environment.

        Raises:
            InvalidArgumentError: If the action is not of the action space.
            ToolFailedError: If the environment raised.
        """
        call = self._view.call(action)
        _, reward, terminated, truncated, info = self.env.step(call)
        view = self._view
        reward, terminated, truncated = view.judge(info, reward, terminated, truncated)
        self._last, native = view.stepped(info, self._last, over=truncated)
        return self._last, reward, terminated, truncated, native


class NativeView:
    """What `NativeSpaces` and its twin for vector envs do, without an env."""

    def __init__(self, action_space: gymnasium.Space[Any]) -> None:
        for tool in calls_within(action_space).tools:
            described = (tool["input_schema"] or {}).get(SPACES_KEYWORD)
            if isinstance(described, Mapping):
                break
        else:
            raise InvalidRequestError(
                "this is no Gymnasium environment: none of its tools says which spaces "
                'it has. NativeSpaces is for what serve("gymnasium:...") serves'
            )
        self._tool = tool["name"]
        try:
            self.action_space = read_space(described.get("action_space"))
            self.observation_space = read_space(described.get("observation_space"))
        except UncarriedError as error:
            raise ProtocolError(
                f"the tool {self._tool} describes spaces that cannot be read: {error}"
            ) from None

    def nothing(self) -> Any:
        """Return what stands for an observation where there never was one."""
        return create_zero_array(self.observation_space)

    @staticmethod
    def task(seed: int | None, options: Mapping[str, Any]) -> NextTask:
        """Return the task of a reset with options."""
        try:
            written = write_value(dict(options))
        except UncarriedError as error:
            raise InvalidArgumentError(f"the options of a reset: {error}") from None
        spec = None if seed is None else {"seed": seed}
        return NextTask(spec, {"options": written})

    def call(self, action: Any) -> ToolCall:
        """Return the call that takes an action."""
        try:
            written = write_action(self.action_space, action)
        except (
            ArithmeticError,
            AttributeError,
            LookupError,
            TypeError,
            ValueError,
        ) as e:
            raise InvalidArgumentError(
                f"the action {action!r:.100} is not of {self.action_space}: {e}"
            ) from None
        return {"tool": self._tool, "input": {"action": written}}

    @staticmethod
    def judge(
        info: Mapping[str, Any], reward: Any, terminated: bool, truncated: bool
    ) -> tuple[Any, bool, bool]:
        """Return the environment's reward and flags.

        ``truncated`` is also set if the wrapped env truncated the episode.
        """
        metadata = info["metadata"]
        if "terminated" in metadata:
            terminated = metadata["terminated"] is True
            truncated = metadata.get("truncated") is True or truncated
        if "reward" in metadata:
            reward = _read(metadata, "reward")
            number = np.asarray(reward)
            if number.size != 1 or number.dtype.kind not in "biuf":
                raise ProtocolError(
                    f"the reward of the environment is no number: {reward!r:.100}"
                )
        return reward, terminated, truncated

    def begun(
        self, info: Mapping[str, Any], nothing: Any
    ) -> tuple[Any, dict[str, Any]]:
        """Return the observation and info of a reset; ``nothing`` if it failed."""
        if info["error_kind"]:
            return nothing, {"ors": Metadata(info)}
        for block in info["blocks"]:
            detail = block.get("detail")
            if isinstance(detail, Mapping) and "observation" in detail:
                return self._report(detail, info)
        raise ProtocolError(
            "the prompt holds no observation of a Gymnasium environment"
        )

    def stepped(
        self, info: Mapping[str, Any], last: Any, *, over: bool
    ) -> tuple[Any, dict[str, Any]]:
        """Return the observation and info of a step.

        Raises what the environment raised, unless the wrapped env ended the episode,
        and always for what is no action.
        """
        if not info["error_kind"]:
            return self._report(info["metadata"], info)
        if info["error_kind"] == "invalid_action":
            raise InvalidArgumentError(info["error"])
        if over:
            return deepcopy(last), {"ors": Metadata(info)}
        raise ToolFailedError(info["error"])

    @staticmethod
    def _report(
        record: Mapping[str, Any], info: Mapping[str, Any]
    ) -> tuple[Any, dict[str, Any]]:
        native = _read(record, "info")
        if not isinstance(native, dict):
            raise ProtocolError("the info of the environment is no object")
        return _read(record, "observation"), {"ors": Metadata(info), **native}


def _read(record: Mapping[str, Any], key: str) -> Any:
    try:
        return read_value(record[key])
    except KeyError:
        raise ProtocolError(
            f"the reply holds no {key} of a Gymnasium environment"
        ) from None
    except UncarriedError as error:
        raise ProtocolError(
            f"the {key} of the environment cannot be read: {error}"
        ) from None
