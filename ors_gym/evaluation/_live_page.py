"""The live page of runs: what follows their files, and the server on loopback."""

from __future__ import annotations

import contextlib
import json
import os
import re
import secrets
import socketserver
import sys
import threading
import time
import traceback
import urllib.parse
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import BufferedReader
from pathlib import Path
from typing import Any, Final

from ors_gym.errors import InvalidRequestError
from ors_gym.evaluation._page import (
    LIVE_POLICY,
    Update,
    list_episode,
    list_tasks,
    live_page,
    read_text,
    show_comparison,
    show_figures,
    show_plots,
    show_transcript,
    show_warning,
)
from ors_gym.evaluation._result import Evaluation
from ors_gym.formats._json import decode_json
from ors_gym.rollout import Episode, Step, Turn
from ors_gym.rollout._output import OUTPUT, Record, read_planned, read_record
from ors_gym.rollout._planned_rollout import Key
from ors_gym.server._web import is_foreign
from ors_gym.types import JSONObject

_READING_SECONDS: Final = 0.5
"""Seconds for which an update reads rows; the next one goes on."""
_PACE_SECONDS: Final = 300.0
"""Seconds over which the pace of a run is measured."""
_SHARE: Final = 10
"""A slow part is computed again after this many times the seconds that it took."""
_PARTS: Final = re.compile("[a-z0-9_]+")
"""The parts of a word that JSON writes unchanged."""
MALFORMED: Final = (
    *(InvalidRequestError, ValueError, TypeError, LookupError, AttributeError),
)
"""What reading a malformed row may raise."""
_HEADERS: Final = {
    "Content-Security-Policy": LIVE_POLICY,
    "Cache-Control": "no-store",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


@contextlib.contextmanager
def view(
    path: str | os.PathLike[str],
    other: str | os.PathLike[str] | None = None,
    *,
    port: int = 0,
) -> Iterator[str]:
    """Serve a page of the output file of an evaluation, also while it is written.

    The page is the one of ``ors-gym report --html``, and follows the file: figures with
    their intervals, reward by task, errors, and every episode. Only this machine can
    reach it, at an address that cannot be guessed. It loads nothing from elsewhere.

    Args:
        path: The file. It need not be there yet.
        other: Another one, which the first is compared with.
        port: The port on 127.0.0.1; 0 for any free one.

    Yields:
        The page's address, which answers for as long as the block runs.

    Raises:
        InvalidRequestError: If the port is not free, or if a path is a directory's.

    Example:
        >>> with view("run.jsonl") as address:
        ...     print(address)  # doctest: +ELLIPSIS
        http://127.0.0.1:.../
    """
    paths = [path] if other is None or other == path else [path, other]
    for one in paths:
        if Path(one).is_dir():
            raise InvalidRequestError(
                f"{os.fspath(one)} is a directory, not the output file of an evaluation"
            )
    runs = [WatchedRun(os.fspath(one)) for one in paths]
    try:
        server = _Server(Viewer(runs), port)
    except OSError as error:
        raise InvalidRequestError(f"port {port} cannot be used: {error}") from None
    thread = threading.Thread(target=server.serve_forever, args=(0.1,), daemon=True)
    thread.start()
    try:
        yield server.address
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class WatchedRun:
    """An output file that is read on as it grows; only the figures stay in memory.

    Texts and pictures of an episode are left in the file. ``changes`` has the rows in
    the order in which they were read. A file that was replaced or cut is read from its
    beginning again; ``generation`` counts these beginnings.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.generation = 0
        self._path = Path(name)
        self._begin(None)

    def _begin(self, identity: tuple[int, int] | None) -> None:
        self._identity = identity
        self._first = b""
        self._lines = self._offset = 0
        self._places: dict[Key, int] = {}
        self._starts: list[int] = []
        self._paces: deque[tuple[float, int]] = deque()
        self._written = time.time()
        self.head: JSONObject = {}
        self.records: list[Record] = []
        self.rows: list[list[Any]] = []
        self.changes: list[int] = []
        self.problem = ""

    @property
    def state(self) -> tuple[int, int]:
        return self.generation, len(self.changes)

    def read(self, seconds: float) -> bool:
        """Read on for a while, and say whether there is more."""
        until = time.monotonic() + seconds
        self.problem = ""
        try:
            with self._path.open("rb") as file:
                self._begin_if_replaced(file)
                file.seek(self._offset)
                for value, line in OUTPUT.read_on(file, self._path, self._lines + 1):
                    self._take(value, line)
                    if time.monotonic() > until:
                        return True
        except FileNotFoundError:
            gone = f"{self.name} is gone" if self.head else f"waiting for {self.name}"
            self.problem = f"{gone}: there is no such file"
        except OSError as error:
            self.problem = f"{self.name} cannot be read: {error.strerror}"
        except InvalidRequestError as error:
            self.problem = str(error)
        self._paces.append((time.monotonic(), len(self.rows)))
        while self._paces[0][0] < time.monotonic() - _PACE_SECONDS:
            self._paces.popleft()
        return False

    def _begin_if_replaced(self, file: BufferedReader) -> None:
        found = os.fstat(file.fileno())
        goes_on = (
            _identify(file) == self._identity
            and found.st_size >= self._offset
            and file.read(len(self._first)) == self._first
        )
        if not goes_on:
            self.generation += 1
            self._begin(_identify(file))
        self._written = found.st_mtime

    def _take(self, value: Any, line: bytes) -> None:
        if not self._lines:
            self.head, self._first = OUTPUT.check_head(value, self._path), line
        else:
            record = read_record(value, self._path)
            try:
                listed = list_episode(0, record)
                brief = _without_texts(record)
            except MALFORMED as error:
                said = f"line {self._lines + 1} holds no whole episode: {error}"
                raise OUTPUT.damaged(self._path, said) from None
            place = self._places.setdefault(record.key, len(self.records))
            # Of several rows of one episode the last counts.
            here = slice(place, place + 1)
            self.records[here] = [brief]
            self.rows[here] = [[place, *listed[1:]]]
            self._starts[here] = [self._offset]
            self.changes.append(place)
        self._lines += 1
        self._offset += len(line)

    def progress(self) -> JSONObject:
        pace = None
        if self._paces:
            (then, before), (now, done) = self._paces[0], self._paces[-1]
            pace = (done - before) / (now - then) if now > then + 3 else None
        return {
            "done": len(self.rows),
            "planned": read_planned(self.head),
            "idle": max(0.0, time.time() - self._written),
            "pace": pace,
            "problem": self.problem,
        }

    def transcript(self, row: int, generation: int) -> str | None:
        """Return an episode as HTML; None where it is no longer in the file."""
        if generation != self.generation or not 0 <= row < len(self._starts):
            return None
        start, identity = self._starts[row], self._identity
        with self._path.open("rb") as file:
            if _identify(file) != identity:
                return None
            file.seek(start)
            record = read_record(decode_json(file.readline().decode()), self._path)
        return show_transcript(record.episode)

    def search(self, words: Sequence[str]) -> Iterator[int]:
        """Yield the rows whose transcripts hold all words, whatever their case."""
        # A line that lacks a plain part of the words cannot match: most stay undecoded.
        parts = [part.encode() for part in _PARTS.findall(" ".join(words))]
        starts, identity = list(self._starts), self._identity
        with contextlib.suppress(OSError), self._path.open("rb") as file:
            for row, start in enumerate(starts if _identify(file) == identity else ()):
                file.seek(start)
                line = file.readline()
                folded = line.lower()
                if all(part in folded for part in parts) and self._holds(line, words):
                    yield row

    def _holds(self, line: bytes, words: Sequence[str]) -> bool:
        try:
            record = read_record(decode_json(line.decode()), self._path)
            text = read_text(record.episode).lower()
        except MALFORMED:
            return False
        return all(word in text for word in words)


def _identify(file: BufferedReader) -> tuple[int, int]:
    found = os.fstat(file.fileno())
    return found.st_dev, found.st_ino


def _without_texts(record: Record) -> Record:
    """Return a record with what figures are made of."""
    episode = record.episode
    steps = [
        Step(
            *(one.turn, "", sys.intern(one.tool), {}, [], one.reward),
            reward_is_null=one.reward_is_null,
            error=one.error,
            error_kind=one.error_kind,
            seconds=one.seconds,
        )
        for one in episode.steps
    ]
    # What was said counts only where no call could be read.
    said = episode.unreadable_text
    actions = [{"tool": ""}] if said is None else [said]
    turns = [Turn(actions, said, seconds=one.seconds) for one in episode.turns]
    brief = Episode(
        *(episode.environment, episode.task_index, episode.split, episode.number),
        steps=steps,
        turns=turns,
        stop_reason=episode.stop_reason,
        total_reward=episode.total_reward,
        error=episode.error,
        error_kind=episode.error_kind,
        seconds=episode.seconds,
        setup_seconds=episode.setup_seconds,
        attempts=episode.attempts,
        extra={"usage": episode.usage},
    )
    return Record(brief, record.success, record.task)


class Viewer:
    """Makes the updates of a page out of runs, for any number of readers."""

    def __init__(self, runs: Sequence[WatchedRun]) -> None:
        self._runs = runs
        self._lock = threading.Lock()
        self._slow = [_Slow(self._find_figures), _Slow(self._find_plots)]
        self._found: dict[str, tuple[int, Any]] = {}
        """The version and the value of parts: ``RUN/NAME`` for those of a run."""
        self._version = 0

    @property
    def names(self) -> list[str]:
        return [run.name for run in self._runs]

    def update(self, cursor: str) -> Update:
        """Return what is new since the update that gave the cursor; all, if empty."""
        with self._lock:
            more = False
            for run in self._runs:
                more |= run.read(_READING_SECONDS)
            states = [run.state for run in self._runs]
            # At most one slow part for each update, so that what is ready shows first.
            due = [] if more else [one for one in self._slow if one.is_due(states)]
            for slow in due[:1]:
                self._version += 1
                for name, value in slow.find(states).items():
                    self._found[name] = self._version, value
            return self._news(cursor, more=more or len(due) > 1)

    def _news(self, cursor: str, *, more: bool) -> Update:
        version, *before = _read_cursor(cursor, 1 + 2 * len(self._runs))
        runs: list[Update] = []
        for run, of, seen in zip(self._runs, before[::2], before[1::2], strict=True):
            changes = run.changes[seen:] if of == run.generation else run.changes
            rows = [run.rows[place] for place in dict.fromkeys(changes)]
            progress = run.progress()
            runs.append({"of": run.generation, "progress": progress, "rows": rows})
        news: Update = {"runs": runs, "more": more}
        for name, (since, value) in self._found.items():
            place, _, part = name.rpartition("/")
            if since > version:
                target = runs[int(place)] if place else news
                target[part] = value
        seen_now = (number for run in self._runs for number in run.state)
        return news | {"cursor": ".".join(map(str, (self._version, *seen_now)))}

    def transcript(self, run: int, row: int, generation: int) -> str | None:
        """Return an episode as HTML; None where it is not, or no longer, there."""
        known = 0 <= run < len(self._runs)
        return self._runs[run].transcript(row, generation) if known else None

    def search(self, query: str) -> list[list[int]]:
        """Return the rows of each run whose transcripts contain all words."""
        words = query.lower().split()
        return [list(run.search(words)) for run in self._runs]

    def _evaluations(self) -> list[Evaluation]:
        return [
            Evaluation(run.records, head=run.head, planned=read_planned(run.head))
            for run in self._runs
        ]

    def _find_figures(self, changed: Sequence[int]) -> dict[str, Any]:
        found = self._evaluations()
        parts: dict[str, Any] = {
            f"{place}/figures": show_figures(found[place]) for place in changed
        }
        parts["tasks"] = list_tasks(found)
        if len(found) == 2:
            parts["comparison"] = self._compare(found)
        return parts

    def _compare(self, found: Sequence[Evaluation]) -> str:
        try:
            comparison = found[0].compare(found[1])
        except InvalidRequestError as error:
            return show_warning(str(error))
        return show_comparison(" minus ".join(self.names), comparison)

    def _find_plots(self, changed: Sequence[int]) -> dict[str, Any]:
        found = self._evaluations()
        return {f"{place}/plots": show_plots(found[place]) for place in changed}


class _Slow:
    """Parts of an update that take seconds to compute for many episodes.

    They are computed again only after a multiple of that time; rows are shown at once.
    """

    def __init__(self, find: Callable[[Sequence[int]], dict[str, Any]]) -> None:
        self._find = find
        self._states: Sequence[tuple[int, int] | None] = []
        self._next = 0.0

    def is_due(self, states: list[tuple[int, int]]) -> bool:
        return states != self._states and time.monotonic() >= self._next

    def find(self, states: list[tuple[int, int]]) -> dict[str, Any]:
        """Return the parts of the runs that changed, by name."""
        before = self._states or [None] * len(states)
        pairs = enumerate(zip(states, before, strict=True))
        begun = time.monotonic()
        found = self._find([place for place, (now, then) in pairs if now != then])
        self._states = states
        self._next = time.monotonic() + _SHARE * (time.monotonic() - begun)
        return found


def _read_cursor(cursor: str, length: int) -> list[int]:
    """Return the numbers of a cursor; for any other text, those of a new reader."""
    numbers = cursor.split(".")
    if len(numbers) != length or not all(map(str.isdecimal, numbers)):
        return [-1] * length
    return [int(number) for number in numbers]


class _Server(ThreadingHTTPServer):
    """Answers on the loopback interface, beside a path that nobody can guess."""

    daemon_threads = True

    def __init__(self, viewer: Viewer, port: int) -> None:
        self.viewer = viewer
        self.root = f"/{secrets.token_urlsafe(24)}/"
        super().__init__(("127.0.0.1", port), _Handler)

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_port}{self.root}"

    def server_bind(self) -> None:
        # Without the look-up of a name by HTTPServer, which may ask the network.
        socketserver.TCPServer.server_bind(self)
        self.server_port = self.server_address[1]

    def handle_error(self, request: Any, client_address: Any) -> None:  # noqa: ARG002
        """Print no traceback of a reader who has gone."""
        if not isinstance(sys.exception(), ConnectionError | TimeoutError):
            traceback.print_exc()


class _Handler(BaseHTTPRequestHandler):
    timeout = 30
    server: _Server

    def do_GET(self) -> None:
        """Answer with the page, an update, or a transcript."""
        headers = self.headers
        host, origin = headers.get("Host", ""), headers.get("Origin", "")
        if is_foreign(host, origin):
            self._answer(HTTPStatus.FORBIDDEN, "This page is for this machine only.")
            return
        path, _, query = self.path.partition("?")
        root = self.server.root
        if not secrets.compare_digest(path[: len(root)].encode(), root.encode()):
            self._answer(HTTPStatus.NOT_FOUND, "Not found.")
            return
        asked = path[len(root) :]
        if asked and headers.get("Sec-Fetch-Site", "same-origin") != "same-origin":
            self._answer(HTTPStatus.FORBIDDEN, "Only the page itself may ask for this.")
            return
        fields = dict(urllib.parse.parse_qsl(query))
        viewer = self.server.viewer
        match asked:
            case "":
                page = live_page(f"Runs: {', '.join(viewer.names)}", viewer.names)
                self._answer(HTTPStatus.OK, page, "text/html")
            case "state":
                update = viewer.update(fields.get("cursor", ""))
                text = json.dumps(update, separators=(",", ":"))
                self._answer(HTTPStatus.OK, text, "application/json")
            case "search":
                rows = viewer.search(fields.get("for", ""))
                self._answer(HTTPStatus.OK, json.dumps(rows), "application/json")
            case "transcript":
                self._answer_transcript(fields)
            case _:
                self._answer(HTTPStatus.NOT_FOUND, "Not found.")

    def _answer_transcript(self, fields: Mapping[str, str]) -> None:
        try:
            run, row, of = (int(fields[name]) for name in ("run", "row", "of"))
            found = self.server.viewer.transcript(run, row, of)
        except (OSError, *MALFORMED):
            found = None
        if found is None:
            said = "This episode cannot be read from the file."
            self._answer(HTTPStatus.NOT_FOUND, said)
        else:
            self._answer(HTTPStatus.OK, found, "text/html")

    def _answer(self, status: int, text: str, media: str = "text/plain") -> None:
        body = text.encode()
        self.send_response(status)
        self.send_header("Content-Type", f"{media}; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        for name, value in _HEADERS.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        """Print nothing: the terminal is the user's, and the path is a secret."""
