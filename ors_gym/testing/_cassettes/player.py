"""The server that answers from a cassette."""

from __future__ import annotations

import dataclasses
import json
import uuid
from typing import Final

from starlette.responses import Response
from starlette.types import Send

from ors_gym.testing._cassettes.asgi import Application, Asked
from ors_gym.testing._cassettes.rows import (
    Reply,
    Request,
    read_cassette,
)
from ors_gym.testing._cassettes.tape import NotRecordedError, PlayedSession, Tape

_NO_SESSION: Final = "Active environment not found"
"""What both SDKs answer to a session that they do not have."""
_OF_SESSIONS: Final = frozenset({"ping", "call", "prompt", "task_tools", "messages"})
"""Endpoints that ask about an episode. At a gateway others name a session too."""
_UNKNOWN: Final = Reply(200, "events", [{"error": "unknown task_id"}])


class Player(Application):
    """An ASGI application that answers as the recorded server did.

    Args:
        path: The cassette.
    """

    def __init__(self, path: str) -> None:
        super().__init__()
        self._path = path
        self._tape = Tape(read_cassette(path))
        self._sessions: dict[str, PlayedSession] = {}

    async def answer(self, asked: Asked, request: Request, send: Send) -> Response:
        """Answer one request."""
        del send
        try:
            return self._answer(request, asked.session)
        except NotRecordedError as error:
            advice = f"Record it: ors-gym record URL {self._path}"
            return _refuse(400, f"{error}. {advice}")

    def _answer(self, request: Request, session_id: str) -> Response:
        session = self._sessions.get(session_id)
        if request.endpoint == "create":
            return self._create(request, session_id)
        if session is not None:
            return self._answer_session(session, request, session_id)
        if request.endpoint == "create_session":
            session_id = str(uuid.uuid4())
        elif request.endpoint in _OF_SESSIONS:
            return _refuse(404, _NO_SESSION)
        elif session_id:
            request = dataclasses.replace(request, routed=True)
        return _respond(self._tape.answer(request), session_id)

    def _create(self, request: Request, session_id: str) -> Response:
        if session_id in self._sessions:
            return _refuse(400, "Session already exists")
        session, reply = self._tape.open(request)
        if reply.status == 200:
            self._sessions[session_id] = session
        return _respond(reply, session_id)

    def _answer_session(
        self, session: PlayedSession, request: Request, session_id: str
    ) -> Response:
        if task_id := request.task_id:
            reply = session.results.get(task_id, _UNKNOWN)
            return _respond(reply, session_id, task_id)
        reply = session.answer(request)
        if request.endpoint == "delete":
            del self._sessions[session_id]
        task_id = uuid.uuid4().hex
        session.results[task_id] = reply
        return _respond(reply, session_id, task_id)


def _respond(reply: Reply, session_id: str, task_id: str = "") -> Response:
    response = Response(
        reply.encode(session_id, task_id), reply.status, media_type=reply.kind
    )
    if reply.location:
        response.headers["location"] = reply.location
    return response


def _refuse(status: int, detail: str) -> Response:
    content = json.dumps({"detail": detail})
    return Response(content, status, media_type="application/json")
