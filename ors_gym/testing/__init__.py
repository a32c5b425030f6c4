"""A contract check for anybody's ORS server."""

from __future__ import annotations

from ors_gym.testing._check_server import check_server
from ors_gym.testing._report import Finding, Report, Status

__all__ = ["Finding", "Report", "Status", "check_server"]
