"""What is kept of an agent's output, and its lines."""

import base64
import json
from urllib.parse import quote

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from ors_gym.agents import _process
from ors_gym.agents._process import KeptOutput, LineSplitter
from ors_gym.protocol._redaction import Redactor

pytestmark = pytest.mark.unit
CHUNKS = st.lists(st.binary(max_size=40) | st.sampled_from([b"\n", b"ab\n\ncd"]))


@given(CHUNKS, st.integers(0, 40))
@example(["é".encode()], 2)
def test_the_beginning_and_the_end_are_kept(chunks, most):
    kept = KeptOutput(most, Redactor())
    for chunk in chunks:
        kept.add(chunk)
    whole = b"".join(chunks)
    half = most // 2
    assert kept.size == len(whole)
    text = str(kept)
    if len(whole) <= 2 * half:
        assert text == whole.decode(errors="replace")
    else:
        assert f"[{len(whole) - 2 * half} bytes left out]" in text
        head, tail = text.split(f"\n[{len(whole) - 2 * half} bytes left out]\n")
        shown = whole.decode(errors="replace")
        assert shown.startswith(head)
        assert shown.endswith(tail)
        # A character across a cut belongs to the part that it ends in.
        assert len(whole[: max(half - 3, 0)].decode(errors="ignore")) <= len(head)
        assert len(whole[len(whole) - half :].decode(errors="ignore")) <= len(tail)


SECRET = "sk-l\u00efve ABCD/EFGH"
FORMS = [
    SECRET,
    json.dumps(SECRET)[1:-1],
    quote(quote(SECRET)),
    base64.b64encode(SECRET.encode()).decode(),
]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("chunk", [1, 1000])
def test_no_part_of_a_secret_is_kept_wherever_it_is_cut(form, chunk):
    raw = form.encode()
    for before in range(200 - len(raw), 204):
        # It stands across the end of the beginning, and across the start of the end.
        whole = b"." * before + raw + b"." * (2000 - 2 * before) + raw + b"." * before
        kept = KeptOutput(400, Redactor([SECRET]))
        for start in range(0, len(whole), chunk):
            kept.add(whole[start : start + chunk])
        head, tail = str(kept).split(f"\n[{len(whole) - 400} bytes left out]\n")
        assert set((head + tail).replace("[redacted]", "")) == {"."}


@given(CHUNKS)
def test_lines_are_given_whole_however_they_are_cut(chunks):
    lines: list[bytes] = []
    splitter = LineSplitter(lines.append)
    for chunk in chunks:
        splitter.add(chunk)
    splitter.end()
    assert lines == b"".join(chunks).split(b"\n")


def test_a_line_that_is_too_long_is_passed_over(monkeypatch):
    monkeypatch.setattr(_process, "_LONGEST_LINE", 4)
    lines: list[bytes] = []
    splitter = LineSplitter(lines.append)
    for chunk in (b"abcd\nabc", b"de\nx\nabcde", b"f", b"\nlast"):
        splitter.add(chunk)
    splitter.end()
    assert lines == [b"abcd", b"x", b"last"]
