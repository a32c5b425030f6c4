"""A space for any number of images of any size that works in every vector env.

Gymnasium's ``Sequence`` of ``Box`` fixes the size of its images, and ``AsyncVectorEnv``
refuses it unless shared memory is switched off.
"""

from __future__ import annotations

import base64
import json
import multiprocessing
from collections.abc import Iterable
from types import ModuleType
from typing import Any, Final, TypeAlias

import numpy as np
from gymnasium import Space
from gymnasium.spaces import Sequence as GymnasiumSequence
from gymnasium.spaces.utils import is_space_dtype_shape_equiv
from gymnasium.vector.utils import (
    batch_differing_spaces,
    create_shared_memory,
    read_from_shared_memory,
    write_to_shared_memory,
)
from gymnasium.wrappers.utils import create_zero_array
from numpy.typing import NDArray

from ors_gym.spaces._text import SharedText, SharedView, never_flatten

Images: TypeAlias = tuple[NDArray[np.uint8], ...]

_SHARED_CHARACTERS: Final = 2**29
"""Room for an env's images as text; only what is written takes memory."""
_LARGEST_SAMPLE: Final = 8


class ImageTuple(Space[Images]):
    """Tuples of images: arrays of type uint8 and shape (height, width, 3).

    Args:
        seed: Seed of the generator that `sample` draws from.

    Example:
        >>> space = ImageTuple(seed=1)
        >>> (np.zeros((2, 3, 3), np.uint8),) in space, () in space
        (True, True)
        >>> np.zeros((2, 3, 3), np.uint8) in space
        False
        >>> space.sample() in space
        True
    """

    def __init__(self, seed: int | np.random.Generator | None = None) -> None:
        super().__init__(None, None, seed)

    @property
    def is_np_flattenable(self) -> bool:
        """False: the size varies."""
        return False

    def sample(self, mask: None = None, probability: None = None) -> Images:
        """Draw up to two images of at most 8 by 8 pixels.

        Args:
            mask: Must be None: there is nothing to forbid.
            probability: Must be None.

        Raises:
            ValueError: If a mask or probabilities are given.
        """
        if mask is not None or probability is not None:
            raise ValueError("ImageTuple takes neither a mask nor probabilities")
        random = self.np_random
        return tuple(
            random.integers(
                0, 256, (*random.integers(1, _LARGEST_SAMPLE + 1, 2), 3), np.uint8
            )
            for _ in range(random.integers(0, 3))
        )

    def contains(self, x: Any) -> bool:
        """Return whether ``x`` is a tuple of images."""
        return isinstance(x, tuple) and all(
            isinstance(image, np.ndarray)
            and image.dtype == np.uint8
            and image.ndim == 3
            and image.shape[2] == 3
            for image in x
        )

    def to_jsonable(self, sample_n: Iterable[Images]) -> list[Any]:
        """Return samples as plain JSON: shape and base64 of the pixels."""
        return [[_to_json(image) for image in images] for images in sample_n]

    def from_jsonable(self, sample_n: list[Any]) -> list[Images]:
        """Undo `to_jsonable`."""
        return [tuple(_from_json(image) for image in images) for images in sample_n]

    def __repr__(self) -> str:
        return "ImageTuple()"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ImageTuple)

    __hash__ = None  # type: ignore[assignment]  # as in Gymnasium's own spaces


def _to_json(image: NDArray[np.uint8]) -> dict[str, Any]:
    pixels = base64.b64encode(image.tobytes()).decode("ascii")
    return {"shape": list(image.shape), "pixels": pixels}


def _from_json(image: dict[str, Any]) -> NDArray[np.uint8]:
    # Bytes are read-only, but callers may change an observation's arrays.
    pixels = bytearray(base64.b64decode(image["pixels"]))
    return np.frombuffer(pixels, np.uint8).reshape(image["shape"])


@create_shared_memory.register(ImageTuple)
def _create_shared_images(
    space: ImageTuple,  # noqa: ARG001  # Gymnasium's signature, here and below
    n: int = 1,
    ctx: ModuleType = multiprocessing,  # noqa: ARG001
) -> SharedText:
    return SharedText(n, _SHARED_CHARACTERS)


@read_from_shared_memory.register(ImageTuple)
def _read_shared_images(
    space: ImageTuple,
    shared_memory: SharedText,
    n: int = 1,  # noqa: ARG001
) -> SharedView[Images]:
    def decode(text: str) -> Images:
        return space.from_jsonable([json.loads(text)])[0] if text else ()

    return SharedView(shared_memory, decode)


@write_to_shared_memory.register(ImageTuple)
def _write_shared_images(
    space: ImageTuple, index: int, value: Images, shared_memory: SharedText
) -> None:
    shared_memory.write(index, json.dumps(space.to_jsonable([value])[0]))


# As with Gymnasium's own Sequence, a batch is a Tuple, and flattening leaves out what
# has no fixed size.
batch_differing_spaces.register(
    ImageTuple, batch_differing_spaces.registry[GymnasiumSequence]
)


@is_space_dtype_shape_equiv.register(ImageTuple)
def _is_equivalent(space_1: ImageTuple, space_2: Space[Any]) -> bool:
    return space_1 == space_2


@create_zero_array.register(ImageTuple)
def _no_images(space: ImageTuple) -> tuple[()]:  # type: ignore[misc]  # noqa: ARG001
    return ()


never_flatten(ImageTuple, "its images have no fixed size")
