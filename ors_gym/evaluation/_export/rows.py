"""Finds the episodes of a run without keeping them: what they are chosen by."""

from __future__ import annotations

import contextlib
import dataclasses
import math
import os
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final, TypeAlias

from ors_gym.errors import InvalidRequestError
from ors_gym.evaluation._result import Evaluation
from ors_gym.formats._json import decode_json
from ors_gym.rollout._output import OUTPUT, Record, read_record
from ors_gym.rollout._planned import Key
from ors_gym.types import JSONObject

_IMAGE: Final = re.compile(rb'"type":\s*"image"')
Rewards: TypeAlias = tuple[float | None, float | None]
"""The least and the greatest reward, None where there is no such limit."""


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

        head, found = _scan(path)
        yield Run(head, found, read)


def _scan(path: Path) -> tuple[JSONObject, list[Row]]:
    """Look at each row once. Of several rows of one episode the last counts."""
    head: JSONObject | None = None
    rows: dict[Key, Row] = {}
    place = 0
    for value, line in OUTPUT.read(path):
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


def choose(
    rows: Iterable[Row],
    *,
    split: str | None = None,
    success: bool | None = None,
    rewards: Rewards = (None, None),
    with_steps: bool = False,
) -> tuple[list[Row], Counter[str]]:
    """Return the rows that are wanted, and count the others by the reason."""
    least, most = rewards
    low = -math.inf if least is None else least
    high = math.inf if most is None else most
    chosen: list[Row] = []
    left_out: Counter[str] = Counter()
    for row in rows:
        if row.reward is None:
            left_out["without an outcome"] += 1
        elif split not in (None, row.key[0]):
            left_out["of another split"] += 1
        elif success not in (None, row.success):
            left_out["failed" if success else "successful"] += 1
        elif not low <= row.reward <= high:
            left_out["with another reward"] += 1
        elif with_steps and not row.steps:
            left_out["without a step"] += 1
        else:
            chosen.append(row)
    return chosen, left_out


def make_pairs(rows: Iterable[Row]) -> list[tuple[Row, Row]]:
    """Pair the best of each task with the worst, while their rewards differ."""
    tasks: dict[Any, list[Row]] = {}
    for row in rows:
        tasks.setdefault(row.key[:2], []).append(row)
    pairs: list[tuple[Row, Row]] = []
    for group in tasks.values():
        ranked = sorted(group, key=lambda row: -(row.reward or 0.0))
        pairs += (
            (better, worse)
            for better, worse in zip(
                ranked[: len(ranked) // 2], reversed(ranked), strict=False
            )
            if better.reward != worse.reward
        )
    return pairs
