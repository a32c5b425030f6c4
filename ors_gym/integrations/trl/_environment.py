"""A trainer's environments, the factory that makes them, and their reward."""

from __future__ import annotations

import dataclasses
import functools
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, ClassVar, Final, TypeAlias

from ors_gym.client.background import run_and_wait
from ors_gym.env._settings import UNPICKLED, without_secrets
from ors_gym.env._task_order import Task
from ors_gym.errors import (
    EpisodeOverError,
    InvalidRequestError,
    ORSError,
    SetupFailedError,
    UnknownTaskError,
)
from ors_gym.formats import render_text, to_openai_messages, to_template_messages
from ors_gym.formats._actions import InvalidAction
from ors_gym.formats._blocks import to_picture_parts
from ors_gym.formats._messages import block_of_part, join_system_messages
from ors_gym.formats._tools import find_text_tool, tools_for_models
from ors_gym.integrations.trl._sessions import Sessions
from ors_gym.integrations.trl._tool_methods import BoundTool, tool_methods
from ors_gym.rollout._episode_rules import Rules
from ors_gym.rollout._live_episode import LiveEpisode
from ors_gym.types import Block, JSONObject, TaskSpec, ToolSpec

# Text, or parts: ``{"type": "text", "text"}``, ``{"type": "image", "image"}``.
Content: TypeAlias = str | list[JSONObject]

_LOGGER: Final = logging.getLogger(__name__)
_FINISHED: Final = "The episode is over; this call was not run."
# The model reads this if an outage took the place of a result.
_NOTHING: Final = ""
_AT_ONCE: Final = 16
"""Final answers that are judged at the same time."""


class Rollout:
    """A trainer's environment: `reset`, and a method for each tool.

    `EnvironmentFactory` makes the class. A trainer takes every public method for a
    tool, so all other methods begin with ``_``.

    It blocks, because a trainer calls one tool after another from the thread that
    trains. Async methods would gain nothing: TRL gathers only the calls of one rollout,
    and a session takes one call at a time.
    """

    _factory: ClassVar[EnvironmentFactory]

    def __init__(self) -> None:
        self._live: LiveEpisode | None = None
        # The messages of the trainer's prompt; 0 unless `reset` filled the prompt in.
        self._prompt_length = 0

    def reset(self, *, task_index: int, prompt: Any = None, **_: Any) -> Content | None:
        """Start the episode of a row of the dataset, and return its prompt.

        The trainer appends the prompt to the last message of the row's own. A prompt
        with roles goes into ``prompt``, the row's own list, which the trainer reads
        after this; returned is what belongs into its last message.

        It is None if an outage or a failed set-up left the rollout without an episode,
        and so without a reward. Any other error, such as a wrong key, is raised:
        training cannot go on.
        """
        self._end()
        factory = self._factory
        self._prompt_length = 0
        self._live = live = factory.make_episode(task_index)
        try:
            run_and_wait(live.start())
        except ORSError as error:
            if not error.outage and not isinstance(error, SetupFailedError):
                raise
            self._log_loss(f"task {task_index} has no episode", error)
            return None
        episode = live.episode
        factory.check_tools(episode.tools)
        if isinstance(prompt, list) and episode.conversation:
            prompt[:] = join_turns(prompt, episode.conversation, images=factory.images)
            self._prompt_length = len(prompt)
            content: Content = prompt[-1]["content"]
            prompt[-1] = {**prompt[-1], "content": ""}
            return content
        return make_content(episode.observation, episode.prompt, images=factory.images)

    @property
    def get_reward(self) -> Callable[[], float | None]:
        """The reward of the episode so far; None if an outage left no outcome.

        For reward functions of your own. It is a property on purpose: TRL would count a
        method as a second reward, beside that of the reward functions.
        """
        return functools.partial(self._get_reward)

    def _get_reward(self) -> float | None:
        if self._live is None or self._is_lost():
            return None
        return self._factory.rules.reward_of(self._live.episode)

    def _is_lost(self) -> bool:
        """Whether there is no outcome: not begun, or ended by an outage."""
        return self._live is None or self._live.episode.total_reward is None

    def _call(self, tool: str, arguments: JSONObject) -> Content:
        """Call a tool of the server; what it raises would be text for the model."""
        if self._live is None:
            raise EpisodeOverError("this environment was not reset yet: call reset()")
        action: Any = {"tool": tool, "input": arguments}
        tools = self._live.episode.tools
        if all(tool != listed["name"] for listed in tools):
            names = ", ".join(listed["name"] for listed in tools) or "none"
            action = InvalidAction(
                f"Invalid action: this task has no tool {tool!r}. Tools: {names}."
            )
        return self._take(self._live, action, f"tool {tool!r}")

    def _submit(self, completion: Any) -> None:
        """Give the terminal tool what the model said last, if that was no call.

        A trainer takes such a message for the end of the rollout, and tells nobody.
        """
        live = self._live
        last = completion[-1] if isinstance(completion, list) and completion else None
        if (
            live is not None
            and isinstance(last, Mapping)
            and last.get("role") == "assistant"
            and not last.get("tool_calls")
            and find_text_tool(live.episode.tools) is not None
        ):
            self._take(live, last, "the final answer")

    def _take(self, live: LiveEpisode, answer: Any, what: str) -> Content:
        """Play a turn, and return what the model reads."""
        try:
            steps = [] if live.ended else run_and_wait(live.step(answer))
        except Exception as error:  # noqa: BLE001 - TRL would show it to the model
            self._log_loss(what, error)
            return _NOTHING
        if not steps:
            return _NOTHING if self._is_lost() else _FINISHED
        seen, images = live.episode.observation, self._factory.images
        return make_content(seen, steps[-1].blocks, images=images)

    def _outcome(self) -> dict[str, float]:
        """Return what a trainer's log shows of the rollout."""
        figures = {} if self._live is None else self._live.episode.metrics()
        shown = {
            name: figures.get(name, 0.0) for name in ("finished", "invalid_actions")
        }
        return {**shown, "outages": float(self._is_lost())}

    def _log_loss(self, what: str, error: Exception) -> None:
        """Log why this rollout gets no reward."""
        _LOGGER.warning(
            "%s: %s failed (%s): %s. This rollout gets no reward.",
            self._factory.name,
            what,
            getattr(error, "kind", type(error).__name__),
            error,
        )

    def _end(self) -> None:
        """End the rollout: its session is deleted, its reward stays."""
        if self._live is not None:
            self._live.stop()
            self._live.discard()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} of {self._factory.name!r}>"


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class EnvironmentFactory:
    """The ``environment_factory`` of a trainer: called, it makes an environment.

    It can be pickled, for a trainer whose rollouts run in another process. The pickle
    leaves keys and secrets out, and holds all other arguments. So no secret belongs in
    ``create_options`` or ``session_options``.
    """

    # The name in the dataset's column ``environment``.
    name: str
    env_name: str
    base_url: str
    arguments: Mapping[str, Any] = dataclasses.field(repr=False)
    # The split of the tasks; "" if they are specs.
    split: str
    specs: Sequence[TaskSpec] | None = dataclasses.field(repr=False)
    tools: Sequence[BoundTool] = dataclasses.field(repr=False)
    images: bool
    # The rollouts of a task that are reset one after another.
    num_generations: int
    rules: Rules
    # How often an episode is played at most where outages end it.
    attempts: int

    def __call__(self) -> Any:
        """Make a `Rollout` that has the tools as methods; the server is not asked."""
        return self._environment_class()

    @functools.cached_property
    def _environment_class(self) -> type[Rollout]:
        def call(environment: Rollout, tool: str, given: dict[str, Any]) -> Any:
            return environment._call(tool, given)  # noqa: SLF001 - hidden from TRL

        body: dict[str, Any] = {**tool_methods(self.tools, call), "_factory": self}
        return type("ORSEnvironment", (Rollout,), body)

    @functools.cached_property
    def sessions(self) -> Sessions:
        return Sessions(
            self.env_name, self.base_url, self.arguments, self.num_generations
        )

    def make_episode(self, task_index: int) -> LiveEpisode:
        """Make the episode of a row, which is not started yet."""
        return self.sessions.make_episode(
            task_index,
            self._find(task_index),
            attempts=self.attempts,
            rules=self.rules,
        )

    def _find(self, task_index: int) -> Task:
        if self.specs is None:
            return Task(self.split, int(task_index))
        if not 0 <= task_index < len(self.specs):
            raise UnknownTaskError(
                f"there is no task {task_index}; {len(self.specs)} tasks were given"
            )
        return Task(self.split, -1, self.specs[task_index])

    def check_tools(self, tools: Iterable[ToolSpec]) -> None:
        """Warn once of each tool of a session that no method stands for."""
        offered = {tool["name"] for tool in tools_for_models(tools)}
        for name in offered - self._known_names:
            self._known_names.add(name)
            _LOGGER.warning(
                "%s: a task has the tool %r, which no task had that was asked for its "
                "tools before training; the model cannot call it. Raise tool_probes=.",
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

    A rollout that an outage ended gets None, which a trainer leaves out of the loss. A
    rollout that called no tool gets 0, or ``nonterminal_reward``. Environments
    of another name get None. Scored environments are ended: their sessions are deleted
    while the model is trained. So are the sessions that were opened for rollouts which
    did not come, since a trainer resets a whole batch before it scores it.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.__name__ = f"{name}_reward"

    def __call__(
        self,
        environments: Sequence[Any] | None = None,
        completions: Sequence[Any] | None = None,
        prompts: Sequence[Any] | None = None,
        log_metric: Callable[[str, float], None] | None = None,
        **_: Any,
    ) -> list[float | None]:
        """Return a reward for each environment, and log what `Rollout` counts."""
        if environments is None:
            raise InvalidRequestError(
                "this trainer gives reward functions no environments; pass "
                "environment_factory= to GRPOTrainer"
            )
        own = [one for one in environments if self._is_own(one)]
        for one, prompt in zip(environments, prompts or (), strict=False):
            if self._is_own(one) and len(prompt) < one._prompt_length:  # noqa: SLF001 - hidden
                raise InvalidRequestError(
                    f"{self.name}: its prompt has roles, and this version of TRL gives "
                    "reset() a copy of the row's prompt, so the model saw the last "
                    "message only. Use a version that docs/frameworks.md names"
                )
        said = zip(environments, completions or (), strict=False)
        answered = [(one, text) for one, text in said if self._is_own(one)]
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            # The judges of a batch run at the same time.
            list(pool.map(lambda pair: pair[0]._submit(pair[1]), answered))  # noqa: SLF001
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


def join_turns(
    own: Sequence[JSONObject], conversation: Sequence[JSONObject], *, images: bool
) -> list[JSONObject]:
    """Return a row's own messages and then an environment's, for a chat template.

    The row's own user message is left out if it is empty, as ours is.
    """
    said = own if own and own[-1].get("content") else own[:-1]
    turns = to_template_messages(to_openai_messages(conversation))
    for turn in turns:
        if isinstance(turn["content"], list):
            blocks = [block_of_part(part) for part in turn["content"]]
            turn["content"] = make_content(render_text(blocks), blocks, images=images)
    return join_system_messages(said, turns)


def make_content(text: str, blocks: Sequence[Block], *, images: bool) -> Content:
    """Return a reply as the content of a message.

    That is the text, unless there is an image to show; then the parts in order, images
    as `PIL.Image.Image`, and a text in the place of one that cannot be decoded.
    ``blocks`` is empty where the text stands for itself, as an error does.
    """
    if not images or all(block.get("type") != "image" for block in blocks):
        return text
    return to_picture_parts(blocks)
