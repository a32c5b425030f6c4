"""What a server offers: its dialect, environments, splits, tasks and tools."""

from __future__ import annotations

import dataclasses
from typing import Any

from ors_gym.errors import (
    InvalidRequestError,
    ORSError,
    ProtocolError,
    ServerError,
    UnknownEnvironmentError,
    UnknownTaskError,
)
from ors_gym.protocol._dialect import Dialect, SecretsChannel, read_openapi, read_probe
from ors_gym.protocol._exchange import Operation, Outcome
from ors_gym.protocol._operations.fetching import fetch
from ors_gym.protocol._reading import (
    parse_json,
    read_count,
    read_environments,
    read_splits,
    read_task,
    read_tasks,
    read_tools,
)
from ors_gym.protocol._replies import status_error
from ors_gym.protocol._requests import (
    encode,
    environment_head,
    plain_head,
    session_head,
)
from ors_gym.protocol._retries import may_repeat
from ors_gym.protocol._wire import Wire
from ors_gym.types import JSONObject, Split, TaskSpec, ToolSpec

__all__ = [
    "connect",
    "get_task",
    "get_task_range",
    "list_splits",
    "list_tasks",
    "list_tools",
    "num_tasks",
    "resolve_environment",
]


def connect(wire: Wire) -> Operation[None]:
    """Learn what the server speaks and serves, once.

    Args:
        wire: The server; its ``dialect`` and ``environments`` are filled in.

    Raises:
        ProtocolError: If it is not an ORS server.
        AuthenticationError: If it wants a key.
        ConnectionFailedError: If it cannot be reached.
        ServerError: If it is there and does not work.
    """
    if wire.environments:
        return
    dialect = yield from _learn_dialect(wire)
    outcome, body = yield from fetch(wire, plain_head("GET", "/list_environments"))
    if outcome.status in (401, 403):
        raise status_error(outcome, body, "GET /list_environments", wire.redact)
    try:
        if outcome.status != 200:
            raise status_error(outcome, body, "GET /list_environments", wire.redact)
        environments = read_environments(parse_json(body, "the reply", wire.redact))
    except ServerError:
        raise
    except ORSError as error:
        raise ProtocolError(
            f"{wire.where} does not look like an ORS server: {error}"
        ) from None
    if not environments:
        raise ProtocolError(f"the ORS server at {wire.where} serves no environment")
    wire.dialect = dialect
    wire.environments = environments


def _learn_dialect(wire: Wire) -> Operation[Dialect]:
    """Ask for the server's description, or failing that, for a refusal."""
    outcome, body = yield from fetch(wire, plain_head("GET", "/openapi.json"))
    _check_passing(wire, outcome, body, "GET /openapi.json")
    dialect = None
    if outcome.status == 200:
        try:
            dialect = read_openapi(parse_json(body, "/openapi.json"))
        except ProtocolError:
            dialect = None
    if dialect is None:
        session_id = wire.new_id()
        head = session_head("POST", "/create", session_id)
        outcome, body = yield from fetch(wire, head, encode({"secrets": {}}, "probe"))
        _check_passing(wire, outcome, body, "POST /create")
        if outcome.status == 200:
            # No server that is known to us takes the probe for a request.
            wire.abandon(session_id)
        try:
            dialect = read_probe(outcome.status, parse_json(body, "the reply"))
        except ProtocolError:
            dialect = None
    # A server that describes itself neither way is taken for the published page's,
    # which always has the field (docs/wire.md, "Dialects").
    return dialect or Dialect(secrets=SecretsChannel.REQUIRED_BODY)


def _check_passing(wire: Wire, outcome: Outcome, body: bytes, request: str) -> None:
    """Raise for a status that passes: it would be taken for what the server speaks."""
    if may_repeat(outcome):
        raise status_error(outcome, body, request, wire.redact)


def resolve_environment(wire: Wire, name: str) -> Operation[str]:
    """Find an environment whatever the case of its name (docs/wire.md, point 3).

    Args:
        wire: The server.
        name: The name as the user wrote it.

    Returns:
        The name as the server spells it.

    Raises:
        UnknownEnvironmentError: If there is none of that name.
    """
    yield from connect(wire)
    if name in wire.environments:
        return name
    for known in wire.environments:
        if known.lower() == name.lower() or known.casefold() == name.casefold():
            return known
    shown = ", ".join(repr(known) for known in wire.environments[:20])
    more = len(wire.environments) - 20
    raise UnknownEnvironmentError(
        f"the server at {wire.where} has no environment {name!r}; it has {shown}"
        + (f" and {more} more" if more > 0 else "")
    )


def list_tools(
    wire: Wire, environment: str
) -> Operation[tuple[list[ToolSpec], JSONObject]]:
    """List the tools that every session of an environment has.

    Args:
        wire: The server.
        environment: The environment's name, in any case.

    Returns:
        The tools, and what else the server says with them.
    """
    value = yield from _ask(wire, environment, "tools")
    return read_tools(value, wire.limits.tools)


def list_splits(wire: Wire, environment: str) -> Operation[list[Split]]:
    """List the splits of an environment.

    Args:
        wire: The server.
        environment: The environment's name, in any case.

    Returns:
        The splits.
    """
    return read_splits((yield from _ask(wire, environment, "splits")))


def list_tasks(wire: Wire, environment: str, split: str) -> Operation[list[TaskSpec]]:
    """List all tasks of a split.

    Args:
        wire: The server.
        environment: The environment's name, in any case.
        split: The split's name.

    Returns:
        The tasks.

    Raises:
        UnknownTaskError: If there is no such split.
    """
    return read_tasks((yield from _ask(wire, environment, "tasks", {"split": split})))


def num_tasks(wire: Wire, environment: str, split: str) -> Operation[int]:
    """Count the tasks of a split.

    Args:
        wire: The server.
        environment: The environment's name, in any case.
        split: The split's name.

    Returns:
        The number of tasks.

    Raises:
        UnknownTaskError: If there is no such split.
    """
    yield from connect(wire)
    if wire.spoken.num_tasks is not False:
        answer = yield from _ask_newer(wire, environment, "num_tasks", {"split": split})
        if answer is not None:
            return read_count(answer[0])
    return len((yield from _all_tasks(wire, environment, split)))


def get_task(
    wire: Wire, environment: str, split: str, index: int
) -> Operation[TaskSpec]:
    """Get one task.

    Args:
        wire: The server.
        environment: The environment's name, in any case.
        split: The split's name.
        index: The task's place in the split, from 0.

    Returns:
        The task.

    Raises:
        UnknownTaskError: If there is no such split, or no such task in it.
    """
    yield from connect(wire)
    if index < 0:
        raise UnknownTaskError(f"a task's index counts from 0; got {index}")
    if wire.spoken.num_tasks is not False:
        asked = {"split": split, "index": index}
        answer = yield from _ask_newer(wire, environment, "task", asked)
        if answer is not None:
            return read_task(answer[0])
    tasks = yield from _all_tasks(wire, environment, split)
    if index >= len(tasks):
        raise UnknownTaskError(
            f"split {split!r} of {environment!r} has {len(tasks)} tasks, "
            f"none of index {index}"
        )
    return tasks[index]


def get_task_range(
    wire: Wire, environment: str, split: str, start: int | None, stop: int | None
) -> Operation[list[TaskSpec]]:
    """Get the tasks of a range, as Python's slices count.

    Args:
        wire: The server.
        environment: The environment's name, in any case.
        split: The split's name.
        start: The first index; from the start if None.
        stop: The index after the last one; to the end if None.

    Returns:
        The tasks.

    Raises:
        UnknownTaskError: If there is no such split.
    """
    yield from connect(wire)
    if wire.spoken.task_range is not False:
        asked = {"split": split, "start": start, "stop": stop}
        answer = yield from _ask_newer(wire, environment, "task_range", asked)
        if answer is not None:
            return read_tasks(answer[0])
    if wire.spoken.num_tasks is False:
        return (yield from _all_tasks(wire, environment, split))[start:stop]
    count = yield from num_tasks(wire, environment, split)
    tasks: list[TaskSpec] = []
    for index in range(count)[start:stop]:
        task = yield from get_task(wire, environment, split, index)
        tasks.append(task)
    return tasks


def _all_tasks(wire: Wire, environment: str, split: str) -> Operation[list[TaskSpec]]:
    """List a task set once per client: the server has no other way to give a task."""
    known = wire.task_lists.get((environment, split))
    if known is None:
        known = yield from list_tasks(wire, environment, split)
        wire.task_lists[environment, split] = known
    return known


def _ask(
    wire: Wire, environment: str, endpoint: str, body: JSONObject | None = None
) -> Operation[Any]:
    """Ask an environment's endpoint, GET without a body and POST with one."""
    environment = yield from resolve_environment(wire, environment)
    method = "GET" if body is None else "POST"
    head = environment_head(method, environment, endpoint)
    encoded = None if body is None else encode(body, "the request")
    outcome, reply = yield from fetch(wire, head, encoded)
    if outcome.status == 200:
        return parse_json(reply, f"the reply of {head.target}", wire.redact)
    error = status_error(outcome, reply, f"{method} {head.target}", wire.redact)
    if outcome.status == 400 and body is not None:
        raise UnknownTaskError(f"{error} (asked for {body})", status=400)
    raise error


def _ask_newer(
    wire: Wire, environment: str, endpoint: str, body: JSONObject
) -> Operation[tuple[Any] | None]:
    """Ask an endpoint that older servers lack; None if this one does.

    A server that has it may answer ``null``, so the answer comes in a tuple.
    """
    spoken = wire.spoken
    known = spoken.task_range if endpoint == "task_range" else spoken.num_tasks
    try:
        return ((yield from _ask(wire, environment, endpoint, body)),)
    except InvalidRequestError as error:
        if known or error.status not in (404, 405):
            raise
    if endpoint == "task_range":
        wire.dialect = dataclasses.replace(spoken, task_range=False)
    else:
        wire.dialect = dataclasses.replace(spoken, num_tasks=False)
    return None
