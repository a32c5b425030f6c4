"""The pages of the documentation and the README run as a reader runs them."""

import configparser
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from ors_gym.server import BUNDLED, serve
from ors_gym.testing._checks import CHECKS
from tests.rollout.chat_server import running_chat_server
from tests.system.docs.architecture import PICTURE, draw, read_layers
from tests.system.docs.environment_pages import FOLDER, write_page
from tests.system.docs.pages import ROOT, python_blocks, run_page

DOCS = ROOT / "docs"
OWN_TESTS = {"frameworks.md"}  # in test_frameworks_page.py
PAGES = sorted({page.name for page in DOCS.glob("*.md")} - OWN_TESTS)
PAGES += [f"environments/{name}.md" for name in BUNDLED]
EXPECTED = {"index.md": "success rate", "environments.md": "0 fail", "wire.md": "1.0"}
LINK = re.compile(r"\]\(((?!http|#)[^)#]+)")


@pytest.fixture(scope="module")
def addresses() -> Iterator[dict[str, str]]:
    """Processes in the place of what readers have: a model's server, a gateway."""
    with running_chat_server() as chat, serve() as base_url:
        model = chat.script({"calls": [["call_1", "submit", {"answer": "7"}]]})
        yield {
            "http://127.0.0.1:8000/v1": chat.base_url,
            "Qwen/Qwen3-4B": model,
            "https://gateway.example.com/ors": base_url,
        }


@pytest.mark.slow
@pytest.mark.parametrize("name", PAGES)
def test_a_page_runs(name: str, addresses: dict[str, str], tmp_path: Path) -> None:
    page = DOCS / name
    if not any(block.runs for block in python_blocks(page)):
        pytest.skip("no block of this page runs")
    done = run_page(page, tmp_path, addresses=addresses)
    assert done.returncode == 0, done.stderr
    assert EXPECTED.get(name, "") in done.stdout


def test_a_block_that_does_not_run_says_so(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text('```python\na = 1\n```\n\n```python title="Not run by the tests')
    with page.open("a") as handle:
        handle.write(': no"\n1 / 0\n```\n\n```python\nprint(a)\n1 / 0\n```\n')
    assert [block.runs for block in python_blocks(page)] == [True, False, True]
    done = run_page(page, tmp_path)
    assert done.stdout == "1\n"
    assert f'"{page}", line 11' in done.stderr


@pytest.mark.parametrize("name", ["README.md", "CONTRIBUTING.md", "SECURITY.md"])
def test_the_files_that_a_text_names_are_there(name: str) -> None:
    for target in LINK.findall((ROOT / name).read_text()):
        assert (ROOT / target).exists(), target


def test_each_promise_names_its_tests() -> None:
    promised, _ = (ROOT / "SECURITY.md").read_text().split("## Not promised")
    promises = re.split(r"^- ", promised, flags=re.MULTILINE)[1:]
    assert promises
    assert [promise for promise in promises if "](tests/" not in promise] == []


def test_the_page_for_authors_names_each_check() -> None:
    text = (DOCS / "environments.md").read_text()
    assert [check.name for check in CHECKS if f"`{check.name}`" not in text] == []


def test_the_picture_of_the_architecture_shows_the_rules_that_are_checked() -> None:
    assert PICTURE.read_text(encoding="utf-8") == draw(), (
        "the layers changed: python -m tests.system.docs.architecture"
    )
    layers = [name for layer in read_layers() for name in layer]
    rules = configparser.ConfigParser()
    rules.read(ROOT / "setup.cfg")
    written = rules["importlinter:contract:layers"]["layers"]
    checked = re.findall(r"ors_gym\.(\w+)", written)
    assert layers == checked


@pytest.mark.parametrize("name", BUNDLED)
def test_the_page_of_an_environment_says_what_its_class_does(name: str) -> None:
    assert (FOLDER / f"{name}.md").read_text(encoding="utf-8") == write_page(name), (
        "an environment changed: python -m tests.system.docs.environment_pages"
    )
    assert {page.stem for page in FOLDER.glob("*.md")} == set(BUNDLED)


README = ROOT / "README.md"
EXTRAS = (
    r"(?:ors-gym|\"\.|'\.)\[([\w,]+)\]|"
    r"(?:needs_extra\(|import_extra\(\s*[\w.\"]+,)\s*\"(\w+)\""
)


def test_the_code_of_the_readme_runs(tmp_path: Path) -> None:
    assert sum(block.runs for block in python_blocks(README)) >= 3
    done = run_page(README, tmp_path)
    assert done.returncode == 0, done.stderr
    assert "success rate" in done.stdout


def test_the_readme_has_a_complete_loop_within_its_first_lines() -> None:
    head = README.read_text().splitlines()[:20]
    assert any("gym.make(" in line for line in head)
    assert "env.close()" in head


def test_the_extras_that_are_named_anywhere_are_there() -> None:
    root = README.parent
    project = tomllib.loads((root / "pyproject.toml").read_text())["project"]
    pages = [README, *root.glob("docs/*.md"), *root.glob("notebooks/*.ipynb")]
    named: set[str] = set()
    for path in [*pages, *root.glob("ors_gym/**/*.py")]:
        for listed, imported in re.findall(EXTRAS, path.read_text()):
            named.update((listed or imported).split(","))
    assert len(named) > 5
    assert named <= set(project["optional-dependencies"])
