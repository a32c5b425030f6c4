"""What the client around the operations does: pings, deletes, closing."""

from collections.abc import Callable, Generator
from typing import Any, TypeAlias

from ors_gym.protocol import _operations as operations
from ors_gym.protocol._dialect import Dialect, SecretsChannel
from ors_gym.protocol._exchange import Outcome, Pause, Send
from ors_gym.protocol._server_state import (
    ClientSettings,
    Hooks,
    Server,
    ServerKnowledge,
    SessionState,
)
from tests.system.simulation.network import Network
from tests.system.simulation.virtual_time import Process, VirtualClock

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
        self.doomed: dict[str, int] = {}
        """How often each session that was given up was, or will be, deleted."""
        known = ServerKnowledge()
        if connected:
            known = ServerKnowledge(_DIALECT, ("env",), reached=True)
        hooks = Hooks(
            discard=lambda _, session_id: self.discard(session_id),
            random=random,
            new_id=self._new_id,
        )
        self.server = Server(_SETTINGS, known, hooks)

    def spawn(self, script: Script, name: str) -> Process:
        return Process(self.clock, self.network, script, name)

    def discard(self, session_id: str) -> None:
        self._delete_in_background(session_id, again=True)

    def keep_alive(self, state: SessionState) -> None:
        self.spawn(self._ping(state), f"ping of {state.session_id}")

    def close(self, state: SessionState, *, set_up: bool, wait: bool) -> Script:
        if state.closed:
            return
        state.closed = True
        confirmed = False
        self.doomed.setdefault(state.session_id, 0)
        try:
            if wait and set_up:
                self.doomed[state.session_id] += 1
                confirmed = yield from operations.delete_session(
                    self.server, state.session_id, timeout=_CLOSE_TIMEOUT
                )
        finally:
            if not confirmed:
                self._delete_in_background(state.session_id, again=not set_up)

    def _new_id(self) -> str:
        self.ids += 1
        return f"own-{self.ids}"

    def _delete_in_background(self, session_id: str, *, again: bool) -> None:
        times = (0.0, _DELETE_AGAIN_AFTER) if again else (0.0,)
        for seconds in times:
            self.doomed[session_id] = self.doomed.get(session_id, 0) + 1
            self.spawn(self._delete(session_id, seconds), f"delete of {session_id}")

    def _delete(self, session_id: str, seconds: float) -> Script:
        if seconds:
            yield Pause(seconds)
        yield from self._within(
            operations.delete_session(self.server, session_id, timeout=_DELETE_TIMEOUT)
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
        result = yield from operation
        assert self.clock.now - began <= _DELETE_TIMEOUT + 0.01
        return result
