"""Parquet, and the data sets of Hugging Face, which are Parquet files in a directory.

What has no columns of its own (parts of a message, calls, tools) is JSON text, which
`datasets` decodes, so that no value gains or loses a field.
"""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Self

from ors_gym.errors import import_extra
from ors_gym.evaluation._export.items import (
    Content,
    Item,
    Pair,
    describe,
    to_conversation,
)
from ors_gym.formats._blocks import decode_base64, describe_block, replace_surrogates
from ors_gym.formats._messages import to_template_messages
from ors_gym.rollout._episode import message_text
from ors_gym.types import JSONObject

_PURPOSE: Final = "An export to Parquet"
_ROWS_AT_ONCE: Final = 100
"""Rows of a group, which are in memory together."""
_TYPES: Final = {
    **dict.fromkeys(("environment", "split", "stop_reason"), "string"),
    **dict.fromkeys(("task_index", "episode", "steps"), "int64"),
    "total_reward": "float64",
    "success": "bool",
}
_DATA_URL: Final = re.compile(r"data:([^;,]*);base64,(.*)", re.DOTALL)
_NO_WORD: Final = re.compile(r"\W+")


def write_parquet(path: Path, items: Iterator[Item], content: Content) -> None:
    """Write one table."""
    with _Table(path, content) as table:
        for item in items:
            table.add(item)


def write_directory(directory: Path, items: Iterator[Item], content: Content) -> None:
    """Write a table for each split, and the card that names them."""
    (directory / "data").mkdir(parents=True)
    tables: dict[str, _Table] = {}
    with contextlib.ExitStack() as stack:
        for item in items:
            split = (item.chosen if isinstance(item, Pair) else item).episode.split
            name = _NO_WORD.sub("_", split) or "train"
            if name not in tables:
                path = directory / "data" / f"{name}.parquet"
                tables[name] = stack.enter_context(_Table(path, content))
            tables[name].add(item)
    lines = ["---", "configs:", "- config_name: default", "  data_files:"]
    for name in tables:
        lines += [f"  - split: {name}", f"    path: data/{name}.parquet"]
    environment, policy = content.head.get("environment"), content.head.get("policy")
    about = f"Episodes of {environment}, played by {policy}. Written by ors_gym."
    card = "\n".join([*lines, "---", "", about, ""])
    (directory / "README.md").write_text(card, encoding="utf-8")


class _Table:
    """A Parquet file whose columns `datasets` describes."""

    def __init__(self, path: Path, content: Content) -> None:
        datasets = import_extra("datasets", "export", _PURPOSE)
        writer = import_extra("datasets.arrow_writer", "export", _PURPOSE)
        self._content = content
        self._writer = writer.ParquetWriter(
            path=str(path),
            features=_columns(datasets, content),
            writer_batch_size=_ROWS_AT_ONCE,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            self._writer.finalize()
        else:
            self._writer.close()

    def add(self, item: Item) -> None:
        row = to_conversation(item) | describe(item)
        row["tools"] = [_to_json(tool) for tool in row["tools"]]
        for column in ("messages", "prompt", "chosen", "rejected"):
            if column in row:
                images: list[JSONObject] | None = [] if self._content.images else None
                # DPOTrainer takes images in the prompt only.
                shows = column in ("messages", "prompt")
                row[column] = [
                    _to_row(message, images, shows=shows)
                    for message in to_template_messages(row[column])
                ]
                if images is not None:
                    row["images" if shows else f"{column}_images"] = images
        self._writer.write(row)


def _columns(datasets: Any, content: Content) -> Any:
    text, json_text = datasets.Value("string"), datasets.Json()
    message = {
        "role": text,
        "content": datasets.List(json_text) if content.images else text,
        "reasoning_content": text,
        "tool_calls": datasets.List(json_text),
        "tool_call_id": text,
        "name": text,
    }
    talks = ("prompt", "chosen", "rejected") if content.pairs else ("messages",)
    columns = {name: datasets.List(message) for name in talks}
    columns["tools"] = datasets.List(json_text)
    if content.images:
        names = ("images", "chosen_images", "rejected_images")
        for name in names if content.pairs else names[:1]:
            columns[name] = datasets.List(datasets.Image())
    for name, kind in _TYPES.items():
        twice = content.pairs and name not in ("environment", "split", "task_index")
        for column in (f"chosen_{name}", f"rejected_{name}") if twice else (name,):
            columns[column] = datasets.Value(kind)
    return datasets.Features(columns)


def _to_row(
    message: Mapping[str, Any], images: list[JSONObject] | None, *, shows: bool
) -> JSONObject:
    """Return a message in the columns of messages; move its images into ``images``.

    Without a list of images its content is text.
    """
    content: Any = message.get("content")
    if images is None:
        content = replace_surrogates(message_text(content))
    else:
        parts = content if isinstance(content, list) else [_text_part(content or "")]
        parts = [_move_image(part, images, shows=shows) for part in parts]
        content = [_to_json(part) for part in parts]
    calls = message.get("tool_calls")
    row: JSONObject = {
        name: replace_surrogates(value) if isinstance(value, str) else None
        for name in ("role", "reasoning_content", "tool_call_id", "name")
        for value in (message.get(name),)
    }
    row["tool_calls"] = [_to_json(call) for call in calls] if calls else None
    return {**row, "content": content}


def _move_image(part: Any, images: list[JSONObject], *, shows: bool) -> Any:
    """Leave a place for the image of a part, or its description."""
    if not isinstance(part, Mapping) or part.get("type") != "image_url":
        return part
    shown = part.get("image_url")
    url = str(shown.get("url") if isinstance(shown, Mapping) else shown)
    found = _DATA_URL.fullmatch(url)
    if found is None:
        return _text_part(f"[image: {url}]")
    media_type, data = found.groups()
    described = _text_part(
        describe_block({"type": "image", "data": data, "mimeType": media_type})
    )
    try:
        image = {"bytes": decode_base64(data), "path": None}
    except ValueError:
        return described
    images.append(image)
    return {"type": "image"} if shows else described


def _text_part(text: str) -> JSONObject:
    return {"type": "text", "text": text}


def _to_json(value: Mapping[str, Any] | Sequence[Any]) -> str:
    # `datasets` cannot read an escaped half of a surrogate pair.
    return replace_surrogates(json.dumps(value, ensure_ascii=False))
