"""The cache of SDK environments."""

from __future__ import annotations

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.servers import venvs


def test_the_cache_may_be_placed_by_a_variable(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("ORS_GYM_TEST_VENVS", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert venvs.cache_directory() == tmp_path / "ors_gym" / "venvs"
    monkeypatch.setenv("ORS_GYM_TEST_VENVS", str(tmp_path / "here"))
    assert venvs.cache_directory() == tmp_path / "here"


def test_an_environment_is_built_once_however_many_ask(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    built: list[str] = []

    def build(sdk: venvs.Sdk, directory: Path, interpreter: Path) -> None:
        built.append(sdk.name)
        interpreter.parent.mkdir(parents=True)
        interpreter.touch()

    monkeypatch.setenv("ORS_GYM_TEST_VENVS", str(tmp_path))
    monkeypatch.setattr(venvs, "_build", build)
    with ThreadPoolExecutor(4) as pool:
        names = ["openreward-0.1.0", "openreward-0.1.9"] * 4
        paths = set(pool.map(venvs.ensure_venv, names))
    assert sorted(built) == ["openreward-0.1.0", "openreward-0.1.9"]
    assert len(paths) == 2


def test_half_an_environment_is_built_anew(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def fail(sdk: venvs.Sdk, directory: Path, interpreter: Path) -> None:
        interpreter.parent.mkdir(parents=True)
        interpreter.touch()
        raise venvs.VenvBuildError("no network")

    monkeypatch.setenv("ORS_GYM_TEST_VENVS", str(tmp_path))
    monkeypatch.setattr(venvs, "_build", fail)
    for _ in range(2):
        with pytest.raises(venvs.VenvBuildError, match="no network"):
            venvs.ensure_venv("openreward-0.1.0")


def test_without_a_network_the_error_says_what_is_missing(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("ORS_GYM_TEST_VENVS", str(tmp_path))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    with pytest.raises(venvs.VenvBuildError, match=r"install openreward==0\.1\.0"):
        venvs.ensure_venv("openreward-0.1.0")


def test_the_command_names_what_it_knows() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.servers.venvs", "nonesuch"],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 2
    assert "openreward-0.1.167" in done.stdout
