"""Hides from ors_gym what only POSIX has, as if it ran on Windows.

A process takes it by having this directory in PYTHONPATH. Only modules of ours are
fooled: the standard library and other packages find out by themselves, on each system.
The lists are those of CPython's documentation: what it calls available on Unix, or not
on Windows.
"""

import asyncio.selector_events
import asyncio.unix_events
import builtins
import contextlib
import fcntl
import os
import pathlib
import select
import signal
import socket
import struct
import sys
import time
import types
from typing import Any

MODULES = """
    curses fcntl grp posix pty pwd readline resource syslog termios tty _posixshmem
    _posixsubprocess
"""
ATTRIBUTES = {
    os: """
        chown chroot confstr copy_file_range ctermid eventfd eventfd_read eventfd_write
        fchdir fchmod fchown fdatasync fork forkpty fpathconf fstatvfs fwalk getegid
        getenvb environb geteuid getgid getgrouplist getgroups getloadavg getpgid
        getpgrp getpriority getrandom getresgid getresuid getsid getuid getxattr
        initgroups killpg lchown listxattr lockf major makedev memfd_create minor mkfifo
        mknod nice openpty pathconf pidfd_open pipe2 plock posix_fadvise
        posix_fallocate posix_openpt posix_spawn posix_spawnp pread preadv pwrite
        pwritev readv register_at_fork removexattr sched_getaffinity sched_setaffinity
        sched_yield sendfile setegid seteuid setgid setgroups setns setpgid setpriority
        setregid setresgid setresuid setreuid setsid setuid setxattr spawnlp spawnvp
        splice statvfs sync sysconf tcgetpgrp tcsetpgrp ttyname uname unshare wait
        wait3 wait4 waitid writev
        O_ASYNC O_CLOEXEC O_DIRECT O_DIRECTORY O_DSYNC O_NDELAY O_NOATIME O_NOCTTY
        O_NOFOLLOW O_NONBLOCK O_PATH O_SYNC O_TMPFILE
        WCONTINUED WCOREDUMP WEXITSTATUS WIFCONTINUED WIFEXITED WIFSIGNALED WIFSTOPPED
        WNOHANG WSTOPSIG WTERMSIG WUNTRACED
    """,
    signal: """
        SIGALRM SIGBUS SIGCHLD SIGCLD SIGCONT SIGHUP SIGIO SIGKILL SIGPIPE SIGPOLL
        SIGPROF SIGPWR SIGQUIT SIGSTOP SIGSYS SIGTRAP SIGTSTP SIGTTIN SIGTTOU SIGURG
        SIGUSR1 SIGUSR2 SIGVTALRM SIGWINCH SIG_BLOCK SIG_SETMASK SIG_UNBLOCK
        alarm getitimer pause pidfd_send_signal pthread_kill pthread_sigmask setitimer
        siginterrupt sigpending sigtimedwait sigwait sigwaitinfo
    """,
    select: """
        POLLERR POLLHUP POLLIN POLLNVAL POLLOUT POLLPRI POLLRDHUP PIPE_BUF
        devpoll epoll kevent kqueue poll
    """,
    socket: """
        AF_UNIX CMSG_LEN CMSG_SPACE MSG_CMSG_CLOEXEC MSG_DONTWAIT MSG_EOR MSG_MORE
        MSG_NOSIGNAL SCM_RIGHTS SOCK_CLOEXEC SOCK_NONBLOCK SO_BINDTODEVICE SO_REUSEPORT
        TCP_CORK TCP_USER_TIMEOUT recv_fds send_fds sethostname
    """,
    time: """
        clock_getres clock_gettime clock_gettime_ns clock_settime pthread_getcpuclockid
        tzset
    """,
}
LOOP_METHODS = ("add_reader", "remove_reader", "add_writer", "remove_writer")
"""What the event loop of Windows has not, besides `add_signal_handler`."""
_ACCESS_DENIED = 13


def _is_ours(depth: int = 2) -> bool:
    try:
        name = sys._getframe(depth).f_globals.get("__name__", "")
    except ValueError:
        # The interpreter itself imports, as it does from Python 3.13 on at its end.
        return False
    return name.partition(".")[0] in ("ors_gym", "pytest_ors_gym")


def _hide_attributes(module: types.ModuleType, names: frozenset[str]) -> None:
    class Hiding(types.ModuleType):
        def __getattribute__(self, name: str) -> Any:
            if name in names and _is_ours():
                raise AttributeError(f"{module.__name__!r} has no {name!r} here")
            return super().__getattribute__(name)

    module.__class__ = Hiding


def _import(name: str, *arguments: Any, **named: Any) -> Any:
    if _is_ours():
        if name == "msvcrt":
            return _msvcrt
        if name.partition(".")[0] in MODULES.split():
            raise ModuleNotFoundError(f"No module named {name!r} here", name=name)
    return _import_anything(name, *arguments, **named)


def _hide_method(owner: Any, name: str) -> None:
    there = getattr(owner, name)

    def method(*arguments: Any) -> Any:
        if _is_ours():
            raise NotImplementedError
        return there(*arguments)

    setattr(owner, name, method)


def _lock(file: int, mode: int, count: int) -> None:
    """As `msvcrt.locking`: a lock on bytes, held by this handle of the file."""
    start = os.lseek(file, 0, os.SEEK_CUR)
    wanted = struct.pack("hhqqi4x", fcntl.F_WRLCK, os.SEEK_SET, start, count, 0)
    try:
        fcntl.fcntl(file, fcntl.F_OFD_SETLK, wanted)
    except BlockingIOError:
        raise PermissionError(_ACCESS_DENIED, "Permission denied") from None


def _replace(source: Any, target: Any) -> None:
    """As `os.replace`, which leaves open files alone."""
    for path in map(pathlib.Path, (source, target)):
        if path.exists() and _is_open(path.stat()):
            raise PermissionError(_ACCESS_DENIED, "Access is denied", str(path))
    _replace_anything(source, target)


def _is_open(found: os.stat_result) -> bool:
    for descriptor in pathlib.Path("/proc/self/fd").iterdir():
        with contextlib.suppress(OSError):
            if os.path.samestat(descriptor.stat(), found):
                return True
    return False


_import_anything = builtins.__import__
_msvcrt = types.ModuleType("msvcrt")
vars(_msvcrt).update(LK_NBLCK=2, locking=_lock)
for _module, _names in ATTRIBUTES.items():
    _hide_attributes(_module, frozenset(_names.split()))
for _name in LOOP_METHODS:
    _hide_method(asyncio.selector_events.BaseSelectorEventLoop, _name)
_hide_method(asyncio.unix_events.SelectorEventLoop, "add_signal_handler")
builtins.__import__ = _import
_replace_anything = os.replace
vars(os).update(replace=_replace)
