"""Text observations as numbers."""

from __future__ import annotations

from typing import Any, SupportsFloat

import gymnasium
from gymnasium.utils import RecordConstructorArgs

from ors_gym.errors import InvalidRequestError
from ors_gym.wrappers.text_reading import Parse, TextReading

__all__ = ["ParsedText", "check_text_space"]


class ParsedText(gymnasium.Wrapper[Any, Any, Any, Any], RecordConstructorArgs):
    r"""Reads numbers out of the text that an env observes.

    A text that tells of an error, such as a tool's answer to a bad call
    (``info["error_kind"]`` is not empty), is never parsed: the value stays what it was,
    since nothing happened. A text that cannot be read, or only into a value outside of
    the space, keeps the last value too: silently at the end of an episode, whose last
    text often says something else, otherwise with one warning. A prompt that cannot be
    read is an error. With ``default=``, all these give the default instead.

    The info, with the blocks of the reply in ``info["blocks"]``, is left as it is.

    Args:
        env: An env that observes text.
        parse: A regular expression, searched in the text, each of whose groups is a
            number (0 if the group took no part in the match); or a function from the
            text to a value of ``space``, or None if there is none. The function has to
            be picklable where the env is to be.
        space: Where the values lie; with a regular expression a ``Box`` of one float32
            for each group by default. Only an env without ``space=`` and with a
            regular expression has a spec that can be written as JSON.
        default: The value of texts that cannot be read.

    Raises:
        InvalidRequestError: If the env observes something else, or the arguments cannot
            be right.

    Example:
        >>> import gymnasium as gym
        >>> import ors_gym
        >>> parse = r"in (\d+)\.\.(\d+), and you have (\d+)"
        >>> env = ParsedText(gym.make("ors/guess"), parse)
        >>> env.observation_space
        Box(-inf, inf, (3,), float32)
        >>> env.reset(seed=7)[0]
        array([ 1., 16., 10.], dtype=float32)
        >>> env.step({"tool": "guess", "input": {"number": 9}})[0]
        array([10., 16.,  9.], dtype=float32)
        >>> env.step("a bad call")[0]
        array([10., 16.,  9.], dtype=float32)
        >>> env.close()
    """

    def __init__(
        self,
        env: gymnasium.Env[Any, Any],
        parse: Parse,
        space: gymnasium.Space[Any] | None = None,
        *,
        default: Any = None,
    ) -> None:
        RecordConstructorArgs.__init__(self, parse=parse, space=space, default=default)
        gymnasium.Wrapper.__init__(self, env)
        check_text_space(env.observation_space)
        self._reading = TextReading(parse, space, default)
        self.observation_space = self._reading.space

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        """Start an episode, as the env does.

        Args:
            seed: As for the env.
            options: As for the env.

        Returns:
            The prompt's value, and the info.

        Raises:
            InvalidRequestError: If the prompt cannot be read.
        """
        text, info = self.env.reset(seed=seed, options=options)
        is_error = bool(info.get("error_kind"))
        return self._reading.first(text, is_error=is_error), info

    def step(
        self, action: Any
    ) -> tuple[Any, SupportsFloat, bool, bool, dict[str, Any]]:
        """Take a step, as the env does.

        Args:
            action: As for the env.

        Returns:
            The text's value in place of the text; the rest as it is.
        """
        text, reward, terminated, truncated, info = self.env.step(action)
        value = self._reading.next(
            text,
            is_error=bool(info.get("error_kind")),
            over=terminated or truncated,
        )
        return value, reward, terminated, truncated, info


def check_text_space(space: gymnasium.Space[Any]) -> None:
    """Check that there is text to parse.

    Args:
        space: An env's observation space.

    Raises:
        InvalidRequestError: If it is no text.
    """
    if not isinstance(space, gymnasium.spaces.Text):
        raise InvalidRequestError(
            f"ParsedText reads text, but the env observes {space}. Make the env with "
            f'observation_mode="text", and wrap it before wrappers that change its '
            f"observations"
        )
