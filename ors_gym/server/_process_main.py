"""What runs in a server process, and how that process ends.

`ors_gym.server._process` starts it with two pipes. Standard input carries one line of
JSON, which says what to serve, and then nothing: when the pipe reaches end of file the
owner is gone, by whatever means, and this process exits. Standard output carries one
line of JSON, which says where the server listens or what failed. The process then moves
both pipes away from descriptors 0 and 1, so that an environment may print and read.
"""

from __future__ import annotations

import json
import logging
import os
import sys
import threading
import time
import traceback
from typing import TYPE_CHECKING, Any, Final

from ors_gym.errors import ORSError
from ors_gym.server._load_served import load_served
from ors_gym.server._web import open_socket

if TYPE_CHECKING:
    from ors_gym.server._uvicorn import StartReportingServer

# How long the teardown of sessions may take once the owner is gone.
_GRACE_SECONDS: Final = 4.0
_HOST: Final = "127.0.0.1"


def main() -> None:
    """Serve until the owner ends."""
    owner = _Owner()
    try:
        request = owner.read_request()
        # The SDK is slow to import, and may fail: the owner is told of it.
        from ors_gym.server._http_server import build_server  # noqa: PLC0415

        listener = open_socket(_HOST, request["port"])
        port = listener.getsockname()[1]
        server = build_server(
            load_served(request["environments"]),
            host=_HOST,
            on_start=lambda: owner.report(port=port),
            headers=[(name, value) for name, value in request["headers"].items()],
        )
    except ORSError as error:
        owner.report(error=str(error))
        sys.exit(1)
    except BaseException as error:  # noqa: BLE001 - the owner raises it
        owner.report(
            error=f"{type(error).__name__}: {error}", traceback=traceback.format_exc()
        )
        sys.exit(1)
    owner.server = server
    server.run(sockets=[listener])


class _Owner:
    """The pipes to the process that started this one."""

    def __init__(self) -> None:
        self._input = os.dup(0)
        self._report = os.fdopen(os.dup(1), "w", encoding="utf-8")
        null = os.open(os.devnull, os.O_RDONLY)
        os.dup2(null, 0)
        os.close(null)
        os.dup2(2, 1)
        self.server: StartReportingServer | None = None

    def read_request(self) -> dict[str, Any]:
        """Read what to serve; a thread then watches the pipe for its end."""
        line = bytearray()
        while not line.endswith(b"\n"):
            piece = os.read(self._input, 1 << 16)
            if not piece:
                os._exit(1)
            line += piece
        threading.Thread(target=self._watch, daemon=True).start()
        request: dict[str, Any] = json.loads(line)
        return request

    def report(self, **fields: object) -> None:
        """Tell the owner the port or the error. This can be done once."""
        with self._report as report:
            report.write(json.dumps(fields) + "\n")

    def _watch(self) -> None:
        while os.read(self._input, 1 << 16):
            pass
        if self.server is not None:
            # uvicorn would log the requests it cuts off, and nobody reads it any more.
            logging.getLogger("uvicorn.error").disabled = True
            self.server.should_exit = True
            time.sleep(_GRACE_SECONDS)
        os._exit(0)
