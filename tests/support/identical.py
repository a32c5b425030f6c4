"""Whether two values of Gymnasium are the same, bit for bit."""

from typing import Any

import numpy as np


def identical(one: Any, other: Any) -> bool:
    """Compare types, dtypes, shapes and bits: NaN equals NaN, -0.0 is not 0.0."""
    if type(one) is not type(other):
        return False
    if isinstance(one, np.ndarray | np.generic):
        if one.dtype == object:
            return identical(one.tolist(), other.tolist())
        same = one.dtype == other.dtype and one.shape == other.shape
        return bool(same) and one.tobytes() == other.tobytes()
    if isinstance(one, float):
        return np.float64(one).tobytes() == np.float64(other).tobytes()
    if isinstance(one, dict):
        return list(one) == list(other) and all(
            identical(one[key], other[key]) for key in one
        )
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(identical, one, other))
    return bool(one == other)
