"""The interrupts of `tests.system.interrupts`, at a sample of the places."""

import pytest

from tests.support.interrupts import choose_places
from tests.system.interrupts import MAKERS, describe, places_of


@pytest.mark.filterwarnings("ignore::ResourceWarning")
# Interrupted in a finaliser, CPython says so and goes on.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.slow
@pytest.mark.parametrize("kind", MAKERS)
def test_an_interrupt_anywhere_leaves_nothing(one_server, kind):
    count = places_of(kind, one_server)
    assert count > 5000
    for place in choose_places(count, 25):
        assert not describe(kind, one_server, place)
