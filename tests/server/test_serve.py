"""``run``, which serves from the process itself until it is told to stop."""

import functools
import signal
import socket
from pathlib import Path
from typing import Any

import ors
import pytest

from ors_gym.client import ORSClient
from ors_gym.errors import InvalidRequestError
from ors_gym.server import run
from ors_gym.server.environments.guess import Guess
from tests.server.processes import is_listening, next_line, owner
from tests.support.slow_cases import mostly_slow

GUESS = "ors_gym.server.environments.guess:Guess"


class Missing(Guess):
    @classmethod
    @functools.cache
    def list_splits(cls) -> Any:
        return Path("no-such-file").read_text()


class Toolless(ors.Environment):
    @classmethod
    @functools.cache
    def list_splits(cls) -> Any:
        return ["train"]

    @classmethod
    def list_tasks(cls, split: str) -> Any:
        return [{}]

    def get_prompt(self) -> Any:
        return []


SCRIPT = """
    from ors_gym.server import run
    run({environments}, port=0, on_start=print)
    print("done")
"""


@pytest.mark.parametrize(
    ("environments", "served"),
    mostly_slow(
        [
            (f"['{GUESS}']", ["guess"]),
            ("[]", ["math", "guess", "blackjack", "maze", "sql"]),
        ]
    ),
)
def test_it_serves_until_ctrl_c(environments: str, served: list[str]):
    with owner(SCRIPT.format(environments=environments)) as process:
        base_url = next_line(process)
        with ORSClient(base_url) as client:
            assert client.list_environments() == served
        process.send_signal(signal.SIGINT)
        assert next_line(process) == "done"
        assert process.wait(20) == 0
        assert not is_listening(base_url)


def test_it_ends_at_sigterm():
    with owner(SCRIPT.format(environments="[]")) as process:
        base_url = next_line(process)
        process.terminate()
        process.wait(20)
        assert not is_listening(base_url)


def test_an_address_that_cannot_be_had_is_an_error_that_says_so():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(InvalidRequestError, match=f"port {port}: .*in use"):
            run([GUESS], port=port)
    with pytest.raises(InvalidRequestError, match=r"192\.0\.2\.1"):
        run([GUESS], host="192.0.2.1", port=0)


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        ("no_such_module:X", "No module named"),
        ("json:JSONDecoder", "not a subclass of ors.Environment"),
        ("json:NoSuchClass", "no class 'NoSuchClass'"),
        (int, "not a subclass of ors.Environment"),
        (Missing, r"FileNotFoundError: .*'no-such-file' \(.*\.py:\d+\)"),
        (Toolless, "Cannot serve: ValueError: "),
    ],
)
def test_what_cannot_be_served_is_an_error_that_says_so(environment, message):
    with pytest.raises(InvalidRequestError, match=message):
        run([environment], port=0)
