"""A scripted server of models, run as a child process.

It speaks OpenAI's chat completions, and the dialects of `model_dialects`.

A script is a list of replies. ``POST /script/NAME`` registers one, and requests for the
model NAME are answered by it: the reply's place is the number of the assistant's
messages in the request, so that episodes at once do not mix. A reply is an object with

- ``message``: the assistant's message
- ``text``, ``calls``: the same in short; a call is ``[id, name, arguments]``
- ``failures``: a list of ``[status, body, headers]`` that come before it
- ``raw``: the body of the answer, in place of one that is made from a message
- ``hang``: true to answer nothing until the connection ends
- ``drop``: true to close the connection without an answer
- any other key: put into the choice

In the other dialects a reply is ``text`` and ``calls``, and a request without tools,
such as one for a title, is answered with text. What OpenAI would refuse of a chat is
refused with status 400. ``GET /log/NAME`` gives the requests.
"""

import collections
import contextlib
import http.server
import json
import re
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Iterator
from typing import Any, ClassVar

from tests.rollout import model_dialects
from tests.support.virtual_environments import ROOT

JSON = "application/json"
NAME = re.compile(r"[a-zA-Z0-9_-]{1,64}")
USAGE = {"prompt_tokens": 11, "completion_tokens": 7, "total_tokens": 18}


def check_request(request: dict[str, Any]) -> None:
    """Raise an AssertionError for what OpenAI would refuse."""
    waiting: list[str] = []
    for message in request["messages"]:
        check_message(message, waiting)
    assert not waiting, f"calls without a result: {waiting}"
    assert request.get("tools") != [], "no tools"
    assert "tools" in request or "tool_choice" not in request, "no tools"
    for tool in request.get("tools", ()):
        assert tool["function"]["parameters"]["type"] == "object", "not an object"


def check_message(message: dict[str, Any], waiting: list[str]) -> None:
    """Look at one message; ``waiting`` are the calls without a result so far."""
    role, content = message["role"], message.get("content")
    if role == "tool":
        assert message["tool_call_id"] in waiting, "a result without its call"
        waiting.remove(message["tool_call_id"])
        assert isinstance(content, str), "a tool message that is no text"
        return
    assert not waiting, f"calls without a result: {waiting}"
    rest = [value for name, value in message.items() if name != "content"]
    assert None not in rest, "a null in a message"
    if role == "assistant":
        check_assistant(message, waiting)
    else:
        assert role == "user" or not isinstance(content, list), "not the user's image"


def check_assistant(message: dict[str, Any], waiting: list[str]) -> None:
    """Look at an assistant's message; its calls are waiting then."""
    calls = message.get("tool_calls", [])
    assert calls or "tool_calls" not in message, "[] is too short - 'tool_calls'"
    assert calls or message.get("content") is not None, "no content"
    for call in calls:
        name, arguments = call["function"]["name"], call["function"]["arguments"]
        assert NAME.fullmatch(name), "a tool's name that there cannot be"
        # As chat templates do it.
        assert isinstance(json.loads(arguments), dict), "arguments are no object"
        waiting.append(call["id"])


def make_answer(reply: dict[str, Any], model: str) -> dict[str, Any]:
    short = ("message", "text", "calls", "failures")
    rest = {name: value for name, value in reply.items() if name not in short}
    calls = []
    for call_id, name, given in reply.get("calls", ()):
        function = {"name": name, "arguments": given}
        calls.append({"id": call_id, "type": "function", "function": function})
    said = {"content": reply.get("text"), "tool_calls": calls or None}
    message = reply.get("message") or {"role": "assistant", **said, "refusal": None}
    reason = "tool_calls" if calls else "stop"
    choice = {"index": 0, "message": message, "finish_reason": reason, **rest}
    head = {"id": "chatcmpl-1", "object": "chat.completion", "created": 1}
    return {**head, "model": f"{model}-2026", "choices": [choice], "usage": USAGE}


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    scripts: ClassVar[dict[str, list[dict[str, Any]]]] = {}
    log: ClassVar[dict[str, list[dict[str, Any]]]] = collections.defaultdict(list)
    failed: ClassVar[collections.Counter[tuple[str, int]]] = collections.Counter()
    lock = threading.Lock()

    def log_message(self, *_: Any) -> None:
        """Write nothing to stderr."""

    def do_GET(self) -> None:
        self.send(200, self.log[self.path.rpartition("/")[2]])

    def do_POST(self) -> None:
        given = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self.path.startswith("/script/"):
            self.scripts[self.path.rpartition("/")[2]] = given
            self.send(200, {})
        elif self.path == "/v1/chat/completions":
            self.complete(given)
        elif found := model_dialects.find_dialect(self.path.partition("?")[0]):
            self.answer(*found, given)
        else:
            self.send(404, {"error": {"message": f"no {self.path}"}})

    def answer(
        self, dialect: model_dialects.Dialect, match: Any, request: dict[str, Any]
    ) -> None:
        asked = dialect.read(match, request)
        script = self.scripts.get(asked.model, [])
        with self.lock:
            self.log[asked.model].append({"body": request, "tools": asked.tools})
        if not asked.tools:
            reply = {"text": "A title"}
        elif asked.place < len(script):
            reply = script[asked.place]
        else:
            error = {"message": f"no reply {asked.place} of {asked.model!r}"}
            self.send(404, {"error": error})
            return
        if asked.stream:
            events = model_dialects.write_events(dialect, asked, reply)
            self.send(200, events, {"Content-Type": "text/event-stream"})
        else:
            self.send(200, dialect.write(asked, reply))

    def complete(self, request: dict[str, Any]) -> None:
        model = request["model"]
        headers = {name.lower(): value for name, value in self.headers.items()}
        entry = {"body": request, "headers": headers, "peer": self.client_address[1]}
        place = sum(one["role"] == "assistant" for one in request["messages"])
        script = self.scripts.get(model)
        with self.lock:
            self.log[model].append(entry)
            reply = script[place] if script and place < len(script) else None
            failures = [] if reply is None else reply.get("failures", [])
            failure = self.failed[model, place]
            self.failed[model, place] += 1
        try:
            check_request(request)
        except (AssertionError, ValueError) as error:
            self.send(400, {"error": {"message": str(error)}})
            return
        if reply is None:
            self.send(404, {"error": {"message": f"no reply {place} of {model!r}"}})
        elif failure < len(failures):
            self.send(*failures[failure])
        elif reply.get("hang"):
            self.rfile.read(1)
            self.close_connection = True
        elif reply.get("drop"):
            self.close_connection = True
        else:
            self.send(200, reply.get("raw") or make_answer(reply, model))

    def send(self, status: int, body: Any, headers: Any = ()) -> None:
        data = (body if isinstance(body, str) else json.dumps(body)).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        for name, value in {"Content-Type": JSON, **dict(headers)}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data)


class ChatServer:
    def __init__(self, port: int) -> None:
        self.origin = f"http://127.0.0.1:{port}"
        self.base_url = f"{self.origin}/v1"
        self._models = 0

    def script(self, *replies: dict[str, Any]) -> str:
        """Register a script; return the model's name."""
        self._models += 1
        name = f"model-{self._models}"
        self._ask(f"/script/{name}", json.dumps(replies).encode())
        return name

    def requests(self, model: str) -> list[dict[str, Any]]:
        """Return the requests for a model, as ``body``, ``headers`` and ``peer``."""
        found: list[dict[str, Any]] = self._ask(f"/log/{model}")
        return found

    def _ask(self, path: str, data: bytes | None = None) -> Any:
        with urllib.request.urlopen(self.origin + path, data, timeout=10) as reply:
            return json.load(reply)


@contextlib.contextmanager
def running_chat_server() -> Iterator[ChatServer]:
    command = [sys.executable, "-B", "-m", "tests.rollout.chat_server"]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=ROOT
    ) as child:
        assert child.stdin is not None and child.stdout is not None
        try:
            yield ChatServer(int(child.stdout.readline()))
        finally:
            # Its end of input is what it waits for.
            child.stdin.close()
            child.wait(10)


def main() -> None:
    """Serve until the standard input ends, as it does with the parent."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    print(server.server_address[1], flush=True)  # noqa: T201 - read by the parent
    sys.stdin.buffer.read()


if __name__ == "__main__":
    main()
