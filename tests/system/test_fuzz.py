"""The fuzzer itself: a short run of it, and proof that it can fail."""

from unittest.mock import patch

import pytest

from ors_gym.protocol import _replies as replies
from tests.protocol.scripted_exchanges import STREAM
from tests.system.fuzz import FuzzError, fuzz, main

REACHED = [
    *("events: events", "events: no event", "json: JSON", "json: protocol"),
    *("stream: result", "stream: tool error", "stream: only a task_id"),
    *("stream: nothing", "reply: complete", "reply: reset", "reply: protocol"),
    *("bounded reply: complete", "bounded reply: limit", "error text: told"),
]


def test_readers_stand_what_no_server_should_send() -> None:
    tally = fuzz(30.0, seed=1, most=1500)
    assert tally.inputs == 1500
    # Inputs get past the first check of each reader often enough to matter.
    for outcome in REACHED:
        assert tally.outcomes[outcome] >= 5, outcome


def test_an_error_that_is_not_ours_is_found() -> None:
    def strict(self: replies.StreamReader, data: bytes) -> bool:
        data.decode()
        return False

    with (
        patch.object(replies.StreamReader, "feed", strict),
        pytest.raises(FuzzError, match="stream: UnicodeDecodeError"),
    ):
        fuzz(30.0, seed=1, most=1500)


def test_a_reader_that_minds_the_cut_is_found() -> None:
    def forgetful(self: replies.StreamReader, data: bytes) -> bool:
        self.start(200, STREAM)
        self.failed = str(len(data))
        return False

    with (
        patch.object(replies.StreamReader, "feed", forgetful),
        pytest.raises(FuzzError, match="stream: "),
    ):
        fuzz(30.0, seed=1, most=1500)


def test_the_command_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["0.05", "--seed", "3"]) == 0
    assert "seed 3" in capsys.readouterr().out
    with patch("tests.system.fuzz.reading.parse_json", side_effect=KeyError("x")):
        assert main(["5", "--seed", "3"]) == 1
    assert "KeyError" in capsys.readouterr().out
