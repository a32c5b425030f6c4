"""The JavaScript client plays on every server, and through what breaks."""

import base64
import functools
import hashlib
import json
import random
import shutil
from pathlib import Path
from typing import Any, Final

import pytest

from ors_gym import ORSClient
from ors_gym.protocol._sse import EventDecoder
from ors_gym.server import serve
from tests.support.processes import run
from tests.support.proxy.faults import STARTING, Answer, Point, Reset, Trickle, redirect
from tests.support.proxy.proxy import FaultProxy
from tests.support.servers.process import RunningServer, start_server
from tests.support.slow_cases import on_one_sdk
from tests.support.virtual_environments import cache_directory

CLIENT: Final = Path(__file__).parents[3] / "docs" / "clients" / "ors.mjs"
_DIRECTORY: Final = Path(__file__).parent
_TYPESCRIPT: Final = "5.9.3"
_SECONDS: Final = 90.0
_OLDEST: Final = 20

pytestmark = pytest.mark.slow  # each test starts Node


@functools.cache
def _node() -> str:
    found = shutil.which("node")
    if found is None:
        pytest.skip("no node: the JavaScript client is not run")
    version = run(found, "--version").stdout.strip()
    if int(version.removeprefix("v").split(".")[0]) < _OLDEST:
        pytest.skip(f"node {version} is older than {_OLDEST}")
    return found


def _run(script: str, *arguments: str, given: str = "") -> Any:
    done = run(_node(), _DIRECTORY / script, *arguments, given=given, seconds=_SECONDS)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return json.loads(done.stdout)


def play(url: str, environment: str = "Contract", **told: Any) -> Any:
    told = {"url": url, "environment": environment, **told}
    return _run("play.mjs", json.dumps(told))


def decode(streams: list[list[str]]) -> list[Any]:
    """Decode streams of base64 pieces: lists of events, or the kind of an error."""
    given = json.dumps([{"pieces": pieces} for pieces in streams])
    decoded: list[Any] = _run("decode.mjs", given=given)
    return decoded


def find_typescript() -> str:
    place = cache_directory() / f"typescript-{_TYPESCRIPT}"
    compiler = place / "node_modules" / ".bin" / "tsc"
    npm = shutil.which("npm")
    if not compiler.exists():
        if npm is None:
            pytest.skip("no npm: TypeScript cannot be installed")
        place.mkdir(parents=True, exist_ok=True)
        command = [npm, "install", "--no-audit", "--no-fund", "--prefix", str(place)]
        quiet = {"npm_config_update_notifier": "false"}
        command.append(f"typescript@{_TYPESCRIPT}")
        done = run(*command, environment=quiet, seconds=_SECONDS)
        if done.returncode != 0 or not compiler.exists():
            pytest.skip(f"TypeScript could not be installed: {done.stderr[-300:]}")
    return str(compiler)


SECRET = "hunter22-\u00e9"
FIRST = {"split": "train", "index": 3}
SUBMIT = ["submit", {"answer": "6"}]


def speak(kind: str, size: int = 20_000) -> list[Any]:
    return ["speak", {"kind": kind, "size": size}]


def results_of(url: str, *calls: Any, **told: Any) -> Any:
    return play(url, task=FIRST, calls=calls, **told)["episode"]["results"]


def text_of(result: Any) -> str:
    text = result["blocks"][0]["text"]
    assert isinstance(text, str)
    return text


def test_an_episode_on_the_embedded_server() -> None:
    task = {"split": "train", "index": 2}
    with serve() as base_url:
        offered = play(base_url, "Math", offer=True)["offered"]
        answer = {"answer": offered["task"]["answer"]}
        calls = [["no_such_tool", {}], ["submit", answer]]
        told = play(base_url, "Math", task=task, calls=calls)
    assert offered["environments"][0] == "math"
    assert [tool["name"] for tool in offered["tools"]] == ["submit"]
    wrong, right = told["episode"]["results"]
    assert (wrong["ok"], wrong["kind"]) == (False, "invalid_action")
    assert (right["ok"], right["reward"], right["finished"]) == (True, 1.0, True)


def test_a_terminal_tool_is_listed(newest: RunningServer) -> None:
    told = play(newest.base_url, "Essay", task=FIRST, calls=[SUBMIT], offer=True)
    (tool,) = told["episode"]["tools"]
    assert told["offered"]["tools"] == [tool]
    assert (tool["name"], tool["terminal"]) == ("submit", True)
    assert tool["input_schema"]["required"] == ["answer"]
    (result,) = told["episode"]["results"]
    assert (result["reward"], result["finished"]) == (1.0, True)


def test_an_episode_on_every_server(any_server: RunningServer) -> None:
    kinds = ["separators", "blanks", "wide", "lines", "quotes"]
    calls = [*map(speak, kinds), ["fail", {"message": "no luck"}], ["image", {}]]
    told = play(any_server.base_url, offer=True, task=FIRST, calls=[*calls, SUBMIT])
    offered, episode = told["offered"], told["episode"]
    assert "contract" in offered["environments"]
    assert {"add", "speak", "submit"} <= {tool["name"] for tool in offered["tools"]}
    assert {"name": "train", "type": "train"} in offered["splits"]
    assert (offered["count"], offered["task"]["id"]) == (12, "train-2")
    assert text_of({"blocks": episode["prompt"]}) == "3 + 3 = ?"
    (message,) = episode["messages"]
    assert (message["role"], message["blocks"]) == ("user", episode["prompt"])
    assert {tool["name"] for tool in episode["tools"]} >= {"add", "submit"}
    results = episode["results"]
    any_server.check_spoken(*map(text_of, results[: len(kinds)]))
    failed, picture, last = results[len(kinds) :]
    assert (failed["ok"], failed["kind"]) == (False, "tool_failed")
    assert "no luck" in failed["error"]
    assert [block["type"] for block in picture["blocks"]] == ["text", "image", "text"]
    assert (last["reward"], last["finished"], episode["finished"]) == (1.0, True, True)
    assert any_server.runs() == len(calls) + 1
    any_server.wait_for("teardown")
    assert any_server.open_sessions() == set()


def test_a_prompt_with_roles_is_asked_for_once(newest: RunningServer) -> None:
    told = play(newest.base_url, "Interview", task=FIRST, calls=[SUBMIT])["episode"]
    with (
        ORSClient(newest.base_url) as client,
        client.session("Interview", split="train", index=3) as session,
    ):
        assert told["messages"] == session.get_messages()
        prompt = session.get_prompt()
    assert len(newest.log("prompt")) == 2
    # Only the blanks in the input of a call are not those of the server.
    spread = [block["text"].replace('":"', '": "') for block in told["prompt"]]
    assert spread == [block["text"] for block in prompt]
    assert [one.get("detail") for one in told["prompt"]] == [
        one.get("detail") for one in prompt
    ]
    assert told["results"][0]["reward"] == 1.0


@on_one_sdk
def test_a_finished_episode_is_not_paid_twice(server: RunningServer) -> None:
    _, again = results_of(server.base_url, SUBMIT, SUBMIT)
    assert (again["ok"], again["reason"]) == (False, "episode_finished")
    assert server.runs("submit") == 1


def test_secrets_take_the_servers_own_channel(any_server: RunningServer) -> None:
    told = play(any_server.base_url, task=FIRST, secrets={"TOKEN": SECRET})
    if any_server.sdk.name == "openreward-0.1.0":
        assert told["episode"]["raised"] == "invalid_request"
        assert any_server.log("construct") == []
        return
    (entry,) = any_server.log("construct")
    digest = hashlib.sha256(SECRET.encode()).hexdigest()
    assert entry["secrets"] == {"TOKEN": digest}


@on_one_sdk
def test_names_beyond_ascii_and_slow_and_failing_set_ups(server: RunningServer) -> None:
    hall = play(server.base_url, "SALLE \u00c0 Manger \u623f\u95f4", task=FIRST)
    assert text_of({"blocks": hall["episode"]["prompt"]}) == "3 + 3 = ?"
    slow = play(server.base_url, "SlowSetup", task={"split": "train", "index": 2})
    assert slow["episode"]["tools"]
    broken = play(server.base_url, "BrokenSetup", task={"split": "train", "index": 0})
    assert broken["episode"]["raised"] == "setup_failed"
    missing = play(server.base_url, "Nowhere", task=FIRST)
    assert missing["episode"]["raised"] == "unknown_environment"
    server.wait_for("teardown", 2)


@on_one_sdk
def test_text_cut_at_every_byte(server: RunningServer, fault_proxy: FaultProxy) -> None:
    fault_proxy.plan("/call", [Trickle()], then="forever")
    calls = [speak("separators", 6000), speak("wide", 6000), speak("lines", 6000)]
    results = results_of(fault_proxy.url, *calls, timeout=60)
    server.check_spoken(*map(text_of, results))
    assert server.runs() == 3
    assert len(fault_proxy.struck()) == 3


ADD: list[Any] = ["add", {"a": 1, "b": 2}]
FAULTS: list[Any] = [
    ([Reset(Point.BEFORE_REPLY)], "ambiguous_call", 1),
    ([Reset(Point.AFTER_TASK_ID), Answer(502), Answer(401)], "", 1),
    ([Answer(502, ran=True)], "ambiguous_call", 1),
    ([Answer(429, (("Retry-After", "0"),)), STARTING], "", 1),
    ([Reset(Point.BEFORE_REQUEST)], "ambiguous_call", 0),
    ([Reset(Point.AFTER_HEAD)], "ambiguous_call", 1),
    ([Reset(Point.IN_CHUNK), Reset(Point.BEFORE_END)], "", 1),
    ([redirect("http://127.0.0.1:9/elsewhere", ran=True)], "ambiguous_call", 1),
    ([Answer(401)], "authentication", 0),
]


@pytest.mark.parametrize(("faults", "raised", "runs"), FAULTS)
def test_a_tool_never_runs_twice(server, fault_proxy, faults, raised, runs):
    fault_proxy.plan("/call", faults)
    (result,) = results_of(fault_proxy.url, ADD)
    assert result.get("raised", "") == raised
    if not raised:
        assert (text_of(result), result["reward"]) == ("3", 0.5)
    assert server.runs() == runs
    assert len(fault_proxy.struck()) == len(faults)
    # No idle connection is used again, whose end would look like a lost reply.
    assert fault_proxy.connections == len(fault_proxy.exchanges)
    server.wait_for("teardown")


@on_one_sdk
def test_a_429_is_not_believed(server: RunningServer, fault_proxy: FaultProxy) -> None:
    fault_proxy.plan("/call", [Answer(429, ran=True)])
    client = {"repeatCallsAfter429": False}
    (result,) = results_of(fault_proxy.url, ADD, client=client)
    assert result["raised"] == "ambiguous_call"
    assert server.runs() == 1


@on_one_sdk
def test_after_an_unknown_outcome_no_further_call(server, fault_proxy):
    fault_proxy.plan("/call", [Reset(Point.BEFORE_REPLY)])
    results = results_of(fault_proxy.url, ADD, ADD)
    assert [r["raised"] for r in results] == ["ambiguous_call", "invalid_request"]
    assert server.runs() == 1


@on_one_sdk
def test_a_call_that_takes_too_long_is_waited_for_longer(server: RunningServer) -> None:
    slow = ["slow", {"seconds": 2.0}]
    results = results_of(server.base_url, slow, ADD, timeout=1.2, resume=True)
    assert [result["reward"] for result in results] == [0.25, 0.5]
    assert server.runs() == 2


@on_one_sdk
def test_a_session_is_kept_alive_while_a_tool_works(server, fault_proxy):
    slow = ["slow", {"seconds": 1.0}]
    (result,) = results_of(fault_proxy.url, slow, client={"pingSeconds": 0.2})
    assert result["reward"] == 0.25
    pings = fault_proxy.requests("/ping")
    assert len(pings) >= 2
    (create,) = fault_proxy.requests("/create")
    assert {ping.session_id for ping in pings} == {create.session_id}


@on_one_sdk
def test_a_session_that_a_ping_finds_lost_takes_no_call(server, fault_proxy):
    fault_proxy.plan("/ping", [Answer(404)])
    slow = ["slow", {"seconds": 1.0}]
    _, after = results_of(fault_proxy.url, slow, ADD, client={"pingSeconds": 0.2})
    assert after["raised"] == "session_lost"
    assert server.runs("add") == 0


@on_one_sdk
def test_an_unanswered_create_leaves_nothing_behind(server, fault_proxy):
    fault_proxy.plan("/create", [Reset(Point.BEFORE_REPLY)])
    assert results_of(fault_proxy.url, SUBMIT)[0]["reward"] == 1.0
    server.wait_for("teardown", 2)
    assert server.open_sessions() == set()
    requests = fault_proxy.requests("/create")
    assert len({request.session_id for request in requests}) == 2


def test_a_restarted_server_has_lost_the_session() -> None:
    with start_server("ors-sdk-0.1.0") as server, FaultProxy(server.base_url) as proxy:
        gone = Answer(404, (), b'{"detail":"Active environment not found"}')
        proxy.plan("/call", [gone])
        results = results_of(proxy.url, ADD, ADD)
    assert [result["raised"] for result in results] == ["session_lost", "session_lost"]


def test_nothing_secret_travels_in_the_clear() -> None:
    far = "http://203.0.113.1:9"
    with pytest.raises(AssertionError, match="the API key would travel in the clear"):
        play(far, client={"apiKey": "key"}, task=FIRST)


LINES = [b"\n", b"\r", b"\r\n"]
FIELDS = [
    *(b"data: a\xe2\x80\xa8b", b"data:\xf0\x9f\x98\x80 ", b"data", b"data:  two"),
    *(b"event: end", b"event:chunk", b"event", b": ping", b"id: 7", b"", b"", b""),
    *(b"retry: 9", b"data: \xc2\x85", b"unknown: x", b"data: \xe2\x80\xa9:"),
]


def random_stream(seed: int) -> list[bytes]:
    """A stream of lines of all kinds, cut at random."""
    chance = random.Random(seed)
    whole = chance.choice([b"", b"\xef\xbb\xbf"])
    for _ in range(chance.randrange(12)):
        whole += chance.choice(FIELDS) + chance.choice(LINES)
    whole += chance.choice([b"", b"data: rest"])
    cuts = sorted(chance.randrange(len(whole) + 1) for _ in range(chance.randrange(9)))
    ends = [*cuts, len(whole)]
    return [whole[a:b] for a, b in zip([0, *cuts], ends, strict=True)]


def test_events_are_those_of_the_python_client() -> None:
    streams = [random_stream(seed) for seed in range(1000)]
    encoded = [[base64.b64encode(p).decode() for p in pieces] for pieces in streams]
    for pieces, decoded in zip(streams, decode(encoded), strict=True):
        decoder = EventDecoder()
        events = [event for piece in pieces for event in decoder.feed(piece)]
        events += decoder.finish()
        expected = [[event.name.decode(), event.text()] for event in events]
        assert decoded == expected, pieces


def test_text_that_is_not_utf8_is_an_error() -> None:
    pieces = [base64.b64encode(b"data: \xff\n\n").decode()]
    assert decode([pieces]) == ["protocol"]


def test_its_types_hold() -> None:
    options = ["--noEmit", "--allowJs", "--checkJs", "--strict", "--module", "es2022"]
    options += ["--target", "es2022", "--lib", "es2022,dom,dom.iterable"]
    options += ["--noUnusedLocals", "--noUnusedParameters", "--noImplicitReturns"]
    done = run(find_typescript(), *options, CLIENT, seconds=_SECONDS)
    assert done.returncode == 0, done.stdout
