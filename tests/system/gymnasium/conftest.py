"""What all of these compare with, and what pytest must not import here."""

import pytest

from tests.system.gymnasium.mazes import ACTIONS, STEPS, Played, make, play

# Runs where Minari is, which is an environment of its own.
collect_ignore = ["minari_recording.py"]


@pytest.fixture(scope="module")
def plain() -> Played:
    env = make().unwrapped
    played = play(env, ACTIONS)
    env.close()
    assert len({round(reward, 6) for reward in played.rewards}) > 1
    assert len(played.observations) == STEPS + 1
    return played
