"""A core for the server and the others for its clients, where there are two or more.

On one core a client and a server that wait for each other cost a third of what they
cost on two, since nobody is woken on another core. Where the kernel puts them is luck,
by which one client looks three times as dear as the next: so they are told.
"""

from __future__ import annotations

import contextlib
import os
import pathlib
from collections.abc import Iterator
from typing import Final

__all__ = ["client_kept", "keep_client", "keep_server"]

# Taken at the start: later this process may be kept to its own.
_ALLOWED: Final = (
    sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
)


def keep_server(process: int) -> None:
    """Keep a server to the first core.

    Args:
        process: Its id.
    """
    _keep(process, set(_ALLOWED[:1]))


def keep_client(process: int = 0) -> None:
    """Keep a client to the cores behind the first one.

    Args:
        process: Its id; this process if it is 0.
    """
    _keep(process or os.getpid(), set(_ALLOWED[1:]))


@contextlib.contextmanager
def client_kept(*, beside_server: bool = False) -> Iterator[None]:
    """Keep this process to the cores of clients for a while, or to that of servers.

    Args:
        beside_server: Whether client and server share a core. Then a call costs the
            least and always the same, and no thread of the client runs beside another.
    """
    keep = keep_server if beside_server else keep_client
    keep(os.getpid())
    try:
        yield
    finally:
        _keep(os.getpid(), set(_ALLOWED))


def _keep(process: int, cores: set[int]) -> None:
    if len(_ALLOWED) > 1:
        for task in pathlib.Path(f"/proc/{process}/task").iterdir():
            os.sched_setaffinity(int(task.name), cores)
