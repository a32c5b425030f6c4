"""What an env shows of a reply: the observation and the info."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final, Literal, NamedTuple

from ors_gym.env._task_order import Task
from ors_gym.formats._blocks import decode_blocks, render_text, truncate
from ors_gym.types import Block

__all__ = ["Metadata", "Observed", "make_info", "name_task", "observe"]


class Metadata(Mapping[str, Any]):
    """What a tool reported beside its blocks: a read-only mapping, and no dict.

    Gymnasium's vector envs take dicts in ``info`` apart and fail when their values
    change type (`gymnasium.vector.VectorEnv._add_info`).

    Args:
        values: The reported fields.

    Example:
        >>> Metadata({"tokens": 3})["tokens"]
        3
    """

    __slots__ = ("_values",)

    def __init__(self, values: Mapping[str, Any] | None = None) -> None:
        self._values = values or {}

    def __getitem__(self, name: str) -> Any:
        return self._values[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def __repr__(self) -> str:
        return f"Metadata({dict(self._values)!r})"


_NO_METADATA: Final = Metadata()


class Observed(NamedTuple):
    """Blocks as an observation."""

    value: Any
    text: str
    truncated: bool
    problems: tuple[str, ...]
    """Why images could not be decoded."""


def observe(
    blocks: Sequence[Block], mode: Literal["text", "dict"], max_length: int
) -> Observed:
    """Make an observation of blocks.

    Args:
        blocks: The blocks of a prompt or a result.
        mode: ``text``, or ``dict`` for text and images.
        max_length: Characters that are kept of the text.

    Returns:
        The observation, and what is to be said of it.

    Example:
        >>> observe([{"type": "text", "text": "hello"}], "text", 4).value
        'hell'
    """
    if mode == "text":
        text, truncated = truncate(render_text(blocks), max_length)
        return Observed(text, text, truncated, ())
    decoded = decode_blocks(blocks)
    text, truncated = truncate(decoded.text, max_length)
    value = {"images": decoded.images, "text": text}
    return Observed(value, text, truncated, decoded.problems)


def make_info(
    task: Task | None, tool: str, blocks: Sequence[Block], seen: Observed
) -> dict[str, Any]:
    """Make an info: the same keys and types at each reset and step.

    Args:
        task: The task that is played.
        tool: The tool that was called; ``""`` at a reset.
        blocks: The blocks that came back.
        seen: The observation of them.

    Returns:
        A new dict.
    """
    broken = seen.problems
    return {
        "task_index": task.index if task is not None else -1,
        "split": task.split if task is not None else "",
        "tool": tool,
        "error": "; ".join(broken),
        "error_kind": "broken_image" if broken else "",
        "reward_is_null": False,
        "observation_truncated": seen.truncated,
        "blocks": blocks,
        "metadata": _NO_METADATA,
    }


def name_task(task: Task | None) -> str:
    """Name a task for people, without what it holds.

    Args:
        task: The task, if it is known.

    Example:
        >>> name_task(Task("train", 3))
        'task 3 of train'
    """
    if task is None:
        return ""
    if task.index < 0:
        return "a task of your own"
    return f"task {task.index}" + (f" of {task.split}" if task.split else "")
