"""Interrupts at the places where CPython looks for signals.

It looks when a function or generator is entered or resumed, after a call, and when a
loop jumps back. A trace function raises there, as the handler of a signal would.
"""

import dis
import functools
import random
import sys
from collections.abc import Callable, Iterator
from types import CodeType, FrameType, TracebackType
from typing import Any, Final, Self

_SAMPLE: Final = random.Random(20)
_FINALISERS: Final = ("__del__", "_remove", "_exitfunc", "gc_callback")
"""Finalisers, callbacks of weakrefs, and what Hypothesis does in a collection."""


class Interrupted(KeyboardInterrupt):
    """What the handler of SIGINT raises, told apart from all others."""


class Interrupt:
    """Raises at the n-th place that the block passes; without n it counts them.

    Only this thread is struck, as by signals. ``only`` chooses the files whose places
    count by a part of their path.
    """

    def __init__(self, at: int = 0, *, only: str = "") -> None:
        self._at = at
        self._only = only
        self._before: Any = None
        self.passed = 0
        self.where = ""
        """The place that was struck; empty if none was."""

    def __enter__(self) -> Self:
        self._before = sys.gettrace()
        sys.settrace(self._trace)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        sys.settrace(self._before)

    def _trace(self, frame: FrameType, event: str, _: object) -> Any:
        code = frame.f_code
        if event == "call":
            if self._only not in code.co_filename or code.co_filename == __file__:
                return None
            frame.f_trace_lines = False
            frame.f_trace_opcodes = True
        elif event != "opcode" or frame.f_lasti not in _places(code):
            return self._trace
        self.passed += 1
        # CPython swallows what finalisers raise.
        if self.passed >= self._at > 0 and not self.where and not _finalises(frame):
            self.where = f"{code.co_filename}:{frame.f_lineno} {code.co_qualname}"
            raise Interrupted
        return self._trace


def _finalises(frame: FrameType | None) -> bool:
    """Tell whether CPython swallows what a frame raises."""
    while frame is not None:
        if frame.f_code.co_name in _FINALISERS:
            return True
        frame = frame.f_back
    return False


@functools.cache
def _places(code: CodeType) -> frozenset[int]:
    """Return the offsets at which CPython has just looked for signals."""
    found = set()
    after_call = None
    handlers = _handlers(code)
    for instruction in dis.get_instructions(code):
        name = instruction.opname
        if after_call is not None and name != "CACHE":
            # What is raised after a call belongs to the call's own handler.
            if handlers(after_call) == handlers(instruction.offset):
                found.add(instruction.offset)
            after_call = None
        if name.startswith("CALL") and "INTRINSIC" not in name:
            after_call = instruction.offset
        elif "JUMP_BACKWARD" in name and "NO_INTERRUPT" not in name:
            found.add(instruction.argval)
    return frozenset(found)


def _handlers(code: CodeType) -> Callable[[int], int | None]:
    table = dis._parse_exception_table(code)  # type: ignore[attr-defined]

    def handler(offset: int) -> int | None:
        for entry in table:
            if entry.start <= offset < entry.end:
                target: int = entry.target
                return target
        return None

    return handler


def count_places(work: Callable[[], object], *, only: str = "") -> int:
    """Return how many places a piece of work passes."""
    with Interrupt(only=only) as counted:
        work()
    return counted.passed


def choose_places(count: int, most: int | None) -> Iterator[int]:
    """Yield the places from 1, or so many of them, the same ones in each run."""
    every = range(1, count + 1)
    if most is None or most >= count:
        yield from every
    else:
        yield from sorted(_SAMPLE.sample(every, most))
