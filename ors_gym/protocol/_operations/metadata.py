"""What a server offers: its dialect, environments, splits, tasks and tools."""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import quote, urlencode

from ors_gym.errors import (
    AuthenticationError,
    InvalidRequestError,
    ORSError,
    ProtocolError,
    ServerError,
    UnknownEnvironmentError,
    UnknownTaskError,
)
from ors_gym.protocol._dialect import (
    Dialect,
    SecretsChannel,
    is_openenv,
    read_behind_gateway,
    read_openapi,
    read_probe,
    split_deployment,
)
from ors_gym.protocol._exchange import Operation, Outcome
from ors_gym.protocol._operations.fetching import fetch
from ors_gym.protocol._operations.session_ids import ask
from ors_gym.protocol._replies import status_error
from ors_gym.protocol._reply_json import (
    parse_json,
    read_count,
    read_difficulties,
    read_environments,
    read_secret_names,
    read_splits,
    read_task,
    read_tasks,
    read_tools,
)
from ors_gym.protocol._requests import (
    encode,
    environment_head,
    plain_head,
    read_index,
    session_head,
)
from ors_gym.protocol._retries import may_repeat
from ors_gym.protocol._server_state import Server
from ors_gym.types import JSONObject, RolloutFilters, Split, TaskSpec, ToolSpec

_LISTED_AT_ONCE: Final = 1000
"""Tasks that one request asks for, where a server gives tasks by index only."""
_LISTED_AT_MOST: Final = 100_000
"""Tasks that `list_tasks` asks for in all, where a server gives them by index only."""


_GATEWAY_HINT: Final = (
    ". If it is a gateway, which routes by session, name the environment Owner/Name"
)


def connect(server: Server) -> Operation[None]:
    """Learn what the server speaks and serves, once (docs/wire.md, point 1)."""
    if server.known.environments:
        return
    dialect = yield from _learn_dialect(server)
    request = "GET /list_environments"
    outcome, body = yield from ask(server, plain_head(*request.split()))
    try:
        if outcome.status != 200:
            raise status_error(outcome, body, request, server.redact, server.settings)
        environments = read_environments(parse_json(body, "the reply", server.redact))
    except (AuthenticationError, ServerError):
        raise
    except ORSError as error:
        hint = "" if server.deployment else _GATEWAY_HINT
        raise ProtocolError(
            f"{server.base_url} does not look like an ORS server: {error}{hint}"
        ) from None
    if not environments:
        raise ProtocolError(
            f"the ORS server at {server.base_url} serves no environment"
        )
    server.known.dialect = dialect
    server.known.environments = environments


def _learn_dialect(server: Server) -> Operation[Dialect]:
    """Ask for the server's description; if it has none, for a refusal that tells."""
    description = yield from _describe(server)
    dialect = read_openapi(description)
    if dialect is None and is_openenv(description):
        raise ProtocolError(
            f"{server.base_url} is an OpenEnv server: it may list tasks as ORS does, "
            "but it has no sessions to play them in. Use OpenEnv's own client, or "
            "serve the environment with an ORS SDK"
        )
    if dialect is None and server.deployment:
        # The answers come from a gateway that does not know where to send these.
        yield from _connect_to_gateway(server)
        return server.dialect
    if dialect is None:
        session_id = server.hooks.new_id()
        head = session_head("POST", "/create", session_id)
        outcome, body = yield from fetch(server, head, encode({"secrets": {}}, "probe"))
        _raise_if_temporary(server, outcome, body, "POST /create")
        if outcome.status == 200:
            # A server has taken the probe for a request. None that we know does.
            server.discard(session_id)
        try:
            dialect = read_probe(outcome.status, parse_json(body, "the reply"))
        except ProtocolError:
            dialect = None
    # A server that tells neither way is treated as the published page describes it: its
    # /create always has the field (docs/wire.md, "Dialects").
    return dialect or Dialect(secrets=SecretsChannel.REQUIRED_BODY)


def _describe(server: Server) -> Operation[Any]:
    """Ask for the server's description; None where there is none."""
    outcome, body = yield from ask(server, plain_head("GET", "/openapi.json"))
    _raise_if_temporary(server, outcome, body, "GET /openapi.json")
    if outcome.status != 200:
        return None
    try:
        return parse_json(body, "/openapi.json")
    except ProtocolError:
        return None


def _connect_to_gateway(server: Server) -> Operation[None]:
    """Learn what a deployment behind a gateway speaks (docs/wire.md, point 20)."""
    server.known.dialect = read_behind_gateway(None)
    try:
        description = yield from _describe(server)
    except BaseException as error:
        server.known.dialect = None
        if isinstance(error, InvalidRequestError) and error.status in (400, 404):
            raise UnknownEnvironmentError(
                f"the gateway at {server.base_url} gives no session for deployment "
                f"{server.deployment!r}: {error}. Names are case-sensitive there",
                status=error.status,
            ) from None
        raise
    server.known.dialect = read_behind_gateway(description)


def _raise_if_temporary(
    server: Server, outcome: Outcome, body: bytes, request: str
) -> None:
    """Raise for a temporary status, which says nothing of what the server speaks."""
    if may_repeat(outcome):
        raise status_error(outcome, body, request, server.redact, server.settings)


def resolve_environment(server: Server, name: str) -> Operation[str]:
    """Find the server's spelling of an environment's name (docs/wire.md, point 3).

    Behind a gateway it begins with the deployment, if ``name`` does.
    """
    found, environment = yield from locate(server, name)
    if found is server or not found.dialect.routes_by_session:
        return environment
    return f"{found.deployment}/{environment}"


def locate(server: Server, name: str) -> Operation[tuple[Server, str]]:
    """Find the server or deployment of an environment, and its name there."""
    server = server.at(name)
    yield from connect(server)
    if server.dialect.routes_by_session:
        if name == server.deployment:
            # As the official client does: the first is the default.
            return server, server.known.environments[0]
        name = name.removeprefix(f"{server.deployment}/")
    return server, _spelling(server, name)


def _spelling(server: Server, name: str) -> str:
    if name in server.known.environments:
        return name
    for known in server.known.environments:
        if known.lower() == name.lower() or known.casefold() == name.casefold():
            return known
    shown = ", ".join(repr(known) for known in server.known.environments[:20])
    more = len(server.known.environments) - 20
    # "ors/guess" is the id of gym.make, and "guess" the name that the server gives.
    near = difflib.get_close_matches(
        name.rpartition("/")[2], server.known.environments, n=1
    )
    raise UnknownEnvironmentError(
        f"the server at {server.base_url} has no environment {name!r}; it has "
        f"{shown}"
        + (f" and {more} more" if more > 0 else "")
        + (f". Did you mean {near[0]!r}?" if near else "")
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
    """List a task set: whole, or in ranges where the server gives tasks by index."""
    server, environment = yield from locate(server, environment)
    try:
        value = yield from _ask(server, environment, "tasks", {"split": split})
    except (UnknownTaskError, ServerError) as error:
        by_index = server.dialect.num_tasks is not False
        if not by_index or "invalid split" in str(error).lower():
            raise
    else:
        return read_tasks(value)
    count = yield from num_tasks(server, environment, split)
    if count > _LISTED_AT_MOST:
        raise InvalidRequestError(
            f"split {split!r} of {environment!r} has {count} tasks, and the server "
            "does not list them at once; get a part of them with get_task_range"
        )
    tasks: list[TaskSpec] = []
    for start in range(0, count, _LISTED_AT_ONCE):
        stop = min(start + _LISTED_AT_ONCE, count)
        tasks += yield from get_task_range(server, environment, split, start, stop)
    return tasks


def num_tasks(server: Server, environment: str, split: str) -> Operation[int]:
    server, environment = yield from locate(server, environment)
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
    index = read_index(index)
    server, environment = yield from locate(server, environment)
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
    start, stop = (one if one is None else read_index(one) for one in (start, stop))
    server, environment = yield from locate(server, environment)
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
    server, environment = yield from locate(server, environment)
    method = "GET" if body is None else "POST"
    head = environment_head(method, environment, endpoint)
    encoded = None if body is None else encode(body, "the request")
    outcome, reply = yield from ask(server, head, encoded)
    if outcome.status == 200:
        return parse_json(reply, f"the reply of {head.target}", server.redact)
    error = status_error(
        outcome, reply, f"{method} {head.target}", server.redact, server.settings
    )
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


def list_required_secrets(server: Server, environment: str) -> Operation[list[str]]:
    """Ask the platform's API for the names of the secrets that a deployment wants."""
    value = yield from _ask_platform(server, environment, "required-secrets", {})
    return read_secret_names(value)


def get_task_difficulty(
    server: Server, environment: str, filters: Mapping[str, object]
) -> Operation[list[JSONObject]]:
    """Ask the platform's API how others' rollouts of each task were rewarded."""
    unknown = sorted(filters.keys() - RolloutFilters.__annotations__.keys())
    if unknown:
        raise InvalidRequestError(
            f"get_task_difficulty has no filter {', '.join(unknown)}; it has "
            f"{', '.join(RolloutFilters.__annotations__)}"
        )
    given = {name: value for name, value in filters.items() if value is not None}
    value = yield from _ask_platform(server, environment, "task-difficulty", given)
    return read_difficulties(value)


def _ask_platform(
    server: Server, environment: str, what: str, query: Mapping[str, object]
) -> Operation[Any]:
    deployment, variant = split_deployment(environment)
    if not deployment:
        raise InvalidRequestError(
            f"the platform names its environments Owner/Name; got {environment!r}"
        )
    if variant:
        query = {"variant": variant, **query}
    path = f"/v1/environments/{quote(deployment)}/{what}"
    head = plain_head("GET", f"{path}?{urlencode(query)}" if query else path)
    outcome, body = yield from fetch(server, head)
    if outcome.status == 200:
        return parse_json(body, f"the reply of {path}", server.redact)
    error = status_error(outcome, body, f"GET {path}", server.redact, server.settings)
    if outcome.status == 404:
        raise InvalidRequestError(
            f"{error}. Ask a client of the platform's API, which has an address of its "
            'own: ORSClient("https://api.openreward.ai")',
            status=404,
        )
    raise error
