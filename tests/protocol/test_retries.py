"""When to ask again."""

import pytest

from ors_gym.protocol._exchange import Failure, Outcome
from ors_gym.protocol._retries import (
    Patience,
    is_starting,
    may_repeat,
    may_repeat_call,
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
    return Patience(budget, unreachable, random=lambda: random)


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
    assert may_repeat_call(reply(status), after_429=True) is (status == 429)
    assert not may_repeat_call(reply(status), after_429=False)
    starting = reply(503, X_Backend_State="starting")
    assert may_repeat_call(starting, after_429=False)


@pytest.mark.parametrize("failure", list(Failure))
def test_a_call_is_repeated_after_a_failure_if_no_byte_left(failure: Failure) -> None:
    for sent in (True, False):
        outcome = Outcome(sent=sent, failure=failure)
        assert may_repeat_call(outcome, after_429=True) is not sent
