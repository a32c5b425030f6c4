"""What every command does about mistakes, hostile text and a reader that leaves."""

import re
import subprocess

import pytest

import ors_gym
from ors_gym._shown_text import clean
from ors_gym.cli import main
from tests.cli.running import COMMAND, run
from tests.support.slow_cases import on_one_sdk
from tests.system.docs.pages import ROOT


@on_one_sdk
def test_a_reader_that_leaves_early_is_no_error(server):
    with subprocess.Popen(
        [*COMMAND, "list", server.base_url],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == ""
        assert process.wait(60) == 1


def test_a_server_cannot_steer_the_terminal():
    assert clean("\x1b]0;owned\x07\x9b2J\r\x00ok\tok\n") == (
        "\ufffd]0;owned\ufffd\ufffd2J\ufffd\ufffdok\tok\n"
    )


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ("check", "URL"),
        ("check http://h --calls {", "not JSON"),
        ("check http://h --calls []", "write"),
        ("check http://h --calls {} --no-calls", "not allowed with"),
        ("eval math --tasks none", "names no tasks"),
        ("eval math --tasks 5:5", "names no tasks"),
        ("eval math --tasks=-1:5", "names no tasks"),
        ("serve --port 99999", "a port is 0 to 65535"),
        ("serve --port=-1", "a port is 0 to 65535"),
        ("replay", "file"),
        ("rescore x --scorer m:f --reward-range --json", "expected one argument"),
        ("rescore x --scorer m:f --reward-range -1:-2", "'-1:-2' is no range"),
        ("nonsense", "invalid choice"),
    ],
)
def test_what_cannot_be_read_is_code_2(arguments, said, capsys):
    with pytest.raises(SystemExit) as end:
        main(arguments.split())
    assert end.value.code == 2
    complaint = capsys.readouterr().err
    assert said in complaint
    # A screen of options would hide it.
    assert complaint.startswith("ors-gym")
    assert complaint.endswith("--help\n")
    assert len(complaint.splitlines()) == 2


URL = "http://127.0.0.1:1"
RANGE = "--reward-range -.5:1"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (f"list {URL}", "127.0.0.1:1"),
        (f"list nowhere --url {URL}", "127.0.0.1:1"),
        (f"list {URL} --url {URL}", "named twice"),
        (
            "eval math --url nowhere",
            "neither an address (http://host:port) nor something to serve",
        ),
        (f"list --url {URL}", "Is the server running, and is this"),
        ("check no_such_module:Class", "module 'no_such_module' cannot be imported"),
        ("check 127.0.0.1:9", "address with http://: http://127.0.0.1:9\n"),
        (f'check {URL} x --calls {{"tol":1}}', "not a tool call"),
        ("check ../mine:Class", "'../mine' is a file; name its module, as mine:Class"),
        ("serve mine.py:Class", "'mine.py' is a file; name its module, as mine:Class"),
        ("play no_such.module:C", "'no_such.module' cannot be imported (run in"),
        (f"play math --url {URL}", "127.0.0.1:1"),
        ("serve no_such_module:C", "module 'no_such_module' cannot be imported"),
        ("serve guess", "guess is bundled: ors-gym serve without a name serves it"),
        (
            "serve nothing",
            "'nothing' cannot be served; what can be is module:Class, gymnasium:ID",
        ),
        (f"eval {URL}", "--url"),
        (f"eval a:B --url {URL}", "leave out --url"),
        ("eval math --policy clever", "module:function"),
        ("eval math --policy json:clever", "clever"),
        ("eval math --policy json:__name__", "cannot be called"),
        ("eval math --policy no_such_module:f", "no_such_module"),
        ("eval math --policy mine.py:f", "name its module, as mine:f"),
        ("eval math --policy clever --reward-range -1:1", "module:function"),
        (f"rescore /no/such --scorer json:loads {RANGE}", "/no/such"),
        ("report /no/such/file.jsonl", "/no/such/file.jsonl"),
        ("show /no/such/file.jsonl", "/no/such/file.jsonl"),
    ],
)
def test_a_mistake_is_explained_with_code_1(arguments, said, capsys):
    assert main(arguments.split()) == 1
    error = capsys.readouterr().err
    assert error.startswith("ors-gym: ") or "check" in arguments
    assert "Traceback" not in error
    assert said in error


def test_a_policy_that_cannot_be_imported_is_told_with_its_place(tmp_path):
    (tmp_path / "mine.py").write_text("\n\nclever = cleverness\n")
    done = run("eval", "math", "--policy", "mine:clever", code=1, cwd=tmp_path)
    said = "cannot be loaded: NameError: name 'cleverness' is not defined ("
    assert said in done.stderr
    assert done.stderr.endswith("mine.py:3)\n")


def test_a_mistake_is_explained_in_a_process_of_its_own():
    done = run("serve", "no_such_module:Class", code=1, fresh=True)
    assert done.stderr.startswith("ors-gym: module 'no_such_module' cannot")


PAGE = (ROOT / "docs" / "command_line.md").read_text()
COMMANDS = re.findall(r"^## (\w+)$", PAGE, re.MULTILINE)


def help_of(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    with pytest.raises(SystemExit) as end:
        main([*arguments, "--help"])
    assert end.value.code == 0
    return capsys.readouterr().out


def test_the_page_has_a_section_for_each_command(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert set(re.findall(r"^    (\w+)  ", help_of(capsys), re.MULTILINE)) == set(
        COMMANDS
    )


@pytest.mark.parametrize("command", COMMANDS)
def test_its_help_says_what_it_does_and_shows_it(
    command: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    said = help_of(capsys, command)
    assert f"Example: ors-gym {command} " in said
    assert max(map(len, said.splitlines())) <= 80
    # Every option says what it is.
    assert not re.findall(r"^  --[a-z-]+(?: \S+)?$(?!\n {8})", said, re.MULTILINE)


@pytest.mark.parametrize("command", COMMANDS)
def test_the_page_names_every_option(
    command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    head, _, rest = PAGE.partition(f"\n## {command}\n")
    shown = head.partition("\n## ")[0] + rest.partition("\n## ")[0]
    options = set(re.findall(r"--[a-z][a-z-]+", help_of(capsys, command)))
    assert [option for option in options - {"--help"} if option not in shown] == []


def test_the_version_is_that_of_the_package(capsys):
    with pytest.raises(SystemExit) as end:
        main(["--version"])
    assert end.value.code == 0
    assert capsys.readouterr().out == f"ors-gym {ors_gym.__version__}\n"
    assert re.match(r"\d+\.\d+", ors_gym.__version__)


def test_the_bare_command_prints_the_commands():
    said = run().stdout
    assert all(f"\n    {name} " in said for name in ("demo", "list", "eval", "check"))


BROKEN = {
    "broken/__init__.py": "undefined_name",
    "broken/part.py": "",
    "faulty.py": "undefined_name",
    "mine.py": "def make(argument):\n    pass\n",
}


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (
            ("eval", "math", "--policy", "broken.part:play"),
            "NameError: .*__init__.py:1",
        ),
        (("serve", "broken.part:Env"), "NameError: .*__init__.py:1"),
        (("serve", "faulty:Env"), "NameError: .*faulty.py:1"),
        (("eval", "math", "--log-to", "mine:make"), "'mine:make' cannot be made: Type"),
    ],
)
def test_a_module_that_raises_is_named(arguments, said, tmp_path):
    for name, text in BROKEN.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    assert re.search(said, run(*arguments, cwd=tmp_path, code=1).stderr)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("demo", "--episodes", "0"), "play at least 1"),
        (("check", "math", "--call-timeout", "nan"), "seconds above 0"),
        (("check", "math", "--call-timeout", "-1"), "seconds above 0"),
        (("eval", "math", "--tasks", "9" * 30), "names no tasks"),
    ],
)
def test_numbers_that_cannot_be_right_are_refused(arguments, said, capsys):
    with pytest.raises(SystemExit, match="2"):
        main(arguments)
    assert said in capsys.readouterr().err
