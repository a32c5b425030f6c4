"""`play`: with widgets in a notebook, line by line in a terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import gymnasium

from ors_gym.display._show import find_shell
from ors_gym.display._terminal import say
from ors_gym.errors import MissingExtraError, import_extra

if TYPE_CHECKING:
    from ors_gym.display._play_in_notebook import NotebookPlayer


def play(env: gymnasium.Env[Any, Any], task_index: int = 0) -> NotebookPlayer | None:
    """Play an env yourself. An episode of the env that is under way is given up.

    In a notebook with ipywidgets (``pip install "ors-gym[notebook]"``) the last line
    of a cell shows a playground: a chooser of tasks, the conversation, a form for each
    tool. Elsewhere the episode is played in the terminal, to its end.

    Args:
        env: An `ORSEnv`, in wrappers or not; closing it is up to the caller.
        task_index: The task to begin with.

    Returns:
        The playground; None after playing in the terminal.

    Raises:
        InvalidRequestError: If it is not an env of an ORS server.
        ORSError: For an outage, in the terminal.

    Example:
        >>> play(gymnasium.make("CartPole-v1"))
        Traceback (most recent call last):
            ...
        ors_gym.errors.InvalidRequestError: ...
    """
    # They load envs and rollouts, which importing `ors_gym.display` must not.
    from ors_gym.display import _play_in_notebook as notebook  # noqa: PLC0415
    from ors_gym.display import _play_in_terminal as terminal  # noqa: PLC0415
    from ors_gym.display._game import Game  # noqa: PLC0415

    game = Game(env)
    if _in_a_notebook():
        try:
            widgets = import_extra("ipywidgets", "notebook", "A playground of widgets")
        except MissingExtraError as error:
            say(f"({error}, then restart the kernel)\n")
        else:
            return notebook.NotebookPlayer(game, widgets, task_index)
    terminal.play_in_terminal(game, task_index)
    return None


def _in_a_notebook() -> bool:
    """Say whether this runs in a kernel, which has a front end that shows widgets."""
    return getattr(find_shell(), "kernel", None) is not None
