"""The soak of `benchmarks.soak`: for a minute, and a moment with many more faults."""

import pytest

from benchmarks.soak import soak
from tests.conftest import CURRENT


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", CURRENT)
def test_a_minute_of_everything_at_once(name: str) -> None:
    report = soak(seconds=60, sessions=32, broken=0.01, sdk=name)
    assert not report.wrong, report.as_markdown()
    assert report.broken > 0.005 * report.exchanges
    assert report.shown > 1000
    assert report.counts.keys() >= {"evaluations", "forks", "interrupts", "restarts"}


@pytest.mark.slow
def test_a_moment_of_many_broken_replies() -> None:
    report = soak(seconds=10, sessions=8, broken=0.1, sdk=CURRENT[0], restart_every=4.0)
    assert not report.wrong, report.as_markdown()
    assert report.broken > 0.05 * report.exchanges
