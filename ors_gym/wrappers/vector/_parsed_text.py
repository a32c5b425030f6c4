"""Text observations as numbers, for vector envs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import gymnasium
from gymnasium.vector import VectorEnv
from gymnasium.vector.utils import batch_space, concatenate, create_empty_array
from numpy.typing import NDArray

from ors_gym.wrappers._parsed_text import Parse, TextReading, check_text_space
from ors_gym.wrappers.vector._vector_view import Results, VectorView


class ParsedText(VectorView):
    r"""Reads numbers out of the texts that the envs observe.

    The rules are those of `ors_gym.wrappers.ParsedText`, for each env by itself. With
    ``SameStep`` autoreset, ``infos["final_obs"]`` is parsed as well.

    Args:
        env: A vector env that observes text.
        parse: A regular expression whose groups are numbers, or a function.
        space: Where the values of one env lie.
        default: The value of texts that cannot be read.

    Raises:
        InvalidRequestError: If the envs observe something else, or the arguments cannot
            be right.

    Example:
        >>> import gymnasium as gym
        >>> import ors_gym
        >>> envs = gym.make_vec("ors/guess", num_envs=2)
        >>> envs = ParsedText(envs, r"in (\d+)\.\.(\d+)")
        >>> envs.reset(seed=7)[0]
        array([[ 1., 16.],
               [ 1., 16.]], dtype=float32)
        >>> envs.close()
    """

    def __init__(
        self,
        env: VectorEnv[Any, Any, NDArray[Any]],
        parse: Parse,
        space: gymnasium.Space[Any] | None = None,
        *,
        default: Any = None,
    ) -> None:
        super().__init__(env)
        check_text_space(env.single_observation_space)
        self._readings = [
            TextReading(parse, space, default) for _ in range(self.num_envs)
        ]
        self.single_observation_space = self._readings[0].space
        self.observation_space = batch_space(
            self.single_observation_space, self.num_envs
        )

    def show(self, results: Results) -> Any:
        """Read the texts (see `VectorView.show`)."""
        values = [self._read(results, row) for row in range(len(results.envs))]
        space = self.single_observation_space
        batch: Any = create_empty_array(space, len(values))
        return concatenate(space, values, batch)

    def _read(self, results: Results, row: int) -> Any:
        reading = self._readings[results.envs[row]]
        infos = results.infos
        text = results.observations[row]
        if not results.fresh[row]:
            return reading.last
        if results.final[row]:
            is_error = _tells_error(infos["final_info"], row)
            infos["final_obs"][row] = reading.next(
                infos["final_obs"][row], is_error=is_error, over=True
            )
        is_error = _tells_error(infos, row)
        if results.starts[row]:
            return reading.first(text, is_error=is_error)
        return reading.next(text, is_error=is_error, over=results.over[row])


def _tells_error(infos: Mapping[str, Any], row: int) -> bool:
    kinds = infos.get("error_kind")
    return kinds is not None and bool(kinds[row])
