"""Watches over exchanges of httpx, whose timeouts cannot be changed halfway."""

from __future__ import annotations

import contextlib
import socket
import threading
import time

import httpx

from ors_gym.protocol.exchange import Failure, Send

__all__ = ["Watchdog"]


class Watchdog:
    """Ends the connection under a thread that reads from one that fell silent.

    httpx fixes the timeout of all reads before the first; how long a silence may be is
    known only after the call's first event. A transport of the user's own, without a
    socket, is not watched.

    Args:
        send: The exchange.
        started: When it began, on the clock of `time.monotonic`.
    """

    def __init__(self, send: Send, started: float) -> None:
        self._send = send
        self._deadline = started + send.timeout
        self._last_byte = started
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self.ended: Failure | None = None
        """Why the exchange had to end, if it had to."""

    def touch(self, response: httpx.Response) -> bool:
        """Take note of a byte.

        Args:
            response: What it is part of.

        Returns:
            Whether the time of the whole exchange is over.
        """
        self._last_byte = time.monotonic()
        if self._last_byte >= self._deadline:
            self.ended = Failure.TIMEOUT
            return True
        if self._thread is None and self._send.sink.idle_timeout is not None:
            stream = response.extensions.get("network_stream")
            connected = stream.get_extra_info("socket") if stream else None
            if connected is not None:
                self._thread = threading.Thread(
                    target=self._watch, args=(connected,), daemon=True
                )
                self._thread.start()
        return False

    def close(self) -> None:
        """Stop watching."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join()

    def _watch(self, connected: socket.socket) -> None:
        while not self._stop.is_set():
            idle = self._send.sink.idle_timeout
            silent = self._last_byte + idle if idle is not None else self._deadline
            wait = min(silent, self._deadline) - time.monotonic()
            if wait > 0:
                self._stop.wait(wait)
                continue
            in_time = silent < self._deadline
            self.ended = Failure.STALL if in_time else Failure.TIMEOUT
            with contextlib.suppress(OSError):
                # Not the method of a TLS socket, which would say goodbye.
                socket.socket.shutdown(connected, socket.SHUT_RDWR)
            return
