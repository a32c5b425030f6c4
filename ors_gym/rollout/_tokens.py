"""The tokens of an episode: what an engine sampled, and the sequences for a loss.

Nothing here knows a tokenizer. Ids are kept as the engine gave them.
"""

from __future__ import annotations

import dataclasses
import math
import operator
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, Self

from ors_gym.errors import InvalidRequestError
from ors_gym.formats._json import has_float
from ors_gym.types import JSONObject

if TYPE_CHECKING:
    from ors_gym.rollout._episode import Episode, Turn

UNKNOWN_VERSION: Final = -1
"""The version of a token that no known version of the weights sampled."""


@dataclasses.dataclass(slots=True)
class Generated:
    """What an engine sampled in one turn.

    Args:
        ids: The sampled ids, with the stop id that ended them if the engine gives it.
            Lists, arrays and tensors of one dimension are taken.
        logprobs: The log-probability of each id, or None if the engine gives none.
        finish_reason: Why the engine stopped: ``stop``, ``length``, or its own word.
        version: The version of the weights that sampled the ids: one number, or one
            for each id where the weights changed in between.

    Raises:
        InvalidRequestError: If these cannot be right: an id below 0, another number
            of log-probabilities than of ids, or one that is not finite.

    Example:
        >>> Generated([5, 7], [-0.5, -0.25], version=3).ids
        [5, 7]
    """

    ids: Sequence[int]
    logprobs: Sequence[float] | None = None
    finish_reason: str = "stop"
    version: int | Sequence[int] | None = None

    def __post_init__(self) -> None:
        try:
            self.ids = list(map(operator.index, self.ids))
            if self.logprobs is not None:
                self.logprobs = list(map(float, self.logprobs))
            if isinstance(self.version, Iterable):
                self.version = list(map(operator.index, self.version))
            elif self.version is not None:
                self.version = operator.index(self.version)
        except (TypeError, ValueError) as error:
            raise InvalidRequestError(
                f"Generated takes whole numbers as ids and versions, and numbers as "
                f"logprobs: {error}"
            ) from None
        _check(self)


@dataclasses.dataclass(slots=True)
class TurnTokens:
    """The tokens of one turn, as an episode records them.

    Args:
        prompt_ids: What the model read since its last turn: the end of that turn if
            the engine left it out, the replies, and the beginning of this turn. The
            whole prompt where ``starts_sequence``.
        ids: The ids that were sampled, verbatim.
        logprobs: The log-probability of each of ``ids``; None if the engine gave none.
        finish_reason: Why the engine stopped.
        version: The version of the weights, or one for each of ``ids``.
        starts_sequence: Whether the model read a new prompt in place of the last one
            and what followed. It is so at the first turn, and where a chat template
            rewrote what came before.
        mm: A pair: the place in ``prompt_ids`` where the rendered part begins, and the
            multimodal inputs of that part. Not part of the JSON form.

    Example:
        >>> TurnTokens([1, 2], [3, 0], [-0.5, -0.25], version=4).to_dict()["ids"]
        [3, 0]
    """

    prompt_ids: list[int]
    ids: list[int]
    logprobs: list[float] | None = None
    finish_reason: str = "stop"
    version: int | list[int] | None = None
    starts_sequence: bool = False
    mm: tuple[int, Any] | None = dataclasses.field(
        default=None, compare=False, repr=False
    )

    def to_dict(self) -> JSONObject:
        """Return it as plain JSON values, without ``mm``."""
        names = (field.name for field in dataclasses.fields(self))
        return {name: getattr(self, name) for name in names if name != "mm"}

    @classmethod
    def from_dict(cls, value: Mapping[str, Any]) -> Self:
        """Make it from the values of `to_dict`; a TypeError says what is wrong."""
        tokens = cls(**value)
        for name in ("prompt_ids", "ids"):
            if not _all_are({int}, getattr(tokens, name)):
                raise TypeError(f"the {name} of a turn's tokens are no list of ids")
        logprobs = tokens.logprobs
        if logprobs is not None and not (
            _all_are({int, float}, logprobs) and all(map(has_float, logprobs))
        ):
            raise TypeError("the logprobs of a turn's tokens are no list of numbers")
        _check(tokens)
        return tokens


def _all_are(kinds: set[type], values: Any) -> bool:
    return isinstance(values, list) and set(map(type, values)) <= kinds


def _check(tokens: Generated | TurnTokens) -> None:
    """Raise `InvalidRequestError` where numbers do not fit together."""
    count = len(tokens.ids)
    if count and min(tokens.ids) < 0:
        raise InvalidRequestError(f"an id is {min(tokens.ids)}; ids are 0 or more")
    if tokens.logprobs is not None:
        if len(tokens.logprobs) != count:
            raise InvalidRequestError(
                f"there are {len(tokens.logprobs)} logprobs for {count} ids"
            )
        if not all(map(math.isfinite, tokens.logprobs)):
            raise InvalidRequestError("a log-probability is no finite number")
    version = tokens.version
    if isinstance(version, Sequence) and len(version) != count:
        raise InvalidRequestError(f"there are {len(version)} versions for {count} ids")


@dataclasses.dataclass(slots=True)
class TokenSequence:
    """One sequence for a loss: what the model read and sampled, in its order.

    The lists have one item for each of ``ids``.

    Args:
        ids: The ids.
        mask: 1 for a sampled id, 0 for all else.
        logprobs: The log-probabilities of sampled ids, 0 for all else; None where the
            engine gave none for one of the turns.
        rewards: At the last id of each turn what its calls were paid, 0 elsewhere.
        versions: The version of the weights that sampled an id; -1 for all else.
        reward: The episode's reward; None after an outage, when there is no outcome.
        turns: Which turns of the episode these are.
        truncated: Whether ``max_tokens`` left some of them out, or cut the last one.
        mm: A pair for each turn with multimodal inputs: the place in ``ids`` where its
            rendered part begins, and the inputs.

    Example:
        >>> sequence = TokenSequence(
        ...     [1, 2, 3], [0, 0, 1], None, [0.0, 0.0, 1.0], [-1, -1, 4], 1.0, [0]
        ... )
        >>> [i for i, sampled in zip(sequence.ids, sequence.mask) if sampled]
        [3]
    """

    ids: list[int]
    mask: list[int]
    logprobs: list[float] | None
    rewards: list[float]
    versions: list[int]
    reward: float | None
    turns: list[int]
    truncated: bool = False
    mm: list[tuple[int, Any]] = dataclasses.field(default_factory=list)


def make_sequences(episode: Episode, max_tokens: int | None) -> list[TokenSequence]:
    """Return the sequences of an episode; see `Episode.sequences`."""
    if max_tokens is not None and max_tokens < 1:
        raise InvalidRequestError("max_tokens must be at least 1")
    played: list[list[_PlayedTurn]] = []
    for turn in _played_turns(episode):
        if turn.tokens.starts_sequence or not played:
            played.append([])
        played[-1].append(turn)
    return [_join(turns, episode.total_reward, max_tokens) for turns in played]


@dataclasses.dataclass(slots=True)
class _PlayedTurn:
    number: int
    tokens: TurnTokens
    reward: float
    ran_a_call: bool

    @property
    def length(self) -> int:
        return len(self.tokens.prompt_ids) + len(self.tokens.ids)


def _played_turns(episode: Episode) -> Iterator[_PlayedTurn]:
    ran = {step.turn for step in episode.steps if step.tool}
    rewards = episode.turn_rewards
    turn: Turn
    for number, turn in enumerate(episode.turns):
        if turn.tokens is None:
            raise InvalidRequestError(
                f"turn {number} has no tokens: play the episode with TokenPolicy, or "
                "give each Turn its tokens"
            )
        yield _PlayedTurn(number, turn.tokens, rewards[number], number in ran)


def _join(
    turns: Sequence[_PlayedTurn], reward: float | None, max_tokens: int | None
) -> TokenSequence:
    sequence = TokenSequence([], [], [], [], [], reward, [])
    room = math.inf if max_tokens is None else max_tokens
    for turn in turns:
        if turn.length > room:
            _cut(sequence, turn, int(room))
            break
        _append(sequence, turn.number, turn.tokens)
        if sequence.rewards:
            sequence.rewards[-1] += turn.reward
        room -= turn.length
    return sequence


def _cut(sequence: TokenSequence, turn: _PlayedTurn, room: int) -> None:
    """Take the part of a turn that fits, unless it would end inside a call that ran.

    A cut turn gets no reward, because the reward was paid for the part that is missing.
    """
    sequence.truncated = True
    tokens = turn.tokens
    kept = 0 if turn.ran_a_call else max(0, room - len(tokens.prompt_ids))
    if not kept and sequence.ids:
        return
    logprobs, version = tokens.logprobs, tokens.version
    part = TurnTokens(
        tokens.prompt_ids[:room],
        tokens.ids[:kept],
        None if logprobs is None else logprobs[:kept],
        version=version[:kept] if isinstance(version, list) else version,
        mm=tokens.mm,
    )
    _append(sequence, turn.number, part)


def _append(sequence: TokenSequence, number: int, tokens: TurnTokens) -> None:
    added, sampled = len(tokens.prompt_ids), len(tokens.ids)
    if tokens.mm is not None:
        place, inputs = tokens.mm
        sequence.mm.append((len(sequence.ids) + place, inputs))
    sequence.turns.append(number)
    sequence.ids += tokens.prompt_ids
    sequence.ids += tokens.ids
    sequence.mask += [0] * added + [1] * sampled
    sequence.rewards += [0.0] * (added + sampled)
    version = UNKNOWN_VERSION if tokens.version is None else tokens.version
    versions = version if isinstance(version, list) else [version] * sampled
    sequence.versions += [UNKNOWN_VERSION] * added + versions
    if tokens.logprobs is None and sampled:
        sequence.logprobs = None
    elif sequence.logprobs is not None:
        sequence.logprobs += [0.0] * added + (tokens.logprobs or [])
