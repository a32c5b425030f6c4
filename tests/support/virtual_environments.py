"""Virtual environments for tests, built once with pip alone, and cached.

For what cannot be installed beside the project: server SDKs that exclude each other,
and frameworks of gigabytes. ``ORS_GYM_TEST_VENVS`` names another place for them. They
hold no copy of the project, so that all checkouts share them. What the packages bring
along has the versions of a lock, so that no release of theirs breaks a test.
"""

import contextlib
import dataclasses
import fcntl
import hashlib
import importlib.util
import os
import shutil
import subprocess
import sys
import time
import tomllib
import venv
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT: Final = Path(__file__).parents[2]  # the checkout


class VenvBuildError(Exception):
    """Raised when something could not be installed, most often without a network."""


@dataclasses.dataclass(frozen=True, slots=True)
class Recipe:
    name: str
    # The arguments of each ``pip install``, in order.
    steps: tuple[tuple[str, ...], ...]
    timeout: float = 300.0  # seconds for one step

    @property
    def lock(self) -> Path:
        """Where ``python -m tests.locks`` writes the version of each package."""
        return ROOT / "tests" / "locks" / f"{self.name}.txt"

    @property
    def requirements(self) -> list[Requirement]:
        """What is installed together with its own requirements."""
        steps = [step for step in self.steps if not _is_alone(step)]
        return [Requirement(line) for step in steps for line in step]

    @property
    def directory(self) -> Path:
        """Where the environment is; another place for each other content and Python.

        A bound that changes makes no other environment while the lock keeps to it.
        """
        names = {
            (canonicalize_name(r.name), *sorted(r.extras)) for r in self.requirements
        }
        alone = [step for step in self.steps if _is_alone(step)]
        content = repr((sorted(names), alone, read_lock(self.lock)))
        digest = hashlib.sha256(content.encode()).hexdigest()[:10]
        python = f"py{sys.version_info.major}.{sys.version_info.minor}"
        return cache_directory() / f"{self.name}-{python}-{digest}"


def _is_alone(step: Sequence[str]) -> bool:
    return step[0] == "--no-deps"


def read_lock(lock: Path) -> list[str]:
    lines = lock.read_text(encoding="utf-8").splitlines() if lock.exists() else []
    return [line for line in lines if line and not line.startswith("#")]


def cache_directory() -> Path:
    chosen = os.environ.get("ORS_GYM_TEST_VENVS")
    if chosen:
        return Path(chosen).expanduser()
    cache = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(cache).expanduser() / "ors_gym" / "venvs"


def ensure(recipe: Recipe) -> Path:
    """Return the Python of an environment, building that first if need be.

    Several processes may ask at once: one builds, the others wait for it.
    """
    directory = recipe.directory
    interpreter = directory / "bin" / "python"
    complete = directory / "complete"
    # The interpreter is a link, which dangles once its Python was removed.
    if complete.exists() and interpreter.exists():
        return interpreter
    directory.parent.mkdir(parents=True, exist_ok=True)
    with locked(directory.with_name(f"{directory.name}.lock")):
        if not (complete.exists() and interpreter.exists()):
            shutil.rmtree(directory, ignore_errors=True)
            _build(recipe, directory, interpreter)
            complete.touch()
    return interpreter


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold an exclusive lock that ends with the process, however that ends."""
    with path.open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def _build(recipe: Recipe, directory: Path, interpreter: Path) -> None:
    if importlib.util.find_spec("pip") is None:
        raise VenvBuildError(
            f"cannot build the environment of {recipe.name}: pip is not installed "
            f"for {sys.executable}"
        )
    venv.create(directory, symlinks=True)
    for step in recipe.steps:
        _install(recipe, interpreter, step)
    # Byte code now, once, rather than in the first start in each run.
    subprocess.run(
        [interpreter, "-I", "-m", "compileall", "-q", directory / "lib"],
        check=False,
        capture_output=True,
        timeout=recipe.timeout,
    )


def _install(recipe: Recipe, interpreter: Path, step: Sequence[str]) -> None:
    command = [sys.executable, "-m", "pip", "--python", str(interpreter), "install"]
    command += ["--quiet", "--disable-pip-version-check", "--retries", "1", *step]
    if recipe.lock.exists() and not _is_alone(step):
        command += ["--constraint", str(recipe.lock)]
    try:
        done = subprocess.run(
            command,
            check=False,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=recipe.timeout,
        )
    except subprocess.TimeoutExpired as error:
        raise VenvBuildError(
            f"installing {' '.join(step)} for {recipe.name} took more than "
            f"{recipe.timeout:.0f} s"
        ) from error
    if done.returncode:
        raise VenvBuildError(
            f"could not install {' '.join(step)} for {recipe.name} (is there a "
            f"network?): {done.stdout.strip()[-1500:]}"
        )


def own_requirements(*extras: str) -> tuple[str, ...]:
    """Return what the project and these extras of it need, as the checkout says."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    optional: Mapping[str, list[str]] = project["optional-dependencies"]
    lists = [project["dependencies"], *(optional[extra] for extra in extras)]
    return tuple(line for lines in lists for line in lines)


def write_metadata(directory: Path) -> Path:
    """Make a directory from which Python knows that the project is installed.

    With it and the checkout in ``PYTHONPATH`` an environment runs that checkout.
    """
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    name, version = project["name"], project["version"]
    described = directory / f"{name.replace('-', '_')}-{version}.dist-info"
    described.mkdir(parents=True, exist_ok=True)
    text = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
    (described / "METADATA").write_text(text)
    return directory


def build_all(recipes: Mapping[str, Recipe], names: Sequence[str]) -> int:
    unknown = sorted(set(names) - set(recipes))
    if unknown:
        _say(f"unknown: {', '.join(unknown)}; known: {', '.join(recipes)}")
        return 2
    for name in names or recipes:
        start = time.monotonic()
        try:
            interpreter = ensure(recipes[name])
        except VenvBuildError as error:
            _say(f"{name}: {error}")
            return 1
        _say(f"{name:20} {time.monotonic() - start:6.1f} s  {interpreter}")
    return 0


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()
