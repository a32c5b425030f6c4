"""What `render_mode="human"` prints: colours where rich is, and nothing that steers."""

import io
import sys

import pytest

from ors_gym.display import _terminal as terminal
from ors_gym.display._terminal import print_entry, say
from ors_gym.display._transcript import Entry

pytestmark = pytest.mark.unit

STEP = Entry("\x1b[2Jok [bold]\tb", (), "submit(x=1)", 1.0, "finished")


@pytest.fixture(autouse=True)
def _look_for_rich_again(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal._find_rich.cache_clear()
    for name in ("NO_COLOR", "FORCE_COLOR", "TERM"):
        monkeypatch.delenv(name, raising=False)


def test_plain_where_no_colours_can_be_seen(capsys):
    print_entry(STEP)
    shown = "> submit(x=1)\n\ufffd[2Jok [bold]\tb\n[reward 1, finished]\n\n"
    assert capsys.readouterr().out.expandtabs() == shown.expandtabs()


def test_coloured_in_a_terminal(capsys, monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm-256color")
    print_entry(STEP)
    printed = capsys.readouterr().out
    assert "\x1b[1;32m[reward 1, finished]" in printed
    assert "\x1b[2J" not in printed
    print_entry(Entry("boo", (), "fail()", 0.0, "tool_failed", failed=True))
    assert "\x1b[33mboo" in capsys.readouterr().out


@pytest.mark.parametrize("rich", [True, False])
@pytest.mark.parametrize(
    ("encoding", "shown"),
    [("ascii", r"\xe9 \u2211"), ("latin-1", "\xe9 \\u2211"), ("utf-8", "\xe9 \u2211")],
)
def test_what_the_output_has_no_character_for_is_replaced(
    encoding, shown, rich, monkeypatch
):
    output = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    monkeypatch.setattr(sys, "stdout", output)
    if not rich:
        monkeypatch.setitem(sys.modules, "rich.text", None)
    print_entry(Entry("\xe9 \u2211", (), "f('\xe9 \u2211')", 1.0))
    say("\xe9 \u2211")
    output.flush()
    printed = output.buffer.getvalue().decode(encoding)
    monkeypatch.undo()
    terminal._find_rich.cache_clear()
    assert printed.count(shown) == 3


def test_without_rich_it_says_so_once(capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "rich.text", None)
    print_entry(STEP)
    print_entry(STEP)
    printed = capsys.readouterr().out
    assert printed.count('pip install "ors-gym[server]"') == 1
    assert printed.count("> submit(x=1)") == 2
    terminal._find_rich.cache_clear()
