"""The interrupts of `tests.system.interrupts`, at a sample of the places."""

import sys

import pytest

from tests.support.interrupts import choose_places
from tests.system.interrupts import MAKERS, describe, places_of


@pytest.mark.filterwarnings("ignore::ResourceWarning")
@pytest.mark.slow
@pytest.mark.parametrize("kind", MAKERS)
def test_an_interrupt_anywhere_leaves_nothing(one_server, kind, monkeypatch):
    # Interrupted in a finaliser, CPython says so and goes on. The hook of pytest would
    # keep the exception, and with it the env that is to be gone.
    monkeypatch.setattr(sys, "unraisablehook", lambda _: None)
    count = places_of(kind, one_server)
    assert count > 5000
    for place in choose_places(count, 25):
        assert not describe(kind, one_server, place)
