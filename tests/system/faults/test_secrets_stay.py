"""What a server says, it may have from us: nothing secret is in what we show of it."""

import asyncio
import base64
import contextlib
import html
import io
import json
import logging
import pickle
import traceback
import urllib.parse
from collections.abc import Mapping
from typing import Any

import pytest
import rich.console
import rich.traceback
from IPython.core.ultratb import VerboseTB

import ors_gym
from ors_gym.client import AsyncSession, Session
from ors_gym.client._connections import HttpxConnections
from ors_gym.client._remote_server import RemoteServer
from ors_gym.client.http._async_pool import AsyncConnectionPool
from ors_gym.client.http._connection import Connection
from ors_gym.client.http._pool import ConnectionPool
from ors_gym.env import TaskEnv
from ors_gym.rollout import random_policy, run_episode_async
from tests.support.proxy import scripted
from tests.support.proxy.http1 import ReceivedRequest
from tests.system.faults.scripted_ors import TASK_ID, scripted_ors, scripted_session

KEY = "key-0123456789abcdef"
SECRET = 'p4ss "word"/\u00e9+&'
TOKEN = "token-fedcba9876543210"

COOKIES = ("c00kie-123456", "other-654321")

X_SECRETS = base64.b64encode(json.dumps({"DB": {"value": SECRET}}).encode()).decode()
FORMS = [
    *(KEY, SECRET, TOKEN, X_SECRETS),
    json.dumps(SECRET)[1:-1],
    json.dumps(SECRET, ensure_ascii=False)[1:-1],
    repr(SECRET)[1:-1],
    urllib.parse.quote(SECRET),
    urllib.parse.quote(SECRET, safe=""),
    urllib.parse.quote_plus(SECRET),
    base64.b64encode(SECRET.encode()).decode(),
    base64.b64encode(KEY.encode()).decode(),
    html.escape(SECRET),
    html.escape(SECRET).replace("&quot;", "&#34;"),
    urllib.parse.quote(urllib.parse.quote(SECRET)),
    json.dumps(json.dumps(SECRET))[3:-3],
    html.escape(html.escape(SECRET)),
    *COOKIES,
]
SAID = "refused: " + " | ".join(FORMS)


def check_clean(text: str) -> None:
    found = [form for form in FORMS if form in text]
    assert not found, f"{found} in {text}"


def check_error(error: BaseException, log: pytest.LogCaptureFixture) -> None:
    """Look at all that the error shows, carries and was preceded by."""
    check_clean("".join(traceback.format_exception(error)))
    link: BaseException | None = error
    while link is not None:
        check_clean(str(link))
        check_clean(repr(link))
        check_clean(repr(vars(link)))
        check_clean(repr(link.args))
        pickled = pickle.dumps(link)
        check_clean(pickled.decode("utf-8", "replace"))
        check_clean(pickled.decode("unicode-escape", "replace"))
        link = link.__cause__ or link.__context__
    check_clean(log.text)
    for record in log.records:
        check_clean(repr(vars(record)))


def validation_error(request: ReceivedRequest) -> scripted.RawReply:
    detail = [
        {
            "type": "string_type",
            "loc": ["body", "secrets", "DB"],
            "msg": f"Input should be a valid string, got {SECRET}",
            "input": {"sent": request.json, "headers": list(request.headers)},
        }
    ]
    return scripted.json_reply({"detail": detail}, 422)


def says_json(status: int) -> scripted.Handler:
    return lambda _: scripted.json_reply({"detail": SAID}, status)


def tool_ends(event: str, data: str) -> scripted.Handler:
    return lambda _: scripted.stream_reply(
        scripted.event_stream(("task_id", TASK_ID), (event, data))
    )


def traceback_page(_: ReceivedRequest) -> scripted.RawReply:
    return scripted.html_reply(f"<pre>Traceback: {SAID}</pre>", 500)


def names_the_session(_: ReceivedRequest) -> scripted.RawReply:
    events = scripted.event_stream(("task_id", KEY), ("end", ""))
    return scripted.stream_reply(events)


def names_the_call(request: ReceivedRequest) -> scripted.RawReply:
    if "task_id" in request.json:
        return scripted.stream_reply(
            scripted.event_stream(("error", "unknown task_id"))
        )
    return scripted.stream_reply(scripted.event_stream(("task_id", KEY)), then="close")


def redirects(_: ReceivedRequest) -> scripted.RawReply:
    query = urllib.parse.quote(SECRET, safe="")
    return scripted.status_reply(
        307, ("Location", f"http://127.0.0.1:9/?key={KEY}&s={query}")
    )


def nonsense(_: ReceivedRequest) -> scripted.RawReply:
    return scripted.html_reply(f"{KEY} {SECRET}")


REFUSAL = json.dumps({"ok": False, "error": SAID, "reason": SAID})
ECHOES: Mapping[str, Mapping[str, scripted.Handler]] = {
    "a 422 that repeats the request": {"create": validation_error},
    "a refused /create": {"create": says_json(400)},
    "a constructor that raises": {"create": says_json(500)},
    "a set-up that raises": {"prompt": says_json(500)},
    "a page with a traceback": {"prompt": traceback_page},
    "a redirect": {"prompt": redirects},
    "a redirect of the call": {"call": redirects},
    "a prompt that is a page": {"prompt": nonsense},
    "tools that are a page": {"task_tools": nonsense},
    "a key that is refused": {"create": says_json(401)},
    "a gateway in trouble": {"prompt": says_json(503)},
    "a lost session": {"call": says_json(410)},
    "a tool that raises": {"call": tool_ends("error", SAID)},
    "a tool that refuses": {"call": tool_ends("end", REFUSAL)},
    "a tool's traceback": {"call": traceback_page},
    "a result that is none": {"call": tool_ends("end", SAID)},
    "a call's 422": {"call": validation_error},
    "a session named by the key": {
        "create_session": names_the_session,
        "call": says_json(410),
    },
    "a call named by the key": {"call": names_the_call},
}


HEADERS = {
    "Authorization": f"Bearer {TOKEN}",
    "Cookie": "sid={}; csrf={}".format(*COOKIES),
}
OPTIONS: Any = {"secrets": {"DB": SECRET}, "setup_timeout": 1.0, "call_timeout": 5}


@pytest.fixture
def log(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    caplog.set_level(logging.DEBUG, "ors_gym")
    return caplog


def play(url: str) -> None:
    with (
        ors_gym.ORSClient(url, api_key=KEY, headers=HEADERS, timeout=5) as client,
        client.session("box", split="train", index=0, **OPTIONS) as session,
    ):
        check_clean(repr(client) + repr(session) + repr(session.state))
        check_clean(repr(vars(client)) + repr(client.settings))
        session.get_prompt()
        session.list_tools()
        session.call_tool("go", {"text": "x"})


@pytest.mark.parametrize("echo", ECHOES)
def test_nothing_secret_is_shown(echo: str, log: pytest.LogCaptureFixture) -> None:
    with (
        scripted_ors(**ECHOES[echo]) as server,
        pytest.raises(ors_gym.ORSError) as caught,
    ):
        play(server.url)
    check_error(caught.value, log)
    # The server got them, in the only place where they belong.
    created = [r for r in server.requests if r.path == "/create" and r.session_id]
    assert created[0].json["secrets"] == {"DB": SECRET}
    for request in server.requests:
        check_clean(urllib.parse.unquote(request.target))
        if request.path != "/create":
            assert SECRET not in request.body.decode()


@pytest.mark.parametrize("echo", ECHOES)
def test_an_env_shows_nothing_secret(echo: str, log: pytest.LogCaptureFixture) -> None:
    with scripted_ors(**ECHOES[echo]) as server:
        shown: Any = {"on_error": "truncate", "render_mode": "ansi", **OPTIONS}
        env = ors_gym.ORSEnv("box", server.url, api_key=KEY, headers=HEADERS, **shown)
        check_clean(repr(env) + str(env) + repr(env.spec))
        check_clean(pickle.dumps(env).decode("utf-8", "replace"))
        try:
            env.reset(seed=0)
            observation, *_, info = env.step({"tool": "go", "input": {}})
        except ors_gym.ORSError as error:
            check_error(error, log)
        else:
            assert info["error_kind"]
            check_clean(str(observation) + repr(info) + str(env.render()))
        env.close()


def test_the_hook_for_retries_sees_no_secret(log: pytest.LogCaptureFixture) -> None:
    told: list[Any] = []
    answers = [says_json(503), says_json(429)]

    def first(request: ReceivedRequest) -> scripted.RawReply:
        if answers:
            return answers.pop()(request)
        return scripted.json_reply([{"type": "text", "text": "Go."}])

    client = {"api_key": KEY, "on_retry": told.append}
    secrets = {"secrets": {"DB": SECRET}}
    with scripted_session(client, secrets, prompt=first) as (_, session):
        session.get_prompt()
    assert len([retry for retry in told if "/prompt" in retry.request]) == 2
    check_clean(repr(told))
    check_clean(log.text)
    assert "prompt" in log.text


def test_an_environment_named_by_a_key_is_not_told(
    log: pytest.LogCaptureFixture,
) -> None:
    def says(value: Any) -> scripted.Handler:
        return lambda _: scripted.json_reply(value)

    told: list[Any] = []
    splits = [{"name": KEY, "type": "test"}, {"name": TOKEN, "type": "test"}]
    replaced = {
        "list_environments": says([KEY, TOKEN]),
        "splits": says(splits),
        "prompt": lambda _: scripted.json_reply({"detail": KEY}, 503),
    }
    with (
        scripted_ors(**replaced) as server,
        ors_gym.ORSClient(
            server.url, api_key=KEY, headers=HEADERS, on_retry=told.append
        ) as client,
    ):
        for play in (
            lambda: client.list_tools("box"),
            lambda: ors_gym.ORSEnv(KEY, client=client).reset(),
            lambda: client.session(KEY, {}, setup_timeout=1).__enter__().get_prompt(),
        ):
            with pytest.raises(ors_gym.ORSError) as caught:
                play()
            assert "[redacted]" in str(caught.value)
            check_error(caught.value, log)
    assert told
    check_clean(repr(told))


def show_locals(error: BaseException) -> str:
    """Return the error as IPython and rich show it, without the frames of this file."""
    trace = error.__traceback__
    while trace is not None and trace.tb_frame.f_code.co_filename == __file__:
        trace = trace.tb_next
    assert trace is not None
    shown = io.StringIO()
    rich.console.Console(file=shown, width=400).print(
        rich.traceback.Traceback.from_exception(
            type(error),
            error,
            trace,
            show_locals=True,
            locals_max_length=1000,
            locals_max_string=50,
            max_frames=0,
        )
    )
    assert "locals" in shown.getvalue()
    ipython = VerboseTB(theme_name="nocolor").text(type(error), error, trace)
    return shown.getvalue() + ipython


def open_session(url: str) -> None:
    client = ors_gym.ORSClient(url, api_key=KEY, headers=HEADERS)
    client.session("box", split="train", index=0, **OPTIONS).open()


def create_episode(url: str) -> None:
    client = ors_gym.ORSClient(url, api_key=KEY, headers=HEADERS)
    secrets = OPTIONS["secrets"]
    client.create_episode("an-id", "box", split="train", index=0, secrets=secrets)


def reset_env(url: str) -> None:
    given: Any = {"api_key": KEY, "headers": HEADERS, **OPTIONS}
    ors_gym.ORSEnv("box", url, **given).reset(seed=0)


def reset_async_env(url: str) -> None:
    given: Any = {"api_key": KEY, "headers": HEADERS, **OPTIONS}
    asyncio.run(ors_gym.AsyncORSEnv("box", url, **given).reset(seed=0))


def reset_vector_env(url: str) -> None:
    given: Any = {"api_key": KEY, **OPTIONS}
    given |= {"client_options": {"headers": HEADERS}, "on_error": "raise"}
    with contextlib.closing(ors_gym.ORSVectorEnv("box", url, 2, **given)) as envs:
        envs.reset(seed=0)


def run_rollout(url: str) -> None:
    client = ors_gym.AsyncORSClient(url, api_key=KEY, headers=HEADERS)
    policy = random_policy(0)
    asyncio.run(run_episode_async(client, "box", 0, policy, **OPTIONS))


WAYS = [
    *(open_session, create_episode, run_rollout),
    *(reset_env, reset_async_env, reset_vector_env),
]


@pytest.mark.slow
@pytest.mark.parametrize("play", WAYS)
def test_a_traceback_with_locals_shows_nothing_secret(play: Any) -> None:
    with (
        scripted_ors(create=says_json(400)) as server,
        pytest.raises(ors_gym.ORSError) as caught,
    ):
        play(server.url)
    check_clean(show_locals(caught.value))


@pytest.mark.parametrize("play", WAYS)
def test_nor_does_one_of_a_client_that_was_not_made(play: Any) -> None:
    with pytest.raises(ors_gym.InsecureTransportError) as caught:
        play("http://192.0.2.1")
    check_clean(show_locals(caught.value))


def test_nor_does_one_of_an_interrupt(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(connection: Connection, request: bytes) -> None:
        if b"/create HTTP" in bytes(request):
            raise KeyboardInterrupt
        write(connection, request)

    write = Connection._write
    monkeypatch.setattr(Connection, "_write", interrupt)
    with scripted_ors() as server, pytest.raises(KeyboardInterrupt) as caught:
        open_session(server.url)
    check_clean(show_locals(caught.value))


@pytest.mark.parametrize(
    "kind",
    [
        *(ors_gym.ORSClient, ors_gym.AsyncORSClient, Session, AsyncSession),
        *(ors_gym.ORSEnv, ors_gym.AsyncORSEnv, ors_gym.ORSVectorEnv, TaskEnv),
        *(ConnectionPool, AsyncConnectionPool, HttpxConnections, RemoteServer),
    ],
)
def test_what_is_half_made_can_be_shown(kind: Any) -> None:
    made = kind.__new__(kind)
    assert kind.__name__ in repr(made)
    assert kind.__name__ in str(made)
