"""The embedded server and an episode inside a notebook kernel, whose loop runs."""

from __future__ import annotations

import pytest

from benchmarks.first_episode import in_a_kernel


@pytest.mark.filterwarnings("ignore::DeprecationWarning:jupyter_client")
def test_an_episode_in_a_notebook_cell() -> None:
    assert in_a_kernel() > 0
