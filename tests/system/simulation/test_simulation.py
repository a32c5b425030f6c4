"""The client's contract under every fault, and faulty clients that are found out."""

import dataclasses
import itertools
import math
from typing import Any, ClassVar
from unittest.mock import patch

import pytest

from ors_gym.errors import CallTimeoutError, ConnectionFailedError
from ors_gym.protocol._exchange import (
    CALL_REUSE_WITHIN,
    REUSE_WITHIN,
    Head,
    Limits,
    Send,
)
from ors_gym.protocol._operations import calls
from ors_gym.protocol._replies import BodyReader, StreamReader
from ors_gym.protocol._requests import call_body
from ors_gym.protocol._retries import Patience, Reuse
from ors_gym.protocol._server_state import Server, SessionState
from tests.support.slow_cases import mostly_slow
from tests.system.simulation.__main__ import main
from tests.system.simulation.client import Client, Script
from tests.system.simulation.episodes import (
    SCENARIOS,
    Episode,
    checked,
    endless,
    explore,
    moments,
    play_random,
    random_episode,
    sample,
    tally_of,
)
from tests.system.simulation.network import REPLAYS, Closing, Fault
from tests.system.simulation.player import Call, Part
from tests.system.simulation.server import FLAVOURS
from tests.system.simulation.virtual_time import Process, ViolationError, VirtualClock

pytestmark = pytest.mark.unit

HARMLESS = {
    *(Fault.REFUSED, Fault.SLOW, Fault.SLOW_TASK, Fault.SHORT_TASK),
    *(Fault.CUT_TASK, Fault.CUT_CHUNK, Fault.CUT_END, Fault.CUT_BLANK),
    *(Fault.CUT_IN_END, Fault.GATE_429, Fault.GATE_STARTING),
    *(Fault.HELD, Fault.TWICE, Fault.REPLAYED, Fault.ECHOED),
}
"""Faults that nobody should see, wherever one of them strikes."""

RESUMED = {Fault.SILENT_TASK, Fault.SILENT_CHUNK}
"""Faults that nobody should see if they strike a call."""

CALLS = (4, 5)  # the exchanges of the simplest episode that are calls


@pytest.mark.parametrize("name", ["openreward", "ors-sdk"])
def test_a_passing_fault_costs_no_result(name: str) -> None:
    hidden = 0
    for episode, report in explore(SCENARIOS[name], 1):
        for number, fault in episode.faults.items():
            if fault in HARMLESS or (fault in RESUMED and number in CALLS):
                hidden += 1
                assert (report.shown, report.errors) == (2, []), (number, fault)
    assert hidden > len(HARMLESS) * 7


@pytest.mark.slow
@pytest.mark.parametrize("name", list(SCENARIOS))
def test_every_fault_and_some_sequences_of_three(name: str) -> None:
    # `python -m tests.system.simulation --faults 3` plays every sequence of three.
    scenario = SCENARIOS[name]
    tally = tally_of(itertools.chain(explore(scenario, 1), sample(scenario, 300)))
    assert tally.episodes > 100
    assert 0 < tally.shown < tally.calls


@pytest.mark.parametrize("name", mostly_slow(SCENARIOS, usual=4))
def test_every_fault_for_ever(name: str) -> None:
    tally = tally_of(endless(SCENARIOS[name]))
    assert tally.shown < tally.calls / 2


def test_random_episodes() -> None:
    tally = play_random(0, 1500)
    assert tally.shown > tally.calls / 4
    expected = {
        *("AmbiguousCallError", "AuthenticationError", "CallTimeoutError"),
        *("ConnectionFailedError", "LimitExceededError", "ProtocolError"),
        *("SessionLostError", "SetupFailedError"),
    }
    assert expected <= set(tally.errors)


def test_an_episode_is_decided_by_its_seed() -> None:
    traces: list[list[str]] = [[], []]
    for trace in traces:
        random_episode(7).play(traced=trace)
    assert traces[0] == traces[1]
    assert len(traces[0]) > 5


def test_a_session_that_idles_is_kept_alive() -> None:
    idle = Part(calls=(Call(), Call(think=5000.0)))
    report = Episode(parts=(idle,)).play()
    assert (report.shown, report.errors) == (2, [])


def test_a_result_is_saved_within_its_minute() -> None:
    for fault in RESUMED:
        slow = Part(calls=(Call(seconds=50.0),), call_timeout=600.0)
        report = Episode(parts=(slow,), faults={4: fault}).play()
        assert (report.shown, report.runs) == (1, 1), fault


# Seeds of episodes that once broke the contract, or the model. They were drawn from the
# first 29 faults, with requests and replies in order.
@pytest.mark.parametrize("seed", [35, 629, 857, 922, 1080, 2148, 2773, 4677, 5522])
def test_a_seed_that_once_failed(seed: int) -> None:
    checked(dataclasses.replace(as_before(seed, 29), jitter=0.0))


# The same, from all faults and in any order.
@pytest.mark.parametrize("seed", [70502])
def test_a_seed_that_failed_out_of_order(seed: int) -> None:
    checked(as_before(seed, 34))


def as_before(seed: int, vocabulary: int) -> Episode:
    """Draw an episode as when there were so many faults, and nothing but them."""
    return dataclasses.replace(
        random_episode(seed), vocabulary=vocabulary, closing=None, exits_at=None
    )


# The same, with connections that are closed.
@pytest.mark.parametrize("seed", [28476])
def test_a_seed_that_failed_over_connections_that_live(seed: int) -> None:
    checked(random_episode(seed))


def test_a_call_is_not_repeated_after_its_session_was_closed() -> None:
    part = Part(calls=(Call(),), closed_at=3.0)
    report = Episode(parts=(part,), forever=(4, Fault.GATE_429)).play()
    assert report.errors == ["SessionClosedError"]
    assert report.runs == 0


def test_requests_and_replies_overtake_each_other() -> None:
    overtaken = replayed = left = 0
    for seed in range(300):
        episode = dataclasses.replace(random_episode(seed), jitter=30.0)
        report = checked(episode)
        arrivals = [each.arrived_at for each in report.played]
        overtaken += sum(a > b for a, b in itertools.pairwise(arrivals) if a < math.inf)
        replayed += sum(each.fault in REPLAYS for each in report.played)
        left += report.left
    assert overtaken > 100
    assert replayed > 20
    # A /create may arrive after every delete of its session.
    assert 0 < left < 30


@pytest.mark.parametrize("flavour", list(FLAVOURS))
def test_a_create_after_every_delete_is_left_to_the_reaper(flavour: str) -> None:
    for fault, left in ((Fault.LATE, 0), (Fault.LATER, 1)):
        report = Episode(flavour=flavour, faults={1: fault}).play()
        assert (report.shown, report.errors, report.left) == (2, [], left)


@pytest.mark.parametrize("closing", list(Closing))
@pytest.mark.parametrize("flavour", list(FLAVOURS))
def test_a_far_end_that_closes_connections_costs_no_result(
    flavour: str, closing: Closing
) -> None:
    slow = Part(calls=(Call(seconds=2.0), Call(seconds=2.0, finishes=True)))
    report = Episode(
        flavour=flavour,
        parts=(slow,),
        constructor=0.2,
        closing=closing,
        closes_after=(0.0005,),
    ).play()
    assert (report.shown, report.runs, report.errors, report.left) == (2, 2, [], 0)
    broken = [
        e.connection.used for e in report.played if e.outcome and e.outcome.failure
    ]
    assert len(broken) >= 2
    assert all(broken)


def test_what_a_far_end_did_is_forgotten() -> None:
    # The calls after five minutes go over a used connection again, and are lost on it.
    calls = (Call(), Call(think=1.0), Call(think=400.0), Call())
    closed = SCENARIOS["closed anyway"]
    report = dataclasses.replace(closed, parts=(Part(calls=calls),)).play()
    assert (report.shown, report.errors) == (3, ["AmbiguousCallError"])


@pytest.mark.parametrize("flavour", list(FLAVOURS))
@pytest.mark.parametrize("what", ["interrupted", "interrupted twice", "exits"])
def test_nothing_is_left_whenever_it_ends(flavour: str, what: str) -> None:
    scenario = Episode(flavour=flavour)
    times = moments(scenario)
    assert len(times) > 10
    for now in times:
        part = Part(cancelled_at=None if what == "exits" else now)
        episode = dataclasses.replace(scenario, parts=(part,))
        if what != "interrupted":
            episode.exits_at = now + (0.0 if what == "exits" else 0.0005)
        report = checked(episode)
        # A process that exits may be gone before a constructor is done.
        begun = [e for e in report.played if e.target == "/create" and not e.outcome]
        assert report.left <= (len(begun) if what != "interrupted" else 0)


def test_a_ping_that_arrives_after_the_close_does_nothing() -> None:
    idle = Part(calls=(Call(), Call(think=50.0)))
    quiet = Episode(parts=(idle,)).play()
    (ping,) = (e.number for e in quiet.played if e.target == "/ping")
    for fault in (Fault.LATER, Fault.HELD, Fault.ECHOED):
        report = Episode(parts=(idle,), faults={ping: fault}).play()
        assert (report.shown, report.errors, report.left) == (2, [], 0)
        late = [e.arrived_at for e in report.played if e.target == "/ping"]
        closed = [e.arrived_at for e in report.played if e.target == "/delete"]
        assert fault is Fault.ECHOED or max(late) > min(closed)


@pytest.mark.parametrize("fault", [Fault.TWICE, Fault.REPLAYED])
def test_no_client_survives_a_gateway_that_replays_calls(fault: Fault) -> None:
    # Servers refuse a task_id of the client's choosing, so the second is a new run.
    episode = Episode(faults={CALLS[0]: fault})
    assert episode.play().runs == 2
    episode.replays_calls = True
    with pytest.raises(ViolationError, match="run 2 times"):
        episode.play()


@pytest.mark.parametrize("fault", list(REPLAYS))
def test_a_gateway_may_replay_what_asks_for_a_result(fault: Fault) -> None:
    faults = {4: Fault.CUT_TASK, 5: fault}
    report = Episode(faults=faults, replays_calls=True).play()
    assert (report.shown, report.runs, report.errors) == (2, 2, [])
    assert report.played[5].fault is fault


def test_the_command_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["20"]) == 0
    assert "20 episodes" in capsys.readouterr().out
    assert main(["--seed", "3"]) == 0
    assert "Episode(" in capsys.readouterr().out


def test_a_process_that_waits_for_ever_is_noticed() -> None:
    class Nowhere:
        def exchange(self, process: Process, send: Send) -> None:
            """Never answer."""

    def script() -> Script:
        yield Send(Head("GET", "/"), None, BodyReader(), 1.0, 1.0)

    clock = VirtualClock()
    Process(clock, Nowhere(), script(), "it")
    with pytest.raises(ViolationError, match="never comes"):
        clock.run()


def in_calls(name: str, replacement: Any) -> Any:
    return patch(f"ors_gym.protocol._operations.calls.{name}", replacement)


real_spend = Patience.spend
real_read_output = calls._read_output
real_call_body = call_body
real_unanswered = calls._unanswered


real_note_break = Reuse.note_break
real_next_delay = Patience.next_delay
real_delete = Client._delete_in_background


def go_on_as_before(patience: Patience, outcome: Any) -> None:
    real_spend(patience, outcome)
    patience.reuse_within, patience.call_reuse_within = REUSE_WITHIN, CALL_REUSE_WITHIN


def condemn(reuse: Reuse, elapsed: float) -> None:
    real_note_break(reuse, elapsed)
    reuse.distrusted = True


def wait_too_long(patience: Patience, *rest: Any, **options: Any) -> float:
    return real_next_delay(patience, *rest, **options) or 5.0


def delete_unless_exiting(client: Client, session_id: str, *, again: bool) -> None:
    if not client.exiting:
        real_delete(client, session_id, again=again)


class JoiningReader(StreamReader):
    """Goes on with the pieces of the reply before."""

    pieces: ClassVar[list[bytes]] = []

    def __init__(self, limits: Limits) -> None:
        super().__init__(limits)
        self._parts = self.pieces


def refill(patience: Patience, outcome: Any) -> None:
    if outcome.status != 200:
        real_spend(patience, outcome)


def forget_the_end(state: SessionState, *rest: Any) -> Any:
    output = real_read_output(state, *rest)
    state.finished = False
    return output


def stay_open(server: Server, state: SessionState, *rest: Any) -> Any:
    error = real_unanswered(server, state, *rest)
    state.pending = None
    return error


def start_again(tool: str, tool_input: Any, task_id: str = "") -> bytes:
    return real_call_body(tool, tool_input)


MUTANTS: dict[str, Any] = {
    "a call is sent again after a reset": in_calls(
        "certainly_not_run", lambda outcome, **_: True
    ),
    "an answer of 200 refills the budget": patch.object(Patience, "spend", refill),
    "the end of the episode is ignored": in_calls("_read_output", forget_the_end),
    "an id is used again after an unanswered create": patch(
        "ors_gym.protocol._operations.sessions.certainly_not_run",
        lambda outcome, **_: True,
    ),
    "a session that was given up is not deleted": patch.object(
        Client, "discard", lambda self, session_id: None
    ),
    "a lost result is a tool's error": in_calls("_UNKNOWN_TASK", "?"),
    "a call goes over an old connection": patch(
        "ors_gym.protocol._retries.CALL_REUSE_WITHIN", 50.0
    ),
    "a session goes on after an ambiguous call": in_calls("_unanswered", stay_open),
    "a lost reply is said not to have run": in_calls(
        "_unanswered", lambda *rest: ConnectionFailedError("no")
    ),
    "a resumption is a new call": in_calls("call_body", start_again),
    "a deadline is not kept": patch.object(
        Patience, "spend", lambda self, outcome: None
    ),
    "a call is repeated on a closed session": patch.object(
        SessionState, "check_open", lambda self: None
    ),
    "a server that is out of reach is out of time": in_calls(
        "AmbiguousCallError", CallTimeoutError
    ),
    "a repetition goes over a used connection": patch.object(
        Patience, "spend", go_on_as_before
    ),
    "nothing is learned from broken connections": patch.object(
        Reuse, "note_break", lambda self, elapsed: None
    ),
    "one broken connection is enough": patch.object(Reuse, "note_break", condemn),
    "a restart counts for each connection that it breaks": patch.object(
        Reuse, "note_break", lambda self, elapsed: real_note_break(self, -1.0)
    ),
    "broken connections are never forgotten": patch.object(
        Reuse, "forget_in_time", lambda self: True
    ),
    "the server's word on when to come back is ignored": patch(
        "ors_gym.protocol._operations.fetching.retry_after", lambda outcome: None
    ),
    "a call that was turned away is called ambiguous": in_calls(
        "certainly_not_run", lambda outcome, **_: not outcome.sent
    ),
    "half a result counts": patch(
        "ors_gym.protocol._replies.parse_json", lambda *rest: None
    ),
    "the pieces of two replies are joined": in_calls("StreamReader", JoiningReader),
    "a session that the server lacks is not lost": in_calls(
        "note_loss", lambda *rest: None
    ),
    "the parts of an opening have their time each": patch(
        "ors_gym.protocol._operations.sessions.within", lambda patience, work: work
    ),
    "nothing waits before it asks again": patch.object(
        Patience, "next_delay", lambda self, *rest, **options: 0.0
    ),
    "a wait goes beyond the deadline": patch.object(
        Patience, "next_delay", wait_too_long
    ),
    "a process that exits deletes nothing": patch.object(
        Client, "_delete_in_background", delete_unless_exiting
    ),
}


def play_until_it_fails() -> None:
    for scenario in SCENARIOS.values():
        checked(scenario)
        checked(dataclasses.replace(scenario, exits_at=0.02))
    for name in ("openreward", "thoughtful", "ors-sdk"):
        tally_of(explore(SCENARIOS[name], 1))
        tally_of(endless(SCENARIOS[name]))
    play_random(0, 1000)


@pytest.mark.parametrize("name", list(MUTANTS))
def test_the_simulation_finds(name: str) -> None:
    with MUTANTS[name], pytest.raises(ViolationError):
        play_until_it_fails()


def test_the_simulation_finds_that_silence_is_endured() -> None:
    with (
        patch("ors_gym.protocol._replies.HEARTBEATS_MISSED", math.inf),
        pytest.raises(AssertionError, match="SILENT"),
    ):
        test_a_passing_fault_costs_no_result("openreward")
