"""Texts drawn from regular expressions, and searches that end."""

import re
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ors_gym.spaces._sampler import regex
from ors_gym.spaces._sampler.nodes import Unusable
from ors_gym.spaces._sampler.patterns import Pattern, Search, TooMuchError

pytestmark = pytest.mark.unit

SAMPLED = [
    "",
    "abc",
    "^abc$",
    "a|b|",
    "^(?:a|bc){2,3}$",
    r"^\d\D\w\W\s\S$",
    r"^[a-f0-9]{8}-[\w.-]+$",
    r"^[^a-z\d]{3}$",
    r"^[]a]$",
    r"^[a\]b^-]+$",
    r"^[\b\t\n]$",
    r"^[ж-я]{3}[β-ω]$",
    r"^[^\x00-\x7f]+$",
    r"^[\u4e00-\u9fff_]{2,}[\u0400-\u2fff]$",
    r"^(?:^a|b$)$",
    r"^\u00e9\x41\t$",
    r"^(?P<q>['\"]).*(?P=q)$",
    r"^(a|b)\1$",
    r"^(?i:ab)c$",
    r"(?i)^ab$",
    r"^(?>ab)c{2}+d*?$",
    r"^a{,2}b{3}c{4,}$",
    "^a{b}{$",
    r"^(?#a comment)x$",
    r"\bword\b",
    r"^\Ba|^a$",
    r"\Astart.*end\Z",
    r"^(?=.*[A-Z])(?=.*\d).{6,}$",
    r"^(?!admin)[a-z]{5}$",
    r"(?<=a)b",
    r"^.{3}$",
    r"^$",
    r"^\\\.\/\-\$",
    r"^[-+]?(\d+(\.\d*)?|\.\d+)([eE][-+]?\d+)?$",
    r"^#?([a-f0-9]{6}|[a-f0-9]{3})$",
    r"^P(?:\d+D)?(?:T(?:\d+H)?(?:\d+M)?)?$",
    r"^[a-z0-9]+(?:-[a-z0-9]+)*$",
    r"^((25[0-5]|2[0-4]\d|[01]?\d?\d)(\.|$)){4}$",
]


@pytest.mark.parametrize("pattern", SAMPLED)
def test_texts_match(pattern: str) -> None:
    sampler = Pattern(pattern, "#")
    texts = [sampler.draw(Random(seed), 0, None) for seed in range(50)]
    assert all(re.search(pattern, text) for text in texts)


@pytest.mark.parametrize("length", [5, 17, 100])
@pytest.mark.parametrize(
    "pattern", ["^[a-z]+-[a-z]+$", "x", "^a+b*$", r"^\w*$", "^.+$"]
)
def test_texts_have_the_length(pattern: str, length: int) -> None:
    sampler = Pattern(pattern, "#")
    for seed in range(20):
        assert len(sampler.draw(Random(seed), length, length)) == length
        assert len(sampler.draw(Random(seed), length, None)) >= length
        assert len(sampler.draw(Random(seed), 1, length)) <= length


@pytest.mark.parametrize(
    ("pattern", "reason"),
    [
        ("(", "cannot read"),
        ("[z-a]", "cannot read"),
        ("a**", "cannot read"),
        (r"\p{L}", "cannot read"),
        (r"[^\s\S]", "a class without characters"),
        ("(a)(?(1)b|c)", "an unknown kind of group"),
        (r"\N{BULLET}", "the escape"),
        ("(" * 60 + ")" * 60, "50 nested groups"),
        ("a{1000000000}", "too large a number"),
        ("^a{30000}", "needs 30000 characters"),
        ("a(?<!a)", "200 attempts"),
        ("^(a+)+$" * 2 + "(?=b)", "200 attempts"),
    ],
)
def test_what_cannot_be_drawn_says_why(pattern: str, reason: str) -> None:
    with pytest.raises(Unusable) as caught:
        Pattern(pattern, "#/pattern").draw(Random(1), 0, None)
    assert caught.value.path == "#/pattern"
    assert reason in caught.value.reason


@pytest.mark.parametrize(
    ("pattern", "texts"),
    [
        ("^$", [""]),
        ("^[ab]c?$", ["a", "ac", "b", "bc"]),
        ("^(a|b){2}$", ["aa", "ab", "ba", "bb"]),
        (r"^x{0}\d$", list("0123456789")),
        ("^(?:on|off)$", ["on", "off"]),
    ],
)
def test_finite_patterns_are_listed(pattern: str, texts: list[str]) -> None:
    sampler = Pattern(pattern, "#")
    assert list(sampler.texts()) == texts
    assert sampler.count() == len(texts)


@pytest.mark.parametrize("pattern", ["a", "^a", "a$", "^a*$", "^.$", r"^\s$", "^[^a]$"])
def test_other_patterns_have_no_end(pattern: str) -> None:
    assert Pattern(pattern, "#").count() is None


def test_counts_stay_small_numbers() -> None:
    pattern = "^" + "(?:" * 30 + "[a-z]" + "{0,99})" * 30 + "$"
    assert 10**12 <= (Pattern(pattern, "#").count() or 0) <= 10**15


CHARACTERS = st.sampled_from(["a", "b", ".", r"\d", "[a-c]", "[^a]", r"\.", "é"])


def compose(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    return st.one_of(
        st.builds("({})".format, inner),
        st.builds("(?:{}|{})".format, inner, inner),
        st.builds("(?:{}){}".format, inner, st.sampled_from("*+?") | st.just("{1,2}")),
        st.builds("{}{}".format, inner, inner),
    )


@settings(max_examples=200, deadline=None)
@given(st.recursive(CHARACTERS, compose, max_leaves=8), st.integers())
def test_any_pattern_is_drawn(pattern: str, seed: int) -> None:
    text = Pattern(f"^{pattern}$", "#").draw(Random(seed), 0, None)
    assert re.search(f"^{pattern}$", text)


@pytest.mark.filterwarnings("ignore::FutureWarning")
@settings(max_examples=300, deadline=None)
@given(st.text(alphabet="ab01()[]{}^$.|?*+\\-,:=!<>Pdwsb#", max_size=12))
def test_whatever_stands_in_a_pattern_is_read_or_refused(pattern: str) -> None:
    try:
        re.compile(pattern)
    except re.error:
        with pytest.raises(Unusable):
            Pattern(pattern, "#")
        return
    try:
        text = Pattern(pattern, "#").draw(Random(1), 0, None)
    except Unusable:
        return
    assert re.search(pattern, text)


def test_the_parser_refuses_on_its_own() -> None:
    for pattern in ("(", ")", "a\\", "[a", "(?P<x", "(?=a"):
        with pytest.raises(regex.UnsupportedPatternError):
            regex.parse(pattern)


# Each takes `re` time exponential, or a high power, of the length of such a text.
CATASTROPHES = [
    ("^(a+)+$", "a" * 5000 + "b"),
    ("^(a|a)*$", "a" * 5000 + "b"),
    ("^(a|aa)+$", "a" * 5000 + "b"),
    ("^(a*)*b$", "a" * 5000),
    ("(.*a){12}", "a" * 11 + "b" * 3000),
    ("^(a?){40}a{40}$", "a" * 39),
    ("a*" * 8 + "b", "a" * 2000),
    ("^([a-z]+-)*[a-z]+$", "a" * 3000 + "_"),
    (r"^(([a-z])+.)+[A-Z]([a-z])+$", "a" * 1000),
    (r"^(?!.*--)([a-z0-9]+-?)+$", "a" * 2000 + "!"),
]


@pytest.mark.parametrize(("pattern", "text"), CATASTROPHES)
def test_a_search_ends_after_counted_steps(pattern: str, text: str) -> None:
    found = Search(pattern).found(text)
    # What `re` would say, if it came to an end, shows on a short text.
    assert found is False


def test_a_search_that_no_automaton_can_do_is_refused() -> None:
    for pattern in (r"^(a+)+\1$", r"^(?>(a|b)*c)+$"):
        assert Search(pattern).found("b") is False
        with pytest.raises(TooMuchError, match="for ever"):
            Search(pattern).found("a" * 5000)


# Pydantic 2.13's for a Decimal with four digits, two of them after the point.
DECIMAL = r"^(?!^[-+.]*$)[+-]?0*(?:\d{0,2}|(?=[\d.]{1,5}0*$)\d{0,2}\.\d{0,2}0*$)"


@pytest.mark.parametrize("length", [9, 300, 20_000])
def test_lookaheads_are_searched_for_in_long_texts(length: int) -> None:
    assert Search(DECIMAL).found("-" * length) is False
    assert Search(DECIMAL).found("a" * length) is True
    assert Search(DECIMAL + "(?<=[.0])").found("0" * length) is True


@pytest.mark.parametrize("pattern", ["(?=a*b)a", "^(?=(a+)+b)a", "^(?=(.*a){12}b)a"])
def test_the_steps_of_lookaheads_are_counted(pattern: str) -> None:
    assert Search(pattern).found("aaab") is not None
    with pytest.raises(TooMuchError, match="steps"):
        Search(pattern).found("a" * 100_000)


SEARCHED = st.recursive(
    CHARACTERS | st.sampled_from(["^", "$", r"\b", r"\B", "(?=a)", "(?!b)", "(?<=a)"]),
    lambda inner: st.one_of(
        compose(inner),
        st.builds("(?i:{})".format, inner),
        st.builds("{}?".format, inner),
    ),
    max_leaves=8,
)


@pytest.mark.filterwarnings("ignore::FutureWarning")
@settings(max_examples=300, deadline=None)
@given(SEARCHED, st.text(alphabet="abAB.é1 \n", max_size=12))
def test_the_automaton_finds_what_re_finds(pattern: str, text: str) -> None:
    try:
        expected = re.search(pattern, text) is not None
    except re.error:
        return
    search = Search(pattern)
    search.longest_quick = -1
    assert search.found(text) == expected
