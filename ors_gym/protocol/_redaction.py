"""Keeps secrets out of every text that leaves the client (docs/wire.md, point 18)."""

from __future__ import annotations

import base64
import binascii
import bisect
import collections
import functools
import html
import json
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Final, ParamSpec, SupportsIndex, TypeVar
from urllib.parse import unquote

from ors_gym.errors import ORSError

SECRET_ARGUMENTS: Final = frozenset({"api_key", "secrets", "env_overrides", "headers"})
"""The arguments of envs and clients that hold secrets."""
_SECRET_NAME: Final = re.compile(
    "authorization|cookie|credential|key|passw|secret|token", re.IGNORECASE
)
P = ParamSpec("P")
R = TypeVar("R")

_MASK: Final = "[redacted]"
_SHORTEST: Final = 4
"""Shorter values would blot out ordinary words, and are no secrets."""
_LONGEST_ESCAPE: Final = 16
"""More bytes than stand for one in ``&amp;amp;#x61;``, escaped for HTML thrice."""


class Redactor:
    """Replaces known secret values in a text.

    It also finds them in the forms in which a server may echo them: escaped for JSON,
    Python, HTML or a URL, several times over as well, and in base64, even as a part of
    something larger such as the ``X-Secrets`` header.
    """

    __slots__ = ("_forms", "_secrets")

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        self._secrets = tuple({s for s in secrets if len(s) >= _SHORTEST})
        self._forms = {form for secret in self._secrets for form in _forms(secret)}

    def __call__(self, text: str) -> str:
        return self.redact_part(text, 0, len(text))

    def redact_part(self, text: str, first: int, stop: int) -> str:
        """Return ``text[first:stop]`` without secrets and without parts of them.

        A secret that stands across an end is known by the text beyond it.
        """
        if not self._forms:
            return text[first:stop]
        # They are all found before any is replaced, as one may be a part of another.
        places = sorted(
            view.locate(*match.span())
            for view in _views(text)
            for form in self._forms
            if form in view.text
            for match in re.finditer(re.escape(form), view.text)
        )
        parts: list[str] = []
        last = first
        for place in places:
            start, end = max(place[0], first), min(place[1], stop)
            if start < end:
                if start >= last:
                    parts += [text[last:start], _MASK]
                last = max(last, end)
        return "".join([*parts, text[last:stop]])

    @property
    def longest(self) -> int:
        """How many bytes a secret may take in a text, however it is escaped."""
        sizes = (len(form.encode("utf-8", "replace")) for form in self._forms)
        return _LONGEST_ESCAPE * max(sizes, default=0)

    def __repr__(self) -> str:
        count = len(self._secrets)
        return f"Redactor({count} secret{'' if count == 1 else 's'})"

    def adding(self, secrets: Iterable[str]) -> Redactor:
        """Return a redactor that hides further values too."""
        added = tuple(secrets)
        return Redactor((*self._secrets, *added)) if added else self

    def clear(self, error: BaseException) -> None:
        """Hide the secrets in an error of ours and in those that led to it.

        A server may have given them as the name of a session, a call or an environment.
        """
        link: BaseException | None = error
        while link is not None and self._secrets:
            if isinstance(link, ORSError):
                link.args = (self(link.message),)
                for name, value in vars(link).items():
                    if isinstance(value, str):
                        setattr(link, name, self(value))
            link = link.__cause__ or link.__context__


def secrets_of_header(value: str) -> Iterator[str]:
    """Yield what is secret in the value of a header: the whole, and each part of it.

    A server may repeat a cookie without its name, credentials without their scheme
    (``Bearer``), or the password that Basic authentication encodes.
    """
    yield value
    scheme, _, credentials = value.partition(" ")
    yield credentials
    for part in re.split(r"[;,\s]+", value):
        _, _, assigned = part.partition("=")
        if assigned.strip("="):
            yield assigned.strip('"')
            yield unquote(assigned.strip('"'))
    if scheme.lower() == "basic":
        try:
            pair = base64.b64decode(credentials, validate=True).decode()
        except (binascii.Error, UnicodeDecodeError):
            return
        yield pair
        yield pair.partition(":")[2]


class _View:
    """A text, unescaped some times over; it knows where its characters came from."""

    def __init__(self, text: str, seen_in: _View | None = None, depth: int = 0) -> None:
        self.text = text
        self.depth = depth
        self._seen_in = seen_in
        self._starts: list[int] = []
        self._tokens: list[tuple[int, int, int]] = []
        """For each unescaped character: the end of it in `text`, and the start and the
        end of its escape in the text that it came from."""

    def unescape(
        self, escape: re.Pattern[str], decode: Callable[[str], str]
    ) -> _View | None:
        """Return what one way of unescaping makes of it, or None if nothing."""
        found = _View("", self, self.depth + 1)
        parts: list[str] = []
        size = last = 0
        for match in escape.finditer(self.text):
            start, end = match.span()
            character = decode(match[0])
            parts += [self.text[last:start], character]
            size += start - last
            found._starts.append(size)
            size += len(character)
            found._tokens.append((size, start, end))
            last = end
        found.text = "".join([*parts, self.text[last:]])
        return found if parts else None

    def locate(self, start: int, end: int) -> tuple[int, int]:
        """Return the corresponding place in the original text."""
        if self._seen_in is None:
            return start, end
        begin, _ = self._place(start)
        _, finish = self._place(end - 1)
        return self._seen_in.locate(begin, finish)

    def _place(self, index: int) -> tuple[int, int]:
        number = bisect.bisect_right(self._starts, index) - 1
        if number < 0:
            return index, index + 1
        size, start, end = self._tokens[number]
        if index < size:
            return start, end
        return end + index - size, end + index - size + 1


def _views(text: str) -> Iterator[_View]:
    """Yield a text as it is, and unescaped in each order of the ways, to some depth."""
    # A server writes the text, so the work is bounded. The ways often lead to the same.
    seen = {text}
    views = collections.deque([_View(text)])
    work = 0
    while views:
        view = views.popleft()
        yield view
        if view.depth == _DEEPEST or (view.depth and work > _MOST_WORK):
            continue
        for sign, escape, decode in _ESCAPES:
            if sign in view.text:
                work += len(view.text)
                found = view.unescape(escape, decode)
                if found is not None and found.text not in seen:
                    seen.add(found.text)
                    views.append(found)


_DEEPEST: Final = 3
_MOST_WORK: Final = 2**22
"""Characters that are unescaped for one text, beyond the first time."""
_HEX: Final = "[0-9A-Fa-f]"
_LETTERS: Final = {"n": "\n", "r": "\r", "t": "\t", "b": "\b", "f": "\f"}
_BACKSLASH: Final = (
    rf"\\u[Dd][89ABab]{_HEX}{{2}}\\u[Dd][C-Fc-f]{_HEX}{{2}}"
    rf"|\\u{_HEX}{{4}}|\\U00(?:0{_HEX}|10){_HEX}{{4}}|\\[\"'\\/nrtbf]|"
)


def _in_utf8(mark: str) -> str:
    """Match the bytes of one character, each written as a mark and two digits."""
    more = f"(?:{mark}[89ABab]{_HEX})"
    return (
        f"{mark}[CDcd]{_HEX}{more}|{mark}[Ee]{_HEX}{more}{{2}}"
        f"|{mark}[Ff]{_HEX}{more}{{3}}|{mark}{_HEX}{{2}}"
    )


def _decode_percent(escape: str) -> str:
    return bytes.fromhex(escape.replace("%", "")).decode("utf-8", "replace")


def _decode_reference(escape: str) -> str:
    """Decode a reference of HTML; by number, also to what HTML does not allow."""
    if escape[1] != "#":
        return html.unescape(escape)
    digits = escape[2:-1]
    code = int(digits[1:], 16) if digits[0] in "xX" else int(digits)
    return chr(min(code, sys.maxunicode))


def _decode_backslash(escape: str) -> str:
    kind, digits = escape[1], escape[2:]
    if not digits:
        return _LETTERS.get(kind, kind)
    if kind == "u":
        units = bytes.fromhex(escape.replace("\\u", ""))
        return units.decode("utf-16-be", "surrogatepass")
    if kind == "x" and len(digits) > 2:
        return bytes.fromhex(escape.replace("\\x", "")).decode("utf-8", "replace")
    return chr(min(int(digits, 16), sys.maxunicode))


_ESCAPES: Final[tuple[tuple[str, re.Pattern[str], Callable[[str], str]], ...]] = (
    ("%", re.compile(_in_utf8("%")), _decode_percent),
    (
        "&",
        re.compile(r"&(?:#\d{1,9}|#[xX][0-9A-Fa-f]{1,8}|\w{2,31});"),
        _decode_reference,
    ),
    # Of a text, and of bytes.
    ("\\", re.compile(rf"{_BACKSLASH}\\x{_HEX}{{2}}"), _decode_backslash),
    ("\\x", re.compile(_BACKSLASH + _in_utf8(r"\\x")), _decode_backslash),
)
"""The ways of unescaping: the sign that each has, its escapes, what these stand for."""


def _forms(secret: str) -> Iterator[str]:
    """Yield a secret, and what it looks like in a form's encoding and in base64."""
    yield secret
    yield secret.replace(" ", "+")
    raw = secret.encode("utf-8", "replace")
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


# What holds a secret is often a local variable of ours, and some tracebacks show these
# (IPython, rich, pytest). So the values themselves do not show what they are. rich
# shows the first characters of a long one: a part is hidden as well.


def is_secret_name(name: str) -> bool:
    """Return whether a header, a variable or a field of that name may hold a secret.

    Its value is kept out of messages and records, and a header off plain http.

    Example:
        >>> is_secret_name("X-API-Key"), is_secret_name("X-Deployment")
        (True, False)
    """
    return _SECRET_NAME.search(name) is not None


class HiddenText(str):
    """A text that `repr` does not show.

    Example:
        >>> {"TOKEN": HiddenText("hunter22")}
        {'TOKEN': [redacted]}
    """

    __slots__ = ()

    def __repr__(self) -> str:
        return _MASK

    def __getitem__(self, key: SupportsIndex | slice) -> HiddenText:
        return HiddenText(super().__getitem__(key))


class HiddenBytes(bytes):
    """Bytes that `repr` does not show."""

    __slots__ = ()

    def __repr__(self) -> str:
        return _MASK

    def __getitem__(self, key: Any) -> Any:
        found = super().__getitem__(key)
        return found if isinstance(found, int) else HiddenBytes(found)


def hide(value: Any) -> Any:
    """Return a value with hidden texts in place of its texts, to any depth.

    The names in a mapping stay as they are. What holds no text is left alone.

    Example:
        >>> hide({"MINE": ("hunter22", ["mine.org"]), "NUMBER": 3})
        {'MINE': ([redacted], [[redacted]]), 'NUMBER': 3}
    """
    match value:
        case str():
            return HiddenText(value)
        case Mapping():
            return {name: hide(item) for name, item in value.items()}
        case list():
            return [hide(item) for item in value]
        case tuple():
            return tuple(hide(item) for item in value)
    return value


def takes_secrets(function: Callable[P, R]) -> Callable[P, R]:
    """Hide the named arguments of a function or a constructor that are secret.

    Example:
        >>> @takes_secrets
        ... def show(**arguments):
        ...     return arguments
        >>> show(env_name="math", client_options={"api_key": "hunter22"})
        {'env_name': 'math', 'client_options': {'api_key': [redacted]}}
    """

    @functools.wraps(function)
    def call(*arguments: P.args, **named: P.kwargs) -> R:
        # In the place of what was given, which a traceback would show here.
        named = hide_arguments(named)  # type: ignore[assignment]
        return function(*arguments, **named)

    return call


def hide_arguments(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Return arguments by name, with those hidden that are secret."""
    hidden = {
        name: hide(value) if name in SECRET_ARGUMENTS else value
        for name, value in arguments.items()
    }
    if isinstance(hidden.get("client_options"), Mapping):
        hidden["client_options"] = hide_arguments(hidden["client_options"])
    return hidden
