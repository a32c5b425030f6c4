"""Plays an env and its native twin alike, and compares all that they give."""

import warnings
from typing import Any

from tests.support.identical import identical


def play_side_by_side(env: Any, native: Any, *, steps: int, seed: int = 0) -> int:
    """Take the same seeded steps in both; return how many episodes ended.

    Raises an AssertionError at the first difference in a bit of an observation, reward,
    flag or info.
    """
    assert env.action_space == native.action_space
    assert env.observation_space == native.observation_space
    assert repr(env.observation_space) == repr(native.observation_space)
    env.action_space.seed(seed)
    native.action_space.seed(seed)
    episodes, over = 0, True
    for _ in range(steps):
        if over:
            ours, theirs = env.reset(seed=seed), native.reset(seed=seed)
            seed += 1
        else:
            action = native.action_space.sample()
            assert identical(env.action_space.sample(), action)
            ours, theirs = env.step(action), native.step(action)
        _compare(ours, theirs)
        over = len(theirs) == 5 and bool(theirs[2] or theirs[3])
        episodes += over
    return episodes


def _compare(ours: tuple[Any, ...], theirs: tuple[Any, ...]) -> None:
    *values, info = ours
    *expected, native_info = theirs
    info = {key: value for key, value in info.items() if key != "ors"}
    left_out = ours[-1]["ors"]["metadata"].get("left_out", [])
    native_info = {k: v for k, v in native_info.items() if str(k) not in left_out}
    assert identical(info, native_info), (info, native_info)
    assert identical(values[0], expected[0]), (values[0], expected[0])
    if len(values) == 4:
        assert identical(values[1], expected[1]), (values[1], expected[1])
        # Some envs give NumPy's booleans.
        assert values[2:] == [bool(flag) for flag in expected[2:]]
        assert all(type(flag) is bool for flag in values[2:])


def check_cleanly(env: Any) -> None:
    """Run Gymnasium's ``check_env`` and raise for any warning but those of the space.

    Natively these envs are warned of too: their spaces are infinite, and not in -1..1.
    """
    from gymnasium.utils.env_checker import check_env

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        check_env(env, skip_render_check=True)
    native = ("probably too", "recommend", "is different from the unwrapped")
    told = [str(one.message) for one in caught]
    assert not [text for text in told if not any(part in text for part in native)], told
