"""Where a server is: its base URL, taken apart once."""

from __future__ import annotations

import contextlib
import ipaddress
import re
import urllib.parse
from typing import Final

from ors_gym.errors import InvalidRequestError

__all__ = ["Origin"]

_PORTS: Final = {"http": 80, "https": 443}
_HOST: Final = re.compile(r"[A-Za-z0-9._-]+")
_PATH: Final = re.compile(r"(?:/[\x21-\x7e]*)?")
_UNPRINTABLE: Final = re.compile(r"[\x00-\x20\x7f]")


class Origin:
    """Scheme, host, port and path prefix of a base URL.

    Args:
        base_url: An ``http`` or ``https`` URL without user name, password, query
            or fragment.

    Raises:
        InvalidRequestError: If it is anything else. The message does not quote the
            URL, which may hold a password.

    Example:
        >>> origin = Origin("http://[::1]:8080/ors/")
        >>> origin.host, origin.port, origin.prefix, str(origin)
        ('::1', 8080, '/ors', '[::1]:8080')
        >>> Origin("https://example.org").authority
        'example.org'
    """

    __slots__ = ("authority", "host", "literal", "port", "prefix", "scheme")

    def __init__(self, base_url: str) -> None:
        if _UNPRINTABLE.search(base_url):
            raise InvalidRequestError(
                "the base URL holds a blank or a control character; leave it out"
            )
        try:
            parts = urllib.parse.urlsplit(base_url)
            port = parts.port
        except ValueError:
            raise InvalidRequestError(
                "the base URL cannot be read; write it as http://host:port"
            ) from None
        if "://" not in base_url:
            raise InvalidRequestError(
                "write the base URL with its scheme: http://host:port or https://host"
            )
        if parts.scheme not in _PORTS:
            raise InvalidRequestError(
                "the base URL must begin with http:// or https://, "
                f"not with {parts.scheme[:20] or 'something else'!r}"
            )
        if "@" in parts.netloc:
            raise InvalidRequestError(
                "the base URL holds a user name or a password; "
                "pass an API key or a header instead"
            )
        if "?" in base_url or "#" in base_url:
            raise InvalidRequestError(
                "the base URL holds a query or a fragment; it must end with its path"
            )
        if not _PATH.fullmatch(parts.path) or port == 0:
            raise InvalidRequestError(
                "the base URL's path must be percent-encoded and its port at least 1"
            )
        self.scheme = parts.scheme
        """``http`` or ``https``."""
        self.host, self.literal = _read_host(parts.hostname or "")
        """The host's name or address (IPv6 without brackets); and the address, parsed,
        if it is one, so that nobody has to look it up."""
        self.port = port or _PORTS[parts.scheme]
        """The port, the scheme's own if the URL names none."""
        self.prefix = parts.path.rstrip("/")
        """What comes before every target."""
        name = f"[{self.host}]" if ":" in self.host else self.host
        self.authority = name if self.port == _PORTS[self.scheme] else f"{self}"
        """What the Host header says (RFC 9110, section 7.2)."""

    def __str__(self) -> str:
        name = f"[{self.host}]" if ":" in self.host else self.host
        return f"{name}:{self.port}"

    def __repr__(self) -> str:
        return f"Origin('{self.scheme}://{self}{self.prefix}')"


def _read_host(
    host: str,
) -> tuple[str, ipaddress.IPv4Address | ipaddress.IPv6Address | None]:
    """Return a host as the resolver and TLS take it, and its address if it is one."""
    with contextlib.suppress(ValueError):
        if "%" not in host:
            return host, ipaddress.ip_address(host)
    try:
        name = host.encode("idna").decode("ascii")
    except UnicodeError:
        name = ""
    if not _HOST.fullmatch(name):
        raise InvalidRequestError(
            "the base URL has no host that can be looked up; "
            "write it as http://host:port"
        )
    return name, None
