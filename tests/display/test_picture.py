"""Frames: of one size, the newest in sight, for any text and any image."""

import sys

import gymnasium as gym
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import ors_gym
from ors_gym.display import _fonts
from ors_gym.display._fonts import drawable, load_font
from ors_gym.display._html import DARK
from ors_gym.display._picture import FRAME_SHAPE, draw_transcript, fit, wrap
from ors_gym.display._transcript import Entry, Transcript
from tests.display.episodes import picture


def colour(name: str) -> list[int]:
    return [int(DARK[name][i : i + 2], 16) for i in (1, 3, 5)]


def has_colour(frame: np.ndarray, rgb: list[int]) -> bool:
    return bool((frame == rgb).all(axis=2).any())


def begun(prompt: str = "Begin.") -> Transcript:
    transcript = Transcript()
    transcript.start(prompt, title="math", task="task 0 of train")
    return transcript


def test_an_image_stands_in_the_frame_and_a_broken_one_does_not_crash():
    transcript = begun()
    broken = {"type": "image", "data": "?", "mimeType": "image/png"}
    blocks = [broken, picture("#fa00fa")]
    transcript.add(Entry.of_step("look", {}, "seen", 0.5, blocks=blocks))
    frame = draw_transcript(transcript)
    assert has_colour(frame, [250, 0, 250])
    huge = [picture("#00fafa", (2000, 10)), *[picture("#0909fa")] * 9]
    transcript.add(Entry.of_step("look", {}, "seen", 0.5, blocks=huge))
    assert has_colour(draw_transcript(transcript), [0, 250, 250])


def test_rewards_and_failures_have_their_colours():
    transcript = begun()
    assert not has_colour(draw_transcript(transcript), colour("good"))
    transcript.add(Entry.of_step("submit", {}, "yes", 1.0))
    assert has_colour(draw_transcript(transcript), colour("good"))
    transcript.add(Entry.of_step("submit", {}, "no", 0.0, error_kind="tool_failed"))
    frame = draw_transcript(transcript)
    assert has_colour(frame, colour("warn"))
    assert has_colour(frame, colour("bad"))


def test_the_newest_turn_is_in_sight_and_old_ones_make_room():
    transcript = begun()
    frames = []
    for number in range(40):
        transcript.add(Entry.of_step("look", {"n": number}, "line\n" * 30, 0.0))
        frames.append(draw_transcript(transcript))
    assert len({frame.tobytes() for frame in frames}) == len(frames)
    assert {frame.shape for frame in frames} == {FRAME_SHAPE}
    # Nothing is drawn below the newest card.
    assert (frames[-1][-8:] == colour("ground")).all()


@settings(max_examples=40, deadline=None)
@given(text=st.text(max_size=300), call=st.text(max_size=50), reward=st.floats())
def test_any_text_is_drawn(text, call, reward):
    transcript = begun(text)
    transcript.add(Entry.of_step(call, {text[:9]: text}, text, reward, error_kind=call))
    frame = draw_transcript(transcript)
    assert frame.shape == FRAME_SHAPE
    assert frame.dtype == np.uint8


@settings(max_examples=200, deadline=None)
@given(
    text=st.text(max_size=400) | st.text("ab \n中", max_size=400),
    columns=st.integers(1, 40),
    most=st.integers(3, 9),
)
def test_lines_fit_and_lose_nothing(text, columns, most):
    font = load_font(18)
    shown = drawable(text, font)
    lines = wrap(shown, columns)
    assert all(len(line) <= columns for line in lines)
    assert "".join("".join(lines).split()) == "".join(shown.split())
    assert len(fit(text, font, columns, most)) <= most


def test_a_very_long_text_shows_its_ends():
    text = "\n".join(f"number {n}" for n in range(500_000))
    lines = fit(text, load_font(18), 40, 9)
    assert (lines[0], lines[-1]) == ("number 0", "number 499999")
    assert any("characters" in line for line in lines)


@pytest.fixture
def fonts_in(monkeypatch):
    """Let these folders be the only ones that have fonts."""
    caches = [_fonts.installed_fonts, _fonts._find_fallback, _fonts._draw_as]

    def choose(*folders):
        monkeypatch.setattr(_fonts, "_FOLDERS", folders)
        for cache in caches:
            cache.cache_clear()

    yield choose
    monkeypatch.undo()
    for cache in caches:
        cache.cache_clear()


def test_a_user_without_a_home_has_no_fonts_there(fonts_in, monkeypatch):
    def nobody(uid):
        raise KeyError(uid)

    fonts_in("~/.fonts")
    monkeypatch.delenv("HOME", raising=False)
    if sys.platform != "win32":
        monkeypatch.setattr("pwd.getpwuid", nobody)
    assert drawable("\u4e2d", load_font(18)) == "[U+4E2D]"


FACE, IDEOGRAPH = "\N{GRINNING FACE}", "\u4e2d"


def test_a_character_that_no_font_has_is_shown_by_name(fonts_in, tmp_path):
    fonts_in(tmp_path)
    shown = drawable(f"{FACE} {IDEOGRAPH}", load_font(18))
    assert shown == "[grinning face] [U+4E2D]"


def test_an_installed_font_draws_what_ours_lacks(fonts_in, tmp_path):
    matplotlib = pytest.importorskip("matplotlib")
    (tmp_path / "broken.ttf").write_text("this is no font")
    fonts_in(tmp_path, f"{matplotlib.get_data_path()}/fonts/ttf")
    assert drawable(FACE, load_font(18)) == FACE
    # The rest of the line stands where it stands after two letters.
    with_face, with_letters = (draw_transcript(begun(f"{x}|")) for x in (FACE, "nn"))
    bar = slice(66, 80)
    assert (with_face[60:120, bar] == with_letters[60:120, bar]).all()
    assert (with_face != with_letters).any()


def test_another_font_can_be_named(monkeypatch):
    monkeypatch.setenv("ORS_GYM_FONT", __file__)
    with pytest.raises(ors_gym.InvalidRequestError, match="ORS_GYM_FONT"):
        draw_transcript(begun())


def test_without_pillow_the_env_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "PIL.ImageDraw", None)
    with pytest.raises(ors_gym.MissingExtraError, match=r"ors-gym\[images\]"):
        ors_gym.ORSEnv("any", "http://127.0.0.1:1", render_mode="rgb_array")


def test_a_vector_env_gives_a_frame_for_each_env(closing):
    envs = closing(gym.make_vec("ors/guess", num_envs=2, render_mode="rgb_array"))
    envs.reset(seed=0)
    before = envs.render()
    envs.step([{"tool": "guess", "input": {"number": n}} for n in (1, 2)])
    frames = [*before, *envs.render()]
    assert {frame.shape for frame in frames} == {FRAME_SHAPE}
    assert len({frame.tobytes() for frame in frames}) == 4
