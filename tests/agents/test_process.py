"""What is kept of an agent's output, and its lines."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from ors_gym.agents import _process
from ors_gym.agents._process import KeptOutput, LineSplitter

pytestmark = pytest.mark.unit
CHUNKS = st.lists(st.binary(max_size=40) | st.sampled_from([b"\n", b"ab\n\ncd"]))


@given(CHUNKS, st.integers(0, 40))
@example(["é".encode()], 2)
def test_the_beginning_and_the_end_are_kept(chunks, most):
    kept = KeptOutput(most)
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
        head = whole[:half].decode(errors="replace")
        tail = whole[len(whole) - half :].decode(errors="replace")
        assert text.startswith(head)
        assert text.endswith(tail)


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
