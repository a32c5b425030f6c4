"""What a server speaks, read from its own description (docs/wire.md, "Dialects")."""

from __future__ import annotations

import dataclasses
import enum
import re
from collections.abc import Mapping
from typing import Any, Final

_DEPLOYMENT: Final = re.compile(r"([^/]+/[^/]+)(?:/([^/]+))?")
DEPLOYMENT_HEADER: Final = "X-Deployment"


class SecretsChannel(enum.Enum):
    """Where a server looks for the secrets of a session."""

    NONE = "none"
    BODY = "body"
    """The optional field ``secrets`` of /create: a string for each name."""
    REQUIRED_BODY = "required body"
    """The same, but /create without it is refused."""
    HEADER = "header"
    """The header ``X-Secrets`` of /create."""


@dataclasses.dataclass(frozen=True, slots=True)
class Dialect:
    """What one server speaks.

    A flag that is None is not known: the endpoint is tried, and 404, 405 or a
    redirect says that it is not there.
    """

    secrets: SecretsChannel
    create_session: bool | None = None
    """Whether the server hands out session ids."""
    create_by_index: bool | None = None
    """Whether /create takes a split and an index."""
    num_tasks: bool | None = None
    """Whether it counts tasks and gives one by its index."""
    task_range: bool | None = None
    task_tools: bool | None = None
    messages: bool | None = None
    """Whether it gives the prompt as a conversation."""
    score_group: bool | None = None
    delete_session: bool | None = None
    """Whether it wants a session id handed back."""
    routes_by_session: bool = False
    """Whether it is a gateway, which finds an environment's server by the id of a
    session: every request carries one, discovery included."""


def read_openapi(document: object) -> Dialect | None:
    """Read ``/openapi.json``; None if it does not describe an ORS server."""
    if not isinstance(document, Mapping):
        return None
    paths = document.get("paths")
    if not isinstance(paths, Mapping):
        return None
    known = {re.sub(r"\{[^}]*\}", "{}", str(path)) for path in paths}
    if "/create" not in known or "/{}/call" not in known:
        return None
    schema = _create_schema(document)
    properties = schema.get("properties")
    fields = set(properties) if isinstance(properties, Mapping) else set()
    return Dialect(
        secrets=_secrets_channel(fields, schema.get("required"), known),
        create_session="/create_session" in known,
        create_by_index={"split", "index"} <= fields,
        num_tasks={"/{}/num_tasks", "/{}/task"} <= known,
        task_range="/{}/task_range" in known,
        task_tools="/{}/task_tools" in known,
        messages="/{}/messages" in known,
        score_group="/{}/score_group" in known,
        delete_session="/delete_session" in known,
    )


def read_behind_gateway(document: object) -> Dialect:
    """Read ``/openapi.json`` as a gateway passed it on, to a request with a session.

    Where it passes on something else, the gateway is taken for one of a current
    openreward, which is what the official client does.
    """
    dialect = read_openapi(document) or Dialect(
        secrets=SecretsChannel.HEADER, create_by_index=True
    )
    # The gateway itself hands the ids out and takes them back.
    return dataclasses.replace(
        dialect, create_session=True, delete_session=True, routes_by_session=True
    )


def split_deployment(name: str) -> tuple[str, str]:
    """Split ``Owner/Name/environment``; either part may be missing."""
    found = _DEPLOYMENT.fullmatch(name)
    return (found[1], found[2] or "") if found else ("", name)


def is_openenv(document: object) -> bool:
    """Return whether ``/openapi.json`` describes an OpenEnv server."""
    paths = _descend(document, "paths")
    return {"/reset", "/step"} <= set(paths) and "/create" not in paths


def read_probe(status: int, document: object) -> Dialect | None:
    """Read the refusal of a /create that asks for nothing; None if it does not say.

    The probe is ``{"secrets": {}}`` for a session that does not exist: nothing is
    created and nothing secret is sent (docs/wire.md, point 1).
    """
    if status != 422 or not isinstance(document, Mapping):
        return None
    errors = document.get("detail")
    if not isinstance(errors, list):
        return None
    places = [e.get("loc") for e in errors if isinstance(e, Mapping)]
    forbidden = any(
        isinstance(error, Mapping)
        and error.get("loc") == ["body", "secrets"]
        and error.get("type") == "extra_forbidden"
        for error in errors
    )
    if not forbidden:
        return Dialect(secrets=SecretsChannel.REQUIRED_BODY)
    # openreward 0.1.0, which has no channel, also reports the other fields as missing;
    # servers that read the header check those later.
    if ["body", "env_name"] in places:
        return Dialect(secrets=SecretsChannel.NONE)
    return Dialect(secrets=SecretsChannel.HEADER)


def _create_schema(document: Mapping[str, Any]) -> Mapping[str, Any]:
    """Find the schema of /create's body, by reference or by its usual name."""
    schemas = _descend(document, "components", "schemas")
    body = _descend(
        document,
        *("paths", "/create", "post", "requestBody", "content"),
        *("application/json", "schema"),
    )
    reference = str(body.get("$ref", "#/components/schemas/CreateSession"))
    if "properties" in body:
        return body
    return _descend(schemas, reference.rpartition("/")[2])


def _descend(value: object, *keys: str) -> Mapping[str, Any]:
    for key in keys:
        value = value.get(key) if isinstance(value, Mapping) else None
    return value if isinstance(value, Mapping) else {}


def _secrets_channel(
    fields: set[Any], required: object, paths: set[str]
) -> SecretsChannel:
    if "secrets" in fields:
        if isinstance(required, list) and "secrets" in required:
            return SecretsChannel.REQUIRED_BODY
        return SecretsChannel.BODY
    # The header is not in the description. Every server that reads it hands out
    # session ids; openreward 0.1.0, which has no channel at all, does not.
    if "/create_session" in paths:
        return SecretsChannel.HEADER
    return SecretsChannel.NONE
