"""Files of JSON lines: a head that names the format, then whole rows, one a line.

One process at a time appends to a file. Whatever kills it, the file holds whole rows,
and perhaps a torn last one, which is left out.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import stat
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from io import BufferedReader
from pathlib import Path
from typing import Any, Final, Self

from ors_gym._system import (
    AS_BYTES,
    CAN_REPLACE_OPEN_FILES,
    HAS_FILE_MODES,
    lock_file,
    sync_directory,
)
from ors_gym.errors import InvalidRequestError
from ors_gym.formats._json import decode_json
from ors_gym.types import JSONObject

_SYNC_AFTER_ROWS: Final = 64
_SYNC_AFTER_SECONDS: Final = 1.0


@dataclasses.dataclass(frozen=True)
class LinesFormat:
    """A format of such files, and how messages speak of it.

    Args:
        name: The head's field ``format``.
        rows: How rows begin: a line that is torn begins like one of them.
        kind: What a file of it is, such as ``"output file of an evaluation"``.
        writer: Who writes it, such as ``"evaluation"``.
        instead: What to do where a file cannot be used, such as ``"choose another
            output="``.
    """

    name: str
    rows: tuple[bytes, ...]
    kind: str
    writer: str
    instead: str

    @property
    def start(self) -> bytes:
        """How a head begins."""
        return f'{{"format":"{self.name}"'.encode()

    def not_ours(self, path: str | os.PathLike[str]) -> InvalidRequestError:
        return InvalidRequestError(
            f"{path} is no {self.kind}: its first line does not name that format; "
            f"{self.instead}"
        )

    def damaged(self, path: str | os.PathLike[str], how: str) -> InvalidRequestError:
        return InvalidRequestError(
            f"{path} is damaged: {how}; move the file away, or remove that line"
        )

    def check_head(self, value: Any, path: str | os.PathLike[str]) -> JSONObject:
        if not isinstance(value, dict) or value.get("format") != self.name:
            raise self.not_ours(path)
        return value

    def read(self, path: Path) -> Iterator[tuple[Any, bytes]]:
        """Yield each whole line, decoded and as it is."""
        with path.open("rb") as file:
            yield from self.read_on(file, path)

    def read_on(
        self, file: BufferedReader, path: Path, first: int = 1
    ) -> Iterator[tuple[Any, bytes]]:
        """Yield each whole line from where a file stands, numbered from ``first``."""
        if first == 1 and file.peek(1)[:1] not in (b"{", b""):
            # It may be a large file without any line.
            raise self.not_ours(path)
        for number, line in enumerate(file, first):
            if not line.endswith(b"\n"):
                starts = (self.start,) if number == 1 else self.rows
                if _is_torn(line, starts):
                    return
                said = f"line {number} is no row, and has no end"
                raise self.not_ours(path) if number == 1 else self.damaged(path, said)
            try:
                value = decode_json(line.decode())
            except ValueError as error:
                said = f"line {number} is not JSON: {error}"
                raise self.damaged(path, said) from None
            yield value, line

    @contextlib.contextmanager
    def explain(self, path: Path) -> Iterator[None]:
        """Turn what the system refuses into an error of ours."""
        try:
            yield
        except OSError as error:
            raise InvalidRequestError(self.describe_failure(path, error)) from None

    def describe_failure(self, path: Path, error: OSError) -> str:
        """Say which file the system refuses to write, and why."""
        return (
            f"{path} cannot be written: {error.strerror or error}. Its rows are kept; "
            f"make room or {self.instead}, and run the same again"
        )


class BeingWrittenError(InvalidRequestError):
    """Raised when another process is writing the file."""


class LinesFile(ABC):
    """A file of JSON lines that is being written, by one process at a time."""

    def __init__(
        self, path: str | os.PathLike[str], form: LinesFormat, head: JSONObject
    ) -> None:
        # A new file takes the place of what a symbolic link names, not of the link.
        self.path = Path(os.path.realpath(path))
        self._form = form
        self._head = head
        self._lock = threading.Lock()
        self._unsynced = 0
        self._synced_at = time.monotonic()
        self._torn_at: int | None = None
        with form.explain(self.path):
            self._file = self._open_locked()
            try:
                self._begin()
            except BaseException:
                if self._file >= 0:
                    os.close(self._file)
                raise

    def _begin(self) -> None:
        """Go on with the file that is there, or begin a new one."""
        new = encode_line(self._head, "the head, which names the settings,")
        found = self._form.read(self.path)
        before, first = next(found, (None, b""))
        if first:
            self._form.check_head(before, self.path)
        kept = self._take_over(before, found)
        head = first or new
        if before is not None and (renewed := self._renew(before)) != before:
            head = encode_line(renewed, "the head")
        lines = [head, *kept]
        # A torn head may be as long as a whole one.
        if head != first or sum(map(len, lines)) != os.fstat(self._file).st_size:
            self._rewrite(lines)

    def _renew(self, before: JSONObject) -> JSONObject:
        """Return the head of a file that goes on; here the one it had."""
        return before

    @abstractmethod
    def _take_over(
        self, before: JSONObject | None, rows: Iterator[tuple[Any, bytes]]
    ) -> list[bytes]:
        """Take the head and the rows of the file that is there, or of no file.

        Returns:
            The rows to keep.
        """

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def append_line(self, line: bytes) -> None:
        """Write a row, so that other processes see it at once.

        Raises:
            OSError: If it cannot be written. The file holds whole rows even then.
        """
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
            with self._form.explain(self.path):
                self.sync()
        finally:
            with self._lock:
                if self._file >= 0:
                    os.close(self._file)
                    self._file = -1

    def _rewrite(self, lines: Iterable[bytes]) -> None:
        """Put a new file in place of this one, whole or not at all."""
        beside = self.path.with_name(f".{self.path.name}.new")
        new = _create_beside(beside, self._form.start)
        try:
            lock_file(new)
            with contextlib.suppress(OSError):
                # Not every system and file system has modes.
                if HAS_FILE_MODES:
                    os.fchmod(new, stat.S_IMODE(os.fstat(self._file).st_mode))
            for line in lines:
                _write(new, line)
            os.fsync(new)
            if CAN_REPLACE_OPEN_FILES:
                beside.replace(self.path)
        except BaseException:
            os.close(new)
            beside.unlink(missing_ok=True)
            raise
        os.close(self._file)
        self._file = new
        if not CAN_REPLACE_OPEN_FILES:
            os.close(new)
            self._file = -1
            beside.replace(self.path)
            self._file = self._open_locked()
        sync_directory(self.path.parent)

    def _open_locked(self) -> int:
        """Open a file for appending, and keep other processes from doing the same."""
        path = self.path
        path.parent.mkdir(parents=True, exist_ok=True)
        while True:
            if path.exists() and not path.is_file():
                raise InvalidRequestError(f"{path} is no file; {self._form.instead}")
            flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | AS_BYTES
            file = os.open(path, flags, 0o666)
            try:
                lock_file(file)
                with contextlib.suppress(FileNotFoundError):
                    # Another process may have put a new file in its place by now.
                    if path.stat().st_ino == os.fstat(file).st_ino:
                        return file
            except BlockingIOError:
                os.close(file)
                raise BeingWrittenError(
                    f"another {self._form.writer} is writing {path}; wait for its end, "
                    f"or {self._form.instead}"
                ) from None
            except BaseException:
                os.close(file)
                raise
            os.close(file)


def _create_beside(path: Path, head: bytes) -> int:
    """Create a file of our own, in place of what a run that was killed left of it."""
    # O_EXCL follows no symbolic link.
    flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_APPEND | AS_BYTES
    if os.path.lexists(path):
        # What is no file, such as a symbolic link, is not opened.
        size = len(head) if stat.S_ISREG(path.lstat().st_mode) else -1
        if size < 0 or not _is_torn(_read_start(path, size), (head,)):
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


def encode_line(value: JSONObject, what: str) -> bytes:
    """Encode a row; ``what`` names it in the message of an error."""
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
