"""``list``, ``check`` and ``play``: commands on a server."""

import base64
import importlib.util
import io
import json

import pytest
from PIL import Image

from ors_gym.cli import _play
from ors_gym.client import ORSClient
from ors_gym.display._transcript import Entry
from tests.cli.running import HELLO, run
from tests.support.proxy import scripted
from tests.support.slow_cases import on_one_sdk
from tests.support.terminal import Terminal
from tests.system.faults.scripted_ors import scripted_ors


def test_list_tells_all_of_a_server(server):
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


def test_list_as_text(server):
    lines = run("list", server.base_url).stdout.splitlines()
    assert "  split train: 12 tasks" in lines
    assert "  tool add(a: integer; b: integer)" in lines
    assert "  tool speak(kind: string; size?: integer, default 5000000)" in lines
    assert "      Add two numbers." in lines
    assert lines[:3] == [server.base_url, "", "contract"]


@pytest.mark.parametrize(
    ("command", "said"),
    [
        ("list {0}", "URL\n\n{0}\n"),
        ("list {0} --url URL", "URL\n\n{0}\n"),
        ("list {0} --base-url URL", "URL\n\n{0}\n"),
        ("check {0} --no-calls", "'{0}' at URL"),
    ],
)
def test_one_environment_is_named_as_in_the_other_commands(
    server, command, said, monkeypatch
):
    if "URL" not in command:
        monkeypatch.setenv("ORS_BASE_URL", server.base_url)
    command, said = (
        text.format("contract").replace("URL", server.base_url)
        for text in (command, said)
    )
    output = run(*command.split()).stdout
    assert said in output
    assert max(map(len, output.splitlines())) <= 80
    assert "brokensetup" not in output


@pytest.mark.slow
def test_list_names_no_address_that_ends_with_it(tmp_path):
    assert run("list").stdout.startswith("the bundled environments\n\nmath\n")
    (tmp_path / "mine.py").write_text(HELLO)
    said = run("list", "mine:Hello", cwd=tmp_path, fresh=True).stdout
    assert said.startswith("mine:Hello, served for this list\n\nhello\n")


@pytest.mark.old_sdks
def test_list_says_what_an_old_server_cannot_do(shared_server):
    oldest = shared_server("openreward-0.1.0").base_url
    assert "takes no secrets" in run("list", oldest).stdout
    older = shared_server("openreward-0.1.22").base_url
    assert "gives tasks as a whole list only" in run("list", older).stdout


@pytest.mark.slow
@pytest.mark.parametrize(
    ("command", "said"),
    [
        ("check mine:Hello", "pass    results               well formed: hello ran"),
        ("eval mine:Hello --policy mine:greet", "success rate    100.0%"),
    ],
)
def test_a_class_of_this_folder_is_served(command, said, tmp_path):
    (tmp_path / "mine.py").write_text(HELLO)
    assert said in run(*command.split(), cwd=tmp_path, fresh=True).stdout


def test_check_says_that_it_runs_tools_and_what_it_found(server):
    calls = '[{"tool": "submit", "input": {"answer": "0"}}]'
    done = run("check", server.base_url, "contract", "--calls", calls, "--json")
    (report,) = json.loads(done.stdout)
    assert report["ok"]
    assert report["environment"] == "contract"
    assert "runs tools" in done.stderr
    assert server.runs("submit") > 0


def test_check_runs_nothing_if_asked(server):
    done = run("check", server.base_url, "contract", "--no-calls")
    assert "skipped resume" in done.stdout
    assert "runs tools" not in done.stderr
    assert server.runs() == 0


def test_check_fails_with_the_server(server):
    done = run("check", server.base_url, "brokensetup", code=1)
    assert "fail    set-up" in done.stdout


def test_play_asks_for_a_tool_and_its_arguments(server):
    typed = "add\n20\n22\nnobody\nsubmit\n6\n"
    done = run(
        *("play", "contract", "--url", server.base_url, "--task", "3"),
        typed=typed,
        fresh=True,
    )
    assert done.stdout.startswith("3 + 3 = ?\n")
    assert "42\n[reward 0.5]" in done.stdout
    assert "there is no tool 'nobody'" in done.stdout
    assert done.stdout.endswith("right\n[reward 1]\ntotal reward: 1.5\n")
    inputs = [entry["input"] for entry in server.log("run")]
    assert inputs == [{"a": 20, "b": 22}, {"answer": "6"}]
    assert server.open_sessions() == set()


def test_play_saves_pictures_and_leaves_optional_arguments_out(server, tmp_path):
    typed = "image\nspeak\nplain\n\nq\n"
    done = run(
        *("play", "contract", "--url", server.base_url, "--images", str(tmp_path)),
        typed=typed,
    )
    assert (tmp_path / "image-0.png").read_bytes().startswith(b"\x89PNG")
    assert "left the episode" in done.stdout
    # Another episode leaves the pictures of this one alone.
    (tmp_path / "image-0.png").write_text("of the first")
    run(
        *("play", "contract", "--url", server.base_url, "--images", str(tmp_path)),
        typed="image\nq\n",
    )
    assert (tmp_path / "image-0.png").read_text() == "of the first"
    assert (tmp_path / "image-1.png").read_bytes().startswith(b"\x89PNG")
    assert server.open_sessions() == set()


@pytest.mark.parametrize(
    ("kind", "name"),
    [("PNG", "image-0.png"), ("JPEG", "image-0.jpg"), ("WEBP", "image-0.webp")],
)
def test_a_picture_is_saved_under_the_ending_of_what_it_is(kind, name, tmp_path):
    file = io.BytesIO()
    Image.new("RGB", (2, 2)).save(file, kind)
    data = base64.b64encode(file.getvalue()).decode()
    # Servers label pictures as they like: the first bytes decide.
    block = {"type": "image", "data": data, "mimeType": "image/png"}
    _play._Gallery(str(tmp_path)).save(Entry("", [block]))
    assert (tmp_path / name).read_bytes() == file.getvalue()


@pytest.mark.parametrize("data", ["\u00e9\u00e9\u00e9\u00e9", "AAA", 4, None])
def test_a_picture_that_cannot_be_decoded_is_told_and_the_next_one_saved(
    data, tmp_path, capsys
):
    # Some writers break base64 into lines.
    whole = {"type": "image", "data": base64.encodebytes(bytes(90)).decode()}
    broken = {"type": "image", "data": data, "mimeType": "image/png"}
    _play._Gallery(str(tmp_path)).save(Entry("", [broken, whole]))
    assert "[an image is not saved: " in capsys.readouterr().out
    (path,) = tmp_path.iterdir()
    assert path.name == "image-0.img"
    assert path.read_bytes() == bytes(90)


def test_play_takes_calls_as_they_are_written(server):
    typed = [
        *(
            "add 20 22",
            "1 b=1 2",
            "add(a=5, b=6)",
            'add {"a": 7, "b": 8}',
            "add 9",
            "1",
        ),
        *('{"tool": "add", "input": {"a": 0, "b": 3}}', "", "4", "5"),
        *("echo it is what it is", "add 1 2 3", "?", "q"),
    ]
    url = ("--url", server.base_url)
    done = run("play", "contract", *url, typed="\n".join(typed) + "\n")
    inputs = [entry["input"] for entry in server.log("run")]
    assert inputs == [
        *({"a": 20, "b": 22}, {"b": 1, "a": 2}, {"a": 5, "b": 6}, {"a": 7, "b": 8}),
        *({"a": 9, "b": 1}, {"a": 0, "b": 3}, {"a": 4, "b": 5}),
        {"text": "it is what it is"},
    ]
    assert "add takes a, b; more arguments were given" in done.stdout
    assert done.stdout.count("1. add(a: integer; b: integer)  Add two numbers.") == 2
    assert "left the episode\ntotal reward: 3.5\n" in done.stdout


def test_play_edits_lines_and_takes_a_key_for_a_choice():
    with Terminal("play", "maze") as terminal:
        terminal.wait_for("q: leave.\n>")
        # Back over two letters, one deleted, and one put in its right place.
        terminal.type("mvoe\x1b[D\x1b[D\x7f\x1b[Cv\r")
        terminal.wait_for("(1 up, 2 down, 3 left, 4 right):")
        terminal.type("4")
        # What comes before the next prompt is echoed by the terminal, not edited.
        terminal.wait_for("]\n>")
        # The arrow up brings the line back.
        terminal.type("\x1b[A\x1b[A\r")
        terminal.wait_for("4 right):", 2)
        terminal.type("left\r")
        terminal.wait_for("]\n>", 2)
        # Tab completes the name.
        seen = terminal.text.count("move")
        terminal.type("mo\t")
        terminal.wait_for("move", seen + 1)
        terminal.type(" right\r")
        terminal.wait_for("]\n>", 3)
        terminal.type("mo\x03")
        terminal.wait_for("left the episode\ntotal reward")
        assert terminal.wait() == 0
    assert "Traceback" not in terminal.text


@on_one_sdk
def test_ctrl_c_while_a_tool_runs_leaves_a_clean_line(server):
    with Terminal("play", "contract", "--url", server.base_url) as terminal:
        terminal.wait_for("q: leave.\n>")
        terminal.type("slow 30\r")
        server.wait_for("run", 1)
        terminal.type("\x03")
        assert terminal.wait() == 130
    assert terminal.text.endswith("^C\n")
    assert "Traceback" not in terminal.text
    assert server.open_sessions() == set()


def test_list_shows_no_key_that_is_a_name(monkeypatch):
    monkeypatch.setenv("ORS_API_KEY", "k3y-0123456789")
    names = scripted.json_reply(["k3y-0123456789"])
    with scripted_ors(list_environments=lambda _: names) as server:
        told = run("list", server.url).stdout
    assert "[redacted]" in told
    assert "k3y" not in told


@pytest.mark.slow
def test_a_gymnasium_env_passes_the_check():
    target = "gymnasium:FrozenLake-v1?render_mode=ansi"
    (report,) = json.loads(run("check", target, "--json").stdout)
    assert report["environment"] == "frozenlake-v1"
    assert report["ok"]


def test_a_library_that_is_missing_is_named():
    if importlib.util.find_spec("reasoning_gym") is not None:
        pytest.skip("reasoning-gym is installed here")
    said = run("check", "reasoning_gym:leg_counting", code=1).stderr
    assert 'pip install "ors-gym[reasoning-gym]"' in said
    assert "Traceback" not in said
