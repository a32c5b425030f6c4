"""What a server offers, learned once and whatever it is."""

import dataclasses

import pytest

from ors_gym.errors import (
    AuthenticationError,
    ConnectionFailedError,
    InvalidRequestError,
    ORSError,
    ProtocolError,
    ServerError,
    UnknownEnvironmentError,
    UnknownTaskError,
)
from ors_gym.protocol import _operations as operations
from ors_gym.protocol._dialect import Dialect, SecretsChannel
from ors_gym.protocol._exchange import Failure
from ors_gym.protocol._redaction import Redactor
from tests.protocol.scripted_exchanges import (
    NEW,
    RecordingServer,
    Reply,
    Script,
    failing,
    ok,
    refused,
    stream,
)

pytestmark = pytest.mark.unit

OPENAPI = {
    "paths": {"/create": {}, "/{e}/call": {}, "/create_session": {}},
    "components": {"schemas": {"CreateSession": {"properties": {}}}},
}
UNKNOWN = Dialect(SecretsChannel.HEADER)
OLD = Dialect(SecretsChannel.NONE, num_tasks=False, task_range=False)
EXTRA = [{"loc": ["body", "secrets"], "type": "extra_forbidden"}]


def connect(*replies: Reply) -> tuple[RecordingServer, Script]:
    server = RecordingServer(None)
    script = Script(*replies)
    script.run(operations.connect(server))
    return server, script


def test_a_server_is_asked_once() -> None:
    server, script = connect(ok(OPENAPI), ok(["a"]))
    assert script.targets == ["GET /openapi.json", "GET /list_environments"]
    assert server.dialect.create_session is True
    assert server.known.environments == ("a",)
    Script().run(operations.connect(server))


@pytest.mark.parametrize(
    "first", [refused(404), ok([]), Reply(200, b"<html>"), refused(401), refused(500)]
)
def test_a_server_that_does_not_describe_itself_is_probed(first: Reply) -> None:
    server, script = connect(first, refused(422, EXTRA), ok(["a"]))
    assert server.known.dialect == Dialect(SecretsChannel.HEADER)
    assert script.targets[1] == "POST /create"
    # No secret, and the id of nobody.
    assert script.body(1) == {"secrets": {}}
    assert script.header(1, "X-Session-ID") == "own-0"
    assert script.header(1, "X-Secrets") is None
    assert server.discarded == []


@pytest.mark.parametrize("reply", [refused(404), refused(500), Reply(422, b"x")])
def test_a_server_that_does_neither_gets_the_published_field(reply: Reply) -> None:
    server, _ = connect(refused(404), reply, ok(["a"]))
    assert server.known.dialect == Dialect(SecretsChannel.REQUIRED_BODY)


def test_a_probe_that_was_taken_for_a_request_leaves_nothing() -> None:
    server, _ = connect(refused(404), ok({}), ok(["a"]))
    assert server.discarded == ["own-0"]


@pytest.mark.parametrize("status", [429, 502, 503, 504])
@pytest.mark.parametrize("before", [[], [refused(404)], [ok(OPENAPI)]])
def test_a_status_that_passes_is_not_a_dialect(status: int, before: list[Reply]):
    server = RecordingServer(None, timeout=0.01)
    with pytest.raises(ServerError, match=str(status)) as caught:
        Script(*before, refused(status)).run(operations.connect(server))
    assert caught.value.status == status
    assert server.known.dialect is None
    assert server.known.environments == ()


@pytest.mark.parametrize(
    ("reply", "kind", "text"),
    [
        (refused(401), AuthenticationError, "api_key"),
        (refused(403), AuthenticationError, "api_key"),
        (refused(500), ServerError, "500"),
        (refused(404), ProtocolError, "does not look like an ORS server"),
        (Reply(200, b"<html>"), ProtocolError, "does not look like an ORS server"),
        (ok({}), ProtocolError, "does not look like an ORS server"),
        (ok([]), ProtocolError, "serves no environment"),
        (failing(Failure.TLS), ConnectionFailedError, "list_environments"),
    ],
)
def test_what_is_no_server(reply: Reply, kind: type[ORSError], text: str) -> None:
    server = RecordingServer(None, redact=Redactor(["hunter22"]))
    with pytest.raises(kind, match=text):
        Script(ok(OPENAPI), reply).run(operations.connect(server))
    assert server.known.environments == ()


@pytest.mark.parametrize(
    ("environments", "name", "found"),
    [
        (("Math", "guess"), "Math", "Math"),
        (("Math", "guess"), "math", "Math"),
        (("Math", "guess"), "GUESS", "guess"),
        # The very name comes before one that only differs in case.
        (("ab", "AB"), "ab", "ab"),
        (("ab", "AB"), "AB", "AB"),
        (("ab", "AB"), "aB", "ab"),
        (("straße",), "STRASSE", "straße"),
    ],
)
def test_names_are_found_in_any_case(environments, name, found):
    server = RecordingServer(environments=environments)
    assert Script().run(operations.resolve_environment(server, name)) == found


@pytest.mark.parametrize(
    ("name", "environments", "text"),
    [
        ("x", ("Math", "guess"), r"it has 'Math', 'guess'$"),
        ("maths", ("Math", "guess"), r"\. Did you mean 'Math'\?$"),
        ("x", tuple(f"e{i}" for i in range(25)), "and 5 more"),
    ],
)
def test_an_unknown_name(name: str, environments: tuple[str, ...], text: str) -> None:
    server = RecordingServer(environments=environments)
    with pytest.raises(UnknownEnvironmentError, match=text):
        Script().run(operations.resolve_environment(server, name))


def test_tools_and_splits() -> None:
    server = RecordingServer()
    script = Script(ok({"tools": [{"name": "f"}], "terminal_tool": None}), ok(["test"]))
    tools, rest = script.run_all(
        operations.list_tools(server, "math"), operations.list_splits(server, "math")
    )
    assert tools[0][0]["name"] == "f"
    assert tools[1] == {"terminal_tool": None}
    assert rest == [{"name": "test", "type": "test"}]
    assert script.targets == ["GET /Math/tools", "GET /Math/splits"]


def test_a_refusal_of_a_question() -> None:
    server = RecordingServer()
    tasks, message = operations.list_tasks(server, "math", "x"), "Invalid split"
    with pytest.raises(UnknownTaskError, match=f"{message}.*'split': 'x'") as caught:
        Script(refused(400, message)).run(tasks)
    assert caught.value.status == 400
    with pytest.raises(ORSError, match="answered 500"):
        Script(refused(500)).run(operations.list_splits(server, "math"))


def test_tasks_by_index() -> None:
    server = RecordingServer()
    script = Script(ok({"num_tasks": 3}), ok({"task": {"id": 1}}), ok({"tasks": [{}]}))
    assert script.run_all(
        operations.num_tasks(server, "math", "train"),
        operations.get_task(server, "math", "train", 1),
        operations.get_task_range(server, "math", "train", 1, None),
    ) == [3, {"id": 1}, [{}]]
    paths = ("num_tasks", "task", "task_range")
    assert script.targets == [f"POST /Math/{path}" for path in paths]
    assert script.body(2) == {"split": "train", "start": 1, "stop": None}


@pytest.mark.parametrize("dialect", [OLD, UNKNOWN])
def test_tasks_of_a_server_that_only_lists_them(dialect: Dialect) -> None:
    server = RecordingServer(dialect)
    listed = ok({"tasks": [{"id": i} for i in range(4)]})
    missing = [] if dialect is OLD else [refused(404)]
    script = Script(*missing, listed, *missing)
    assert script.run_all(
        operations.get_task(server, "Math", "train", 2),
        operations.get_task(server, "Math", "train", 3),
        operations.num_tasks(server, "Math", "train"),
        operations.get_task_range(server, "Math", "train", -2, None),
    ) == [{"id": 2}, {"id": 3}, 4, [{"id": 2}, {"id": 3}]]
    # The whole set is asked for once, and so is what is not there.
    assert script.targets.count("POST /Math/tasks") == 1
    with pytest.raises(UnknownTaskError, match="4 tasks, none of index 4"):
        Script().run(operations.get_task(server, "Math", "train", 4))


def test_a_range_of_a_server_that_gives_single_tasks() -> None:
    dialect = Dialect(SecretsChannel.BODY, num_tasks=True, task_range=False)
    server = RecordingServer(dialect)
    script = Script(ok({"num_tasks": 3}), *(ok({"task": {"id": i}}) for i in (1, 2)))
    tasks = script.run(operations.get_task_range(server, "Math", "train", 1, 9))
    assert tasks == [{"id": 1}, {"id": 2}]


@pytest.mark.parametrize(
    ("dialect", "status", "kind"),
    [(NEW, 404, InvalidRequestError), (UNKNOWN, 400, UnknownTaskError)],
)
def test_an_endpoint_that_should_be_there_is_not_given_up(dialect, status, kind):
    server = RecordingServer(dialect)
    with pytest.raises(kind, match=str(status)):
        Script(refused(status)).run(operations.num_tasks(server, "Math", "train"))


def test_an_index_counts_from_zero() -> None:
    with pytest.raises(UnknownTaskError, match="counts from 0"):
        Script().run(operations.get_task(RecordingServer(), "Math", "train", -1))


DEPLOYED = (("X-Deployment", "Owner/Name"),)
SSE = stream(("task_id", "g1"), ("end", ""))


def test_a_deployment_changes_nothing_for_a_plain_server() -> None:
    server = RecordingServer(None, headers=DEPLOYED)
    script = Script(ok(OPENAPI), ok(["a"]))
    script.run(operations.connect(server))
    assert script.targets == ["GET /openapi.json", "GET /list_environments"]
    assert not server.dialect.routes_by_session


def test_a_gateway_is_asked_with_a_session() -> None:
    server = RecordingServer(None, headers=DEPLOYED)
    done = ok({"sid": "g1"})
    asked = [SSE, ok(OPENAPI), done, SSE, ok(["a"]), done]
    script = Script(refused(404), *asked)
    script.run(operations.connect(server))
    routed = ["POST /create_session", "GET /openapi.json", "POST /delete_session"]
    assert script.targets[:4] == ["GET /openapi.json", *routed]
    assert script.header(2, "X-Session-ID") == "g1"
    assert script.header(2, "X-Deployment") == "Owner/Name"
    assert server.dialect.routes_by_session
    assert server.discarded == []


@pytest.mark.parametrize("hidden", [refused(404), ok({}), Reply(200, b"<html>")])
def test_a_gateway_that_passes_no_description_on_is_a_current_one(hidden) -> None:
    server = RecordingServer(None, headers=DEPLOYED)
    done = ok({"sid": "g1"})
    script = Script(refused(404), SSE, hidden, done, SSE, ok(["a"]), done)
    script.run(operations.connect(server))
    assert server.dialect.secrets is SecretsChannel.HEADER
    assert server.dialect.num_tasks is None


@pytest.mark.parametrize(
    "answers", [(failing(Failure.TLS),), (ok({}), failing(Failure.TLS))]
)
def test_a_session_that_was_not_handed_back_is_deleted(answers) -> None:
    server = RecordingServer(dataclasses.replace(NEW, routes_by_session=True))
    operation = operations.list_splits(server, "math")
    with pytest.raises(ORSError):
        Script(SSE, *answers).run(operation)
    assert server.discarded == ["g1"]


def test_an_openenv_server_is_told_as_such() -> None:
    routes = ("/reset", "/step", "/state", "/{env_name}/tasks", "/list_environments")
    described = ok(
        {"info": {"title": "OpenEnv"}, "paths": {path: {} for path in routes}}
    )
    with pytest.raises(ProtocolError, match=r"is an OpenEnv server.*no sessions"):
        Script(described).run(operations.connect(RecordingServer(None)))


@pytest.mark.parametrize(
    "refusal", [refused(400, "list_tasks is not supported"), refused(500)]
)
def test_tasks_that_are_given_by_index_only_are_listed_in_ranges(refusal) -> None:
    tasks = [{"id": i} for i in range(1500)]
    count = ok({"num_tasks": 1500})
    parts = (ok({"tasks": tasks[:1000]}), ok({"tasks": tasks[1000:]}))
    script = Script(refusal, count, *parts)
    listing = operations.list_tasks(RecordingServer(), "math", "train")
    assert script.run(listing) == tasks
    asked = [script.body(number) for number in (2, 3)]
    assert [(one["start"], one["stop"]) for one in asked] == [(0, 1000), (1000, 1500)]


def test_a_set_that_is_too_large_to_be_listed_is_refused() -> None:
    refusal = refused(400, "list_tasks is not supported")
    listing = operations.list_tasks(RecordingServer(), "math", "train")
    with pytest.raises(InvalidRequestError, match=r"10000000 tasks.*get_task_range"):
        Script(refusal, ok({"num_tasks": 10_000_000})).run(listing)


@pytest.mark.parametrize(
    ("text", "advised"), [("Environment is at max capacity", True), ("slow", False)]
)
def test_a_server_at_its_capacity_is_told_with_advice(text: str, advised: bool) -> None:
    server = RecordingServer(timeout=0.01)
    with pytest.raises(ServerError) as caught:
        Script(refused(429, text)).run(operations.list_splits(server, "math"))
    assert ("max_concurrent=" in str(caught.value)) is advised
