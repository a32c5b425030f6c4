"""Records of episodes, and the output file: a head, then a row for each record."""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import json
import os
import stat
import threading
import time
from collections.abc import Container, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final, Self

from ors_gym.errors import InvalidRequestError
from ors_gym.evaluation._plan import Key, identify
from ors_gym.formats._json import decode_json
from ors_gym.rollout import Episode
from ors_gym.types import JSONObject

FORMAT: Final = "ors_gym.evaluation/1"
_STARTS: Final = (f'{{"format":"{FORMAT}"'.encode(), b'{"task":', b'{"task_index":')
"""How a head and rows begin: a line that is torn begins like one of them."""
_MAY_CHANGE: Final = ("server", "served", "created", "version")
"""Fields of the head that need not be the same where a run goes on."""
_SYNC_AFTER_ROWS: Final = 64
_SYNC_AFTER_SECONDS: Final = 1.0


@dataclasses.dataclass(frozen=True)
class Record:
    """An episode and whether it was a success.

    Args:
        episode: The episode.
        success: Whether it was a success; None where it has no outcome.
        task: The task itself, only where it has no index.
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
            return self, _line(self.row(), "the row")
        except InvalidRequestError as error:
            lost = dataclasses.replace(
                self.episode,
                prompt=[],
                conversation=[],
                tools=[],
                turns=[],
                steps=[],
                group_score=None,
            )
            lost.end_without_outcome(str(error), "output")
            record = Record(lost, None, self.task)
            return record, _line(record.row(), "the row")

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


def read_output(path: str | os.PathLike[str]) -> tuple[JSONObject, list[Record]]:
    """Read the head and the records of an output file, in the order of the file.

    Of several rows of one episode the last counts. A torn last line is left out.
    """
    head: JSONObject | None = None
    records: dict[Key, Record] = {}
    for value, _ in _read_lines(Path(path)):
        if head is None:
            head = _check_head(value, path)
        else:
            record = _read_record(value, path)
            records[record.key] = record
    if head is None:
        raise InvalidRequestError(f"{path} is empty; there is no evaluation in it")
    return head, list(records.values())


class Output:
    """An output file that is being written, by one process at a time.

    ``planned`` has the keys of the episodes that are to be played. A file that is there
    already is continued: it must have the same head. Rows of planned episodes without
    an outcome, and earlier rows of the same episode, are taken out. Any other file is
    refused and left as it is.
    """

    def __init__(
        self, path: str | os.PathLike[str], head: JSONObject, planned: Container[Key]
    ) -> None:
        # A new file takes the place of what a symbolic link names, not of the link.
        self.path = Path(os.path.realpath(path))
        self._lock = threading.Lock()
        self._unsynced = 0
        self._synced_at = time.monotonic()
        self._torn_at: int | None = None
        with _explain(self.path):
            self._file = _open_locked(self.path)
            try:
                self.records = self._take_over(head, planned)
                """The episodes that need not be played again, by their keys."""
            except BaseException:
                os.close(self._file)
                raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def append(self, record: Record) -> Record:
        """Write an episode, so that other processes see it at once.

        Returns:
            What was written: an episode that is not JSON has lost its outcome.

        Raises:
            OSError: If it cannot be written. The file holds whole rows even then.
        """
        record, line = record.encode()
        self._cut_back()
        self._torn_at = os.fstat(self._file).st_size
        try:
            _write(self._file, line)
        except BaseException:
            # What is left of the row now is cut off before the next one.
            with contextlib.suppress(OSError):
                self._cut_back()
            raise
        self._torn_at = None
        self._unsynced += 1
        return record

    def _cut_back(self) -> None:
        """Cut a row off that was not written to its end."""
        if self._torn_at is not None:
            os.ftruncate(self._file, self._torn_at)
            self._torn_at = None

    @property
    def needs_sync(self) -> bool:
        """Whether enough rows, or old enough ones, are not yet synced."""
        late = time.monotonic() - self._synced_at > _SYNC_AFTER_SECONDS
        return self._unsynced >= _SYNC_AFTER_ROWS or (late and self._unsynced > 0)

    def sync(self) -> None:
        """Make the rows survive a power cut as well. Threads may call it."""
        with self._lock:
            if self._file >= 0 and self._unsynced:
                self._unsynced, self._synced_at = 0, time.monotonic()
                os.fsync(self._file)

    def close(self) -> None:
        try:
            with _explain(self.path):
                self.sync()
        finally:
            with self._lock:
                if self._file >= 0:
                    os.close(self._file)
                    self._file = -1

    def _take_over(
        self, head: JSONObject, planned: Container[Key]
    ) -> dict[Key, Record]:
        """Keep the rows that the file holds already, or begin the file."""
        rows: dict[Key, tuple[Record, bytes]] = {}
        first: bytes | None = None
        new = _line(head, "the head, which names the settings,")
        for value, line in _read_lines(self.path):
            if first is None:
                first = line
                _refuse_other_settings(_check_head(value, self.path), head, self.path)
                continue
            record = _read_record(value, self.path)
            rows.pop(record.key, None)
            rows[record.key] = record, line
        kept = {
            key: (record, line)
            for key, (record, line) in rows.items()
            if record.has_outcome or key not in planned
        }
        lines = [first or new, *(line for _, line in kept.values())]
        # A torn head may be as long as a whole one.
        if first is None or sum(map(len, lines)) != os.fstat(self._file).st_size:
            self._rewrite(lines)
        return {key: record for key, (record, _) in kept.items()}

    def _rewrite(self, lines: Iterable[bytes]) -> None:
        """Put a new file in place of this one, whole or not at all."""
        beside = self.path.with_name(f".{self.path.name}.new")
        new = _create_beside(beside)
        try:
            fcntl.flock(new, fcntl.LOCK_EX)
            with contextlib.suppress(OSError):
                # Not every file system has modes.
                os.fchmod(new, stat.S_IMODE(os.fstat(self._file).st_mode))
            for line in lines:
                _write(new, line)
            os.fsync(new)
            beside.replace(self.path)
        except BaseException:
            os.close(new)
            beside.unlink(missing_ok=True)
            raise
        os.close(self._file)
        self._file = new
        # The new name survives a power cut only once its directory is synced.
        directory = os.open(self.path.parent, os.O_RDONLY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)


@contextlib.contextmanager
def _explain(path: Path) -> Iterator[None]:
    """Turn what the system refuses into an error of ours."""
    try:
        yield
    except OSError as error:
        raise InvalidRequestError(describe_failure(path, error)) from None


def describe_failure(path: Path, error: OSError) -> str:
    """Say which file the system refuses to write, and why."""
    return (
        f"{path} cannot be written: {error.strerror or error}. Its rows are kept; make "
        "room or choose another output=, and run the same again"
    )


def _open_locked(path: Path) -> int:
    """Open a file for appending, and keep other processes from doing the same."""
    path.parent.mkdir(parents=True, exist_ok=True)
    while True:
        if path.exists() and not path.is_file():
            raise InvalidRequestError(f"{path} is no file; choose another output=")
        file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o666)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            with contextlib.suppress(FileNotFoundError):
                # Another process may have put a new file in its place by now.
                if path.stat().st_ino == os.fstat(file).st_ino:
                    return file
        except BlockingIOError:
            os.close(file)
            raise InvalidRequestError(
                f"another evaluation is writing {path}; wait for its end, or choose "
                "another output="
            ) from None
        except BaseException:
            os.close(file)
            raise
        os.close(file)


def _create_beside(path: Path) -> int:
    """Create a file of our own, in place of what a run that was killed left of it."""
    flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_APPEND
    if os.path.lexists(path):
        # What is no file, such as a symbolic link, is not opened.
        size = len(_STARTS[0]) if stat.S_ISREG(path.lstat().st_mode) else -1
        if size < 0 or not _is_torn(_read_start(path, size), _STARTS[:1]):
            raise InvalidRequestError(
                f"{path} is in the way and is not ours; move it away"
            )
        path.unlink()
    return os.open(path, flags, 0o666)


def _read_start(path: Path, size: int) -> bytes:
    with path.open("rb") as file:
        return file.read(size)


def _is_torn(line: bytes, starts: Iterable[bytes]) -> bool:
    """Say whether a line without its end may be one of ours."""
    return any(line.startswith(start[: len(line)]) for start in starts)


def _line(value: JSONObject, what: str) -> bytes:
    try:
        text = json.dumps(value, allow_nan=False, separators=(",", ":"))
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidRequestError(
            f"{what} cannot be written as JSON: {error}"
        ) from None
    return text.encode() + b"\n"


def _write(file: int, line: bytes) -> None:
    # One call writes it all, unless the disk is full or the line is huge.
    rest = memoryview(line)
    while rest:
        rest = rest[os.write(file, rest) :]


def _read_lines(path: Path) -> Iterator[tuple[Any, bytes]]:
    """Yield each whole line, decoded and as it is."""
    with path.open("rb") as file:
        if file.peek(1)[:1] not in (b"{", b""):
            # It may be a large file without any line.
            raise _not_ours(path)
        for number, line in enumerate(file, 1):
            if not line.endswith(b"\n"):
                starts = _STARTS[:1] if number == 1 else _STARTS[1:]
                if not _is_torn(line, starts):
                    raise (
                        _not_ours(path)
                        if number == 1
                        else _damaged(path, f"line {number} is no row, and has no end")
                    )
                return
            try:
                value = decode_json(line.decode())
            except ValueError as error:
                raise _damaged(path, f"line {number} is not JSON: {error}") from None
            yield value, line


def _not_ours(path: str | os.PathLike[str]) -> InvalidRequestError:
    return InvalidRequestError(
        f"{path} is no output file of an evaluation: its first line does not name "
        "that format; choose another output="
    )


def _damaged(path: str | os.PathLike[str], how: str) -> InvalidRequestError:
    return InvalidRequestError(
        f"{path} is damaged: {how}; move the file away, or remove that line"
    )


def _check_head(value: Any, path: str | os.PathLike[str]) -> JSONObject:
    if not isinstance(value, dict) or value.get("format") != FORMAT:
        raise _not_ours(path)
    return value


def _read_record(value: Any, path: str | os.PathLike[str]) -> Record:
    if not isinstance(value, dict):
        raise _damaged(path, "a row is no object")
    try:
        return Record.from_row(value)
    except InvalidRequestError as error:
        raise _damaged(path, str(error)) from None


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
