"""The faults, and what has to come of each: the rows of the matrix."""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Final, Literal

from tests.support.proxy.faults import (
    STARTING,
    Answer,
    Close,
    Corrupt,
    Fault,
    HalfOpen,
    OneReply,
    Point,
    Reset,
    Stall,
    Trickle,
    Truncate,
)
from tests.support.servers.contract.outputs import text_of
from tests.system.faults.clients_under_test import RESULT, USUAL, Options

Times = Literal["once", "for ever"]

Call = tuple[str, Mapping[str, Any], str]
"""A tool, its arguments, and the text of its result."""

_ONE: Final[Call] = ("count", {}, "1")
_LONG: Final[Call] = (
    "speak",
    {"kind": "blanks", "size": 9000},
    text_of("blanks", 9000),
)
"""A result in three chunks, each of which begins with a blank."""
_SLOW: Final[Call] = ("slow", {"seconds": 2.0}, "slept")
# Seconds for a call that is never answered, and for the calls of the same client after
# it, which a busy machine has to answer in that time.
_HURRY: Final = 3.0
_HURRIED: Final = Options(call_timeout=_HURRY)

_SHOWN: Final = frozenset({RESULT})
_AMBIGUOUS: Final = frozenset({"ambiguous_call"})
_LOST: Final = frozenset({"session_lost"})
_TIMEOUT: Final = frozenset({"timeout"})


@dataclasses.dataclass(frozen=True, eq=False)
class Row:
    fault: str
    times: Times
    faults: tuple[Fault | None, ...] = ()  # as `FaultProxy.plan` takes them
    # What the user may see: a result, or the kind of an error.
    outcomes: frozenset[str] = _SHOWN
    _: dataclasses.KW_ONLY
    runs: int = 1
    path: str = "/call"
    resumes: bool = False  # only resumed calls are harmed
    early: bool = False  # it happens while the session is opened
    call: Call = _ONE
    options: Options = USUAL
    forgetful: bool = False  # the server keeps no result
    restart: Literal[
        "", "killed before", "restarted before", "killed during", "restarted during"
    ] = ""
    slow: bool = False
    leaks: bool = False  # A session may stay on the server
    # A gateway says "not run" of a tool that ran, and is believed: the one fault from
    # which no client can tell the truth (docs/wire.md, point 5).
    lies: bool = False

    @property
    def name(self) -> str:
        return f"{self.fault}, {self.times}"


def _breaks() -> list[Row]:
    """Resets, ends of the stream and early ends of the body, at every point."""
    rows = []
    words = ((Reset, "reset"), (Close, "end of stream"), (Truncate, "body cut"))
    for kind, word in words:
        for point in Point:
            if kind is Truncate and point in (Point.BEFORE_REQUEST, Point.BEFORE_REPLY):
                continue  # there is no body to cut
            early = (Point.BEFORE_REQUEST, Point.BEFORE_REPLY, Point.AFTER_HEAD)
            named = point not in early
            once = Row(
                f"{word} {point.value}",
                "once",
                (kind(point),),
                _SHOWN if named else _AMBIGUOUS,
                runs=0 if point is Point.BEFORE_REQUEST else 1,
                call=_LONG,
            )
            ever = replace(
                once,
                times="for ever",
                outcomes=_TIMEOUT if named else _AMBIGUOUS,
                options=_HURRIED if named else USUAL,
            )
            rows += [once, ever]
    return rows


_STATUSES: Final[Mapping[int, str]] = {
    401: "authentication",
    403: "authentication",
    404: "ambiguous_call",
    410: "session_lost",
    **dict.fromkeys((500, 502, 503, 504), "ambiguous_call"),
}
_TIMES: Final[tuple[Times, ...]] = ("once", "for ever")


def _statuses() -> list[Row]:
    """Error statuses to a call, before and after its tool ran."""
    rows = [
        Row(
            f"{status} {'after' if ran else 'before'} the tool ran",
            times,
            (Answer(status, ran=ran),),
            frozenset({kind}),
            runs=int(ran),
        )
        for status, kind in _STATUSES.items()
        for ran in (False, True)
        for times in _TIMES
    ]
    now = (("Retry-After", "0"),)
    waiting = Row("429 before the tool ran", "once", (Answer(429, now),))
    lying = Row(
        "429 after the tool ran",
        "once",
        (Answer(429, now, ran=True),),
        runs=2,
        call=("count", {}, "2"),
        lies=True,
    )
    doubted = replace(
        lying,
        fault="429 after the tool ran, with repeat_calls_after_429=False",
        outcomes=_AMBIGUOUS,
        runs=1,
        options=Options(for_client={"repeat_calls_after_429": False}),
        lies=False,
    )
    starting = Row("starting", "once", (STARTING,) * 3)
    never = Row("", "for ever", (), frozenset({"server"}), runs=0, options=_HURRIED)
    return [
        *rows,
        waiting,
        replace(never, fault=waiting.fault, faults=waiting.faults),
        lying,
        doubted,
        replace(doubted, times="for ever"),
        replace(starting, fault="starting, three times"),
        replace(never, fault=starting.fault, faults=starting.faults),
    ]


def _silences() -> list[Row]:
    """Stalls and half-open connections, and a reply that trickles."""
    rows = []
    for point, word in (
        (Point.BEFORE_REQUEST, "stall before the request"),
        (Point.BEFORE_REPLY, "stall before the headers"),
        (Point.AFTER_TASK_ID, "stall after task_id"),
        (Point.IN_CHUNK, "stall in a chunk"),
    ):
        runs = 0 if point is Point.BEFORE_REQUEST else 1
        short = Row(f"{word}, 0.3 s", "once", (Stall(point, 0.3),), call=_LONG)
        ever = Row(word, "for ever", (Stall(point),), _TIMEOUT, runs=runs, call=_LONG)
        rows += [short, replace(ever, options=_HURRIED)]
    vanished = (HalfOpen(Point.AFTER_TASK_ID),)
    half_open = Row("half-open after task_id", "for ever", vanished, _TIMEOUT)
    patient = replace(half_open, times="once", outcomes=_SHOWN, slow=True)
    rows.append(replace(half_open, options=_HURRIED))
    rows.append(replace(patient, options=Options(call_timeout=60)))
    for times in _TIMES:
        rows += [
            Row("one byte per packet", times, (Trickle(),), call=_LONG),
            Row(
                "invalid UTF-8 in a chunk",
                times,
                (Corrupt(Point.IN_CHUNK),),
                frozenset({"protocol"}),
                call=_LONG,
            ),
        ]
    return rows


def _resumptions() -> list[Row]:
    """Faults of the resumed call, after a first reply that broke after task_id."""
    rows = []
    for status in (401, 429, 500, 502, 503, 504):
        name, faults = f"{status} to the resumption", (Answer(status),)
        late = _TIMEOUT | _AMBIGUOUS
        rows.append(Row(name, "once", faults))
        rows.append(Row(name, "for ever", faults, late, options=_HURRIED))
    rows += [
        Row("404 to the resumption", "once", (Answer(404),), _AMBIGUOUS),
        Row("410 to the resumption", "once", (Answer(410),), _LOST),
        Row("starting to the resumption", "once", (STARTING,) * 3),
        Row(
            "unknown task_id to the resumption",
            "once",
            outcomes=_AMBIGUOUS,
            forgetful=True,
        ),
    ]
    first = Reset(Point.AFTER_TASK_ID)
    return [replace(row, faults=(first, *row.faults), resumes=True) for row in rows]


def _openings() -> list[Row]:
    hurry = Options(setup_timeout=_HURRY)
    unreached = frozenset({"connection"})
    rows = []
    for path in ("/create", "/create_session", "/prompt", "/task_tools"):
        unanswered = (Reset(Point.BEFORE_REPLY),)
        lost = Row(f"{path} unanswered", "once", unanswered, path=path, early=True)
        refused = replace(lost, fault=f"502 to {path}", faults=(Answer(502, ran=True),))
        never = replace(
            lost, times="for ever", outcomes=unreached, runs=0, options=hurry
        )
        rows += [
            *(lost, refused, never),
            replace(never, fault=f"{path} stalls", faults=(Stall(Point.BEFORE_REPLY),)),
            replace(
                never,
                fault=f"503 to {path}",
                faults=(Answer(503),),
                # Of a /create that was answered so, or of the fresh id after it.
                outcomes=frozenset({"server", "connection"}),
            ),
            replace(
                lost,
                fault=f"401 to {path}",
                faults=(Answer(401),),
                outcomes=frozenset({"authentication"}),
                runs=0,
            ),
        ]
    starting = Row(
        "starting to /prompt, three times",
        "once",
        (STARTING,) * 3,
        path="/prompt",
        early=True,
    )
    never = replace(
        starting,
        fault="starting to /prompt",
        times="for ever",
        outcomes=frozenset({"setup_failed"}),
        runs=0,
        options=hurry,
    )
    # Also what opens the session breaks, which teaches the client before the call.
    rows += [
        Row(
            f"each used connection breaks, {word}",
            "for ever",
            (OneReply(ran=ran),),
            path="",
            early=True,
        )
        for ran, word in ((False, "unseen"), (True, "after the request"))
    ]
    deletion = Row(
        "/delete unanswered", "once", (Reset(Point.BEFORE_REPLY),), path="/delete"
    )
    early = Row("/delete lost", "once", (Reset(Point.BEFORE_REQUEST),), path="/delete")
    return [*rows, starting, never, deletion, early]


def _restarts() -> list[Row]:
    unreached = _AMBIGUOUS | {"connection"}
    late = _TIMEOUT | _AMBIGUOUS
    before = Row("server killed before the call", "for ever", (), unreached, runs=0)
    again = Row("server restarted before the call", "once", (), _LOST, runs=0)
    during = Row("server killed during the call", "for ever", (), late, call=_SLOW)
    amid = Row("server restarted during the call", "once", (), _LOST, call=_SLOW)
    patient = Options(call_timeout=60.0)
    rows = [
        replace(before, restart="killed before", options=_HURRIED),
        replace(again, restart="restarted before"),
        replace(during, restart="killed during", options=Options(call_timeout=2.5)),
        replace(amid, restart="restarted during", options=patient),
    ]
    return [replace(row, leaks=True) for row in rows]


ROWS: Final[Sequence[Row]] = (
    *_breaks(),
    *_statuses(),
    *_silences(),
    *_resumptions(),
    *_openings(),
    *_restarts(),
)
