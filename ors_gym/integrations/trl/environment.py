"""One rollout of a trainer: an episode whose tools are methods."""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ClassVar, Final

from ors_gym.actions import InvalidAction
from ors_gym.env_core import StepResult
from ors_gym.errors import EpisodeOverError, ORSError, SetupFailedError
from ors_gym.integrations.trl.content import Content, make_content
from ors_gym.rollout.play import OUTAGES
from ors_gym.rollout.reward import reduce_rewards
from ors_gym.rollout.turn import PAYS_NOTHING
from ors_gym.types import JSONObject

if TYPE_CHECKING:
    from ors_gym.integrations.trl.factory import EnvironmentFactory
    from ors_gym.integrations.trl.sessions import RolloutEnv

__all__ = ["Rollout"]

_LOGGER: Final = logging.getLogger(__name__)
_FINISHED: Final = "The episode is over; this call was not run."
_NOTHING: Final = ""
"""What a model is shown where an outage took the place of a result."""


class Rollout:
    """A trainer's environment: `reset`, and a method for each tool.

    Everything else has a name that begins with ``_`` or is no method, since a trainer
    takes every public method for a tool. `EnvironmentFactory` makes the class.

    The blocking client is used, for that is how a trainer calls: one tool after
    another, from the thread that trains. Async methods would gain nothing, since TRL
    gathers only the calls of one rollout, and a session takes one call at a time.
    """

    _factory: ClassVar[EnvironmentFactory]

    def __init__(self) -> None:
        self._env: RolloutEnv | None = None
        self._begin()

    def _begin(self) -> None:
        self._rewards: list[float] = []
        self._finished = False
        self._invalid_actions = 0
        self._over = "call reset() first"
        """Why no tool is run any more; ``""`` while the episode goes on."""
        self._lost = True
        """Whether there is no outcome: not begun, or ended by an outage."""

    def reset(self, *, task_index: int, **_: Any) -> Content | None:
        """Start the episode of a row of the dataset.

        Args:
            task_index: The row's task.
            **_: The row's other columns, which concern the trainer.

        Returns:
            The prompt, which the trainer appends to the row's own; None if an outage or
            a set-up that failed left the rollout without an episode, and without a
            reward.

        Raises:
            ORSError: For any other reason, such as a wrong key: training cannot go on.
        """
        factory = self._factory
        self._leave()
        self._begin()
        try:
            if self._env is None:
                self._env = factory.sessions.make_env()
            task = factory.find(task_index)
            opened = factory.sessions.open(self._env, task_index, task)
            observation, info = self._env.start(opened)
        except ORSError as error:
            if not error.outage and not isinstance(error, SetupFailedError):
                raise
            self._lose(f"task {task_index} has no episode", error.kind, str(error))
            return None
        self._over, self._lost = "", False
        factory.check_tools(self._env.tools)
        return make_content(observation, info["blocks"], images=factory.images)

    @property
    def get_reward(self) -> Callable[[], float | None]:
        """The reward of the episode so far; None if an outage left no outcome.

        For reward functions of your own. It is no method on purpose: TRL would count
        that as a second reward beside the one of the reward functions.
        """
        return functools.partial(self._get_reward)

    def _get_reward(self) -> float | None:
        if self._lost:
            return None
        factory = self._factory
        return reduce_rewards(
            self._rewards,
            factory.reward_reduction,
            finished=self._finished,
            nonterminal_reward=factory.nonterminal_reward,
        )

    def _call(self, tool: str, arguments: JSONObject) -> Content:
        """Call a tool of the server; what it raises would be text for the model."""
        if self._lost and self._env is None:
            raise EpisodeOverError("this environment was not reset yet: call reset()")
        if self._over:
            return _NOTHING if self._lost else _FINISHED
        try:
            return self._step(tool, arguments)
        except Exception as error:  # noqa: BLE001 - TRL would show it to the model
            self._lose(f"tool {tool!r}", type(error).__name__, str(error))
            return _NOTHING

    def _step(self, tool: str, arguments: JSONObject) -> Content:
        env = self._env
        assert env is not None  # noqa: S101 - `_call` looked
        action: Any = {"tool": tool, "input": arguments}
        if all(tool != listed["name"] for listed in env.tools):
            names = ", ".join(listed["name"] for listed in env.tools) or "none"
            action = InvalidAction(
                f"Invalid action: this task has no tool {tool!r}. Tools: {names}."
            )
        return self._take(env.step(action), tool)

    def _take(self, result: StepResult, tool: str) -> Content:
        observation, reward, terminated, truncated, info = result
        kind = info["error_kind"]
        if kind in OUTAGES:
            self._lose(f"tool {tool!r}", kind, info["error"])
            return _NOTHING
        self._invalid_actions += kind == "invalid_action"
        unpaid = reward == 0 if kind in PAYS_NOTHING else info["reward_is_null"]
        if not unpaid:
            self._rewards.append(reward)
        if terminated or truncated:
            self._finished = terminated
            self._over = "the episode is over"
            self._leave()
        return make_content(observation, info["blocks"], images=self._factory.images)

    def _outcome(self) -> dict[str, float]:
        """Return what a trainer's log shows of the rollout."""
        return {
            "finished": float(self._finished),
            "invalid_actions": float(self._invalid_actions),
            "outages": float(self._lost),
        }

    def _lose(self, what: str, kind: str, error: str) -> None:
        """End the episode without an outcome."""
        self._lost, self._over = True, "an outage ended the episode"
        _LOGGER.warning(
            "%s: %s failed (%s): %s. This rollout gets no reward.",
            self._factory.name,
            what,
            kind,
            error,
        )
        self._leave()

    def _end(self) -> None:
        """End the rollout: its session is deleted, its reward stays."""
        self._over = self._over or "the rollout is over"
        self._leave()

    def _leave(self) -> None:
        if self._env is not None:
            self._env.leave()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} of {self._factory.name!r}>"
