"""One session from open to close, and the check of everything that it sees."""

import dataclasses
from collections.abc import Generator
from typing import Any, TypeVar

from ors_gym import errors
from ors_gym.protocol import _operations as operations
from ors_gym.protocol._exchange import Failure, Operation, Outcome, Pause
from ors_gym.protocol._server_state import SessionState
from ors_gym.types import ToolOutput
from tests.system.simulation.client import Client, Script
from tests.system.simulation.network import Exchange, Fault
from tests.system.simulation.server import Run, Server
from tests.system.simulation.virtual_time import Cancelled, ViolationError

T = TypeVar("T")

GRANULARITY = 0.01
"""Seconds by which an operation may outlive its deadline: an exchange that begins at
its end gets a millisecond."""

_UNREADABLE = {Fault.GARBLED, Fault.GATE_HTML, Fault.TOO_LARGE}
_UNREADABLE |= {Fault.SHORT_HEAD, Fault.SHORT_TASK}


@dataclasses.dataclass(frozen=True, slots=True)
class Call:
    seconds: float = 0.01
    think: float = 0.0  # seconds before the call
    raises: bool = False
    finishes: bool = False
    tool: str = "play"


@dataclasses.dataclass(frozen=True, slots=True)
class Part:
    calls: tuple[Call, ...] = (Call(), Call(finishes=True))
    call_timeout: float = 120.0
    setup_timeout: float = 120.0
    resumes: bool = True  # it asks again for a result that did not come
    waits: bool = True  # it waits for the delete when it closes
    closed_at: float | None = None  # when another thread closes the session
    cancelled_at: float | None = None


class Player:
    """Plays a part and checks what it sees against what the server did.

    Each call of an episode has a number of its own; `first` is that of the first call.
    """

    def __init__(
        self, client: Client, server: Server, part: Part, name: str, first: int
    ) -> None:
        self.client = client
        self.server = server
        self.part = part
        self.never: list[int] = []  # calls that, by their error, cannot have run
        self.shown = 0
        self.errors: list[errors.ORSError] = []
        self._nonce = first
        self._state: SessionState | None = None
        self._set_up = False
        self._name = name
        client.network.watch = self._watch
        process = client.spawn(self._play(), name)
        self._process = process
        if part.cancelled_at is not None:
            client.clock.at(part.cancelled_at, process.cancel, None)
        if part.closed_at is not None:
            client.spawn(self._close_early(part.closed_at), f"close of {name}")

    def _watch(self, exchange: Exchange) -> None:
        state = self._state
        if state is None or exchange.session_id != state.session_id:
            return
        if b'"task_id"' not in (exchange.body or b"") and _is_over(state):
            raise ViolationError(f"session {state.session_id} was called after its end")

    def _play(self) -> Script:
        try:
            yield from self._live()
            if self._state is not None:
                yield from self._close()
        except Cancelled:
            # Interrupted within the close, that has queued the delete already.
            if self._state is not None:
                yield from self.client.close(self._state, set_up=False, wait=False)

    def _live(self) -> Script:
        try:
            yield from self._open()
            for call in self.part.calls:
                if call.think:
                    yield Pause(call.think)
                yield from self._call(call)
        except errors.ORSError as error:
            self.errors.append(error)
            self.client.clock.note(f"{self._name}: {type(error).__name__}: {error}")

    def _open(self) -> Script:
        client, part = self.client, self.part
        opened = operations.open_session(
            client.server,
            "env",
            {"split": "train", "index": 0},
            timeout=part.setup_timeout,
        )
        self._state = state = yield from self._checked(opened, part.setup_timeout)
        client.keep_alive(state)
        server, timeout = client.server, part.setup_timeout
        got = operations.get_messages(server, state, timeout=timeout)
        (prompt,) = yield from self._checked(got, timeout)
        self._set_up = True
        listed = operations.list_task_tools(server, state, timeout=timeout)
        tools, _ = yield from self._checked(listed, timeout)
        if prompt["blocks"][0]["type"] != "text" or tools[0]["name"] != "play":
            raise ViolationError("not the prompt or the tools of the server")

    def _close(self) -> Script:
        state = self._state
        assert state is not None
        began = self.client.clock.now
        yield from self.client.close(state, set_up=self._set_up, wait=self.part.waits)
        if self.client.clock.now - began > 5.0 + GRANULARITY:
            raise ViolationError("closing took more than five seconds")
        self._expect_refusal(errors.SessionClosedError)

    def _close_early(self, seconds: float) -> Script:
        yield Pause(seconds)
        if self._state is not None:
            yield from self._close()

    def _timed(self, operation: Operation[T], seconds: float) -> Operation[T]:
        began = self.client.clock.now
        try:
            result = yield from self.client.oversee(operation)
        except (errors.ORSError, Cancelled):
            self._check_time(began, seconds)
            raise
        self._check_time(began, seconds)
        return result

    def _check_time(self, began: float, seconds: float) -> None:
        took = self.client.clock.now - began
        if took > seconds + GRANULARITY:
            raise ViolationError(f"{took:g} s of {seconds:g} s")

    def _checked(self, operation: Operation[T], seconds: float) -> Operation[T]:
        """Run an operation that may be repeated, and check its error."""
        first = len(self.client.network.exchanges)
        try:
            return (yield from self._timed(operation, seconds))
        except errors.ORSError as error:
            self._justify(error, self._mine(first))
            raise

    def _mine(self, first: int) -> list[Exchange]:
        exchanges = self.client.network.exchanges[first:]
        return [each for each in exchanges if each.process is self._process]

    def _justify(self, error: errors.ORSError, exchanges: list[Exchange]) -> None:
        """Check that an error is of the class of what happened."""
        statuses = {e.outcome.status for e in exchanges if e.outcome is not None}
        failures = {e.outcome.failure for e in exchanges if e.outcome is not None}
        faults = {exchange.fault for exchange in exchanges}
        state = self._state
        kind = type(error)
        if kind is errors.AuthenticationError:
            just = 401 in statuses
        elif kind is errors.ServerError:
            just = bool(statuses & {410, 429, 500, 502, 503, 504})
        elif issubclass(kind, errors.ProtocolError):
            just = bool(faults & _UNREADABLE)
        elif kind is errors.ConnectionFailedError:
            broken = {Failure.CONNECT, Failure.RESET, Failure.STALL, Failure.TIMEOUT}
            just = bool(failures & broken) or bool(statuses & {429, 502, 503, 504})
        elif kind is errors.SetupFailedError:
            just = (self.server.broken and 500 in statuses) or 503 in statuses
        elif kind is errors.SessionLostError:
            # By now a /create that a gateway held back may have brought it back.
            just = state is not None and state.session_id in self.server.denied
        elif kind is errors.InvalidRequestError:
            # A 404 whose text was cut off says nothing of the session, and what was
            # created already a gateway created again.
            just = 404 in statuses and Fault.SHORT_HEAD in faults
            just = just or (400 in statuses and Fault.REPLAYED in faults)
        else:
            just = kind is errors.SessionClosedError and bool(state and state.closed)
        if not just:
            raise ViolationError(f"{kind.__name__} without a reason: {error}")

    def _call(self, call: Call) -> Script:
        state, client = self._state, self.client
        assert state is not None
        nonce, self._nonce = self._nonce, self._nonce + 1
        asked = {"play": [nonce, call.seconds, call.raises, call.finishes]}
        first, was_over = len(client.network.exchanges), _is_over(state)
        timeout = self.part.call_timeout
        operation = operations.call_tool(
            client.server, state, call.tool, asked, timeout=timeout
        )
        began = client.clock.now
        try:
            output = yield from self._timed(operation, timeout)
        except errors.ORSError as error:
            exchanges = self._mine(first)
            if was_over and exchanges:
                raise ViolationError("a session was called after its end") from None
            self._judge(error, exchanges, nonce, client.clock.now - began)
            if isinstance(error, errors.AmbiguousCallError):
                yield from self._afterwards(error, nonce)
            if not isinstance(error, errors.ToolFailedError | errors.ToolRejectedError):
                raise
        else:
            self._compare(output, nonce)

    def _compare(self, output: ToolOutput, nonce: int) -> None:
        run = self._run(nonce)
        if run is None or run.done > self.client.clock.now:
            raise ViolationError(f"call {nonce} has a result, and was not run")
        text = [block["text"] for block in output["blocks"]]
        shown = (text, output["reward"], output["finished"])
        if shown != ([f" ran  {nonce}"], run.paid, run.finished):
            raise ViolationError(
                f"call {nonce} gave {run.result}, and shown is {shown}"
            )
        if run.finished:
            self._expect_refusal(errors.ToolRejectedError)
        self.shown += 1

    def _run(self, nonce: int) -> Run | None:
        runs = [run for run in self.server.runs if run.nonce == nonce]
        if len(runs) > 1:
            raise ViolationError(f"call {nonce} was run {len(runs)} times")
        return runs[0] if runs else None

    def _judge(
        self, error: errors.ORSError, exchanges: list[Exchange], nonce: int, took: float
    ) -> None:
        run = self._run(nonce)
        kind = type(error)
        unsure = any(_may_have_run(each) for each in exchanges)
        if kind is errors.ToolFailedError:
            if run is None or run.result not in str(error):
                raise ViolationError(f"the tool did not raise: {error}")
        elif kind is errors.ToolRejectedError:
            self.never.append(nonce)
        elif isinstance(error, errors.AmbiguousCallError):
            if not unsure:
                raise ViolationError(f"nothing was ambiguous: {error}")
            if run is not None and error.task_id not in ("", run.task_id):
                raise ViolationError(f"not the task of call {nonce}: {error.task_id}")
            early = took < self.part.call_timeout - 5.0 - GRANULARITY
            if kind is errors.CallTimeoutError and early:
                raise ViolationError(f"a time-out after {took:g} s")
        else:
            lost = (errors.SessionLostError, errors.ProtocolError)
            if not isinstance(error, lost):
                self.never.append(nonce)
                if unsure:
                    raise ViolationError(
                        f"it may have run, and is said not to: {error}"
                    )
            self._justify(error, exchanges)

    def _afterwards(self, error: errors.AmbiguousCallError, nonce: int) -> Script:
        """Try to go on after a call whose end is unknown."""
        state = self._state
        assert state is not None
        if not (state.closed or state.lost):
            self._expect_refusal(errors.InvalidRequestError)
        if not (self.part.resumes and error.task_id) or state.closed or state.lost:
            return
        operation = operations.resume_call(
            self.client.server, state, error.task_id, timeout=self.part.call_timeout
        )
        try:
            output = yield from self._timed(operation, self.part.call_timeout)
        except errors.ToolFailedError:
            run = self._run(nonce)
            if run is None or not run.raised:
                raise ViolationError("the tool did not raise") from None
        else:
            self._compare(output, nonce)

    def _expect_refusal(self, kind: type[errors.ORSError]) -> None:
        state = self._state
        assert state is not None
        operation = operations.call_tool(
            self.client.server, state, "play", {"play": [-1, 0, 0, 0]}, timeout=1.0
        )
        _expect(operation, kind)


def _expect(operation: Generator[Any, Any, Any], kind: type[errors.ORSError]) -> None:
    try:
        next(operation)
    except errors.ORSError as error:
        ended = (errors.SessionLostError, errors.SessionClosedError)
        if isinstance(error, (kind, *ended)):
            return
        wrong = f"{type(error).__name__} and not {kind.__name__}"
        raise ViolationError(wrong) from None
    operation.close()
    raise ViolationError("a session was called after its end")


def _is_over(state: SessionState) -> bool:
    return bool(state.closed or state.lost or state.finished)


def _may_have_run(exchange: Exchange) -> bool:
    """Say whether a client that sees this much cannot know that the tool did not run.

    The table of docs/wire.md, point 5, written a second time.
    """
    outcome: Outcome | None = exchange.outcome
    if outcome is None or not outcome.sent or outcome.status == 429:
        return False
    if outcome.status == 503 and b"X-Backend-State" in dict(outcome.headers):
        return False
    if outcome.failure is None and outcome.status in (400, 401, 403, 422, 410):
        return False
    body = getattr(exchange.send.sink, "body", b"")
    lost = outcome.status == 404 and b"Active environment not found" in body
    return outcome.failure is not None or not lost
