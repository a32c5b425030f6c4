"""A small ORS server whose every reply a test may replace."""

import contextlib
from collections.abc import Iterator
from typing import Any, Final

import ors_gym
from tests.support.proxy import scripted
from tests.support.proxy.http1 import ReceivedRequest

TASK_ID: Final = "0c9d3b0e-6f5e-4b44-9f2a-0d6f8f0b7a11"
OUTPUT: Final = (
    '{"ok":true,"output":{"blocks":[{"type":"text","text":"done"}],'
    '"metadata":null,"reward":1.0,"finished":false}}'
)
_FIELDS: Final = ("env_name", "index", "secrets", "split", "task_spec")
_PATHS: Final = (
    *("/create", "/create_session", "/delete", "/delete_session", "/ping"),
    *("/{env}/call", "/{env}/num_tasks", "/{env}/prompt", "/{env}/splits"),
    *("/{env}/task", "/{env}/task_tools", "/{env}/tasks", "/{env}/tools"),
)
_OPENAPI: Final = {
    "paths": {path: {} for path in _PATHS},
    "components": {
        "schemas": {"CreateSession": {"properties": {name: {} for name in _FIELDS}}}
    },
}
_TOOLS: Final = {"tools": [{"name": "go", "description": "", "input_schema": None}]}


def whole_call(output: str = OUTPUT) -> bytes:
    return scripted.event_stream(("task_id", TASK_ID), ("end", output))


def _says(value: Any) -> scripted.Handler:
    return lambda _: scripted.json_reply(value)


@contextlib.contextmanager
def scripted_ors(**replaced: scripted.Handler) -> Iterator[scripted.ScriptedServer]:
    """Serve one environment ``box`` with one tool ``go``.

    Handlers are replaced by the last part of their path: ``call``, ``prompt``, ...
    """
    numbers = iter(range(10**9))

    def create_session(_: ReceivedRequest) -> scripted.RawReply:
        events = scripted.event_stream(
            ("task_id", f"session-{next(numbers)}"), ("end", "")
        )
        return scripted.stream_reply(events)

    usual: dict[str, scripted.Handler] = {
        "openapi.json": _says(_OPENAPI),
        "list_environments": _says(["box"]),
        "tools": _says(_TOOLS),
        "task_tools": _says(_TOOLS),
        "splits": _says([{"name": "train", "type": "train"}]),
        "num_tasks": _says({"num_tasks": 3}),
        "task": _says({"task": {"id": "0"}}),
        "create_session": create_session,
        "create": lambda request: scripted.json_reply({"sid": request.session_id}),
        "prompt": _says([{"type": "text", "text": "Go."}]),
        "call": lambda _: scripted.stream_reply(whole_call()),
        "ping": _says({"status": "ok"}),
        "delete": _says({"sid": ""}),
        "delete_session": _says({"sid": ""}),
    }
    usual |= replaced
    handlers = {f"*/{name}": handler for name, handler in usual.items()}
    with scripted.ScriptedServer(handlers) as server:
        yield server


@contextlib.contextmanager
def scripted_session(
    client: Any = None, session: Any = None, **replaced: scripted.Handler
) -> Iterator[tuple[scripted.ScriptedServer, ors_gym.Session]]:
    with (
        scripted_ors(**replaced) as server,
        ors_gym.ORSClient(server.url, **(client or {})) as opened,
        opened.session("box", split="train", index=0, **(session or {})) as played,
    ):
        yield server, played
