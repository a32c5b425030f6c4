"""What the operating system offers. Linux and macOS offer all of it, Windows little.

Each module and function is looked for; the system's name decides nothing.
"""

from __future__ import annotations

import os
import select
import signal
import socket
import tempfile
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, Protocol

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
"""Whether our sockets work here. Elsewhere httpx2 does the same, more slowly."""
POLL_READABLE: Final = select.POLLIN | select.POLLPRI if HAS_OWN_CONNECTIONS else 0
"""The poll events that a reader waits for."""
CAN_REPLACE_OPEN_FILES: Final = fcntl is not None
"""Whether a file may take the place of one that is open, or be renamed while it is."""
HAS_FILE_MODES: Final = hasattr(os, "fchmod")
"""Whether an open file's mode can be set."""
MUST_ASK_FOR_USED_PORTS: Final = not hasattr(socket, "SO_EXCLUSIVEADDRUSE")
"""Whether a server needs SO_REUSEADDR to have the port of one that has just ended.

Windows needs no such option, and would let two servers share the port."""
AS_BYTES: Final = getattr(os, "O_BINARY", 0)
"""For `os.open`: no line ends are translated."""
_LOCKED_BYTE: Final = 2**31 - 2
"""The byte locked in place of a whole file, on systems that hide locked bytes."""


def register_at_fork(**hooks: Callable[[], object]) -> None:
    """As `os.register_at_fork`, where processes can be forked."""
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(**hooks)


class _Resettable(Protocol):
    def reset_after_fork(self) -> None: ...


_reset_in_children: Final[weakref.WeakSet[_Resettable]] = weakref.WeakSet()


def register_for_fork(resettable: _Resettable) -> None:
    """Have each forked child call `reset_after_fork` (docs/wire.md, point 14)."""
    _reset_in_children.add(resettable)


def _reset_all() -> None:
    for resettable in list(_reset_in_children):
        resettable.reset_after_fork()


register_at_fork(after_in_child=_reset_all)


def lock_file(file: int) -> None:
    """Lock a file that is open for appending until it is closed.

    A system with neither `fcntl` nor `msvcrt` has no locks: nothing is locked there.

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


def can_share_text() -> bool:
    """Tell whether processes can write into one file, each at its own place."""
    return hasattr(os, "pwrite")


def open_anonymous_file(prefix: str) -> int:
    """Open a file that has no name: in memory if possible, else on the disk.

    /dev/shm is no place for it, with 64 MB in many containers.
    """
    if hasattr(os, "memfd_create"):
        return os.memfd_create(prefix)
    with tempfile.TemporaryFile(prefix=prefix) as file:
        return os.dup(file.fileno())


def sync_directory(path: Path) -> None:
    """Make new names in a directory survive a power cut, where one can be opened."""
    if hasattr(os, "O_DIRECTORY"):
        directory = os.open(path, os.O_RDONLY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)


def check_process_groups(what: str) -> None:
    """Raise if this system cannot end a program together with its children.

    Linux ends all that it started; other systems with POSIX, its process group.

    Raises:
        InvalidRequestError: If the system has no process groups.
    """
    if not (hasattr(os, "killpg") and hasattr(signal, "SIGCHLD")):
        raise InvalidRequestError(
            f"{what} cannot run on this system, which cannot end a program together "
            "with its children; use Linux, WSL or a container, or let the program play "
            "through `ors-gym mcp`"
        )
