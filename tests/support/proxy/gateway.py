"""A gateway before real servers, as the official client expects the platform's to be.

`POST /create_session` with a key and `X-Deployment` gives a session id. Every other
request is passed on by its session id, to the server of that session's deployment, and
is 404 without a known one. Two questions belong to the platform itself.
"""

import base64
import json
import uuid
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from tests.support.proxy.faults import Answer
from tests.support.proxy.http1 import ReceivedRequest
from tests.support.proxy.proxy import Exchange, FaultProxy
from tests.support.proxy.scripted import event_stream

KEY = "key-of-the-platform"
SECRETS_WANTED = ["OPENAI_API_KEY"]
DIFFICULTY = {
    "task_index": 0,
    "avg_reward": 0.5,
    "min_reward": 0.0,
    "max_reward": 1.0,
    "num_rollouts": 8,
    "response_chars": dict.fromkeys(
        ("mean", "p1", "p10", "p25", "p50", "p75", "p90", "p99"), 1.0
    ),
    "split": "train",
    "variant": None,
}


class Gateway(FaultProxy):
    """Passes requests on by their session id; keeps what `/create_session` was told."""

    def __init__(self, deployments: Mapping[str, str]) -> None:
        self.deployments = deployments
        self.sessions: dict[str, str] = {}  # by id, as long as it is not handed back
        self.created: list[dict[str, Any]] = []
        super().__init__(next(iter(deployments.values())))

    def secrets_told(self) -> list[dict[str, Any]]:
        """Return the secrets of each session that had any, as the gateway got them."""
        return [one["secrets"] for one in self.created if one["secrets"]]

    def upstream(self, request: ReceivedRequest) -> tuple[str, int]:
        address = urlsplit(self.deployments[self.sessions[request.session_id or ""]])
        return address.hostname or "", address.port or 80

    def record(self, request: ReceivedRequest, *, first: bool) -> Exchange:
        exchange = super().record(request, first=first)
        answer = self._own_answer(request)
        if answer is not None and exchange.fault is None:
            exchange.fault = answer
        return exchange

    def _own_answer(self, request: ReceivedRequest) -> Answer | None:
        if request.header("X-API-Key") != KEY:
            return _refusal(401, "Invalid API key")
        if request.path.startswith("/v1/environments/"):
            return self._platform_answer(request)
        if request.path == "/create_session":
            return self._create(request)
        if request.session_id not in self.sessions:
            return _refusal(404, "Session not found")
        if request.path == "/delete_session":
            del self.sessions[request.session_id]
            return Answer(200, body=json.dumps({"sid": request.session_id}).encode())
        return None

    def _create(self, request: ReceivedRequest) -> Answer:
        deployment = request.header("X-Deployment") or ""
        if deployment not in self.deployments:
            return _refusal(404, "Deployment not found.")
        session_id = str(uuid.uuid4())
        self.sessions[session_id] = deployment
        encoded = request.header("X-Secrets")
        secrets = json.loads(base64.b64decode(encoded)) if encoded else {}
        self.created.append(
            {"deployment": deployment, "secrets": secrets, "body": request.json}
        )
        events = event_stream(("task_id", session_id), ("end", ""))
        return Answer(200, body=events, content_type="text/event-stream")

    def _platform_answer(self, request: ReceivedRequest) -> Answer:
        name, _, what = request.path.removeprefix("/v1/environments/").rpartition("/")
        answers = {
            "required-secrets": {"secrets": SECRETS_WANTED},
            "task-difficulty": {"tasks": [DIFFICULTY]},
        }
        if name not in self.deployments or what not in answers:
            return _refusal(404, "Environment not found")
        return Answer(200, body=json.dumps(answers[what]).encode())


def _refusal(status: int, detail: str) -> Answer:
    return Answer(status, body=json.dumps({"detail": detail}).encode())
