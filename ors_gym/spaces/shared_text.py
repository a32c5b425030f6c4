"""Text between the processes of an ``AsyncVectorEnv``, byte for byte.

Gymnasium shares observations through arrays of a fixed size, which cannot hold
text of any length: its own ``Text`` needs an index per character, and returns
garbage for characters outside of its charset. Here every env owns a region of one
sparse, anonymous file, large enough for the longest text that the space allows.
Memory is used only for what was written, and nothing is left behind when the
processes end, however they end.
"""

from __future__ import annotations

import os
import struct
import tempfile
import weakref
from collections.abc import Sequence
from multiprocessing.context import assert_spawning
from typing import Any, overload

__all__ = ["SharedText", "SharedTextView"]

_HEADER = struct.Struct("<Q")
_UTF8_BYTES_PER_CHARACTER = 4
# Text up to this size arrives in one system call.
_FIRST_READ = 64 * 1024


def _anonymous_file() -> int:
    # A file in memory where there are such: /dev/shm is 64 MB in many containers.
    if hasattr(os, "memfd_create"):
        return os.memfd_create("ors_gym_text")
    with tempfile.TemporaryFile(prefix="ors_gym_text") as file:
        return os.dup(file.fileno())


class SharedText:
    """One region per env for the text that the env saw last.

    Args:
        regions: Number of envs.
        max_length: Longest text, in characters.
        descriptor: An open file of this kind, when the regions are rebuilt in
            another process; by default a new one.

    Example:
        >>> texts = SharedText(regions=2, max_length=10)
        >>> texts.write(1, "שלום")
        >>> texts.read(0), texts.read(1)
        ('', 'שלום')
    """

    def __init__(
        self, regions: int, max_length: int, descriptor: int | None = None
    ) -> None:
        self.regions = regions
        self.max_length = max_length
        self._descriptor = _anonymous_file() if descriptor is None else descriptor
        self._stride = _HEADER.size + max_length * _UTF8_BYTES_PER_CHARACTER
        weakref.finalize(self, os.close, self._descriptor)

    def __reduce__(self) -> tuple[Any, ...]:
        # The descriptor can only travel to a child process that is being started.
        assert_spawning(self)
        # Imported here: not every system has it.
        from multiprocessing.reduction import DupFd  # noqa: PLC0415

        return _rebuild, (self.regions, self.max_length, DupFd(self._descriptor))

    def write(self, region: int, text: str) -> None:
        """Replace the text of one env.

        Args:
            region: The env's index.
            text: At most ``max_length`` characters; lone surrogates survive too.

        Raises:
            ValueError: If the text is longer, since it would run into the next
                env's region.
            OSError: If the machine has no room left for the text.
        """
        if len(text) > self.max_length:
            raise ValueError(
                f"the text has {len(text)} characters, but the space allows "
                f"{self.max_length}: cut it, or use FreeText(max_length=...)"
            )
        encoded = text.encode("utf-8", "surrogatepass")
        view = memoryview(_HEADER.pack(len(encoded)) + encoded)
        offset = region * self._stride
        while view:
            written = os.pwrite(self._descriptor, view, offset)
            view = view[written:]
            offset += written

    def read(self, region: int) -> str:
        """Return the text of one env, ``""`` before it wrote any.

        Args:
            region: The env's index.
        """
        offset = region * self._stride
        head = os.pread(self._descriptor, _FIRST_READ, offset)
        if len(head) < _HEADER.size:
            return ""
        (size,) = _HEADER.unpack_from(head)
        end = _HEADER.size + size
        parts = [head[_HEADER.size : end]]
        position = len(head)
        # One read returns at most 2 GB.
        while position < end:
            part = os.pread(self._descriptor, end - position, offset + position)
            parts.append(part)
            position += len(part)
        return b"".join(parts).decode("utf-8", "surrogatepass")


def _rebuild(regions: int, max_length: int, descriptor: Any) -> SharedText:
    return SharedText(regions, max_length, descriptor.detach())


class SharedTextView(Sequence[str]):
    """The envs' current texts, read when looked at; a copy of it is a plain tuple.

    ``AsyncVectorEnv`` makes this view once and copies it after every step
    (``copy=True``, its default), so the copy is where the texts are decoded.

    Args:
        texts: The regions to read from.

    Example:
        >>> import copy
        >>> texts = SharedText(regions=2, max_length=10)
        >>> view = SharedTextView(texts)
        >>> texts.write(0, "new")
        >>> copy.deepcopy(view)
        ('new', '')
    """

    def __init__(self, texts: SharedText) -> None:
        self._texts = texts

    def __len__(self) -> int:
        return self._texts.regions

    @overload
    def __getitem__(self, index: int) -> str: ...

    @overload
    def __getitem__(self, index: slice) -> tuple[str, ...]: ...

    def __getitem__(self, index: int | slice) -> str | tuple[str, ...]:
        if isinstance(index, slice):
            return tuple(self._texts.read(i) for i in range(len(self))[index])
        return self._texts.read(range(len(self))[index])

    def __copy__(self) -> tuple[str, ...]:
        return tuple(self)

    def __deepcopy__(self, memo: dict[int, Any]) -> tuple[str, ...]:
        return tuple(self)

    def __reduce__(self) -> tuple[Any, ...]:
        return tuple, (list(self),)

    def __eq__(self, other: object) -> bool:
        if isinstance(other, tuple | SharedTextView):
            return tuple(self) == tuple(other)
        return NotImplemented

    __hash__ = None  # type: ignore[assignment]  # what it holds changes

    def __repr__(self) -> str:
        return repr(tuple(self))
