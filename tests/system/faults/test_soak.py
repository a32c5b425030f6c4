"""The soak of `benchmarks.soak`, for a minute; and with many more faults."""

import pytest

from benchmarks.soak import soak
from tests.conftest import CURRENT


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", CURRENT)
def test_a_minute_of_broken_replies(name: str) -> None:
    report = soak(steps=12_000, sessions=64, broken=0.01, sdk=name)
    assert not report.wrong, report.as_markdown()
    assert report.steps == 12_000
    assert report.broken > 0.005 * report.exchanges
    assert report.ends["ambiguous_call"] > 0


@pytest.mark.slow
def test_a_moment_of_many_broken_replies() -> None:
    report = soak(steps=300, sessions=8, broken=0.1, sdk=CURRENT[0])
    assert not report.wrong, report.as_markdown()
    assert report.broken > 0.05 * report.exchanges
