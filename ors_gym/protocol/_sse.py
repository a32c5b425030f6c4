"""Server-sent events: bytes in, events out (WHATWG HTML, section 9.2).

Works on bytes: text-level line splitting would also break lines at U+2028, U+2029
and U+0085, which real servers send raw inside ``data:`` (docs/wire.md, "A call").
"""

from __future__ import annotations

from typing import Final, NamedTuple

from ors_gym.errors import LimitExceededError, ProtocolError

_BOM: Final = b"\xef\xbb\xbf"


class Event(NamedTuple):
    """One event of a stream."""

    name: bytes
    """Its ``event:`` field, ``b"message"`` if it has none."""
    data: bytes
    """Its ``data:`` lines, joined by line feeds."""

    def text(self) -> str:
        try:
            return self.data.decode()
        except UnicodeDecodeError as error:
            place = error.start
        # Raised outside the handler: as its context the decoder's error would keep the
        # data, which may hold a secret.
        raise ProtocolError(
            f"the {self.name.decode('latin-1')[:40]!r} event is not UTF-8: "
            f"byte {place} is 0x{self.data[place]:02x}"
        )


class EventDecoder:
    """Decodes an event stream that arrives in pieces, cut anywhere.

    Fields other than ``event`` and ``data`` are ignored; an event without a data
    line is not an event (WHATWG HTML, section 9.2.6).
    """

    __slots__ = (
        "_after_return",
        "_data",
        "_first_line",
        "_line_bytes",
        "_name",
        "_tail",
        "_tail_bytes",
    )

    def __init__(self, line_bytes: int = 32 * 2**20) -> None:
        self._line_bytes = line_bytes
        self._tail: list[bytes] = []
        self._tail_bytes = 0
        self._name = b""
        # The data lines so far. Many lines are kept in one array: a server may send
        # millions, and as objects they would take ten times their bytes.
        self._data: bytes | bytearray | None = None
        self._after_return = False
        self._first_line = True

    def feed(self, piece: bytes) -> list[Event]:
        """Return the events that the next piece of the stream completes."""
        if not (
            self._tail or self._data is not None or self._name or self._after_return
        ):
            event = _whole_event(piece)
            if event is not None:
                self._first_line = False
                return [event]
        self._check_length()
        events: list[Event] = []
        if self._after_return and piece:
            # A carriage return ended a line at once; its line feed may follow here.
            self._after_return = False
            if piece[:1] == b"\n":
                piece = piece[1:]
        if not piece:
            return events
        lines = piece.splitlines(keepends=True)
        self._after_return = piece[-1:] == b"\r"
        cut = b"" if piece[-1:] in b"\r\n" else lines.pop()
        for line in lines:
            if self._tail:
                self._tail.append(line)
                line = b"".join(self._tail)  # noqa: PLW2901
                self._tail.clear()
                self._tail_bytes = 0
            self._take_line(line.rstrip(b"\r\n"), events)
        if cut:
            self._keep_tail(cut)
        return events

    def finish(self) -> list[Event]:
        """End the stream; return the event under way as if its blank line had come.

        WHATWG discards such an event. Here an ``end`` counts if its JSON is complete,
        which the caller finds out: the tool's result must not be lost (docs/wire.md,
        point 15).
        """
        events: list[Event] = []
        if self._tail:
            tail = b"".join(self._tail)
            self._tail.clear()
            self._take_line(tail, events)
        self._take_line(b"", events)
        return events

    def _keep_tail(self, piece: bytes) -> None:
        self._tail.append(piece)
        self._tail_bytes += len(piece)

    def _check_length(self) -> None:
        """Raise if the line under way is too long already."""
        # Called with the piece after the one that made the line too long: the events
        # before the line must not depend on how the stream was cut.
        if self._tail_bytes > self._line_bytes:
            raise LimitExceededError(
                f"a line of the event stream is longer than {self._line_bytes} bytes; "
                "raise Limits.line_bytes if that is right for this server"
            )

    def _take_line(self, line: bytes, events: list[Event]) -> None:
        if self._first_line:
            self._first_line = False
            line = line.removeprefix(_BOM)
        if not line:
            if self._data is not None:
                events.append(Event(self._name or b"message", bytes(self._data)))
                self._data = None
            self._name = b""
            return
        field, _, value = line.partition(b":")
        if value[:1] == b" ":
            value = value[1:]
        if field == b"data":
            self._add_data(value)
        elif field == b"event":
            self._name = value

    def _add_data(self, value: bytes) -> None:
        if self._data is None:
            self._data = value
            return
        if not isinstance(self._data, bytearray):
            self._data = bytearray(self._data)
        self._data += b"\n"
        self._data += value


def _whole_event(piece: bytes) -> Event | None:
    """Read a piece that is exactly one event as both SDKs write it, at little cost.

    Any other piece gives None, and the general decoder takes it.
    """
    if piece[:7] != b"event: ":
        return None
    name, separator, rest = piece[7:].partition(b"\r\ndata: ")
    end = len(rest) - 4
    if (
        separator
        and rest.find(b"\r") == end
        and rest.find(b"\n") == end + 1
        and rest[end:] == b"\r\n\r\n"
        and b"\n" not in name
        and b"\r" not in name
    ):
        return Event(name or b"message", rest[:end])
    return None
