"""The two ways to record: from a process of its own, or from this one."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final

from ors_gym.client.http._address import Origin
from ors_gym.server._load_served import describe_application
from ors_gym.server._serve import run_served, serve_described

_RECORDER: Final = "ors_gym.testing._cassettes.recorder:Recorder"


@contextmanager
def record(
    base_url: str, path: str | os.PathLike[str], *, port: int | None = None
) -> Iterator[str]:
    """Record a server: a proxy passes every exchange on and keeps it in a cassette.

    The cassette holds no secret that a request was seen to carry: no header, no
    ``secrets`` of a session, and none of their values wherever the server repeats one.
    It holds what the server answered besides, so also the tasks with their answers
    where a client asks for them.

    Args:
        base_url: The server's address.
        path: The cassette. One that is there already is continued.
        port: The proxy's port, or None for any free one.

    Yields:
        The proxy's address, on the loopback interface, for clients to use in place of
        the server's.

    Raises:
        MissingExtraError: If the extra ``server`` is not installed.
        InvalidRequestError: If the address or the file cannot be used.

    Example:
        >>> import pathlib, tempfile
        >>> from ors_gym import ORSClient
        >>> from ors_gym.server import serve
        >>> path = pathlib.Path(tempfile.mkdtemp(), "guess.jsonl")
        >>> with serve() as server, record(server, path) as base_url:
        ...     asked = ORSClient(base_url).num_tasks("guess", "train")
        >>> with serve(cassette=path) as base_url:
        ...     ORSClient(base_url).num_tasks("guess", "train") == asked
        True
    """
    Origin(base_url)
    path = os.path.abspath(path)  # noqa: PTH100 - no link is followed
    described = describe_application(_RECORDER, base_url=base_url, path=path)
    with serve_described([described], port) as proxy_url:
        yield proxy_url


def run_recorder(
    base_url: str,
    path: str,
    *,
    port: int = 0,
    on_start: Callable[[str], None] | None = None,
) -> None:
    """Record a server from this process, until Ctrl-C or SIGTERM."""

    def load() -> Any:
        # It imports the web server's libraries.
        from ors_gym.testing._cassettes.recorder import Recorder  # noqa: PLC0415

        return Recorder(base_url, path)

    run_served(load, "127.0.0.1", port, on_start)
