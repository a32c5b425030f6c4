"""What the pages say of the layout is how the folders are."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.system.docs.pages import ROOT

pytestmark = pytest.mark.unit

TEXT = (ROOT / "docs" / "design.md").read_text(encoding="utf-8")
PAGES = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "SECURITY.md")),
    *(ROOT / "docs").glob("*.md"),
    *(ROOT / "notebooks").glob("*.ipynb"),
]


def tree() -> Iterator[str]:
    """Give the paths of the tree, from its lines and their indentation."""
    [block] = re.findall(r"```text\n(ors_gym/.*?)```", TEXT, re.DOTALL)
    folders: list[str] = []
    for line in block.splitlines():
        indent, name = re.match(r"( *)(\S+)", line).groups()  # type: ignore[union-attr]
        folders[len(indent) // 2 :] = [name.rstrip("/")]
        yield "/".join(folders)


def packages(folder: Path) -> set[str]:
    return {
        path.parent.relative_to(ROOT).as_posix()
        for path in folder.rglob("__init__.py")
        if path.parent != folder
    }


def test_the_tree_shows_every_package_and_nothing_else() -> None:
    listed = set(tree())
    assert {path for path in listed if not (ROOT / path).exists()} == set()
    assert packages(ROOT / "ors_gym") <= listed
    modules = {path for path in listed if re.fullmatch(r"ors_gym/.*\.py", path)}
    assert modules == {
        path.relative_to(ROOT).as_posix()
        for path in (ROOT / "ors_gym").glob("*.py")
        if not path.name.startswith("__")
    }


def test_every_package_has_a_folder_of_tests() -> None:
    for path in packages(ROOT / "ors_gym"):
        name = path.removeprefix("ors_gym/")
        if "/" not in name:
            assert (ROOT / "tests" / name).is_dir(), name


def test_every_path_that_a_page_names_is_there() -> None:
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        named = re.findall(r"`((?:ors_gym|tests|docs|benchmarks)/[\w./-]+)`", text)
        assert [path for path in named if not (ROOT / path).exists()] == [], page


def test_every_module_that_a_page_names_is_there() -> None:
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        for name in re.findall(r"\b((?:ors_gym|tests|benchmarks)(?:\.\w+)+)", text):
            if not is_module_or_its_name(name):
                raise AssertionError(f"{page.name} names {name}")


def is_module_or_its_name(dotted: str) -> bool:
    """Find the module, without importing it, and the rest as a word in its source."""
    parts = dotted.split(".")
    for count in range(len(parts), 0, -1):
        path = ROOT.joinpath(*parts[:count])
        file = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
        if file.exists():
            rest = parts[count : count + 1]
            return not rest or bool(re.search(rf"\b{rest[0]}\b", file.read_text()))
    return False
