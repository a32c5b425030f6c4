"""What servers speak, by their own description and by their refusals."""

from typing import Any

import pytest

from ors_gym.protocol._dialect import Dialect, SecretsChannel, read_openapi, read_probe
from tests.support.servers.process import RunningServer
from tests.support.servers.raw import raw_client

HEADER, BODY = SecretsChannel.HEADER, SecretsChannel.BODY
REQUIRED, NONE = SecretsChannel.REQUIRED_BODY, SecretsChannel.NONE

# secrets, create_session, create_by_index, num_tasks, task_range, task_tools, messages,
# score_group, delete_session: the columns of docs/wire.md's table, measured again.
T, F = True, False
SPOKEN = {
    "openreward-0.1.0": (NONE, F, F, F, F, F, F, F, F),
    "openreward-0.1.9": (REQUIRED, T, F, F, F, F, F, F, T),
    "openreward-0.1.22": (REQUIRED, T, F, F, F, F, F, F, T),
    "openreward-0.1.50": (BODY, T, T, T, F, F, F, F, T),
    "openreward-0.1.80": (HEADER, T, T, T, T, T, F, F, T),
    "openreward-0.1.167": (HEADER, T, T, T, T, T, T, T, T),
    "ors-sdk-0.1.0": (BODY, T, T, T, T, T, F, F, T),
}


def test_every_server_is_understood(any_server: RunningServer) -> None:
    with raw_client(any_server) as client:
        document = client.get("/openapi.json").json()
    assert read_openapi(document) == Dialect(*SPOKEN[any_server.sdk.name])


def test_every_server_refuses_the_probe(any_server: RunningServer) -> None:
    with raw_client(any_server) as client:
        nobody = {"X-Session-ID": "nobody"}
        reply = client.post("/create", json={"secrets": {}}, headers=nobody)
    spoken = SPOKEN[any_server.sdk.name][0]
    read = read_probe(reply.status_code, reply.json())
    if spoken is HEADER:
        assert read == Dialect(HEADER)
    elif spoken in (BODY, REQUIRED):
        assert read == Dialect(REQUIRED)
    assert not any_server.log("construct")


SECRETS = {"loc": ["body", "secrets"]}


def described(paths: list[str], schema: Any, **operation: Any) -> dict[str, Any]:
    return {
        "paths": {path: {"post": operation} for path in paths},
        "components": {"schemas": {"CreateSession": schema}},
    }


@pytest.mark.parametrize(
    "document",
    [
        *(None, [], "x", {}, {"paths": []}, {"paths": {}}, {"paths": {"/create": {}}}),
        {"paths": {"/x/call": {}, "/create": {}}},
    ],
)
def test_what_describes_no_ors_server(document: Any) -> None:
    assert read_openapi(document) is None


@pytest.mark.parametrize(
    ("schema", "channel"),
    [
        (None, NONE),
        ([], NONE),
        ({"properties": []}, NONE),
        ({"properties": {"secrets": {}}}, BODY),
        ({"properties": {"secrets": {}}, "required": "secrets"}, BODY),
        ({"properties": {"secrets": {}}, "required": ["secrets"]}, REQUIRED),
    ],
)
def test_the_channel_of_secrets(schema: Any, channel: SecretsChannel) -> None:
    read = read_openapi(described(["/create", "/{env}/call"], schema))
    assert read is not None
    assert read.secrets is channel


def test_the_name_of_a_path_s_parameter_does_not_matter() -> None:
    paths = [
        "/create",
        "/{name}/call",
        "/{x}/num_tasks",
        "/{y}/task",
        "/create_session",
    ]
    read = read_openapi(described(paths, None))
    assert read is not None
    assert read.num_tasks
    assert read.secrets is HEADER


def test_the_body_of_create_is_found_by_its_reference() -> None:
    schema: dict[str, Any] = {"properties": {"split": {}, "index": {}}}
    for found in ({"$ref": "#/components/schemas/Other"}, schema):
        content = {"application/json": {"schema": found}}
        document = described(
            ["/create", "/{env}/call"],
            {"properties": {"secrets": {}}},
            requestBody={"content": content},
        )
        document["components"]["schemas"]["Other"] = schema
        read = read_openapi(document)
        assert read is not None
        assert (read.secrets, read.create_by_index) == (NONE, True)


@pytest.mark.parametrize(
    ("status", "document", "channel"),
    [
        (200, {}, None),
        (422, [], None),
        (422, {}, None),
        (422, {"detail": "no"}, None),
        (422, {"detail": []}, REQUIRED),
        (422, {"detail": ["x", {"loc": ["body", "env_name"]}]}, REQUIRED),
        (422, {"detail": [SECRETS | {"type": "dict_type"}]}, REQUIRED),
        (422, {"detail": [{}, SECRETS | {"type": "extra_forbidden"}]}, HEADER),
    ],
)
def test_the_probe(status: int, document: Any, channel: SecretsChannel | None) -> None:
    expected = None if channel is None else Dialect(channel)
    assert read_probe(status, document) == expected
