"""Keeps secrets out of every text that leaves the client (WIRE.md, point 18)."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable
from typing import Final
from urllib.parse import quote

__all__ = ["Redactor"]

_MASK: Final = "[redacted]"
_SHORTEST: Final = 4
"""Shorter values would blot out ordinary words, and are no secrets."""


class Redactor:
    """Replaces known secret values in a text.

    Args:
        secrets: The values to hide, also in the forms in which a server may echo
            them: JSON-escaped, percent-encoded and base64.

    Example:
        >>> Redactor(["hunter22"])("password hunter22 refused")
        'password [redacted] refused'
        >>> Redactor(["hunter22"])
        Redactor(1 secret)
    """

    __slots__ = ("_forms", "_secrets")

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        self._secrets = tuple({s for s in secrets if len(s) >= _SHORTEST})
        forms = {form for secret in self._secrets for form in _forms(secret)}
        self._forms = sorted(forms, key=len, reverse=True)

    def __call__(self, text: str) -> str:
        """Return the text with every known secret replaced.

        Args:
            text: Any text, such as a server's error message.

        Returns:
            The text without the secrets.
        """
        for form in self._forms:
            if form in text:
                text = text.replace(form, _MASK)
        return text

    def __repr__(self) -> str:
        count = len(self._secrets)
        return f"Redactor({count} secret{'' if count == 1 else 's'})"

    def adding(self, secrets: Iterable[str]) -> Redactor:
        """Return a redactor that hides further values too.

        Args:
            secrets: The further values.

        Returns:
            This redactor if there are none, else a new one.
        """
        added = tuple(secrets)
        return Redactor((*self._secrets, *added)) if added else self


def _forms(secret: str) -> Iterable[str]:
    raw = secret.encode("utf-8", "replace")
    yield secret
    yield json.dumps(secret)[1:-1]
    yield json.dumps(secret, ensure_ascii=False)[1:-1]
    yield repr(secret)[1:-1]
    yield quote(raw, safe="")
    yield base64.b64encode(raw).decode()
