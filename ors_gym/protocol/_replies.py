"""Sinks that read a reply as it arrives, and the errors that a reply stands for.

`ors_gym.protocol._reply_json` reads its JSON, and `ors_gym.env._step_rules` makes the
observation of it.
"""

from __future__ import annotations

import html
import json
import re
from collections.abc import Mapping
from typing import Any, Final

from ors_gym._shown_text import shorten
from ors_gym.errors import (
    AuthenticationError,
    ConnectionFailedError,
    InvalidRequestError,
    LimitExceededError,
    ORSError,
    ProtocolError,
    ServerError,
)
from ors_gym.protocol._exchange import Failure, Headers, Limits, Outcome, find_header
from ors_gym.protocol._redaction import Redactor
from ors_gym.protocol._reply_json import parse_json
from ors_gym.protocol._server_state import ClientSettings
from ors_gym.protocol._sse import Event, EventDecoder

HEARTBEATS_MISSED: Final = 30.0
"""Seconds without a byte that mean a dead connection: three heartbeats of the
servers (docs/wire.md, point 7)."""

_READ_BYTES: Final = 2**22
"""Of an error's body. It is JSON of any size where it repeats what was sent."""
_EXCERPT_CHARACTERS: Final = 2**16
_TASK_ID_BYTES: Final = 1024
_PAGE: Final = re.compile(r"\s*<(?:!doctype\s+html|html)\b", re.IGNORECASE)
# Each alternative ends at the text's end at the latest, so that no text takes long.
_MARKUP: Final = re.compile(
    r"<!--.*?(?:-->|\Z)|<(script|style)\b.*?(?:</\1\s*>?|\Z)|<[^<>]*(?:>|\Z)",
    re.IGNORECASE | re.DOTALL,
)
_MESSAGE_CHARACTERS: Final = 500
_PAGE_CHARACTERS: Final = 100
"""Of an HTML page that a proxy sent."""
_KEY_HEADERS: Final = ("x-api-key", "authorization")


class BodyReader:
    """Collects a reply that is one JSON value."""

    __slots__ = ("_parts", "headers", "idle_timeout", "status")

    def __init__(self) -> None:
        self.idle_timeout: float | None = None
        self.status = 0
        self.headers: Headers = ()
        self._parts: list[bytes] = []

    def start(self, status: int, headers: Headers) -> None:
        self.status = status
        self.headers = headers

    def feed(self, data: bytes) -> bool:
        """Take a part of the body; never satisfied before the reply's end."""
        self._parts.append(data)
        return False

    @property
    def body(self) -> bytes:
        """The body as far as it came."""
        return b"".join(self._parts)


class StreamReader:
    """Reads the event stream of a call, a group's score or a new session.

    Any other reply than a 200 with an event stream is collected as a body.
    """

    __slots__ = (
        "_body",
        "_decoder",
        "_parts",
        "error",
        "failed",
        "headers",
        "idle_timeout",
        "result",
        "status",
        "task_id",
    )

    def __init__(self, limits: Limits) -> None:
        self.idle_timeout: float | None = None
        self.status = 0
        self.headers: Headers = ()
        self.task_id: str | None = None
        self.result: bytes | None = None
        """The content of the chunks and the end, joined; None until the end came."""
        self.failed: str | None = None
        """The text of an ``error`` event."""
        self.error: ProtocolError | None = None
        """What is wrong with the stream."""
        self._decoder: EventDecoder | None = EventDecoder(limits.line_bytes)
        self._parts: list[bytes] = []
        self._body: list[bytes] = []

    @property
    def is_stream(self) -> bool:
        """Whether the reply is an event stream."""
        return self._decoder is not None and self.status == 200

    @property
    def body(self) -> bytes:
        """The body of a reply that is no event stream."""
        return b"".join(self._body)

    def start(self, status: int, headers: Headers) -> None:
        self.status = status
        self.headers = headers
        kind = find_header(headers, b"content-type") or ""
        if status != 200 or not kind.lower().startswith("text/event-stream"):
            self._decoder = None

    def feed(self, data: bytes) -> bool:
        """Take a part of the body; True when the stream has said its last."""
        if self._decoder is None:
            self._body.append(data)
            return False
        try:
            return self._take(self._decoder.feed(data))
        except ProtocolError as error:
            self.error = error
            return True

    def finish(self) -> None:
        """Take the event that was under way when the stream ended.

        An ``end`` whose JSON is complete counts without its blank line: the tool ran,
        and the result would be lost (docs/wire.md, point 15).
        """
        if self._decoder is None or self.result is not None or self.error is not None:
            return
        try:
            for event in self._decoder.finish():
                if event.name == b"end":
                    parse_json(b"".join([*self._parts, event.data]), "the result")
                    self._take([event])
        except ProtocolError:
            # Cut in the middle: the same as if nothing of the event had come.
            return

    def _take(self, events: list[Event]) -> bool:
        for event in events:
            name = event.name
            if name == b"end":
                self._parts.append(event.data)
                self.result = b"".join(self._parts)
                return True
            if name == b"chunk":
                self._parts.append(event.data)
            elif name == b"task_id":
                # Checked, since it goes into the body of a resumption.
                if not 0 < len(event.data) <= _TASK_ID_BYTES:
                    raise ProtocolError(
                        f"a task_id of {len(event.data)} bytes cannot be asked for"
                    )
                self.task_id = event.text()
                self.idle_timeout = HEARTBEATS_MISSED
            elif name == b"error":
                self.failed = event.text()
                return True
        return False


def server_text(body: bytes, redact: Redactor) -> str:
    """Make a text of a few hundred characters from an error's body.

    It is FastAPI's ``detail``, or the beginning of the text of an HTML page.
    """
    # Everywhere here secrets are hidden before the text is cut: half a secret would not
    # be recognised.
    text = body[:_READ_BYTES].decode("utf-8", "replace").strip()
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        text = redact_excerpt(text, redact)
        if _PAGE.match(text):
            return _page_text(text, redact)
        return shorten(" ".join(text.split()), _MESSAGE_CHARACTERS)
    detail: Any = value.get("detail", value) if isinstance(value, Mapping) else value
    if isinstance(detail, list):
        # Of a 422 only place and reason: its `input` repeats what was sent, secrets
        # included (docs/wire.md, point 18).
        detail = "; ".join(_validation_text(item) for item in detail[:5])
    elif not isinstance(detail, str):
        # As it came: JSON that can be decoded may be too deep to be encoded again.
        detail = text
    return shorten(redact_excerpt(detail, redact), _MESSAGE_CHARACTERS)


def redact_excerpt(text: str, redact: Redactor) -> str:
    """Hide secrets in what a server said, of which the first 64 KiB are kept.

    To search megabytes for each form of each secret takes a minute.
    """
    if len(text) <= _EXCERPT_CHARACTERS:
        return redact(text)
    text = text[: _EXCERPT_CHARACTERS + redact.longest]
    return redact.redact_part(text, 0, _EXCERPT_CHARACTERS) + "…"


def _page_text(page: str, redact: Redactor) -> str:
    # Hidden once more: a page may have written a secret with character references.
    text = redact(html.unescape(_MARKUP.sub(" ", page)))
    return shorten(" ".join(text.split()), _PAGE_CHARACTERS)


def _validation_text(item: object) -> str:
    if not isinstance(item, Mapping):
        return "an error without a description"
    location = item.get("loc")
    where = (
        ".".join(str(part) for part in location if isinstance(part, str | int))
        if isinstance(location, list)
        else "?"
    )
    message = item.get("msg")
    return f"{where}: {message if isinstance(message, str) else '?'}"


_LISTED: Final = re.compile(
    # A part of the place may be the name of a validator, such as `check()`.
    r"'loc': \((.{0,1000}?)\), 'msg': (?:'((?:[^'\\]|\\.)*+)'|\"((?:[^\"\\]|\\.)*+)\")"
)
"""An error of pydantic as both SDKs show it, in the repr of a list."""
_PRINTED: Final = re.compile(
    r"^(\S.*)\n  (.+?) \[type=\w+, input_value=.*$", re.MULTILINE
)
"""An error of pydantic as it prints itself."""
_COUNT: Final = re.compile(r"(\d{1,9}) validation errors? for ")
_COMPLAINT: Final = re.compile(r"^(?:Value error|Assertion failed), ")


def read_complaints(refusal: str) -> list[tuple[str, str]]:
    """Read which arguments pydantic complains of in a refused call, and its words.

    Example:
        >>> read_complaints("wrong: [{'loc': ('a', 0), 'msg': 'Field required'}]")
        [('a.0', 'Field required')]
    """
    found = [
        (re.sub(r",\s*", ".", place.replace("'", "").strip(", ")), one or other)
        for place, one, other in _LISTED.findall(refusal)
    ]
    found = found or _PRINTED.findall(refusal)
    return [(place, _COMPLAINT.sub("", words)) for place, words in found]


def shorten_refusal(refusal: str) -> str:
    """Make one sentence of pydantic's long refusal of a call.

    The refusal is returned as it is where one of its complaints cannot be read.
    """
    complaints = read_complaints(refusal)
    if not complaints or len(complaints) != _count_complaints(refusal):
        return refusal
    start = re.split(r"[:\n]|\[\{", refusal, maxsplit=1)[0].strip()
    said = "; ".join(
        f"{place}: {words}" if place else words for place, words in complaints
    )
    return f"{start}: {said}"


def _count_complaints(refusal: str) -> int:
    printed = _COUNT.search(refusal)
    return refusal.count("'loc': (") or (int(printed[1]) if printed else 0)


def status_error(
    outcome: Outcome,
    body: bytes,
    request: str,
    redact: Redactor,
    settings: ClientSettings,
) -> ORSError:
    """Choose the error for a reply with an error status."""
    status = outcome.status
    text = server_text(body, redact)
    said = f"{request} was answered {status}: {text or '(no text)'}"
    if status in (401, 403):
        return AuthenticationError(f"{said}. {_key_advice(settings)}", status=status)
    if status in (301, 302, 303, 307, 308):
        location = redact(find_header(outcome.headers, b"location") or "nowhere")
        return ProtocolError(
            f"{request} was redirected to {location[:200]}, which is not followed; "
            "give the server's own address as base_url"
        )
    if status in (400, 404, 405, 422):
        return InvalidRequestError(said, status=status)
    if status < 400:
        return ProtocolError(f"{said}, which is not an answer of an ORS server")
    if status == 429 and "capacity" in text.lower():
        said += (
            ". The environment has as many sessions as it may: play fewer at once "
            "(max_concurrent=, num_envs=), or have its owner raise its capacity"
        )
    return ServerError(said, status=status)


def _key_advice(settings: ClientSettings) -> str:
    sent = [name for name, _ in settings.headers if name.lower() in _KEY_HEADERS]
    if not sent:
        return (
            f"No API key was sent to {settings.origin}: pass api_key= or set "
            "ORS_API_KEY (on the command line --api-key)"
        )
    return (
        f"{settings.origin} refused the key that was sent ({', '.join(sent)}); check "
        "api_key= or ORS_API_KEY, and that the key is for this server"
    )


def failure_error(outcome: Outcome, request: str) -> ORSError:
    """Choose the error for an exchange that did not come to its end."""
    said = f"{request} failed: {outcome.detail or outcome.failure}"
    if outcome.failure is Failure.LIMIT:
        return LimitExceededError(said)
    if outcome.failure is Failure.PROTOCOL:
        return ProtocolError(f"{said}. Is this the address of an ORS server?")
    return ConnectionFailedError(said)
