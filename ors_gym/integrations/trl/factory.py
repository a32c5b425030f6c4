"""Makes a trainer's environments, and scores them."""

from __future__ import annotations

import dataclasses
import functools
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final

from ors_gym.config import UNPICKLED, without_secrets
from ors_gym.errors import InvalidRequestError, UnknownTaskError
from ors_gym.integrations.trl.environment import Rollout
from ors_gym.integrations.trl.sessions import Sessions
from ors_gym.integrations.trl.tool_methods import BoundTool, tool_methods
from ors_gym.rollout.reward import RewardReduction
from ors_gym.tasks import Task
from ors_gym.types import TaskSpec, ToolSpec

__all__ = ["EnvironmentFactory", "EpisodeReward"]

_LOGGER: Final = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class EnvironmentFactory:
    """The ``environment_factory`` of a trainer: called, it makes an environment.

    It can be pickled, without keys and secrets, for a trainer whose rollouts run in
    another process. All else that an env is made with travels along, so no secret
    belongs in ``create_options`` or ``session_options``.

    Args:
        name: What the dataset's column ``environment`` calls it.
        env_name: The environment's name on the server.
        base_url: The server's address.
        arguments: The arguments of every env.
        split: The split of the tasks; ``""`` where they are specs.
        specs: The tasks themselves, where they were given.
        tools: What the environment's methods are made of.
        images: Whether the model is shown images.
        num_generations: The rollouts of a task that are reset one after another.
        reward_reduction: How the rewards of an episode become one.
        nonterminal_reward: Added where the server did not finish an episode.
    """

    name: str
    env_name: str
    base_url: str
    arguments: Mapping[str, Any] = dataclasses.field(repr=False)
    split: str
    specs: Sequence[TaskSpec] | None = dataclasses.field(repr=False)
    tools: Sequence[BoundTool] = dataclasses.field(repr=False)
    images: bool
    num_generations: int
    reward_reduction: RewardReduction
    nonterminal_reward: float

    def __call__(self) -> Any:
        """Make the `Rollout` of a class that has the tools as methods.

        It asks the server for nothing yet.
        """
        return self._environment_class()

    @functools.cached_property
    def _environment_class(self) -> type[Rollout]:
        def call(environment: Rollout, tool: str, given: dict[str, Any]) -> Any:
            return environment._call(tool, given)  # noqa: SLF001 - hidden from TRL

        body: dict[str, Any] = {**tool_methods(self.tools, call), "_factory": self}
        return type("ORSEnvironment", (Rollout,), body)

    @functools.cached_property
    def sessions(self) -> Sessions:
        """The sessions of this process's environments."""
        return Sessions(
            self.env_name, self.base_url, self.arguments, self.num_generations
        )

    def find(self, task_index: int) -> Task:
        """Return the task of a row.

        Args:
            task_index: The row's column of that name.

        Raises:
            UnknownTaskError: If there is no such task.
        """
        if self.specs is None:
            return Task(self.split, int(task_index))
        if not 0 <= task_index < len(self.specs):
            raise UnknownTaskError(
                f"there is no task {task_index}; {len(self.specs)} tasks were given"
            )
        return Task(self.split, -1, self.specs[task_index])

    def check_tools(self, tools: Iterable[ToolSpec]) -> None:
        """Say once of each tool of a session that no method stands for it.

        Args:
            tools: The session's tools.
        """
        for name in {tool["name"] for tool in tools} - self._known_names:
            self._known_names.add(name)
            _LOGGER.warning(
                "%s: a task has the tool %r, which none of the tasks had that were "
                "asked before; the model cannot call it. Raise tool_probes=.",
                self.name,
                name,
            )

    @functools.cached_property
    def _known_names(self) -> set[str]:
        return {tool.name for tool in self.tools}

    def __getstate__(self) -> dict[str, Any]:
        state = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        state["arguments"] = without_secrets(self.arguments)
        if self.arguments.get("secrets"):
            state["arguments"]["secrets"] = UNPICKLED
        return state


class EpisodeReward:
    """A reward function of a trainer: what the server paid.

    A rollout that an outage ended gets None, which a trainer leaves out of the loss;
    one that called no tool gets 0, so that calling none does not pay. Scored
    environments are ended: their sessions are deleted while the model is trained, and
    so are those that were opened for rollouts which did not come, since a trainer
    resets a whole batch before it scores it.

    Args:
        name: Whose environments it scores; others get None.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.__name__ = f"{name}_reward"

    def __call__(
        self,
        environments: Sequence[Any] | None = None,
        log_metric: Callable[[str, float], None] | None = None,
        **_: Any,
    ) -> list[float | None]:
        """Score rollouts.

        Args:
            environments: Their environments, as the trainer made them.
            log_metric: The trainer's, for what `Rollout` counts.
            **_: What else a trainer gives reward functions.

        Returns:
            One reward for each environment.

        Raises:
            InvalidRequestError: If the trainer gives no environments.
        """
        if environments is None:
            raise InvalidRequestError(
                "this trainer gives reward functions no environments; GRPOTrainer does "
                "so where environment_factory= is passed"
            )
        own = [one for one in environments if self._is_own(one)]
        rewards = [
            one.get_reward() if self._is_own(one) else None for one in environments
        ]
        for environment in own:
            environment._end()  # noqa: SLF001 - hidden from TRL
        for factory in {one._factory for one in own}:  # noqa: SLF001 - as above
            factory.sessions.give_up_waiting()
        if log_metric is not None and own:
            for key, value in _count(own).items():
                log_metric(f"{self.name}/{key}", value)
        return rewards

    def _is_own(self, environment: object) -> bool:
        return (
            isinstance(environment, Rollout) and environment._factory.name == self.name  # noqa: SLF001
        )


def _count(rollouts: Sequence[Rollout]) -> dict[str, float]:
    """Return means over the rollouts that a trainer's log shows."""
    counted = [rollout._outcome() for rollout in rollouts]  # noqa: SLF001 - hidden
    return {
        key: sum(outcome[key] for outcome in counted) / len(counted)
        for key in counted[0]
    }
