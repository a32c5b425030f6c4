"""Every row of the conformance table, over each kind of connection."""

from __future__ import annotations

import pytest

from tests.client.conformance import observe, verdict
from tests.client.conformance_rows import BOUNDED_BY_ANYBODY, ROWS, Row


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
@pytest.mark.parametrize("client", ["blocking", "async"])
def test_reply_has_its_right_outcome_and_leaves_no_poison(client: str, row: Row):
    observed = observe(client, row)
    assert verdict(row, observed) == "", observed


@pytest.mark.parametrize("row", BOUNDED_BY_ANYBODY, ids=lambda row: row.name)
def test_stock_httpx_never_takes_one_reply_for_another(row: Row):
    # h11 accepts more than we do; what counts is the reply that follows.
    observed = observe("stock", row)
    assert observed.second == "200 second"
    assert not observed.reused
    if row.expected[0].isdigit():
        assert observed.first == row.expected
    elif row.expected != "PROTOCOL":
        assert not observed.first[0].isdigit()
