"""Checks that open sessions and run no tool."""

from __future__ import annotations

import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from typing import Final
from urllib.parse import quote

from ors_gym.errors import SetupFailedError
from ors_gym.protocol._requests import encode, session_head
from ors_gym.testing._metadata_checks import judge_tools
from ors_gym.testing._subject import (
    Subject,
    Verdict,
    ask,
    failed,
    passed,
    skipped,
    warned,
)
from ors_gym.types import Block

__all__ = ["SESSION_CHECKS"]

_SLOW_SETUP_SECONDS: Final = 25.0
"""What openreward waits before it answers ``starting`` (docs/wire.md, "Dialects")."""
_SESSIONS_AT_ONCE: Final = 4


def check_session_ids(subject: Subject) -> Verdict:
    """How session ids are handed out."""
    if subject.dialect.create_session is False:
        return warned(
            "there is no /create_session: clients bring ids of their own",
            "update the server's SDK",
        )
    first, second = (subject.client.create_session() for _ in range(2))
    if first == second:
        return failed("the same id was given twice", "make each id anew")
    return passed("two sessions have two ids")


def check_setup(subject: Subject) -> Verdict:
    """How long a set-up takes, or why it failed."""
    began = time.monotonic()
    try:
        with subject.session() as session:
            session.get_prompt()
    except SetupFailedError as error:
        return failed(str(error), "see the server's log for the traceback of setup()")
    seconds = time.monotonic() - began
    if seconds > _SLOW_SETUP_SECONDS:
        return warned(
            f"took {seconds:.0f} s",
            "do it once per process instead, or have users set prefetch=True",
        )
    return passed(f"took {seconds:.2f} s")


def check_prompt(subject: Subject) -> Verdict:
    """The prompt, and whether it is the same for the same task."""
    first, second = _prompt(subject), _prompt(subject)
    if not first:
        return warned("the prompt is empty", "return at least one block of text")
    if first != second:
        return warned(
            "two sessions of one task have different prompts",
            "draw what is random from the task, so that episodes can be replayed and "
            "a group of rollouts answers one question",
        )
    return passed(f"{len(first)} block(s), the same in two sessions of one task")


def _prompt(subject: Subject) -> list[Block]:
    with subject.session() as session:
        return session.get_prompt()


def check_session_tools(subject: Subject) -> Verdict:
    """The tools that a session has."""
    return judge_tools(subject.task_tools)


def check_ping(subject: Subject) -> Verdict:
    """A session that is there, and one that is not."""
    with subject.session() as session:
        alive = subject.client.ping(session.session_id)
    stranger = ask(
        subject.client, session_head("POST", "/ping", uuid.uuid4().hex), b"{}"
    )
    if not alive:
        return failed("/ping denies a session that is open", "answer it with 200")
    if stranger.status not in (404, 410):
        return warned(
            f"/ping of an unknown session is {stranger.status}, not 404",
            "answer 404, or a client keeps alive what is lost",
        )
    return passed("200 for an open session, and 404 for an unknown one")


def check_unknown_session(subject: Subject) -> Verdict:
    """A session that nobody opened."""
    head = session_head("GET", f"/{_quoted(subject)}/prompt", uuid.uuid4().hex)
    reply = ask(subject.client, head)
    if reply.status in (404, 410):
        return passed(f"its prompt is {reply.status}")
    return failed(
        f"the prompt of an unknown session is {reply.status}, not 404",
        "answer 404 `Active environment not found`",
    )


def check_delete(subject: Subject) -> Verdict:
    """A session that was deleted."""
    with subject.session() as session:
        session.get_prompt()
        session_id = session.session_id
    head = session_head("GET", f"/{_quoted(subject)}/prompt", session_id)
    reply = ask(subject.client, head)
    if reply.status not in (404, 410):
        return failed(
            f"the prompt of a deleted session is {reply.status}, not 404",
            "forget a session when it is deleted, and tear it down",
        )
    again = ask(subject.client, session_head("POST", "/delete", session_id), b"{}")
    if again.status in (200, 404, 410):
        return passed(f"the session is gone; deleting it twice is {again.status}")
    return warned(
        f"deleting a session twice is {again.status}", "answer 200 or 404, as others do"
    )


def check_sessions_at_once(subject: Subject) -> Verdict:
    """Several sessions side by side."""

    def play(_: int) -> tuple[str, str]:
        with subject.session() as session:
            session.get_prompt()
            if not subject.calls:
                return session.session_id, ""
            return session.session_id, subject.play(session, subject.calls[0]).outcome

    subject.calls  # noqa: B018 - drawn once, before the threads
    with ThreadPoolExecutor(_SESSIONS_AT_ONCE) as pool:
        played = list(pool.map(play, range(_SESSIONS_AT_ONCE)))
    if len(dict(played)) < len(played):
        return failed("two sessions have one id", "make each id anew")
    outcomes = {outcome for _, outcome in played}
    if len(outcomes) > 1:
        return failed(
            f"the same call in {len(played)} sessions: {', '.join(sorted(outcomes))}",
            "keep the state of an episode in its own instance, not in the class",
        )
    return passed(f"{len(played)} sessions at once behave alike")


def check_bad_create(subject: Subject) -> Verdict:
    """An episode of a task that is not there."""
    if subject.dialect.create_by_index is False:
        return skipped("the server plays no task by its index")
    session_id = subject.client.create_session()
    count = subject.client.num_tasks(subject.environment, subject.split)
    task = {"split": subject.split, "index": count, "env_name": subject.environment}
    created = ask(
        subject.client, session_head("POST", "/create", session_id), encode(task, "it")
    )
    subject.client.delete_episode(session_id)
    if 400 <= created.status < 500:
        return passed(f"/create of a task past the end is {created.status}")
    return warned(
        f"/create of a task past the end is {created.status}",
        "answer 400 or 404 at once; later it looks like a broken set-up",
    )


def _quoted(subject: Subject) -> str:
    return quote(subject.environment, safe="")


SESSION_CHECKS: Final = (
    ("session ids", check_session_ids),
    ("set-up", check_setup),
    ("prompt", check_prompt),
    ("session tools", check_session_tools),
    ("ping", check_ping),
    ("unknown session", check_unknown_session),
    ("create unknown task", check_bad_create),
    ("delete", check_delete),
    ("sessions at once", check_sessions_at_once),
)
