"""A contract check for anybody's ORS server, schemas that its tools lack, cassettes."""

from __future__ import annotations

from ors_gym.testing._cassettes.control import record
from ors_gym.testing._check_server import check_server
from ors_gym.testing._report import Finding, Report, Status
from ors_gym.testing._suggest_schemas import (
    SchemaEvidence,
    SuggestedSchemas,
    suggest_schemas,
)

__all__ = [
    "Finding",
    "Report",
    "SchemaEvidence",
    "Status",
    "SuggestedSchemas",
    "check_server",
    "record",
    "suggest_schemas",
]
