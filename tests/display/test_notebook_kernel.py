"""A notebook in a real kernel: what shows itself, and the playground by its clicks."""

import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.display.kernels import Kernel, open_kernel

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:jupyter_client")

# A way through the maze, found by walking breadth first over the map that is shown.
WALK = """
def way_through(text):
    grid = [list(line) for line in text.splitlines() if line.startswith("#")]
    squares = {cell: (r, c) for r, row in enumerate(grid) for c, cell in enumerate(row)}
    moves = {"up": (-1, 0), "down": (1, 0), "left": (0, -1), "right": (0, 1)}
    start, goal, seen = squares["@"], squares["G"], set()
    queue = [(start, [])]
    for (row, column), path in queue:
        if (row, column) == goal:
            return path
        for name, (down, right) in moves.items():
            at = (row + down, column + right)
            if at not in seen and grid[at[0]][at[1]] != "#":
                seen.add(at)
                queue.append((at, [*path, name]))
"""


@pytest.fixture(scope="module")
def kernel() -> Iterator[Kernel]:
    with open_kernel() as running:
        running.run("import json, gymnasium as gym, ors_gym")
        running.run(WALK)
        yield running


def value_of(kernel: Kernel, expression: str) -> Any:
    shown = kernel.run(f"print(json.dumps({expression}))")
    return json.loads("".join(part["stdout"] for part in shown))


def test_a_maze_is_played_by_clicks(kernel):
    kernel.run('env = gym.make("ors/maze")')
    (shown,) = kernel.run("player = ors_gym.play(env); player")
    assert "application/vnd.jupyter.widget-view+json" in shown
    assert value_of(kernel, "player.tool.label") == "move"
    names = ("task", "reset", "step")
    ids = {name: value_of(kernel, f"player.{name}.model_id") for name in names}
    # Another task, by its chooser.
    kernel.set_state(ids["task"], value=7)
    kernel.click(ids["reset"])
    assert "task 7 of train" in value_of(kernel, "player.transcript.value")
    path = value_of(kernel, "way_through(player.game.transcript.entries[0].text)")
    editor, labels = value_of(
        kernel,
        "(lambda e: [e.model_id, [label for label, _ in e.options]])"
        "(player.form.editors['direction'])",
    )
    for direction in path:
        kernel.set_state(editor, index=labels.index(direction))
        kernel.click(ids["step"])
        # The next click is one on what this one shows.
        value_of(kernel, "player.total_reward")
    assert value_of(kernel, "player.total_reward") == 1.0
    steps = f"<b>reward 1</b> after {len(path)} steps"
    assert value_of(kernel, "player.score.value") == steps
    assert value_of(kernel, "player.step.disabled") is True
    transcript = value_of(kernel, "player.transcript.value")
    assert "reward 1<" in transcript
    assert "finished" in transcript
    assert "You reached the goal" in transcript
    assert "over: finished" in value_of(kernel, "player.message.value")
    kernel.run("player.reset.click()")
    assert value_of(kernel, "player.step.disabled") is False
    assert value_of(kernel, "player.message.value") == ""
    kernel.run("env.close()")


def test_a_click_before_the_result_of_the_last_is_no_second_step(kernel):
    kernel.run('env = gym.make("ors/guess"); player = ors_gym.play(env)')
    kernel.run("player.check.value = False; player.tool.value = -1")
    button = value_of(kernel, "player.step.model_id")
    kernel.click(button, times=2)
    assert value_of(kernel, "player.game.transcript.steps") == 1
    assert "ignored" in value_of(kernel, "player.message.value")
    # One made later counts, and so does code that clicks.
    kernel.click(button)
    assert value_of(kernel, "player.game.transcript.steps") == 2
    kernel.run("player.step.click(); player.step.click()")
    assert value_of(kernel, "player.game.transcript.steps") == 4
    kernel.run("env.close()")


def test_an_env_in_wrappers_shows_itself(kernel):
    kernel.run('env = gym.make("ors/maze", render_mode="ansi")')
    (before,) = kernel.run("env")
    assert "not reset yet" in before["text/html"]
    kernel.run("result = env.reset(seed=3)")
    (after,) = kernel.run("env")
    assert "Find the goal" in after["text/html"]
    assert "ORSEnv" in after["text/plain"]
    (unwrapped,) = kernel.run("env.unwrapped")
    assert unwrapped["text/html"] == after["text/html"]
    kernel.run("env.close()")


def test_a_vector_env_and_an_episode_show_themselves(kernel):
    (envs,) = kernel.run('envs = gym.make_vec("ors/guess", num_envs=2); envs')
    assert "2 envs" in envs["text/html"]
    (episode,) = kernel.run('ors_gym.Episode("math")')
    assert "ors-card" in episode["text/html"]
    for tools in (
        'envs.get_attr("tools")[0]',
        'ors_gym.show(envs.get_attr("tools")[0])',
    ):
        (shown,) = kernel.run(tools)
        assert "ors-card" in shown["text/html"]
        assert "guess" in shown["text/html"]
    kernel.run("envs.close()")


def test_other_envs_are_shown_as_before(kernel):
    (shown,) = kernel.run('gym.make("CartPole-v1")')
    assert set(shown) == {"text/plain"}
    kernel.run(
        "class Own(gym.Env):\n"
        "    def _repr_html_(self):\n"
        "        return '<i>own</i>'\n"
        "import importlib\n"
        "ors_gym = importlib.reload(ors_gym)"
    )
    (shown,) = kernel.run("Own()")
    assert shown["text/html"] == "<i>own</i>"
