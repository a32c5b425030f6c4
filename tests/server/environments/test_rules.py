"""The rules of math, guess, blackjack and maze, in the process of the test."""

import asyncio
import itertools
from collections import deque
from random import Random
from typing import Any

import pytest
from gymnasium.envs.toy_text import blackjack as gymnasium_blackjack
from hypothesis import example, given, settings
from hypothesis import strategies as st
from ors import ToolOutput

from ors_gym.server._reference_players import REFERENCE_PLAYERS
from ors_gym.server.environments._maze_grid import WALL, carve, distances_from
from ors_gym.server.environments._questions import PROBLEMS, QUESTIONS
from ors_gym.server.environments.blackjack import Blackjack
from ors_gym.server.environments.guess import Guess, Number
from ors_gym.server.environments.math import Answer, Math
from ors_gym.server.environments.maze import Maze, Move

pytestmark = pytest.mark.unit

DIRECTIONS = ("up", "down", "left", "right")


def text_of(output: ToolOutput) -> str:
    return "\n\n".join(block.text for block in output.blocks if block.type == "text")


def make_maze(**task: Any) -> Maze:
    maze = Maze({"maze_seed": 1, "size": 5, "distance": 16, **task})
    asyncio.run(maze.setup())
    return maze


RIGHT = ["1200", " 1200.0 ", "1.2e3", "1,200"]
WRONG = ["12", "", "twelve", "NaN", "sNaN", "Infinity", "1e999999999"]


@pytest.mark.parametrize("submitted", [*RIGHT, *WRONG])
def test_math_pays_for_the_right_number_however_written(submitted: str):
    math = Math({"question": "?", "answer": "1200"})
    output = math.submit(Answer(answer=submitted))
    assert (output.reward, output.finished) == (float(submitted in RIGHT), True)


def test_every_kind_of_problem_is_asked():
    questions = [task["question"] for task in Math.list_tasks("train")]
    for problem in PROBLEMS:
        assert sum(problem.template.read(one) is not None for one in questions) > 100


def test_guess_narrows_the_interval_and_counts_down():
    guess = Guess({"secret": 5})
    assert "1..16" in guess.get_prompt()[0].text
    output = guess.guess(Number(number=8))
    told = "It is lower than 8. It is in 1..7, and you have 9 guesses left."
    assert text_of(output) == told
    output = guess.guess(Number(number=3))
    assert "higher than 3. It is in 4..7," in text_of(output)
    # A guess outside the interval that is left does not widen it.
    assert "It is in 4..7," in text_of(guess.guess(Number(number=16)))
    output = guess.guess(Number(number=5))
    assert (output.reward, output.finished) == (1.0, True)


def test_guess_ends_after_ten_wrong_guesses_and_tells():
    guess = Guess({"secret": 5})
    outputs = [guess.guess(Number(number=16)) for _ in range(10)]
    assert [output.finished for output in outputs] == [False] * 9 + [True]
    assert sum(output.reward for output in outputs) == -10 / 16
    assert "It was 5." in text_of(outputs[-1])


def test_guess_pays_a_bisecting_player_085_and_a_random_one_003():
    # What the module promises, worked out exactly.
    guesses = dict.fromkeys(range(1, 17), 0)
    for secret in guesses:
        low, high = 1, 16
        while True:
            guesses[secret] += 1
            middle = (low + high) // 2
            if middle == secret:
                break
            low, high = (middle + 1, high) if middle < secret else (low, middle - 1)
    bisecting = sum(1 - (count - 1) / 16 for count in guesses.values()) / 16
    right = [(15 / 16) ** wrong / 16 for wrong in range(10)]
    at_random = sum(p * (1 - wrong / 16) for wrong, p in enumerate(right))
    at_random -= (15 / 16) ** 10 * 10 / 16
    assert round(bisecting, 2) == 0.85
    assert round(at_random, 2) == 0.03


@example(deck_seed=10620, hits=1)  # 21 of three cards against a natural: a draw
@given(deck_seed=st.integers(0, 2**32), hits=st.integers(0, 5))
@settings(max_examples=300, deadline=None)
def test_blackjack_plays_as_gymnasium_does_with_the_same_deck(deck_seed, hits):
    deck, cards = Random(deck_seed), gymnasium_blackjack.deck
    theirs = gymnasium_blackjack.BlackjackEnv(sab=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(gymnasium_blackjack, "draw_card", lambda _: deck.choice(cards))
        theirs.reset(seed=0)
        ours = Blackjack({"deck_seed": deck_seed})
        for action in [1] * hits + [0]:
            output = ours.hit() if action else ours.stand()
            _, reward, terminated, _, _ = theirs.step(action)  # type: ignore[no-untyped-call]
            assert (ours.player, ours.dealer) == (theirs.player, theirs.dealer)
            assert (output.reward, output.finished) == (reward, terminated)
            if terminated:
                break


def test_the_reference_player_of_blackjack_plays_as_well_as_can_be():
    """0.045 is lost per hand by the best strategy, 0.39 by hitting at random."""
    totals = []
    for seed in range(4000):
        game = Blackjack({"deck_seed": seed})
        player = REFERENCE_PLAYERS["blackjack"]()
        text = game.get_prompt()[0].text
        while True:
            call = player(text, [])
            output = game.hit() if call["tool"] == "hit" else game.stand()
            text = text_of(output)
            if output.finished:
                break
        totals.append(output.reward or 0.0)
    # The deviation of this mean is 0.015.
    assert -0.11 < sum(totals) / len(totals) < 0.02


@given(size=st.integers(1, 12), seed=st.integers())
@settings(max_examples=50, deadline=None)
def test_a_maze_has_one_way_between_any_two_squares(size: int, seed: int):
    grid = carve(size, Random(seed))
    floor = {
        (row, column)
        for row, line in enumerate(grid)
        for column, square in enumerate(line)
        if square != WALL
    }
    doors = sum((row + 1, column) in floor for row, column in floor)
    doors += sum((row, column + 1) in floor for row, column in floor)
    # A connected graph with one edge less than it has nodes is a tree.
    assert set(distances_from((1, 1), grid)) == floor
    assert doors == len(floor) - 1
    assert len(floor) == 2 * size * size - 1


@given(data=st.data(), seed=st.integers(0, 2**32), size=st.integers(2, 6))
@settings(max_examples=40, deadline=None)
def test_maze_rewards_are_the_share_of_the_way_whatever_the_way(data, seed, size):
    maze = make_maze(maze_seed=seed, size=size)
    wander = data.draw(st.lists(st.sampled_from(DIRECTIONS), max_size=20))
    player = REFERENCE_PLAYERS["maze"]()
    text = maze.get_prompt()[0].text  # type: ignore[union-attr]
    queue, total, at_goal = deque(wander), 0.0, False
    while not maze.finished:
        direction: Any = (
            queue.popleft() if queue else player(text, [])["input"]["direction"]
        )
        output = maze.move(Move(direction=direction))
        text = text_of(output)
        total += output.reward or 0.0
        at_goal = "You reached the goal." in text
    if at_goal:
        assert total == 1.0
    else:
        assert "no moves left" in text
        assert total < 1.0


def test_a_maze_ends_after_four_times_the_moves_it_needs():
    maze = make_maze()
    outputs = [maze.move(Move(direction="up")) for _ in range(64)]
    assert all("There is a wall." in text_of(output) for output in outputs)
    assert [output.finished for output in outputs] == [False] * 63 + [True]
    assert {output.reward for output in outputs} == {0.0}


def test_a_small_maze_has_a_nearer_goal():
    maze = make_maze(size=2, distance=256)
    assert "and have 16 moves left" in maze.get_prompt()[0].text  # type: ignore[union-attr]


def test_a_call_after_the_end_does_and_pays_nothing():
    math, guess = Math({"question": "?", "answer": "1"}), Guess({"secret": 1})
    blackjack, maze = Blackjack({"deck_seed": 1}), make_maze()
    assert math.submit(Answer(answer="1")).finished
    assert guess.guess(Number(number=1)).finished
    assert blackjack.stand().finished
    assert [maze.move(Move(direction="up")) for _ in range(64)][-1].finished
    for output in (
        math.submit(Answer(answer="1")),
        guess.guess(Number(number=1)),
        blackjack.hit(),
        blackjack.stand(),
        maze.move(Move(direction="down")),
    ):
        assert (output.reward, output.finished) == (0.0, True)
        assert text_of(output) == "The episode is over."


def test_templates_of_questions_do_not_hide_one_another():
    values = {"city": "Oslo", "month": "2024-03", "category": "toys"}
    for one, other in itertools.permutations(QUESTIONS, 2):
        assert one.template.read(other.template.fill(**values)) is None
