"""What is asked again, when, and how often; and what is asked only once."""

import logging
from collections.abc import Callable

import pytest

import ors_gym
from ors_gym.protocol._retries import Retry
from tests.support.proxy import scripted
from tests.support.proxy.http1 import ReceivedRequest
from tests.system.faults.scripted_ors import scripted_ors, scripted_session, whole_call

DATE = ("Date", "Wed, 21 Oct 2015 07:28:00 GMT")
LATER = ("Retry-After", "Wed, 21 Oct 2015 07:28:01 GMT")
STARTING = ("X-Backend-State", "starting")


def first(
    times: int, status: int, then: object, *headers: tuple[str, str]
) -> scripted.Handler:
    """Answer so many requests with a status, and those that follow with a value."""
    left = [status] * times

    def answer(_: ReceivedRequest) -> scripted.RawReply:
        if left:
            return scripted.json_reply({"detail": "not now"}, left.pop(), headers)
        return scripted.json_reply(then)

    return answer


class Told(list[Retry]):
    """What a hook was told, apart from deletes, which the background repeats."""

    def take(self, retry: Retry) -> None:
        if "/delete" not in retry.request:
            self.append(retry)


def count(server: scripted.ScriptedServer, ending: str) -> int:
    return sum(request.path.endswith(ending) for request in server.requests)


PROMPT = [{"type": "text", "text": "Go."}]
ASKED: dict[str, tuple[object, Callable[[ors_gym.ORSClient], object]]] = {
    "list_environments": (["box"], lambda client: client.list_environments()),
    "tools": ({"tools": []}, lambda client: client.list_tools("box")),
    "splits": (["train"], lambda client: client.list_splits("box")),
    "num_tasks": ({"num_tasks": 3}, lambda client: client.num_tasks("box", "train")),
    "task": ({"task": {}}, lambda client: client.get_task("box", "train", 0)),
    "tasks": ({"tasks": []}, lambda client: client.list_tasks("box", "train")),
}


@pytest.mark.parametrize("endpoint", ASKED)
@pytest.mark.parametrize("status", [429, 502, 503, 504])
def test_what_changes_nothing_is_asked_again(endpoint: str, status: int) -> None:
    then, ask = ASKED[endpoint]
    told = Told()
    with (
        scripted_ors(**{endpoint: first(2, status, then)}) as server,
        ors_gym.ORSClient(server.url, on_retry=told.take) as client,
    ):
        ask(client)
        assert count(server, f"/{endpoint}") == 3
    assert [retry.attempt for retry in told] == [1, 2]
    assert all(endpoint in retry.request for retry in told)
    assert all(str(status) in retry.reason for retry in told)


@pytest.mark.parametrize("endpoint", [*ASKED, "prompt", "create", "call"])
@pytest.mark.parametrize("status", [401, 403])
def test_a_refused_key_is_an_error_at_once(endpoint: str, status: int) -> None:
    told = Told()
    with (
        scripted_ors(**{endpoint: first(99, status, None)}) as server,
        ors_gym.ORSClient(server.url, on_retry=told.take) as client,
    ):
        with pytest.raises(ors_gym.AuthenticationError, match="api_key") as caught:
            if endpoint in ASKED:
                ASKED[endpoint][1](client)
            with client.session("box", split="train", index=0) as session:
                session.get_prompt()
                session.call_tool("go", {})
        assert caught.value.status == status
        assert count(server, f"/{endpoint}") == 1
    assert told == []


@pytest.mark.parametrize(
    "headers", [(("Retry-After", "1"),), (DATE, LATER)], ids=["seconds", "date"]
)
def test_the_server_says_when(headers: tuple[tuple[str, str], ...]) -> None:
    told = Told()
    again = first(1, 503, PROMPT, *headers)
    with scripted_session({"on_retry": told.take}, prompt=again) as (_, session):
        session.get_prompt()
    assert [retry.delay for retry in told] == [1.0]


@pytest.mark.parametrize(
    "asked", ["3600", "Wed, 21 Oct 2099 07:28:00 GMT", "9" * 400, "-1", "soon", ""]
)
def test_a_wait_beyond_the_budget_is_not_begun(asked: str) -> None:
    told = Told()
    busy = first(9999, 503, PROMPT, DATE, ("Retry-After", asked))
    options = {"on_retry": told.take}, {"setup_timeout": 1.0}
    with (
        scripted_session(*options, prompt=busy) as (_, session),
        pytest.raises(ors_gym.ServerError) as caught,
    ):
        session.get_prompt()
    assert caught.value.status == 503
    assert sum(retry.delay for retry in told) < 1.0
    if asked[:1] in ("3", "W", "9"):
        assert told == []


@pytest.mark.parametrize("status", [400, 404, 405, 422, 500, 501])
def test_what_will_not_pass_is_not_asked_again(status: int) -> None:
    refused = first(9999, status, PROMPT)
    with scripted_session(prompt=refused) as (server, session):
        with pytest.raises(ors_gym.ORSError):
            session.get_prompt()
        assert count(server, "/prompt") == 1


def test_a_session_is_deleted_though_the_server_is_busy() -> None:
    with scripted_ors(delete=first(2, 503, {"sid": ""})) as server:
        client = ors_gym.ORSClient(server.url)
        with client, client.session("box", split="train", index=0) as session:
            session.get_prompt()
        assert count(server, "/delete") == 3


def test_a_refused_call_waits_and_runs_once() -> None:
    answers = [scripted.json_reply({}, 429), scripted.json_reply({}, 503, (STARTING,))]

    def call(_: ReceivedRequest) -> scripted.RawReply:
        return answers.pop() if answers else scripted.stream_reply(whole_call())

    with scripted_session(call=call) as (server, session):
        assert session.call_tool("go", {})["reward"] == 1.0
        bodies = [r.json for r in server.requests if r.path.endswith("/call")]
        assert bodies == [{"name": "go", "input": {}}] * 3


@pytest.mark.parametrize("times", [1, 5])
def test_a_slow_start_is_ridden_out_beyond_the_timeout_of_a_request(times: int) -> None:
    again = first(times, 503, PROMPT, STARTING, ("Retry-After", "0"))
    options = {"timeout": 0.5}, {"setup_timeout": 30}
    with scripted_session(*options, prompt=again) as (server, session):
        assert session.get_prompt() == PROMPT
        assert count(server, "/prompt") == times + 1


def test_an_environment_that_never_starts() -> None:
    never = first(10**6, 503, PROMPT, STARTING, ("Retry-After", "0"))
    options = {"setup_timeout": 1.0}
    with (
        scripted_session(session=options, prompt=never) as (_, session),
        pytest.raises(ors_gym.SetupFailedError, match="setup_timeout"),
    ):
        session.get_prompt()


def test_what_is_repeated_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "ors_gym")
    with (
        scripted_ors(splits=first(1, 502, ["train"])) as server,
        ors_gym.ORSClient(server.url) as client,
    ):
        client.list_splits("box")
    said = [r.getMessage() for r in caplog.records if r.name == "ors_gym"]
    (line,) = [text for text in said if server.url in text]
    for word in ("GET /box/splits", "status 502", "attempt 1"):
        assert word in line
