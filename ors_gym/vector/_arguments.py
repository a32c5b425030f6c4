"""Reads what callers give a vector env: actions, seeds, reset masks, env ids."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from ors_gym.errors import InvalidRequestError

__all__ = ["list_actions", "list_env_ids", "spread_seed", "take_reset_mask"]


def list_actions(actions: object, count: int) -> list[Any]:
    """Return one action for each env.

    Args:
        actions: A sequence of actions in any form: of calls, as ``sample()`` gives
            them, of strings, an array of objects.
        count: How many envs they are for.

    Returns:
        The actions.

    Raises:
        InvalidRequestError: If it is no sequence of that length.

    Example:
        >>> list_actions(np.array([{"tool": "look", "input": {}}], dtype=object), 1)
        [{'tool': 'look', 'input': {}}]
    """
    scalar = isinstance(actions, np.ndarray) and actions.ndim == 0
    wrong = scalar or isinstance(actions, str | bytes | Mapping)
    if wrong or not isinstance(actions, Iterable):
        raise InvalidRequestError(
            f"actions hold one action for each of {count} envs, in a list, a tuple or "
            f"an array; not {type(actions).__name__}"
        )
    listed = list(actions)
    if len(listed) != count:
        raise InvalidRequestError(f"there are {len(listed)} actions for {count} envs")
    return listed


def list_env_ids(env_ids: Iterable[int] | None, count: int) -> list[int]:
    """Return which envs are meant.

    Args:
        env_ids: Their indexes; all if None.
        count: The number of envs.

    Returns:
        Indexes, each once.

    Raises:
        InvalidRequestError: If there is no such env, or one is named twice.

    Example:
        >>> list_env_ids(np.array([2, 0]), 3)
        [2, 0]
    """
    if env_ids is None:
        return list(range(count))
    listed = [int(i) for i in np.asarray(env_ids).reshape(-1)]
    for i in listed:
        if not 0 <= i < count:
            raise InvalidRequestError(f"there is no env {i}; they are 0 to {count - 1}")
    if len(set(listed)) != len(listed):
        raise InvalidRequestError(f"env_ids name an env twice: {listed}")
    return listed


def spread_seed(
    seed: int | Sequence[int | None] | None, count: int
) -> list[int | None]:
    """Return a seed for each env, as Gymnasium's vector envs do.

    Args:
        seed: One for the first env, which the others count on from; one for each; or
            None.
        count: The number of envs.

    Returns:
        Seeds.

    Raises:
        InvalidRequestError: If their number is not that of the envs.

    Example:
        >>> spread_seed(3, 2), spread_seed([5, None], 2), spread_seed(None, 2)
        ([3, 4], [5, None], [None, None])
    """
    if seed is None:
        return [None] * count
    if isinstance(seed, int | np.integer):
        return [int(seed) + i for i in range(count)]
    seeds = [None if one is None else int(one) for one in seed]
    if len(seeds) != count:
        raise InvalidRequestError(f"there are {len(seeds)} seeds for {count} envs")
    return seeds


def take_reset_mask(
    options: Mapping[str, Any] | None, count: int
) -> tuple[list[int], dict[str, Any] | None]:
    """Take ``reset_mask`` out of the options of a reset.

    Args:
        options: The options.
        count: The number of envs.

    Returns:
        Which envs are to be reset, and the other options.

    Raises:
        InvalidRequestError: If the mask is no array of ``count`` bools, or all false.

    Example:
        >>> take_reset_mask({"reset_mask": np.array([False, True])}, 2)
        ([1], {})
    """
    if options is None or "reset_mask" not in options:
        return list(range(count)), None if options is None else dict(options)
    others = {name: value for name, value in options.items() if name != "reset_mask"}
    mask = options["reset_mask"]
    wanted = f"options['reset_mask'] is an array of {count} bools"
    if not isinstance(mask, np.ndarray):
        raise InvalidRequestError(f"{wanted}, not {type(mask).__name__}")
    if mask.shape != (count,) or mask.dtype != np.bool_:
        raise InvalidRequestError(
            f"{wanted}, not of shape {mask.shape} and type {mask.dtype}"
        )
    chosen = np.flatnonzero(mask).tolist()
    if not chosen:
        raise InvalidRequestError(f"{wanted}, at least one of them True")
    return chosen, others
