"""A command in a terminal, as a person has it: with a bar, line editing, Ctrl-C."""

import fcntl
import os
import pty
import re
import select
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Self

from tests.support.virtual_environments import ROOT

_SECONDS = 40.0
_ESCAPES = re.compile(r"\x1b(\[[0-9;?]*[ -/]*[@-~]|[()][0-9A-B]|[=>])")


class Terminal:
    """``python -m ors_gym ARGUMENTS`` in a terminal of so many columns.

    Every wait fails after 40 seconds, with what was shown.
    """

    def __init__(
        self,
        *arguments: str,
        columns: int = 80,
        cwd: Path = ROOT,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self._master, slave = pty.openpty()
        size = struct.pack("HHHH", 40, columns, 0, 0)
        fcntl.ioctl(slave, termios.TIOCSWINSZ, size)
        # It has no cursor to tell the place of, which prompt_toolkit would ask for.
        given = {"TERM": "xterm-256color", "PROMPT_TOOLKIT_NO_CPR": "1"}
        self._process = subprocess.Popen(
            ["setsid", "--ctty", sys.executable, "-m", "ors_gym", *arguments],
            stdin=slave,
            stdout=slave,
            stderr=slave,
            env={**os.environ, **given, **(environment or {})},
            cwd=cwd,
        )
        os.close(slave)
        self._shown = b""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()
        os.close(self._master)

    @property
    def text(self) -> str:
        """What was shown, without colours and the like."""
        text = self._shown.decode("utf-8", "replace")
        return _ESCAPES.sub("", text).replace("\r\n", "\n")

    def wait_for(self, text: str, count: int = 1) -> None:
        deadline = time.monotonic() + _SECONDS
        while self.text.count(text) < count:
            assert self._read(deadline), f"no {text!r} in\n{self.text}"

    def type(self, keys: str) -> None:
        os.write(self._master, keys.encode())

    def wait(self) -> int:
        """Wait for the end; return the exit code."""
        deadline = time.monotonic() + _SECONDS
        while self._read(deadline):
            pass
        return self._process.wait(max(1.0, deadline - time.monotonic()))

    def _read(self, deadline: float) -> bool:
        left = max(0.0, deadline - time.monotonic())
        if not select.select([self._master], [], [], left)[0]:
            return False
        try:
            piece = os.read(self._master, 1 << 16)
        except OSError:
            # So Linux says that nobody has the other side open any more.
            return False
        self._shown += piece
        return bool(piece)
