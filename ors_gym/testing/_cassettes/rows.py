"""The rows of a cassette: a request, its reply and its session, without secrets."""

from __future__ import annotations

import base64
import dataclasses
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final
from urllib.parse import parse_qsl, urlsplit

from ors_gym._shown_text import shorten
from ors_gym.client._settings import find_version
from ors_gym.errors import InvalidRequestError
from ors_gym.formats._json import decode_json
from ors_gym.formats._json_lines import LinesFile, LinesFormat, encode_line
from ors_gym.protocol._dialect import DEPLOYMENT_HEADER
from ors_gym.protocol._redaction import Redactor, is_secret_name, secrets_of_header
from ors_gym.protocol._sse import Event, EventDecoder
from ors_gym.types import JSONObject

CASSETTE: Final = LinesFormat(
    "ors_gym.cassette/1",
    rows=(b'{"session":', b'{"method":'),
    kind="cassette",
    writer="recording",
    instead="choose another file",
)
SESSION: Final = "<ors-session>"
"""Stands for the id of the row's session: each player gets one of its own."""
CALL: Final = "<ors-call>"
"""Stands for the task_id of the row's call."""
EVENT_STREAM: Final = "text/event-stream"
_JSON: Final = "application/json"
_BODIES: Final = ("json", "events", "text", "base64")
_OPENING: Final = ("/create", "/create_session")
_SECRET_FIELDS: Final = ("secrets", "env")
"""Fields of the bodies that open a session: an environment's secrets and variables."""
_SHORTEST_ID: Final = 16
"""A shorter session id is found only where it is a whole text."""
_SHOWN: Final = 100
_PIECE: Final = 4096
"""Both SDKs cut a result into chunks of so many characters (docs/wire.md)."""


@dataclasses.dataclass(frozen=True)
class Request:
    """A request as a cassette keeps it.

    Args:
        method: The method.
        path: The path below the server's address, and the query.
        body: JSON, or a text that is not JSON, or None.
        deployment: The deployment behind a gateway that it is for.
        routed: Whether it names a session only for a gateway to route by.
    """

    method: str
    path: str
    body: Any = None
    deployment: str = ""
    routed: bool = False

    @property
    def key(self) -> str:
        """Equal for requests that get the same answer."""
        parts = [self.method, self.path, self.deployment, self.body, self.routed]
        return json.dumps(parts, sort_keys=True)

    @property
    def endpoint(self) -> str:
        """The last part of the path, such as ``call``."""
        return self.path.partition("?")[0].rpartition("/")[2]

    @property
    def task_id(self) -> str:
        """The call whose result is asked for again, or ``""``."""
        task_id = self.body.get("task_id") if isinstance(self.body, dict) else None
        return task_id if isinstance(task_id, str) else ""

    def __str__(self) -> str:
        body = self.body
        if self.endpoint == "call" and isinstance(body, dict):
            return f"{body.get('name')} {_show(body.get('input'))}"
        shown = f"{self.method} {self.path}"
        return shown if body is None else f"{shown} {_show(body)}"


@dataclasses.dataclass(frozen=True)
class Reply:
    """A reply as a cassette keeps it.

    Args:
        status: The status.
        body: How the content is kept: as ``"json"``, ``"events"``, ``"text"`` or
            ``"base64"``.
        content: The content. Each event is an object of its name and its data.
        location: Where a redirect leads to.
    """

    status: int
    body: str
    content: Any
    location: str = ""

    @property
    def kind(self) -> str:
        """The content type."""
        kinds = {"json": _JSON, "events": EVENT_STREAM, "text": "text/plain"}
        return kinds.get(self.body, "application/octet-stream")

    def encode(self, session_id: str, task_id: str = "") -> bytes:
        """Return the reply's body, with the ids of whoever is to get it."""
        content = replace_text(self.content, SESSION, session_id)
        match self.body:
            case "json":
                return json.dumps(content).encode()
            case "text":
                return str(content).encode("utf-8", "replace")
            case "base64":
                return base64.b64decode(content)
        content = replace_text(content, CALL, task_id)
        return "".join(
            _write_event(name, data if isinstance(data, str) else json.dumps(data))
            for event in content
            for name, data in event.items()
        ).encode("utf-8", "replace")


@dataclasses.dataclass(frozen=True)
class Row:
    """One exchange.

    Args:
        request: The request.
        reply: The reply.
        session: The number of its session, from 1; None if it belongs to none.
    """

    request: Request
    reply: Reply
    session: int | None = None

    def to_json(self) -> JSONObject:
        request, reply = self.request, self.reply
        row: JSONObject = {} if self.session is None else {"session": self.session}
        row |= {"method": request.method, "path": request.path}
        if request.deployment:
            row["deployment"] = request.deployment
        if request.routed:
            row["routed"] = True
        if request.body is not None:
            row["body"] = request.body
        row["status"] = reply.status
        if reply.location:
            row["location"] = reply.location
        return row | {reply.body: reply.content}

    @classmethod
    def from_json(cls, value: Any) -> Row:
        """Read a row, which somebody may have edited; a ValueError says what is wrong.

        Example:
            >>> Row.from_json({"method": "GET", "path": "/x", "status": 200, "json": 1})
            ... # doctest: +ELLIPSIS
            Row(request=Request(method='GET', path='/x', ...
        """
        if not isinstance(value, dict):
            raise ValueError("a row is no object")  # noqa: TRY004 - not a mistake of ours
        kept = [name for name in _BODIES if name in value]
        session, status = value.get("session"), value.get("status")
        texts = [value.get(n, "") for n in ("method", "path", "deployment", "location")]
        if (
            not all(isinstance(text, str) for text in texts)
            or not all(texts[:2])
            or type(status) is not int
            or not 200 <= status <= 599
            or (session is not None and type(session) is not int)
        ):
            raise ValueError(
                "a row needs a method, a path and a status of 200 to 599; deployment "
                "and location are texts, and session is a whole number"
            )
        if len(kept) != 1:
            raise ValueError(f"a row has one of {', '.join(_BODIES)}")
        method, path, deployment, location = texts
        routed = value.get("routed") is True
        request = Request(method, path, value.get("body"), deployment, routed)
        reply = Reply(status, kept[0], value[kept[0]], location)
        _check_content(reply)
        return cls(request, reply, session)


def _check_content(reply: Reply) -> None:
    content = reply.content
    if reply.body == "events" and not (
        isinstance(content, list) and all(isinstance(event, dict) for event in content)
    ):
        raise ValueError("the events of a row are objects in a list")
    if reply.body in ("text", "base64") and not isinstance(content, str):
        raise ValueError(f"the {reply.body} of a row is no text")
    if reply.body == "base64":
        base64.b64decode(content, validate=True)


class CassetteFile(LinesFile):
    """A cassette that is being recorded. One that is there already is continued."""

    def __init__(self, path: str | os.PathLike[str], server: str) -> None:
        self.last_session = 0
        """The greatest number of a session in the file."""
        self._answers: dict[int | None, dict[str, bytes]] = {}
        """By session, the last row of each question since its last call."""
        head = {"format": CASSETTE.name, "server": server, "version": find_version()}
        super().__init__(path, CASSETTE, head)

    def append(self, row: Row) -> None:
        """Write a row, unless its question has the same answer as just before."""
        line = encode_line(row.to_json(), "the row")
        if self._is_news(row, line):
            self.append_line(line)

    def _is_news(self, row: Row, line: bytes) -> bool:
        answers = self._answers.setdefault(row.session, {})
        if row.request.endpoint == "call":
            if row.session is not None:
                # It may change every answer of its session.
                answers.clear()
            return True
        known = answers.get(row.request.key)
        answers[row.request.key] = line
        return known != line

    def _take_over(
        self, before: JSONObject | None, rows: Iterator[tuple[Any, bytes]]
    ) -> list[bytes]:
        del before
        lines = []
        for value, line in rows:
            row = _read_row(value, self.path)
            self.last_session = max(self.last_session, row.session or 0)
            self._is_news(row, line)
            lines.append(line)
        return lines


def read_cassette(path: str | os.PathLike[str]) -> list[Row]:
    """Read the rows of a cassette; a torn last one is left out.

    Raises:
        InvalidRequestError: If there is no such file, or it is no cassette.
    """
    try:
        found = list(CASSETTE.read(Path(path)))
    except OSError as error:
        raise InvalidRequestError(
            f"the cassette {path} cannot be read: {error.strerror}. Record it: ors-gym "
            f"record URL {path}"
        ) from None
    if not found:
        raise InvalidRequestError(f"{path} is empty; there is no recording in it")
    CASSETTE.check_head(found[0][0], path)
    return [_read_row(value, path) for value, _ in found[1:]]


def _read_row(value: Any, path: str | os.PathLike[str]) -> Row:
    try:
        return Row.from_json(value)
    except ValueError as error:
        raise CASSETTE.damaged(path, str(error)) from None


class Secrets:
    """The secrets that requests were seen to carry; it keeps them out of rows."""

    def __init__(self) -> None:
        self._known: set[str] = set()
        self._redact = Redactor()

    def read_request(
        self, method: str, path: str, headers: Mapping[str, str], body: bytes
    ) -> Request:
        """Read a request, learn its secrets, and return it without them.

        ``headers`` are named in lower case.
        """
        for name, value in headers.items():
            if is_secret_name(name):
                self.learn(secrets_of_header(value))
        secrets_header = headers.get("x-secrets")
        if secrets_header:
            self.learn(_secret_values(_read_base64_json(secrets_header)))
        self.learn(
            value
            for name, value in parse_qsl(urlsplit(path).query)
            if is_secret_name(name)
        )
        content = _read_json(body)
        if path.partition("?")[0] in _OPENING and isinstance(content, dict):
            secret = [
                name
                for name in content
                if name in _SECRET_FIELDS or is_secret_name(name)
            ]
            self.learn(_secret_values([content.pop(name) for name in secret]))
        deployment = headers.get(DEPLOYMENT_HEADER.lower(), "")
        request = Request(method, path, content, deployment)
        hidden = [self.hide(part) for part in (path, content, deployment)]
        return Request(method, *hidden) if self._known else request

    def learn(self, values: Iterable[str]) -> None:
        """Take further secrets."""
        new = {value for value in values if value} - self._known
        if new:
            self._known |= new
            self._redact = Redactor(self._known)

    def hide(self, value: Any) -> Any:
        """Return JSON in which no text, name or number holds a known secret."""
        match value:
            case str():
                return self._redact(value)
            case dict():
                return {self._redact(k): self.hide(item) for k, item in value.items()}
            case list():
                return [self.hide(item) for item in value]
            case bool() | None:
                return value
        text = repr(value)
        hidden = self._redact(text)
        return value if hidden == text else hidden


def read_reply(status: int, kind: str, body: bytes, location: str = "") -> Reply:
    """Read a whole reply."""
    if kind.lower().startswith(EVENT_STREAM):
        decoder = EventDecoder()
        return events_reply(status, [*decoder.feed(body), *decoder.finish()])
    try:
        text = body.decode()
    except UnicodeDecodeError:
        content = base64.b64encode(body).decode()
        return Reply(status, "base64", content, location)
    if "json" in kind.lower():
        try:
            return Reply(status, "json", decode_json(text), location)
        except ValueError:
            # A server may send NaN. It is passed on as it came.
            pass
    return Reply(status, "text", text, location)


def events_reply(status: int, events: Iterable[Event]) -> Reply:
    """Keep the events of a stream, a result in one piece."""
    kept: list[JSONObject] = []
    parts: list[bytes] = []
    for event in events:
        name = event.name.decode("utf-8", "replace")
        if name == "chunk":
            parts.append(event.data)
            continue
        data = event.data
        if name == "end":
            data = b"".join([*parts, data])
        kept.append({name: _read_result(data) if name == "end" else _text(data)})
    return Reply(status, "events", kept)


def replace_text(value: Any, old: str, new: str) -> Any:
    """Replace a text in JSON; a short one only where it is the whole of a text.

    The empty text is the id of no session, and is not replaced.
    """
    if not old:
        return value
    match value:
        case str():
            if value == old:
                return new
            whole = len(old) < _SHORTEST_ID and old not in (SESSION, CALL)
            return value if whole else value.replace(old, new)
        case dict():
            return {key: replace_text(item, old, new) for key, item in value.items()}
        case list():
            return [replace_text(item, old, new) for item in value]
    return value


def _read_result(data: bytes) -> Any:
    """Read a result as JSON if nothing of it is lost so."""
    text = _text(data)
    try:
        value = decode_json(text)
    except ValueError:
        return text
    return value if isinstance(value, dict | list) else text


def _read_json(body: bytes) -> Any:
    if not body:
        return None
    text = _text(body)
    try:
        return decode_json(text)
    except ValueError:
        return text


def _read_base64_json(value: str) -> Any:
    try:
        return decode_json(base64.b64decode(value).decode())
    except ValueError:
        return None


def _secret_values(value: Any) -> Iterator[str]:
    """Yield the texts in JSON that holds secrets, the domains beside them left out."""
    match value:
        case str():
            yield value
        case {"value": secret}:
            yield from _secret_values(secret)
        case dict():
            yield from _secret_values(list(value.values()))
        case list():
            for item in value:
                yield from _secret_values(item)


def _text(data: bytes) -> str:
    return data.decode("utf-8", "replace")


def _show(value: Any) -> str:
    return shorten(json.dumps(value, ensure_ascii=False), _SHOWN)


def _write_event(name: str, text: str) -> str:
    """Write an event as both SDKs do."""
    parts = [text[i : i + _PIECE] for i in range(0, len(text), _PIECE)] or [""]
    named = [("chunk", part) for part in parts[:-1]] if name == "end" else []
    named.append((name, parts[-1] if name == "end" else text))
    return "".join(
        f"event: {event}\r\n"
        + "".join(f"data: {line}\r\n" for line in data.split("\n"))
        + "\r\n"
        for event, data in named
    )
