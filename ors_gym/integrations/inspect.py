"""Messages and tools as Inspect AI has them, for `ors_gym.integrations.inspect`."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

from ors_gym.client import AsyncORSClient
from ors_gym.errors import InvalidRequestError, needs_extra
from ors_gym.formats import to_openai_tools
from ors_gym.formats._schemas import find_reference
from ors_gym.integrations._task_indexes import choose_indexes
from ors_gym.rollout._live import LiveEpisode, connect
from ors_gym.types import JSONObject, ToolSpec

__all__ = [
    "from_inspect",
    "ors_dataset",
    "ors_scorer",
    "ors_solver",
    "ors_task",
    "to_inspect",
    "tool_infos",
]

with needs_extra("inspect", "ors_gym.integrations.inspect"):
    from inspect_ai.model import (
        ChatMessage,
        ChatMessageAssistant,
        ChatMessageSystem,
        ChatMessageTool,
        ChatMessageUser,
        Content,
        ContentImage,
        ContentText,
    )
    from inspect_ai.tool import ToolCall, ToolInfo, ToolParams
    from inspect_ai.util import JSONSchema
    from pydantic import ValidationError


_MAX_DEPTH: Final = 12
"""References within references that are followed, since they may be recursive."""
_PARTS: Final = ("anyOf", "oneOf", "allOf")


def tool_infos(tools: Iterable[ToolSpec]) -> list[ToolInfo]:
    """Return tools for Inspect's models.

    Args:
        tools: The tools as the server lists them.

    Returns:
        Their names, descriptions and parameters. What Inspect has no word for is left
        out: the server checks what comes.
    """
    infos = []
    for tool in to_openai_tools(tools):
        function = tool["function"]
        root = function["parameters"]
        others = root.get("additionalProperties", True)
        parameters = ToolParams(
            properties={
                name: _schema(part, root) for name, part in root["properties"].items()
            },
            required=[
                name for name in root.get("required", ()) if isinstance(name, str)
            ],
            additionalProperties=others if isinstance(others, bool) else True,
        )
        described = function["description"] or function["name"]
        infos.append(
            ToolInfo(
                name=function["name"], description=described, parameters=parameters
            )
        )
    return infos


def _schema(part: Any, root: JSONObject) -> JSONSchema:
    try:
        return JSONSchema.model_validate(_plain(part, root, 0))
    except ValidationError:
        # Of a kind that Inspect does not know; the model is shown it as it is.
        return JSONSchema(description=json.dumps(part))


def _plain(part: Any, root: JSONObject, depth: int) -> Any:
    """Write a schema without references, ``oneOf``, ``allOf`` and ``const``."""
    if not isinstance(part, Mapping) or depth > _MAX_DEPTH:
        return {}
    plain = {name: value for name, value in part.items() if name not in _PARTS}
    if "const" in plain:
        plain["enum"] = [plain.pop("const")]
    for name in ("items", "additionalProperties"):
        if isinstance(plain.get(name), Mapping):
            plain[name] = _plain(plain[name], root, depth + 1)
    if isinstance(plain.get("properties"), Mapping):
        inner = plain["properties"].items()
        plain["properties"] = {k: _plain(v, root, depth + 1) for k, v in inner}
    choices = [*_listed(part, "anyOf"), *_listed(part, "oneOf")]
    if choices:
        plain["anyOf"] = [_plain(choice, root, depth + 1) for choice in choices]
    for base in _listed(part, "allOf"):
        plain = {**_plain(base, root, depth + 1), **plain}
    reference = plain.pop("$ref", None)
    if isinstance(reference, str):
        plain = {**_plain(find_reference(reference, root), root, depth + 1), **plain}
    return plain


def _listed(part: Mapping[str, Any], name: str) -> list[Any]:
    value = part.get(name)
    return value if isinstance(value, list) else []


def to_inspect(message: JSONObject) -> ChatMessage:
    """Return a chat message as Inspect has it.

    Args:
        message: A message of ``Episode.messages()``.

    Returns:
        The message.
    """
    role, content = message["role"], _content(message.get("content"))
    if role == "tool":
        return ChatMessageTool(content=content, tool_call_id=message["tool_call_id"])
    if role == "system":
        return ChatMessageSystem(content=content)
    if role == "user":
        return ChatMessageUser(content=content)
    calls = [_to_call(call) for call in message.get("tool_calls") or ()]
    return ChatMessageAssistant(content=content, tool_calls=calls or None)


def _content(content: Any) -> str | list[Content]:
    if content is None or isinstance(content, str):
        return content or ""
    return [
        ContentImage(image=part["image_url"]["url"])
        if part["type"] == "image_url"
        else ContentText(text=part["text"])
        for part in content
    ]


def _to_call(call: JSONObject) -> ToolCall:
    function = call["function"]
    given = json.loads(function["arguments"])
    return ToolCall(id=call["id"], function=function["name"], arguments=given)


def from_inspect(message: ChatMessageAssistant) -> JSONObject:
    """Return a model's message as one of OpenAI's chat completions.

    Args:
        message: What the model said.

    Returns:
        The message. Arguments that Inspect could not read are passed on as what it
        says of them, which is no JSON, so that they are an invalid action here too.
    """
    calls = [
        {
            "id": call.id,
            "type": "function",
            "function": {
                "name": call.function,
                "arguments": call.parse_error or json.dumps(call.arguments),
            },
        }
        for call in message.tool_calls or ()
    ]
    said: JSONObject = {"role": "assistant", "content": message.text}
    return {**said, "tool_calls": calls} if calls else said


with needs_extra("inspect", "ors_gym.integrations.inspect"):
    from inspect_ai import Task, task
    from inspect_ai.dataset import MemoryDataset, Sample
    from inspect_ai.model import GenerateConfig, get_model
    from inspect_ai.scorer import Score, Scorer, Target, mean, scorer, stderr
    from inspect_ai.solver import Generate, Solver, TaskState, solver


_OUTCOME: Final = "ors_gym:outcome"
_LOGGED: Final = frozenset({"api_key", "client_options", "headers"})
_CONTEXT_FULL: Final = "model_length"


def ors_dataset(
    env_name: str,
    base_url: str | None = None,
    *,
    split: str | None = None,
    tasks: Iterable[int] | None = None,
    client_factory: Callable[[], AsyncORSClient] | None = None,
) -> MemoryDataset:
    """List an environment's tasks as samples, without what they hold.

    Args:
        env_name: The environment's name on the server.
        base_url: The server's address, as for `ORSEnv`.
        split: The split; ``train`` if None and there is one, else the only one.
        tasks: Indexes; None for the whole split.
        client_factory: Makes the client, where more than an address is needed.

    Returns:
        One sample for each task; its id is the task's index.

    Raises:
        UnknownTaskError: If there is no such split.
    """
    chosen, tasks = choose_indexes(env_name, base_url, client_factory, split, tasks)
    samples = [
        Sample(
            # The prompt is the session's, so the solver asks for it.
            input=f"Task {index} of the split {chosen!r} of {env_name!r}.",
            id=index,
            metadata={"env_name": env_name, "split": chosen, "task_index": index},
        )
        for index in tasks
    ]
    return MemoryDataset(samples, name=f"{env_name}/{chosen}", location=base_url)


@solver  # type: ignore[untyped-decorator]
def ors_solver(
    base_url: str | None = None,
    *,
    system_prompt: str | None = None,
    secrets: Callable[[], Mapping[str, str]] | None = None,
    client_factory: Callable[[], AsyncORSClient] | None = None,
    **arguments: Any,
) -> Solver:
    """Play a sample of `ors_dataset` as an episode.

    The tools are the session's. The episode ends as every rollout does; Inspect's own
    limits end it too, and it keeps what it has earned. An outage fails the sample, so
    that it is neither scored nor told to the model: see ``retry_on_error`` of `eval`.

    Args:
        base_url: The server's address, as for `ORSEnv`.
        system_prompt: A message that comes before the environment's own.
        secrets: Returns the secrets of the environment.
        client_factory: Makes the client, where more than an address is needed.
        **arguments: What `LiveEpisode` takes: ``max_turns``, ``on_plain_text``,
            ``reward_reduction``, ``call_timeout``, ...

    Returns:
        The solver.

    Raises:
        InvalidRequestError: If an argument is secret: Inspect writes it to its logs.
    """
    _refuse_secrets(secrets, arguments)

    async def solve(state: TaskState, _: Generate) -> TaskState:
        given = dict(arguments)
        if secrets is not None:
            given["secrets"] = secrets()
        where = state.metadata
        async with (
            _connect(base_url, client_factory) as client,
            LiveEpisode(
                client,
                where["env_name"],
                where["task_index"],
                split=where["split"],
                **given,
            ) as live,
        ):
            opening = await live.start()
            if system_prompt is not None:
                opening = [{"role": "system", "content": system_prompt}, *opening]
            state.messages = [to_inspect(message) for message in opening]
            try:
                await _play(state, live)
            finally:
                # Also where a limit of Inspect's ends it, which raises.
                if live.stop() is not None:
                    state.store.set(_OUTCOME, _outcome_of(live))
        return state

    return solve


async def _play(state: TaskState, live: LiveEpisode) -> None:
    tools = tool_infos(live.episode.tools)
    while not live.ended:
        state.output = await get_model().generate(
            state.messages, tools=tools, config=GenerateConfig()
        )
        if state.output.stop_reason == _CONTEXT_FULL:
            live.stop()
            return
        state.messages.append(state.output.message)
        told = await live.take(from_inspect(state.output.message))
        state.messages.extend(to_inspect(message) for message in told)


def _outcome_of(live: LiveEpisode) -> dict[str, Any]:
    episode = live.episode
    return {
        "reward": episode.total_reward,
        "stop_reason": episode.stop_reason,
        "metrics": episode.metrics(),
    }


@scorer(metrics=[mean(), stderr()])  # type: ignore[untyped-decorator]
def ors_scorer() -> Scorer:
    """Score a sample by its episode's reward, as the server paid it.

    Returns:
        The scorer. A sample without a reward, because of an outage, stays unscored.
    """

    async def score(state: TaskState, _: Target) -> Score:
        outcome = state.store.get(_OUTCOME)
        if outcome is None:
            return Score.unscored(explanation="the episode has no reward: an outage")
        return Score(
            value=outcome["reward"],
            answer=state.output.completion,
            explanation=outcome["stop_reason"],
            metadata=outcome["metrics"],
        )

    return score


@task  # type: ignore[untyped-decorator]
def ors_task(
    env_name: str,
    base_url: str | None = None,
    *,
    split: str | None = None,
    tasks: Iterable[int] | None = None,
    secrets: Callable[[], Mapping[str, str]] | None = None,
    client_factory: Callable[[], AsyncORSClient] | None = None,
    **arguments: Any,
) -> Task:
    """Return an environment as a task of Inspect.

    Args:
        env_name: As for `ors_dataset`.
        base_url: As for `ors_dataset`.
        split: As for `ors_dataset`.
        tasks: As for `ors_dataset`.
        secrets: As for `ors_solver`.
        client_factory: As for both.
        **arguments: As for `ors_solver`.
    """
    return Task(
        dataset=ors_dataset(
            env_name, base_url, split=split, tasks=tasks, client_factory=client_factory
        ),
        solver=ors_solver(
            base_url, secrets=secrets, client_factory=client_factory, **arguments
        ),
        scorer=ors_scorer(),
        name=f"ors_{env_name}",
    )


def _connect(
    base_url: str | None, client_factory: Callable[[], AsyncORSClient] | None
) -> AsyncORSClient:
    return client_factory() if client_factory is not None else connect(base_url)


def _refuse_secrets(secrets: Any, arguments: Mapping[str, Any]) -> None:
    shown = sorted(_LOGGED & arguments.keys())
    if secrets is not None and not callable(secrets):
        shown.append("secrets")
    if shown:
        raise InvalidRequestError(
            f"{', '.join(shown)} would be written to Inspect's logs; set ORS_API_KEY, "
            "or pass functions: secrets=, which returns the secrets, and "
            "client_factory=, which makes the client"
        )
