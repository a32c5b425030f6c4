"""`play`: widgets in a notebook, words elsewhere."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import gymnasium

from ors_gym.display._game import Game
from ors_gym.display._html import find_shell
from ors_gym.display._terminal import say
from ors_gym.display._terminal_game import play_in_terminal
from ors_gym.errors import MissingExtraError, import_extra

if TYPE_CHECKING:
    from ors_gym.display._notebook import NotebookPlayer

__all__ = ["play"]


def play(env: gymnasium.Env[Any, Any], task_index: int = 0) -> NotebookPlayer | None:
    """Play an env yourself. Its episode, if one is under way, is given up.

    In a notebook with ipywidgets (``pip install "ors-gym[notebook]"``) the last line
    of a cell shows a playground: a chooser of tasks, the conversation, a form for each
    tool. Elsewhere the episode is played in the terminal, to its end.

    Args:
        env: An `ORSEnv`, in wrappers or not; closing it is up to the caller.
        task_index: The task to begin with.

    Returns:
        The playground; None after playing in the terminal.

    Raises:
        InvalidRequestError: If it is no env of an ORS server.
        ORSError: For an outage, in the terminal.
    """
    game = Game(env)
    if not _in_a_notebook():
        play_in_terminal(game, task_index)
        return None
    try:
        widgets = import_extra("ipywidgets", "notebook", "A playground of widgets")
    except MissingExtraError as error:
        say(f"({error}, then restart the kernel)\n")
        play_in_terminal(game, task_index)
        return None
    from ors_gym.display._notebook import NotebookPlayer  # noqa: PLC0415

    return NotebookPlayer(game, widgets, task_index)


def _in_a_notebook() -> bool:
    """Say whether this runs in a kernel, which has a front end that shows widgets."""
    return getattr(find_shell(), "kernel", None) is not None
