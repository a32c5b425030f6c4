"""Which task the next agent plays, and the row that its episode leaves."""

from __future__ import annotations

import asyncio
import dataclasses
import itertools
import os
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any, Final, Self

from ors_gym._shown_text import warn
from ors_gym.client import AsyncORSClient
from ors_gym.env._task_order import choose_split, unknown_task
from ors_gym.errors import ORSError
from ors_gym.formats._json_lines import BeingWrittenError
from ors_gym.rollout import Episode, LiveEpisode, Rules
from ors_gym.rollout._output import (
    OUTPUT,
    Output,
    Record,
    Success,
    describe_run,
    is_success,
    name_success,
)
from ors_gym.rollout._player import make_rollout_env
from ors_gym.types import JSONObject

_LOCK_ATTEMPTS: Final = 100
_LOCK_WAIT: Final = 0.1
"""Seconds between two attempts to open a file that another process is writing."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class RunOptions:
    """What agents play, and what is kept of it."""

    env_name: str
    task: int | Mapping[str, Any] | None
    split: str | None
    output: str | os.PathLike[str] | None
    policy_name: str
    success: Success
    rules: Rules
    env_arguments: Mapping[str, Any]


class AgentRun:
    """The episodes of one run of agents.

    Without a task, every agent plays the next one of the split, beginning with those
    that the output file has no outcome of. A run of many agents keeps the file open.
    A run of one agent opens the file only to write its row, so that other processes can
    write theirs.
    """

    def __init__(
        self,
        client: AsyncORSClient,
        options: RunOptions,
        head: JSONObject,
        split: str | None,
    ) -> None:
        self._client = client
        self._options = options
        self._head = head
        self._split = split
        self._numbers: Counter[int] = Counter()
        """The number of episodes by task index; -1 is a task without an index."""
        self._played: set[int] = set()
        """The tasks that the output file has an outcome of."""
        self._output: Output | None = None
        self._order: Iterator[int] = iter(())
        self._given_back: list[int] = []

    @classmethod
    async def begin(
        cls, client: AsyncORSClient, options: RunOptions, *, many: bool
    ) -> Self:
        """Ask the server what there is to play."""
        # Refuses wrong arguments before anything is played.
        make_rollout_env(client, options.env_name, **options.env_arguments)
        name = await client.run(client.catalog.resolve(options.env_name))
        split, count = options.split, 0
        if not isinstance(options.task, Mapping):
            split = choose_split(await client.list_splits(name), split)
            count = await client.num_tasks(name, split)
            if not 0 <= (options.task or 0) < count:
                raise unknown_task(split, options.task or 0, count)
        judged = {"seed": None, "success": name_success(options.success)}
        head = describe_run(
            client,
            environment=name,
            split=split,
            policy=options.policy_name,
            limits=dataclasses.asdict(options.rules) | judged,
            env_arguments=options.env_arguments,
        )
        run = cls(client, options, head, split)
        output = await run._open()
        if many:
            run._output = output
        elif output is not None:
            output.close()
        run._order = itertools.chain(
            (index for index in range(count) if index not in run._played),
            (index % count for index in itertools.count()),
        )
        return run

    def next_episode(self) -> LiveEpisode:
        """Make the episode of the next agent; it has not started."""
        options = self._options
        task = options.task
        if task is None:
            task = self._given_back.pop() if self._given_back else next(self._order)
        live = LiveEpisode(
            self._client,
            options.env_name,
            task,
            split=self._split,
            rules=options.rules,
            **options.env_arguments,
        )
        if not isinstance(task, Mapping):
            live.episode.task_index = task
        return live

    async def keep(self, episode: Episode) -> None:
        """Write the row of an episode that is over.

        An agent that made no call leaves none: programs connect also to see what
        tools there are. The next agent gets its task.
        """
        index = episode.task_index
        if not episode.turns and not episode.error:
            self._given_back.append(index)
            return
        # Warn whoever serves rather than raise: the agent could do nothing about it,
        # and the rows of other agents can still be written.
        try:
            output = self._output or await self._open()
        except (OSError, ORSError) as error:
            warn(f"the row of an episode of task {index} is lost: {error}")
            return
        if output is None:
            return
        episode.number = self._numbers[index]
        self._numbers[index] += 1
        try:
            output.append(self._judge(episode))
            if output.needs_sync:
                await asyncio.to_thread(output.sync)
        except OSError as error:
            warn(OUTPUT.describe_failure(output.path, error))
        finally:
            if output is not self._output:
                output.close()

    def _judge(self, episode: Episode) -> Record:
        options = self._options
        task = dict(options.task) if isinstance(options.task, Mapping) else None
        try:
            return Record(episode, is_success(options.success, episode), task)
        except Exception as error:  # noqa: BLE001 - a user's function
            # A copy, since the agent still reads the stop reason of this one.
            unknown = dataclasses.replace(episode)
            unknown.fail(error, "success")
            warn(
                f"the episode of task {episode.task_index} has no outcome, as success= "
                f"raised {type(error).__name__}: {error}"
            )
            return Record(unknown, None, task)

    async def _open(self) -> Output | None:
        """Open the file once no other process writes its row."""
        path = self._options.output
        if path is None:
            return None
        for attempt in itertools.count():
            try:
                output = Output(path, self._head, ())
            except BeingWrittenError:
                if attempt == _LOCK_ATTEMPTS:
                    raise
                await asyncio.sleep(_LOCK_WAIT)
            else:
                break
        self._numbers.clear()
        for record in output.records.values():
            episode = record.episode
            known = self._numbers[episode.task_index]
            self._numbers[episode.task_index] = max(known, episode.number + 1)
            if record.has_outcome:
                self._played.add(episode.task_index)
        return output

    def close(self) -> None:
        if self._output is not None:
            self._output.close()
