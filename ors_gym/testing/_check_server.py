"""Checking a server against the contract."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ors_gym.client import ORSClient
from ors_gym.errors import InvalidRequestError, ORSError
from ors_gym.formats._actions import InvalidAction, parse_action
from ors_gym.protocol._dialect import DEPLOYMENT_HEADER, split_deployment
from ors_gym.protocol._redaction import takes_secrets
from ors_gym.spaces import ToolSchemas
from ors_gym.testing._checked_environment import Subject, Verdict, failed, skipped
from ors_gym.testing._checks import CHECKS, Check
from ors_gym.testing._report import Finding, Report
from ors_gym.types import Secrets, ToolCall


@takes_secrets
def check_server(
    base_url: str,
    env_name: str | None = None,
    *,
    calls: bool | Sequence[Mapping[str, Any]] = True,
    split: str | None = None,
    task_index: int = 0,
    call_timeout: float = 30.0,
    setup_timeout: float = 600.0,
    secrets: Secrets | None = None,
    tool_schemas: ToolSchemas | None = None,
    on_finding: Callable[[Finding], object] | None = None,
    **client_options: Any,
) -> Report:
    """Check whether an ORS server does what clients and trainers rely on.

    The check opens a few dozen sessions of one task and, unless told otherwise, **runs
    tools**: some calls drawn from the schemas, or those that are given.

    Args:
        base_url: The server's address.
        env_name: The environment's name, in any case; may be left out where there is
            only one.
        calls: Whether tools may be run; or the calls of one episode, such as
            ``[{"tool": "submit", "input": {"answer": "4"}}]``. Without a
            last call that finishes the episode ``call after the end`` is skipped,
            without one of 0.3 s ``pings during a call``, without one of 15 s
            ``heartbeats``.
        split: The split to play; ``train`` or the first one if None.
        task_index: The task to play.
        call_timeout: Seconds for a call.
        setup_timeout: Seconds for a set-up.
        secrets: Values for the environment, by name.
        tool_schemas: Narrows the schemas from which calls are drawn, as for `ORSEnv`.
        on_finding: Called with each finding at once.
        **client_options: What `ORSClient` takes besides.

    Returns:
        The report; ``print`` it, and see ``report.ok``.

    Raises:
        ORSError: If the server cannot be reached, is not an ORS server, or has no such
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
    deployment, name = split_deployment(env_name or "")
    if deployment:
        headers = {**(client_options.get("headers") or {})}
        client_options["headers"] = {**headers, DEPLOYMENT_HEADER: deployment}
    with ORSClient(base_url, **client_options) as client:
        subject = Subject(
            client,
            _choose_environment(client, deployment, name),
            split,
            task_index,
            runs_tools=bool(calls),
            script=script,
            call_timeout=call_timeout,
            tool_schemas=tool_schemas,
            session_options={"setup_timeout": setup_timeout, "secrets": secrets},
        )
        findings: list[Finding] = []
        for check in CHECKS:
            finding = Finding(check.name, *_run(check, subject, findings))
            findings.append(finding)
            if on_finding is not None:
                on_finding(finding)
        return Report(client.base_url, subject.environment, findings)


def _run(check: Check, subject: Subject, findings: Sequence[Finding]) -> Verdict:
    """Run a check if it can be run; an error that it does not expect is a failure.

    One server's strange reply to one check must not hide what the others find.
    """
    no_setup = any(
        finding.status == "fail" and finding.name == "set-up" for finding in findings
    )
    if no_setup and check.kind != "metadata":
        return skipped("the set-up failed")
    try:
        if check.kind == "call":
            obstacle = _why_no_call(subject)
            if obstacle:
                return skipped(obstacle)
        return check.judge(subject)
    except Exception as error:  # noqa: BLE001 - whatever a strange reply leads to
        return failed(f"{type(error).__name__}: {error}", "see the server's log")


def _why_no_call(subject: Subject) -> str:
    if not subject.runs_tools:
        return "tools are not called"
    try:
        played = subject.episode.played
    except ORSError as error:
        return f"no episode can be played: {error}"
    return "" if played else "there is no tool to call"


def _choose_environment(client: ORSClient, deployment: str, env_name: str) -> str:
    if env_name:
        return client.run(client.catalog.resolve(env_name))
    names = client.list_environments()
    if len(names) == 1 or deployment:
        # The first one of a deployment is its default.
        return names[0]
    raise InvalidRequestError(
        f"{client.base_url} serves {len(names)} environments; name one of "
        f"{', '.join(names)}"
    )


def _read(call: Mapping[str, Any]) -> ToolCall:
    read = parse_action(call)
    if isinstance(read, InvalidAction):
        raise InvalidRequestError(f"{call!r:.200} is not a tool call: {read.message}")
    return read
