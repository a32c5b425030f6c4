"""The faults, and what has to come of each: the rows of the matrix."""

from __future__ import annotations

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
_HURRY: Final = 1.5  # seconds for a call that will not be answered in any time
_TIMEOUTS: Final = frozenset({"timeout", "ambiguous_call"})


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Row:
    """A fault, and what has to come of it for every client."""

    fault: str
    times: Times
    faults: tuple[Fault | None, ...] = ()  # as `FaultProxy.plan` takes them
    # What the user may see: a result, or the kind of an error.
    outcomes: frozenset[str] = frozenset({RESULT})
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
            named = point not in (
                *(Point.BEFORE_REQUEST, Point.BEFORE_REPLY, Point.AFTER_HEAD),
            )
            once = Row(
                fault=f"{word} {point.value}",
                times="once",
                faults=(kind(point),),
                outcomes=frozenset({RESULT if named else "ambiguous_call"}),
                runs=0 if point is Point.BEFORE_REQUEST else 1,
                call=_LONG,
            )
            ever = replace(
                once,
                times="for ever",
                outcomes=frozenset({"timeout"}) if named else once.outcomes,
                options=Options(call_timeout=_HURRY) if named else USUAL,
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
            fault=f"{status} {'after' if ran else 'before'} the tool ran",
            times=times,
            faults=(Answer(status, ran=ran),),
            outcomes=frozenset({kind}),
            runs=int(ran),
        )
        for status, kind in _STATUSES.items()
        for ran in (False, True)
        for times in _TIMES
    ]
    waiting = Row(
        fault="429 before the tool ran",
        times="once",
        faults=(Answer(429, (("Retry-After", "0"),)),),
    )
    lying = Row(
        fault="429 after the tool ran",
        times="once",
        faults=(Answer(429, (("Retry-After", "0"),), ran=True),),
        runs=2,
        call=("count", {}, "2"),
        lies=True,
    )
    doubted = replace(
        lying,
        fault="429 after the tool ran, with repeat_calls_after_429=False",
        outcomes=frozenset({"ambiguous_call"}),
        runs=1,
        options=Options(for_client={"repeat_calls_after_429": False}),
        lies=False,
    )
    starting = Row(fault="starting", times="once", faults=(STARTING,) * 3)
    never = {
        "times": "for ever",
        "outcomes": frozenset({"server"}),
        "runs": 0,
        "options": Options(call_timeout=_HURRY),
    }
    return [
        *rows,
        waiting,
        replace(waiting, **never),  # type: ignore[arg-type]
        lying,
        doubted,
        replace(doubted, times="for ever"),
        replace(starting, fault="starting, three times"),
        replace(starting, **never),  # type: ignore[arg-type]
    ]


def _silences() -> list[Row]:
    """Stalls and half-open connections, and a reply that trickles."""
    late = Options(call_timeout=_HURRY)
    timeout = frozenset({"timeout"})
    rows = []
    for point, word in (
        (Point.BEFORE_REQUEST, "stall before the request"),
        (Point.BEFORE_REPLY, "stall before the headers"),
        (Point.AFTER_TASK_ID, "stall after task_id"),
        (Point.IN_CHUNK, "stall in a chunk"),
    ):
        rows += [
            Row(
                fault=f"{word}, 0.3 s",
                times="once",
                faults=(Stall(point, 0.3),),
                call=_LONG,
            ),
            Row(
                fault=word,
                times="for ever",
                faults=(Stall(point),),
                call=_LONG,
                outcomes=timeout,
                runs=0 if point is Point.BEFORE_REQUEST else 1,
                options=late,
            ),
        ]
    half_open = Row(
        fault="half-open after task_id",
        times="for ever",
        faults=(HalfOpen(Point.AFTER_TASK_ID),),
        outcomes=timeout,
        options=late,
    )
    patient = replace(
        half_open,
        times="once",
        outcomes=frozenset({RESULT}),
        options=Options(call_timeout=60),
        slow=True,
    )
    rows += [half_open, patient]
    for times in _TIMES:
        rows += [
            Row(
                fault="one byte per packet",
                times=times,
                faults=(Trickle(),),
                call=_LONG,
            ),
            Row(
                fault="invalid UTF-8 in a chunk",
                times=times,
                faults=(Corrupt(Point.IN_CHUNK),),
                call=_LONG,
                outcomes=frozenset({"protocol"}),
            ),
        ]
    return rows


def _resumptions() -> list[Row]:
    """Faults of the resumed call, after a first reply that broke after task_id."""
    lost = frozenset({"ambiguous_call"})
    rows = []
    for status in (401, 429, 500, 502, 503, 504):
        for times in _TIMES:
            ever = times == "for ever"
            rows.append(
                Row(
                    fault=f"{status} to the resumption",
                    times=times,
                    faults=(Answer(status),),
                    outcomes=_TIMEOUTS if ever else frozenset({RESULT}),
                    options=Options(call_timeout=_HURRY) if ever else USUAL,
                )
            )
    for status, outcomes in ((404, lost), (410, frozenset({"session_lost"}))):
        rows.append(
            Row(
                fault=f"{status} to the resumption",
                times="once",
                faults=(Answer(status),),
                outcomes=outcomes,
            )
        )
    rows.append(
        Row(fault="starting to the resumption", times="once", faults=(STARTING,) * 3)
    )
    rows.append(
        Row(
            fault="unknown task_id to the resumption",
            times="once",
            outcomes=lost,
            forgetful=True,
        )
    )
    first = Reset(Point.AFTER_TASK_ID)
    return [replace(row, faults=(first, *row.faults), resumes=True) for row in rows]


def _openings() -> list[Row]:
    """Faults while a session is opened."""
    hurry = Options(setup_timeout=_HURRY)
    unreached = frozenset({"connection"})
    rows = []
    for path in ("/create", "/create_session", "/prompt", "/task_tools"):
        lost = Row(
            fault=f"{path} unanswered",
            times="once",
            faults=(Reset(Point.BEFORE_REPLY),),
            path=path,
            early=True,
        )
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
        fault="starting to /prompt, three times",
        times="once",
        faults=(STARTING,) * 3,
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
    deletion = Row(
        fault="/delete unanswered",
        times="once",
        faults=(Reset(Point.BEFORE_REPLY),),
        path="/delete",
    )
    early = Row(
        fault="/delete lost",
        times="once",
        faults=(Reset(Point.BEFORE_REQUEST),),
        path="/delete",
    )
    return [*rows, starting, never, deletion, early]


def _restarts() -> list[Row]:
    """A server that is killed, between calls and during one."""
    return [
        Row(
            fault="server killed before the call",
            times="for ever",
            restart="killed before",
            outcomes=frozenset({"ambiguous_call", "connection"}),
            runs=0,
            options=Options(call_timeout=_HURRY),
            leaks=True,
        ),
        Row(
            fault="server restarted before the call",
            times="once",
            restart="restarted before",
            outcomes=frozenset({"session_lost"}),
            runs=0,
            leaks=True,
        ),
        Row(
            fault="server killed during the call",
            times="for ever",
            restart="killed during",
            outcomes=_TIMEOUTS,
            call=_SLOW,
            options=Options(call_timeout=2.5),
            leaks=True,
        ),
        Row(
            fault="server restarted during the call",
            times="once",
            restart="restarted during",
            outcomes=frozenset({"session_lost"}),
            call=_SLOW,
            options=Options(call_timeout=60.0),
            leaks=True,
        ),
    ]


ROWS: Final[Sequence[Row]] = (
    *_breaks(),
    *_statuses(),
    *_silences(),
    *_resumptions(),
    *_openings(),
    *_restarts(),
)
