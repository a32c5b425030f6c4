"""Cards in a real notebook kernel: envs in wrappers, and other people's envs."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator

import pytest

from tests.display.kernels import Kernel, open_kernel

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:jupyter_client")


@pytest.fixture(scope="module")
def kernel() -> Iterator[Kernel]:
    with open_kernel() as running:
        running.run("import gymnasium as gym, ors_gym")
        yield running


def test_an_env_in_wrappers_shows_itself(kernel: Kernel) -> None:
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


def test_a_vector_env_and_an_episode_show_themselves(kernel: Kernel) -> None:
    (envs,) = kernel.run('envs = gym.make_vec("ors/guess", num_envs=2); envs')
    assert "2 envs" in envs["text/html"]
    (episode,) = kernel.run('ors_gym.Episode("math")')
    assert "ors-card" in episode["text/html"]
    (tools,) = kernel.run('ors_gym.show(envs.get_attr("tools")[0])')
    assert "guess" in tools["text/html"]
    kernel.run("envs.close()")


def test_other_envs_are_shown_as_before(kernel: Kernel) -> None:
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


def test_outside_ipython_the_import_does_nothing_more() -> None:
    code = (
        "import sys, ors_gym; "
        "print(*(name in sys.modules for name in ('IPython', 'ors_gym.display')))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert done.stdout == "False False\n"
