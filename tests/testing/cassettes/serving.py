"""A recorder and a player in this process, as they run in processes of their own."""

import contextlib
import threading
from collections.abc import Iterator
from pathlib import Path

from ors_gym.server._http_server import build_server
from ors_gym.server._web import open_socket
from ors_gym.testing._cassettes.asgi import Application
from ors_gym.testing._cassettes.player import Player
from ors_gym.testing._cassettes.recorder import Recorder

_SECONDS = 30.0


@contextlib.contextmanager
def serving(application: Application, certificate: str = "") -> Iterator[str]:
    ready = threading.Event()
    with open_socket("127.0.0.1", 0) as listener:
        server = build_server(application, host="127.0.0.1", on_start=ready.set)
        server.config.ssl_certfile = certificate or None
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        try:
            assert ready.wait(_SECONDS)
            scheme = "https" if certificate else "http"
            yield f"{scheme}://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join(_SECONDS)
            assert not thread.is_alive()


@contextlib.contextmanager
def recording(base_url: str, path: Path) -> Iterator[str]:
    with serving(Recorder(base_url, str(path))) as url:
        yield url


@contextlib.contextmanager
def serve_cassette(path: Path) -> Iterator[str]:
    with serving(Player(str(path))) as url:
        yield url
