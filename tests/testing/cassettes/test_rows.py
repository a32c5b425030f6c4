"""The file of a cassette: what it keeps, and what becomes of one that is damaged."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ors_gym.errors import InvalidRequestError
from ors_gym.protocol._sse import EventDecoder
from ors_gym.testing._cassettes.rows import (
    SESSION,
    CassetteFile,
    Reply,
    Request,
    Row,
    Secrets,
    events_reply,
    read_cassette,
    read_reply,
    replace_text,
)

pytestmark = pytest.mark.unit

SERVER = "http://127.0.0.1:1"
PROMPT = Row(Request("GET", "/e/prompt"), Reply(200, "json", ["hello"]), 1)
CALL = Row(
    Request("POST", "/e/call", {"name": "t", "input": {"n": 1}}),
    Reply(200, "events", [{"task_id": "<ors-call>"}, {"end": {"ok": True}}]),
    1,
)
OTHER = Row(
    Request("GET", "/e/x?y=1", None, "Owner/Name", routed=True),
    Reply(307, "text", "", "/there"),
)
texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\r"))
numbers = st.integers() | st.floats(allow_nan=False, allow_infinity=False)
values = st.recursive(
    st.none() | st.booleans() | numbers | texts,
    lambda one: st.lists(one, max_size=3) | st.dictionaries(texts, one, max_size=3),
    max_leaves=6,
)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "cassette.jsonl"


def write(path: Path, *rows: Row) -> None:
    with CassetteFile(path, SERVER) as file:
        for row in rows:
            file.append(row)


def test_rows_come_back_and_a_file_is_continued(path):
    write(path, PROMPT, CALL, OTHER)
    write(path, CALL, PROMPT)
    write(path, PROMPT, OTHER)
    # Two equal calls are two calls; a question that no call came before is kept once.
    assert read_cassette(path) == [PROMPT, CALL, OTHER, CALL, PROMPT]
    with CassetteFile(path, SERVER) as file:
        assert file.last_session == 1
    head, first, *_ = path.read_text().splitlines()
    assert json.loads(head)["format"] == "ors_gym.cassette/1"
    assert first == (
        '{"session":1,"method":"GET","path":"/e/prompt","status":200,"json":["hello"]}'
    )


def test_a_file_that_is_cut_at_any_byte_loses_its_last_row_only(path):
    write(path, PROMPT, CALL, OTHER)
    whole = path.read_bytes()
    ends = [i + 1 for i, byte in enumerate(whole) if byte == ord("\n")]
    for size in {*range(ends[0], len(whole), 7), *ends, *(end - 1 for end in ends[1:])}:
        path.write_bytes(whole[:size])
        kept = sum(end <= size for end in ends) - 1
        assert read_cassette(path) == [PROMPT, CALL, OTHER][:kept]
    path.write_bytes(whole[:-5])
    write(path, OTHER)
    assert read_cassette(path) == [PROMPT, CALL, OTHER]


def test_a_second_recording_of_one_file_is_refused(path):
    with (
        CassetteFile(path, SERVER),
        pytest.raises(InvalidRequestError, match="another recording is writing"),
    ):
        CassetteFile(path, SERVER)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ('{"session":1}', "a row needs a method"),
        ('{"method":"GET","path":"/x","status":200}', "a row has one of"),
        ('{"method":"GET","path":"/x","status":200,"events":[1]}', "events"),
        ('{"method":"GET","path":"/x","status":200,"base64":"?"}', "base64|padding"),
        ('{"method":"GET","path":"/x","status":"200","json":1}', "status"),
        ('{"method":"GET"', "not JSON"),
        ("[]", "no object"),
    ],
)
def test_a_damaged_row_is_refused(path, line, said):
    write(path, PROMPT)
    with path.open("a") as file:
        file.write(f"{line}\n")
    with pytest.raises(InvalidRequestError, match=f"damaged: .*({said})"):
        read_cassette(path)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "cannot be read.*ors-gym record"),
        ("", "is empty"),
        ('{"format":"ors_gym.evaluation/1"}\n', "is no cassette"),
        ("hello\n", "is no cassette"),
    ],
)
def test_what_is_no_cassette_is_refused(path, content, said):
    if content is not None:
        path.write_text(content)
    with pytest.raises(InvalidRequestError, match=said):
        read_cassette(path)


@given(values, st.text(max_size=3))
def test_every_row_is_read_back(value: Any, path: str):
    row = Row(Request("POST", "/" + path, value), Reply(200, "json", value), 3)
    assert Row.from_json(json.loads(json.dumps(row.to_json()))) == row


@given(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\r")))
def test_every_result_is_written_as_the_servers_write_it(text: str):
    reply = Reply(200, "events", [{"task_id": "<ors-call>"}, {"end": text * 700}])
    stream = reply.encode("the session", "the call")
    decoder = EventDecoder()
    events = [*decoder.feed(stream), *decoder.finish()]
    assert events[0] == (b"task_id", b"the call")
    parts = [event.data.decode() for event in events[1:]]
    assert "".join(parts) == text * 700
    assert all(len(part) <= 4096 for part in parts)
    assert [event.name for event in events[1:]] == [
        *([b"chunk"] * (len(parts) - 1)),
        b"end",
    ]
    again = events_reply(200, events).content[-1]["end"]
    assert again == text * 700 or json.dumps(again)


@pytest.mark.parametrize(
    ("kind", "body", "kept"),
    [
        ("application/json", b'{"a": 1}', ("json", {"a": 1})),
        ("application/json", b'{"a": NaN}', ("text", '{"a": NaN}')),
        ("text/html", "é".encode(), ("text", "é")),
        ("image/png", b"\x89PNG\xff", ("base64", "iVBOR/8=")),
    ],
)
def test_a_reply_is_kept_in_the_most_readable_way(kind, body, kept):
    reply = read_reply(200, kind, body)
    assert (reply.body, reply.content) == kept
    assert reply.encode("s") == body


def test_the_ids_of_a_reply_are_those_of_its_player():
    reply = Reply(200, "json", {"sid": SESSION, "text": f"not {SESSION}"})
    assert json.loads(reply.encode("mine")) == {"sid": "mine", "text": "not mine"}


@given(values)
def test_without_a_secret_nothing_is_changed(value: Any):
    body = json.dumps(value).encode()
    read = Secrets().read_request("POST", "/x", {"accept": "*/*"}, body)
    assert json.dumps(read.body) == json.dumps(value)


def test_an_answer_that_comes_again_later_is_kept(path):
    asked = Request("GET", "/e/task_tools")
    first, second = (
        Row(asked, Reply(200, "json", {"tools": [name]}), 1) for name in "ab"
    )
    outside = [dataclasses.replace(one, session=None) for one in (first, second)]
    written = [PROMPT, first, first, CALL, second, CALL, first, first, second, first]
    write(path, *written, *outside, outside[0], outside[0])
    kept = [PROMPT, first, CALL, second, CALL, first, second, first]
    assert read_cassette(path) == [*kept, *outside, outside[0]]


def test_no_text_is_taken_for_the_id_of_no_session():
    assert replace_text({"a": "", "b": ["x", ""]}, "", SESSION) == {
        "a": "",
        "b": ["x", ""],
    }
