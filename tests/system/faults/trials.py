"""Plays rows of the matrix with all clients at once, and judges what came of them."""

import concurrent.futures
import contextlib
import dataclasses
import functools
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Final

from tests.support.proxy.http1 import ReceivedRequest
from tests.support.proxy.proxy import FaultProxy
from tests.support.servers.process import RunningServer, start_server
from tests.system.faults.clients_under_test import (
    CLIENTS,
    RESULT,
    ClientUnderTest,
    Shown,
)
from tests.system.faults.matrix import Row

AT_ONCE: Final = 4  # rows that are played at the same time: most of a row is waiting
SLACK: Final = 10.0  # seconds beyond its deadline after which a call is said to hang

_DELETED_WITHIN: Final = 75.0
"""Seconds. Where a busy server takes /create after the first delete, the second one,
a minute later, is what ends the session (docs/wire.md, point 11)."""

Clients = Sequence[type[ClientUnderTest]]
ServerOf = Callable[[str, Row], RunningServer]
"""Gives the server of an SDK that a row is played on."""


@dataclasses.dataclass(frozen=True, slots=True)
class Cell:
    shown: Shown
    runs: int
    struck: bool
    wrong: str  # what was not as it should be
    leaked: frozenset[str]  # the sessions that stayed on the server

    def mistakes(self, row: Row) -> list[str]:
        found = []
        if not self.struck and row.faults:
            found.append("the fault did not happen")
        if self.shown.outcome not in row.outcomes:
            found.append(f"{self.shown} in place of {sorted(row.outcomes)}")
        if self.runs != row.runs:
            found.append(f"{self.runs} runs in place of {row.runs}")
        if self.leaked:
            found.append(f"left on the server: {sorted(self.leaked)}")
        if self.wrong:
            found.append(self.wrong)
        return found


@dataclasses.dataclass(slots=True)
class _Trial:
    client: ClientUnderTest
    proxy: FaultProxy
    sessions: set[str] = dataclasses.field(default_factory=set)
    shown: Shown | None = None
    runs: int = 0
    struck: bool = False
    wrong: str = ""

    def plan(self, row: Row) -> None:
        victim = self.client.victim if self.client.opened else None

        def fits(request: ReceivedRequest) -> bool:
            return victim is None or request.session_id == victim

        then = "forever" if row.times == "for ever" else "pass"
        # A server that has conversations is asked for one.
        path = ("/prompt", "/messages") if row.path == "/prompt" else row.path
        self.proxy.plan(path, row.faults, then, fits)  # type: ignore[arg-type]

    def start(self) -> None:
        self.shown = self.client.start()

    def call(self, row: Row) -> None:
        tool, arguments, text = row.call
        start = time.monotonic()
        shown = self.shown = self.client.call(tool, arguments)
        took = time.monotonic() - start
        self.wrong = shown.wrong
        if took > row.options.call_timeout + SLACK:
            self.wrong = f"it took {took:.1f} s"
        if shown.outcome == RESULT and shown.text != text:
            self.wrong = f"the text was {shown.text[:200]!r}"

    def settle(self, row: Row, server: RunningServer) -> None:
        """Count the runs, once nothing more can come; then let all be well."""
        self.proxy.wait_until_done()
        self.note_sessions()
        hurt = self.sessions - {self.client.bystander}
        self.runs = sum(server.runs(session=session) for session in hurt)
        self.struck = bool(self.proxy.struck()) or bool(row.restart)
        if row.path != "/delete":
            self.proxy.clear()

    def note_sessions(self) -> None:
        created = self.proxy.requests("/create")
        self.sessions |= {request.session_id or "" for request in created}

    def leave(self) -> None:
        assert self.shown is not None
        self.wrong = self.wrong or self.client.after(self.shown, self.proxy)
        self.client.close()
        self.note_sessions()
        self.struck = self.struck or bool(self.proxy.struck())

    def leaked(self, row: Row, server: RunningServer) -> frozenset[str]:
        if row.leaks:
            return frozenset()
        leaked = set()
        for session in self.sessions:
            if server.log("ready", session=session):
                try:
                    seconds = _DELETED_WITHIN
                    server.wait_for("teardown", seconds=seconds, session=session)
                except TimeoutError:
                    leaked.add(session)
        return frozenset(leaked)


class _Trials(contextlib.ExitStack):
    """All clients in one row, at work at the same time."""

    def __init__(self, row: Row, server: RunningServer, clients: Clients) -> None:
        super().__init__()
        self._row = row
        self._server = server
        self._pool = concurrent.futures.ThreadPoolExecutor(len(clients), "client")
        self.enter_context(self._pool)
        self.each_one = [self._trial(kind) for kind in clients]

    def _trial(self, kind: type[ClientUnderTest]) -> _Trial:
        proxy = self.enter_context(FaultProxy(self._server.base_url))
        client = kind(proxy.url, self._row.options)
        client.bystander_is_safe = not self._row.restart
        return _Trial(client, proxy)

    def each(self, work: Callable[[_Trial], object]) -> None:
        list(self._pool.map(work, self.each_one))

    def open(self) -> None:
        if self._row.early:
            self.each(lambda trial: trial.plan(self._row))
        self.each(_Trial.start)
        if not self._row.early:
            self.each(lambda trial: trial.plan(self._row))

    def call(self) -> None:
        """Make the calls, with the server's end before them or meanwhile."""
        row = self._row
        if row.restart.endswith("before"):
            self._end_server()
        ready = [trial for trial in self.each_one if trial.shown is None]
        calls = [self._pool.submit(trial.call, row) for trial in ready]
        if row.restart.endswith("during"):
            self._server.wait_for("run", len(calls), tool=row.call[0])
            self._end_server()
        for call in calls:
            call.result()

    def leave(self) -> None:
        self.each(lambda trial: trial.settle(self._row, self._server))
        if self._row.restart.startswith("killed"):
            self._server.start()
        self.each(_Trial.leave)

    def _end_server(self) -> None:
        self._server.kill()
        if self._row.restart.startswith("restarted"):
            self._server.start()


def play_all(
    rows: Sequence[Row],
    name: str,
    server_of: ServerOf,
    clients: Clients = CLIENTS,
) -> dict[Row, dict[str, Cell]]:
    """Play rows, several at a time unless they end their server."""
    played: dict[Row, dict[str, Cell]] = {}
    harmless = [row for row in rows if not row.restart]
    # Servers are started one after the other, before the rows.
    servers = [server_of(name, row) for row in harmless]
    with concurrent.futures.ThreadPoolExecutor(AT_ONCE, "row") as pool:
        cells = pool.map(functools.partial(_play, clients), harmless, servers)
        played.update(zip(harmless, cells, strict=True))
    for row in rows:
        if row.restart:
            played[row] = _play(clients, row, server_of(name, row))
    return {row: played[row] for row in rows}


def _play(clients: Clients, row: Row, server: RunningServer) -> dict[str, Cell]:
    with _Trials(row, server, clients) as trials:
        trials.open()
        trials.call()
        trials.leave()
        return {
            trial.client.name: Cell(
                trial.shown or Shown("nothing", ""),
                *(trial.runs, trial.struck, trial.wrong),
                trial.leaked(row, server),
            )
            for trial in trials.each_one
        }


@contextlib.contextmanager
def serving(
    names: Sequence[str], usual: Callable[[str], RunningServer] | None = None
) -> Iterator[ServerOf]:
    """Give servers for rows: one that is shared, and others for what it cannot do."""
    running: dict[tuple[str, str], RunningServer] = {}
    with contextlib.ExitStack() as stack:

        def give(name: str, row: Row) -> RunningServer:
            assert name in names
            kind = "forgetful" if row.forgetful else "mortal" if row.restart else ""
            if not kind and usual is not None:
                return usual(name)
            if (name, kind) not in running:
                linger = 0.0 if row.forgetful else None
                server = start_server(name, linger=linger)
                running[name, kind] = stack.enter_context(server)
            running[name, kind].mark()
            return running[name, kind]

        yield give
