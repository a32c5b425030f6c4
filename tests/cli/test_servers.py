"""``list``, ``check`` and ``play``: commands that look at a server."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from ors_gym.cli import main
from ors_gym.cli._common import clean
from ors_gym.client import ORSClient
from tests.cli.running import HELLO, run
from tests.support.servers.process import RunningServer


def test_list_tells_all_of_a_server(server: RunningServer) -> None:
    value = json.loads(run("list", server.base_url, "--json").stdout)
    found = {one["name"]: one for one in value["environments"]}
    with ORSClient(server.base_url) as client:
        assert list(found) == client.list_environments()
        assert found["contract"]["tools"] == client.list_tools("contract")
    assert found["contract"]["splits"] == [
        {"name": "train", "type": "train", "tasks": 12},
        {"name": "validation", "type": "validation", "tasks": 3},
        {"name": "test", "type": "test", "tasks": 5},
    ]
    assert value["dialect"]["secrets"] in ("header", "body")
    assert server.log("construct") == []


def test_list_as_text(server: RunningServer) -> None:
    lines = run("list", server.base_url).stdout.splitlines()
    assert "  split train (train): 12 tasks" in lines
    assert "  tool add(a: integer; b: integer)" in lines
    assert "  tool speak(kind: string; size?: integer, default 5000000)" in lines
    assert "      Add two numbers." in lines


def test_list_serves_a_class_of_this_folder(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(HELLO)
    assert "tool hello()" in run("list", "mine:Hello", cwd=tmp_path, fresh=True).stdout


def test_check_says_that_it_runs_tools_and_what_it_found(
    server: RunningServer,
) -> None:
    calls = '[{"tool": "submit", "input": {"answer": "0"}}]'
    done = run(
        *("check", server.base_url, "contract", "--calls", calls, "--json"),
    )
    (report,) = json.loads(done.stdout)
    assert report["ok"]
    assert report["environment"] == "contract"
    assert "runs tools" in done.stderr
    assert server.runs("submit") > 0


def test_check_runs_nothing_if_asked(server: RunningServer) -> None:
    done = run("check", server.base_url, "contract", "--no-calls")
    assert "skipped resume" in done.stdout
    assert "runs tools" not in done.stderr
    assert server.runs() == 0


def test_check_fails_with_the_server(server: RunningServer) -> None:
    done = run("check", server.base_url, "brokensetup", code=1)
    assert "fail    set-up" in done.stdout


def test_check_serves_a_class_of_this_folder(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(HELLO)
    done = run("check", "mine:Hello", cwd=tmp_path, fresh=True)
    assert "pass    results               hello ran" in done.stdout


def test_play_asks_for_a_tool_and_its_arguments(server: RunningServer) -> None:
    typed = "add\n20\n22\nnobody\nsubmit\n6\n"
    arguments = ("play", "contract", "--url", server.base_url, "--task", "3")
    done = run(*arguments, typed=typed, fresh=True)
    assert done.stdout.startswith("3 + 3 = ?\n")
    assert "42\n[reward 0.5]" in done.stdout
    assert "there is no tool 'nobody'" in done.stdout
    assert done.stdout.endswith("right\n[reward 1]\ntotal reward: 1.5\n")
    inputs = [entry["input"] for entry in server.log("run")]
    assert inputs == [{"a": 20, "b": 22}, {"answer": "6"}]
    assert server.open_sessions() == set()


def test_play_saves_pictures_and_leaves_optional_arguments_out(
    server: RunningServer, tmp_path: Path
) -> None:
    typed = "image\nspeak\nplain\n\nq\n"
    done = run(
        *("play", "contract", "--url", server.base_url, "--images", str(tmp_path)),
        typed=typed,
    )
    assert (tmp_path / "image-0.png").read_bytes().startswith(b"\x89PNG")
    assert "left the episode" in done.stdout
    assert server.open_sessions() == set()


def test_a_reader_that_leaves_early_is_no_error(server: RunningServer) -> None:
    with subprocess.Popen(
        [sys.executable, "-m", "ors_gym", "list", server.base_url],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == ""
        assert process.wait(60) == 1


def test_a_server_cannot_steer_the_terminal() -> None:
    assert clean("\x1b]0;owned\x07\x9b2J\r\x00ok\tok\n") == (
        "\ufffd]0;owned\ufffd\ufffd2J\ufffd\ufffdok\tok\n"
    )


@pytest.mark.parametrize(
    "arguments",
    [
        ("check",),
        ("check", "http://h", "--calls", "{"),
        ("check", "http://h", "--calls", "[]"),
        ("check", "http://h", "--calls", "{}", "--no-calls"),
        ("eval", "math", "--tasks", "none"),
        ("eval", "math", "--tasks", "5:5"),
        ("eval", "math", "--tasks", "-1:5"),
        ("list", "http://h", "--url", "http://h"),
        ("serve", "--port", "99999"),
        ("serve", "--port", "-1"),
        ("replay",),
        ("nonsense",),
    ],
)
def test_what_cannot_be_read_is_code_2(arguments: tuple[str, ...]) -> None:
    with pytest.raises(SystemExit) as end:
        main(arguments)
    assert end.value.code == 2


def test_serve_says_which_ports_there_are(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["serve", "--port", "99999"])
    assert "a port is 0 to 65535" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("list", "http://127.0.0.1:1"), "127.0.0.1:1"),
        (("list", "nowhere"), "module:Class"),
        (("list", "--url", "http://127.0.0.1:1"), "Is the server running, and is this"),
        (
            ("check", "no_such_module:Class"),
            "module 'no_such_module' cannot be imported",
        ),
        (("check", "127.0.0.1:9"), "address with http://: http://127.0.0.1:9\n"),
        (("play", "no_such.module:C"), "'no_such.module' cannot be imported (run in"),
        (("serve", "no_such_module:C"), "module 'no_such_module' cannot be imported"),
        (("serve", "guess"), "guess is bundled: run ors-gym serve; a class of your"),
        (("serve", "nothing"), "'nothing' cannot be served; a class of your own is"),
        (
            ("check", "http://127.0.0.1:1", "x", "--calls", '{"tol": 1}'),
            "not a tool call",
        ),
        (("eval", "http://127.0.0.1:1"), "--url"),
        (("eval", "a:B", "--url", "http://127.0.0.1:1"), "leave out --url"),
        (("eval", "math", "--policy", "clever"), "module:function"),
        (("eval", "math", "--policy", "json:clever"), "clever"),
        (("eval", "math", "--policy", "json:__name__"), "cannot be called"),
        (("eval", "math", "--policy", "no_such_module:f"), "no_such_module"),
        (("report", "/no/such/file.jsonl"), "/no/such/file.jsonl"),
        (("show", "/no/such/file.jsonl"), "/no/such/file.jsonl"),
        (("play", "math", "--url", "http://127.0.0.1:1"), "127.0.0.1:1"),
    ],
)
def test_what_goes_wrong_is_explained_with_code_1(
    arguments: tuple[str, ...], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 1
    error = capsys.readouterr().err
    assert "ors-gym: " in error
    assert "Traceback" not in error
    assert said in error
