"""What the client around the operations does: pings, deletes, closing, exit."""

from collections.abc import Callable, Generator
from typing import Any, TypeAlias, TypeVar

from ors_gym.protocol import _operations as operations
from ors_gym.protocol._dialect import Dialect, SecretsChannel
from ors_gym.protocol._exchange import Failure, Operation, Outcome, Pause, Send
from ors_gym.protocol._retries import retry_after
from ors_gym.protocol._server_state import (
    ClientSettings,
    Hooks,
    Server,
    ServerKnowledge,
    SessionState,
)
from tests.system.simulation.network import Network, is_sent_once
from tests.system.simulation.server import PROBE
from tests.system.simulation.virtual_time import (
    Process,
    ViolationError,
    VirtualClock,
)

T = TypeVar("T")
Script: TypeAlias = Generator[Send | Pause, Outcome, None]

_DIALECT = Dialect(
    SecretsChannel.BODY,
    create_session=True,
    create_by_index=True,
    num_tasks=True,
    task_range=True,
    task_tools=True,
    delete_session=False,
)
_SETTINGS = ClientSettings(base_url="http://server", origin="http://server")
_PING_EVERY = 45.0
_PING_TIMEOUT = 10.0
_DELETE_TIMEOUT = 10.0
_DELETE_AGAIN_AFTER = 60.0
_EXIT_SECONDS = 5.0
_CLOSE_TIMEOUT = 5.0


class Client:
    """A client and its background, as `ors_gym.client` has them."""

    def __init__(
        self,
        clock: VirtualClock,
        network: Network,
        random: Callable[[], float],
        *,
        connected: bool = True,
    ) -> None:
        self.clock = clock
        self.network = network
        self.random = random
        self.ids = 0
        self.exiting = self.ended = False
        self._processes: list[Process] = []
        self._open: list[SessionState] = []
        # Sessions to be deleted once more, and what waits for that.
        self._later: dict[str, Process] = {}
        known = ServerKnowledge()
        if connected:
            known = ServerKnowledge(_DIALECT, ("env",), reached=True)
        hooks = Hooks(
            discard=lambda _, session_id: self.discard(session_id),
            random=random,
            new_id=self._new_id,
            clock=lambda: clock.now,
        )
        self.server = Server(_SETTINGS, known, hooks)

    def spawn(self, script: Script, name: str, pool: str = "client") -> Process:
        process = Process(self.clock, self.network, script, name, pool)
        self._processes.append(process)
        return process

    def discard(self, session_id: str) -> None:
        self._delete_in_background(session_id, again=True)

    def keep_alive(self, state: SessionState) -> None:
        self._open.append(state)
        name = f"ping of {state.session_id}"
        self.spawn(self._ping(state), name, "background")

    def exit(self, _: None = None) -> None:
        """End the process: interrupt it, delete what is left, in bounded time."""
        self.exiting = True
        self.clock.note("the process exits")
        for process in list(self._processes):
            if process.pool == "client":
                process.cancel()
        for state in self._open:
            if not state.closed:
                state.closed = True
                self._delete_in_background(state.session_id, again=False)
        for session_id, waiting in self._later.items():
            waiting.kill()
            self._delete_in_background(session_id, again=False)
        self.clock.at(self.clock.now + _EXIT_SECONDS, self._end, None)

    def _end(self, _: None) -> None:
        self.ended = True
        for process in self._processes:
            process.kill()

    def oversee(self, operation: Operation[T]) -> Operation[T]:
        """Run an operation; check when it goes on, and over which connections."""
        overseer = _Overseer(self.network)
        try:
            step = next(operation)
            while True:
                if isinstance(step, Send):
                    overseer.check(step)
                try:
                    outcome = yield step
                except BaseException as error:  # noqa: BLE001 - as `yield from` does
                    step = operation.throw(error)
                    continue
                if isinstance(step, Send):
                    overseer.note(step, outcome)
                step = operation.send(outcome)
        except StopIteration as stop:
            result: T = stop.value
            return result
        finally:
            operation.close()

    def close(self, state: SessionState, *, set_up: bool, wait: bool) -> Script:
        if state.closed:
            return
        state.closed = True
        confirmed = False
        try:
            if wait and set_up:
                deletion = operations.delete_session(
                    self.server, state.session_id, timeout=_CLOSE_TIMEOUT
                )
                confirmed = yield from self.oversee(deletion)
        finally:
            if not confirmed:
                self._delete_in_background(state.session_id, again=not set_up)

    def _new_id(self) -> str:
        self.ids += 1
        return f"own-{self.ids}"

    def _delete_in_background(self, session_id: str, *, again: bool) -> None:
        if self.ended:
            return
        name = f"delete of {session_id}"
        self.spawn(self._delete(session_id), name, "background")
        if again and not self.exiting:
            later = self.spawn(self._delete_later(session_id), name, "background")
            self._later[session_id] = later

    def _delete_later(self, session_id: str) -> Script:
        yield Pause(_DELETE_AGAIN_AFTER)
        del self._later[session_id]
        yield from self._delete(session_id)

    def _delete(self, session_id: str) -> Script:
        # Two attempts at the exit: it does not wait for a server that is gone.
        timeout = _EXIT_SECONDS if self.exiting else _DELETE_TIMEOUT
        yield from self._within(
            operations.delete_session(
                self.server,
                session_id,
                timeout=timeout,
                attempts=2 if self.exiting else None,
            )
        )

    def _ping(self, state: SessionState) -> Script:
        while True:
            yield Pause(_PING_EVERY * (0.5 + self.random() / 2))
            if state.closed or state.lost:
                return
            alive = yield from self._within(
                operations.ping(self.server, state.session_id, timeout=_PING_TIMEOUT)
            )
            if alive is False and not state.closed:
                state.lost = "the server no longer knows it"

    def _within(self, operation: Any) -> Generator[Send | Pause, Outcome, Any]:
        began = self.clock.now
        result = yield from self.oversee(operation)
        assert self.clock.now - began <= _DELETE_TIMEOUT + 0.01
        return result


class _Overseer:
    """Checks what one operation sends (docs/wire.md, points 5 and 6)."""

    def __init__(self, network: Network) -> None:
        self._network = network
        self._distrusted = network.is_distrusted()
        self._broken = ""  # the target of the last request that broke
        self._not_before = 0.0

    def check(self, send: Send) -> None:
        """Check a request that the operation is about to send."""
        target = send.head.target
        once = is_sent_once(send)
        if self._network.clock.now < self._not_before:
            raise ViolationError(f"{target} comes before it was asked to")
        fresh = send.reuse_within < 0
        if not fresh and self._broken and _is_repetition(self._broken, target):
            raise ViolationError(f"{target} is repeated over a used connection")
        distrusted = {self._distrusted, self._network.is_distrusted()}
        if once and not fresh and distrusted == {True}:
            raise ViolationError(f"{target} over a connection that will break")
        if fresh and not self._broken and (distrusted == {False} or not once):
            raise ViolationError(f"{target} over a new connection for no reason")

    def note(self, send: Send, outcome: Outcome) -> None:
        """Take what came of a request."""
        if outcome.reused and outcome.failure not in (None, Failure.CONNECT):
            self._broken = send.head.target if send.body != PROBE else "the probe"
        if outcome.status in (429, 503):
            asked = retry_after(outcome) or 0.0
            self._not_before = self._network.clock.now + asked


def _is_repetition(broken: str, target: str) -> bool:
    """Say whether a request repeats one that broke; an opening begins anew."""
    opening = ("/create", "/create_session")
    return broken == target or (broken in opening and target in opening)
