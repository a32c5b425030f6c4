"""Many infos as one, as Gymnasium's vector envs give them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
from gymnasium.vector import VectorEnv
from numpy.typing import NDArray

__all__ = ["batch_infos", "merge_info"]

_NUMBERS: Final = (bool, int, float)


def batch_infos(
    infos: Sequence[Mapping[str, Any]], places: Sequence[int], count: int
) -> dict[str, Any]:
    """Batch infos that have the same keys.

    Equal to ``VectorEnv._add_info`` for one after the other, which makes an array for
    each key of each info.

    Args:
        infos: An info for each place.
        places: Which envs they are of.
        count: The number of envs.

    Returns:
        For each key an array of length ``count``, and as ``_key`` which places of it
        are filled.

    Example:
        >>> batch_infos([{"tool": "add"}], [1], 2)
        {'tool': array([None, 'add'], dtype=object), '_tool': array([False,  True])}
    """
    batch: dict[str, Any] = {}
    filled = np.zeros(count, dtype=np.bool_)
    filled[places] = True
    for key, first in infos[0].items():
        if isinstance(first, dict | np.ndarray | np.number):
            for place, info in zip(places, infos, strict=True):
                merge_info(batch, {key: info[key]}, place, count)
            continue
        array: NDArray[Any]
        if type(first) in _NUMBERS:
            array = np.zeros(count, dtype=type(first))
            array[places] = [info[key] for info in infos]
        else:
            array = np.full(count, None, dtype=object)
            for place, info in zip(places, infos, strict=True):
                array[place] = info[key]
        batch[key] = array
        batch[f"_{key}"] = filled.copy()
    return batch


def merge_info(
    batch: dict[str, Any], info: Mapping[str, Any], place: int, count: int
) -> None:
    """Add an info of any kind to a batch, as Gymnasium does.

    Args:
        batch: The batch, which is changed.
        info: The info.
        place: Which env it is of.
        count: The number of envs.
    """
    merger: VectorEnv[Any, Any, Any] = VectorEnv()
    merger.num_envs = count
    merger._add_info(batch, dict(info), place)  # noqa: SLF001
