"""Free text as a Gymnasium space."""

from __future__ import annotations

import copy
import multiprocessing
import os
import string
from types import ModuleType
from typing import Any, Self

import numpy as np
from gymnasium.error import CustomSpaceError
from gymnasium.spaces import Text
from gymnasium.spaces.utils import flatdim, flatten, flatten_space, unflatten
from gymnasium.vector.utils import (
    batch_differing_spaces,
    create_shared_memory,
    read_from_shared_memory,
    write_to_shared_memory,
)

from ors_gym.spaces.shared_text import SharedText, SharedTextView

__all__ = ["DEFAULT_MAX_LENGTH", "FreeText"]

DEFAULT_MAX_LENGTH = 2**24
"""Characters of a text by default: no cost but for text that is really there."""

_SAMPLE_MAX_LENGTH = 32
_SAMPLED_CHARACTERS = frozenset(
    string.ascii_letters + string.digits + string.punctuation + " "
)


class FreeText(Text):
    """Any text of at most ``max_length`` characters, in any script.

    A ``Text`` that is right where Gymnasium's own is not: membership is a matter
    of length alone, ``sample()`` is short and printable however long texts may be,
    and the text survives every vector env, ``AsyncVectorEnv`` with its default
    shared memory included. It is never flattened into numbers.

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

    def sample(
        self,
        mask: Any = None,
        probability: Any = None,
    ) -> str:
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


@create_shared_memory.register(FreeText)
def _create_shared_text(
    space: FreeText,
    n: int = 1,
    ctx: ModuleType = multiprocessing,  # noqa: ARG001  # Gymnasium's signature
) -> SharedText:
    if not hasattr(os, "pwrite"):
        raise CustomSpaceError(f"{space} has no shared memory on this system")
    return SharedText(n, space.max_length)


@read_from_shared_memory.register(FreeText)
def _read_shared_text(
    space: FreeText,  # noqa: ARG001
    shared_memory: SharedText,
    n: int = 1,  # noqa: ARG001
) -> SharedTextView:
    return SharedTextView(shared_memory)


@write_to_shared_memory.register(FreeText)
def _write_shared_text(
    space: FreeText,  # noqa: ARG001
    index: int,
    value: str,
    shared_memory: SharedText,
) -> None:
    shared_memory.write(index, value)


# As with Gymnasium's Sequence and Graph, flattening leaves what has no fixed size.
@flatdim.register(FreeText)
def _flatdim_text(space: FreeText) -> int:
    raise ValueError(f"{space} cannot be flattened: text has no fixed size")


@flatten_space.register(FreeText)
def _flatten_text_space(space: FreeText) -> FreeText:
    return space


def _same_text(space: FreeText, x: Any) -> Any:  # noqa: ARG001
    return x


flatten.register(FreeText, _same_text)
unflatten.register(FreeText, _same_text)


# Gymnasium looks for the very class here, not for its bases.
batch_differing_spaces.register(FreeText, batch_differing_spaces.dispatch(Text))
