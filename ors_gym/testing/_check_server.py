"""Checking a server against the contract."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from ors_gym.client import ORSClient
from ors_gym.errors import InvalidRequestError, ORSError
from ors_gym.formats._actions import InvalidAction, parse_action
from ors_gym.testing._call_checks import CALL_CHECKS
from ors_gym.testing._metadata_checks import METADATA_CHECKS
from ors_gym.testing._report import Finding, Report
from ors_gym.testing._session_checks import SESSION_CHECKS
from ors_gym.testing._subject import Subject, Verdict
from ors_gym.types import ToolCall

__all__ = ["CHECKS", "check_server"]

_CHECKS: Final = (*METADATA_CHECKS, *SESSION_CHECKS, *CALL_CHECKS)
CHECKS: Final = tuple(name for name, _ in _CHECKS)
"""The names of the checks, in their order."""
_METADATA: Final = frozenset(name for name, _ in METADATA_CHECKS)
_FIX: Final = "see the server's log"


def check_server(
    base_url: str,
    env_name: str | None = None,
    *,
    calls: bool | Sequence[Mapping[str, Any]] = True,
    split: str | None = None,
    task_index: int = 0,
    call_timeout: float = 30.0,
    setup_timeout: float = 600.0,
    secrets: Mapping[str, str] | None = None,
    on_finding: Callable[[Finding], object] | None = None,
    **client_options: Any,
) -> Report:
    """Check whether an ORS server does what clients and trainers rely on.

    It opens a few dozen sessions of one task and, unless told otherwise, **runs
    tools**: some calls drawn from the schemas, or those that are given.

    Args:
        base_url: The server's address.
        env_name: The environment's name, in any case; may be left out where there is
            only one.
        calls: Whether tools may be run; or the calls of one episode, such as
            ``[{"tool": "submit", "input": {"answer": "4"}}]``. Let one take half a
            second and the last one finish the episode, so that all can be checked.
        split: The split to play; ``train`` or the first one if None.
        task_index: The task to play.
        call_timeout: Seconds for a call.
        setup_timeout: Seconds for a set-up.
        secrets: Values for the environment, by name.
        on_finding: Told of each finding at once.
        **client_options: What `ORSClient` takes besides.

    Returns:
        The report; ``print`` it, and see ``report.ok``.

    Raises:
        ORSError: If the server cannot be reached, is no ORS server, or has no such
            environment.

    Example:
        >>> from ors_gym.server import serve
        >>> calls = [{"tool": "submit", "input": {"answer": "4"}}]
        >>> with serve() as base_url:
        ...     report = check_server(base_url, "math", calls=calls)
        >>> report.ok, report["resume"].status
        (True, 'pass')
    """
    script = None if isinstance(calls, bool) else [_read(call) for call in calls]
    with ORSClient(base_url, **client_options) as client:
        subject = Subject(
            client,
            _choose_environment(client, env_name),
            split,
            task_index,
            runs_tools=bool(calls),
            script=script,
            call_timeout=call_timeout,
            session_options={"setup_timeout": setup_timeout, "secrets": secrets},
        )
        findings: list[Finding] = []
        for name, check in _CHECKS:
            finding = Finding(name, *_run(name, check, subject, findings))
            findings.append(finding)
            if on_finding is not None:
                on_finding(finding)
        return Report(client.base_url, subject.environment, findings)


def _run(
    name: str,
    check: Callable[[Subject], Verdict],
    subject: Subject,
    findings: Sequence[Finding],
) -> Verdict:
    """Run a check; an error that it does not expect is a failure of the server."""
    broken = any(
        finding.status == "fail" and finding.name == "set-up" for finding in findings
    )
    if broken and name not in _METADATA:
        return Verdict("skipped", "the set-up failed")
    try:
        return check(subject)
    except ORSError as error:
        return Verdict("fail", f"{type(error).__name__}: {error}", _FIX)


def _choose_environment(client: ORSClient, env_name: str | None) -> str:
    if env_name is not None:
        return client.run(client.catalog.resolve(env_name))
    names = client.list_environments()
    if len(names) == 1:
        return names[0]
    raise InvalidRequestError(
        f"{client.base_url} serves {len(names)} environments; name one of "
        f"{', '.join(names)}"
    )


def _read(call: Mapping[str, Any]) -> ToolCall:
    read = parse_action(call)
    if isinstance(read, InvalidAction):
        raise InvalidRequestError(f"{call!r:.200} is no tool call: {read.message}")
    return read
