"""Text as a Gymnasium space, byte for byte between processes.

Gymnasium shares observations through arrays of a fixed size, which cannot hold text of
any length: its own ``Text`` needs an index per character, and returns garbage for
characters outside of its charset. Here every env owns a region of one sparse, anonymous
file, large enough for the longest text that the space allows. Memory is used only for
text that was written, and nothing is left behind when the processes end, however they
end.
"""

from __future__ import annotations

import copy
import multiprocessing
import os
import string
import struct
import weakref
from collections.abc import Callable, Sequence
from multiprocessing.context import assert_spawning
from types import ModuleType
from typing import Any, Self, TypeVar, overload

import numpy as np
from gymnasium.error import CustomSpaceError
from gymnasium.spaces import Space, Text
from gymnasium.spaces.utils import flatdim, flatten, flatten_space, unflatten
from gymnasium.vector.utils import (
    batch_differing_spaces,
    create_shared_memory,
    read_from_shared_memory,
    write_to_shared_memory,
)

from ors_gym._system import can_share_text, open_anonymous_file

_T = TypeVar("_T")

DEFAULT_MAX_LENGTH = 2**24
"""Characters of a text by default. Only text that was written takes memory."""

_SAMPLE_MAX_LENGTH = 32
_SAMPLED_CHARACTERS = frozenset(
    string.ascii_letters + string.digits + string.punctuation + " "
)


class FreeText(Text):
    """Any text of at most ``max_length`` characters, in any script.

    A ``Text`` that is right where Gymnasium's own is not: length alone decides
    membership, ``sample()`` is short and printable however long texts may be, and the
    text survives every vector env, also ``AsyncVectorEnv`` with its default shared
    memory. It is never flattened into numbers.

    Args:
        max_length: Longest text, in characters.
        seed: Seed of ``sample()``, or the generator itself.

    Example:
        >>> space = FreeText(max_length=5)
        >>> "Grüße" in space, "" in space, "longer" in space
        (True, True, False)
        >>> FreeText(seed=1).sample() == FreeText(seed=1).sample()
        True
    """

    def __init__(
        self,
        max_length: int = DEFAULT_MAX_LENGTH,
        *,
        seed: int | np.random.Generator | None = None,
    ) -> None:
        # The charset is only what `sample` draws from.
        super().__init__(
            max_length, min_length=0, charset=_SAMPLED_CHARACTERS, seed=seed
        )

    def sample(self, mask: Any = None, probability: Any = None) -> str:
        """Draw a short, printable text.

        Args:
            mask: A length in characters and an array that allows each character of
                ``character_list``; either may be None.
            probability: The same with a probability per character.

        Returns:
            A text of the length given, or of at most 32 characters.
        """
        if mask is not None:
            mask = (self._sample_length(mask[0]), mask[1])
        elif probability is not None:
            probability = (self._sample_length(probability[0]), probability[1])
        else:
            mask = (self._sample_length(None), None)
        return super().sample(mask, probability)

    def _sample_length(self, length: int | None) -> int:
        if length is not None:
            return length
        longest = min(self.max_length, _SAMPLE_MAX_LENGTH)
        return int(self.np_random.integers(0, longest + 1))

    def contains(self, x: Any) -> bool:
        """Return whether ``x`` is a str of at most ``max_length`` characters."""
        return isinstance(x, str) and len(x) <= self.max_length

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        """Copy all but the charset, which is constant and large."""
        copied = type(self).__new__(type(self))
        memo[id(self)] = copied
        for name, value in vars(self).items():
            constant = name.startswith("_char_")
            vars(copied)[name] = value if constant else copy.deepcopy(value, memo)
        return copied

    @property
    def is_np_flattenable(self) -> bool:
        """False: text is not a vector of numbers."""
        return False

    def __eq__(self, other: object, /) -> bool:
        return type(other) is type(self) and other.max_length == self.max_length

    __hash__ = None  # type: ignore[assignment]  # like every Gymnasium space

    def __repr__(self) -> str:
        return f"{type(self).__name__}(max_length={self.max_length})"


_HEADER = struct.Struct("<Q")
_UTF8_BYTES_PER_CHARACTER = 4
# Text up to this size arrives in one system call.
_FIRST_READ = 64 * 1024


class SharedText:
    """One region per env for the text that the env saw last."""

    def __init__(
        self, regions: int, max_length: int, descriptor: int | None = None
    ) -> None:
        if not can_share_text():
            # Gymnasium's own error: `AsyncVectorEnv` says what to do about it.
            raise CustomSpaceError("there is no shared memory for text on this system")
        self.regions = regions
        self.max_length = max_length
        if descriptor is None:
            descriptor = open_anonymous_file("ors_gym_text")
        self._descriptor = descriptor
        self._stride = _HEADER.size + max_length * _UTF8_BYTES_PER_CHARACTER
        weakref.finalize(self, os.close, self._descriptor)

    def __reduce__(self) -> tuple[Any, ...]:
        # The descriptor can only travel to a child process that is being started.
        assert_spawning(self)
        # Imported here: not every system has it.
        from multiprocessing.reduction import DupFd  # noqa: PLC0415

        return _rebuild, (self.regions, self.max_length, DupFd(self._descriptor))

    def write(self, region: int, text: str) -> None:
        """Replace the text of one env; lone surrogates survive too."""
        # A longer text would run into the next env's region.
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
        """Return the text of one env, ``""`` before it wrote any."""
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
            if not part:
                # Its writer was killed before all of it was in the file.
                break
            parts.append(part)
            position += len(part)
        return b"".join(parts).decode("utf-8", "surrogatepass")


def _rebuild(regions: int, max_length: int, descriptor: Any) -> SharedText:
    # In another process.
    return SharedText(regions, max_length, descriptor.detach())


class SharedView(Sequence[_T]):
    """The envs' current values, read when looked at; a copy of it is a plain tuple.

    ``AsyncVectorEnv`` makes this view once and copies it after every step
    (``copy=True``, its default), so the copy is where the texts are decoded.
    """

    def __init__(self, texts: SharedText, decode: Callable[[str], _T]) -> None:
        self._texts = texts
        self._decode = decode

    def __len__(self) -> int:
        return self._texts.regions

    @overload
    def __getitem__(self, index: int) -> _T: ...

    @overload
    def __getitem__(self, index: slice) -> tuple[_T, ...]: ...

    def __getitem__(self, index: int | slice) -> _T | tuple[_T, ...]:
        if isinstance(index, slice):
            return tuple(self[i] for i in range(len(self))[index])
        return self._decode(self._texts.read(range(len(self))[index]))

    def __copy__(self) -> tuple[_T, ...]:
        return tuple(self)

    def __deepcopy__(self, memo: dict[int, Any]) -> tuple[_T, ...]:
        return tuple(self)

    def __reduce__(self) -> tuple[Any, ...]:
        return tuple, (list(self),)

    def __eq__(self, other: object) -> bool:
        if isinstance(other, tuple | SharedView):
            return tuple(self) == tuple(other)
        return NotImplemented

    __hash__ = None  # type: ignore[assignment]  # what it holds changes

    def __repr__(self) -> str:
        return repr(tuple(self))


@create_shared_memory.register(FreeText)
def _create_shared_text(
    space: FreeText,
    n: int = 1,
    ctx: ModuleType = multiprocessing,  # noqa: ARG001  # Gymnasium's signature
) -> SharedText:
    return SharedText(n, space.max_length)


@read_from_shared_memory.register(FreeText)
def _read_shared_text(
    space: FreeText,  # noqa: ARG001
    shared_memory: SharedText,
    n: int = 1,  # noqa: ARG001
) -> SharedView[str]:
    return SharedView(shared_memory, decode=str)


@write_to_shared_memory.register(FreeText)
def _write_shared_text(
    space: FreeText,  # noqa: ARG001
    index: int,
    value: str,
    shared_memory: SharedText,
) -> None:
    shared_memory.write(index, value)


def never_flatten(kind: type[Space[Any]], why: str) -> None:
    """Have Gymnasium leave values as they are, as those of its Sequence and Graph."""

    def refuse(space: Space[Any]) -> int:
        raise ValueError(f"{space} cannot be flattened: {why}")

    flatdim.register(kind, refuse)
    flatten_space.register(kind, lambda space: space)
    flatten.register(kind, lambda space, x: x)  # noqa: ARG005  # Gymnasium's signature
    unflatten.register(kind, lambda space, x: x)  # noqa: ARG005


never_flatten(FreeText, "text has no fixed size")
# Gymnasium looks for the very class here, not for its bases.
batch_differing_spaces.register(FreeText, batch_differing_spaces.dispatch(Text))
