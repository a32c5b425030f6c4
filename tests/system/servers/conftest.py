"""Which servers the tests of the wire itself run on."""

from collections.abc import Callable
from typing import Final

import pytest

from tests.conftest import EVERY
from tests.support.servers.process import RunningServer
from tests.support.servers.venvs import SDKS

_USUAL: Final = {"ors-sdk-0.1.0", "openreward-0.1.167", "openreward-0.1.0"}
"""The current ones and the oldest. These tests are about the servers, not about us, and
what every version means for an episode is in the usual run anyway."""


@pytest.fixture(
    params=[
        param
        if name in _USUAL
        else pytest.param(name, marks=[pytest.mark.slow, pytest.mark.old_sdks])
        for name, param in zip(SDKS, EVERY, strict=True)
    ]
)
def any_server(
    request: pytest.FixtureRequest, shared_server: Callable[[str], RunningServer]
) -> RunningServer:
    """A server of each SDK version; of the old ones, the oldest in the usual run."""
    return shared_server(request.param)
