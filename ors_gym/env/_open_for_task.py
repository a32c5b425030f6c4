"""Finds the task that is meant, and opens its session, now or ahead of time."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from typing import Any, Final, Generic, NamedTuple, TypeVar

from ors_gym.client._client_core import Catalog
from ors_gym.client._session_core import SessionCore
from ors_gym.client.background import Pending
from ors_gym.env._settings import TaskEnvSettings
from ors_gym.env._task_order import Task, choose_split, read_task
from ors_gym.errors import ORSError, SessionLostError
from ors_gym.protocol._exchange import Operation
from ors_gym.types import Block, ToolSpec

S = TypeVar("S", bound=SessionCore)

_MOST_ATTEMPTS: Final = 3
"""How often a session is opened when the server loses it before its first call."""


class Opened(NamedTuple, Generic[S]):
    """A session that is open and set up for a task."""

    task: Task
    environment: str
    """The environment's name as the server spells it."""
    session: S
    prompt: list[Block]
    tools: list[ToolSpec]


def open_for_task(
    catalog: Catalog,
    make_session: Callable[..., S],
    settings: TaskEnvSettings,
    task: Task,
) -> Operation[Opened[S]]:
    """Return the operation that opens a session for a task.

    It refers to no env, so a session that is opened ahead keeps none alive.
    """
    environment = yield from catalog.resolve(settings.env_name)
    if task.spec is not None:
        named: dict[str, Any] = {"task_spec": task.spec}
    else:
        named = {"split": task.split, "index": task.index}
    attempt = 1
    while True:
        session = make_session(environment, **named, **settings.session_arguments())
        try:
            prompt, tools = yield from session.start_operation()
        except SessionLostError:
            # Nothing was called yet: the server was restarted in between.
            if attempt == _MOST_ATTEMPTS:
                raise
            attempt += 1
        else:
            return Opened(task, environment, session, prompt, tools)


class Opening(Generic[S]):
    """A session that is being opened ahead, in the background, for a task.

    Pass it to ``open`` to play it, or `discard` it. The session can be used once: after
    it was opened or discarded, another `open` opens a new session for the same task.
    """

    def __init__(self, task: Task, pending: Pending[Opened[S]]) -> None:
        self.task = task
        self._pending = pending
        self._owner = os.getpid()
        self._claim = threading.Lock()
        """Held by the one who took or discarded it, for good."""

    @property
    def is_ours(self) -> bool:
        """Whether this process opened it, and not one that this was forked from."""
        return self._owner == os.getpid()

    def take(self) -> Pending[Opened[S]] | None:
        """Return the session to come, or None where it cannot be used.

        None if another process opened it, if it was taken or discarded before, or if
        the session is lost or closed.
        """
        if not self.is_ours or not self._claim.acquire(blocking=False):
            return None
        completion = self._pending.completion
        if completion is not None and completion.value is not None:
            session = completion.value.session
            try:
                session.state.check_open()
            except ORSError:
                session.discard()
                return None
        return self._pending

    def discard(self) -> None:
        """Have the background delete the session, unless an ``open`` has taken it."""
        if self.is_ours and self._claim.acquire(blocking=False):
            self._pending.add_done_callback(_discard)


def _discard(pending: Pending[Opened[Any]]) -> None:
    if pending.completion is not None and pending.completion.value is not None:
        pending.completion.value.session.discard()


def find_task(
    catalog: Catalog, env_name: str, task: object, split: str | None
) -> Operation[Task]:
    """Return the operation that finds out which task is meant.

    ``task`` is what `read_task` takes, or an `Opening`; the split of an index is
    ``train`` if None and there is one, else the only one.
    """
    if isinstance(task, Opening):
        task = task.task
    found = read_task(task, split)
    if found is task or found.spec is not None:
        return found
    splits = yield from catalog.splits(env_name)
    return Task(choose_split(splits, found.split or split), found.index)
