"""A table learns from numbers alone, over HTTP."""

import pytest

from benchmarks.learning import GAMES, learn, play


@pytest.mark.slow
@pytest.mark.timeout(400)
@pytest.mark.parametrize(("name", "margin"), [("blackjack", 0.1), ("guess", 0.6)])
def test_a_table_learns_more_than_chance_gives(name, margin):
    game = GAMES[name]
    learned = learn(game, seed=0)
    assert sum(learned.curve[-3:]) > sum(learned.curve[:3]) + 3 * margin / 2
    # Tasks that it has not seen.
    assert play(game, learned.table) > play(game, None) + margin
