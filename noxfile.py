"""Sessions of nox: what runs in an environment of its own, one for each version.

``nox --list`` shows them, ``nox --session tests-3.13`` runs one. Arguments after ``--``
replace those of pytest. The sessions with the tag ``ci`` are a job each on GitHub.
"""

from __future__ import annotations

import datetime as dt
import re
from functools import partial
from pathlib import Path

import nox

nox.needs_version = ">=2025.5.1"
nox.options.default_venv_backend = "uv"
nox.options.sessions = ["check"]
# With CI set, too: a Python that cannot be had is skipped and says so.
nox.options.error_on_missing_interpreters = False

ROOT = Path(__file__).parent
PYPROJECT = nox.project.load_toml("pyproject.toml")
VERSION = PYPROJECT["project"]["version"]
PYTHONS = nox.project.python_versions(PYPROJECT)  # the classifiers'
UNIT_TESTS = ("-m", "unit", "-n", "2")
GYMNASIUMS = ("1.2", "1.3", "1.4")
CI = ["ci"]
OUTSIDE = {"PYTHONPATH": ""}  # of the checkout
HOST = """
import subprocess, sys
from ors_gym.server import serve
with serve() as base_url:
    subprocess.run([*sys.argv[1:], base_url], check=True, timeout=60)
"""
PLAY = """
import sys
import gymnasium, ors_gym
env = gymnasium.make("ors/remote", env_name="guess", base_url=sys.argv[1])
env.action_space.seed(0)
env.reset(seed=0)
over, steps = False, 0
while not over:
    _, reward, terminated, truncated, _ = env.step(env.action_space.sample())
    over, steps = terminated or truncated, steps + 1
print(f"{steps} steps with {ors_gym.__file__}, reward {reward}")
"""


@nox.session(python=PYTHONS[0], tags=CI)
def check(session: nox.Session) -> None:
    """Run `.ci/check`: format, lint, types, import rules, unit tests."""
    session.install("-e", ".[test]")
    session.run(".ci/check", external=True)


@nox.session(python=PYTHONS, tags=CI)
def tests(session: nox.Session) -> None:
    """Run tests with the newest versions of all dependencies."""
    session.install("-e", ".[test]")
    session.run("pytest", *(session.posargs or UNIT_TESTS))


@nox.session(python=PYTHONS[0], tags=CI)
def lowest(session: nox.Session) -> None:
    """Run tests with the lowest versions that `pyproject.toml` allows."""
    session.install("--resolution", "lowest-direct", "-e", ".[test]")
    # Old releases that use what new ones of their own dependencies deprecate.
    quiet = ("-W", "default::DeprecationWarning")
    session.run("pytest", *quiet, *(session.posargs or UNIT_TESTS))


@nox.session(python=PYTHONS[0], tags=CI)
@nox.parametrize("version", GYMNASIUMS, ids=GYMNASIUMS)
def gymnasium(session: nox.Session, version: str) -> None:
    """Run tests with the last release of each supported version of Gymnasium."""
    session.install("-e", ".[test]", f"gymnasium=={version}.*")
    session.run("pytest", *(session.posargs or UNIT_TESTS))


@nox.session(python=PYTHONS[0], tags=CI)
def docs(session: nox.Session) -> None:
    """Build the site into `build/site`."""
    session.install("-e", ".[server,docs]")
    session.run("mkdocs", "build", "--strict")


@nox.session(python=PYTHONS[0], tags=CI)
def build(session: nox.Session) -> None:
    """Build `dist/`, check it, and play from the wheel outside the checkout."""
    tools = ("build==1.6.1", "twine==7.0.0", "check-wheel-contents==0.6.3")
    session.install(*tools, "pyroma==5.0.1")
    for old in (ROOT / "dist").glob("ors_gym-*"):
        old.unlink()
    session.run("python", "-m", "build", "--installer", "uv", silent=True)
    [wheel], [packed] = ROOT.glob("dist/*.whl"), ROOT.glob("dist/*.tar.gz")
    for file in (wheel, packed):
        session.log(f"{file.name}: {file.stat().st_size / 1e6:.2f} MB")
    session.run("twine", "check", "--strict", str(wheel), str(packed))
    session.run("check-wheel-contents", str(wheel))
    # What it misses is an address: of the project, and of an author.
    session.run("pyroma", "--min", "8", str(packed))
    session.install(f"ors-gym[server,eval] @ {wheel.as_uri()}")
    session.chdir(session.create_tmp())
    session.run("ors-gym", "demo", "--episodes", "1", env=OUTSIDE)


@nox.session(python=PYTHONS, tags=CI)
def wheel(session: nox.Session) -> None:
    """Play from the wheel with its core alone, and install each extra by itself.

    An extra that brings PyTorch is resolved and not installed.
    """
    session.chdir(session.create_tmp())
    scratch = Path.cwd()
    for old in scratch.glob("*.whl"):
        old.unlink()
    uv = partial(session.run, "uv", external=True, silent=True, log=False)
    uv("build", "--wheel", "--out-dir", str(scratch), str(ROOT))
    [built] = scratch.glob("*.whl")

    def clean(name: str) -> str:
        uv("venv", "--clear", "--python", session.virtualenv.bin + "/python", name)
        return str(scratch / name / "bin" / "python")

    core = clean("core")
    uv("pip", "install", "--python", core, str(built))
    session.install(f"ors-gym[server,eval] @ {built.as_uri()}")
    session.run("ors-gym", "demo", "--episodes", "1", env=OUTSIDE)
    session.run("python", "-c", HOST, core, "-c", PLAY, env=OUTSIDE)
    for extra in PYPROJECT["project"]["optional-dependencies"]:
        python = clean("extra")
        install = ("pip", "install", "--python", python, f"{built}[{extra}]")
        if "+ torch==" in str(uv(*install, "--dry-run")):
            session.log(f"{extra}: resolved")
            continue
        uv(*install)
        uv("pip", "check", "--python", python)
        module = {"otel": "opentelemetry"}.get(extra, extra)
        found = any((ROOT / "ors_gym" / "integrations").glob(f"{module}*"))
        name = f"ors_gym.integrations.{module}" if found else "ors_gym"
        session.run(python, "-c", f"import {name}", env=OUTSIDE, external=True)
        session.log(f"{extra}: installed, and {name} imported")


@nox.session(python=False)
def lock(session: nox.Session) -> None:
    """Write all locks anew; ``-- --upgrade`` takes the newest versions."""
    compile_ = "uv pip compile pyproject.toml --extra test --universal --quiet"
    command = f"{compile_} --python-version {PYTHONS[0]} --output-file pylock.toml"
    session.run(*command.split(), *session.posargs, external=True)
    # Those of the cached environments of the tests.
    session.run("python", "-m", "tests.locks", "--", *session.posargs, external=True)


@nox.session(python=False)
def release(session: nox.Session) -> None:
    """Make the unreleased part of the changelog that of the version, dated today."""
    if "Repository" not in PYPROJECT["project"]["urls"]:
        session.error("pyproject.toml: say in [project.urls] where the project is")
    changelog = ROOT / "CHANGELOG.md"
    text = changelog.read_text(encoding="utf-8")
    if f"## [{VERSION}]" in text:
        session.error(f"CHANGELOG.md has {VERSION}; set the next version")
    today = dt.datetime.now(tz=dt.UTC).date()
    changelog.write_text(cut(text, VERSION, today), encoding="utf-8")
    session.log(f"next: commit, git tag v{VERSION}, git push --tags")


@nox.session(python=False)
def released(session: nox.Session) -> None:
    """Check that a tag, the version and the changelog agree: ``-- v0.1.0``."""
    text = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    if session.posargs != [f"v{VERSION}"]:
        session.error(f"the tag {session.posargs} is not v{VERSION} of pyproject.toml")
    if not re.search(rf"^## \[{re.escape(VERSION)}\] - \d{{4}}-", text, re.MULTILINE):
        session.error(f"CHANGELOG.md has no {VERSION}: nox --session release")


def cut(changelog: str, version: str, day: dt.date) -> str:
    """Put the heading of a version below that of what is unreleased."""
    heading = "## [Unreleased]\n"
    return changelog.replace(heading, f"{heading}\n## [{version}] - {day}\n", 1)
