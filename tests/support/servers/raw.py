"""Requests to a server, bare: no client of this project between test and wire."""

import contextlib
import dataclasses
import json
import uuid
from collections.abc import Iterator
from typing import Any

import httpx

from tests.support.servers.process import RunningServer


def raw_client(server: RunningServer) -> httpx.Client:
    return httpx.Client(base_url=server.base_url, timeout=30, trust_env=False)


def events_of(body: str) -> list[tuple[str, str]]:
    """Return the (event, data) pairs of a stream whose lines end in CRLF."""
    found = []
    for block in body.split("\r\n\r\n"):
        lines = [line for line in block.split("\r\n") if line and line[0] != ":"]
        kinds = [line[7:] for line in lines if line.startswith("event: ")]
        data = [line[6:] for line in lines if line.startswith("data: ")]
        if kinds:
            found.append((kinds[0], "\n".join(data)))
    return found


@dataclasses.dataclass
class RawSession:
    client: httpx.Client
    session_id: str
    environment: str

    def request(self, method: str, path: str, **options: Any) -> httpx.Response:
        headers = {"X-Session-ID": self.session_id, **options.pop("headers", {})}
        return self.client.request(method, path, headers=headers, **options)

    def get(self, name: str) -> httpx.Response:
        return self.request("GET", f"/{self.environment}/{name}")

    def call(
        self, tool: str, task_id: str | None = None, **given: Any
    ) -> httpx.Response:
        body: dict[str, Any] = {"name": tool, "input": given}
        if task_id is not None:
            body["task_id"] = task_id
        return self.request("POST", f"/{self.environment}/call", json=body)

    def result(self, tool: str, **given: Any) -> dict[str, Any]:
        events = events_of(self.call(tool, **given).text)
        assert [kind for kind, _ in events][-1] == "end", events
        whole = "".join(data for kind, data in events if kind != "task_id")
        value: dict[str, Any] = json.loads(whole)
        return value


@contextlib.contextmanager
def open_session(
    server: RunningServer, environment: str = "contract", /, **spec: Any
) -> Iterator[RawSession]:
    with raw_client(server) as client:
        session = RawSession(client, uuid.uuid4().hex, environment)
        body: dict[str, Any] = {"env_name": environment}
        body["task_spec"] = {"id": "raw", **spec}
        if server.sdk.version in {"0.1.9", "0.1.22"}:
            body["secrets"] = {}
        created = session.request("POST", "/create", json=body)
        assert created.status_code == 200, created.text
        yield session
        session.request("POST", "/delete")
