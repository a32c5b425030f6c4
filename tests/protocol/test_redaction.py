"""Secrets stay out of every text."""

import base64
import html
import json
import pickle
import re
from urllib.parse import quote, quote_plus

import pytest

from ors_gym.errors import ORSError
from ors_gym.protocol._exchange import Outcome
from ors_gym.protocol._redaction import Redactor
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
