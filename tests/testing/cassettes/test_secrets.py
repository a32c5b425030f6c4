"""No secret of a request is in a cassette, whatever the server does with it."""

import base64
import itertools
import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import pytest

from ors_gym import ORSClient
from ors_gym.errors import ToolFailedError
from tests.support.proxy.http1 import ReceivedRequest
from tests.support.proxy.scripted import (
    RawReply,
    ScriptedServer,
    event_stream,
    json_reply,
    stream_reply,
)
from tests.testing.cassettes.serving import recording, serve_cassette

CANARIES = {
    "key": "canary-key-81723",
    "bearer": "canary-bearer-5512",
    "cookie": "canary-cookie-9931",
    "secret": 'canary "secret" é 7731',
    "variable": "canary-variable-1205",
    "query": "canary-query-66121",
    "set-cookie": "canary-set-cookie-300",
    "number": "71820033415",
}


def forms(canary: str) -> set[str]:
    raw = canary.encode()
    escaped = json.dumps(canary)[1:-1]
    return {canary, quote(canary), escaped, base64.b64encode(raw).decode()}


FORMS = {form for canary in CANARIES.values() for form in forms(canary)}


def assert_clean(content: str) -> None:
    assert not [form for form in FORMS if form in content]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "cassette.jsonl"


def test_secrets_of_a_session_are_left_out_in_both_dialects(server, path):
    secret, key = CANARIES["secret"], CANARIES["key"]

    def play(base_url: str) -> str:
        with (
            ORSClient(base_url, api_key=key, headers={"Cookie": "a=b"}) as client,
            client.session(
                *("contract", {"id": "1"}), secrets={"MINE": secret}
            ) as session,
        ):
            session.get_prompt()
            with pytest.raises(ToolFailedError):
                session.call_tool("fail", {"message": secret})
            told = session.call_tool("echo", {"text": f"{secret} and {key}"})
            return str(told["blocks"][0]["text"])

    with recording(server.base_url, path) as base_url:
        assert play(base_url) == f"{secret} and {key}"
    # The server has them, the file has not.
    assert any("MINE" in one["secrets"] for one in server.log("construct"))
    assert_clean(path.read_text())
    with serve_cassette(path) as base_url:
        # The argument is found although its place is taken by a mark.
        assert play(base_url) == "[redacted] and [redacted]"


class Parrot:
    """Repeats all that it was ever told, in every form."""

    def __init__(self) -> None:
        self.told: set[str] = set()
        self._numbers = itertools.count()

    def __call__(self, request: ReceivedRequest) -> RawReply:
        body = request.body.decode()
        header = base64.b64decode(request.header("X-Secrets") or "").decode()
        heard = f"{request.headers} {header} {request.target} {json.loads(body or '0')}"
        self.told |= {one for one in CANARIES.values() if one in heard}
        self.told.add(CANARIES["set-cookie"])
        echo: dict[str, Any] = {
            "body": body,
            "forms": [form for one in self.told for form in forms(one)],
            CANARIES["bearer"]: int(CANARIES["number"]),
        }
        cookie = ("Set-Cookie", f"session={CANARIES['set-cookie']}; Path=/")
        if not request.path.endswith("/call"):
            return json_reply(echo, headers=(cookie,))
        data = json.dumps(echo)
        cut = data.index(CANARIES["key"]) + 3
        pieces = [
            ("task_id", str(next(self._numbers))),
            ("chunk", data[:cut]),
            ("end", data[cut:]),
        ]
        return stream_reply(*map(event_stream, pieces), headers=(cookie,))


def test_what_a_server_repeats_is_hidden_at_every_moment_of_the_file(path):
    told = {"N": {"value": CANARIES["number"]}}
    headers = {
        "X-Session-ID": "s1",
        "Authorization": f"Bearer {CANARIES['bearer']}",
        "X-API-Key": CANARIES["key"],
        "Cookie": f"theme={CANARIES['cookie']}",
        "X-Secrets": base64.b64encode(json.dumps(told).encode()).decode(),
    }
    opening = {
        "env_name": "e",
        "task_spec": {"id": 1},
        "secrets": {"A": CANARIES["secret"]},
        "env": {"B": CANARIES["variable"]},
    }
    parrot = Parrot()
    with (
        ScriptedServer({"*": parrot}) as server,
        recording(server.url, path) as url,
        httpx.Client(base_url=url, headers=headers) as client,
    ):
        client.get(f"/health?api_key={CANARIES['query']}")
        client.post("/create_session", json=opening)
        client.post("/create", json=opening)

        def call(number: int) -> None:
            client.post("/e/call", json={"name": "t", "input": {"n": number}})
            assert_clean(path.read_text())

        with ThreadPoolExecutor(8) as pool:
            list(pool.map(call, range(16)))
    assert parrot.told == set(CANARIES.values())
    content = path.read_text()
    assert_clean(content)
    assert content.count('"/e/call"') == 16
    assert "[redacted]" in content
    assert '"secrets":' not in content
