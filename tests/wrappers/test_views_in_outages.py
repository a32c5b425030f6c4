"""Views while the server is away: episodes end, and training goes on."""

from typing import Any

import numpy as np
import pytest
from gymnasium.vector import AutoresetMode

import ors_gym
from ors_gym.vector import ORSVectorEnv
from ors_gym.wrappers import DiscreteTools, ParsedText, vector
from tests.support.servers.process import start_server

# Sessions that do not start are warned of; here they are meant not to.
pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore:.*could not start an episode"),
]

CALLS = [
    {"tool": "add", "input": {"a": 20, "b": 3}},
    {"tool": "submit", "input": {"answer": "0"}},
]
NUMBER = r"^(\d+)"
CALL_SECONDS = 3.0
"""How long a call tries to reach a server that is away."""


@pytest.mark.parametrize("mode", [AutoresetMode.NEXT_STEP, AutoresetMode.SAME_STEP])
def test_a_vector_env_goes_on_when_the_server_is_back(mode):
    with start_server("ors-sdk-0.1.0") as server:
        seconds: Any = {"setup_timeout": 1.0, "call_timeout": CALL_SECONDS}
        envs: Any = ORSVectorEnv(
            "contract", server.base_url, 2, autoreset_mode=mode, **seconds
        )
        envs = vector.DiscreteTools(vector.ParsedText(envs, NUMBER), CALLS)
        values, _ = envs.reset(seed=4)
        assert values.tolist() == [[4], [5]]
        assert envs.step([0, 0])[0].tolist() == [[23], [23]]
        server.kill()
        values, _, _, truncated, infos = envs.step([0, 0])
        assert truncated.all()
        final = infos["final_obs"].tolist() if "final_obs" in infos else values.tolist()
        assert np.array_equal(final, [[23], [23]])
        # Episodes that cannot be opened end at once, one after the other.
        for _ in range(2):
            values, _, _, truncated, infos = envs.step([0, 0])
            assert values in envs.observation_space
            assert infos["action_mask"].tolist() == [[1, 1], [1, 1]]
        server.restart()
        seen = (envs.step([0, 0])[0].tolist() for _ in range(30))
        assert [[23], [23]] in seen
        envs.close()


def test_a_single_env_can_be_reset_once_the_server_is_back():
    with start_server("ors-sdk-0.1.0") as server:
        base = ors_gym.ORSEnv(
            "contract", server.base_url, on_error="truncate", call_timeout=CALL_SECONDS
        )
        env: Any = DiscreteTools(ParsedText(base, NUMBER), CALLS)
        env.reset(seed=4)
        server.kill()
        value, _, _, truncated, info = env.step(0)
        assert (value.tolist(), truncated) == ([4], True)
        assert info["error_kind"]
        server.restart()
        assert env.reset(seed=6)[0].tolist() == [6]
        assert env.step(0)[0].tolist() == [23]
        env.close()
