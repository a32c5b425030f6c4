"""``play``: a person plays an episode in the terminal."""

from __future__ import annotations

import argparse
import itertools
import pathlib
from typing import Any

from ors_gym.cli._common import (
    add_command,
    add_credential_arguments,
    add_environment_arguments,
    add_tool_schemas_argument,
    open_client,
    open_environment,
)
from ors_gym.display._game import Game
from ors_gym.display._play_in_terminal import play_in_terminal
from ors_gym.display._terminal import say
from ors_gym.display._transcript import Entry
from ors_gym.env import ORSEnv
from ors_gym.errors import InvalidRequestError
from ors_gym.formats._blocks import IMAGE_ENDINGS, decode_base64, read_media_type
from ors_gym.types import Block


def add_parser(commands: Any) -> None:
    parser = add_command(
        commands, "play", "play an episode in the terminal", "maze --split test"
    )
    add_environment_arguments(parser)
    parser.add_argument(
        "--task", type=int, default=0, metavar="N", help="its index; default: 0"
    )
    parser.add_argument("--images", metavar="DIR", help="where to save pictures")
    add_tool_schemas_argument(parser)
    add_credential_arguments(parser)
    parser.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> int:
    with (
        open_environment(options.environment, options.url) as (base_url, name),
        open_client(options, base_url) as client,
    ):
        env = ORSEnv(
            name,
            split=options.split,
            tool_schemas=options.tool_schemas,
            secrets=dict(options.secret),
            client=client,
        )
        try:
            gallery = _Gallery(options.images)
            play_in_terminal(Game(env), options.task, on_entry=gallery.save)
        finally:
            env.close()
    return 0


class _Gallery:
    """Saves the pictures of an episode in a directory, or nowhere if that is None.

    It takes no name that is there already, such as those of an earlier episode.
    """

    def __init__(self, directory: str | None) -> None:
        self._directory = None if directory is None else pathlib.Path(directory)
        self._numbers = itertools.count()

    def save(self, entry: Entry) -> None:
        if self._directory is None:
            return
        for block in entry.blocks:
            if block.get("type") == "image":
                self._save_one(block, self._directory)

    def _save_one(self, block: Block, directory: pathlib.Path) -> None:
        try:
            data = decode_base64(block.get("data"))
        except ValueError as error:
            say(f"[an image is not saved: {error}]")
            return
        ending = IMAGE_ENDINGS.get(read_media_type(block), "img")
        for number in self._numbers:
            path = directory / f"image-{number}.{ending}"
            try:
                directory.mkdir(parents=True, exist_ok=True)
                with path.open("xb") as file:
                    file.write(data)
            except FileExistsError:
                if directory.is_dir():
                    continue
                raise InvalidRequestError(f"{directory} is no directory") from None
            except OSError as error:
                raise InvalidRequestError(f"{path} cannot be saved: {error}") from None
            say(f"[saved {path}]")
            return
