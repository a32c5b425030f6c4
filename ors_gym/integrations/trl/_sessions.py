"""The sessions of a trainer's rollouts: one client, and groups that are opened at once.

A trainer resets one rollout after another, and the rollouts of one task follow each
other. So the first reset of a task opens the sessions of its whole group at the same
time, and the others find theirs ready, or under way.
"""

from __future__ import annotations

import collections
import functools
import itertools
import threading
import weakref
from collections.abc import Mapping
from typing import Any, Final, TypeAlias

from ors_gym.client import ORSClient, Session
from ors_gym.env import ORSEnv
from ors_gym.env._opening import Opened, Prefetch, Prefetched
from ors_gym.env._rules import ResetResult
from ors_gym.env._settings import EnvConfig
from ors_gym.env._task_order import Task
from ors_gym.errors import ORSError

__all__ = ["RolloutEnv", "Sessions"]

_MOST_GROUPS: Final = 8
"""Tasks whose sessions wait for a rollout; beyond it the oldest are given up."""


_Waiting: TypeAlias = dict[int, collections.deque[Prefetch[Session]]]


class RolloutEnv(ORSEnv):
    """`ORSEnv` that is told its session, and that can be left and used again.

    Args:
        env_name: The environment's name on the server, in any case.
        client: The client, which is not closed here.
        **arguments: Those of `ORSEnv` that concern a session or a step.
    """

    def __init__(self, env_name: str, client: ORSClient, **arguments: Any) -> None:
        super().__init__(env_name, client=client, on_error="truncate", **arguments)

    def open(self, task: Task) -> Opened[Session]:
        """Open a session for a task.

        Args:
            task: The task.

        Raises:
            ORSError: If it cannot be opened; nothing is left on the server then.
        """
        self._core.check_usable()
        return self._run(self._core.open(task))

    def open_in_background(self, task: Task) -> Prefetch[Session]:
        """Begin to open a session for a task.

        Args:
            task: The task.

        Returns:
            The session to come.
        """
        ahead: Prefetch[Session] = Prefetch(self._client.link)
        ahead.open(task, self._core.open(task))
        return ahead

    def start(self, opened: Opened[Session]) -> ResetResult:
        """Start an episode; the session of the one before is deleted.

        Args:
            opened: The session.

        Returns:
            Observation and info, as of a reset.
        """
        self._core.leave()
        return self._core.begin(opened)

    def leave(self) -> None:
        """Have the session deleted in the background; the env can be used again."""
        self._core.leave()


class Sessions:
    """Opens the sessions of all rollouts of one environment. Threads may share it.

    Args:
        env_name: The environment's name on the server.
        base_url: The server's address.
        arguments: What every env, and their client, is made with.
        group: The rollouts of a task that are reset one after another.
    """

    def __init__(
        self,
        env_name: str,
        base_url: str,
        arguments: Mapping[str, Any],
        group: int,
    ) -> None:
        config = EnvConfig(env_name=env_name, **arguments)
        self.client = ORSClient(base_url, **config.client_arguments())
        self._env_name = env_name
        self._arguments = arguments
        self._group = group
        self._lock = threading.Lock()
        self._waiting: _Waiting = {}
        """Sessions that no rollout has taken yet, by the row of their task."""
        weakref.finalize(self, _give_up, self._waiting).atexit = False

    def make_env(self) -> RolloutEnv:
        """Make the env of one rollout.

        Raises:
            ORSError: If the server cannot be asked for the tools.
        """
        return RolloutEnv(self._env_name, self.client, **self._arguments)

    def open(self, env: RolloutEnv, row: int, task: Task) -> Opened[Session]:
        """Give a rollout a session of its own.

        Args:
            env: The rollout's env.
            row: The task's number in the dataset.
            task: The task.

        Returns:
            An open session.

        Raises:
            ORSError: If it cannot be opened.
        """
        ahead = self._take(row)
        if ahead is None:
            self._open_others(row, task)
            return env.open(task)
        try:
            return ahead.future.result()
        except ORSError:
            # The server may be back by now.
            return env.open(task)
        except BaseException:
            ahead.future.cancel()
            raise

    def give_up_waiting(self) -> None:
        """Have the sessions deleted that no rollout has taken yet."""
        with self._lock:
            given_up = dict(self._waiting)
            self._waiting.clear()
        _give_up(given_up)

    @functools.cached_property
    def _opener(self) -> RolloutEnv:
        """An env that plays nothing: what it opens holds no rollout's session alive."""
        return self.make_env()

    def _take(self, row: int) -> Prefetched[Session] | None:
        with self._lock:
            waiting = self._waiting.pop(row, None)
            taken = None
            while waiting and taken is None:
                # Nothing is there for a child of the process that opened it.
                taken = waiting.popleft().take()
            if waiting:
                self._waiting[row] = waiting
            return taken

    def _open_others(self, row: int, task: Task) -> None:
        """Open the sessions of the rollouts of this task that come next."""
        if self._group == 1:
            return
        opener = self._opener
        others = [opener.open_in_background(task) for _ in range(self._group - 1)]
        given_up: _Waiting = {}
        with self._lock:
            self._waiting.setdefault(row, collections.deque()).extend(others)
            while len(self._waiting) > _MOST_GROUPS:
                oldest = next(iter(self._waiting))
                given_up[oldest] = self._waiting.pop(oldest)
        _give_up(given_up)


def _give_up(waiting: _Waiting) -> None:
    """Have sessions deleted that no rollout will take."""
    for ahead in itertools.chain.from_iterable(waiting.values()):
        ahead.drop()
