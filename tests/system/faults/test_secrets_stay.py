"""What a server says, it may have from us: nothing secret is in what we show of it."""

import base64
import json
import logging
import pickle
import traceback
import urllib.parse
from collections.abc import Mapping
from typing import Any

import pytest

import ors_gym
from tests.support.proxy import scripted
from tests.support.proxy.http1 import ReceivedRequest
from tests.system.faults.scripted_ors import TASK_ID, scripted_ors, scripted_session

KEY = "key-0123456789abcdef"
SECRET = 'p4ss "word"/\u00e9+&'
TOKEN = "token-fedcba9876543210"

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
}


HEADERS = {"Authorization": f"Bearer {TOKEN}"}
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
