"""The cache of virtual environments, and running the checkout in one."""

import dataclasses
import os
from concurrent.futures import ThreadPoolExecutor
from importlib import metadata
from pathlib import Path

import pytest

from tests.support import virtual_environments as venvs
from tests.support.processes import run_python
from tests.support.servers.venvs import SDKS

OLDEST = SDKS["openreward-0.1.0"].recipe
OLDER = SDKS["openreward-0.1.9"].recipe


@pytest.fixture
def cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> pytest.MonkeyPatch:
    """An empty cache; what this gives undoes other changes with it."""
    monkeypatch.setenv("ORS_GYM_TEST_VENVS", str(tmp_path))
    return monkeypatch


def test_the_cache_may_be_placed_by_a_variable(monkeypatch, tmp_path):
    monkeypatch.delenv("ORS_GYM_TEST_VENVS", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert venvs.cache_directory() == tmp_path / "ors_gym" / "venvs"
    monkeypatch.setenv("ORS_GYM_TEST_VENVS", str(tmp_path / "here"))
    assert venvs.cache_directory() == tmp_path / "here"


def test_an_environment_is_built_once_for_many_askers(cache):
    built: list[str] = []

    def build(recipe: venvs.Recipe, directory: Path, interpreter: Path) -> None:
        built.append(recipe.name)
        interpreter.parent.mkdir(parents=True)
        interpreter.touch()

    cache.setattr(venvs, "_build", build)
    with ThreadPoolExecutor(4) as pool:
        paths = set(pool.map(venvs.ensure, [OLDEST, OLDER] * 4))
    assert sorted(built) == ["openreward-0.1.0", "openreward-0.1.9"]
    assert len(paths) == 2


def test_another_recipe_is_another_environment() -> None:
    changed = dataclasses.replace(OLDEST, steps=(*OLDEST.steps, ("pip",)))
    assert changed.directory != OLDEST.directory
    # Whoever waits longer for it gets the same, and a bound that the lock keeps to.
    assert dataclasses.replace(OLDEST, timeout=9.0).directory == OLDEST.directory
    (first, *others), *steps = OLDEST.steps
    bounded = ((f"{first}>=0.1", *others), *steps)
    assert dataclasses.replace(OLDEST, steps=bounded).directory == OLDEST.directory


def test_another_lock_is_another_environment(monkeypatch, tmp_path):
    before, text = OLDEST.directory, OLDEST.lock.read_text()
    monkeypatch.setattr(venvs, "ROOT", tmp_path)
    OLDEST.lock.parent.mkdir(parents=True)
    OLDEST.lock.write_text(f"# Another remark.\n{text}")
    assert OLDEST.directory == before
    OLDEST.lock.write_text(text.replace("fastapi==", "fastapi==9"))
    assert OLDEST.directory != before


def test_every_process_finds_the_same_environment() -> None:
    script = (
        "from tests.support.virtual_environments import Recipe;"
        "print(Recipe('x', (('gymnasium[box2d,jax,mujoco,other]',),)).directory)"
    )
    seeds = [{"PYTHONHASHSEED": str(seed)} for seed in range(3)]
    found = {run_python("-c", script, environment=seed).stdout for seed in seeds}
    assert len(found) == 1


def test_half_an_environment_is_built_anew(cache: pytest.MonkeyPatch) -> None:
    def fail(recipe: venvs.Recipe, directory: Path, interpreter: Path) -> None:
        interpreter.parent.mkdir(parents=True)
        interpreter.touch()
        raise venvs.VenvBuildError("no network")

    cache.setattr(venvs, "_build", fail)
    for _ in range(2):
        with pytest.raises(venvs.VenvBuildError, match="no network"):
            venvs.ensure(OLDEST)


def test_without_a_network_the_error_says_what_is_missing(cache, tmp_path):
    cache.setenv("PIP_NO_INDEX", "1")
    cache.setenv("PIP_FIND_LINKS", str(tmp_path))
    recipe = SDKS["ors-sdk-0.1.0"].recipe
    with pytest.raises(venvs.VenvBuildError, match=r"install ors-sdk==0\.1\.0"):
        venvs.ensure(recipe)


def test_own_requirements_are_those_that_are_declared() -> None:
    declared = metadata.requires("ors-gym") or []
    plain = {line.replace(" ", "") for line in declared if "extra ==" not in line}
    assert {line.replace(" ", "") for line in venvs.own_requirements()} == plain
    assert any(line.startswith("pillow") for line in venvs.own_requirements("images"))


def test_a_python_without_the_project_runs_the_checkout(tmp_path: Path) -> None:
    where = venvs.write_metadata(tmp_path / "metadata")
    script = "from importlib import metadata; print(metadata.version('ors-gym'))"
    path = {"PYTHONPATH": f"{venvs.ROOT}{os.pathsep}{where}"}
    # Without the packages that are installed here, the project among them.
    done = run_python("-S", "-c", script, environment=path)
    assert done.stdout.strip() == metadata.version("ors-gym")


def test_the_command_names_what_it_knows() -> None:
    done = run_python("-m", "tests.support.servers.venvs", "nonesuch")
    assert done.returncode == 2
    assert "openreward-0.1.167" in done.stdout
