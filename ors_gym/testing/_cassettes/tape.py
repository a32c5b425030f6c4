"""Which recorded reply answers a request: by environment, task and calls so far."""

from __future__ import annotations

import collections
import dataclasses
import difflib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

from ors_gym._shown_text import shorten
from ors_gym.testing._cassettes.rows import Reply, Request, Row

_SHOWN: Final = 120
_COMPARED: Final = 2000
_UPKEEP: Final[Mapping[str, Any]] = {
    "ping": {"status": "ok"},
    "delete": {},
    "delete_session": {},
}
"""Endpoints that keep or end a session, with replies for those that were not recorded.
They depend on time only, and say nothing of the environment."""


class NotRecordedError(Exception):
    """Raised for a request that the cassette has no reply to; it says what is near."""


class Tape:
    """The replies of a cassette.

    Several players may play at once, and any number of times. The sessions that were
    recorded of one task are played in turn, so that a group of rollouts gets a group.
    """

    def __init__(self, rows: Iterable[Row]) -> None:
        self._questions: dict[str, Row] = {}
        self._recordings: dict[str, list[_Recording]] = {}
        self._keeping: dict[str, Reply] = {
            name: Reply(200, "json", content) for name, content in _UPKEEP.items()
        }
        self._started: collections.Counter[str] = collections.Counter()
        sessions: dict[int, _Recording] = {}
        for row in rows:
            request = row.request
            if request.endpoint in _UPKEEP and row.reply.status == 200:
                self._keeping[request.endpoint] = row.reply
            if row.session is None:
                # Of two answers to one question the last counts.
                self._questions[request.key] = row
            elif row.session in sessions:
                sessions[row.session].add(row)
            else:
                found = sessions[row.session] = _Recording(row)
                self._recordings.setdefault(request.key, []).append(found)

    def answer(self, request: Request) -> Reply:
        """Answer a question that belongs to no session.

        Raises:
            NotRecordedError: If it was not recorded.
        """
        if request.endpoint in _UPKEEP:
            return self._keeping[request.endpoint]
        # Some clients name a session with every request, whoever answers.
        for routed in (request.routed, not request.routed):
            asked_so = dataclasses.replace(request, routed=routed)
            if asked_so.key in self._questions:
                return self._questions[asked_so.key].reply
        asked = [row.request for row in self._questions.values()]
        raise NotRecordedError(_describe(request, asked, str(request)))

    def open(self, request: Request) -> tuple[PlayedSession, Reply]:
        """Open a session for a /create.

        Raises:
            NotRecordedError: If no session of this task was recorded.
        """
        found = self._recordings.get(request.key)
        if not found:
            created = [each[0].created.request for each in self._recordings.values()]
            raise NotRecordedError(_describe(request, created, "a session like this"))
        turn = self._started[request.key] % len(found)
        self._started[request.key] += 1
        played = PlayedSession(self, [*found[turn:], *found[:turn]])
        return played, played.begin()


class _Recording:
    """One session that was recorded."""

    def __init__(self, created: Row) -> None:
        self.created = created
        self.calls: list[Row] = []
        self.questions: dict[str, list[tuple[int, Row]]] = {}
        """Everything else that was asked, and after how many calls."""

    def add(self, row: Row) -> None:
        if row.request.endpoint == "call":
            self.calls.append(row)
        else:
            asked = self.questions.setdefault(row.request.key, [])
            asked.append((len(self.calls), row))

    def find(self, key: str, calls: int, times: int) -> Reply | None:
        """Find the reply to a question that is asked again after so many calls."""
        asked = self.questions.get(key)
        if asked is None:
            return None
        before = [made for made, _ in asked if made <= calls]
        made = max(before) if before else asked[0][0]
        replies = [row.reply for when, row in asked if when == made]
        return replies[min(times, len(replies) - 1) if made == calls else -1]


class PlayedSession:
    """A session that is being played.

    Every recording in ``_left`` gave the same replies so far.
    """

    def __init__(self, tape: Tape, recordings: Sequence[_Recording]) -> None:
        self._tape = tape
        self._left = list(recordings)
        self._calls = 0
        self._asked: collections.Counter[tuple[str, int]] = collections.Counter()
        self.results: dict[str, Reply] = {}
        """The replies to its calls, by their task_ids."""

    def begin(self) -> Reply:
        """Return the reply to /create."""
        return self._choose([(one, one.created.reply) for one in self._left])

    def answer(self, request: Request) -> Reply:
        """Answer a request of the session.

        Raises:
            NotRecordedError: If no recording that is left has it.
        """
        if request.endpoint in _UPKEEP:
            return self._tape.answer(request)
        if request.endpoint == "call":
            return self._call(request)
        place = request.key, self._calls
        found = [
            (one, reply)
            for one in self._left
            if (reply := one.find(*place, self._asked[place])) is not None
        ]
        self._asked[place] += 1
        if found:
            # A recording that has no such request says nothing against this reply, so
            # it stays possible.
            silent = [one for one in self._left if request.key not in one.questions]
            reply = self._choose(found)
            self._left += silent
            return reply
        try:
            return self._tape.answer(request)
        except NotRecordedError:
            asked = [
                row.request
                for one in self._left
                for rows in one.questions.values()
                for _, row in rows
            ]
            said = _describe(request, asked, f"{request} of this session")
            raise NotRecordedError(said) from None

    def _call(self, request: Request) -> Reply:
        place = self._calls
        next_calls = [
            (one, one.calls[place]) for one in self._left if len(one.calls) > place
        ]
        found = [
            (one, row.reply)
            for one, row in next_calls
            if row.request.key == request.key
        ]
        if not found:
            what = f"{request} as call {place + 1} of {self._name}"
            raise NotRecordedError(
                _describe(request, [row.request for _, row in next_calls], what)
                if next_calls
                else f"{what} was not recorded: the recording ends after {place} calls"
            )
        self._calls += 1
        return self._choose(found)

    def _choose(self, found: Sequence[tuple[_Recording, Reply]]) -> Reply:
        """Take the first reply, and leave out the recordings that tell another."""
        reply = found[0][1]
        self._left = [one for one, told in found if told == reply]
        return reply

    @property
    def _name(self) -> str:
        body = self._left[0].created.request.body
        if not isinstance(body, dict):
            return "this session"
        task = {name: body[name] for name in ("split", "index") if name in body}
        return f"{body.get('env_name')} {shorten(json.dumps(task), _SHOWN // 2)}"


def _describe(wanted: Request, recorded: Sequence[Request], what: str) -> str:
    """Say that something was not recorded, and what is nearest to it."""
    said = f"{shorten(what, _SHOWN)} was not recorded"
    if not recorded:
        return said

    wanted_key = wanted.key[:_COMPARED]

    def likeness(one: Request) -> float:
        same = (one.method, one.path) == (wanted.method, wanted.path)
        key = one.key[:_COMPARED]
        matcher = difflib.SequenceMatcher(None, key, wanted_key, autojunk=False)
        return same + matcher.quick_ratio()

    nearest = max(recorded, key=likeness)
    said += f"; the nearest that was: {shorten(str(nearest), _SHOWN)}"
    if nearest.path == wanted.path:
        differs = difference(wanted.body, nearest.body) or "the same"
        said += f" ({shorten(differs, _SHOWN)})"
    return said


def difference(wanted: Any, recorded: Any) -> str:
    """Say where two JSON values differ first, or ``""``.

    Example:
        >>> difference({"input": {"n": 9}}, {"input": {"n": 8}})
        'input.n is 9, was 8'
        >>> difference({"a": 1, "b": [2]}, {"a": 1})
        'b[0] is 2, was absent'
    """
    now, before = dict(_leaves(wanted)), dict(_leaves(recorded))
    for place in {**now, **before}:
        values = (leaves.get(place, "absent") for leaves in (now, before))
        one, other = (shorten(value, _SHOWN // 2) for value in values)
        if now.get(place) != before.get(place):
            return f"{place.lstrip('.') or 'the body'} is {one}, was {other}"
    return ""


def _leaves(value: Any, place: str = "") -> Iterator[tuple[str, str]]:
    """Yield the path and the JSON text of each leaf of a JSON value."""
    if isinstance(value, dict) and value:
        for name, item in value.items():
            yield from _leaves(item, f"{place}.{name}")
    elif isinstance(value, list) and value:
        for index, item in enumerate(value):
            yield from _leaves(item, f"{place}[{index}]")
    else:
        yield place, json.dumps(value, ensure_ascii=False)
