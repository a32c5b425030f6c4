"""Inspect AI: an environment as a task, its episodes as samples, its reward as score.

The model's calls go through Inspect, with its limits and its logs; the tools run on the
ORS server. The second half of this module translates messages and tools.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

from ors_gym.errors import InvalidRequestError, needs_extra
from ors_gym.formats import to_openai_tools
from ors_gym.formats._messages import called_names, join_system_messages
from ors_gym.formats._schemas import find_reference, list_of
from ors_gym.integrations import (
    EPISODE_SECRETS,
    ClientFactory,
    choose_indexes,
    make_client,
)
from ors_gym.rollout._live_episode import LiveEpisode
from ors_gym.types import JSONObject, ToolSpec

__all__ = ["ors_dataset", "ors_scorer", "ors_solver", "ors_task"]

with needs_extra("inspect", "ors_gym.integrations.inspect"):
    from inspect_ai import Task, task
    from inspect_ai.dataset import MemoryDataset, Sample
    from inspect_ai.model import (
        ChatMessage,
        ChatMessageAssistant,
        ChatMessageSystem,
        ChatMessageTool,
        ChatMessageUser,
        Content,
        ContentImage,
        ContentReasoning,
        ContentText,
        GenerateConfig,
        get_model,
    )
    from inspect_ai.scorer import Score, Scorer, Target, mean, scorer, stderr
    from inspect_ai.solver import Generate, Solver, TaskState, solver
    from inspect_ai.tool import ToolCall, ToolInfo, ToolParams
    from inspect_ai.util import JSONSchema
    from pydantic import ValidationError

# Where the solver leaves an episode's outcome for the scorer.
_OUTCOME: Final = "ors_gym:outcome"
_CONTEXT_FULL: Final = "model_length"

# How deep a schema is written out.
_MAX_DEPTH: Final = 12
# How many parts of an argument's schema are written out. Each reference is written out
# anew, so a short schema may have any number of them.
_MOST_PARTS: Final = 5000
_PARTS: Final = ("anyOf", "oneOf", "allOf")


@task  # type: ignore[untyped-decorator]
def ors_task(
    env_name: str,
    base_url: str | None = None,
    *,
    split: str | None = None,
    tasks: Iterable[int] | None = None,
    secrets: Callable[[], Mapping[str, str]] | None = None,
    client_factory: ClientFactory | None = None,
    **arguments: Any,
) -> Task:
    """Make an environment a task of Inspect.

    Args:
        env_name: The environment's name on the server.
        base_url: The server's address, as for `ORSEnv`.
        split: The split; ``train`` if None and there is one, else the only one.
        tasks: Indexes; None for the whole split.
        secrets: Returns the secrets of the environment.
        client_factory: Makes the client, where more than an address is needed.
        **arguments: Those of `LiveEpisode`, as for `ors_solver`.

    Example:
        >>> [sample.id for sample in ors_task("math", tasks=range(3)).dataset]
        [0, 1, 2]
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


def ors_dataset(
    env_name: str,
    base_url: str | None = None,
    *,
    split: str | None = None,
    tasks: Iterable[int] | None = None,
    client_factory: ClientFactory | None = None,
) -> MemoryDataset:
    """List an environment's tasks as samples, without the task specs.

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

    Example:
        >>> ors_dataset("math", tasks=range(3))[2].id
        2
    """
    chosen, tasks = choose_indexes(env_name, base_url, client_factory, split, tasks)
    samples = [
        Sample(
            # The real prompt belongs to the session: the solver asks for it.
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
    client_factory: ClientFactory | None = None,
    **arguments: Any,
) -> Solver:
    """Play a sample of `ors_dataset` as an episode.

    The model gets the tools of the session. The episode ends as every rollout does. A
    limit of Inspect's also ends it, and it keeps the reward it has earned. An outage
    fails the sample: it is not scored, and the model is not told of it. Inspect can
    repeat such a sample (``retry_on_error`` of `eval`).

    Args:
        base_url: The server's address, as for `ORSEnv`.
        system_prompt: A message before the environment's prompt.
        secrets: Returns the secrets of the environment.
        client_factory: Makes the client, where more than an address is needed.
        **arguments: Arguments of `LiveEpisode`: ``max_turns``, ``on_plain_text``,
            ``reward_reduction``, ``call_timeout``, ...

    Returns:
        The solver.

    Raises:
        InvalidRequestError: If an argument is secret, as Inspect logs arguments.

    Example:
        >>> tasks = ors_dataset("math", tasks=[0])
        >>> made = Task(tasks, solver=ors_solver(max_turns=4), scorer=ors_scorer())
        >>> len(made.dataset)
        1
    """
    _refuse_secrets(secrets, arguments)

    async def solve(state: TaskState, _: Generate) -> TaskState:
        given = dict(arguments)
        if secrets is not None:
            given["secrets"] = secrets()
        where = state.metadata
        async with (
            make_client(base_url, client_factory) as client,
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
                own = {"role": "system", "content": system_prompt}
                opening = join_system_messages([own], opening)
            state.messages = _to_inspect(opening)
            try:
                await _play(state, live)
            finally:
                # A limit of Inspect's raises; the reward so far counts then, too.
                if live.stop() is not None:
                    state.store.set(_OUTCOME, _outcome_of(live))
        return state

    return solve


def _refuse_secrets(secrets: Any, arguments: Mapping[str, Any]) -> None:
    logged = sorted(EPISODE_SECRETS & arguments.keys())
    if secrets is not None and not callable(secrets):
        logged.append("secrets")
    if logged:
        raise InvalidRequestError(
            f"{', '.join(logged)} would be written to Inspect's logs; set ORS_API_KEY, "
            "or pass functions: secrets=, which returns the secrets, and "
            "client_factory=, which makes the client"
        )


async def _play(state: TaskState, live: LiveEpisode) -> None:
    tools = _tool_infos(live.episode.tools)
    while not live.ended:
        state.output = await get_model().generate(
            state.messages, tools=tools, config=GenerateConfig()
        )
        if state.output.stop_reason == _CONTEXT_FULL:
            live.stop("max_tokens")
            return
        state.messages.append(state.output.message)
        told = await live.take(_from_inspect(state.output.message))
        state.messages.extend(_to_inspect(told))


def _outcome_of(live: LiveEpisode) -> dict[str, Any]:
    episode = live.episode
    return {
        "reward": episode.total_reward,
        "stop_reason": episode.stop_reason,
        "metrics": episode.metrics(),
    }


@scorer(metrics=[mean(), stderr()])  # type: ignore[untyped-decorator]
def ors_scorer() -> Scorer:
    """Score a sample by its episode's reward.

    Returns:
        The scorer. An outage leaves a sample without a reward, and unscored.

    Example:
        >>> tasks = ors_dataset("math", tasks=[0])
        >>> len(Task(tasks, solver=ors_solver(), scorer=ors_scorer()).dataset)
        1
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


def _to_inspect(messages: Sequence[JSONObject]) -> list[ChatMessage]:
    """Convert messages of ``Episode.messages()`` to Inspect's classes."""
    names = called_names(messages)
    return [_convert(message, names) for message in messages]


def _convert(message: JSONObject, names: Mapping[str, str]) -> ChatMessage:
    role, content = message["role"], _content(message.get("content"))
    if role == "tool":
        answered = message["tool_call_id"]
        return ChatMessageTool(
            content=content, tool_call_id=answered, function=names.get(answered)
        )
    if role == "system":
        return ChatMessageSystem(content=content)
    if role == "user":
        return ChatMessageUser(content=content)
    calls = [_to_call(call) for call in message.get("tool_calls") or ()]
    if thoughts := message.get("reasoning_content"):
        said = [ContentText(text=content)] if isinstance(content, str) else content
        content = [ContentReasoning(reasoning=thoughts), *said]
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


def _from_inspect(message: ChatMessageAssistant) -> JSONObject:
    """Convert a model's message to one of OpenAI's chat completions."""
    calls = [
        {
            "id": call.id,
            "type": "function",
            "function": {
                "name": call.function,
                # Arguments that Inspect could not read become its error message. That
                # is no JSON, so they are an invalid action here, too.
                "arguments": call.parse_error or json.dumps(call.arguments),
            },
        }
        for call in message.tool_calls or ()
    ]
    said: JSONObject = {"role": "assistant", "content": message.text}
    return {**said, "tool_calls": calls} if calls else said


def _tool_infos(tools: Iterable[ToolSpec]) -> list[ToolInfo]:
    """Convert tools to Inspect's class.

    Keywords that Inspect lacks are left out: the server checks every call anyway.
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
        left = iter(range(_MOST_PARTS))
        return JSONSchema.model_validate(_plain(part, root, left, 0))
    except ValidationError:
        # Inspect lacks this type; the model reads the schema as a description.
        return JSONSchema(description=json.dumps(part))


def _plain(
    part: Any,
    root: JSONObject,
    left: Iterator[int],
    depth: int,
    followed: tuple[str, ...] = (),
) -> Any:
    """Write a schema without references, ``oneOf``, ``allOf`` and ``const``.

    It takes one of ``left`` for each part; parts for which none is left are anything.
    """
    if not isinstance(part, Mapping) or depth > _MAX_DEPTH or next(left, None) is None:
        return {}

    def inner(value: Any) -> Any:
        return _plain(value, root, left, depth + 1, followed)

    plain = {name: value for name, value in part.items() if name not in _PARTS}
    if "const" in plain:
        plain["enum"] = [plain.pop("const")]
    for name in ("items", "additionalProperties"):
        if isinstance(plain.get(name), Mapping):
            plain[name] = inner(plain[name])
    if isinstance(plain.get("properties"), Mapping):
        plain["properties"] = {k: inner(v) for k, v in plain["properties"].items()}
    choices = [*list_of(part, "anyOf"), *list_of(part, "oneOf")]
    if choices:
        plain["anyOf"] = [inner(choice) for choice in choices]
    for base in list_of(part, "allOf"):
        plain = {**inner(base), **plain}
    reference = plain.pop("$ref", None)
    # Within itself a recursive schema may be anything: it has no end written out.
    if isinstance(reference, str) and reference not in followed:
        target = find_reference(reference, root)
        target = _plain(target, root, left, depth + 1, (*followed, reference))
        plain = {**target, **plain}
    return plain
