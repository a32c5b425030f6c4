"""A TCP server that plays scripts: replies that no real server sends."""

import contextlib
import dataclasses
import socket
import ssl
import struct
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import TypeAlias

_BOUND = 20.0


@dataclasses.dataclass(frozen=True)
class Repeat:
    """The same bytes many times, so that a table of scripts stays small."""

    data: bytes
    times: int


@dataclasses.dataclass(frozen=True)
class Drip:
    """Bytes one at a time, each in a packet of its own, with a pause between them."""

    data: bytes
    pause: float = 0.0


@dataclasses.dataclass(frozen=True)
class Close:
    reset: bool = False


Step: TypeAlias = bytes | Repeat | Drip | Close
Script: TypeAlias = Sequence[Step]
"""What to do after a request; the connection stays open unless it ends with `Close`."""


@dataclasses.dataclass
class Request:
    connection: int
    head: bytes
    body: bytes


class RawServer:
    """Plays one script for each request it gets, the last for all that follow."""

    def __init__(
        self,
        *scripts: Script,
        context: ssl.SSLContext | None = None,
        host: str = "127.0.0.1",
    ) -> None:
        self._scripts = scripts
        self._context = context
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self._listener = socket.create_server((host, 0), family=family)
        self._host = host
        self._lock = threading.Lock()
        self._threads: list[threading.Thread] = []
        self._sockets: list[socket.socket] = [self._listener]
        self._changed = threading.Condition(self._lock)
        self._stopped = threading.Event()
        self.requests: list[Request] = []
        self.connections = 0
        self.ended = 0
        """Connections that the client has closed."""
        self.played = 0
        """Scripts that were played to their end."""
        self._start(self._accept)

    @property
    def port(self) -> int:
        port: int = self._listener.getsockname()[1]
        return port

    @property
    def url(self) -> str:
        scheme = "http" if self._context is None else "https"
        host = f"[{self._host}]" if ":" in self._host else self._host
        return f"{scheme}://{host}:{self.port}"

    def await_that(self, condition: Callable[[], bool]) -> None:
        """Wait until something is so on the server's side."""
        with self._changed:
            assert self._changed.wait_for(condition, _BOUND), "the server saw nothing"

    def await_ended(self, connections: int) -> None:
        self.await_that(lambda: self.ended >= connections)

    def speak(self, data: bytes) -> None:
        """Send what nobody asked for, on the connection opened last."""
        self._sockets[-1].sendall(data)

    def close(self) -> None:
        self._stopped.set()
        for each in list(self._sockets):
            with contextlib.suppress(OSError):
                socket.socket.shutdown(each, socket.SHUT_RDWR)
            each.close()
        for thread in list(self._threads):
            thread.join(_BOUND)
            assert not thread.is_alive()

    def _start(self, target: Callable[..., None], *arguments: object) -> None:
        thread = threading.Thread(target=target, args=arguments, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while True:
            try:
                connected, _ = self._listener.accept()
            except OSError:
                return
            connected.settimeout(_BOUND)
            connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._sockets.append(connected)
            with self._changed:
                number = self.connections
                self.connections += 1
                self._changed.notify_all()
            self._start(self._serve, connected, number)

    def _serve(self, connected: socket.socket, number: int) -> None:
        try:
            if self._context is not None:
                connected = self._context.wrap_socket(connected, server_side=True)
                self._sockets.append(connected)
            with connected:
                while (request := _read_request(connected, number)) is not None:
                    with self._changed:
                        index = min(len(self.requests), len(self._scripts) - 1)
                        self.requests.append(request)
                        self._changed.notify_all()
                    if not self._play(connected, self._scripts[index]):
                        return
        except OSError:
            pass  # the client hung up: most scripts are meant to make it do so
        finally:
            with self._changed:
                self.ended += 1
                self._changed.notify_all()

    def _play(self, connected: socket.socket, script: Script) -> bool:
        goes_on = True
        try:
            for step in script:
                if isinstance(step, Close):
                    if step.reset:
                        linger = socket.SO_LINGER, struct.pack("ii", 1, 0)
                        connected.setsockopt(socket.SOL_SOCKET, *linger)
                    elif isinstance(connected, ssl.SSLSocket):
                        socket.socket.shutdown(connected, socket.SHUT_RDWR)
                    connected.close()
                    goes_on = False
                elif isinstance(step, Repeat):
                    _send_many(connected, step)
                elif isinstance(step, Drip):
                    for index in range(len(step.data)):
                        connected.sendall(step.data[index : index + 1])
                        self._stopped.wait(step.pause)
                else:
                    connected.sendall(step)
        finally:
            with self._changed:
                self.played += 1
                self._changed.notify_all()
        return goes_on


def _send_many(connected: socket.socket, step: Repeat) -> None:
    per_piece = max(2**18 // len(step.data), 1)
    for _ in range(step.times // per_piece):
        connected.sendall(step.data * per_piece)
    connected.sendall(step.data * (step.times % per_piece))


def _read_request(connected: socket.socket, number: int) -> Request | None:
    """Read one request, or None at the end of the connection."""
    data = b""
    while b"\r\n\r\n" not in data:
        piece = connected.recv(65536)
        if not piece:
            return None
        data += piece
    head, _, body = data.partition(b"\r\n\r\n")
    length = 0
    for line in head.lower().split(b"\r\n"):
        if line.startswith(b"content-length:"):
            length = int(line.partition(b":")[2])
    while len(body) < length:
        piece = connected.recv(65536)
        if not piece:
            return None
        body += piece
    return Request(number, head, body)


@contextlib.contextmanager
def raw_server(
    *scripts: Script, context: ssl.SSLContext | None = None, host: str = "127.0.0.1"
) -> Iterator[RawServer]:
    server = RawServer(*scripts, context=context, host=host)
    try:
        yield server
    finally:
        server.close()
