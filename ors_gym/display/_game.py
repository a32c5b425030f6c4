"""An episode that a person plays, whatever it is shown on."""

from __future__ import annotations

from typing import Any

import gymnasium

from ors_gym.display._transcript import Entry, Transcript
from ors_gym.env import ORSEnv
from ors_gym.env._observation import name_task
from ors_gym.env._task_order import Task
from ors_gym.errors import InvalidRequestError
from ors_gym.formats._actions import InvalidAction, parse_action
from ors_gym.formats._blocks import render_text
from ors_gym.spaces import ToolCallSpace
from ors_gym.spaces._tool_call import ToolCallText
from ors_gym.types import Block, ToolSpec

__all__ = ["Game"]


class Game:
    """An `ORSEnv`, in wrappers or not, and the episode that is played in it.

    Wrappers whose actions are not tool calls, such as `DiscreteTools`, are left aside.

    Attributes:
        transcript: The episode so far.
        ended: Whether it is over, or was not begun.
    """

    def __init__(self, env: gymnasium.Env[Any, Any]) -> None:
        inner = env.unwrapped
        if not isinstance(inner, ORSEnv):
            raise InvalidRequestError(
                f"{env} is not an env of an ORS server; make one with "
                'gym.make("ors/maze") or ors_gym.ORSEnv(...)'
            )
        while isinstance(env, gymnasium.Wrapper) and not _takes_calls(env):
            env = env.env
        self._env = env
        self.inner = inner
        self.transcript = Transcript()
        self.ended = True

    @property
    def tools(self) -> list[ToolSpec]:
        """The tools of the current session."""
        return self.inner.tools

    def reset(self, task_index: int | None = None, split: str | None = None) -> Entry:
        """Begin an episode, by default of the next task; return the prompt."""
        chosen = {"task_index": task_index, "split": split}
        options = {name: value for name, value in chosen.items() if value is not None}
        self.ended = True
        _, info = self._env.reset(options=options)
        self.ended = False
        task = name_task(Task(info["split"], info["task_index"]))
        blocks: list[Block] = info["blocks"]
        self.transcript.start(
            render_text(blocks), blocks=blocks, title=self.inner.environment, task=task
        )
        return self.transcript.entries[-1]

    def step(self, action: Any) -> Entry:
        """Take a step with a tool call or any text; an outage ends the episode."""
        read = parse_action(
            action, tools=self.tools, terminal_tool=self.inner.terminal_tool
        )
        try:
            _, reward, terminated, truncated, info = self._env.step(action)
        except BaseException:
            self.ended = True
            raise
        self.ended = terminated or truncated
        blocks: list[Block] = info["blocks"]
        unread = isinstance(read, InvalidAction)
        entry = Entry.of_step(
            info["tool"],
            {} if isinstance(read, InvalidAction) else read["input"],
            render_text(blocks) if blocks else info["error"],
            float(reward),
            error_kind=info["error_kind"],
            finished=terminated,
            truncated=truncated,
            blocks=blocks,
            said=action if unread and isinstance(action, str) else "",
        )
        self.transcript.add(entry)
        return entry


def _takes_calls(env: gymnasium.Env[Any, Any]) -> bool:
    return isinstance(env.action_space, ToolCallSpace | ToolCallText)
