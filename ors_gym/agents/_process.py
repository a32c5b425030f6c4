"""An agent's process: started, read within bounds, and ended.

On Linux it is ended with all that it started, elsewhere with its process group alone.
"""

from __future__ import annotations

import asyncio
import codecs
import contextlib
import os
import pathlib
import sys
from asyncio.subprocess import DEVNULL, PIPE
from collections.abc import Callable, Mapping, Sequence
from typing import Final

from ors_gym.errors import InvalidRequestError
from ors_gym.protocol._redaction import Redactor

_GUARD: Final = pathlib.Path(__file__).with_name("_guard.py")
_TERMINATION_SECONDS: Final = 2.0
"""How long a program may take to end once it is told to."""
_CHUNK: Final = 1 << 16
_LONGEST_LINE: Final = 1 << 20
_LONGEST_CHARACTER: Final = 4


class AgentProcess:
    """A running program. `start` makes one."""

    def __init__(
        self,
        process: asyncio.subprocess.Process,
        control: int,
        kept_bytes: int,
        redact: Redactor,
        on_line: Callable[[bytes], None],
    ) -> None:
        self._process = process
        self._control: int | None = control
        self.was_ended = False
        """Whether it was told to end."""
        self.stdout = KeptOutput(kept_bytes, redact)
        self.stderr = KeptOutput(kept_bytes, redact)
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
        redact: Redactor,
        on_line: Callable[[bytes], None],
    ) -> AgentProcess:
        """Start a program under a guard, which ends it if this process dies.

        Args:
            command: The program and its arguments.
            directory: Its working directory.
            env: All of its environment variables.
            given: The file that is its standard input; nothing if None.
            kept_bytes: How much of each output is kept.
            redact: Keeps secrets out of what is kept.
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
        return cls(process, control, kept_bytes, redact, on_line)

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
    """The beginning and the end of an output, within a number of bytes.

    Its text has no secret, and no part of one that was cut. So as much as a secret may
    take is remembered beyond the beginning and before the end.
    """

    def __init__(self, most: int, redact: Redactor) -> None:
        self._half = most // 2
        self._redact = redact
        self._remembered = self._half + redact.longest + _LONGEST_CHARACTER
        self._head, self._tail = bytearray(), bytearray()
        self.size = 0
        """How many bytes there were."""

    def add(self, data: bytes) -> None:
        self.size += len(data)
        free = self._remembered - len(self._head)
        self._head += data[:free]
        self._tail += data[max(free, 0) :]
        if len(self._tail) > 2 * self._remembered:
            del self._tail[: -self._remembered]

    def __str__(self) -> str:
        left_out = self.size - 2 * self._half
        if left_out <= 0:
            return self._redact((self._head + self._tail).decode(errors="replace"))
        head = self._head
        tail = (head + self._tail)[-self._remembered :]
        parts = (
            self._part(head, 0, self._half),
            f"\n[{left_out} bytes left out]\n",
            self._part(tail, len(tail) - self._half, len(tail)),
        )
        return "".join(parts)

    def _part(self, data: bytearray, first: int, stop: int) -> str:
        """Return a part as text: the characters that end in it."""
        places = (_count_characters(data, end) for end in (first, stop))
        return self._redact.redact_part(data.decode(errors="replace"), *places)


def _count_characters(data: bytearray, end: int) -> int:
    """Count the characters of a text that end within so many of its bytes."""
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    return len(decoder.decode(data[:end], final=end == len(data)))


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
