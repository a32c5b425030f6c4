"""How environments, tools, tasks and prompts show themselves in a notebook.

`Episode` and `Evaluation` do so by themselves. Tools, tasks and prompts are plain JSON,
which `show` makes a card of; an env, also one in wrappers, is shown as a card by a
formatter that importing `ors_gym` adds to IPython, where that runs.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import gymnasium
from gymnasium.vector import VectorEnv

from ors_gym.display._html import (
    Fact,
    card,
    conversation_card,
    escape,
    find_shell,
    message_card,
    prompt_card,
    reward_fact,
    tasks_card,
    tool_parts,
    tools_card,
)
from ors_gym.display._terminal import clean
from ors_gym.formats._blocks import render_text

__all__ = ["Shown", "env_card", "register_formatters", "show"]


class Shown:
    """Something that shows itself: as HTML in a notebook, as text elsewhere.

    Args:
        html: The HTML.
        text: The text.
    """

    def __init__(self, html: str, text: str) -> None:
        self._html = html
        self._text = text

    def _repr_html_(self) -> str:
        return self._html

    def __repr__(self) -> str:
        # In a terminal the text of a server must not steer it.
        return clean(self._text)


def show(value: Any, title: str = "") -> Shown:
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
    own = getattr(type(value), "_repr_html_", None)
    if own is not None:
        return Shown(own(value), str(value))
    if isinstance(value, gymnasium.Env | VectorEnv):
        return Shown(env_card(value) or message_card(str(value)), str(value))
    if isinstance(value, Mapping):
        if "type" in value or "role" in value or "input_schema" in value:
            return show([value], title)
        return Shown(tasks_card([dict(value)], title or "1 task"), _json(value))
    if _is_list_of_objects(value):
        return _show_list(value, title)
    return Shown(card(title or type(value).__name__, [_plain(value)]), _json(value))


def _is_list_of_objects(value: Any) -> bool:
    if not isinstance(value, Sequence) or isinstance(value, str | bytes):
        return False
    return bool(value) and all(isinstance(item, dict) for item in value)


def _show_list(values: Sequence[Any], title: str) -> Shown:
    """Show a list of JSON objects, told apart by the keys that its kind has."""
    if all("name" in value and "input_schema" in value for value in values):
        lines = [f"{tool['name']}: {tool.get('description', '')}" for tool in values]
        return Shown(tools_card(values, title), "\n".join(lines))
    if all("role" in value for value in values):
        return Shown(prompt_card(values, title or "messages"), _json(values))
    if all(isinstance(value.get("type"), str) for value in values):
        return Shown(prompt_card(values, title or "prompt"), render_text(values))
    return Shown(tasks_card(values, title), _json(values))


def _plain(value: Any) -> str:
    return f'<pre class="ors-text">{escape(_json(value))}</pre>'


def _json(value: Any) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False, default=str)


def env_card(env: Any) -> str | None:
    """Return an ORS env as a card: its episode so far, and its tools.

    Args:
        env: An `ORSEnv` or `ORSVectorEnv`, in wrappers or not.

    Returns:
        HTML, or None if it is another env. The server is asked for nothing.
    """
    from ors_gym.env import ORSEnv  # noqa: PLC0415 - importing us is to stay light
    from ors_gym.vector import ORSVectorEnv  # noqa: PLC0415

    inner = env.unwrapped
    if isinstance(inner, ORSVectorEnv):
        return _vector_card(inner)
    return _single_card(inner) if isinstance(inner, ORSEnv) else None


def _single_card(env: Any) -> str:
    facts = [Fact(env.base_url)]
    transcript = env.transcript
    if transcript is None or not transcript.entries:
        hint = (
            'made with render_mode="ansi", it shows its episode here'
            if transcript is None
            else "not reset yet"
        )
        shown = card(env.environment, tool_parts(env.tools), _spans(facts))
        return shown + message_card(hint, "muted")
    facts += [Fact(transcript.task), reward_fact(transcript.total)]
    shown = conversation_card(env.environment, transcript.entries, facts)
    return shown + tools_card(env.tools)


def _vector_card(envs: Any) -> str:
    mode = envs.metadata["autoreset_mode"].value
    facts = [
        Fact(envs.get_attr("base_url")[0]),
        Fact(f"{envs.num_envs} envs"),
        Fact(f"autoreset {mode}"),
    ]
    tools = envs.get_attr("tools")[0]
    return card(envs.get_attr("environment")[0], tool_parts(tools), _spans(facts))


def _spans(facts: Sequence[Fact]) -> list[str]:
    return [f'<span class="ors-muted">{escape(fact.text)}</span>' for fact in facts]


def register_formatters() -> None:
    """Have IPython show envs as cards, if it runs; else do nothing.

    Importing `ors_gym` calls it. IPython is not imported for it, and other envs are
    shown as before.
    """
    display_formatter = getattr(find_shell(), "display_formatter", None)
    if display_formatter is None:
        return
    formatter = display_formatter.formatters["text/html"]
    for kind in (gymnasium.Env, VectorEnv):
        earlier = formatter.for_type(kind)
        if not isinstance(earlier, _EnvFormatter):
            formatter.for_type(kind, _EnvFormatter(earlier))


class _EnvFormatter:
    """Shows our envs, and leaves others to the formatter that was there before."""

    def __init__(self, earlier: Callable[[Any], str | None] | None) -> None:
        self._earlier = earlier

    def __call__(self, env: Any) -> str | None:
        try:
            found = env_card(env)
        except Exception as error:  # noqa: BLE001 - IPython would show a traceback
            return message_card(f"{env}: {type(error).__name__}: {error}", "bad")
        if found is not None:
            return found
        if self._earlier is not None:
            return self._earlier(env)
        own = getattr(type(env), "_repr_html_", None)
        shown: str | None = None if own is None else own(env)
        return shown
