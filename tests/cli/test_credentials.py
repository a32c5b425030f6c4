"""Keys, headers and secrets, which every command that asks a server takes."""

import hashlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from ors_gym.cli import main
from tests.cli.running import run
from tests.support.proxy.gateway import KEY, Gateway
from tests.support.servers.process import RunningServer

SECRET = "hunter22"
DIGEST = hashlib.sha256(SECRET.encode()).hexdigest()
CREDENTIALS = ("--api-key", "PLATFORM_KEY", "--secret", "TOKEN:api.mine.org")
TOLD = {"value": SECRET, "allowed_domains": ["api.mine.org"]}


@pytest.fixture
def gateway(
    server: RunningServer, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Gateway]:
    monkeypatch.setenv("PLATFORM_KEY", KEY)
    monkeypatch.setenv("TOKEN", SECRET)
    with Gateway({"Owner/Name": server.base_url}) as gateway:
        yield gateway


@pytest.mark.slow
@pytest.mark.parametrize(
    ("command", "said"),
    [
        ("list URL --header X-Deployment=Owner/Name", "split train: 12 tasks"),
        ("check URL Owner/Name --no-calls", "pass    set-up"),
        ("check URL contract --no-calls --header X-Deployment=Owner/Name", "set-up"),
        ("eval Owner/Name --url URL --tasks 1 --max-turns 1", "episodes"),
        ("play Owner/Name --url URL --task 3", "3 + 3 = ?"),
    ],
)
def test_a_command_behind_a_gateway(gateway, server, command, said) -> None:
    words = [word.replace("URL", gateway.url) for word in command.split()]
    done = run(*words, *CREDENTIALS, typed="q\n")
    assert said in done.stdout
    assert "\nfail " not in done.stdout
    built = server.log("construct")
    assert all(entry["secrets"] == {"TOKEN": DIGEST} for entry in built)
    assert bool(built) is not command.startswith("list")
    assert server.open_sessions() == set()
    assert all(told == {"TOKEN": TOLD} for told in gateway.secrets_told())


@pytest.mark.parametrize(
    "command", ["play Owner/Name", "eval Owner/Name --tasks 1 --max-turns 1"]
)
def test_the_key_is_shared_with_the_environment_if_asked(gateway, command) -> None:
    given = (*command.split(), "--url", gateway.url, *CREDENTIALS, "--share-api-key")
    run(*given, typed="q\n")
    (told,) = gateway.secrets_told()
    assert told["api_key"]["value"] == told["OPENREWARD_API_KEY"]["value"] == KEY


def test_an_evaluation_is_replayed_with_its_secret(gateway, server, tmp_path) -> None:
    given = ("--url", gateway.url, *CREDENTIALS)
    output = ("--output", str(tmp_path / "run.jsonl"))
    run("eval", "Owner/Name", "--tasks", "1", "--max-turns", "1", *output, *given)
    assert SECRET not in (tmp_path / "run.jsonl").read_text()
    server.mark()
    assert "the same" in run("replay", str(tmp_path / "run.jsonl"), *given).stdout
    (entry,) = server.log("construct")
    assert entry["secrets"] == {"TOKEN": DIGEST}


def test_values_come_from_files(gateway: Gateway, tmp_path: Path) -> None:
    (tmp_path / "key").write_text(f"{KEY}\n")
    (tmp_path / "token").write_text(f"{SECRET}\n")
    run(
        *("eval", "contract", "--url", gateway.url, "--tasks", "1", "--max-turns", "1"),
        *("--header", "X-Deployment=Owner/Name", "--header", "X-API-Key=@key"),
        *("--secret", "TOKEN:a.org,b.org=@token"),
        cwd=tmp_path,
    )
    told = {"value": SECRET, "allowed_domains": ["a.org", "b.org"]}
    assert gateway.secrets_told() == [{"TOKEN": told}]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--secret", "TOKEN=hunter22"), "could read the value of TOKEN"),
        (("--secret", "MISSING_TOKEN"), "variable MISSING_TOKEN is not set"),
        (("--secret", "TOKEN=@nowhere"), "nowhere cannot be read"),
        (("--header", "Authorization=Bearer hunter22"), "could read the value of Auth"),
        (("--secret", "hunter22="), "could read the value of NAME"),
        (("--secret", "hunter22=="), "could read the value of NAME"),
        (("--secret", "hunter22/x=y"), "could read the value of NAME"),
        (("--secret", "TOKEN:a.org=hunter22"), "could read the value of TOKEN"),
        (("--header", "Authorization: Bearer hunter22="), "write NAME=VALUE"),
        (("--header", "X-Mine: hunter22="), "write NAME=VALUE"),
        (("--header", "X-Token-hunter22="), "the value of NAME"),
        (("--header", "X-Deployment"), "write NAME=VALUE"),
        (("--api-key", "sk-hunter22"), "not the value itself"),
        (("--api-key", "MISSING_KEY"), "variable MISSING_KEY is not set"),
    ],
)
def test_a_value_on_the_command_line_is_refused(capsys, words, said) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["list", *words])
    assert ended.value.code == 2
    complained = capsys.readouterr().err
    assert said in complained
    assert "hunter22" not in complained
