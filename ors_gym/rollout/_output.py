"""Records of episodes, and the output file: a head, then a row for each record."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
from collections.abc import Callable, Container, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, TypeAlias

from ors_gym.client import AsyncORSClient
from ors_gym.client._settings import find_version
from ors_gym.errors import InvalidRequestError
from ors_gym.formats._json_lines import LinesFile, LinesFormat, encode_line
from ors_gym.protocol._redaction import SECRET_ARGUMENTS
from ors_gym.rollout._episode import Episode
from ors_gym.rollout._planned_rollout import Key, identify
from ors_gym.rollout._usage import Usage, add_up, read_numbers
from ors_gym.types import JSONObject

FORMAT: Final = "ors_gym.evaluation/1"
OUTPUT: Final = LinesFormat(
    FORMAT,
    rows=(b'{"task":', b'{"task_index":'),
    kind="output file of an evaluation",
    writer="evaluation",
    instead="choose another output=",
)
_USED_BEFORE: Final = "used_before"
_MAY_CHANGE: Final = (
    *("server", "served", "created", "version", "planned"),
    _USED_BEFORE,
)
"""Fields of the head that need not be the same where a run goes on."""

PRIVATE_ARGUMENTS: Final = ("create_options", "session_options")
"""Arguments that it holds a digest of: enough to see a change."""

Success: TypeAlias = float | Callable[[Episode], bool] | None
"""The least reward of a success, or a function that judges the episode; None for
finished with a reward above 0."""


@dataclasses.dataclass(frozen=True)
class Record:
    """An episode and whether it was a success.

    Args:
        episode: The episode.
        success: Whether it was a success; None where it has no outcome.
        task: The task itself, only where it has no index.

    Example:
        >>> record = Record(Episode("math", 3, "test"), success=False)
        >>> record.has_outcome, record.metrics()["success"]
        (True, 0.0)
    """

    episode: Episode
    success: bool | None
    task: JSONObject | None = None

    @property
    def key(self) -> Key:
        """The episode's identity: split, index or digest of the task, and number."""
        episode = self.episode
        return identify(episode.split, episode.task_index, self.task, episode.number)

    @property
    def has_outcome(self) -> bool:
        """Whether it counts: False where an outage or the policy's error ended it."""
        return self.episode.total_reward is not None

    @property
    def used(self) -> Usage:
        """What the policy used, earlier attempts included."""
        episode = self.episode
        return add_up([episode.usage, *(one.usage for one in episode.attempts)])

    def metrics(self) -> dict[str, float]:
        """Return those of the episode, and ``success`` where it has an outcome."""
        success = {} if self.success is None else {"success": float(self.success)}
        return self.episode.metrics() | success

    def result(self) -> JSONObject:
        """Return the row without the episode's turns and steps."""
        episode = self.episode
        if self.task is None:
            row: JSONObject = {"task_index": episode.task_index}
        else:
            row = {"task": self.task}
        used = {"usage": episode.usage} if episode.usage else {}
        return row | {
            "split": episode.split,
            "episode": episode.number,
            "total_reward": episode.total_reward,
            "steps": len(episode.steps),
            "success": self.success,
            "stop_reason": episode.stop_reason,
            "error": episode.error,
            "error_kind": episode.error_kind,
            "seconds": episode.seconds,
            **used,
        }

    def row(self) -> JSONObject:
        """Return the row of an output file, with the whole episode."""
        return self.result() | {"trajectory": self.episode.to_dict()}

    def encode(self) -> tuple[Record, bytes]:
        """Return the record and its line in an output file.

        One that is not JSON comes without its outcome and without what happened in it,
        so that one episode cannot end a run.
        """
        try:
            return self, encode_line(self.row(), "the row")
        except InvalidRequestError as error:
            lost = dataclasses.replace(
                self.episode,
                prompt=[],
                conversation=[],
                tools=[],
                turns=[],
                steps=[],
                group_score=None,
                extra=None,
            )
            lost.end_without_outcome(str(error), "output")
            record = Record(lost, None, self.task)
            return record, encode_line(record.row(), "the row")

    @classmethod
    def from_row(cls, row: Mapping[str, Any]) -> Record:
        """Read a row of an output file.

        Raises:
            InvalidRequestError: If it is no such row.
        """
        trajectory, success = row.get("trajectory"), row.get("success")
        task = row.get("task")
        if not isinstance(trajectory, Mapping) or not isinstance(success, bool | None):
            raise InvalidRequestError("the row holds no episode")
        if not isinstance(task, dict | None):
            raise InvalidRequestError("the row's task is no object")
        return cls(Episode.from_dict(trajectory), success, task)


def is_success(success: Success, episode: Episode) -> bool | None:
    """Judge an episode; None if it has no outcome."""
    if episode.total_reward is None:
        return None
    if success is None:
        return episode.finished and episode.total_reward > 0
    if callable(success):
        return bool(success(episode))
    return episode.total_reward >= success


def name_success(success: Success) -> str:
    """Describe how success is judged, for the head of an output file."""
    if success is None:
        return "finished and total_reward > 0"
    if callable(success):
        return str(getattr(success, "__qualname__", type(success).__qualname__))
    return f"total_reward >= {float(success):g}"


def describe_run(
    client: AsyncORSClient,
    *,
    environment: str,
    split: str | None,
    policy: str,
    limits: JSONObject,
    env_arguments: Mapping[str, Any],
) -> JSONObject:
    """Return the head of an output file."""
    # Imported here, as most users never need it.
    from ors_gym.server._embedded import describe_server  # noqa: PLC0415

    arguments = {
        argument: _digest(value) if argument in PRIVATE_ARGUMENTS else value
        for argument, value in env_arguments.items()
        if value is not None and argument not in SECRET_ARGUMENTS
    }
    return {
        "format": FORMAT,
        "server": client.base_url,
        "served": describe_server(client.base_url),
        "environment": environment,
        "split": split,
        "policy": policy,
        "limits": limits | arguments,
        "created": datetime.now(UTC).isoformat(),
        "version": find_version(),
    }


def _digest(value: Mapping[str, Any]) -> str:
    text = json.dumps(value, sort_keys=True, default=repr)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def read_output(path: str | os.PathLike[str]) -> tuple[JSONObject, list[Record]]:
    """Read the head and the records of an output file, in the order of the file.

    Of several rows of one episode the last counts. A torn last line is left out.
    """
    head: JSONObject | None = None
    records: dict[Key, Record] = {}
    for value, _ in OUTPUT.read(Path(path)):
        if head is None:
            head = OUTPUT.check_head(value, path)
        else:
            record = read_record(value, path)
            records[record.key] = record
    if head is None:
        raise InvalidRequestError(f"{path} is empty; there is no evaluation in it")
    return head, list(records.values())


def read_used_before(head: Mapping[str, Any]) -> Usage:
    """Return what episodes used whose rows are gone, as they were played again."""
    return read_numbers(head.get(_USED_BEFORE))


def read_planned(head: Mapping[str, Any]) -> int | None:
    """Return how many episodes a file is to hold; None where its head does not say."""
    planned = head.get("planned")
    return planned if type(planned) is int and planned >= 0 else None


class Output(LinesFile):
    """An output file that is being written, by one process at a time.

    ``planned`` has the keys of the episodes that are to be played. A file that is there
    already is continued: it must have the same head. Rows of planned episodes without
    an outcome, and earlier rows of the same episode, are taken out. Those of ``final``
    episodes stay, since they will never have one. Any other file is refused and left as
    it is.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        head: JSONObject,
        planned: Container[Key],
        *,
        final: Container[Key] = (),
    ) -> None:
        self._planned, self._final = planned, final
        self.records: dict[Key, Record] = {}
        """The episodes that need not be played again, by their keys."""
        self.used: Usage = {}
        """What the episodes used that it held when it was opened, and others whose rows
        are gone."""
        self.used_before: JSONObject = {}
        """What the head says of these others."""
        super().__init__(path, OUTPUT, head)

    def append(self, *records: Record) -> list[Record]:
        """Write episodes at once, so that other processes see them.

        Returns:
            What was written: an episode that is not JSON has lost its outcome.

        Raises:
            OSError: If it cannot be written. The file holds whole rows even then.
        """
        encoded = [record.encode() for record in records]
        self.append_line(b"".join(line for _, line in encoded))
        return [record for record, _ in encoded]

    def _take_over(
        self, before: JSONObject | None, rows: Iterator[tuple[Any, bytes]]
    ) -> list[bytes]:
        """Keep the rows that the file holds already."""
        if before is not None:
            _refuse_other_settings(before, self._head, self.path)
        found: dict[Key, tuple[Record, bytes]] = {}
        gone: list[Record] = []
        for value, line in rows:
            record = read_record(value, self.path)
            if (earlier := found.pop(record.key, None)) is not None:
                gone.append(earlier[0])
            found[record.key] = record, line
        kept = {
            key: (record, line)
            for key, (record, line) in found.items()
            if record.has_outcome or key not in self._planned or key in self._final
        }
        self.records = {key: record for key, (record, _) in kept.items()}
        gone += [record for key, (record, _) in found.items() if key not in kept]
        used = add_up([read_used_before(before or {}), *(one.used for one in gone)])
        self.used_before = {_USED_BEFORE: used} if used else {}
        self.used = add_up([used, *(one.used for one in self.records.values())])
        return [line for _, line in kept.values()]

    def _renew(self, before: JSONObject) -> JSONObject:
        """Count the episodes that the file will hold, unplanned ones of before too."""
        before = before | self.used_before
        if "planned" not in self._head:
            return before
        more = sum(key not in self._planned for key in self.records)
        return before | {"planned": self._head["planned"] + more}


def read_record(value: Any, path: str | os.PathLike[str]) -> Record:
    if not isinstance(value, dict):
        raise OUTPUT.damaged(path, "a row is no object")
    try:
        return Record.from_row(value)
    except InvalidRequestError as error:
        raise OUTPUT.damaged(path, str(error)) from None


def _refuse_other_settings(before: JSONObject, now: JSONObject, path: Path) -> None:
    """Keep episodes of different settings out of one file."""
    names = [name for name in {**before, **now} if name not in _MAY_CHANGE]
    # Compared as JSON, since a tuple is read back as a list.
    changed = [
        f"{name} was {json.dumps(before.get(name))}, is now {json.dumps(now.get(name))}"
        for name in names
        if json.dumps(before.get(name), sort_keys=True)
        != json.dumps(now.get(name), sort_keys=True)
    ]
    if changed:
        raise InvalidRequestError(
            f"{path} holds another evaluation: {'; '.join(changed)}. Go on with the "
            "same settings, or choose another output="
        )
