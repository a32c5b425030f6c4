"""Strings: lengths, formats, patterns."""

from __future__ import annotations

import base64
import json
import string
from collections.abc import Callable, Iterator, Sequence
from random import Random
from typing import Any

from ors_gym.spaces._sampler.conjunction import NodeMaker, Part, largest, smallest
from ors_gym.spaces._sampler.nodes import (
    SIZED_LENGTH,
    Body,
    CheckedBody,
    Draw,
    Node,
    Unusable,
)
from ors_gym.spaces._sampler.patterns import Pattern, word

_MAX_LENGTH = 100_000
_EXTRA_LENGTH = 12
_ATTEMPTS = 20
_HEX = "0123456789abcdef"
_LIMITS = frozenset({"maxLength", "minLength", "pattern"})
# Pydantic's ByteSize: its pattern allows any word as a unit, which it then refuses.
_BYTE_SIZE = r"^\s*(\d*\.?\d+)\s*(\w+)?"
_PLAIN_BYTE_SIZE = r"^\d{1,6}$"


def string_body(maker: NodeMaker, parts: Sequence[Part]) -> Body:
    """Return the body of the strings that satisfy all of some schemas."""
    patterns = {}
    formats = []
    for part in parts:
        pattern = part.text("pattern")
        if pattern == _BYTE_SIZE:
            pattern = _PLAIN_BYTE_SIZE
        if pattern is not None and pattern not in patterns:
            patterns[pattern] = Pattern(pattern, f"{part.path}/pattern")
        if isinstance(part.schema.get("format"), str):
            formats.append(part.schema["format"])
    texts = _StringBody(
        largest(part.size("minLength") for part in parts) or 0,
        smallest(part.size("maxLength") for part in parts),
        list(patterns.values()),
        formats[0] if formats else None,
        parts[0].path,
    )
    for part in parts:
        if (
            part.text("contentMediaType") == "application/json"
            and "contentSchema" in part.schema
        ):
            content = part.child(part.schema["contentSchema"], "contentSchema")
            return _limited(_JSONTextBody(maker.node([content])), texts, parts)
    return texts


def _limited(body: Body, texts: _StringBody, parts: Sequence[Part]) -> Body:
    """Return a body of those texts that have the right length and pattern too."""
    for part in parts:
        for keyword in sorted(_LIMITS & part.schema.keys()):
            return CheckedBody(body, texts.accepts, f"{part.path}/{keyword}")
    return body


class _StringBody(Body):
    """Strings with lengths, patterns and a format.

    jsonschema does not assert a format, pydantic does. A format is ignored if no text
    of it has the length or matches the pattern.
    """

    def __init__(
        self,
        shortest: int,
        longest: int | None,
        patterns: list[Pattern],
        wanted_format: str | None,
        path: str,
    ) -> None:
        limit = _MAX_LENGTH if longest is None else min(longest, _MAX_LENGTH)
        if shortest > limit:
            raise Unusable(
                path,
                f"it needs at least {shortest} characters, but {limit} are the most",
            )
        needed = max([shortest, *(pattern.minimum for pattern in patterns)])
        self.size = 1 + needed // SIZED_LENGTH
        self._shortest = shortest
        self._longest = longest
        self._patterns = patterns
        self._format = _FORMATS.get(wanted_format or "")
        self._path = path

    def accepts(self, text: str) -> bool:
        """Return whether a text has the right length and matches the patterns."""
        return (
            len(text) >= self._shortest
            and (self._longest is None or len(text) <= self._longest)
            and (not self._patterns or all(p.matches(text) for p in self._patterns))
        )

    def draw(self, draw: Draw, depth: int) -> str:  # noqa: ARG002
        random = draw.random
        if self._format is not None:
            for _ in range(_ATTEMPTS):
                text = self._format(random)
                if self.accepts(text):
                    return text
        if self._patterns:
            first = self._patterns[0]
            others = self.accepts if len(self._patterns) > 1 else bool
            return first.draw(random, self._shortest, self._longest, others)
        longest = self._shortest + _EXTRA_LENGTH
        if self._longest is not None:
            longest = min(longest, self._longest)
        length = self._shortest + int(random.random() * (longest - self._shortest + 1))
        text = word(random, length)
        # A blank, but never at an end, where a server may strip it.
        if length > 6 and text[0] < "a":
            return f"{text[:3]} {text[4:]}"
        return text

    def count(self, count: Callable[[Node], int]) -> int:  # noqa: ARG002
        if self._longest == 0:
            return 1
        counts = [n for n in (p.count() for p in self._patterns) if n is not None]
        if not counts:
            raise Unusable(self._path, "there are infinitely many strings")
        return min(counts)

    def values(self) -> Iterator[Any]:
        if self._longest == 0:
            yield from filter(self.accepts, [""])
            return
        counts = {p: p.count() for p in self._patterns}
        known = [p for p, n in counts.items() if n is not None]
        strictest = min(known, key=lambda p: counts[p] or 0)
        yield from filter(self.accepts, strictest.texts())


class _JSONTextBody(Body):
    """JSON documents in strings (``contentMediaType``), as pydantic's ``Json`` has."""

    def __init__(self, content: Node) -> None:
        self._content = content

    def needs(self) -> list[tuple[int, Node]]:
        return [(1, self._content)]

    def draw(self, draw: Draw, depth: int) -> str:
        return json.dumps(self._content.draw(draw, depth + 1))

    def count(self, count: Callable[[Node], int]) -> int:
        return count(self._content)

    def values(self) -> Iterator[Any]:
        return map(json.dumps, self._content.body.values())


def _name(random: Random) -> str:
    return "".join(random.choices(string.ascii_lowercase, k=random.randint(3, 8)))


def _date(random: Random) -> str:
    return (
        f"{random.randint(1970, 2099)}-{random.randint(1, 12):02}-"
        f"{random.randint(1, 28):02}"
    )


def _clock(random: Random) -> str:
    return ":".join(f"{random.randrange(top):02}" for top in (24, 60, 60))


def _duration(random: Random) -> str:
    return f"P{random.randrange(30)}DT{random.randrange(24)}H{random.randrange(60)}M"


def _uuid(version: int) -> Callable[[Random], str]:
    def draw(random: Random) -> str:
        digits = "".join(random.choices(_HEX, k=30))
        # RFC 9562: the version, and the variant 10 in binary.
        return (
            f"{digits[:8]}-{digits[8:12]}-{version}{digits[12:15]}-"
            f"{random.choice('89ab')}{digits[15:18]}-{digits[18:30]}"
        )

    return draw


def _email(random: Random) -> str:
    # RFC 2606 reserves example.com; validators of addresses take it, unlike .test.
    return f"{_name(random)}@example.com"


def _url(random: Random) -> str:
    return f"https://{_name(random)}.example.com/{_name(random)}"


def _ipv4(random: Random) -> str:
    return ".".join(str(random.randrange(256)) for _ in range(4))


def _ipv6(random: Random) -> str:
    return ":".join(f"{random.randrange(1, 65536):x}" for _ in range(8))


def _base64(random: Random) -> str:
    # Of text, since a server may want to decode that too; of letters, so that the
    # ordinary alphabet and that of URLs (RFC 4648, section 5) agree.
    return base64.urlsafe_b64encode(
        word(random, random.randint(0, 8)).encode()
    ).decode()


_FORMATS: dict[str, Callable[[Random], str]] = {
    "base64": _base64,
    "base64url": _base64,
    "color": lambda random: "#" + "".join(random.choices(_HEX, k=6)),
    "date": _date,
    "date-time": lambda random: f"{_date(random)}T{_clock(random)}Z",
    "directory-path": lambda _: ".",
    "duration": _duration,
    "email": _email,
    "fraction": lambda random: f"{random.randint(-9, 9)}/{random.randint(1, 9)}",
    "hostname": lambda random: f"{_name(random)}.example.com",
    "idn-email": _email,
    "idn-hostname": lambda random: f"{_name(random)}.example.com",
    "ipv4": _ipv4,
    "ipv4interface": lambda random: f"{_ipv4(random)}/{random.randrange(33)}",
    "ipv4network": lambda random: f"{_ipv4(random)}/32",
    "ipv6": _ipv6,
    "ipv6interface": lambda random: f"{_ipv6(random)}/{random.randrange(129)}",
    "ipv6network": lambda random: f"{_ipv6(random)}/128",
    "ipvanyaddress": _ipv4,
    "ipvanyinterface": lambda random: f"{_ipv4(random)}/{random.randrange(33)}",
    "ipvanynetwork": lambda random: f"{_ipv4(random)}/32",
    "iri": _url,
    "iri-reference": _url,
    "json-pointer": lambda random: f"/{_name(random)}",
    "json-string": lambda random: str(random.randrange(100)),
    "multi-host-uri": lambda random: (
        f"postgresql://{_name(random)}:5432/{_name(random)}"
    ),
    "name-email": lambda random: f"{_name(random)} <{_email(random)}>",
    "path": lambda random: f"{_name(random)}/{_name(random)}.txt",
    "regex": lambda random: f"^{_name(random)}$",
    "relative-json-pointer": lambda random: f"0/{_name(random)}",
    "time": lambda random: f"{_clock(random)}Z",
    "uri": _url,
    "uri-reference": _url,
    "url": _url,
    "uuid": _uuid(4),
    "uuid1": _uuid(1),
    "uuid3": _uuid(3),
    "uuid4": _uuid(4),
    "uuid5": _uuid(5),
    "uuid6": _uuid(6),
    "uuid7": _uuid(7),
    "uuid8": _uuid(8),
    "zoneinfo": lambda _: "UTC",
}
"""How a text of each format of JSON Schema and of pydantic is drawn."""
