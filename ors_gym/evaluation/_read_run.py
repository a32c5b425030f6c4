"""The episodes of a run, found without keeping them, and read one at a time."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import re
from collections.abc import Callable, Iterator, Sequence
from io import BufferedReader
from pathlib import Path
from typing import Final

from ors_gym.errors import InvalidRequestError
from ors_gym.evaluation._result import Evaluation
from ors_gym.formats._json import decode_json
from ors_gym.rollout._output import OUTPUT, Record, read_record
from ors_gym.rollout._planned_rollout import Key
from ors_gym.types import JSONObject

_IMAGE: Final = re.compile(rb'"type":\s*"image"')


@dataclasses.dataclass(frozen=True, slots=True)
class Row:
    """What an episode is chosen by, and where it is."""

    place: int  # in bytes from the beginning of the file, or in the list
    key: Key
    reward: float | None
    success: bool | None
    steps: int
    has_images: bool


@dataclasses.dataclass(frozen=True, slots=True)
class Run:
    """A run whose episodes are read one at a time."""

    head: JSONObject
    rows: Sequence[Row]
    _read: Callable[[int], Record]

    def read(self, row: Row) -> Record:
        return self._read(row.place)


@contextlib.contextmanager
def open_run(source: str | os.PathLike[str] | Evaluation) -> Iterator[Run]:
    """Find the episodes of an output file or an evaluation."""
    if isinstance(source, Evaluation):
        records = source.records
        rows = [
            _describe(place, record, record.encode()[1])
            for place, record in enumerate(records)
        ]
        yield Run(source.head, rows, records.__getitem__)
        return
    path = Path(source)
    try:
        file = path.open("rb")
    except OSError as error:
        raise InvalidRequestError(f"{path} cannot be read: {error.strerror}") from None
    with file:

        def read(place: int) -> Record:
            file.seek(place)
            return read_record(decode_json(file.readline().decode()), path)

        head, found = _scan(file, path)
        yield Run(head, found, read)


def _scan(file: BufferedReader, path: Path) -> tuple[JSONObject, list[Row]]:
    """Look at each row once. Of several rows of one episode the last counts."""
    head: JSONObject | None = None
    rows: dict[Key, Row] = {}
    place = 0
    for value, line in OUTPUT.read_on(file, path):
        if head is None:
            head = OUTPUT.check_head(value, path)
        else:
            row = _describe(place, read_record(value, path), line)
            rows[row.key] = row
        place += len(line)
    if head is None:
        raise InvalidRequestError(f"{path} is empty; there is no evaluation in it")
    return head, list(rows.values())


def _describe(place: int, record: Record, line: bytes) -> Row:
    return Row(
        place,
        record.key,
        record.episode.total_reward,
        record.success,
        len(record.episode.steps),
        _IMAGE.search(line) is not None,
    )
