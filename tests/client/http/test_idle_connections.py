"""Which idle connection carries the next request, and which are closed."""

from typing import Any

from ors_gym.client.http._pool import IdleConnections


class _Idle:
    """A connection between two exchanges."""

    def __init__(self, last_byte: float, idle_seconds: float = float("inf")) -> None:
        self.last_byte = last_byte
        self.reader = self
        self.reused = False
        self.idle_seconds = idle_seconds


def _put(*connections: _Idle) -> tuple[IdleConnections[Any], list[_Idle]]:
    closed: list[_Idle] = []
    idle: IdleConnections[Any] = IdleConnections(closed.append)
    for connection in connections:
        idle.put(connection)
    return idle, closed


def test_the_one_used_last_is_used_next():
    older, newer = _Idle(1.0), _Idle(2.0)
    idle, closed = _put(older, newer)
    assert idle.take(3.0, 3.0) is newer
    assert idle.take(3.0, 3.0) is older
    assert idle.take(3.0, 3.0) is None
    assert closed == []


def test_one_that_is_too_old_for_a_call_may_serve_something_else():
    first, second, third = _Idle(0.0), _Idle(1.0), _Idle(2.0)
    idle, closed = _put(first, second, third)
    assert idle.take(5.5, 3.0) is None
    # A new connection takes the place of the oldest: their number does not grow.
    assert closed == [first]
    assert idle.take(5.5, 50.0) is third
    assert idle.take(5.5, 50.0) is second


def test_keep_alive_of_the_server_lowers_the_age():
    expired, good = _Idle(1.0, idle_seconds=1.0), _Idle(0.0, idle_seconds=4.0)
    idle, closed = _put(good, expired)
    assert idle.take(2.5, 3.0) is good
    assert closed == [expired]


def test_what_is_too_old_for_anything_is_closed():
    older, old, newest = _Idle(0.0), _Idle(1.0), _Idle(62.0)
    idle, closed = _put(older, old, newest)
    assert closed == [older, old]
    assert idle.take(62.0, 3.0) is newest
