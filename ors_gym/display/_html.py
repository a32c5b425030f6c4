"""Cards of HTML for notebooks: episodes, tools, tasks and prompts."""

from __future__ import annotations

import html
import json
import re
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final, NamedTuple

from ors_gym.display._style import STYLE, reward_colour
from ors_gym.display._terminal import replace_controls
from ors_gym.display._transcript import NOT_RUN, Entry
from ors_gym.formats._blocks import describe_block, replace_surrogates
from ors_gym.formats._images import read_image_size
from ors_gym.formats._schemas import describe_schema
from ors_gym.types import Block, JSONObject, ToolSpec

__all__ = [
    "Allowance",
    "Fact",
    "card",
    "conversation_card",
    "escape",
    "find_shell",
    "flag",
    "message_card",
    "preformatted",
    "prompt_card",
    "reward_fact",
    "show_blocks",
    "tasks_card",
    "tool_parts",
    "tools_card",
]


def find_shell() -> Any:
    """Return IPython's running shell; None without one.

    IPython is not imported for it. A module of that name that is half imported, or
    another's stand-in, has no shell.

    Example:
        >>> find_shell() is None
        True
    """
    return getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()


_IMAGE_TYPES: Final = frozenset({"image/png", "image/jpeg", "image/gif", "image/webp"})
"""Pictures only: no SVG, which is a document."""
_BASE64: Final = re.compile(r"[A-Za-z0-9+/]+={0,2}")
_MOST_PIXELS: Final = 2**26
_ENLARGED_TO: Final = 240
"""Pixels to which a very small picture is enlarged."""
_MOST_ENLARGED: Final = 8

_FOLDED_CHARACTERS: Final = 1500
_FOLDED_LINES: Final = 26
_PEEK_LINES: Final = 8
_PEEK_CHARACTERS: Final = 500
_MOST_CHARACTERS: Final = 20_000

_SEPARATOR: Final = "\n\n"


class Allowance:
    """How much one card may still hold, so that a notebook stays light.

    Args:
        image_characters: Base64 of images.
    """

    def __init__(self, image_characters: int = 8_000_000) -> None:
        self._left = image_characters

    def take(self, characters: int) -> bool:
        """Say whether an image of so many characters may be shown, and count it."""
        if characters > self._left:
            return False
        self._left -= characters
        return True


def escape(text: object) -> str:
    """Return a text for HTML, in an element or in a quoted attribute.

    Args:
        text: The text, or something that has one.

    Example:
        >>> escape("<b title='x'>")
        '&lt;b title=&#x27;x&#x27;&gt;'
    """
    return html.escape(replace_controls(replace_surrogates(str(text))))


def flag(text: str, colour: str) -> str:
    """Return a short text in a coloured frame.

    Args:
        text: The text.
        colour: The name of its colour in `ors_gym.display._style`.
    """
    return f'<span class="ors-pill ors-{colour}">{escape(text)}</span>'


def preformatted(text: str, kind: str = "") -> str:
    """Return a text as it is written; long text is folded, very long text cut.

    Args:
        text: The text.
        kind: Another class for it: ``ors-call`` or ``ors-failed``.
    """
    classes = f"ors-text {kind}".rstrip()
    lines = text.count("\n") + 1
    whole = f'<pre class="{classes}" dir="auto">{escape(_cut(text))}</pre>'
    if len(text) <= _FOLDED_CHARACTERS and lines <= _FOLDED_LINES:
        return whole
    peek = "\n".join(text[:_PEEK_CHARACTERS].split("\n")[:_PEEK_LINES])
    return (
        f'<details><summary><pre class="{classes} ors-peek" dir="auto">'
        f'{escape(peek)} …</pre><span class="ors-more">'
        f"all {lines:,} lines, {len(text):,} characters</span></summary>"
        f"{whole}</details>"
    )


def _cut(text: str) -> str:
    if len(text) <= _MOST_CHARACTERS:
        return text
    end = _MOST_CHARACTERS // 4
    left_out = len(text) - _MOST_CHARACTERS
    return f"{text[: 3 * end]}\n… {left_out:,} characters …\n{text[-end:]}"


def show_blocks(blocks: Iterable[Block], allowance: Allowance, kind: str = "") -> str:
    """Return blocks as texts and pictures.

    Args:
        blocks: A prompt, or the blocks of a tool's output.
        allowance: What the card may still hold.
        kind: Another class for the texts.
    """
    parts: list[str] = []
    texts: list[str] = []
    for block in blocks:
        picture = _picture(block, allowance)
        if picture is None:
            texts.append(describe_block(block))
            continue
        parts += [*_joined(texts, kind), picture]
        texts = []
    parts += _joined(texts, kind)
    return f'<div class="ors-blocks">{"".join(parts)}</div>' if parts else ""


def _joined(texts: Sequence[str], kind: str) -> list[str]:
    if not texts:
        return []
    return [
        f'<div class="ors-words">{preformatted(_SEPARATOR.join(texts), kind)}</div>'
    ]


def _picture(block: Block, allowance: Allowance) -> str | None:
    """Return an image as an element that holds it; None if it is not to be shown."""
    data, media_type = block.get("data"), block.get("mimeType")
    if block.get("type") != "image" or not isinstance(data, str):
        return None
    if not isinstance(media_type, str) or media_type not in _IMAGE_TYPES:
        return None
    # Some writers break it into lines. Blanks in the pattern would cost their square.
    data = "".join(data.split())
    if not _BASE64.fullmatch(data):
        return None
    size = read_image_size(data)
    if size is None or size[0] * size[1] > _MOST_PIXELS:
        return None
    if not allowance.take(len(data)):
        return None
    width, height = size
    factor = max(min(_ENLARGED_TO // max(size), _MOST_ENLARGED), 1)
    classes = "ors-image ors-pixels" if factor > 1 else "ors-image"
    return (
        f'<img class="{classes}" alt="{escape(describe_block(block))}" '
        f'width="{width * factor}" height="{height * factor}" '
        f'src="data:{media_type};base64,{data}">'
    )


def card(title: str, parts: Iterable[str], facts: Iterable[str] = ()) -> str:
    """Return a card.

    Args:
        title: Its title, a text.
        parts: What it holds, as HTML.
        facts: What stands beside the title, as HTML.

    Returns:
        One element. Formulas in it are text: MathJax is told to leave it alone.
    """
    head = "".join(facts)
    return (
        f'<div class="ors-card mathjax_ignore tex2jax_ignore">{STYLE}'
        f'<div class="ors-head"><span class="ors-title">{escape(title)}</span>{head}'
        f"</div>{''.join(parts)}</div>"
    )


def message_card(text: str, colour: str = "text-colour") -> str:
    """Return a card of one short text.

    Args:
        text: The text.
        colour: The name of its colour: ``bad``, ``warn``, ``muted``, ...
    """
    return (
        f'<div class="ors-card mathjax_ignore tex2jax_ignore">{STYLE}'
        f'<span class="ors-{escape(colour)}">{escape(text)}</span></div>'
    )


_FIRST: Final = 40
_LAST: Final = 60
_OPEN: Final = 8
"""An episode of more parts than this has the middle ones folded."""
_OPEN_FIRST: Final = 3
_OPEN_LAST: Final = 2
_MOST_CALL: Final = 90


class Fact(NamedTuple):
    """Something said beside a card's title."""

    text: str
    colour: str = "muted"
    """The name of its colour; any but ``muted`` puts a frame around it."""


def reward_fact(total: float) -> Fact:
    """Return what is said of the reward so far.

    Args:
        total: The reward.

    Example:
        >>> reward_fact(0.5)
        Fact(text='reward 0.5', colour='good')
    """
    colour = reward_colour(total) if total else "text-colour"
    return Fact(f"reward {total:g}", colour)


def conversation_card(
    title: str, entries: Sequence[Entry], facts: Iterable[Fact | None] = ()
) -> str:
    """Return an episode as a card.

    Args:
        title: What was played.
        entries: Its prompt and its steps; of very many the first and the last are
            shown.
        facts: What is said beside the title; None is left out.

    Example:
        >>> "What is 2 + 2?" in conversation_card("math", [Entry("What is 2 + 2?")])
        True
    """
    allowance = Allowance()
    shown = [
        _fact(fact) if fact.colour == "muted" else flag(*fact) for fact in facts if fact
    ]
    parts = []
    hidden = max(len(entries) - _FIRST - _LAST, 0)
    for number, entry in enumerate(entries):
        if _FIRST <= number < _FIRST + hidden:
            if number == _FIRST:
                parts.append(f'<div class="ors-part">{hidden:,} steps in between</div>')
            continue
        inside = _OPEN_FIRST <= number < len(entries) - _OPEN_LAST
        folded = inside and len(entries) > _OPEN
        parts.append(_part(entry, number, allowance, folded=folded))
    return card(title, parts, shown)


def _fact(fact: Fact) -> str:
    return f'<span class="ors-muted">{escape(fact.text)}</span>'


def _part(entry: Entry, number: int, allowance: Allowance, *, folded: bool) -> str:
    kind = "ors-failed" if entry.failed else ""
    blocks = entry.blocks
    if entry.text and not blocks:
        blocks = [{"type": "text", "text": entry.text}]
    said = preformatted(entry.said, "ors-said") if entry.said else ""
    call = preformatted(entry.call, "ors-call") if entry.call else ""
    body = f"{said}{call}{show_blocks(blocks, allowance, kind)}"
    label = f"step {number}" if entry.call else "policy" if number else "prompt"
    head = f'<span class="ors-label">{label}</span>'
    flags = _flags(entry)
    if folded:
        short = entry.call if len(entry.call) <= _MOST_CALL else entry.call[:_MOST_CALL]
        line = f'<span class="ors-peek ors-accent">{escape(short)}</span>'
        row = f'<summary class="ors-row">{head}{line}{flags}</summary>'
        body = f"<details>{row}{body}</details>"
    else:
        body = f'<div class="ors-row">{head}{flags}</div>{body}'
    return f'<div class="ors-part ors-edge-{entry.mood}">{body}</div>'


def _flags(entry: Entry) -> str:
    if not entry.call:
        return ""
    if entry.note == NOT_RUN:
        return flag(NOT_RUN, "muted")
    flags = flag(f"reward {entry.reward:g}", entry.mood)
    if entry.note:
        flags += flag(entry.note, "accent" if entry.note == "finished" else "bad")
    return flags


_MOST_TASKS: Final = 50


def tools_card(tools: Sequence[ToolSpec], title: str = "") -> str:
    """Return tools as a card.

    Args:
        tools: Tools as a server lists them.
        title: The card's title; how many there are if empty.

    Example:
        >>> "look" in tools_card([{"name": "look", "description": "See."}])
        True
    """
    many = f"{len(tools)} tool" + ("" if len(tools) == 1 else "s")
    return card(title or many, tool_parts(tools))


def tool_parts(tools: Sequence[ToolSpec]) -> Iterator[str]:
    """Yield each tool's part of a card.

    Args:
        tools: Tools as a server lists them.
    """
    for tool in tools:
        schema = tool.get("input_schema")
        fields = "".join(_fields(schema))
        whole = _whole(schema) if fields else ""
        yield (
            f'<div class="ors-part ors-edge-accent">'
            f'<pre class="ors-text ors-call">{escape(tool.get("name", ""))}</pre>'
            f"{_description(tool.get('description'))}"
            f'<div class="ors-fields">{fields}</div>{whole}</div>'
        )


def _description(text: Any) -> str:
    return preformatted(str(text).strip()) if text else ""


def _fields(schema: Any) -> Iterator[str]:
    properties = schema.get("properties") if isinstance(schema, Mapping) else None
    if not isinstance(properties, Mapping) or not properties:
        return
    required = schema.get("required")
    needed = required if isinstance(required, list) else []
    for name, field in properties.items():
        words = describe_schema(field, schema)
        if name not in needed:
            words += ", optional"
        description = field.get("description") if isinstance(field, Mapping) else None
        said = f"<div>{escape(description)}</div>" if description else ""
        yield (
            f'<div class="ors-text-colour"><b>{escape(name)}</b></div>'
            f'<div><span class="ors-muted">{escape(words)}</span>{said}</div>'
        )


def _whole(schema: Any) -> str:
    text = json.dumps(schema, indent=2, ensure_ascii=False, default=str)
    return (
        '<details><summary class="ors-more">schema</summary>'
        f'<pre class="ors-text">{escape(text)}</pre></details>'
    )


def tasks_card(tasks: Sequence[JSONObject], title: str = "") -> str:
    """Return tasks as a card, the first of very many.

    Args:
        tasks: Task specs. They usually hold the answers.
        title: The card's title; how many there are if empty.
    """
    parts = [
        f'<div class="ors-part"><div class="ors-label">task {number}</div>'
        f"{_pairs(task)}</div>"
        for number, task in enumerate(tasks[:_MOST_TASKS])
    ]
    if len(tasks) > _MOST_TASKS:
        more = len(tasks) - _MOST_TASKS
        parts.append(f'<div class="ors-part ors-muted">{more:,} more</div>')
    many = f"{len(tasks):,} task" + ("" if len(tasks) == 1 else "s")
    return card(title or many, parts)


def _pairs(task: Any) -> str:
    if not isinstance(task, Mapping):
        return preformatted(_json(task))
    pairs = "".join(
        f'<div class="ors-muted">{escape(name)}</div><div>'
        f"{preformatted(value if isinstance(value, str) else _json(value))}</div>"
        for name, value in task.items()
    )
    return f'<div class="ors-fields">{pairs}</div>'


def prompt_card(prompt: Sequence[JSONObject], title: str = "prompt") -> str:
    """Return a prompt as a card.

    Args:
        prompt: Blocks, or messages with roles (``{"role", "blocks"}``).
        title: The card's title.
    """
    allowance = Allowance()
    if not any("role" in part for part in prompt):
        inside = show_blocks(prompt, allowance)
        return card(title, [f'<div class="ors-part ors-edge-accent">{inside}</div>'])
    return card(title, (_message(message, allowance) for message in prompt))


def _message(message: JSONObject, allowance: Allowance) -> str:
    blocks = message.get("blocks", message.get("content"))
    parts = blocks if isinstance(blocks, list) else [blocks] if blocks else []
    known = [
        part if isinstance(part, dict) else {"type": "text", "text": str(part)}
        for part in parts
    ]
    inside = show_blocks(known, allowance)
    calls = message.get("tool_calls")
    if calls:
        inside += preformatted(_json(calls), "ors-call")
    return (
        f'<div class="ors-part ors-edge-accent"><div class="ors-label">'
        f"{escape(message.get('role', ''))}</div>{inside}</div>"
    )


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, default=str)
