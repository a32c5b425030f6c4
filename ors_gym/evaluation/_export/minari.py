"""Data sets of Minari: observations and actions as text, as ``action_mode="text"``.

They are what Minari itself records of ``PlainInfo(env)`` with ``record_infos=True``:
blocks with their images are JSON text among the infos.
"""

from __future__ import annotations

import json
import re
import shutil
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from ors_gym.errors import InvalidRequestError, import_extra
from ors_gym.evaluation._export.items import Content, Item
from ors_gym.formats._blocks import render_text, replace_surrogates
from ors_gym.rollout import Episode
from ors_gym.rollout._episode import message_text, turns_with_steps
from ors_gym.rollout._output import Record
from ors_gym.spaces import FreeText

_PURPOSE: Final = "An export to Minari"
_NO_WORD: Final = re.compile(r"[^\w-]+")
_NUL_SHOWN: Final = "\N{SYMBOL FOR NULL}"


def name_data_set(environment: str, name: str) -> str:
    """Return an id that Minari takes."""
    parts = (_NO_WORD.sub("-", part).strip("-") for part in (environment, name))
    return "/".join(part or "run" for part in parts)


def write_data_set(path: Path, items: Iterator[Item], content: Content) -> None:
    """Let Minari write a data set, whose id is the path, into its own directory."""
    name = path.as_posix()
    place = _find_place(name)
    minari = import_extra("minari", "export", _PURPOSE)
    buffers = import_extra("minari.data_collector", "export", _PURPOSE)
    environment, policy = content.head.get("environment"), content.head.get("policy")
    try:
        with warnings.catch_warnings():
            # It misses an author, whom a run does not know.
            warnings.simplefilter("ignore", UserWarning)
            minari.create_dataset_from_buffers(
                name,
                (_to_buffer(item, buffers.EpisodeBuffer) for item in items),
                observation_space=FreeText(),
                action_space=FreeText(),
                algorithm_name=str(policy),
                description=f"Episodes of {environment}, recorded by ors_gym.",
                data_format="hdf5",
            )
    except BaseException:
        shutil.rmtree(place, ignore_errors=True)
        raise


def _find_place(name: str) -> Path:
    """Return where Minari will put a new data set."""
    ids = import_extra("minari.dataset.minari_dataset", "export", _PURPOSE)
    places = import_extra("minari.storage.datasets_root_dir", "export", _PURPOSE)
    try:
        ids.parse_dataset_id(name)
    except (ValueError, TypeError):
        raise InvalidRequestError(
            f"{name!r} is no id of a data set: write NAME-v0 or NAMESPACE/NAME-v0"
        ) from None
    place: Path = places.get_dataset_path(name)
    if place.exists():
        raise InvalidRequestError(
            f"{place} is there already; choose another id as output"
        )
    return place


def _to_buffer(item: Item, buffer: Any) -> Any:
    assert isinstance(item, Record)  # noqa: S101 - it takes no pairs
    episode = item.episode
    steps = episode.steps
    replies = [episode.prompt, *(step.reply for step in steps)]
    ended = [False] * (len(steps) - 1)
    return buffer(
        seed=episode.seed,
        options={"task_index": episode.task_index, "split": episode.split},
        observations=[_to_text(render_text(blocks)) for blocks in replies],
        actions=[_to_text(action) for action in _actions(episode)],
        rewards=[step.reward for step in steps],
        terminations=[*ended, episode.finished],
        truncations=[*ended, not episode.finished],
        infos={
            "blocks": [json.dumps(blocks) for blocks in map(list, replies)],
            "tool": ["", *(_to_text(step.tool) for step in steps)],
            "error_kind": ["", *(step.error_kind for step in steps)],
        },
    )


def _actions(episode: Episode) -> Iterator[str]:
    """Yield each action that led to a step, as text that an env reads."""
    for turn, steps in turns_with_steps(episode):
        for step, action in zip(steps, turn.actions, strict=False):
            if step.tool:
                yield json.dumps({"tool": step.tool, "input": step.input})
            else:
                yield action if isinstance(action, str) else message_text(turn.message)


def _to_text(text: str) -> str:
    """Return text that HDF5 takes: it ends a text at its first NUL."""
    return replace_surrogates(text).replace("\0", _NUL_SHOWN)
