"""Strict JSON: `json` alone reads NaN and Infinity, which RFC 8259 does not have."""

from __future__ import annotations

import json
from typing import Final, NoReturn

__all__ = ["STRICT_DECODER", "NotANumberError"]


class NotANumberError(ValueError):
    """Raised for NaN and the infinities."""


def _refuse_constant(name: str) -> NoReturn:
    raise NotANumberError(f"{name} is not a JSON number")


STRICT_DECODER: Final = json.JSONDecoder(parse_constant=_refuse_constant)
