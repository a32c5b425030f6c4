"""`show`, and the formatters by which a notebook shows envs as cards.

The cards themselves are in `ors_gym.display._cards`.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import gymnasium
from gymnasium.vector import VectorEnv

from ors_gym._shown_text import clean
from ors_gym.display._html import message_card
from ors_gym.types import ToolList


def show(value: Any, title: str = "") -> _Shown:
    """Show tools, tasks, a prompt, an env, an episode or other JSON as a card.

    Args:
        value: ``env.unwrapped.tools``, ``client.list_tasks(...)``, a task, the blocks
            of a prompt or of ``info["blocks"]``, messages, an env; or anything that
            shows itself in a notebook.
        title: The card's title; chosen if empty.

    Returns:
        A card in a notebook, text elsewhere.

    Example:
        >>> show([{"name": "look", "description": "See.", "input_schema": None}])
        look: See.
    """
    # The cards load envs and rollouts, which importing `ors_gym.display` must not.
    from ors_gym.display import _cards as cards  # noqa: PLC0415

    return _Shown(*cards.choose_card(value, title))


class _Shown:
    """Something that shows itself: as HTML in a notebook, as text elsewhere."""

    def __init__(self, html: str, text: str) -> None:
        self._html = html
        self._text = text

    def _repr_html_(self) -> str:
        return self._html

    def __repr__(self) -> str:
        # A terminal may show it, which the text of a server must not steer.
        return clean(self._text)


def register_formatters() -> None:
    """Have IPython, if it runs, show ORS envs and their tools as cards.

    Importing `ors_gym` calls it. IPython is not imported for it, and other envs are
    shown as before.

    Example:
        >>> register_formatters()  # outside IPython it does nothing
    """
    display_formatter = getattr(find_shell(), "display_formatter", None)
    if display_formatter is None:
        return
    formatter = display_formatter.formatters["text/html"]
    for kind in (gymnasium.Env, VectorEnv):
        earlier = formatter.for_type(kind)
        if not isinstance(earlier, _EnvFormatter):
            formatter.for_type(kind, _EnvFormatter(earlier))
    formatter.for_type(ToolList, _format_tools)


def _format_tools(tools: ToolList) -> str:
    from ors_gym.display._cards import tools_card  # noqa: PLC0415 - as in `show`

    return tools_card(tools)


class _EnvFormatter:
    """Shows our envs, and leaves others to the formatter that was there before."""

    def __init__(self, earlier: Callable[[Any], str | None] | None) -> None:
        self._earlier = earlier

    def __call__(self, env: Any) -> str | None:
        from ors_gym.display._cards import env_card  # noqa: PLC0415 - as in `show`

        try:
            found = env_card(env)
        except Exception as error:  # noqa: BLE001 - IPython would show a traceback
            text = f"{env}: {type(error).__name__}: {error}"
            return message_card(text, "bad")
        if found is not None:
            return found
        if self._earlier is not None:
            return self._earlier(env)
        own = getattr(type(env), "_repr_html_", None)
        shown: str | None = None if own is None else own(env)
        return shown


def find_shell() -> Any:
    """Return IPython's running shell; None without one. IPython is not imported.

    A half-imported IPython, or another module of that name, has no shell.
    """
    return getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
