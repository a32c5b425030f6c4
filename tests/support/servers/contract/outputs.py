"""What tools return: texts that are hard to transport, an image, odd rewards."""

import struct
import zlib
from typing import Any


def text_of(kind: str, size: int) -> str:
    """Text that readers of event streams get wrong, of about ``size`` characters."""
    if kind == "separators":
        pattern = "a\u2028b\u2029c\u0085d\u000be\u000cf\u001cg\u001dh\u001ei\u0000j"
    elif kind == "blanks":
        # The result's JSON is cut every 4096 characters. These are blanks wherever
        # that can fall, with tabs and no-break spaces between them.
        prefix = '{"ok":true,"output":{"blocks":[{"text":"'
        marks = {0: " ", 1: " ", 2: "\u00a0", 4093: " ", 4094: "\u3000", 4095: " "}
        places = range(len(prefix), len(prefix) + size)
        return "".join(marks.get(place % 4096, "x") for place in places)
    elif kind == "wide":
        pattern = "字😀é𝄞"
    elif kind == "lines":
        pattern = "one\ntwo\rthree\r\nfour\n\ndata: five\n: six\nevent: end\n"
    elif kind == "quotes":
        pattern = '\\"</script>\\u2028 {"a": [1]} '
    elif kind == "empty":
        return ""
    else:
        pattern = "The quick brown fox jumps over the lazy dog. "
    return (pattern * (size // len(pattern) + 1))[:size]


def png(width: int, height: int) -> bytes:
    """Return a PNG in which no two pixels of a row are alike."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        check = struct.pack(">I", zlib.crc32(kind + data))
        return struct.pack(">I", len(data)) + kind + data + check

    rows = b"".join(
        b"\0" + bytes(v for x in range(width) for v in (x % 256, y % 256, 7))
        for y in range(height)
    )
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows))
    return b"\x89PNG\r\n\x1a\n" + body + chunk(b"IEND", b"")


REWARDS: dict[str, Any] = {
    "nan": float("nan"),
    "inf": float("inf"),
    "-inf": float("-inf"),
    "null": None,
    "int": 3,
    "negative": -2.5,
    "huge": 1e308,
    "tiny": 5e-324,
    "zero": 0.0,
}

METADATA: dict[str, Any] = {
    "nested": {"list": [1, 2.5, None, True, "é"], "empty": {}},
    "big": 2**53 + 1,
}
