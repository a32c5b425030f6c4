"""Numbers read out of the text that an env observes."""

from __future__ import annotations

import re
from collections.abc import Callable
from copy import deepcopy
from typing import Any, Final, SupportsFloat, TypeAlias

import gymnasium
import numpy as np
from gymnasium.spaces import Box, Discrete, MultiBinary, MultiDiscrete
from gymnasium.utils import RecordConstructorArgs
from gymnasium.wrappers.utils import create_zero_array

from ors_gym._shown_text import warn
from ors_gym.errors import InvalidRequestError

Parse: TypeAlias = str | Callable[[str], Any]
"""A regular expression whose groups are numbers, or a function of the text."""

_NUMERIC: Final = (Box, Discrete, MultiBinary, MultiDiscrete)
_QUOTED: Final = 200


class ParsedText(gymnasium.Wrapper[Any, Any, Any, Any], RecordConstructorArgs):
    r"""Reads numbers out of the text that an env observes.

    The last value stays where a text gives no new one. An error, such as a tool's
    answer to a bad call (``info["error_kind"]`` is not empty), is never parsed, since
    nothing happened. A text that cannot be read, or only into a value outside of the
    space, is passed over: silently at the end of an episode, whose last text often
    says something else, otherwise with one warning. A prompt that cannot be read
    raises an error. With ``default=``, all these give the default instead.

    The info, with the blocks of the reply in ``info["blocks"]``, is left as it is.

    Args:
        env: An env that observes text.
        parse: A regular expression that is searched in the text; each of its groups
            is a number, 0 if the group took no part in the match. Or a function that
            returns a value of ``space`` for the text, or None. To pickle the env, the
            function has to be picklable.
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
        """Start an episode, as the env does, with the value of the prompt.

        Raises:
            InvalidRequestError: If the prompt cannot be read.
        """
        text, info = self.env.reset(seed=seed, options=options)
        is_error = bool(info.get("error_kind"))
        return self._reading.first(text, is_error=is_error), info

    def step(
        self, action: Any
    ) -> tuple[Any, SupportsFloat, bool, bool, dict[str, Any]]:
        """Take a step, as the env does, with the value of the text."""
        text, reward, terminated, truncated, info = self.env.step(action)
        value = self._reading.next(
            text, is_error=bool(info.get("error_kind")), over=terminated or truncated
        )
        return value, reward, terminated, truncated, info


class TextReading:
    r"""Reads the observations of one env, by the rules of `ParsedText`.

    Example:
        >>> reading = TextReading(r"row (\d+)")
        >>> reading.first("You are in row 3.")
        array([3.], dtype=float32)
        >>> reading.next("Invalid action.", is_error=True)
        array([3.], dtype=float32)
    """

    def __init__(
        self,
        parse: Parse,
        space: gymnasium.Space[Any] | None = None,
        default: Any = None,
    ) -> None:
        self._parse = _read_groups_of(parse) if isinstance(parse, str) else parse
        if not callable(self._parse):
            raise InvalidRequestError(
                f"parse= takes a regular expression or a function, not {parse!r:.100}"
            )
        if space is None:
            if not isinstance(parse, str):
                raise InvalidRequestError(
                    "a function's values can be anything: say with space= where they "
                    "lie, such as gymnasium.spaces.MultiDiscrete([17, 17])"
                )
            groups = re.compile(parse).groups
            space = Box(-np.inf, np.inf, (groups,), np.float32)
        self.space = space
        self._default = default
        self._last: Any = None
        self._warned = False
        if default is not None:
            self._default = self._member(default)
            if self._default is None:
                raise InvalidRequestError(f"default={default!r} is not in {space}")

    def first(self, text: str, *, is_error: bool = False) -> Any:
        """Read the prompt, or the text of an error, such as an outage."""
        self._last = None if is_error else self._read(text)
        if self._last is None:
            self._last = self._default
        if self._last is None and is_error:
            # The next step ends the episode; until then any value will do.
            arbitrary = deepcopy(self.space)
            arbitrary.seed(0)
            self._last = arbitrary.sample()
        if self._last is None:
            raise InvalidRequestError(
                f"the prompt cannot be read into {self.space}: {text[:_QUOTED]!r}. "
                f"Change parse= or space=, or pass default= for such texts"
            )
        return self.last

    def next(self, text: str, *, is_error: bool = False, over: bool = False) -> Any:
        """Read the observation of a step; ``over`` if the episode ended with it."""
        value = None if is_error else self._read(text)
        if value is None:
            value = self._default
        if value is None:
            self._warn(text, quiet=is_error or over)
        else:
            self._last = value
        return self.last

    @property
    def last(self) -> Any:
        """The latest value, as a copy; before the first, the default or zeros."""
        if self._last is not None:
            return deepcopy(self._last)
        if self._default is not None:
            return deepcopy(self._default)
        return create_zero_array(self.space)

    def _read(self, text: str) -> Any:
        value = self._parse(text)
        return None if value is None else self._member(value)

    def _member(self, value: Any) -> Any:
        """Return a value in the type of the space; None if it is outside."""
        if isinstance(self.space, _NUMERIC):
            value = _cast(value, self.space)
        if value is None or not self.space.contains(value):
            return None
        return value

    def _warn(self, text: str, *, quiet: bool) -> None:
        if quiet or self._warned:
            return
        self._warned = True
        warn(
            f"a text cannot be read into {self.space}, so the last value stays: "
            f"{text[:_QUOTED]!r}. Change parse= or space=, or pass default= for such "
            f"texts (further ones are not reported)",
        )


class _Groups:
    """Reads the groups of a regular expression as numbers."""

    def __init__(self, pattern: re.Pattern[str]) -> None:
        self._pattern = pattern

    def __call__(self, text: str) -> list[float] | None:
        match = self._pattern.search(text)
        if match is None:
            return None
        try:
            return [float(group) for group in match.groups(default="0")]
        except ValueError:
            return None


def _read_groups_of(pattern: str) -> _Groups:
    try:
        compiled = re.compile(pattern)
    except re.error as error:
        raise InvalidRequestError(
            f"parse={pattern!r} is not a regular expression: {error}"
        ) from None
    if not compiled.groups:
        raise InvalidRequestError(
            f"parse={pattern!r} has no group: put the numbers to read in parentheses"
        )
    return _Groups(compiled)


def _cast(value: Any, space: gymnasium.Space[Any]) -> Any:
    """Return numbers in the shape and type of a space; None if they do not fit."""
    try:
        given = np.asarray(value).reshape(space.shape)
        # The comparison below finds a float that no integer can hold.
        with np.errstate(all="ignore"):
            cast = given.astype(space.dtype)
    except (TypeError, ValueError, OverflowError):
        return None
    if np.issubdtype(cast.dtype, np.integer) and not np.array_equal(cast, given):
        return None
    return cast[()] if isinstance(space, Discrete) else cast


def check_text_space(space: gymnasium.Space[Any]) -> None:
    """Raise an `InvalidRequestError` unless an env observes text."""
    if not isinstance(space, gymnasium.spaces.Text):
        raise InvalidRequestError(
            f"ParsedText reads text, but the env observes {space}. Make the env with "
            f'observation_mode="text", and wrap it before wrappers that change its '
            f"observations"
        )
