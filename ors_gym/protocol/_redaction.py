"""Keeps secrets out of every text that leaves the client (docs/wire.md, point 18)."""

from __future__ import annotations

import base64
import html
import json
import re
from collections.abc import Iterable
from typing import Final
from urllib.parse import quote, quote_plus

_MASK: Final = "[redacted]"
_SHORTEST: Final = 4
"""Shorter values would blot out ordinary words, and are no secrets."""
_ESCAPE: Final = re.compile("%[0-9A-F]{2}")


class Redactor:
    """Replaces known secret values in a text.

    It also finds them in the forms in which a server may echo them: escaped for JSON or
    HTML, percent-encoded, and in base64, even as a part of something larger such as the
    ``X-Secrets`` header.
    """

    __slots__ = ("_forms", "_secrets")

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        self._secrets = tuple({s for s in secrets if len(s) >= _SHORTEST})
        forms = {form for secret in self._secrets for form in _forms(secret)}
        self._forms = sorted(forms, key=len, reverse=True)

    def __call__(self, text: str) -> str:
        for form in self._forms:
            if form in text:
                text = text.replace(form, _MASK)
        return text

    def __repr__(self) -> str:
        count = len(self._secrets)
        return f"Redactor({count} secret{'' if count == 1 else 's'})"

    def adding(self, secrets: Iterable[str]) -> Redactor:
        """Return a redactor that hides further values too."""
        added = tuple(secrets)
        return Redactor((*self._secrets, *added)) if added else self


def _forms(secret: str) -> Iterable[str]:
    raw = secret.encode("utf-8", "replace")
    yield secret
    yield json.dumps(secret)[1:-1]
    yield json.dumps(secret, ensure_ascii=False)[1:-1]
    yield repr(secret)[1:-1]
    yield html.escape(secret)
    for percent_encoded in (quote(raw, safe=""), quote(raw), quote_plus(raw)):
        yield percent_encoded
        yield _ESCAPE.sub(lambda match: match[0].lower(), percent_encoded)
    yield base64.b64encode(raw).decode()
    for written in {raw, json.dumps(secret)[1:-1].encode()}:
        yield from _base64_forms(written)


def _base64_forms(raw: bytes) -> Iterable[str]:
    """Yield what bytes look like inside a longer text in base64.

    Three bytes make four characters, so there are three ways to be aligned; the
    characters at both ends hold bits of the neighbours and are left out.
    """
    for before in range(3):
        encoded = base64.b64encode(bytes(before) + raw).decode()
        first, last = -(-8 * before // 6), 8 * (before + len(raw)) // 6
        # Four bytes leave at least four characters.
        form = encoded[first:last]
        yield form
        yield form.replace("+", "-").replace("/", "_")
