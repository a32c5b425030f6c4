"""Pages in a real browser: Chromium without a window, a profile or a network.

A test asks for the fixture ``chromium`` and opens an address or a file with it::

    def test_page(chromium, tmp_path):
        with chromium.open(tmp_path / "report.html") as page:
            assert "success rate" in page.text()
            assert page.errors == []
            assert page.requests == []

Where there is no Chromium, or no playwright to drive it with, such tests skip and say
so. From a shell, ``python -m tests.support.browser PAGE DIRECTORY`` takes the pictures
that `Page.screenshots` takes.
"""

from __future__ import annotations

import contextlib
import functools
import importlib.util
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

import pytest

if TYPE_CHECKING:
    from playwright.sync_api import Browser, ConsoleMessage, Request
    from playwright.sync_api import Page as Tab

T = TypeVar("T")

_NAMES: Final = ("chromium", "chromium-browser", "google-chrome", "chrome")
_ARGUMENTS: Final = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    # Whatever a page asks for, nothing but this machine can be found.
    "--host-resolver-rules=MAP * ~NOTFOUND , EXCLUDE 127.0.0.1 , EXCLUDE localhost",
)
_WAIT: Final = 15_000.0
"""Milliseconds after which anything that a page is asked to do fails."""
_NOT_SENT: Final = ("data:", "blob:", "about:")


def find_chromium() -> str | None:
    return next(filter(None, map(shutil.which, _NAMES)), None)


class Page:
    """An open page, with the errors on its console and the addresses it asked for.

    `requests` leaves out the page itself; `errors` also holds the exceptions that no
    script caught.
    """

    def __init__(self, run: Callable[..., Any], tab: Tab) -> None:
        self._run = run
        self._tab = tab
        self.errors: list[str] = []
        self.requests: list[str] = []
        self.do(self._listen)

    def _listen(self, tab: Tab) -> None:
        tab.on("request", self._note_request)
        tab.on("console", self._note_message)
        tab.on("pageerror", lambda error: self.errors.append(str(error)))

    def _note_request(self, request: Request) -> None:
        is_the_page = request.is_navigation_request() and not request.redirected_from
        is_main = is_the_page and request.frame == self._tab.main_frame
        if not is_main and not request.url.startswith(_NOT_SENT):
            self.requests.append(request.url)

    def _note_message(self, message: ConsoleMessage) -> None:
        if message.type == "error":
            self.errors.append(message.text)

    def do(self, action: Callable[[Tab], T]) -> T:
        """Use playwright's own page, in the thread that it lives in."""
        found: T = self._run(action, self._tab)
        return found

    def text(self, selector: str = "body") -> str:
        return self.do(lambda tab: tab.inner_text(selector))

    def evaluate(self, script: str, argument: Any = None) -> Any:
        return self.do(lambda tab: tab.evaluate(script, argument))

    def wait(self, condition: str, milliseconds: float = _WAIT) -> None:
        """Wait for an expression to be true, also where a policy forbids `eval`."""
        look = f"try {{ if ({condition}) return done() }} catch {{}}"
        self.evaluate(
            f"""said => new Promise((done, fail) => {{
                const look = () => {{ {look} requestAnimationFrame(look) }}
                setTimeout(() => fail(new Error(`not so: ${{said}}`)), {milliseconds})
                look() }})""",
            condition,
        )

    def count(self, selector: str) -> int:
        return self.do(lambda tab: tab.locator(selector).count())

    def resize(self, width: int, height: int = 900) -> None:
        size: Any = {"width": width, "height": height}
        self.do(lambda tab: tab.set_viewport_size(size))

    def set_dark(self, dark: bool) -> None:
        self.do(lambda tab: tab.emulate_media(color_scheme="dark" if dark else "light"))

    def overflow(self) -> int:
        """Return by how many CSS pixels the page is wider than its window."""
        element = "document.documentElement"
        return int(self.evaluate(f"{element}.scrollWidth - {element}.clientWidth"))

    def screenshot(self, path: Path) -> Path:
        self.do(lambda tab: tab.screenshot(path=path, full_page=True))
        return path

    def screenshots(
        self, directory: Path, name: str, widths: Sequence[int] = (1280, 390)
    ) -> list[Path]:
        directory.mkdir(parents=True, exist_ok=True)
        pictures = []
        for dark in (False, True):
            self.set_dark(dark)
            for width in widths:
                self.resize(width)
                path = directory / f"{name}-{width}-{'dark' if dark else 'light'}.png"
                pictures.append(self.screenshot(path))
        return pictures


class Chromium:
    """A running browser; `open_chromium` and the fixture ``chromium`` make it.

    Playwright's blocking interface keeps an event loop running in its thread, which
    would forbid ``asyncio.run`` to every later test: so it has a thread of its own.
    """

    def __init__(self, run: Callable[..., Any], browser: Browser) -> None:
        self._run = run
        self._browser = browser

    @contextlib.contextmanager
    def open(
        self, target: str | Path, *, width: int = 1280, dark: bool = False
    ) -> Iterator[Page]:
        """Open an address or a file in an empty profile."""
        address = target.resolve().as_uri() if isinstance(target, Path) else target
        context = self._run(
            functools.partial(
                self._browser.new_context,
                viewport={"width": width, "height": 900},
                color_scheme="dark" if dark else "light",
            )
        )
        try:
            context.set_default_timeout(_WAIT)
            page = Page(self._run, self._run(context.new_page))
            page.do(lambda tab: tab.goto(address, wait_until="load"))
            yield page
        finally:
            self._run(context.close)


@contextlib.contextmanager
def open_chromium(executable: str) -> Iterator[Chromium]:
    from playwright.sync_api import sync_playwright

    with ThreadPoolExecutor(1, thread_name_prefix="browser") as thread:

        def run(action: Callable[..., Any], *arguments: Any) -> Any:
            return thread.submit(action, *arguments).result()

        manager = sync_playwright()
        driver = run(manager.__enter__)
        try:
            browser = run(
                functools.partial(
                    driver.chromium.launch,
                    executable_path=executable,
                    args=list(_ARGUMENTS),
                )
            )
            try:
                yield Chromium(run, browser)
            finally:
                run(browser.close)
        finally:
            run(manager.__exit__, None, None, None)


@pytest.fixture(scope="session")
def chromium() -> Iterator[Chromium]:
    """A browser that the tests of this worker share, or skip with what is missing."""
    executable = find_chromium()
    if executable is None:
        pytest.skip(f"no browser: none of {', '.join(_NAMES)} is installed")
    if importlib.util.find_spec("playwright") is None:
        pytest.skip("no browser: playwright is not installed")
    with open_chromium(executable) as browser:
        yield browser


def _main(target: str, directory: str) -> int:
    executable = find_chromium()
    if executable is None:
        sys.stderr.write("no Chromium is installed\n")
        return 1
    opened = target if "://" in target else Path(target)
    with open_chromium(executable) as browser, browser.open(opened) as page:
        lines = [str(path) for path in page.screenshots(Path(directory), "page")]
        lines += [f"error: {error}" for error in page.errors]
        lines += [f"request: {address}" for address in page.requests]
    sys.stdout.write("\n".join(lines) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(_main(*sys.argv[1:]))
