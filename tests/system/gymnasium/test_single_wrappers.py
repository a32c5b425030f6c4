"""Gymnasium's wrappers for single envs on ours, with the result that each must have."""

from typing import Any, Final

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import wrappers
from gymnasium.spaces import Dict, MultiDiscrete, Tuple
from moviepy import VideoFileClip
from packaging.version import Version

import ors_gym
from ors_gym.display._picture import FRAME_SHAPE
from ors_gym.wrappers import DiscreteTools, ParsedText
from tests.support.servers.process import RunningServer
from tests.system.gymnasium.mazes import ACTIONS, SEED, STEPS, Played, make, move, play


def upper(text: str) -> str:
    return text.upper()


def twice(reward: Any) -> Any:
    return 2 * reward


def same(got: Played, plain: Played) -> None:
    assert got == plain


def truncates(got: Played, plain: Played) -> None:
    assert got.observations == plain.observations[:3]
    assert got.ends == [(False, False), (False, True)]


def adds_statistics(got: Played, plain: Played) -> None:
    episode = got.infos[-1].pop("episode")
    assert episode["r"] == pytest.approx(sum(plain.rewards[:2]))
    assert episode["l"] == 2
    truncates(got, plain)


def in_capitals(got: Played, plain: Played) -> None:
    assert got.observations == [text.upper() for text in plain.observations]
    assert got.infos == plain.infos


def double(got: Played, plain: Played) -> None:
    assert got.rewards == [2 * reward for reward in plain.rewards]
    assert got.observations == plain.observations


def clipped(got: Played, plain: Played) -> None:
    assert got.rewards == [min(max(r, -0.01), 0.01) for r in plain.rewards]


def normalised(got: Played, plain: Played) -> None:
    assert np.isfinite(got.rewards).all()
    assert np.sign(got.rewards).tolist() == np.sign(plain.rewards).tolist()
    assert got.observations == plain.observations


def repeats(got: Played, plain: Played) -> None:
    # A bump that is made twice pays nothing twice, and takes two moves.
    assert got.rewards == [2 * plain.rewards[0]]
    assert "62 moves left" in got.observations[1]
    assert "62 moves left" not in plain.observations[1]


def sticks(got: Played, plain: Played) -> None:
    # Every action but the first is the first.
    assert len(set(got.rewards)) == 1
    assert all("There is a wall" in text for text in got.observations[1:])


def delays(got: Played, plain: Played) -> None:
    assert got.observations == ["", *plain.observations[:-1]]
    assert got.rewards == plain.rewards


def stacks(got: Played, plain: Played) -> None:
    texts = [plain.observations[0], *plain.observations]
    expected = [tuple(texts[i : i + 2]) for i in range(STEPS + 1)]
    assert [tuple(pair) for pair in got.observations] == expected


def tells_time(got: Played, plain: Played) -> None:
    assert [seen["obs"] for seen in got.observations] == plain.observations
    assert [int(seen["time"][0]) for seen in got.observations] == [*range(STEPS + 1)]


def keeps_text_only(got: Played, plain: Played) -> None:
    assert got.observations == [{"text": text} for text in plain.observations]


WORKS: list[Any] = [
    ("TimeLimit", lambda e: wrappers.TimeLimit(e, 2), truncates),
    ("OrderEnforcing", wrappers.OrderEnforcing, same),
    ("PassiveEnvChecker", wrappers.PassiveEnvChecker, same),
    (
        "RecordEpisodeStatistics",
        lambda e: wrappers.RecordEpisodeStatistics(wrappers.TimeLimit(e, 2)),
        adds_statistics,
    ),
    ("Autoreset", wrappers.Autoreset, same),
    (
        "TransformObservation",
        lambda e: wrappers.TransformObservation(e, upper, e.observation_space),
        in_capitals,
    ),
    ("TransformReward", lambda e: wrappers.TransformReward(e, twice), double),
    ("ClipReward", lambda e: wrappers.ClipReward(e, -0.01, 0.01), clipped),
    ("NormalizeReward", wrappers.NormalizeReward, normalised),
    (
        "RepeatAction",
        lambda e: wrappers.TimeLimit(wrappers.RepeatAction(e, 2), 1),
        repeats,
    ),
    ("StickyAction", lambda e: wrappers.StickyAction(e, 0.999_999), sticks),
    ("DelayObservation", lambda e: wrappers.DelayObservation(e, 1), delays),
    (
        "FrameStackObservation",
        lambda e: wrappers.FrameStackObservation(e, 2, padding_type="reset"),
        stacks,
    ),
    (
        "TimeAwareObservation",
        lambda e: wrappers.TimeAwareObservation(
            wrappers.TimeLimit(e, 9), flatten=False, normalize_time=False
        ),
        tells_time,
    ),
    # Text is left as it is, since it has no fixed size.
    ("FlattenObservation", wrappers.FlattenObservation, same),
]

NEW: Final = {
    "DiscretizeAction": "1.2.1",
    "DiscretizeObservation": "1.2.1",
    "RepeatAction": "1.3",
}
"""Since which version Gymnasium has what its oldest supported version lacks."""


def skip_if_new(name: str) -> None:
    if Version(gym.__version__) < Version(NEW.get(name, "0")):
        pytest.skip(f"Gymnasium has {name} from {NEW[name]} on")


# The wrappers that need arrays say so when they are made: with what, and how.
REFUSES: list[tuple[str, tuple[Any, ...], type[Exception]]] = [
    ("NormalizeObservation", (), ValueError),
    ("MaxAndSkipObservation", (2,), ValueError),
    ("DtypeObservation", (np.float32,), TypeError),
    ("DiscretizeObservation", (3,), TypeError),
    ("GrayscaleObservation", (), TypeError),
    ("ResizeObservation", ((4, 4),), TypeError),
    ("ReshapeObservation", ((1,),), TypeError),
    ("RescaleObservation", (np.float32(0), np.float32(1)), TypeError),
    ("ClipAction", (), TypeError),
    ("DiscretizeAction", (3,), TypeError),
    ("RescaleAction", (np.float32(0), np.float32(1)), TypeError),
]


@pytest.mark.parametrize(("name", "wrap", "check"), WORKS, ids=[w[0] for w in WORKS])
def test_works(plain, name, wrap, check, closing):
    skip_if_new(name)
    env = closing(wrap(make()))
    assert type(env).__name__ == name or check is repeats
    got = play(env, ACTIONS)
    check(got, plain)


@pytest.mark.parametrize(("name", "given", "error"), REFUSES)
def test_is_refused(name, given, error, closing):
    skip_if_new(name)
    env = closing(make())
    # Before 1.4 most of Gymnasium's wrappers asserted it.
    old = Version(gym.__version__) < Version("1.4")
    with pytest.raises((error, AssertionError) if old else error):
        getattr(wrappers, name)(env, *given)


def test_transform_action_gives_words_for_calls(plain: Played, closing) -> None:
    env = closing(wrappers.TransformAction(make(), move, ors_gym.FreeText()))
    words = [action["input"]["direction"] for action in ACTIONS]
    assert play(env, words) == plain


def test_filter_observation_takes_images_away(plain: Played, closing) -> None:
    env = closing(make(observation_mode="dict"))
    keeps_text_only(play(wrappers.FilterObservation(env, ["text"]), ACTIONS), plain)


def test_autoreset_goes_on_with_the_next_task(closing) -> None:
    env = closing(wrappers.Autoreset(gym.make("ors/blackjack")))
    env.reset(seed=3)
    stand = {"tool": "stand", "input": {}}
    assert env.step(stand)[2]
    observation, reward, terminated, truncated, info = env.step(stand)
    assert observation.startswith("Blackjack. Your hand")
    assert (reward, terminated, truncated, info["task_index"]) == (0.0, False, False, 4)


def test_order_enforcing_wants_a_reset_first(closing) -> None:
    env = closing(wrappers.OrderEnforcing(make().unwrapped))
    with pytest.raises(gym.error.ResetNeeded):
        env.step(ACTIONS[0])


def test_render_collection_keeps_each_transcript(plain: Played, closing) -> None:
    env = closing(wrappers.RenderCollection(make(render_mode="ansi")))
    play(env, ACTIONS[:2])
    frames: Any = env.render()
    assert len(frames) == 3
    assert frames[0] in frames[1]
    assert plain.observations[2] in frames[2]


def test_every_wrapper_is_in_the_table() -> None:
    apart = {
        *("TransformAction", "FilterObservation", "RenderCollection", "RecordVideo"),
        *("AddRenderObservation", "AddWhiteNoise", "ObstructView", "HumanRendering"),
    }
    # Of other array libraries, and of one game console.
    other = {
        *("ArrayConversion", "JaxToNumpy", "JaxToTorch", "NumpyToTorch"),
        "AtariPreprocessing",
    }
    listed = {row[0] for row in (*WORKS, *REFUSES)} | apart | other
    classes = {name for name in wrappers.__all__ if name[0].isupper()}
    assert classes - listed == set()


ROWS = r"row (\d+), column (\d+)"


def numbers(env: Any) -> Any:
    return DiscreteTools(ParsedText(env, ROWS, MultiDiscrete([20, 20])))


def floats(env: Any) -> Any:
    bounded = gym.spaces.Box(0, 20, (2,), np.float32)
    return DiscreteTools(ParsedText(env, ROWS, bounded))


def repeat_action(env: Any) -> Any:
    skip_if_new("RepeatAction")
    return wrappers.RepeatAction(numbers(env), 2)


def discretize_observation(env: Any) -> Any:
    skip_if_new("DiscretizeObservation")
    return wrappers.DiscretizeObservation(floats(env), 5)


@pytest.mark.parametrize(
    ("wrap", "shape"),
    [
        (lambda e: wrappers.NormalizeObservation(floats(e)), (2,)),
        (lambda e: wrappers.FlattenObservation(numbers(e)), (40,)),
        (lambda e: wrappers.MaxAndSkipObservation(floats(e), 2), (2,)),
        (lambda e: wrappers.DtypeObservation(numbers(e), np.int32), (2,)),
        (lambda e: wrappers.ReshapeObservation(floats(e), (2, 1)), (2, 1)),
        (
            lambda e: wrappers.RescaleObservation(
                floats(e), np.float32(-1), np.float32(1)
            ),
            (2,),
        ),
        (discretize_observation, ()),
        (lambda e: wrappers.FrameStackObservation(floats(e), 3), (3, 2)),
        (lambda e: wrappers.DelayObservation(numbers(e), 1), (2,)),
        (
            lambda e: wrappers.TimeAwareObservation(wrappers.TimeLimit(floats(e), 9)),
            (3,),
        ),
        (lambda e: wrappers.StickyAction(numbers(e), 0.5), (2,)),
        (repeat_action, (2,)),
    ],
)
def test_through_the_views_those_for_numbers_work(wrap, shape, closing):
    env = closing(wrap(make()))
    env.action_space.seed(1)
    observation, info = env.reset(seed=SEED)
    for _ in range(5):
        assert np.shape(observation) == shape
        assert observation in env.observation_space
        assert info["action_mask"].tolist() == [1, 1, 1, 1]
        observation, *_, info = env.step(env.action_space.sample(info["action_mask"]))


def test_frames_of_text_are_a_tuple_of_texts(closing) -> None:
    env = closing(wrappers.FrameStackObservation(make(), 3))
    assert isinstance(env.observation_space, Tuple)


def test_add_render_observation_adds_pixels(plain: Played) -> None:
    env = wrappers.AddRenderObservation(
        make(render_mode="rgb_array"), render_only=False, obs_key="text"
    )
    got = play(env, ACTIONS[:2])
    assert isinstance(env.observation_space, Dict)
    assert [seen["text"] for seen in got.observations] == plain.observations[:3]
    assert got.observations[0]["pixels"].dtype == np.uint8
    env.close()


def test_add_render_observation_can_be_the_frames_alone(closing) -> None:
    env = closing(wrappers.AddRenderObservation(make(render_mode="rgb_array")))
    got = play(env, ACTIONS[:2])
    assert [frame.shape for frame in got.observations] == [FRAME_SHAPE] * 3
    assert len({frame.tobytes() for frame in got.observations}) == 3


def test_wrappers_of_pictures_work(plain: Played) -> None:
    for wrap in (
        lambda e: wrappers.AddWhiteNoise(e, 0.5),
        lambda e: wrappers.ObstructView(e, 0.5, 2),
        wrappers.RenderCollection,
    ):
        env: Any = wrap(make(render_mode="rgb_array"))
        assert play(env, ACTIONS) == plain
        frames = env.render()
        for frame in frames if isinstance(frames, list) else [frames]:
            assert (frame.dtype, frame.shape[2]) == (np.uint8, 3)
        env.close()


def test_record_video_writes_a_film(tmp_path: Any) -> None:
    env: Any = wrappers.RecordVideo(
        make(render_mode="rgb_array"), str(tmp_path / "films"), disable_logger=True
    )
    play(wrappers.TimeLimit(env, 3), ACTIONS)
    env.close()
    (film,) = tmp_path.glob("films/*.mp4")
    with VideoFileClip(str(film)) as clip:
        frames = list(clip.iter_frames())
    assert {frame.shape for frame in frames} == {FRAME_SHAPE}
    # What the film shows is what was drawn, but for the losses of its encoding.
    assert len(frames) == 4
    assert abs(frames[-1].astype(int) - env.unwrapped.render()).mean() < 3


@pytest.mark.slow
def test_human_rendering_shows(plain, monkeypatch, closing):
    monkeypatch.setenv("SDL_VIDEODRIVER", "dummy")
    env = closing(wrappers.HumanRendering(make(render_mode="rgb_array")))
    assert play(env, ACTIONS) == plain


def test_images_are_delayed_and_stacked(server: RunningServer) -> None:
    # These wrappers of Gymnasium need an empty observation.
    image = {"tool": "image", "input": {}}
    for wrapper in (wrappers.DelayObservation, wrappers.FrameStackObservation):
        env = ors_gym.ORSEnv("contract", server.base_url, observation_mode="dict")
        wrapped = wrapper(env, 2)
        wrapped.reset(seed=0)
        observation = wrapped.step(image)[0]
        assert observation in wrapped.observation_space
        wrapped.close()
