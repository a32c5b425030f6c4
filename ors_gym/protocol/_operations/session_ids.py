"""Session ids: where they come from, and the ones that a gateway wants for a question.

docs/wire.md, points 2 and 20, has the rules.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Mapping
from typing import Any, Final

from ors_gym._shown_text import shorten
from ors_gym.errors import ORSError, ProtocolError, ServerError
from ors_gym.protocol._exchange import (
    Head,
    Operation,
    Outcome,
    Send,
)
from ors_gym.protocol._operations.fetching import fetch, wait
from ors_gym.protocol._redaction import Redactor
from ors_gym.protocol._replies import (
    StreamReader,
    failure_error,
    redact_excerpt,
    status_error,
)
from ors_gym.protocol._reply_json import parse_json, read_session_id
from ors_gym.protocol._requests import (
    encode,
    plain_head,
    secrets_header,
    session_head,
)
from ors_gym.protocol._retries import may_repeat
from ors_gym.protocol._server_state import Server
from ors_gym.types import JSONObject

_REASON_CHARACTERS: Final = 500
_SESSION_ID: Final = re.compile(r"[\x21-\x7e]{1,512}")


def create_session(
    server: Server,
    options: Mapping[str, Any] | None = None,
    *,
    secrets: Mapping[str, JSONObject] | None = None,
    budget: float | None = None,
    redact: Redactor | None = None,
) -> Operation[str]:
    """Get a session id: from the server, or our own (docs/wire.md, point 2).

    ``redact`` hides what is secret in ``options`` and ``secrets``, too.
    """
    redact = redact or server.redact
    dialect = server.dialect
    if dialect.create_session is False:
        return server.hooks.new_id()
    patience = server.patience(server.settings.timeout if budget is None else budget)
    head = server.address(plain_head("POST", "/create_session"))
    if dialect.routes_by_session and secrets:
        # The gateway lets the secrets out to their domains only.
        head = Head("POST", head.target, (*head.headers, *secrets_header(secrets)))
    body = None
    if options or dialect.routes_by_session:
        body = encode(options or {}, "session_options")
    while True:
        reader = StreamReader(server.settings.limits)
        timeout = max(0.001, min(patience.remaining, server.settings.timeout))
        outcome = yield Send(head, body, reader, timeout, patience.reuse_within)
        patience.spend(outcome)
        server.known.reached = server.known.reached or outcome.status > 0
        if reader.task_id is not None or not may_repeat(outcome):
            break
        if not (yield from wait(server, patience, outcome, head)):
            break
    if outcome.status == 200:
        server.hooks.on_round_trip(outcome.elapsed)
    if outcome.status in (404, 405) and not dialect.routes_by_session:
        return server.hooks.new_id()
    session_id = _session_id(server, outcome, reader, redact)
    # Checked, since it goes into a header of every request of the session.
    if not _SESSION_ID.fullmatch(session_id):
        raise ProtocolError(f"not a session id: {redact(session_id)[:40]!r}")
    return session_id


def _session_id(
    server: Server, outcome: Outcome, reader: StreamReader, redact: Redactor
) -> str:
    if reader.task_id is not None:
        return reader.task_id
    if outcome.failure is not None:
        raise failure_error(outcome, f"POST {server.base_url}/create_session")
    if outcome.status != 200:
        raise status_error(
            outcome, reader.body, "POST /create_session", redact, server.settings
        )
    if reader.failed is not None:
        said = shorten(redact_excerpt(reader.failed, redact), _REASON_CHARACTERS)
        raise ServerError(f"POST /create_session failed: {said}", status=200)
    if reader.is_stream:
        raise reader.error or ProtocolError("/create_session named no session id")
    what = "the reply of /create_session"
    return read_session_id(parse_json(reader.body, what, redact))


def ask(
    server: Server, head: Head, body: bytes | None = None
) -> Operation[tuple[Outcome, bytes]]:
    """Send a request that needs no session; a gateway gets a session id to route it."""
    if not server.dialect.routes_by_session:
        return (yield from fetch(server, head, body))
    session_id = yield from create_session(server)
    handed_back = False
    try:
        asked = session_head(head.method, head.target, session_id)
        answer = yield from fetch(server, asked, body)
        with contextlib.suppress(ORSError):
            yield from hand_back(server, session_id, server.settings.timeout)
            handed_back = True
        return answer
    finally:
        if not handed_back:
            server.discard(session_id)


def hand_back(server: Server, session_id: str, timeout: float) -> Operation[None]:
    """Give an id back to a server that wants it. Nothing depends on the answer."""
    head = session_head("POST", "/delete_session", session_id)
    yield from fetch(server, head, budget=timeout, attempts=1)
