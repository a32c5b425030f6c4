"""Undo a reply's content encoding, with a bound on what comes out."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from typing import Final

__all__ = ["Inflater"]

_PIECE: Final = 2**18
_GZIP: Final = zlib.MAX_WBITS | 16
_ZLIB: Final = zlib.MAX_WBITS
_RAW: Final = -zlib.MAX_WBITS


class Inflater:
    """Inflates ``gzip`` and ``deflate``, in pieces (RFC 9110, section 8.4.1).

    A compressed body can be a thousand times smaller than what it holds, so nothing
    is inflated before the piece in front of it was taken.

    Args:
        coding: ``gzip``, ``x-gzip`` or ``deflate``.

    Example:
        >>> import gzip
        >>> inflater = Inflater(b"gzip")
        >>> b"".join(inflater.inflate(gzip.compress(b"hello")))
        b'hello'
        >>> inflater.finished
        True
    """

    __slots__ = ("_beginning", "_gzip", "_inflate")

    def __init__(self, coding: bytes) -> None:
        self._gzip = coding != b"deflate"
        self._inflate = zlib.decompressobj(_GZIP if self._gzip else _ZLIB)
        # What has come before it is known how to read it.
        self._beginning: bytes | None = b""

    @property
    def finished(self) -> bool:
        """Whether the compressed data came to its own end."""
        return self._inflate.eof or self._beginning == b""

    def inflate(self, data: bytes) -> Iterator[bytes]:
        """Yield what compressed bytes hold.

        Args:
            data: The next bytes of the body.

        Yields:
            Pieces of at most 256 KiB.

        Raises:
            zlib.error: If the bytes are not compressed data.
        """
        if self._beginning is not None:
            data = self._beginning + data
            self._beginning = data
            if len(data) < 2:
                return
            self._begin(data)
        while data:
            if self._inflate.eof:
                if not self._gzip:
                    raise zlib.error("data behind the end")
                # RFC 1952, section 2.2: a gzip file is one member or several.
                self._inflate = zlib.decompressobj(_GZIP)
            piece = self._inflate.decompress(data, _PIECE)
            while len(piece) == _PIECE and not self._inflate.unconsumed_tail:
                # All bytes are in, but not all that they hold is out.
                yield piece
                piece = self._inflate.decompress(b"", _PIECE)
            if piece:
                yield piece
            data = self._inflate.unconsumed_tail or self._inflate.unused_data

    def _begin(self, data: bytes) -> None:
        """Choose how to read, by the first two bytes."""
        self._beginning = None
        has_header = (
            data[0] & 15 == zlib.DEFLATED and (data[0] << 8 | data[1]) % 31 == 0
        )
        if not self._gzip and not has_header:
            # "deflate" means zlib, but some servers send it without its wrapping.
            self._inflate = zlib.decompressobj(_RAW)
