"""The contract check: its table for every server version, and what it finds."""

import asyncio
from typing import Final

import pytest

from ors_gym.errors import InvalidRequestError, ORSError, UnknownEnvironmentError
from ors_gym.testing import Finding, Report, _check_server, check_server
from ors_gym.testing._checked_environment import Verdict
from ors_gym.testing._checks import CHECKS, Check
from tests.support.servers.dialects import DIALECTS
from tests.support.servers.process import start_server
from tests.testing.contract_table import CALLS, read_table

RUNS_TOOLS: Final = (
    *("event stream", "results", "refused calls", "terminal tool", "resume"),
    *("unknown task_id", "unknown tool"),
    *("invalid input", "call after the end", "pings during a call", "heartbeats"),
)


def expected(name: str) -> dict[str, str]:
    """Return what is not a pass for a server version, from the table of dialects."""
    speaks = DIALECTS[name]
    by_index = () if speaks.index else ("unknown task", "create unknown task")
    warns = {
        "endpoints": not (speaks.index and speaks.task_range),
        "secrets": speaks.secrets in ("none", "required"),
        "unknown environment": speaks.redirects,
        "splits": not speaks.split_objects,
        "session ids": speaks.create_session == "none",
        "call after the end": not speaks.refuses_after_end,
        "pings during a call": speaks.blocks,
    }
    warned = {check: "warn" for check, applies in warns.items() if applies}
    return warned | dict.fromkeys((*by_index, "heartbeats"), "skipped")


def not_passed(report: Report) -> dict[str, str]:
    return {n: str(status) for n, status in report.statuses.items() if status != "pass"}


@pytest.mark.slow
def test_the_table_of_every_server_version(any_server):
    seen: list[Finding] = []
    url, told = any_server.base_url, seen.append
    report = check_server(url, "Contract", calls=CALLS, on_finding=told)
    assert not_passed(report) == expected(any_server.sdk.name), str(report)
    # What the documentation says of it.
    assert read_table()[any_server.sdk.name] == report.statuses
    assert report.ok
    assert seen == report.findings
    assert all(f.fix for f in report.findings if f.status in ("warn", "fail"))
    assert any_server.open_sessions() == set()
    # One episode; `sessions at once` calls echo four times; slow_sync is run again.
    assert (any_server.runs("echo"), any_server.runs("slow_sync")) == (5, 2)


def test_without_calls_no_tool_runs(server):
    report = check_server(server.base_url, "contract", calls=False)
    assert server.runs() == 0
    assert {report[name].status for name in RUNS_TOOLS} == {"skipped"}
    assert report["prompt"].status == "pass"
    assert report.ok


def test_what_a_check_does_not_expect_hides_no_other_check(server, monkeypatch):
    def stumble(_: object) -> Verdict:
        raise TypeError("'bool' object is not iterable")

    strange = [Check("strange", kind, stumble) for kind in ("metadata", "session")]
    monkeypatch.setattr(_check_server, "CHECKS", [*strange, *CHECKS[:2]])
    report = check_server(server.base_url, "contract", calls=False)
    assert [one.status for one in report.findings] == ["fail", "fail", "pass", "pass"]
    assert report.findings[0].detail == "TypeError: 'bool' object is not iterable"


def test_a_failed_setup_is_told_once(server):
    report = check_server(server.base_url, "brokensetup")
    assert not report.ok
    failed = [f.name for f in report.findings if f.status == "fail"]
    assert failed == ["set-up"]
    assert "database is locked" in report["set-up"].detail
    assert report["ping"].status == report["resume"].status == "skipped"


@pytest.mark.slow
def test_a_result_that_is_not_kept(server):
    with start_server(server.sdk.name, environments=["Contract"], linger=0) as other:
        report = check_server(other.base_url, calls=CALLS[:1])
    assert report["resume"].status == "fail"
    assert report["call after the end"].status == "skipped"
    assert not report.ok
    assert "fail    resume" in str(report)


def test_a_call_that_takes_too_long_fails_and_ends_the_check(server):
    calls = [{"tool": "slow", "input": {"seconds": 3}}]
    report = check_server(server.base_url, "contract", calls=calls, call_timeout=0.2)
    assert report["event stream"].status == "fail"
    assert "slow" in report["event stream"].detail


def test_what_cannot_be_checked_is_refused(server):
    with pytest.raises(UnknownEnvironmentError):
        check_server(server.base_url, "nobody")
    with pytest.raises(InvalidRequestError, match="name one of"):
        check_server(server.base_url)
    with pytest.raises(InvalidRequestError, match="not a tool call"):
        check_server(server.base_url, "contract", calls=[{"tol": "echo"}])
    with pytest.raises(ORSError):
        check_server("http://127.0.0.1:1", "contract")


def _futures_refuse_stop_iteration() -> bool:
    future: asyncio.Future[None] = asyncio.Future(loop=asyncio.new_event_loop())
    future.get_loop().close()
    try:
        future.set_exception(StopIteration())
    except TypeError:
        return True
    future.exception()
    return False


@pytest.mark.slow
@pytest.mark.skipif(
    not _futures_refuse_stop_iteration(),
    reason="the server's Python makes an error of it, so its call has a result",
)
def test_a_tool_that_raises_stop_iteration_is_named_as_a_cause(shared_server):
    url = shared_server("openreward-0.1.167").base_url
    calls = [{"tool": "draw", "input": {}}]
    report = check_server(url, "exhausted", calls=calls, call_timeout=1.0)
    finding = report["results"]
    assert finding.status == "fail"
    assert "draw has no result after 1 s" in finding.detail
    assert "StopIteration" in finding.fix
