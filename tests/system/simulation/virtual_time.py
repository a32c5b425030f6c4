"""Virtual time, and the processes that live in it."""

from __future__ import annotations

import heapq
import itertools
import math
from collections.abc import Callable, Generator
from typing import Any, Final, Protocol

from ors_gym.protocol._exchange import Outcome, Pause, Send

_MOST_EVENTS: Final = 20_000


class ViolationError(AssertionError):
    """Raised when the client broke its contract."""


class Cancelled(BaseException):
    """Thrown into a process, as a loop cancels a task or a user presses Ctrl-C."""


class Exchanger(Protocol):
    def exchange(self, process: Process, send: Send) -> None:
        """Begin an exchange; `Process.resume` ends it."""


class VirtualClock:
    __slots__ = ("_events", "_numbers", "living", "now", "trace")

    def __init__(self, trace: list[str] | None = None) -> None:
        self.now = 0.0
        self.living = 0
        self.trace = trace
        self._events: list[tuple[float, int, Callable[[Any], None], Any]] = []
        self._numbers = itertools.count()

    def at(self, when: float, action: Callable[[Any], None], argument: Any) -> None:
        if when < math.inf:
            event = (when, next(self._numbers), action, argument)
            heapq.heappush(self._events, event)

    def note(self, text: str) -> None:
        if self.trace is not None:
            self.trace.append(f"{self.now:10.3f}  {text}")

    def run(self) -> None:
        """Let time pass until no process is left."""
        events, pop = self._events, heapq.heappop
        for _ in range(_MOST_EVENTS):
            if not self.living:
                return
            if not events:
                raise ViolationError("a process waits for what never comes")
            self.now, _, action, argument = pop(events)
            action(argument)
        raise ViolationError(f"still busy after {_MOST_EVENTS} events")

    def drain(self) -> None:
        """Let what is still under way arrive, once no process is left."""
        while self._events:
            self.now, _, action, argument = heapq.heappop(self._events)
            action(argument)


class Process:
    """One thread of control: a generator that yields what operations yield."""

    __slots__ = ("_script", "clock", "name", "network", "pool", "waiting")

    def __init__(
        self,
        clock: VirtualClock,
        network: Exchanger,
        script: Generator[Send | Pause, Outcome, None],
        name: str,
        pool: str = "client",
    ) -> None:
        self.clock = clock
        self.network = network
        self.name = name
        self.pool = pool  # whose connections it uses
        self._script = script
        self.waiting: object = None
        clock.living += 1
        clock.at(clock.now, self._begin, None)

    def resume(self, step: Send | Pause, outcome: Outcome) -> None:
        """Go on after a step, unless the process was cancelled in it."""
        if self.waiting is step:
            self._go_on(lambda: self._script.send(outcome))

    def cancel(self, _: None = None) -> None:
        if self.waiting is not None:
            self.clock.note(f"{self.name} is cancelled")
            self._go_on(lambda: self._script.throw(Cancelled()))

    def kill(self) -> None:
        """Let it end where it stands, as a process that exits ends its threads."""
        if self.waiting is not None:
            self._end()

    def _begin(self, _: None) -> None:
        self._go_on(lambda: next(self._script))

    def _go_on(self, proceed: Callable[[], Send | Pause]) -> None:
        try:
            self._wait(proceed())
        except (StopIteration, Cancelled):
            self._end()

    def _end(self) -> None:
        self.waiting = None
        self.clock.living -= 1

    def _wait(self, step: Send | Pause) -> None:
        self.waiting = step
        if isinstance(step, Send):
            self.network.exchange(self, step)
        else:
            self.clock.at(self.clock.now + step.seconds, self._wake, step)

    def _wake(self, pause: Pause) -> None:
        self.resume(pause, Outcome(elapsed=pause.seconds))
