"""The process that serves: started by `ors_gym.server._owner`, ended by its owner.

Its standard input is the pipe its owner holds: first one line of JSON that says what to
serve, then nothing until the owner ends, by whatever means, and the pipe with it. Its
standard output is the pipe for one line of JSON that says where it listens or what
failed. Both are put elsewhere at once, so that an environment may print and read.
"""

from __future__ import annotations

import base64
import json
import logging
import os
import pickle
import sys
import threading
import time
import traceback
from typing import TYPE_CHECKING, Any, Final

from ors_gym.errors import InvalidRequestError

if TYPE_CHECKING:
    from ors_gym.server._hosting import ReportingServer

__all__ = ["main"]

# How long sessions may take to be torn down once the owner is gone.
_GRACE_SECONDS: Final = 4.0
_HOST: Final = "127.0.0.1"


class _Owner:
    """The pipes to the process that started this one."""

    def __init__(self) -> None:
        self._input = os.dup(0)
        self._report = os.fdopen(os.dup(1), "w", encoding="utf-8")
        null = os.open(os.devnull, os.O_RDONLY)
        os.dup2(null, 0)
        os.close(null)
        os.dup2(2, 1)
        self.server: ReportingServer | None = None

    def read_request(self) -> dict[str, Any]:
        """Read what to serve, and watch the pipe from then on."""
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
        """Tell the owner, once."""
        with self._report as report:
            report.write(json.dumps(fields) + "\n")

    def _watch(self) -> None:
        while os.read(self._input, 1 << 16):
            pass
        if self.server is not None:
            # Nobody is left to be told which of their requests are cut off.
            logging.getLogger("uvicorn.error").disabled = True
            self.server.should_exit = True
            time.sleep(_GRACE_SECONDS)
        os._exit(0)


def _load(environment: dict[str, str]) -> type[Any]:
    from ors_gym.server._hosting import load_environment  # noqa: PLC0415 - slow

    if "reference" in environment:
        return load_environment(environment["reference"])
    loaded: type[Any] = pickle.loads(  # noqa: S301 - our owner's own class
        base64.b64decode(environment["pickle"])
    )
    return loaded


def main() -> None:
    """Serve until the owner ends."""
    owner = _Owner()
    try:
        request = owner.read_request()
        from ors_gym.server._hosting import build_server, open_socket  # noqa: PLC0415

        listener = open_socket(_HOST, request["port"])
        port = listener.getsockname()[1]
        server = build_server(
            [_load(environment) for environment in request["environments"]],
            on_start=lambda: owner.report(port=port),
            headers=[(name, value) for name, value in request["headers"].items()],
        )
    except InvalidRequestError as error:
        owner.report(error=str(error))
        sys.exit(1)
    except BaseException as error:  # noqa: BLE001 - the owner raises it
        owner.report(
            error=f"{type(error).__name__}: {error}", traceback=traceback.format_exc()
        )
        sys.exit(1)
    owner.server = server
    server.run(sockets=[listener])
