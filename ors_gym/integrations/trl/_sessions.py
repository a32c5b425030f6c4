"""The sessions of a trainer's rollouts, opened a group at a time, on one client.

A trainer resets one rollout after another, and the rollouts of one task follow each
other. The first reset of a task opens the sessions of its whole group at the same time.
The other resets find their sessions ready, or being opened.
"""

from __future__ import annotations

import collections
import itertools
import threading
import weakref
from collections.abc import Mapping
from typing import Any, Final, TypeAlias

from ors_gym.client import AsyncORSClient, AsyncSession
from ors_gym.client.background import run_and_wait
from ors_gym.env._open_for_task import Opening
from ors_gym.env._settings import TaskEnvSettings
from ors_gym.env._task_order import Task
from ors_gym.rollout._clients import split_client_arguments
from ors_gym.rollout._live_episode import LiveEpisode
from ors_gym.rollout._player import make_rollout_env

# The most tasks whose sessions wait for a rollout; the oldest are given up.
_MOST_GROUPS: Final = 8

# The sessions that no rollout has taken yet, by the row of their task.
_Waiting: TypeAlias = dict[int, collections.deque[Opening[AsyncSession]]]


class Sessions:
    """Opens the sessions of all rollouts of one environment. Threads may share it.

    ``arguments`` are those of every env and of their client; ``group`` is the number of
    rollouts of a task that are reset one after another.
    """

    def __init__(
        self, env_name: str, base_url: str, arguments: Mapping[str, Any], group: int
    ) -> None:
        settings = TaskEnvSettings(env_name=env_name, **arguments)
        self._client = AsyncORSClient(base_url, **settings.client_arguments())
        self._env_name = env_name
        _, self._arguments = split_client_arguments(arguments)
        self._group = group
        self._lock = threading.Lock()
        self._waiting: _Waiting = {}
        weakref.finalize(self, _give_up, self._waiting).atexit = False

    def make_episode(self, row: int, task: Task, **rules: Any) -> LiveEpisode:
        """Make the episode of a rollout, on a session of its own.

        ``row`` is the task's number in the dataset.
        """
        ahead = self._take(row)
        if ahead is None:
            self._open_others(row, task)
        return LiveEpisode(
            self._client, self._env_name, ahead or task, **rules, **self._arguments
        )

    def give_up_waiting(self) -> None:
        """Delete the sessions that no rollout has taken yet, in the background."""
        with self._lock:
            given_up = dict(self._waiting)
            self._waiting.clear()
        _give_up(given_up)

    def _take(self, row: int) -> Opening[AsyncSession] | None:
        with self._lock:
            waiting = self._waiting.pop(row, None)
            taken = None
            while waiting and taken is None:
                # A forked child cannot use a session that its parent opened.
                first = waiting.popleft()
                taken = first if first.is_ours else None
            if waiting:
                self._waiting[row] = waiting
            return taken

    def _open_others(self, row: int, task: Task) -> None:
        """Open the sessions of this task's next rollouts."""
        if self._group == 1:
            return
        env = make_rollout_env(self._client, self._env_name, **self._arguments)
        count = self._group - 1
        others = [run_and_wait(env.open_ahead(task)) for _ in range(count)]
        given_up: _Waiting = {}
        with self._lock:
            self._waiting.setdefault(row, collections.deque()).extend(others)
            while len(self._waiting) > _MOST_GROUPS:
                oldest = next(iter(self._waiting))
                given_up[oldest] = self._waiting.pop(oldest)
        _give_up(given_up)


def _give_up(waiting: _Waiting) -> None:
    """Delete sessions that no rollout will take, in the background."""
    for ahead in itertools.chain.from_iterable(waiting.values()):
        ahead.discard()
