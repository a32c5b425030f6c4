"""The one filter of what a person is shown."""

import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ors_gym._shown_text import clean, warn
from ors_gym.errors import AmbiguousCallError, ORSError, ServerError

pytestmark = pytest.mark.unit

# Each of these a terminal, a page or a file cannot be given unchanged.
STEERING = [
    *(chr(code) for code in (*range(9), *range(11, 13), *range(14, 32))),
    *(chr(code) for code in range(127, 160)),
    *"\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069",
    *("\ud800", "\udfff"),
]


@pytest.mark.parametrize("character", STEERING)
def test_what_steers_is_replaced(character: str) -> None:
    assert clean(f"a{character}b") == "a\ufffdb"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "a\tb\nc",
        "a\r\nb",
        "\u05e9\u200f\u05dd",
        "👩\u200d👩\u200d👧",
        "\ue000",
        "a\u2028b",
    ],
)
def test_what_does_not_steer_stays(text: str) -> None:
    assert clean(text) == text


def test_a_carriage_return_that_would_overwrite_a_line() -> None:
    assert clean("ok\rno\r\r\n") == "ok\ufffdno\ufffd\r\n"


@given(st.text(st.characters(codec=None)))
def test_any_text_can_be_shown(text: str) -> None:
    shown = clean(text)
    shown.encode()
    assert not set(shown) & set(STEERING)
    assert len(shown) == len(text)
    assert clean(shown) == shown


@pytest.mark.parametrize(
    "said", ["\x1b]0;owned\x07", "\u202egnp.exe", "\ud800", "100%d"]
)
def test_an_error_is_shown_clean_and_kept_as_it_came(said: str) -> None:
    error = AmbiguousCallError(said, task_id="7f")
    assert str(error) == f"{error}" == clean(said)
    assert error.message == said
    for copied in (ServerError(error), pickle.loads(pickle.dumps(error))):
        assert (copied.message, str(copied)) == (said, clean(said))
    assert ORSError().message == str(ORSError()) == ""


def test_a_warning_is_shown_clean_in_the_name_of_its_caller() -> None:
    with pytest.warns(UserWarning, match="50%d of \ufffd") as told:
        warn("50%d of \x1b")
    assert told[0].filename == __file__
