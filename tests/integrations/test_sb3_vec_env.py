"""`ORSVecEnv` gives what SB3's own ``DummyVecEnv`` gives, down to types and keys."""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from gymnasium.spaces import Box, MultiDiscrete
from gymnasium.vector import SyncVectorEnv
from sb3_contrib.common.maskable.utils import get_action_masks, is_masking_supported
from stable_baselines3.common.vec_env import DummyVecEnv, VecMonitor

from benchmarks.sb3_throughput import compare
from benchmarks.tool_time_server import tool_time_server
from ors_gym import ORSEnv, ORSVectorEnv, wrappers
from ors_gym.errors import InvalidRequestError, ORSError
from ors_gym.integrations.sb3 import ORSVecEnv
from tests.support.proxy.faults import Point, Reset
from tests.support.servers.process import start_server
from tests.vector.same_results import assert_same

GROUP = "training"

COUNT = 3
NUMBER = r"^(\d+)"
BOUNDS = r"in (\d+)\.\.(\d+)"
CALLS = [
    {"tool": "add", "input": {"a": 20, "b": 3}},
    {"tool": "submit", "input": {"answer": "4"}},
    {"tool": "submit", "input": {"answer": "none"}},
    {"tool": "fail", "input": {"message": "no such file"}},
    {"tool": "reward", "input": {"kind": "null"}},
    {"tool": "metadata", "input": {}},
    {"tool": "unheard_of", "input": {}},
]
SOME = [
    {"tool": "submit", "input": {"answer": "0"}},
    {"tool": "extra", "input": {"text": "x"}},
    {"tool": "after_setup", "input": {"text": "y"}},
]

Wrap = Callable[[Any, Any], Any]


def numbers(env: Any, views: Any, calls: Any = CALLS) -> Any:
    return views.DiscreteTools(views.ParsedText(env, NUMBER, default=[0.0]), calls)


def states(env: Any, views: Any) -> Any:
    space = MultiDiscrete([17, 17])
    return views.ParsedText(views.DiscreteTools(env), BOUNDS, space)


def lengths(env: Any, views: Any) -> Any:
    space = Box(0, 1e6, (), np.int64)
    return views.DiscreteTools(views.ParsedText(env, len, space), SOME)


OPENED: list[Any] = []


@pytest.fixture(autouse=True)
def closed() -> Iterator[None]:
    """Close what the test made."""
    yield
    while OPENED:
        OPENED.pop().close()


def make_both(
    name: str, url: str | None, wrap: Wrap, **arguments: Any
) -> tuple[Any, ORSVecEnv]:
    """Make SB3's and ours over the same tasks."""

    def make(i: int) -> Any:
        env = ORSEnv(name, url, task_offset=i, task_stride=COUNT, **arguments)
        return wrap(env, wrappers)

    theirs = DummyVecEnv([lambda i=i: make(i) for i in range(COUNT)])
    OPENED.append(theirs)
    return theirs, make_ours(name, url, wrap, **arguments)


def make_ours(name: str, url: str | None, wrap: Wrap, **arguments: Any) -> ORSVecEnv:
    envs = ORSVectorEnv(name, url, COUNT, autoreset_mode="SameStep", **arguments)
    ours = ORSVecEnv(wrap(envs, wrappers.vector))
    OPENED.append(ours)
    return ours


def assert_same_play(theirs: Any, ours: Any, steps: int = 40) -> int:
    """Play both at random from the same seed; return how many episodes ended."""
    random = np.random.default_rng(3)
    assert theirs.seed(11) == ours.seed(11)
    assert_same(theirs.reset(), ours.reset())
    assert_same(theirs.reset_infos, ours.reset_infos)
    ended = 0
    for _ in range(steps):
        actions = random.integers(theirs.action_space.n, size=COUNT)
        expected, given = theirs.step(actions), ours.step(actions)
        assert_same(expected, given)
        assert_same(theirs.reset_infos, ours.reset_infos)
        ended += int(given[2].sum())
    return ended


@pytest.mark.parametrize("limit", [None, 2])
def test_every_result_is_that_of_dummy_vec_env(one_server, limit):
    both = make_both("Contract", one_server.base_url, numbers, max_episode_steps=limit)
    assert assert_same_play(*both) > 5


def test_tools_may_differ_between_the_sessions(one_server):
    both = make_both("TaskTools", one_server.base_url, lengths)
    assert assert_same_play(*both) > 5


def test_episode_statistics_are_those_of_dummy_vec_env(bundled):
    ours, theirs = (VecMonitor(env) for env in make_both("guess", bundled, states))
    for env in (ours, theirs):
        env.seed(5)
        env.reset()
    seen = 0
    for step in range(60):
        actions = np.array([step % 16, (3 * step) % 16, 7])
        given = [env.step(actions) for env in (ours, theirs)]
        ends = [[info.get("episode") for info in infos] for *_, infos in given]
        for one, other in zip(*ends, strict=True):
            assert (one is None) == (other is None)
            if one is not None:
                assert (one["r"], one["l"]) == (other["r"], other["l"])
                seen += 1
    assert seen > 9


def test_attributes_and_methods_are_those_of_dummy_vec_env(bundled):
    both = make_both("guess", bundled, states)
    for env in both:
        env.seed(0)
        env.reset()
    theirs, ours = both
    for name in ("task", "tools", "calls", "num_tasks", "action_space", "render_mode"):
        assert theirs.get_attr(name) == ours.get_attr(name), name
        assert theirs.get_attr(name, 1) == ours.get_attr(name, 1), name
    for env in both:
        env.set_attr("note", "hard", indices=[0, 2])
        assert env.get_attr("note", [2, 0]) == ["hard", "hard"]
        assert env.has_attr("note") is False
        assert env.has_attr("splits") is True
        env.env_method("set_tasks", [5], indices=[1])
        assert env.get_attr("num_tasks", 1) == [1]
        assert env.get_attr("num_tasks", 0) != [1]
        env.reset()
        assert env.reset_infos[1]["task_index"] == 5
        for wrapper in (wrappers.DiscreteTools, wrappers.ParsedText):
            assert env.env_is_wrapped(wrapper) == [True] * COUNT
        assert env.env_is_wrapped(wrappers.PlainInfo, 0) == [False]
    with pytest.raises(InvalidRequestError, match="'reset' is not called env by env"):
        ours.env_method("reset", indices=0)


def test_options_may_differ_from_env_to_env(bundled):
    both = make_both("guess", bundled, states)
    for env in both:
        env.set_options([{"task_index": 8}, {"task_index": 2}, {}])
        env.seed(40)
        env.reset()
        assert [i["task_index"] for i in env.reset_infos][:2] == [8, 2]
    theirs, ours = both
    assert theirs.reset_infos[2]["task_index"] == ours.reset_infos[2]["task_index"]
    for env in both:
        # They are for one reset.
        env.set_options({"split": "test"})
        env.reset()
        assert {i["split"] for i in env.reset_infos} == {"test"}
        env.reset()
        assert {i["split"] for i in env.reset_infos} == {"train"}


def test_masks_are_where_maskable_ppo_looks_for_them(one_server):
    env = make_ours("TaskTools", one_server.base_url, lengths)
    assert is_masking_supported(env)
    assert get_action_masks(env).all()
    env.seed(0)
    env.reset()
    # Task 1 alone has the tool "extra"; every set-up adds "after_setup".
    expected = np.array([[1, 0, 1], [1, 1, 1], [1, 0, 1]], bool)
    assert_same(get_action_masks(env), expected)
    env.step([0, 2, 0])
    # The two that ended play tasks of another kind.
    assert get_action_masks(env).tolist() == expected[[1, 1, 1]].tolist()
    plain = make_ours("guess", None, lambda env, views: DiscreteBox(env))
    assert not is_masking_supported(plain)


class DiscreteBox(wrappers.vector.ParsedText):
    """Numbers both ways, without masks."""

    def __init__(self, env: Any) -> None:
        super().__init__(env, BOUNDS)
        self.single_action_space = MultiDiscrete([16])


def test_the_calls_of_a_step_leave_before_the_wait(one_server):
    slow = [{"tool": "slow", "input": {"seconds": 0.2}}]
    url = one_server.base_url
    env = make_ours("Contract", url, lambda env, views: numbers(env, views, slow))
    env.reset()
    env.step_async(np.zeros(COUNT, int))
    one_server.wait_for("run", COUNT, tool="slow")
    assert env.step_wait()[1].tolist() == [0.25] * COUNT
    # A reset gives up what is under way.
    env.step_async(np.zeros(COUNT, int))
    env.reset()
    assert env.step(np.zeros(COUNT, int))[1].tolist() == [0.25] * COUNT


def test_an_outage_ends_its_env_s_episode_as_a_time_limit_does(one_server, proxy):
    marked = {"tool": "add", "input": {"a": 7777, "b": 0}}
    env = make_ours("Contract", proxy.url, both_adds)
    env.seed(4)
    env.reset()
    env.step(np.array([0, 0, 0]))
    lost = [Reset(Point.BEFORE_REPLY)]
    proxy.plan("/call", lost, when=lambda request: b"7777" in request.body)
    observations, rewards, dones, infos = env.step(np.array([0, 1, 0]))
    assert marked in env.get_attr("calls")[0]
    assert dones.tolist() == [False, True, False]
    assert rewards.tolist() == [0.5, 0.0, 0.5]
    assert infos[1]["TimeLimit.truncated"]
    assert infos[1]["error_kind"] == "ambiguous_call"
    # SB3 adds the value of this to the reward: what it would have been without.
    assert infos[1]["terminal_observation"].tolist() == [23]
    assert observations.tolist() == [[23], [8], [23]]
    assert env.reset_infos[1]["error_kind"] == ""
    assert one_server.runs("add") == 6


def both_adds(env: Any, views: Any) -> Any:
    calls = [CALLS[0], {"tool": "add", "input": {"a": 7777, "b": 0}}]
    return views.DiscreteTools(views.ParsedText(env, NUMBER), calls)


def test_an_outage_raises_where_it_is_to_and_a_reset_cures_it():
    with start_server("ors-sdk-0.1.0") as server:
        env = make_ours(
            "Contract", server.base_url, numbers, on_error="raise", call_timeout=1.0
        )
        env.reset()
        server.kill()
        with pytest.raises(ORSError):
            env.step(np.zeros(COUNT, int))
        server.restart()
        env.reset()
        assert env.step(np.zeros(COUNT, int))[1].tolist() == [0.5] * COUNT
        env.close()


def same_step(url: str) -> ORSVectorEnv:
    return ORSVectorEnv("guess", url, autoreset_mode="SameStep")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda url: ORSVectorEnv("guess", url), 'autoreset_mode="SameStep"'),
        (same_step, "DiscreteTools"),
        (lambda url: wrappers.vector.DiscreteTools(same_step(url)), "ParsedText"),
        (lambda url: SyncVectorEnv([lambda: ORSEnv("guess", url)]), "ORSVectorEnv"),
    ],
)
def test_what_it_cannot_drive_is_refused_with_the_remedy(bundled, make, message):
    envs = make(bundled)
    with pytest.raises(InvalidRequestError, match=message):
        ORSVecEnv(envs)
    envs.close()


def test_pictures_are_missed_politely(bundled):
    env = make_ours("guess", bundled, states)
    with pytest.warns(UserWarning, match="render_mode=None"):
        assert env.get_images() == [None] * COUNT
    pictured = make_ours("guess", bundled, states, render_mode="ansi")
    pictured.reset()
    assert all("1..16" in text for text in pictured.env_method("render"))


def test_slow_tools_run_at_the_same_time():
    with tool_time_server() as url:
        theirs, ours = compare(url, 8, seconds=0.05, steps=4, rounds=1)
    # Eight at a time; half of that is left for a busy machine.
    assert ours > 4 * theirs
