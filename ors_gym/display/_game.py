"""An episode that a person plays, whatever it is shown on."""

from __future__ import annotations

from typing import Any

import gymnasium

from ors_gym.display._transcript import Entry, Transcript, describe_end, write_call
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
    """An env and its episode as it is played.

    Args:
        env: An `ORSEnv`, in wrappers or not. Wrappers that take other actions than
            tool calls, such as `DiscreteTools`, are left aside.

    Attributes:
        transcript: The episode so far.
        ended: Whether it is over, or was not begun.

    Raises:
        InvalidRequestError: If it is another env.
    """

    def __init__(self, env: gymnasium.Env[Any, Any]) -> None:
        inner = env.unwrapped
        if not isinstance(inner, ORSEnv):
            raise InvalidRequestError(
                f"{env} is no env of an ORS server; make one with "
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
        """Begin an episode.

        Args:
            task_index: The task; the next in the env's order if None.
            split: Its split; the env's own if None.

        Returns:
            The prompt.
        """
        options: dict[str, Any] = {}
        if task_index is not None:
            options["task_index"] = task_index
        if split is not None:
            options["split"] = split
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
        """Take a step.

        Args:
            action: A tool call, or any text.

        Returns:
            The step.

        Raises:
            ORSError: For an outage; the episode is over then.
        """
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
        given = {} if isinstance(read, InvalidAction) else read["input"]
        unread = isinstance(read, InvalidAction) and isinstance(action, str)
        entry = Entry(
            render_text(blocks) if blocks else info["error"],
            blocks,
            write_call(info["tool"], given),
            float(reward),
            describe_end(info["error_kind"], finished=terminated, truncated=truncated),
            failed=bool(info["error_kind"]),
            said=action if unread else "",
        )
        self.transcript.entries.append(entry)
        return entry


def _takes_calls(env: gymnasium.Env[Any, Any]) -> bool:
    return isinstance(env.action_space, ToolCallSpace | ToolCallText)
