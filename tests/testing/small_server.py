"""A small ORS server that keeps to the standard, and can be told to break one rule.

`Sums` does everything right. A fault is a subclass of it that overrides one method.
"""

import contextlib
import http.server
import json
import threading
import time
import uuid
from collections.abc import Iterator
from typing import Any, ClassVar, TypeAlias

Answer: TypeAlias = tuple[int, Any]

CALLS = [{"tool": "think", "input": {}}, {"tool": "submit", "input": {"answer": "2"}}]
GONE: Answer = (404, {"detail": "Active environment not found"})
PATHS = ("splits", "tools", "tasks", "num_tasks", "task", "task_range", "task_tools")


def tool(name: str, **schema: Any) -> dict[str, Any]:
    return {
        "name": name,
        "description": f"To {name}.",
        "input_schema": {"type": "object", "properties": {}, **schema},
    }


class Session:
    def __init__(self) -> None:
        self.results: dict[str, bytes] = {}
        self.finished = False


class Sums:
    tools: ClassVar = [
        tool("think"),
        tool("submit", properties={"answer": {"type": "string"}}, required=["answer"]),
    ]
    task_tools: ClassVar = tools
    beside_tools: ClassVar[dict[str, Any]] = {}
    create_fields: ClassVar[dict[str, Any]] = {"split": {}, "index": {}, "secrets": {}}
    create_required: ClassVar[list[str]] = []
    thinks: ClassVar[float] = 0.0
    """Seconds that the tool ``think`` takes."""
    prepares: ClassVar[float] = 0.0
    """Seconds that a prompt takes."""

    def __init__(self) -> None:
        self.sessions: dict[str, Session] = {}
        self.deleted: set[str] = set()
        self.given: list[str] = []
        self.thoughts = 0

    # What it says of itself.

    def endpoints(self) -> list[str]:
        named = [f"/{{env_name}}/{name}" for name in (*PATHS, "prompt", "call")]
        return ["/create", "/create_session", *named]

    def openapi(self) -> Answer:
        create = {"properties": self.create_fields, "required": self.create_required}
        return 200, {
            "paths": {path: {} for path in self.endpoints()},
            "components": {"schemas": {"CreateSession": create}},
        }

    def health(self) -> Answer:
        return 200, {"status": "ok"}

    def unknown_environment(self) -> Answer:
        return 404, {"detail": "no such environment"}

    def splits(self) -> list[Any]:
        return [{"name": name, "type": name} for name in ("train", "test")]

    def tasks(self, split: str) -> list[Any]:
        return [{"id": f"{split}-{index}"} for index in range(3)]

    def task(self, split: str, index: int) -> Answer:
        known = self.tasks(split) if split in ("train", "test") else []
        if not 0 <= index < len(known):
            return self.unknown_task()
        return 200, {"task": known[index]}

    def unknown_task(self) -> Answer:
        return 404, {"detail": "no such task"}

    # Sessions.

    def new_id(self) -> str:
        return uuid.uuid4().hex

    def create(self, session_id: str, body: dict[str, Any]) -> Answer:
        if self.task(body["split"], body["index"])[0] != 200:
            return self.create_unknown_task(session_id)
        self.sessions[session_id] = Session()
        return 200, {"sid": session_id}

    def create_unknown_task(self, session_id: str) -> Answer:
        return 404, {"detail": "no such task"}

    def prompt(self) -> list[Any]:
        time.sleep(self.prepares)
        return [{"type": "text", "text": "1 + 1 = ?"}]

    def unknown_session(self, session_id: str) -> Answer:
        return GONE

    def ping(self, session_id: str) -> Answer:
        return (200, {"status": "ok"}) if session_id in self.sessions else GONE

    def delete(self, session_id: str) -> Answer:
        self.sessions.pop(session_id, None)
        self.deleted.add(session_id)
        return 200, {"sid": session_id}

    # Calls.

    def call(self, session: Session, body: dict[str, Any]) -> Answer:
        task_id = body.get("task_id")
        if task_id is not None:
            return 200, self.resume(session, task_id, body)
        task_id = uuid.uuid4().hex
        session.results[task_id] = self.stream(task_id, self.run(session, body))
        return 200, session.results[task_id]

    def resume(self, session: Session, task_id: str, body: dict[str, Any]) -> bytes:
        return session.results.get(task_id) or self.error("unknown task_id")

    def stream(self, task_id: str, result: dict[str, Any] | str) -> bytes:
        head = b"event: task_id\r\ndata: " + task_id.encode() + b"\r\n\r\n"
        if isinstance(result, str):
            return head + self.error(result)
        end = b"event: end\r\ndata: " + json.dumps(result).encode() + b"\r\n\r\n"
        return head + self.heartbeat() + end

    def heartbeat(self) -> bytes:
        return b": ping\r\n\r\n"

    def error(self, text: str) -> bytes:
        return b"event: error\r\ndata: " + text.encode() + b"\r\n\r\n"

    def run(self, session: Session, body: dict[str, Any]) -> dict[str, Any] | str:
        name, given = body["name"], body["input"]
        if session.finished:
            return self.after_the_end()
        if name == "think":
            self.thoughts += 1
            return self.think()
        if name != "submit":
            return self.unknown_tool()
        if "answer" not in given:
            return self.invalid_input()
        session.finished = True
        return self.ran("Right.", 1.0, finished=True)

    def think(self) -> dict[str, Any] | str:
        time.sleep(self.thinks)
        return self.ran("Hm.", 0.0)

    def after_the_end(self) -> dict[str, Any] | str:
        return self.refused("episode_finished")

    def unknown_tool(self) -> dict[str, Any] | str:
        return self.refused("unknown_tool")

    def invalid_input(self) -> dict[str, Any] | str:
        return self.refused("invalid_input")

    def refused(self, reason: str) -> dict[str, Any]:
        return {"ok": False, "error": reason, "reason": reason}

    def ran(self, text: str, reward: Any, finished: Any = False) -> dict[str, Any]:
        blocks = [{"type": "text", "text": text}]
        output = {"blocks": blocks, "reward": reward, "finished": finished}
        return {"ok": True, "output": output | {"metadata": None}}

    # Which of these a request is for.

    def get(self, path: str, session_id: str) -> Answer:
        match path.strip("/").split("/"):
            case ["openapi.json"]:
                return self.openapi()
            case ["health"]:
                return self.health()
            case ["list_environments"]:
                return 200, ["sums"]
            case ["sums", "splits"]:
                return 200, self.splits()
            case ["sums", "tools"]:
                return 200, {"tools": self.tools}
            case ["sums", "prompt" | "task_tools"] if session_id not in self.sessions:
                return self.unknown_session(session_id)
            case ["sums", "prompt"]:
                return 200, self.prompt()
            case ["sums", "task_tools"]:
                return 200, {"tools": self.task_tools, **self.beside_tools}
            case [_, "splits"]:
                return self.unknown_environment()
        return 404, {"detail": "Not Found"}

    def post(self, path: str, session_id: str, body: dict[str, Any]) -> Answer:
        match path.strip("/").split("/"):
            case ["create_session"]:
                self.given.append(self.new_id())
                return 200, {"sid": self.given[-1]}
            case ["create"]:
                return self.create(session_id, body)
            case ["ping"]:
                return self.ping(session_id)
            case ["delete"]:
                return self.delete(session_id)
            case ["sums", "call"] if session_id in self.sessions:
                return self.call(self.sessions[session_id], body)
            case ["sums", "call"]:
                return self.unknown_session(session_id)
            case ["sums", name] if "split" in body:
                return self.post_for_tasks(name, body)
        return 404, {"detail": "Not Found"}

    def post_for_tasks(self, name: str, body: dict[str, Any]) -> Answer:
        tasks = self.tasks(body["split"])
        match name:
            case "num_tasks":
                return 200, {"num_tasks": len(tasks)}
            case "tasks":
                return 200, {"tasks": tasks}
            case "task_range":
                return 200, {"tasks": tasks[body["start"] : body["stop"]]}
        return self.task(body["split"], body["index"])


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = -1
    sums: ClassVar[Sums]

    def do_GET(self) -> None:
        self.send(self.sums.get(self.path, self.headers.get("X-Session-ID", "")))

    def do_POST(self) -> None:
        text = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        body = json.loads(text) if text else {}
        session_id = self.headers.get("X-Session-ID", "")
        self.send(self.sums.post(self.path, session_id, body))

    def send(self, answer: Answer) -> None:
        status, value = answer
        is_stream = isinstance(value, bytes)
        body = value if is_stream else json.dumps(value).encode()
        kind = "text/event-stream" if is_stream else "application/json"
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        if status == 308:
            self.send_header("Location", "/sums/splits")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *arguments: Any) -> None:
        """Say nothing."""


class Server(http.server.ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False


@contextlib.contextmanager
def serving(sums: Sums) -> Iterator[str]:
    """Give the base URL of a server in threads of this process."""
    handler = type("BoundHandler", (Handler,), {"sums": sums})
    with Server(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()
