"""``blackjack``: the game of Sutton and Barto."""

from __future__ import annotations

from collections.abc import Mapping
from random import Random
from typing import Any, Final

from ors import TextBlock, ToolOutput, tool

from ors_gym.server.environments._base import NumberedTasks, SplitName, over, reply

__all__ = ["Blackjack"]

_DECK: Final = (1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 10, 10, 10)
_DEALER_STANDS: Final = 17
_TARGET: Final = 21


def hand_total(hand: list[int]) -> tuple[int, bool]:
    """Give the total of a hand, and whether an ace counts 11 in it; aces are 1.

    Example:
        >>> hand_total([1, 6]), hand_total([1, 6, 9])
        ((17, True), (16, False))
    """
    total = sum(hand)
    if 1 in hand and total + 10 <= _TARGET:
        return total + 10, True
    return total, False


class Blackjack(NumberedTasks):
    """One hand of the game of Sutton and Barto, by the rules of Blackjack-v1.

    The deck is endless. An ace counts 11 unless that busts. The dealer draws to 17. A
    player's 21 of two cards wins unless the dealer has the same (``sab=True``, as
    Gymnasium registers it).

    Rewards:
        1.0 for a win, 0.0 for a draw, -1.0 for a loss; 0.0 for each `hit` before.

    Starting state:
        The prompt shows two cards of the player and one of the dealer. The task seeds
        the deck: the same actions see the same cards.

    Episode end:
        It terminates with `stand`, or with a `hit` above 21.

    Version history:
        0.1.0: the first.
    """

    served_name = "blackjack"

    @classmethod
    def make_task(cls, split: SplitName, generator: Random) -> dict[str, Any]:
        """Shuffle a deck (see `NumberedTasks.make_task`)."""
        del split
        return {"deck_seed": generator.getrandbits(32)}

    def read_task(self, task: Mapping[str, Any]) -> None:
        """Deal from the task's deck (see `NumberedTasks.read_task`)."""
        self._generator = Random(int(task["deck_seed"]))  # noqa: S311 - cards, not keys
        self.dealer = [self._draw(), self._draw()]
        self.player = [self._draw(), self._draw()]

    def get_prompt(self) -> list[TextBlock]:
        """Show the cards."""
        return [TextBlock(text=f"Blackjack. {self._state()}")]

    @tool
    def hit(self) -> ToolOutput:
        """Take another card; above 21 the hand is lost."""
        if self.finished:
            return over()
        self.player.append(self._draw())
        if hand_total(self.player)[0] <= _TARGET:
            return reply(self._state())
        return self._end(-1.0, "Bust: you lose.")

    @tool
    def stand(self) -> ToolOutput:
        """Take no more cards; the dealer draws to 17 and the hands are compared."""
        if self.finished:
            return over()
        while hand_total(self.dealer)[0] < _DEALER_STANDS:
            self.dealer.append(self._draw())
        mine, theirs = (_score(hand) for hand in (self.player, self.dealer))
        natural = _is_natural(self.player) and not _is_natural(self.dealer)
        if mine > theirs or natural:
            return self._end(1.0, "You win.")
        if mine < theirs:
            return self._end(-1.0, "You lose.")
        return self._end(0.0, "A draw.")

    def _draw(self) -> int:
        return self._generator.choice(_DECK)

    def _state(self) -> str:
        return (
            f"Your hand: {_show(self.player)}. "
            f"The dealer shows {_card(self.dealer[0])}. Hit or stand?"
        )

    def _end(self, reward: float, outcome: str) -> ToolOutput:
        self.finished = True
        text = (
            f"Your hand: {_show(self.player)}. The dealer's hand: "
            f"{_show(self.dealer)}. {outcome}"
        )
        return reply(text, reward=reward, finished=True)


def _score(hand: list[int]) -> int:
    total, _ = hand_total(hand)
    return total if total <= _TARGET else 0


def _is_natural(hand: list[int]) -> bool:
    return sorted(hand) == [1, 10]


def _card(value: int) -> str:
    return "ace" if value == 1 else str(value)


def _show(hand: list[int]) -> str:
    total, soft = hand_total(hand)
    kind = "soft " if soft else ""
    return f"{', '.join(_card(value) for value in hand)} ({kind}{total})"
