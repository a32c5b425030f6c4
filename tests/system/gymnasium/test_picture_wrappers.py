"""Gymnasium's wrappers that need a picture of the env, on what it renders."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from gymnasium import wrappers
from gymnasium.spaces import Dict
from moviepy import VideoFileClip

from ors_gym.display._picture import FRAME_SHAPE
from tests.system.gymnasium.mazes import ACTIONS, Played, make, play


def test_add_render_observation_adds_pixels(plain: Played) -> None:
    env = wrappers.AddRenderObservation(
        make(render_mode="rgb_array"), render_only=False, obs_key="text"
    )
    got = play(env, ACTIONS[:2])
    assert isinstance(env.observation_space, Dict)
    assert [seen["text"] for seen in got.observations] == plain.observations[:3]
    assert got.observations[0]["pixels"].dtype == np.uint8
    env.close()


def test_add_render_observation_can_be_the_frames_alone() -> None:
    env = wrappers.AddRenderObservation(make(render_mode="rgb_array"))
    got = play(env, ACTIONS[:2])
    assert [frame.shape for frame in got.observations] == [FRAME_SHAPE] * 3
    assert len({frame.tobytes() for frame in got.observations}) == 3
    env.close()


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
            assert frame.dtype == np.uint8
            assert frame.shape[2] == 3
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
def test_human_rendering_opens_a_window(
    plain: Played, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SDL_VIDEODRIVER", "dummy")
    env: Any = wrappers.HumanRendering(make(render_mode="rgb_array"))
    assert play(env, ACTIONS) == plain
    env.close()
