"""Undo a reply's content encoding, with a bound on what comes out."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from typing import Final

__all__ = ["Inflater"]

_PIECE: Final = 2**18
_GZIP_OR_ZLIB: Final = zlib.MAX_WBITS | 32
_RAW: Final = -zlib.MAX_WBITS


class Inflater:
    """Inflates ``gzip`` and ``deflate``, in pieces (RFC 9110, section 8.4.1).

    A compressed body can be a thousand times smaller than what it holds, so nothing
    is inflated before the piece in front of it was taken.

    Example:
        >>> import gzip
        >>> inflater = Inflater()
        >>> b"".join(inflater.inflate(gzip.compress(b"hello")))
        b'hello'
        >>> inflater.finished
        True
    """

    __slots__ = ("_inflate", "_untouched")

    def __init__(self) -> None:
        self._inflate = zlib.decompressobj(_GZIP_OR_ZLIB)
        self._untouched = True

    @property
    def finished(self) -> bool:
        """Whether the compressed data came to its own end."""
        return self._inflate.eof or self._untouched

    def inflate(self, data: bytes) -> Iterator[bytes]:
        """Yield what compressed bytes hold.

        Args:
            data: The next bytes of the body.

        Yields:
            Pieces of at most 256 KiB.

        Raises:
            zlib.error: If the bytes are not compressed data.
        """
        while data:
            if self._inflate.eof:
                # RFC 1952, section 2.2: a gzip file is one member or several.
                self._inflate = zlib.decompressobj(_GZIP_OR_ZLIB)
            piece = self._first(data) if self._untouched else self._next(data)
            self._untouched = False
            if piece:
                yield piece
            data = self._inflate.unconsumed_tail or self._inflate.unused_data

    def _next(self, data: bytes) -> bytes:
        return self._inflate.decompress(data, _PIECE)

    def _first(self, data: bytes) -> bytes:
        try:
            return self._next(data)
        except zlib.error:
            # "deflate" means zlib, but some servers send it without its wrapping.
            self._inflate = zlib.decompressobj(_RAW)
            return self._next(data)
