"""What the user of a client chose."""

from __future__ import annotations

import dataclasses
from typing import Any

from ors_gym.protocol._exchange import Limits

__all__ = ["ClientSettings"]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ClientSettings:
    """The arguments of a client, for another client of the same server.

    They can be pickled, and hold the client's key, which `repr` leaves out.
    """

    base_url: str
    headers: tuple[tuple[str, str], ...] = dataclasses.field(repr=False)
    """Sent with every request; the API key is among them."""
    timeout: float
    trust_env: bool
    allow_insecure: bool
    limits: Limits
    repeat_calls_after_429: bool

    def arguments(self) -> dict[str, Any]:
        """Return the keyword arguments of a client with these settings."""
        arguments = {
            field.name: getattr(self, field.name) for field in dataclasses.fields(self)
        }
        # The key is among the headers already; ORS_API_KEY must not replace it.
        return arguments | {"api_key": "", "headers": dict(self.headers)}
