"""What ``log_to=`` is told, in which order, and what becomes of its failures."""

import asyncio
import threading
from typing import Any

import pytest

from ors_gym.errors import InvalidRequestError
from ors_gym.evaluation import EvaluationLogger, evaluate, parallel_evaluate
from tests.evaluation.contract_evaluations import answer, play, submit


class Kept(EvaluationLogger):
    """Keeps what it is told; raises in the methods that it is given, at this call."""

    def __init__(self, failing: str = "", at: int = 1) -> None:
        self.failing, self.at = failing, at
        self.told: list[tuple[str, Any]] = []
        self.threads: set[int] = set()
        self._busy = threading.Lock()

    def _tell(self, method: str, value: Any) -> None:
        assert self._busy.acquire(blocking=False), "two calls at once"
        try:
            self.threads.add(threading.get_ident())
            self.told.append((method, value))
            if method == self.failing and self.names.count(method) == self.at:
                raise OSError("the network is down")
        finally:
            self._busy.release()

    @property
    def names(self) -> list[str]:
        return [name for name, _ in self.told]

    def begin(self, run):
        self._tell("begin", run)

    def log_episode(self, record):
        self._tell("log_episode", record)

    def end(self, evaluation):
        self._tell("end", evaluation)


def test_a_logger_is_told_of_the_run_its_episodes_and_its_end(contract, tmp_path):
    one, other = Kept(), Kept()
    options: Any = {"log_to": [one, other], "output": tmp_path / "run.jsonl"}
    found = play(contract, range(4), **options)
    for logger in (one, other):
        assert logger.names == ["begin", *["log_episode"] * 4, "end"]
        run, *records, evaluation = (value for _, value in logger.told)
        assert run["environment"] == "contract"
        assert {record.key for record in records} == {("train", n, 0) for n in range(4)}
        assert evaluation.metrics() == found.metrics()
        assert len(logger.threads) == 1
        assert threading.get_ident() not in logger.threads
    # A run that goes on logs what is new, and ends with the figures of all.
    again = Kept()
    play(contract, range(6), log_to=again, output=tmp_path / "run.jsonl")
    assert again.names.count("log_episode") == 2
    assert again.told[-1][1].outcomes == 6


def test_a_run_on_an_event_loop_is_logged_too(contract):
    logger = Kept()
    options: Any = {"split": "train", "progress": False, "log_to": logger}
    job = parallel_evaluate(contract.base_url, "Contract", range(3), submit, **options)
    asyncio.run(job)
    assert logger.names == ["begin", *["log_episode"] * 3, "end"]


@pytest.mark.parametrize(("failing", "at"), [("log_episode", 2), ("end", 1)])
def test_a_logger_that_fails_is_warned_of_once_and_ends_nothing(contract, failing, at):
    broken, whole = Kept(failing, at), Kept()
    with pytest.warns(UserWarning, match="Kept failed.*the network is down") as caught:
        found = play(contract, range(8), log_to=[broken, whole])
    assert len(caught) == 1
    assert found.outcomes == whole.names.count("log_episode") == 8
    assert broken.names[-1] == failing


@pytest.mark.parametrize("kind", [StopIteration, asyncio.CancelledError, GeneratorExit])
def test_a_logger_that_raises_what_steers_tasks_only_fails(contract, kind):
    """A future holds no StopIteration; the others end whoever waits for them."""

    class Steering(EvaluationLogger):
        def log_episode(self, record):
            raise kind

    with pytest.warns(UserWarning, match=f"Steering failed.*{kind.__name__}"):
        found = play(contract, range(4), log_to=Steering())
    assert found.outcomes == 4


def test_a_logger_that_cannot_begin_ends_the_run_before_it_plays(contract):
    first = Kept()
    with pytest.raises(OSError, match="the network is down"):
        play(contract, range(4), log_to=[first, Kept("begin")])
    assert first.names == ["begin", "end"]
    assert first.told[-1][1].stopped == "the network is down"
    assert not contract.log("construct")


def test_a_run_that_is_interrupted_is_ended_at_the_logger(contract):
    logger = Kept()
    job: asyncio.Future[Any]

    async def run() -> None:
        nonlocal job
        options: Any = {"split": "train", "progress": False, "log_to": logger}
        # As Ctrl-C does it: the job is cancelled.
        options["on_episode"] = lambda _: job.cancel()
        asked = contract.base_url, "Contract", range(12), answer
        job = asyncio.ensure_future(parallel_evaluate(*asked, **options))
        with pytest.raises(asyncio.CancelledError):
            await job

    asyncio.run(run())
    assert logger.names[-1] == "end"
    assert logger.told[-1][1].stopped == "interrupted"


def test_a_run_that_fails_is_ended_at_the_logger(contract):
    def fail(_: Any) -> None:
        raise ZeroDivisionError("no")

    logger = Kept()
    with pytest.raises(ZeroDivisionError):
        play(contract, range(12), log_to=logger, on_episode=fail)
    assert logger.names[-1] == "end"
    assert logger.told[-1][1].stopped == "no"


def test_what_is_no_logger_is_refused():
    nonsense: Any
    for nonsense in ("wandb", print, [Kept(), 5], EvaluationLogger):
        with pytest.raises(InvalidRequestError, match="log_to is"):
            evaluate(None, "math", range(2), submit, log_to=nonsense)
