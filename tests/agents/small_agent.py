"""An agent in one file of the standard library, run as ``small_agent.py WAY``.

It speaks MCP over HTTP, and behaves in one of many ways. What it has to tell goes to
the file NOTES, a line of JSON each.
"""

import json
import os
import signal
import sys
import threading
import time
import urllib.request
from pathlib import Path
from typing import Any


def note(**told: Any) -> None:
    with Path(os.environ["NOTES"]).open("a") as notes:
        notes.write(json.dumps({"pid": os.getpid(), **told}) + "\n")


class Episode:
    """A session of MCP."""

    def __init__(self) -> None:
        self._session = ""
        self._count = 0
        client = {"name": "small", "version": "1"}
        hello = {"protocolVersion": "2025-06-18", "capabilities": {}}
        self.ask("initialize", {**hello, "clientInfo": client})
        self._post({"jsonrpc": "2.0", "method": "notifications/initialized"})

    def ask(self, method: str, params: Any = None) -> Any:
        self._count += 1
        asked = {"jsonrpc": "2.0", "id": self._count, "method": method}
        text = self._post({**asked, "params": params or {}})
        lines = [line[5:] for line in text.splitlines() if line.startswith("data:")]
        said = [json.loads(line) for line in lines if line.strip()]
        return next(one for one in said if one.get("id") == asked["id"])["result"]

    def call(self, tool: str, **given: Any) -> tuple[str, bool]:
        """Return a tool's text, and whether it is an error."""
        result = self.ask("tools/call", {"name": tool, "arguments": given})
        texts = [one["text"] for one in result["content"] if one["type"] == "text"]
        return "\n".join(texts), bool(result.get("isError"))

    def _post(self, message: Any) -> str:
        headers = {
            "Content-Type": "application/json",
            "Accept": "application/json, text/event-stream",
            "Mcp-Session-Id": self._session,
        }
        request = urllib.request.Request(
            os.environ["ORS_MCP_URL"],
            json.dumps(message).encode(),
            {name: value for name, value in headers.items() if value},
        )
        with urllib.request.urlopen(request, timeout=60) as reply:
            self._session = reply.headers.get("Mcp-Session-Id", self._session)
            return str(reply.read().decode())


def submit() -> None:
    note(said=Episode().call("submit", answer="0"))


def play() -> None:
    """Play, and say what was given."""
    episode = Episode()
    tools = [tool["name"] for tool in episode.ask("tools/list")["tools"]]
    note(
        prompt=sys.stdin.read(), tools=tools, cwd=str(Path.cwd()), env=dict(os.environ)
    )
    note(files=sorted(map(str, Path.cwd().iterdir())), arguments=sys.argv[2:])
    note(said=episode.call("add", a=1, b=2))
    note(said=episode.call("fail", message="no luck"))
    note(said=episode.call("submit", answer="0"))
    for used in ({"in": 5, "out": 2}, {"in": 6, "out": True}):
        sys.stdout.write(json.dumps({"type": "used", "tokens": used}) + "\n")
    sys.stdout.write("[" * 5000 + '\n{"type": "used"\n"used"\n')
    sys.stdout.write(json.dumps([{"type": "used", "tokens": {"in": 1e999}}]))


def look() -> None:
    """Say which files there are, and how they begin."""
    files = {path.name: path.read_bytes()[:8].hex() for path in Path.cwd().iterdir()}
    note(files=files, prompt=sys.stdin.read())


def leave() -> None:
    """Exit at once."""


def crash() -> None:
    Episode().call("add", a=1, b=2)
    sys.exit("no model: " + os.environ["MY_API_KEY"])


def crash_after() -> None:
    submit()
    sys.exit(3)


def stay() -> None:
    submit()
    wait()


def wait() -> None:
    note()
    time.sleep(1000)


def call_slowly() -> None:
    episode = Episode()
    note()
    episode.call("slow", seconds=1000)


def ignore() -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    wait()


def fork() -> None:
    """Leave a child, and a daemon that left session, group and parent."""
    if os.fork() == 0:
        ignore()
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            ignore()
        os._exit(0)
    while Path(os.environ["NOTES"]).read_text().count("\n") < 2:
        time.sleep(0.01)
    submit()


def call_late() -> None:
    episode = Episode()
    for _ in range(2):
        note(said=episode.call("submit", answer="0"))
    # As a program that lost its connection does.
    note(said=Episode().call("add", a=1, b=2))


def call_on() -> None:
    episode = Episode()
    for _ in range(4):
        note(said=episode.call("add", a=1, b=2))


def call_at_once() -> None:
    episode = Episode()
    calls = [
        threading.Thread(target=lambda: note(said=episode.call("count")))
        for _ in range(3)
    ]
    for call in calls:
        call.start()
    for call in calls:
        call.join()
    submit()


def flood() -> None:
    line = b"x" * 1023 + b"\n"
    for _ in range(100):
        sys.stdout.buffer.write(line * 1024)
    sys.stderr.write("y" * (1 << 21))
    sys.stdout.write("the end")
    submit()


def spill() -> None:
    """Say the key across the end of what is kept of the beginning."""
    key = os.environ["MY_API_KEY"]
    sys.stdout.write("x" * ((1 << 15) - len(key) // 2) + key + "y" * (1 << 16))
    submit()


if __name__ == "__main__":
    globals()[sys.argv[1]]()
