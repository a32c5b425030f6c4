"""What the server of a process refuses."""

from urllib.parse import urlsplit

import httpx
import pytest


def ask(base_url: str, **headers: str) -> int:
    with httpx.Client(trust_env=False) as client:
        reply = client.post(
            f"{base_url}/guess/num_tasks", json={"split": "test"}, headers=headers
        )
    return reply.status_code


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "[::1]", "LOCALHOST"])
def test_a_request_to_this_machine_is_answered(bundled_url: str, host: str) -> None:
    port = urlsplit(bundled_url).port
    assert ask(bundled_url, host=host) == 200
    assert (
        ask(bundled_url, host=f"{host}:{port}", origin=f"http://{host}:{port}") == 200
    )


@pytest.mark.parametrize(
    "headers",
    [
        {"host": "rebound.example"},
        {"host": "rebound.example:80"},
        {"host": "127.0.0.1.rebound.example"},
        {"host": ""},
        {"origin": "http://rebound.example"},
        {"origin": "https://127.0.0.1"},
        {"origin": "null"},
    ],
)
def test_a_request_of_a_web_page_is_refused(
    bundled_url: str, headers: dict[str, str]
) -> None:
    assert ask(bundled_url, **headers) == 403
