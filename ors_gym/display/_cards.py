"""Every card that a notebook shows: episodes, envs, tools, tasks and prompts.

A new card is a function here that builds on `ors_gym.display._html`, and a case of
`choose_card` if `ors_gym.show` is to make it.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

import gymnasium
from gymnasium.vector import VectorEnv

from ors_gym.display._html import (
    Fact,
    ImageBudget,
    card,
    compact_json,
    escape,
    flag,
    message_card,
    preformatted,
    reward_fact,
    show_blocks,
)
from ors_gym.display._transcript import NOT_RUN, Entry, write_call
from ors_gym.env import ORSEnv
from ors_gym.formats._blocks import render_text
from ors_gym.formats._schemas import bundle_schema, describe_schema, list_arguments
from ors_gym.rollout import Episode, Step, Turn
from ors_gym.rollout._episode import (
    assistant_blocks,
    is_recorded_call,
    turns_with_steps,
)
from ors_gym.types import JSONObject, ToolSpec
from ors_gym.vector import ORSVectorEnv

_MOST_TASKS: Final = 50
_MOST_ARGUMENTS: Final = 100
_MOST_SCHEMA: Final = 50_000
"""Characters of a schema that a card holds."""

# An episode of very many steps shows its first and its last.
_FIRST: Final = 40
_LAST: Final = 60
# An episode of more than _OPEN parts has those in the middle folded.
_OPEN: Final = 8
_OPEN_FIRST: Final = 3
_OPEN_LAST: Final = 2
_MOST_CALL: Final = 90
"""Characters of a call that a folded step shows."""


def choose_card(value: Any, title: str = "") -> tuple[str, str]:
    """Return the card of any value, and the text for where HTML is not shown."""
    own = getattr(type(value), "_repr_html_", None)
    if own is not None:
        return own(value), str(value)
    if isinstance(value, gymnasium.Env | VectorEnv):
        return env_card(value) or message_card(str(value)), str(value)
    if isinstance(value, Mapping):
        if "type" in value or "role" in value or "input_schema" in value:
            return choose_card([value], title)
        return tasks_card([dict(value)], title or "1 task"), _indented_json(value)
    if _is_list_of_objects(value):
        return _choose_list_card(value, title)
    text = _indented_json(value)
    plain = f'<pre class="ors-text">{escape(text)}</pre>'
    return card(title or type(value).__name__, [plain]), text


def _is_list_of_objects(value: Any) -> bool:
    if not isinstance(value, Sequence) or isinstance(value, str | bytes):
        return False
    return bool(value) and all(isinstance(item, dict) for item in value)


def _choose_list_card(values: Sequence[Any], title: str) -> tuple[str, str]:
    """Tell tools, messages, blocks and tasks apart by the keys that each has."""
    if all("name" in value and "input_schema" in value for value in values):
        lines = [f"{tool['name']}: {tool.get('description', '')}" for tool in values]
        return tools_card(values, title), "\n".join(lines)
    if all("role" in value for value in values):
        return prompt_card(values, title or "messages"), _indented_json(values)
    if all(isinstance(value.get("type"), str) for value in values):
        return prompt_card(values, title or "prompt"), render_text(values)
    return tasks_card(values, title), _indented_json(values)


def _indented_json(value: Any, most: int | None = None) -> str:
    """Write JSON, cut after a number of characters."""
    encoder = json.JSONEncoder(indent=2, ensure_ascii=False, default=str)
    if most is None:
        return encoder.encode(value)
    written = 0
    parts = []
    for part in encoder.iterencode(value):
        parts.append(part)
        written += len(part)
        if written > most:
            return "".join(parts)[:most] + "\n… cut"
    return "".join(parts)


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}" + ("" if number == 1 else "s")


def episode_card(episode: Episode, budget: ImageBudget | None = None) -> str:
    """Return an episode as a card, also one that is not over."""
    split = f" of {episode.split}" if episode.split else ""
    total, reason, error = episode.total_reward, episode.stop_reason, episode.error
    outages = [attempt.kind for attempt in episode.attempts]
    facts = [
        Fact(f"task {episode.task_index}{split}") if episode.task_index >= 0 else None,
        Fact(_count(len(episode.steps), "step")),
        Fact(f"{episode.seconds:.2f} s") if episode.seconds else None,
        Fact("no outcome", "bad") if total is None else reward_fact(total),
        Fact(reason, "bad" if reason == "error" else "accent") if reason else None,
        Fact(f"{episode.error_kind}: {error}", "bad") if error else None,
        Fact(f"played again after {', '.join(outages)}", "warn") if outages else None,
    ]
    entries = list(episode_entries(episode))
    return conversation_card(episode.environment, entries, facts, budget)


def episode_entries(episode: Episode) -> Iterator[Entry]:
    """Yield the prompt, steps, words beside no call, and calls that were not run."""
    yield Entry(render_text(episode.prompt), episode.prompt)
    for turn, steps in turns_with_steps(episode):
        said = _words_of(turn)
        for step in steps:
            yield step_entry(step, said)
            said = ""
        if said:
            yield Entry("", said=said)
        for action in turn.actions[len(steps) :]:
            if is_recorded_call(action):
                call = write_call(action["tool"], action["input"])
                yield Entry("", call=call, note=NOT_RUN)


def step_entry(step: Step, said: str = "") -> Entry:
    """Return a step of an `Episode` as a transcript has it."""
    return Entry.of_step(
        step.tool,
        step.input,
        render_text(step.reply),
        step.reward,
        error_kind=step.error_kind,
        finished=step.finished,
        truncated=step.truncated,
        blocks=step.reply,
        said=said,
    )


def _words_of(turn: Turn) -> str:
    """Return what the policy said beside its calls."""
    blocks: list[Any] = assistant_blocks(turn)
    return render_text([block for block in blocks if block["type"] == "text"])


def env_card(env: Any) -> str | None:
    """Return an ORS env, in wrappers or not, as a card; None for another env.

    The card shows the episode so far and the tools. The server is asked for nothing.
    """
    inner = env.unwrapped
    if isinstance(inner, ORSVectorEnv):
        return _vector_env_card(inner)
    return _single_env_card(inner) if isinstance(inner, ORSEnv) else None


def _single_env_card(env: ORSEnv) -> str:
    address = Fact(env.base_url)
    transcript = env.transcript
    if transcript is None or not transcript.entries:
        hint = (
            'to see its episode here, make it with render_mode="ansi"'
            if transcript is None
            else "not reset yet"
        )
        shown = card(env.environment, _tool_parts(env.tools), [address])
        return shown + message_card(hint, "muted")
    facts = [address, Fact(transcript.task), reward_fact(transcript.total)]
    shown = conversation_card(env.environment, transcript.entries, facts)
    return shown + tools_card(env.tools)


def _vector_env_card(envs: ORSVectorEnv) -> str:
    name, address, tools = (
        envs.get_attr(attribute)[0]
        for attribute in ("environment", "base_url", "tools")
    )
    mode = envs.metadata["autoreset_mode"].value
    facts = [Fact(address), Fact(f"{envs.num_envs} envs"), Fact(f"autoreset {mode}")]
    return card(name, _tool_parts(tools), facts)


def conversation_card(
    title: str,
    entries: Sequence[Entry],
    facts: Iterable[Fact | None] = (),
    budget: ImageBudget | None = None,
) -> str:
    """Return a prompt and steps as a card; of very many, the first and the last.

    ``budget`` limits the pictures; several cards may share one.

    Example:
        >>> "What is 2 + 2?" in conversation_card("math", [Entry("What is 2 + 2?")])
        True
    """
    budget = budget or ImageBudget()
    parts = []
    hidden = max(len(entries) - _FIRST - _LAST, 0)
    for number, entry in enumerate(entries):
        if _FIRST <= number < _FIRST + hidden:
            if number == _FIRST:
                parts.append(f'<div class="ors-part">{hidden:,} steps in between</div>')
            continue
        inside = _OPEN_FIRST <= number < len(entries) - _OPEN_LAST
        folded = inside and len(entries) > _OPEN
        parts.append(_entry_part(entry, number, budget, folded=folded))
    return card(title, parts, facts)


def _entry_part(entry: Entry, number: int, budget: ImageBudget, *, folded: bool) -> str:
    blocks = entry.blocks
    if entry.text and not blocks:
        blocks = [{"type": "text", "text": entry.text}]
    said = preformatted(entry.said, "ors-said") if entry.said else ""
    call = preformatted(entry.call, "ors-call") if entry.call else ""
    shown = show_blocks(blocks, budget, "ors-failed" if entry.failed else "")
    label = f"step {number}" if entry.call else "policy" if number else "prompt"
    head = f'<span class="ors-label">{label}</span>'
    if folded:
        short = escape(entry.call[:_MOST_CALL])
        head += f'<span class="ors-peek ors-accent">{short}</span>'
    head += _flags(entry)
    body = (
        f'<details><summary class="ors-row">{head}</summary>{said}{call}{shown}'
        "</details>"
        if folded
        else f'<div class="ors-row">{head}</div>{said}{call}{shown}'
    )
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


def tools_card(tools: Sequence[ToolSpec], title: str = "") -> str:
    """Return tools as a server lists them as a card.

    Example:
        >>> "look" in tools_card([{"name": "look", "description": "See."}])
        True
    """
    return card(title or _count(len(tools), "tool"), _tool_parts(tools))


def _tool_parts(tools: Sequence[ToolSpec]) -> Iterator[str]:
    for tool in tools:
        schema, about = tool.get("input_schema"), tool.get("description")
        ending = " (terminal)" if "terminal" in tool else ""
        name = f"{tool.get('name', '')}{ending}"
        arguments = "".join(_argument_rows(schema))
        yield (
            '<div class="ors-part ors-edge-accent">'
            f'<pre class="ors-text ors-call">{escape(name)}</pre>'
            f"{preformatted(str(about).strip()) if about else ''}"
            f'<div class="ors-fields">{arguments}</div>'
            f"{_folded_schema(schema) if arguments else ''}</div>"
        )


def _argument_rows(schema: Any) -> Iterator[str]:
    root = bundle_schema(schema)
    properties, needed = list_arguments(root)
    for name, field in itertools.islice(properties.items(), _MOST_ARGUMENTS):
        words = describe_schema(field, root)
        if name not in needed:
            words += ", optional"
        description = field.get("description") if isinstance(field, Mapping) else None
        said = f"<div>{escape(description)}</div>" if description else ""
        yield (
            f'<div class="ors-text-colour"><b>{escape(name)}</b></div>'
            f'<div><span class="ors-muted">{escape(words)}</span>{said}</div>'
        )
    if len(properties) > _MOST_ARGUMENTS:
        more = len(properties) - _MOST_ARGUMENTS
        yield f'<div class="ors-muted">{more:,} more</div>'


def _folded_schema(schema: Any) -> str:
    return (
        '<details><summary class="ors-more">schema</summary>'
        f'<pre class="ors-text">{escape(_indented_json(schema, _MOST_SCHEMA))}</pre>'
        "</details>"
    )


def tasks_card(tasks: Sequence[JSONObject], title: str = "") -> str:
    """Return a card of the first tasks. Task specs usually hold the answers."""
    parts = [
        f'<div class="ors-part"><div class="ors-label">task {number}</div>'
        f"{_task_rows(task)}</div>"
        for number, task in enumerate(tasks[:_MOST_TASKS])
    ]
    if len(tasks) > _MOST_TASKS:
        more = len(tasks) - _MOST_TASKS
        parts.append(f'<div class="ors-part ors-muted">{more:,} more</div>')
    return card(title or _count(len(tasks), "task"), parts)


def _task_rows(task: Any) -> str:
    if not isinstance(task, Mapping):
        return preformatted(compact_json(task))
    rows = "".join(
        f'<div class="ors-muted">{escape(name)}</div><div>'
        f"{preformatted(value if isinstance(value, str) else compact_json(value))}"
        "</div>"
        for name, value in task.items()
    )
    return f'<div class="ors-fields">{rows}</div>'


def prompt_card(prompt: Sequence[JSONObject], title: str = "prompt") -> str:
    """Return blocks, or messages with roles (``{"role", "blocks"}``), as a card."""
    budget = ImageBudget()
    if not any("role" in part for part in prompt):
        inside = show_blocks(prompt, budget)
        return card(title, [f'<div class="ors-part ors-edge-accent">{inside}</div>'])
    return card(title, (_message_part(message, budget) for message in prompt))


def _message_part(message: JSONObject, budget: ImageBudget) -> str:
    content = message.get("blocks", message.get("content"))
    parts = content if isinstance(content, list) else [content] if content else []
    blocks = [
        part if isinstance(part, dict) else {"type": "text", "text": str(part)}
        for part in parts
    ]
    inside = show_blocks(blocks, budget)
    if calls := message.get("tool_calls"):
        inside += preformatted(compact_json(calls), "ors-call")
    return (
        '<div class="ors-part ors-edge-accent"><div class="ors-label">'
        f"{escape(message.get('role', ''))}</div>{inside}</div>"
    )
