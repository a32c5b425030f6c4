"""Every row of the conformance table, over each kind of connection."""

from __future__ import annotations

import pytest

from tests.client.http.conformance import observe, verdict
from tests.client.http.conformance_rows import BOUNDED_BY_ANYBODY, ROWS, Row


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
@pytest.mark.parametrize("client", ["blocking", "async"])
def test_reply_has_its_right_outcome_and_leaves_no_poison(client: str, row: Row):
    observed = observe(client, row)
    assert verdict(row, observed) == "", observed


@pytest.mark.parametrize("row", BOUNDED_BY_ANYBODY, ids=lambda row: row.name)
@pytest.mark.parametrize("client", ["over httpx", "async over httpx"])
def test_httpx_never_takes_one_reply_for_another(client: str, row: Row):
    # h11 accepts more than we do, but nothing that the server did not send.
    observed = observe(client, row)
    assert observed.second == "200 second"
    assert not observed.reused
    if row.expected[0].isdigit():
        assert observed.first == row.expected
    elif row.expected == "PROTOCOL":
        assert observed.first == "200 hello" or not observed.first[0].isdigit()
    else:
        assert not observed.first[0].isdigit()
