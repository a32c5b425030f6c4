"""Runs a program, and ends what it leaves behind. A script of the standard library.

    python -I -S _guard.py CONTROL SECONDS PROGRAM [ARGUMENT...]

It ends the program once the pipe CONTROL reaches end of file: its owner closes it, and
so does the kernel when the owner dies, also by SIGKILL. The program's group is told
with SIGTERM, and killed after SECONDS. Then, and when the program ends by itself, all
that it started is killed, on Linux: as a "child subreaper" the guard becomes the parent
of whatever loses its own, such as a daemon with a session of its own. On other systems
only the group is killed.

It exits as the program did, or with 128 and the number of the signal that ended it.
"""

import contextlib
import ctypes
import math
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

_SET_PDEATHSIG = 1
_SET_CHILD_SUBREAPER = 36
_NOT_STARTED = 127


def main() -> NoReturn:
    """Run the program of the command line."""
    control, seconds = int(sys.argv[1]), float(sys.argv[2])
    # The owner decides when to end; a signal to everybody must not end the guard first.
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    ended, woken = os.pipe()
    os.set_blocking(woken, False)
    signal.set_wakeup_fd(woken, warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    prctl = _find_prctl()
    prctl(_SET_CHILD_SUBREAPER, 1)

    def prepare() -> None:
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, signal.SIG_DFL)
        prctl(_SET_PDEATHSIG, signal.SIGKILL)

    try:
        program = subprocess.Popen(  # noqa: S603 - it was asked to run just this
            sys.argv[3:],
            start_new_session=True,
            preexec_fn=prepare,  # noqa: PLW1509 - the guard has no other thread
        )
    except OSError as error:
        sys.stderr.write(f"{sys.argv[3]} cannot be started: {error}\n")
        sys.exit(_NOT_STARTED)
    # Only the program holds these now: their readers see its end.
    for stream in (0, 1, 2):
        os.close(stream)
    status = _wait(program.pid, control, ended, None)
    if status is None:
        _signal(-program.pid, signal.SIGTERM)
        status = _wait(program.pid, None, ended, time.monotonic() + seconds)
    _signal(-program.pid, signal.SIGKILL)
    status = _kill_all(program.pid, status)
    os._exit(status if status >= 0 else 128 - status)


def _find_prctl() -> Callable[[int, int], int]:
    try:
        prctl: Callable[[int, int], int] = ctypes.CDLL(None).prctl
    except (OSError, AttributeError):
        return lambda *_: -1  # not Linux: the program's group is all that is killed
    return prctl


def _wait(
    program: int, control: int | None, ended: int, until: float | None
) -> int | None:
    """Wait for the program; None if the pipe or the time ended first."""
    while True:
        status = _reap(program)
        if status is not None:
            return status
        left = None if until is None else until - time.monotonic()
        if left is not None and left <= 0:
            return None
        # Not `select`: an owner with many connections gives a descriptor above 1023.
        watched = select.poll()
        for pipe in (ended, control):
            if pipe is not None:
                watched.register(pipe, select.POLLIN)
        milliseconds = None if left is None else math.ceil(1000 * left)
        ready = {pipe for pipe, _ in watched.poll(milliseconds)}
        if control in ready:
            return None
        if ended in ready:
            os.read(ended, 4096)


def _reap(program: int) -> int | None:
    """Collect every child that ended; return the program's status if it did."""
    status = None
    with contextlib.suppress(ChildProcessError):
        while (found := os.waitpid(-1, os.WNOHANG))[0]:
            if found[0] == program:
                status = os.waitstatus_to_exitcode(found[1])
    return status


def _kill_all(program: int, status: int | None) -> int:
    """Kill children until there are none: those of a killed one come to the guard."""
    while True:
        for child in _children():
            _signal(child, signal.SIGKILL)
        try:
            found, code = os.waitpid(-1, 0)
        except ChildProcessError:
            return -signal.SIGKILL if status is None else status
        if found == program:
            status = os.waitstatus_to_exitcode(code)


def _children() -> list[int]:
    try:
        listed = Path("/proc/thread-self/children").read_text("ascii")
    except OSError:
        return []
    return [int(child) for child in listed.split()]


def _signal(process: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.kill(process, number)


if __name__ == "__main__":
    main()
