"""When to ask again, and over which connection."""

from typing import Any

import pytest

from ors_gym.protocol._exchange import (
    CALL_REUSE_WITHIN,
    NEVER_REUSED,
    REUSE_WITHIN,
    Failure,
    Outcome,
)
from ors_gym.protocol._retries import (
    Patience,
    Reuse,
    certainly_not_run,
    is_starting,
    may_repeat,
    retry_after,
)

pytestmark = pytest.mark.unit


def reply(status: int = 503, **headers: str) -> Outcome:
    lines = [(k.replace("_", "-").encode(), v.encode()) for k, v in headers.items()]
    return Outcome(status=status, headers=lines)


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("0", 0.0),
        ("120", 120.0),
        (" 7 ", 7.0),
        ("99999999999999999999", 999999999.0),
        ("-5", None),
        ("1.5", None),
        ("soon", None),
        ("", None),
        ("\u0663".encode().decode("latin-1"), None),
        ("Wed, 21 Oct 2015 07:28:30 GMT", 30.0),
        ("Wed, 21 Oct 2015 07:27:00 GMT", 0.0),
        ("Wed, 21 Oct 2015 07:28:30 -0000", None),
        ("May -0000 00:00:60 99999999999 GMT", None),
        ("Wed, 99 Oct 2015 07:28:30 GMT", None),
    ],
)
def test_retry_after(value: str, seconds: float | None) -> None:
    date = (b"Date", b"Wed, 21 Oct 2015 07:28:00 GMT")
    headers = [(b"Retry-After", value.encode("latin-1")), date]
    assert retry_after(Outcome(status=503, headers=headers)) == seconds


def test_retry_after_as_a_date_needs_the_reply_s_own() -> None:
    assert retry_after(reply(Retry_After="Wed, 21 Oct 2015 07:28:00 GMT")) is None
    assert retry_after(reply()) is None


def patience(
    budget: float = 100.0, unreachable: float = 100.0, random: float = 0.0
) -> Patience:
    reuse = Reuse(lambda: 0.0)
    return Patience(budget, unreachable, random=lambda: random, reuse=reuse)


def test_waits_double_up_to_the_longest() -> None:
    steady = patience()
    delays = [steady.next_delay() for _ in range(9)]
    assert delays == [0.05, 0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 5.0, 5.0]
    assert steady.attempts == 9
    # At random each is shortened by up to a half.
    assert patience(random=0.999).next_delay() == pytest.approx(0.025, rel=0.01)


def test_what_the_server_asks_for_is_the_least() -> None:
    asked = patience()
    assert [asked.next_delay(7.0), asked.next_delay(0.0)] == [7.0, 0.1]


def test_a_wait_beyond_the_budget_is_none() -> None:
    short = patience(10.0)
    assert short.next_delay(10.0) is None
    short.spend(Outcome(elapsed=9.96))
    assert short.next_delay() is None


def test_no_answer_refills_the_budget() -> None:
    spent = patience(10.0)
    spent.spend(Outcome(status=200, elapsed=4.0))
    spent.spend(Outcome(status=503, elapsed=4.0))
    assert spent.remaining == pytest.approx(2.0)


def test_a_server_out_of_reach_has_a_budget_of_its_own() -> None:
    away = patience(unreachable=1.0)
    assert away.next_delay(unreachable=True) == 0.05
    away.spend(Outcome(failure=Failure.CONNECT, elapsed=0.9))
    assert away.next_delay(unreachable=True) is None
    assert away.next_delay() == 0.2


def test_starting_is_503_with_the_header() -> None:
    assert is_starting(reply(X_Backend_State="Starting"))
    assert not is_starting(reply(X_Backend_State="ready"))
    assert not is_starting(reply())
    assert not is_starting(reply(500, X_Backend_State="starting"))


@pytest.mark.parametrize("status", range(200, 600))
def test_statuses_that_pass(status: int) -> None:
    assert may_repeat(reply(status)) is (status in {429, 502, 503, 504})


@pytest.mark.parametrize("failure", list(Failure))
def test_failures_that_pass(failure: Failure) -> None:
    passing = {Failure.CONNECT, Failure.RESET, Failure.STALL}
    assert may_repeat(Outcome(failure=failure)) is (failure in passing)


@pytest.mark.parametrize("status", [200, 400, 401, 404, 429, 500, 502, 503, 504])
def test_a_call_is_repeated_only_if_it_was_not_run(status: int) -> None:
    assert certainly_not_run(reply(status), after_429=True) is (status == 429)
    assert not certainly_not_run(reply(status), after_429=False)
    starting = reply(503, X_Backend_State="starting")
    assert certainly_not_run(starting, after_429=False)


@pytest.mark.parametrize("failure", list(Failure))
def test_a_call_is_repeated_after_a_failure_if_no_byte_left(failure: Failure) -> None:
    for sent in (True, False):
        outcome = Outcome(sent=sent, failure=failure)
        assert certainly_not_run(outcome, after_429=True) is not sent


@pytest.mark.parametrize("failure", list(Failure))
@pytest.mark.parametrize("reused", [True, False])
def test_what_failed_on_a_used_connection_goes_on_over_new_ones(
    failure: Failure, reused: bool
) -> None:
    one = patience()
    assert one.reuse_within == REUSE_WITHIN
    assert one.call_reuse_within == CALL_REUSE_WITHIN
    one.spend(Outcome(failure=failure, reused=reused))
    fresh = reused and failure is not Failure.CONNECT
    assert (one.reuse_within == NEVER_REUSED) is fresh
    assert (one.call_reuse_within == NEVER_REUSED) is fresh


class Connections:
    """Breaks connections at chosen times, and says what a call may use then."""

    def __init__(self) -> None:
        self.now = 0.0
        self._reuse = Reuse(lambda: self.now)

    def patience(self) -> Patience:
        return Patience(9.0, 9.0, random=lambda: 0.0, reuse=self._reuse)

    def break_one(self, now: float, elapsed: float = 1.0, **fields: Any) -> None:
        self.now = now
        outcome = {"failure": Failure.RESET, "reused": True, **fields}
        self.patience().spend(Outcome(elapsed=elapsed, **outcome))

    def are_trusted(self, now: float) -> bool:
        self.now = now
        later = self.patience()
        assert later.reuse_within == REUSE_WITHIN
        return later.call_reuse_within == CALL_REUSE_WITHIN


def test_a_server_that_breaks_two_connections_gets_new_ones_for_a_while() -> None:
    server = Connections()
    server.break_one(100.0)
    assert server.are_trusted(101.0)
    server.break_one(200.0)
    assert not server.are_trusted(201.0)
    assert not server.are_trusted(499.0)
    # What may be repeated finds out whether it goes on.
    server.break_one(499.0)
    assert not server.are_trusted(798.0)
    assert server.are_trusted(799.0)
    # Once more is the first time again.
    for now in (800.0, 1101.0):
        server.break_one(now)
        assert server.are_trusted(now + 1)


def test_a_restart_breaks_all_connections_and_counts_once() -> None:
    server = Connections()
    for _ in range(9):
        server.break_one(100.0, elapsed=30.0)
    server.break_one(100.1, elapsed=5.0)
    assert server.are_trusted(101.0)


def test_only_used_connections_that_break_count() -> None:
    server = Connections()
    for now in range(100, 200, 10):
        server.break_one(now, reused=False)
        server.break_one(now + 1, failure=Failure.STALL)
        server.break_one(now + 2, failure=Failure.TIMEOUT)
    assert server.are_trusted(201.0)
