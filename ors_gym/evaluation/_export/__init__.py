"""Take the episodes of an evaluation elsewhere: one file for each format."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Final, Literal, NamedTuple, TypeAlias, get_args

from ors_gym.errors import InvalidRequestError
from ors_gym.evaluation._collector import ProgressBar
from ors_gym.evaluation._export.atif import write_trajectories
from ors_gym.evaluation._export.chat import write_chat
from ors_gym.evaluation._export.chosen import choose, make_pairs
from ors_gym.evaluation._export.items import Content, Item, Pair
from ors_gym.evaluation._export.minari import name_data_set, write_data_set
from ors_gym.evaluation._export.tables import write_directory, write_parquet
from ors_gym.evaluation._read_run import Row, Run, open_run
from ors_gym.evaluation._result import Evaluation

ExportFormat: TypeAlias = Literal["parquet", "huggingface", "chat", "atif", "minari"]
"""A Parquet file; a directory that ``datasets.load_dataset`` reads; chat JSON-lines;
ATIF trajectories; a Minari data set."""


@dataclasses.dataclass(frozen=True)
class Exported:
    """What an export wrote.

    Args:
        output: The file or the directory; for Minari the id of the data set.
        rows: Episodes that it holds, or pairs of them.
        left_out: Episodes that it does not hold, by the reason.

    Example:
        >>> print(Exported("run.parquet", rows=8, left_out={"without an outcome": 2}))
        wrote run.parquet: 8 rows; left out: 2 without an outcome
    """

    output: str
    rows: int
    left_out: dict[str, int]

    def __str__(self) -> str:
        counts = [f"{count} {why}" for why, count in self.left_out.items()]
        left_out = f"; left out: {', '.join(counts)}" if counts else ""
        return f"wrote {self.output}: {self.rows} rows{left_out}"


class _Format(NamedTuple):
    write: Callable[[Path, Iterator[Item], Content], None]
    suffix: str  # of the output, after the name of the run
    takes_pairs: bool = False


_FORMATS: Final[dict[ExportFormat, _Format]] = {
    "parquet": _Format(write_parquet, ".parquet", takes_pairs=True),
    "huggingface": _Format(write_directory, "-huggingface", takes_pairs=True),
    "chat": _Format(write_chat, "-chat.jsonl", takes_pairs=True),
    "atif": _Format(write_trajectories, "-atif"),
    "minari": _Format(write_data_set, "-v0"),
}


def export(
    run: str | os.PathLike[str] | Evaluation,
    to: ExportFormat,
    output: str | os.PathLike[str] | None = None,
    *,
    pairs: bool = False,
    split: str | None = None,
    success: bool | None = None,
    min_reward: float | None = None,
    max_reward: float | None = None,
    progress: bool | None = None,
) -> Exported:
    """Write the episodes of an evaluation for other people's tools.

    Only one episode is in memory at a time. For each of the others some 500 bytes say
    where it is.
    Episodes without an outcome are left out. The answers of tasks are never written:
    neither a task itself, nor the metadata of tool outputs.

    Args:
        run: The output file of an evaluation, also of one that still runs; or an
            evaluation.
        to: The format. ``"parquet"``, ``"huggingface"`` and ``"chat"`` have a row for
            each episode, with the columns ``messages`` and ``tools`` that TRL's
            ``SFTTrainer`` takes.
        output: What is written, which must not be there yet; for Minari the id of the
            data set. If None, it is named after ``run`` and stands beside it.
        pairs: Write pairs of a preferred and a rejected episode of one task, as
            ``prompt``, ``chosen`` and ``rejected``, which TRL's ``DPOTrainer`` takes.
            Of each task the best is paired with the worst, the second best with the
            second worst, and so on while their rewards differ.
        split: Only episodes of this split.
        success: Only successes, or only failures.
        min_reward: Only episodes with at least this reward.
        max_reward: Only episodes with at most this reward.
        progress: Whether a bar is shown; if None, where tqdm is installed.

    Returns:
        What was written, and how many episodes were left out for which reason.

    Raises:
        InvalidRequestError: If the run cannot be read, if nothing is left to write, or
            if the output is there already. Nothing is left behind then.
        MissingExtraError: If the extra ``export`` is not installed; chat needs none.

    Example:
        >>> from ors_gym.evaluation import evaluate
        >>> from ors_gym.rollout import reference_policy
        >>> run = evaluate(None, "math", range(3), reference_policy(), progress=False)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     export(run, "chat", Path(folder, "run.jsonl"), progress=False).rows
        3
    """
    chosen_format = _FORMATS.get(to)
    if chosen_format is None:
        known = ", ".join(map(repr, get_args(ExportFormat)))
        raise InvalidRequestError(f"to is {to!r}; it must be one of {known}")
    if pairs and not chosen_format.takes_pairs:
        takers = ", ".join(name for name, one in _FORMATS.items() if one.takes_pairs)
        raise InvalidRequestError(f"{to} holds no pairs; these formats do: {takers}")
    with open_run(run) as opened:
        chosen, left_out = choose(
            opened.rows,
            split=split,
            success=success,
            rewards=(min_reward, max_reward),
            with_steps=to == "minari",
        )
        count = Counter(left_out)
        target = os.fspath(output) if output is not None else _name(run, to, opened)
        found = make_pairs(chosen) if pairs else []
        if pairs:
            count["without a pair"] = len(chosen) - 2 * len(found)
        if not (found if pairs else chosen):
            raise _nothing_is_left(count)
        content = Content(
            opened.head, pairs=pairs, images=any(row.has_images for row in chosen)
        )
        items = _Items(opened, found if pairs else chosen, count, progress, to)
        with contextlib.closing(items), _staged(target, to) as path:
            chosen_format.write(path, iter(items), content)
    return Exported(target, items.rows, {why: n for why, n in count.items() if n})


class _Items:
    """The episodes or pairs that are written, read one at a time."""

    def __init__(
        self,
        run: Run,
        chosen: Sequence[Row] | Sequence[tuple[Row, Row]],
        left_out: Counter[str],
        progress: bool | None,
        to: str,
    ) -> None:
        self._run, self._chosen, self._left_out = run, chosen, left_out
        self._bar = ProgressBar(len(chosen), f"export to {to}", shown=progress)
        self.rows = 0

    def __iter__(self) -> Iterator[Item]:
        for one in self._chosen:
            item = self._read(one)
            self._bar.add(item.chosen if isinstance(item, Pair) else item)
            if isinstance(item, Pair) and item.prompts_differ:
                self._left_out["with another prompt than their pair"] += 2
                continue
            self.rows += 1
            yield item
        if not self.rows:
            # Raised in the writer, before it closes what would be empty.
            raise _nothing_is_left(self._left_out)

    def _read(self, one: Row | tuple[Row, Row]) -> Item:
        if isinstance(one, Row):
            return self._run.read(one)
        better, worse = one
        return Pair(self._run.read(better), self._run.read(worse))

    def close(self) -> None:
        self._bar.close()


def _nothing_is_left(left_out: Counter[str]) -> InvalidRequestError:
    reasons = ", ".join(f"{n} {why}" for why, n in left_out.items() if n)
    return InvalidRequestError(
        f"nothing is left to export: {reasons or 'there is no episode'}"
    )


def _name(
    run: str | os.PathLike[str] | Evaluation, to: ExportFormat, opened: Run
) -> str:
    """Name the output after the run."""
    if isinstance(run, Evaluation):
        raise InvalidRequestError("an evaluation has no name of its own: give output=")
    path = Path(run)
    name = f"{path.stem}{_FORMATS[to].suffix}"
    if to == "minari":
        return name_data_set(str(opened.head.get("environment")), name)
    return str(path.with_name(name))


@contextlib.contextmanager
def _staged(target: str, to: ExportFormat) -> Iterator[Path]:
    """Give a path to write, which gets its name once all of it is written."""
    path = Path(target)
    if to == "minari":
        # Minari knows by itself where its data sets are.
        yield path
        return
    if os.path.lexists(path):
        raise InvalidRequestError(
            f"{path} is there already; move it away, or choose another output"
        )
    try:
        with (
            _made_directory(path.parent) as directory,
            tempfile.TemporaryDirectory(prefix=".export-", dir=directory) as beside,
        ):
            yield Path(beside, path.name)
            Path(beside, path.name).rename(path)
    except OSError as error:
        raise InvalidRequestError(
            f"{path} cannot be written: {error.strerror or error}"
        ) from error


@contextlib.contextmanager
def _made_directory(path: Path) -> Iterator[Path]:
    """Make a directory, which goes away again if what is done in it fails."""
    made = [one for one in (path, *path.parents) if not one.exists()]
    try:
        path.mkdir(parents=True, exist_ok=True)
        yield path
    except BaseException:
        for one in made:
            with contextlib.suppress(OSError):
                one.rmdir()
        raise
