"""The fuzzers themselves: a short run of each, and proof that it can fail."""

from unittest.mock import patch

import pytest

from ors_gym.formats import _json_lines as lines
from ors_gym.protocol import _replies as replies
from ors_gym.rollout._output import Output
from ors_gym.spaces import ToolCallSpace
from ors_gym.spaces.json_schema import CompiledSchema
from tests.protocol.scripted_exchanges import STREAM
from tests.system.fuzz.__main__ import fuzz, main
from tests.system.fuzz.tally import FuzzError

REACHED = {
    "replies": [
        *("events: events", "events: no event", "json: JSON", "json: protocol"),
        *("stream: result", "stream: tool error", "stream: only a task_id"),
        *("stream: nothing", "reply: complete", "reply: reset", "reply: protocol"),
        *("bounded reply: complete", "bounded reply: limit", "error text: told"),
    ],
    "files": ["file: refused", "file: went on", "file: went on after a full disk"],
    "schemas": [
        *("schema: well formed: sampled", "schema: well formed: schema"),
        *("schema: malformed: sampled", "schema: malformed: schema"),
    ],
}


@pytest.mark.parametrize(
    ("what", "most"), [("replies", 1500), ("files", 300), ("schemas", 150)]
)
def test_nothing_fails_on_what_nobody_should_send(what: str, most: int) -> None:
    tally = fuzz(what, 100.0, seed=1, most=most)
    assert tally.inputs == most
    # Inputs get past the first check often enough to matter.
    for outcome in REACHED[what]:
        assert tally.outcomes[outcome] >= 5, outcome


def test_an_error_that_is_not_ours_is_found() -> None:
    def strict(self: replies.StreamReader, data: bytes) -> bool:
        data.decode()
        return False

    with (
        patch.object(replies.StreamReader, "feed", strict),
        pytest.raises(FuzzError, match="stream: UnicodeDecodeError"),
    ):
        fuzz("replies", 30.0, seed=1, most=1500)


def test_a_reader_that_minds_the_cut_is_found() -> None:
    def forgetful(self: replies.StreamReader, data: bytes) -> bool:
        self.start(200, STREAM)
        self.failed = str(len(data))
        return False

    with (
        patch.object(replies.StreamReader, "feed", forgetful),
        pytest.raises(FuzzError, match="stream: "),
    ):
        fuzz("replies", 30.0, seed=1, most=1500)


@pytest.mark.parametrize(
    ("broken", "found"),
    [
        (patch.object(lines, "_is_torn", lambda *_: True), "something else was taken"),
        (patch.object(Output, "_cut_back", lambda _: None), "a torn row"),
        (
            patch.object(Output, "_rewrite", lambda *_: None),
            "damaged|torn|twice",
        ),
        (patch.object(lines, "decode_json", lambda _: {}), "is no output file"),
    ],
)
def test_an_output_that_loses_or_destroys_is_found(broken, found) -> None:
    with broken, pytest.raises(FuzzError, match=found):
        fuzz("files", 60.0, seed=1, most=1500)


@pytest.mark.parametrize(
    ("broken", "found"),
    [
        (patch.object(ToolCallSpace, "contains", lambda *_: False), "is not valid"),
        (patch.object(CompiledSchema, "draw", lambda *_: {"n": "x"}), "is not valid"),
        (patch.object(ToolCallSpace, "enumerate", lambda *_: 1 / 0), "ZeroDivision"),
    ],
)
def test_a_space_that_is_wrong_is_found(broken, found) -> None:
    with broken, pytest.raises(FuzzError, match=found):
        fuzz("schemas", 60.0, seed=1, most=300)


def test_the_command_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["0.05", "--seed", "3"]) == 0
    said = capsys.readouterr().out
    for what in REACHED:
        assert f"{what}, seed 3: " in said
    with patch(
        "tests.system.fuzz.replies.reading.parse_json", side_effect=KeyError("x")
    ):
        assert main(["5", "replies", "--seed", "3"]) == 1
    assert "KeyError" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        main(["1", "nothing"])
    assert "there is no fuzzer for nothing" in capsys.readouterr().err
