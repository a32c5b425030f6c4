"""What is under check, and how a check says what it found."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from functools import cached_property
from typing import Any, Final, NamedTuple

from ors_gym.client import ORSClient, Session
from ors_gym.errors import SchemaError, UnknownTaskError
from ors_gym.protocol.dialect import Dialect
from ors_gym.spaces import ToolCallSpace
from ors_gym.tasks import choose_split
from ors_gym.testing.probing import Played, play_call
from ors_gym.testing.report import Status
from ors_gym.types import Split, ToolCall, ToolSpec

__all__ = [
    "Subject",
    "Verdict",
    "failed",
    "passed",
    "skipped",
    "warned",
]

_MOST_SAMPLED_CALLS: Final = 5


class Verdict(NamedTuple):
    """What a check says."""

    status: Status
    detail: str
    fix: str = ""


def passed(detail: str) -> Verdict:
    """Say that all is well."""
    return Verdict("pass", detail)


def warned(detail: str, fix: str) -> Verdict:
    """Say that clients can cope, and what would be better."""
    return Verdict("warn", detail, fix)


def failed(detail: str, fix: str) -> Verdict:
    """Say that the server breaks the standard, and what to do."""
    return Verdict("fail", detail, fix)


def skipped(detail: str) -> Verdict:
    """Say why something cannot be known."""
    return Verdict("skipped", detail)


@dataclasses.dataclass
class Subject:
    """One environment of one server, and what was learnt of it so far.

    Args:
        client: Reaches the server.
        environment: The environment's name as the server spells it.
        wanted_split: The split to play, if the user chose one.
        index: The task to play.
        runs_tools: Whether tools may be called.
        script: The calls of one episode; drawn from the schemas if None.
        call_timeout: Seconds for a call.
        session_options: What `ORSClient.session` takes besides.
    """

    client: ORSClient
    environment: str
    wanted_split: str | None = None
    index: int = 0
    runs_tools: bool = True
    script: list[ToolCall] | None = None
    call_timeout: float = 30.0
    session_options: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    @property
    def dialect(self) -> Dialect:
        """What the server speaks."""
        return self.client.link.wire.spoken

    @cached_property
    def splits(self) -> list[Split]:
        """The splits of the environment."""
        return self.client.list_splits(self.environment)

    @cached_property
    def split(self) -> str:
        """The split to play: as everywhere, else the first."""
        try:
            return choose_split(self.splits, self.wanted_split)
        except UnknownTaskError:
            if self.wanted_split is not None or not self.splits:
                raise
            return self.splits[0]["name"]

    def session(self) -> Session:
        """Make a session of the task to play."""
        return self.client.session(
            self.environment,
            split=self.split,
            index=self.index,
            call_timeout=self.call_timeout,
            **self.session_options,
        )

    @cached_property
    def task_tools(self) -> list[ToolSpec]:
        """The tools of a session of the task."""
        with self.session() as session:
            session.get_prompt()
            return session.list_tools()

    @cached_property
    def calls(self) -> list[ToolCall]:
        """The calls to play; none if tools may not be called."""
        if not self.runs_tools:
            return []
        if self.script is not None:
            return self.script
        drawn = [draw_call(tool) for tool in self.task_tools[:_MOST_SAMPLED_CALLS]]
        return [call for call in drawn if call is not None]

    def play(
        self, session: Session, call: Mapping[str, Any], task_id: str = ""
    ) -> Played:
        """Call a tool of a session, past the client's own rules."""
        place = (self.environment, session.session_id)
        return play_call(
            self.client, place, call, task_id=task_id, timeout=self.call_timeout
        )

    @cached_property
    def episode(self) -> Episode:
        """The calls, played in one session up to the end of the episode."""
        episode = Episode()
        if not self.calls:
            return episode
        with self.session() as session:
            session.get_prompt()
            for call in self.calls:
                played = self.play(session, call)
                episode.played.append(played)
                if played.finished or played.reply.failure:
                    break
            first, last = episode.played[0], episode.played[-1]
            if first.task_id:
                episode.resumed = self.play(session, first.call, first.task_id)
            if last.finished:
                episode.after_end = self.play(session, last.call)
        return episode


@dataclasses.dataclass
class Episode:
    """The calls of one session.

    Args:
        played: The calls, in order.
        resumed: The first of them, asked for again by its id.
        after_end: The last of them, sent once more after the episode was over.
    """

    played: list[Played] = dataclasses.field(default_factory=list)
    resumed: Played | None = None
    after_end: Played | None = None


def draw_call(tool: ToolSpec) -> ToolCall | None:
    """Draw a call of a tool, the same each time.

    Args:
        tool: The tool.

    Returns:
        The call; None where its schema cannot be sampled.
    """
    try:
        return ToolCallSpace([tool], seed=0).sample()
    except SchemaError:
        return None
