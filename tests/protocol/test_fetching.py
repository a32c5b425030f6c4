"""Requests that may be repeated: when, how long, and where to."""

from typing import Any

import pytest

from ors_gym.errors import ConnectionFailedError, LimitExceededError, ProtocolError
from ors_gym.protocol._exchange import (
    REUSE_WITHIN,
    Failure,
    Head,
    Operation,
    Outcome,
    Pause,
    Send,
)
from ors_gym.protocol._operations.fetching import fetch, within
from ors_gym.protocol._replies import BodyReader
from ors_gym.protocol._retries import Patience, Retry
from tests.protocol.scripted_exchanges import (
    RecordingServer,
    Reply,
    Script,
    failing,
    ok,
    refused,
)

pytestmark = pytest.mark.unit

HEAD = Head("GET", "/x")


def moved(location: str, status: int = 307, **fields: Any) -> Reply:
    return Reply(status, headers=((b"Location", location.encode()),), **fields)


def test_an_answer_is_an_answer_whatever_its_status() -> None:
    for status in (200, 204, 400, 401, 404, 410, 422, 500):
        script = Script(refused(status))
        outcome, body = script.run(fetch(RecordingServer(), HEAD))
        assert (outcome.status, body) == (status, b'{"detail": "no"}')
        assert script.sends[0].reuse_within == REUSE_WITHIN
        assert script.idle == [None]


def test_what_passes_is_repeated_and_told() -> None:
    told: list[Retry] = []
    starting = ((b"X-Backend-State", b"starting"), (b"Retry-After", b"3"))
    script = Script(
        *map(failing, (Failure.CONNECT, Failure.RESET, Failure.STALL)),
        *map(refused, (429, 502)),
        refused(503, headers=starting),
        refused(504),
        ok([1]),
    )
    server = RecordingServer(on_retry=told.append)
    assert script.run(fetch(server, HEAD))[1] == b"[1]"
    assert script.pauses == [0.05, 0.1, 0.2, 0.4, 0.8, 3.0, 3.2]
    assert [retry.reason for retry in told] == [
        *("connect", "reset", "stall"),
        *("status 429", "status 502", "starting", "status 504"),
    ]
    assert told[0] == Retry("GET /x", "connect", 1, 0.05)


@pytest.mark.parametrize(
    ("failure", "kind"),
    [
        (Failure.TLS, ConnectionFailedError),
        (Failure.TIMEOUT, ConnectionFailedError),
        (Failure.PROTOCOL, ProtocolError),
        (Failure.LIMIT, LimitExceededError),
    ],
)
def test_what_does_not_pass_is_raised_at_once(failure: Failure, kind: type[Exception]):
    with pytest.raises(kind, match=r"GET http://h:1/base/x failed"):
        Script(failing(failure)).run(fetch(RecordingServer(), HEAD))


def test_the_budget_ends_it() -> None:
    script = Script(*[refused(503, elapsed=1.0)] * 6)
    outcome, _ = script.run(fetch(RecordingServer(), HEAD, budget=8.0))
    assert outcome.status == 503
    assert script.elapsed <= 8.0
    timeouts = [send.timeout for send in script.sends]
    assert timeouts == sorted(timeouts, reverse=True)

    script = Script(*[failing(Failure.RESET, elapsed=1.0)] * 4)
    with pytest.raises(ConnectionFailedError, match="it was reset"):
        script.run(fetch(RecordingServer(), HEAD, budget=4.0))
    script = Script(refused(503), refused(503))
    assert script.run(fetch(RecordingServer(), HEAD, attempts=2))[0].status == 503


def test_a_server_that_never_answered_is_not_waited_for_long() -> None:
    server = RecordingServer(timeout=600.0)
    server.known.reached = False
    script = Script(*(failing(Failure.CONNECT) for _ in range(6)))
    with pytest.raises(ConnectionFailedError):
        script.run(fetch(server, HEAD))
    assert script.elapsed < 2.0
    assert not server.known.reached
    Script(ok(1)).run(fetch(server, HEAD))
    assert server.known.reached


@pytest.mark.parametrize("status", [301, 302, 307, 308])
@pytest.mark.parametrize(
    ("location", "target"),
    [
        ("/base/y", "/y"),
        ("/base/y?a=1#part", "/y?a=1"),
        ("http://h:1/base/y/", "/y/"),
        ("HTTP://H:1/base/y", "/y"),
        ("y", "/y"),
    ],
)
def test_a_redirect_within_the_origin_is_followed(status, location, target):
    script = Script(moved(location, status), ok(1))
    head = Head("POST", "/x", [("X-Session-ID", "s1")])
    assert script.run(fetch(RecordingServer(), head, b"{}"))[0].status == 200
    assert script.targets == ["POST /x", f"POST {target}"]
    assert script.sends[1].head.headers == head.headers
    assert script.sends[1].body == b"{}"


@pytest.mark.parametrize("location", ["/base/y", "y", "https://h/base/y"])
def test_a_base_url_may_name_the_default_port(location: str) -> None:
    server = RecordingServer(base_url="https://h:443/base", origin="https://h")
    script = Script(moved(location), ok(1))
    assert script.run(fetch(server, HEAD))[0].status == 200
    assert script.targets == ["GET /x", "GET /y"]


@pytest.mark.parametrize(
    "location",
    [
        *("http://other:1/base/y", "https://h:1/base/y", "http://h:2/base/y"),
        *("http://h/base/y", "//other/base/y", "http://user@h:1/base/y"),
        *("http://h:1@other/base/y", "http://h:1.other/base/y", "http://[::1/base/y"),
        *("/elsewhere", "/based", "/base/../y", "/base/a b", "/base/é", ""),
    ],
)
def test_a_redirect_elsewhere_is_not_followed(location: str) -> None:
    if location:
        script = Script(moved(location))
    else:
        script = Script(Reply(307, headers=()), Reply(307, headers=()))
    outcome, _ = script.run(fetch(RecordingServer(), HEAD))
    assert outcome.status == 307
    assert set(script.targets) == {"GET /x"}


def test_one_redirect_is_followed_and_one_cut_short_is_repeated() -> None:
    script = Script(moved("/base/y"), moved("/base/z"))
    assert script.run(fetch(RecordingServer(), HEAD))[0].status == 307
    script = Script(moved("/base/y", failure=Failure.RESET), ok(1))
    assert script.run(fetch(RecordingServer(), HEAD))[0].status == 200
    assert script.targets == ["GET /x", "GET /x"]


def steps(*planned: Send | Pause) -> Operation[list[Outcome]]:
    outcomes: list[Outcome] = []
    for step in planned:
        outcome = yield step
        outcomes.append(outcome)
    return outcomes


def patience(seconds: float) -> Patience:
    return RecordingServer().patience(seconds)


def send(timeout: float) -> Send:
    return Send(HEAD, None, BodyReader(), timeout, 1.0)


def test_an_operation_within_another_keeps_its_time() -> None:
    script = Script(ok(1, elapsed=3.0), ok(1, elapsed=1.0))
    whole = patience(10.0)
    inner = steps(send(60.0), Pause(2.0), send(4.0), Pause(9.0), send(60.0))
    outcomes = script.run(within(whole, inner))
    assert [each.timeout for each in script.sends] == [10.0, 4.0]
    # What does not fit is not waited for, and nothing is sent after it.
    assert script.pauses == [2.0]
    assert whole.remaining == pytest.approx(-5.0)
    assert (outcomes[-1].failure, outcomes[-1].sent) == (Failure.TIMEOUT, False)


def test_an_operation_within_another_fails_when_the_time_is_over() -> None:
    with pytest.raises(ConnectionFailedError, match="the time was over"):
        Script().run(within(patience(0.0), fetch(RecordingServer(), HEAD)))


def test_an_operation_within_another_is_closed_with_it() -> None:
    closed: list[bool] = []

    def inner() -> Any:
        try:
            yield send(1.0)
        finally:
            closed.append(True)

    operation = within(patience(1.0), inner())
    next(operation)
    operation.close()
    assert closed == [True]
