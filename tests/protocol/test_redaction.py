"""Secrets stay out of every text."""

import base64
import html
import html.entities
import json
import pickle
import re
from collections.abc import Callable
from urllib.parse import quote, quote_plus

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from ors_gym.errors import AmbiguousCallError, ORSError, ToolRejectedError
from ors_gym.protocol._exchange import Outcome
from ors_gym.protocol._redaction import (
    HiddenBytes,
    Redactor,
    hide,
    is_secret_name,
    secrets_of_header,
)
from ors_gym.protocol._replies import server_text, status_error
from tests.protocol.scripted_exchanges import SETTINGS, RecordingServer, open_state

pytestmark = pytest.mark.unit

SECRETS = ["hunter22", "q\"u\\o'te\n<&>", "pässwörd 字", "a+b/c==?&", "sk-" + "x" * 200]


def forms(secret: str) -> dict[str, str]:
    raw = secret.encode()
    return {
        "plain": secret,
        "JSON": json.dumps(secret),
        "JSON without escapes": json.dumps(secret, ensure_ascii=False),
        "repr": repr(secret),
        "HTML": html.escape(secret),
        "percent": quote(raw, safe=""),
        "percent with slashes": quote(raw),
        "form": quote_plus(raw),
        "lower percent": re.sub("%..", lambda found: found[0].lower(), quote(raw, "")),
        "base64": base64.b64encode(raw).decode(),
    }


@pytest.mark.parametrize("secret", SECRETS)
def test_every_form_is_hidden(secret: str) -> None:
    redact = Redactor([secret, "another"])
    for name, form in forms(secret).items():
        told = redact(f"before {form} after")
        assert "[redacted]" in told, name
        assert form not in told, name
        assert told.startswith("before")
        assert told.endswith("after")


def _as_entities(text: str) -> str:
    return "".join(c if c.isalnum() else f"&#{ord(c):03};" for c in text)


def _as_named_entities(text: str) -> str:
    names = {character: name for name, character in html.entities.html5.items()}
    return "".join(f"&{names[c]}" if c in names else c for c in text)


ESCAPES: dict[str, Callable[[str], str]] = {
    "JSON": lambda text: json.dumps(text)[1:-1],
    "JSON without escapes": lambda text: json.dumps(text, ensure_ascii=False)[1:-1],
    "JSON for HTML": lambda text: re.sub(
        "[<>&'/]", lambda c: f"\\u{ord(c[0]):04X}", json.dumps(text)[1:-1]
    ),
    "repr": lambda text: repr(text)[1:-1],
    "bytes": lambda text: repr(text.encode())[2:-1],
    "HTML": html.escape,
    "HTML in an element": lambda text: html.escape(text, quote=False),
    "HTML by number": _as_entities,
    "HTML by name": _as_named_entities,
    "percent": lambda text: quote(text, safe=""),
    "percent in lower case": lambda text: re.sub(
        "%..", lambda found: found[0].lower(), quote(text)
    ),
    "form": quote_plus,
}


@pytest.mark.parametrize("secret", SECRETS)
@pytest.mark.parametrize("inner", ESCAPES)
@pytest.mark.parametrize("outer", ESCAPES)
def test_what_was_escaped_twice_is_hidden(secret: str, inner: str, outer: str) -> None:
    form = ESCAPES[outer](ESCAPES[inner](secret))
    assert Redactor([secret])(f"<{form}>") == "<[redacted]>"


@example("000\U00100000", ["repr"])
@given(
    st.text(st.characters(exclude_categories=["Cs"]), min_size=4, max_size=20),
    st.lists(st.sampled_from(sorted(ESCAPES)), max_size=3),
)
def test_however_it_was_escaped_it_is_hidden(secret: str, escapes: list[str]) -> None:
    form = secret
    for name in escapes:
        form = ESCAPES[name](form)
    assert Redactor([secret])(form) == "[redacted]"


@pytest.mark.parametrize("sign", ["\\", "%25", "&amp;", "&#", "\\u0026", "%5c", "0"])
def test_a_server_cannot_make_it_slow(sign: str) -> None:
    redact = Redactor(["'\\\\'\\\\'&%\"\\" * 4])
    text = sign * (2**16 // len(sign))
    assert redact(text) == text


@pytest.mark.parametrize(
    ("value", "parts"),
    [
        ("hunter22", {"hunter22"}),
        ("Bearer hunter22==", {"hunter22=="}),
        ("a passphrase of words", {"a passphrase of words"}),
        ("sid=hunter22; csrf=sword%2Ffish", {"hunter22", "sword%2Ffish", "sword/fish"}),
        ('Digest username="u", response="hunter22"', {"hunter22"}),
        ("Basic dXNlcjpodW50ZXIyMg==", {"dXNlcjpodW50ZXIyMg==", "hunter22"}),
        ("Basic no base64", set()),
    ],
)
def test_what_is_secret_in_a_header(value: str, parts: set[str]) -> None:
    found = set(secrets_of_header(value))
    assert {value, *parts} <= found
    assert "words" not in found


def test_an_error_and_what_led_to_it_are_cleared() -> None:
    try:
        try:
            raise AmbiguousCallError("call hunter22", task_id="hunter22")
        except ORSError as first:
            raise ToolRejectedError("so \x1bhunter22", reason="hunter22") from first
    except ORSError as error:
        Redactor(["hunter22"]).clear(error)
        assert error.message == "so \x1b[redacted]"
        for link in (error, error.__cause__):
            assert "hunter22" not in f"{link} {vars(link)} {link!r}"
            assert b"hunter22" not in pickle.dumps(link)


def test_held_secrets_do_not_show_themselves() -> None:
    held = hide(
        {"A": "hunter22", "B": ("hunter22", ["hunter22.org"]), "C": ["hunter22"]}
    )
    assert "hunter22" not in repr(held) + repr(HiddenBytes(b"hunter22"))
    for part in (slice(None, 4), slice(1, None)):
        assert "unt" not in repr(held["A"][part])
        assert "unt" not in repr(HiddenBytes(b"hunter22")[part])
    assert held["A"] == "hunter22"
    assert json.loads(json.dumps(held))["B"] == ["hunter22", ["hunter22.org"]]
    assert pickle.loads(pickle.dumps(held)) == held
    assert hide(None) is None


@pytest.mark.parametrize("secret", SECRETS)
@pytest.mark.parametrize("before", ["", "a", "ab", "abc"])
def test_a_secret_within_base64_is_hidden(secret: str, before: str) -> None:
    whole = json.dumps({f"{before}NAME": {"value": secret}})
    for encode in (base64.b64encode, base64.urlsafe_b64encode):
        told = Redactor([secret])(encode(whole.encode()).decode())
        assert "[redacted]" in told
        # What is left at the ends does not hold four characters of it.
        left = [len(part) for part in told.split("[redacted]")]
        assert sum(left) < len(base64.b64encode(whole.encode())) - len(secret)


def test_a_secret_of_four_characters_is_hidden() -> None:
    redact = Redactor(["k3y!"])
    for before in (b"", b"a", b"ab", b"abc"):
        encoded = base64.b64encode(before + b"k3y!" + before).decode()
        assert "[redacted]" in redact(f"it is {encoded}")
    assert redact("it is k3y!") == "it is [redacted]"


@pytest.mark.parametrize(
    ("secrets", "text", "told"),
    [
        (["abc", ""], "abcabc", "abcabc"),
        (["hunter22", "swordfish"], "hunter22 swordfish", "[redacted] [redacted]"),
        # The longer one first, or a part of it would be left.
        (["hunter22", "hunter2233"], "hunter2233", "[redacted]"),
    ],
)
def test_what_is_a_secret(secrets: list[str], text: str, told: str) -> None:
    assert Redactor(secrets)(text) == told


def test_nothing_shows_what_it_hides() -> None:
    redact = Redactor(["hunter22"])
    assert redact.adding([]) is redact
    assert str(redact) == "Redactor(1 secret)"
    assert repr(redact.adding(["swordfish"])) == "Redactor(2 secrets)"


def test_a_secret_at_the_cut_of_a_message_is_hidden_whole() -> None:
    redact = Redactor(["swordfish-9"])
    for filler in range(480, 505):
        for body in (
            "x" * filler + "swordfish-9",
            json.dumps({"detail": "x" * filler + "swordfish-9"}),
        ):
            assert "swor" not in server_text(body.encode(), redact)


def test_the_input_of_a_422_is_not_repeated() -> None:
    message = "Extra inputs are not permitted"
    sent = {"KEY": "short", "OTHER": "swordfish"}
    detail = {"loc": ["body", "secrets"], "msg": message, "input": sent}
    body = json.dumps({"detail": [detail]}).encode()
    error = status_error(
        Outcome(status=422), body, "POST /create", Redactor(), SETTINGS
    )
    assert f"body.secrets: {message}" in str(error)
    for secret in ("short", "swordfish"):
        assert secret not in str(error)
        assert secret not in repr(error)
        assert secret.encode() not in pickle.dumps(error)


@pytest.mark.parametrize("status", [302, 400, 401, 404, 418, 422, 500, 503])
def test_no_error_holds_a_secret(status: int) -> None:
    redact = Redactor(["swordfish"])
    outcome = Outcome(status=status, headers=[(b"Location", b"/?key=swordfish")])
    for shape in (b"%s", b'{"detail": "%s"}', b'["%s"]', b'{"a": "%s"}'):
        body = shape % b"swordfish"
        error = status_error(outcome, body, "GET /x", redact, SETTINGS)
        assert isinstance(error, ORSError)
        assert b"swordfish" not in pickle.dumps(error)


def test_what_a_client_knows_does_not_show_its_secrets() -> None:
    server = RecordingServer(redact=Redactor(["hunter22"]))
    state = open_state("swordfish")
    shown = f"{server!r} {server} {state!r} {state.redact!r} {server.dialect!r}"
    assert "hunter22" not in shown
    assert "swordfish" not in shown


@pytest.mark.parametrize(
    ("name", "secret"),
    [
        ("X-API-Key", True),
        ("authorization", True),
        ("Cookie", True),
        ("HF_TOKEN", True),
        ("PGPASSWORD", True),
        ("AWS_CREDENTIALS", True),
        ("X-Deployment", False),
        ("HOME", False),
    ],
)
def test_names_that_are_likely_to_hold_a_secret(name: str, secret: bool) -> None:
    assert is_secret_name(name) is secret
