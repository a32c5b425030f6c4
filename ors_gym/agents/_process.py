"""An agent's process: started, read within bounds, and ended.

On Linux it is ended with all that it started, elsewhere with its process group alone.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import pathlib
import sys
from asyncio.subprocess import DEVNULL, PIPE
from collections.abc import Callable, Mapping, Sequence
from typing import Final

from ors_gym.errors import InvalidRequestError

_GUARD: Final = pathlib.Path(__file__).with_name("_guard.py")
_TERMINATION_SECONDS: Final = 2.0
"""How long a program may take to end once it is told to."""
_CHUNK: Final = 1 << 16
_LONGEST_LINE: Final = 1 << 20


class AgentProcess:
    """A running program. `start` makes one."""

    def __init__(
        self,
        process: asyncio.subprocess.Process,
        control: int,
        kept_bytes: int,
        on_line: Callable[[bytes], None],
    ) -> None:
        self._process = process
        self._control: int | None = control
        self.was_ended = False
        """Whether it was told to end."""
        self.stdout = KeptOutput(kept_bytes)
        self.stderr = KeptOutput(kept_bytes)
        assert process.stdout is not None and process.stderr is not None  # noqa: S101, PT018 - both are pipes
        self._ended = asyncio.gather(
            _read_lines(process.stdout, self.stdout, LineSplitter(on_line)),
            _read(process.stderr, self.stderr.add),
            process.wait(),
        )

    @classmethod
    async def start(
        cls,
        command: Sequence[str],
        *,
        directory: pathlib.Path,
        env: Mapping[str, str],
        given: pathlib.Path | None,
        kept_bytes: int,
        on_line: Callable[[bytes], None],
    ) -> AgentProcess:
        """Start a program under a guard, which ends it if this process dies.

        Args:
            command: The program and its arguments.
            directory: Its working directory.
            env: All of its environment variables.
            given: The file that is its standard input; nothing if None.
            kept_bytes: How much of each output is kept.
            on_line: Called with each line of its standard output.

        Raises:
            InvalidRequestError: If the system refuses to start it.
        """
        end, control = os.pipe()
        guarded = [sys.executable, "-I", "-S", str(_GUARD), str(end)]
        guarded += [str(_TERMINATION_SECONDS), *command]
        try:
            with contextlib.ExitStack() as stack:
                stdin = (
                    DEVNULL if given is None else stack.enter_context(given.open("rb"))
                )
                process = await asyncio.create_subprocess_exec(
                    *guarded,
                    stdin=stdin,
                    stdout=PIPE,
                    stderr=PIPE,
                    cwd=directory,
                    env=env,
                    pass_fds=(end,),
                    start_new_session=True,
                )
        except BaseException as error:
            os.close(control)
            if isinstance(error, OSError | ValueError):
                raise InvalidRequestError(
                    f"the agent {command[0]!r} cannot be started: {error}"
                ) from None
            raise
        finally:
            os.close(end)
        return cls(process, control, kept_bytes, on_line)

    @property
    def exit_code(self) -> int | None:
        """Its exit code, or 128 and the number of a signal; None while it runs."""
        return self._process.returncode

    def end(self) -> None:
        """Have it ended, as the module says; does not wait."""
        self.was_ended |= self.exit_code is None
        control, self._control = self._control, None
        if control is not None:
            os.close(control)

    async def wait(self, timeout: float | None = None) -> bool:
        """Wait for its end and for the end of its outputs; say whether they came."""
        done, _ = await asyncio.wait([self._ended], timeout=timeout)
        if done:
            self.end()
            self._ended.result()
        return bool(done)


async def _read(
    stream: asyncio.StreamReader, *consumers: Callable[[bytes], None]
) -> None:
    while data := await stream.read(_CHUNK):
        for consume in consumers:
            consume(data)


async def _read_lines(
    stream: asyncio.StreamReader, kept: KeptOutput, lines: LineSplitter
) -> None:
    await _read(stream, kept.add, lines.add)
    lines.end()


class KeptOutput:
    """The beginning and the end of an output, within a number of bytes."""

    def __init__(self, most: int) -> None:
        self._half = most // 2
        self._head, self._tail = bytearray(), bytearray()
        self.size = 0
        """How many bytes there were."""

    def add(self, data: bytes) -> None:
        self.size += len(data)
        free = self._half - len(self._head)
        self._head += data[:free]
        self._tail += data[max(free, 0) :]
        if len(self._tail) > 2 * self._half:
            del self._tail[: -self._half or None]

    def __str__(self) -> str:
        tail = self._tail[-self._half :] if self._half else b""
        left_out = self.size - len(self._head) - len(tail)
        if not left_out:
            # A character may stand across the two.
            return bytes(self._head + tail).decode(errors="replace")
        head = self._head.decode(errors="replace")
        note = f"\n[{left_out} bytes left out]\n"
        return head + note + bytes(tail).decode(errors="replace")


class LineSplitter:
    """Gives whole lines to a function; longer ones than a mebibyte are passed over."""

    def __init__(self, on_line: Callable[[bytes], None]) -> None:
        self._on_line = on_line
        self._parts: list[bytes] = []
        self._size = 0

    def add(self, data: bytes) -> None:
        first, *rest = data.split(b"\n")
        self._keep(first)
        for part in rest:
            if self._size <= _LONGEST_LINE:
                self._on_line(b"".join(self._parts))
            self._parts.clear()
            self._size = 0
            self._keep(part)

    def end(self) -> None:
        """Give the last line, which need not end with a line break."""
        self.add(b"\n")

    def _keep(self, part: bytes) -> None:
        self._size += len(part)
        if self._size <= _LONGEST_LINE:
            self._parts.append(part)
        else:
            self._parts.clear()
