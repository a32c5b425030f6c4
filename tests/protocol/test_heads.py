"""Heads of requests: what could break out of a line is refused."""

from __future__ import annotations

import pytest

from ors_gym.errors import InvalidRequestError
from ors_gym.protocol._exchange import Head, find_header
from ors_gym.protocol._requests import call_head, environment_head, session_head


@pytest.mark.parametrize(
    "text", ["a\r\nb", "a\nb", "a\rb", "a\0b", "a\x7fb", "字", "a\n"]
)
def test_a_value_that_leaves_its_line_is_refused(text: str) -> None:
    with pytest.raises(InvalidRequestError, match="X-Session-ID") as caught:
        session_head("POST", "/ping", text)
    assert text not in str(caught.value)
    with pytest.raises(InvalidRequestError):
        call_head("math", text)


@pytest.mark.parametrize("name", ["", "a b", "a:b", "a\r\n", "é", "a\n"])
def test_a_name_that_is_not_a_token_is_refused(name: str) -> None:
    with pytest.raises(InvalidRequestError):
        Head("GET", "/", [(name, "value")])


@pytest.mark.parametrize(
    "target", ["", "x", "/a b", "/a\r\n", "/é", "/a\n", "http://h/"]
)
def test_a_target_that_is_not_a_path_is_refused(target: str) -> None:
    with pytest.raises(InvalidRequestError, match="request line"):
        Head("GET", target)


def test_a_method_that_is_not_a_token_is_refused() -> None:
    with pytest.raises(InvalidRequestError, match="request line"):
        Head("GET /", "/")


@pytest.mark.parametrize(
    ("name", "target"),
    [
        ("math", "/math/tools"),
        ("Salle à manger 房间", "/Salle%20%C3%A0%20manger%20%E6%88%BF%E9%97%B4/tools"),
        ("a/b?c#d%", "/a%2Fb%3Fc%23d%25/tools"),
        ("a\r\nb", "/a%0D%0Ab/tools"),
    ],
)
def test_names_of_environments_are_encoded(name: str, target: str) -> None:
    assert environment_head("GET", name, "tools").target == target


def test_find_header() -> None:
    lines = [(b"A", b"1"), (b"X-Two", b" 2 "), (b"x-two", b"3"), (b"L", b"\xe9")]
    assert find_header(lines, b"x-two") == "2"
    assert find_header(lines, b"l") == "é"
    assert find_header(lines, b"none") is None
