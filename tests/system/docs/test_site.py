"""The site builds without a warning and without a network, and opens right."""

import contextlib
import functools
import http.server
import importlib
import re
import threading
import types
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.browser import Chromium
from tests.support.processes import run_python
from tests.system.docs.pages import ROOT
from tests.test_public_names import PUBLIC, integrations, public_names

PAGES = sorted(
    page.relative_to(ROOT / "docs").with_suffix("").as_posix()
    for folder in (".", "environments", "reference", "notebooks")
    for page in (ROOT / "docs" / folder).iterdir()
    if page.suffix in {".md", ".ipynb"}
)


class QuietHandler(http.server.SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("site")
    command = ("-m", "mkdocs", "build", "--strict", "-d", directory)
    quiet = {"NO_MKDOCS_2_WARNING": "1"}
    done = run_python(*command, seconds=110, environment=quiet)
    assert done.returncode == 0, done.stderr
    assert "WARNING" not in done.stderr
    return directory


@contextlib.contextmanager
def served(directory: Path) -> Iterator[str]:
    handler = functools.partial(QuietHandler, directory=str(directory))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}/"
        finally:
            server.shutdown()
            thread.join()


@pytest.mark.slow
def test_the_site_holds_every_page_and_the_javascript_client(site: Path) -> None:
    assert [name for name in PAGES if not (site / f"{name}.html").exists()] == []
    assert (site / "clients" / "ors.mjs").exists()
    assert ">EventDecoder</span>" in (site / "wire.html").read_text()


def places(value: object, name: str) -> set[str]:
    """Return the full names that a public thing has: one or two."""
    return {
        f"{package}.{name}"
        for package in PUBLIC
        if name in public_names(package)
        if getattr(importlib.import_module(package), name) is value
    }


@pytest.mark.slow
def test_the_reference_has_every_public_name_and_no_other(site: Path) -> None:
    text = "".join(page.read_text() for page in (site / "reference").iterdir())
    shown = set(re.findall(r'<h\d id="(ors_gym\.[\w.]*)"', text))
    expected = set(PUBLIC)
    for package in PUBLIC:
        for name in public_names(package):
            value = getattr(importlib.import_module(package), name)
            if isinstance(value, types.ModuleType):
                continue
            known = places(value, name)
            assert known & shown, f"{package}.{name}"
            expected |= known
    for module, names in integrations().items():
        whole = {f"ors_gym.integrations.{module}.{name}" for name in names}
        assert whole <= shown
        expected |= whole
    members = {name for name in shown if name.rpartition(".")[0] in shown}
    assert shown - members - expected == set()


@pytest.mark.slow
def test_pages_open_right_on_screens_and_phones(site: Path, chromium: Chromium) -> None:
    with served(site) as origin:
        for name in PAGES:
            with chromium.open(f"{origin}{name}.html") as page:
                overflows = []
                for width in (1280, 390):
                    page.resize(width)
                    overflows.append(page.overflow())
                assert overflows == [0, 0], name
                assert page.errors == [], name
                away = [url for url in page.requests if not url.startswith(origin)]
                assert away == [], name
                assert page.count("h1") == 1, name


@pytest.mark.slow
def test_search_works_without_a_network(site: Path, chromium: Chromium) -> None:
    with served(site) as origin, chromium.open(f"{origin}index.html") as page:
        # Key by key: once its index is made, the page hears of nothing but keys.
        page.do(lambda tab: tab.type("input[name=query]", "curricula"))
        # The page makes the index first, which takes a while on a busy machine.
        found = ".md-search-result__item"
        page.do(lambda tab: tab.wait_for_selector(found, timeout=90_000))
        assert "Curricula" in page.text(".md-search-result__list")
        assert page.errors == []
