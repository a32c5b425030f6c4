"""What this system has. Linux and macOS have all of it; Windows lacks most.

Each module and function is looked for; the system's name decides nothing.
"""

from __future__ import annotations

import os
import select
import signal
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from ors_gym.errors import InvalidRequestError

fcntl: Any
msvcrt: Any
try:
    import fcntl
except ImportError:
    fcntl = None
try:
    import msvcrt
except ImportError:
    msvcrt = None

HAS_OWN_CONNECTIONS: Final = hasattr(select, "poll") and hasattr(socket, "MSG_DONTWAIT")
"""Whether our sockets work here. Elsewhere those of httpx do the same, more slowly."""
POLL_READABLE: Final = select.POLLIN | select.POLLPRI if HAS_OWN_CONNECTIONS else 0
"""What whoever reads asks `select.poll` for."""
CAN_REPLACE_OPEN_FILES: Final = fcntl is not None
"""Whether a file may take the place of one that is open, or be renamed while it is."""
AS_BYTES: Final = getattr(os, "O_BINARY", 0)
"""For `os.open`: no line ends are translated."""
_LOCKED_BYTE: Final = 2**31 - 2
"""What is locked in place of a whole file where nobody can read a locked part."""


def register_at_fork(**hooks: Callable[[], object]) -> None:
    """As `os.register_at_fork`, where processes can be forked."""
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(**hooks)


def lock_file(file: int) -> None:
    """Lock a file that is open for appending until it is closed.

    Raises:
        BlockingIOError: If it is locked already.
    """
    if fcntl is not None:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    elif msvcrt is not None:
        os.lseek(file, _LOCKED_BYTE, os.SEEK_SET)
        try:
            msvcrt.locking(file, msvcrt.LK_NBLCK, 1)
        except PermissionError as error:
            raise BlockingIOError(*error.args) from None


def sync_directory(path: Path) -> None:
    """Make new names in a directory survive a power cut, where one can be opened."""
    if hasattr(os, "O_DIRECTORY"):
        directory = os.open(path, os.O_RDONLY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)


def check_process_groups(what: str) -> None:
    """Refuse what has to end a program with all that it started.

    Raises:
        InvalidRequestError: If the system has no process groups.
    """
    if not (hasattr(os, "killpg") and hasattr(signal, "SIGCHLD")):
        raise InvalidRequestError(
            f"{what} cannot run on this system, which cannot end a program with all "
            "that it started; use Linux, WSL or a container, or let the program play "
            "through `ors-gym mcp`"
        )
