"""What is sent: bodies, and heads that nothing can break out of."""

import base64
import json
from typing import Any

import pytest

from ors_gym.errors import InsecureTransportError, InvalidRequestError
from ors_gym.protocol._dialect import Dialect, SecretsChannel
from ors_gym.protocol._exchange import Head, find_header
from ors_gym.protocol._requests import (
    call_body,
    call_head,
    create_request,
    encode,
    environment_head,
    plain_head,
    read_secrets,
    session_head,
)
from tests.protocol.scripted_exchanges import RecordingServer

pytestmark = pytest.mark.unit

SECRETS = {"KEY": "hunter22", "OTHER": "pässwörd"}


def create(
    channel: SecretsChannel, secrets: dict[str, Any], /, **options: Any
) -> tuple[dict[str, str], Any]:
    server, task = RecordingServer(Dialect(channel)), {"task_spec": {"id": 1}}
    given: Any = {"secrets": read_secrets(server, secrets), "options": options}
    head, body = create_request(server, "s1", "Math", task, **given)
    assert (head.method, head.target) == ("POST", "/create")
    return dict(head.headers), json.loads(body)


def test_secrets_go_where_the_server_looks() -> None:
    headers, body = create(SecretsChannel.HEADER, SECRETS)
    named = json.loads(base64.b64decode(headers["X-Secrets"]))
    assert named == {name: {"value": value} for name, value in SECRETS.items()}
    assert "secrets" not in body
    headers, body = create(SecretsChannel.BODY, SECRETS)
    assert body["secrets"] == SECRETS
    assert "X-Secrets" not in headers


@pytest.mark.parametrize("channel", list(SecretsChannel))
def test_without_secrets_only_a_required_field_is_sent(channel: SecretsChannel) -> None:
    headers, body = create(channel, {})
    assert "X-Secrets" not in headers
    assert ("secrets" in body) is (channel is SecretsChannel.REQUIRED_BODY)
    assert headers["X-Session-ID"] == "s1"
    assert body["env_name"] == "Math"
    assert body["task_spec"] == {"id": 1}


def test_a_server_without_a_channel_gets_no_secrets() -> None:
    with pytest.raises(InvalidRequestError, match="takes no secrets") as caught:
        create(SecretsChannel.NONE, SECRETS)
    assert "hunter22" not in str(caught.value)


def test_secrets_do_not_travel_in_the_clear() -> None:
    server = RecordingServer(may_send_secrets=False)
    with pytest.raises(InsecureTransportError, match="allow_insecure") as caught:
        read_secrets(server, SECRETS)
    assert "hunter22" not in str(caught.value)
    read_secrets(server, {})


@pytest.mark.parametrize("secrets", [{"KEY": 12345678}, {"KEY": None}, {1: "hunter22"}])
def test_a_secret_is_text(secrets: Any) -> None:
    with pytest.raises(InvalidRequestError, match="is not text") as caught:
        read_secrets(RecordingServer(), secrets)
    assert "12345678" not in str(caught.value)
    assert "hunter22" not in str(caught.value)


def test_options_go_into_the_body() -> None:
    _, body = create(SecretsChannel.HEADER, {}, toolset_name="browser")
    assert body["toolset_name"] == "browser"


@pytest.mark.parametrize("name", ["env_name", "task_spec", "split", "index", "secrets"])
def test_options_cannot_set_what_has_an_argument(name: str) -> None:
    with pytest.raises(InvalidRequestError, match=name):
        create(SecretsChannel.HEADER, {}, **{name: "x"})


def endless() -> list[Any]:
    value: list[Any] = []
    value.append(value)
    return value


@pytest.mark.parametrize(
    "value",
    [{1, 2}, b"x", float("nan"), float("inf"), endless(), {(1, 2): 3}, [10**5000]],
)
def test_what_is_not_json_is_refused(value: Any) -> None:
    with pytest.raises(InvalidRequestError, match="input of tool 'f'"):
        call_body("f", {"value": value})


def test_text_beyond_ascii_is_escaped() -> None:
    sent = encode({"a": "é\ud800\u2028"}, "it")
    assert sent == b'{"a": "\\u00e9\\ud800\\u2028"}'


def test_a_first_call_names_no_task() -> None:
    assert json.loads(call_body("f", {"a": 1})) == {"name": "f", "input": {"a": 1}}
    assert json.loads(call_body("f", {}, "t1"))["task_id"] == "t1"


def test_only_a_post_has_a_content_type() -> None:
    assert plain_head("GET", "/health").headers == ()
    assert dict(plain_head("POST", "/x").headers)["Content-Type"] == "application/json"


@pytest.mark.parametrize(
    "text", ["a\r\nb", "a\nb", "a\rb", "a\0b", "a\x7fb", "字", "a\n"]
)
def test_a_value_that_leaves_its_line_is_refused(text: str) -> None:
    with pytest.raises(InvalidRequestError, match="X-Session-ID") as caught:
        session_head("POST", "/ping", text)
    assert text not in str(caught.value)
    with pytest.raises(InvalidRequestError):
        call_head("math", text)


@pytest.mark.parametrize("name", ["", "a b", "a:b", "a\r\n", "é", "a\n"])
def test_a_name_that_is_not_a_token_is_refused(name: str) -> None:
    with pytest.raises(InvalidRequestError):
        Head("GET", "/", [(name, "value")])


@pytest.mark.parametrize(
    ("method", "target"),
    [
        ("GET /", "/"),
        *(("GET", t) for t in ("", "x", "/a b", "/a\r\n", "/é", "/a\n", "http://h/")),
    ],
)
def test_what_is_no_request_line_is_refused(method: str, target: str) -> None:
    with pytest.raises(InvalidRequestError, match="request line"):
        Head(method, target)


@pytest.mark.parametrize(
    ("name", "target"),
    [
        ("math", "/math/tools"),
        ("Salle à manger 房间", "/Salle%20%C3%A0%20manger%20%E6%88%BF%E9%97%B4/tools"),
        ("a/b?c#d%", "/a%2Fb%3Fc%23d%25/tools"),
        ("a\r\nb", "/a%0D%0Ab/tools"),
    ],
)
def test_names_of_environments_are_encoded(name: str, target: str) -> None:
    assert environment_head("GET", name, "tools").target == target


def test_find_header() -> None:
    lines = [(b"A", b"1"), (b"X-Two", b" 2 "), (b"x-two", b"3"), (b"L", b"\xe9")]
    assert find_header(lines, b"x-two") == "2"
    assert find_header(lines, b"l") == "é"
    assert find_header(lines, b"none") is None
