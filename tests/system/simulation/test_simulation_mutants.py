"""Clients with a fault of their own: the simulation finds each, so it can fail."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any
from unittest.mock import patch

import pytest

from ors_gym.errors import CallTimeoutError, ConnectionFailedError
from ors_gym.protocol._operations import calls
from ors_gym.protocol._requests import call_body
from ors_gym.protocol._retries import Patience
from ors_gym.protocol._wire import SessionState
from tests.system.simulation.client import Client
from tests.system.simulation.explore import SCENARIOS, endless, explore, play_random
from tests.system.simulation.test_simulation_episodes import (
    test_a_passing_fault_costs_no_result,
)
from tests.system.simulation.world import ViolationError

CALLS = "ors_gym.protocol._operations.calls"
OPENING = "ors_gym.protocol._operations.opening"

real_spend = Patience.spend
real_read_output = calls._read_output
real_call_body = call_body
real_unanswered = calls._unanswered


def refill(patience: Patience, outcome: Any) -> None:
    if outcome.status != 200:
        real_spend(patience, outcome)


def forget_the_end(state: SessionState, *rest: Any) -> Any:
    output = real_read_output(state, *rest)
    state.finished = False
    return output


def stay_open(state: SessionState, *rest: Any) -> Any:
    error = real_unanswered(state, *rest)
    state.pending = None
    return error


def start_again(tool: str, tool_input: Any, task_id: str = "") -> bytes:
    return real_call_body(tool, tool_input)


MUTANTS: dict[str, Callable[[], Any]] = {
    "a call is sent again after a reset": lambda: patch(
        f"{CALLS}.is_starting", lambda outcome: True
    ),
    "an answer of 200 refills the budget": lambda: patch.object(
        Patience, "spend", refill
    ),
    "the end of the episode is ignored": lambda: patch(
        f"{CALLS}._read_output", forget_the_end
    ),
    "an id is used again after an unanswered create": lambda: patch(
        f"{OPENING}._refused_unrun", lambda outcome: True
    ),
    "a session that was given up is not deleted": lambda: patch.object(
        Client, "abandon", lambda self, session_id: None
    ),
    "a lost result is a tool's error": lambda: patch(f"{CALLS}._UNKNOWN_TASK", "?"),
    "a call goes over an old connection": lambda: patch(f"{CALLS}._REUSE_WITHIN", 50.0),
    "a session goes on after an ambiguous call": lambda: patch(
        f"{CALLS}._unanswered", stay_open
    ),
    "a lost reply is said not to have run": lambda: patch(
        f"{CALLS}._unanswered", lambda *rest: ConnectionFailedError("no")
    ),
    "a resumption is a new call": lambda: patch(f"{CALLS}.call_body", start_again),
    "a deadline is not kept": lambda: patch.object(
        Patience, "spend", lambda self, outcome: None
    ),
    "a call is repeated on a closed session": lambda: patch.object(
        SessionState, "check_open", lambda self: None
    ),
    "a server that is out of reach is out of time": lambda: patch(
        f"{CALLS}.AmbiguousCallError", CallTimeoutError
    ),
}


def play_until_it_fails() -> None:
    for name in ("openreward", "thoughtful", "ors-sdk"):
        for _ in explore(SCENARIOS[name], 1):
            pass
        for _ in endless(SCENARIOS[name]):
            pass
    play_random(0, 1000)


@pytest.mark.parametrize("name", list(MUTANTS))
def test_the_simulation_finds(name: str) -> None:
    with MUTANTS[name](), pytest.raises(ViolationError):
        play_until_it_fails()


def test_the_simulation_finds_that_silence_is_endured() -> None:
    with (
        patch("ors_gym.protocol._replies.HEARTBEATS_MISSED", math.inf),
        pytest.raises(AssertionError, match="SILENT"),
    ):
        test_a_passing_fault_costs_no_result("openreward")
