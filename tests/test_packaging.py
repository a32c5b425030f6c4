"""What a release, an installer and a contributor's tools read about the project."""

import datetime as dt
import re
import tomllib
from typing import Any

import pytest
from packaging.licenses import canonicalize_license_expression
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

import noxfile
from tests.locks.__main__ import RECIPES
from tests.support.virtual_environments import ROOT, read_lock

pytestmark = pytest.mark.unit

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
CHANGELOG = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
HEADING = re.compile(r"^## \[([^]]+)\](?: - (\d{4}-\d\d-\d\d))?$", re.MULTILINE)


def requirements(*extras: str) -> list[Requirement]:
    """Read what the project needs, and these extras with those that they name."""
    lines = [*PROJECT["dependencies"]]
    for extra in extras:
        lines += PROJECT["optional-dependencies"][extra]
    read = [Requirement(line) for line in lines]
    own = [one for one in read if one.name == PROJECT["name"]]
    more = [requirements(*one.extras) for one in own]
    return [one for one in read if one not in own] + [r for rs in more for r in rs]


def test_the_changelog_leads_to_the_version() -> None:
    (first, _), *released = HEADING.findall(CHANGELOG)
    assert first == "Unreleased"
    versions = [Version(version) for version, day in released if day]
    assert len(versions) == len(released) == CHANGELOG.count("\n## [") - 1
    assert versions == sorted(versions, reverse=True)
    # Either this version was released last, or it is the next one.
    assert all(version <= Version(PROJECT["version"]) for version in versions)


def test_a_release_dates_what_was_unreleased() -> None:
    unreleased = CHANGELOG.split("## [Unreleased]\n")[1]
    done = noxfile.cut(CHANGELOG, "9.8.7", dt.date(2030, 1, 2))
    (first, _), second, *_ = HEADING.findall(done)
    assert (first, second) == ("Unreleased", ("9.8.7", "2030-01-02"))
    assert done.endswith(f"## [Unreleased]\n\n## [9.8.7] - 2030-01-02\n{unreleased}")


def test_the_version_is_in_one_place() -> None:
    assert "\nversion:" not in (ROOT / "CITATION.cff").read_text()
    for path in (ROOT / "ors_gym").glob("*.py"):
        assert not re.search(r"__version__\s*=\s*[\"']", path.read_text()), path


def test_the_metadata_name_every_licence_in_the_wheel() -> None:
    expression = PROJECT["license"]
    assert canonicalize_license_expression(expression) == expression
    inside = {path.relative_to(ROOT).as_posix() for path in licences()}
    assert {"LICENSE", *inside} == set(PROJECT["license-files"])


def licences() -> list[Any]:
    return [p for p in (ROOT / "ors_gym").rglob("*") if p.name.startswith("LICEN")]


def test_the_lock_file_fits_the_requirements_of_contributors() -> None:
    packages = tomllib.loads((ROOT / "pylock.toml").read_text())["packages"]
    locked = [f"{package['name']}=={package['version']}" for package in packages]
    assert misfits(requirements("test"), locked) == [], "nox --session lock"


@pytest.mark.parametrize("name", RECIPES)
def test_the_lock_of_an_environment_fits_what_is_asked_of_it(name: str) -> None:
    asked, locked = RECIPES[name].requirements, read_lock(RECIPES[name].lock)
    assert misfits(asked, locked) == [], f"python -m tests.locks {name}"


def test_every_lock_is_of_an_environment() -> None:
    files = {path.stem for path in (ROOT / "tests" / "locks").glob("*.txt")}
    assert files == set(RECIPES)


def misfits(asked: list[Requirement], lines: list[str]) -> list[str]:
    """Tell of requirements that no locked version meets, or not each of them."""
    locked: dict[str, list[str]] = {}
    for one in map(Requirement, lines):
        locked.setdefault(canonicalize_name(one.name), []).append(str(one.specifier))
    told = []
    for one in asked:
        pins = locked.get(canonicalize_name(one.name), ["==0"])
        versions = [pin.removeprefix("==") for pin in pins]
        if not all(one.specifier.contains(v, prereleases=True) for v in versions):
            told.append(f"{one} but {versions} is locked")
    return told


def test_the_supported_pythons_are_those_that_are_tested() -> None:
    minor = re.compile(r"Programming Language :: Python :: (3\.\d+)$")
    named = [m[1] for c in PROJECT["classifiers"] if (m := minor.match(c))]
    assert named == noxfile.PYTHONS
    assert PROJECT["requires-python"] == f">={named[0]}"


def test_tools_are_pinned() -> None:
    tools = {
        "ruff",
        "mypy",
        "import-linter",
        "scipy-stubs",
        "zizmor",
        "check-jsonschema",
    }
    tools |= {one.name for one in requirements("test") if one.name.startswith("types-")}
    pinned = {r.name for r in requirements("test") if str(r.specifier)[:2] == "=="}
    assert tools <= pinned
