"""What a server offers: its dialect, environments, splits, tasks and tools."""

from __future__ import annotations

import dataclasses
from typing import Any

from ors_gym.errors import (
    AuthenticationError,
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
from ors_gym.protocol._server_state import Server
from ors_gym.types import JSONObject, Split, TaskSpec, ToolSpec


def connect(server: Server) -> Operation[None]:
    """Learn what the server speaks and serves, once (docs/wire.md, point 1)."""
    if server.known.environments:
        return
    dialect = yield from _learn_dialect(server)
    request = "GET /list_environments"
    outcome, body = yield from fetch(server, plain_head(*request.split()))
    try:
        if outcome.status != 200:
            raise status_error(outcome, body, request, server.redact)
        environments = read_environments(parse_json(body, "the reply", server.redact))
    except (AuthenticationError, ServerError):
        raise
    except ORSError as error:
        raise ProtocolError(
            f"{server.base_url} does not look like an ORS server: {error}"
        ) from None
    if not environments:
        raise ProtocolError(
            f"the ORS server at {server.base_url} serves no environment"
        )
    server.known.dialect = dialect
    server.known.environments = environments


def _learn_dialect(server: Server) -> Operation[Dialect]:
    """Ask for the server's description; if it has none, for a refusal that tells."""
    outcome, body = yield from fetch(server, plain_head("GET", "/openapi.json"))
    _check_passing(server, outcome, body, "GET /openapi.json")
    dialect = None
    if outcome.status == 200:
        try:
            dialect = read_openapi(parse_json(body, "/openapi.json"))
        except ProtocolError:
            dialect = None
    if dialect is None:
        session_id = server.hooks.new_id()
        head = session_head("POST", "/create", session_id)
        outcome, body = yield from fetch(server, head, encode({"secrets": {}}, "probe"))
        _check_passing(server, outcome, body, "POST /create")
        if outcome.status == 200:
            # A server has taken the probe for a request. None that we know does.
            server.hooks.discard(session_id)
        try:
            dialect = read_probe(outcome.status, parse_json(body, "the reply"))
        except ProtocolError:
            dialect = None
    # A server that tells neither way is treated as the published page describes it: its
    # /create always has the field (docs/wire.md, "Dialects").
    return dialect or Dialect(secrets=SecretsChannel.REQUIRED_BODY)


def _check_passing(server: Server, outcome: Outcome, body: bytes, request: str) -> None:
    """Raise for a temporary status, which says nothing of what the server speaks."""
    if may_repeat(outcome):
        raise status_error(outcome, body, request, server.redact)


def resolve_environment(server: Server, name: str) -> Operation[str]:
    """Find the server's spelling of an environment's name (docs/wire.md, point 3)."""
    yield from connect(server)
    if name in server.known.environments:
        return name
    for known in server.known.environments:
        if known.lower() == name.lower() or known.casefold() == name.casefold():
            return known
    shown = ", ".join(repr(known) for known in server.known.environments[:20])
    more = len(server.known.environments) - 20
    raise UnknownEnvironmentError(
        f"the server at {server.base_url} has no environment {name!r}; it has "
        f"{shown}" + (f" and {more} more" if more > 0 else "")
    )


def list_tools(
    server: Server, environment: str
) -> Operation[tuple[list[ToolSpec], JSONObject]]:
    """List the tools that every session has, and what else the server says of them."""
    value = yield from _ask(server, environment, "tools")
    return read_tools(value, server.settings.limits.tools)


def list_splits(server: Server, environment: str) -> Operation[list[Split]]:
    return read_splits((yield from _ask(server, environment, "splits")))


def list_tasks(
    server: Server, environment: str, split: str
) -> Operation[list[TaskSpec]]:
    return read_tasks((yield from _ask(server, environment, "tasks", {"split": split})))


def num_tasks(server: Server, environment: str, split: str) -> Operation[int]:
    yield from connect(server)
    if server.dialect.num_tasks is not False:
        answer = yield from _ask_newer(
            server, environment, "num_tasks", {"split": split}
        )
        if answer is not None:
            return read_count(answer[0])
    return len((yield from _all_tasks(server, environment, split)))


def get_task(
    server: Server, environment: str, split: str, index: int
) -> Operation[TaskSpec]:
    """Get one task by its index, from 0."""
    yield from connect(server)
    if index < 0:
        raise UnknownTaskError(f"a task's index counts from 0; got {index}")
    if server.dialect.num_tasks is not False:
        asked = {"split": split, "index": index}
        answer = yield from _ask_newer(server, environment, "task", asked)
        if answer is not None:
            return read_task(answer[0])
    tasks = yield from _all_tasks(server, environment, split)
    if index >= len(tasks):
        raise UnknownTaskError(
            f"split {split!r} of {environment!r} has {len(tasks)} tasks, "
            f"none of index {index}"
        )
    return tasks[index]


def get_task_range(
    server: Server, environment: str, split: str, start: int | None, stop: int | None
) -> Operation[list[TaskSpec]]:
    """Get the tasks of a range, as Python's slices count."""
    yield from connect(server)
    if server.dialect.task_range is not False:
        asked = {"split": split, "start": start, "stop": stop}
        answer = yield from _ask_newer(server, environment, "task_range", asked)
        if answer is not None:
            return read_tasks(answer[0])
    if server.dialect.num_tasks is False:
        return (yield from _all_tasks(server, environment, split))[start:stop]
    count = yield from num_tasks(server, environment, split)
    tasks: list[TaskSpec] = []
    for index in range(count)[start:stop]:
        task = yield from get_task(server, environment, split, index)
        tasks.append(task)
    return tasks


def _all_tasks(
    server: Server, environment: str, split: str
) -> Operation[list[TaskSpec]]:
    """List a task set, once per client: old servers give no single task."""
    known = server.known.task_lists.get((environment, split))
    if known is None:
        known = yield from list_tasks(server, environment, split)
        server.known.task_lists[environment, split] = known
    return known


def _ask(
    server: Server, environment: str, endpoint: str, body: JSONObject | None = None
) -> Operation[Any]:
    """Ask an environment's endpoint: GET without a body, POST with one."""
    environment = yield from resolve_environment(server, environment)
    method = "GET" if body is None else "POST"
    head = environment_head(method, environment, endpoint)
    encoded = None if body is None else encode(body, "the request")
    outcome, reply = yield from fetch(server, head, encoded)
    if outcome.status == 200:
        return parse_json(reply, f"the reply of {head.target}", server.redact)
    error = status_error(outcome, reply, f"{method} {head.target}", server.redact)
    if outcome.status == 400 and body is not None:
        raise UnknownTaskError(f"{error} (asked for {body})", status=400)
    raise error


def _ask_newer(
    server: Server, environment: str, endpoint: str, body: JSONObject
) -> Operation[tuple[Any] | None]:
    """Ask an endpoint that older servers lack; None if this one does.

    A server that has it may answer ``null``, so the answer comes in a tuple.
    """
    spoken = server.dialect
    known = spoken.task_range if endpoint == "task_range" else spoken.num_tasks
    try:
        return ((yield from _ask(server, environment, endpoint, body)),)
    except InvalidRequestError as error:
        if known or error.status not in (404, 405):
            raise
    if endpoint == "task_range":
        server.known.dialect = dataclasses.replace(spoken, task_range=False)
    else:
        server.known.dialect = dataclasses.replace(spoken, num_tasks=False)
    return None
