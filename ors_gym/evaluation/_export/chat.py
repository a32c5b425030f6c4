"""Chat JSON-lines: a conversation a line, as OpenAI's chat completions write it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

from ors_gym.evaluation._export.items import Content, Item, describe, to_conversation


def write_chat(path: Path, items: Iterator[Item], content: Content) -> None:
    """Write a line for each item. Images are data URLs."""
    del content
    with path.open("w", encoding="ascii") as file:
        for item in items:
            json.dump(to_conversation(item) | describe(item), file)
            file.write("\n")
