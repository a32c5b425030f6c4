"""The browser of the tests: sees what a page says, asks for and complains of."""

import asyncio
from pathlib import Path

import pytest

from tests.support.browser import Chromium

PAGE = """<!doctype html><meta charset="utf-8"><link rel="icon" href="data:,">
<style>@media (prefers-color-scheme: dark) { body { color: white } }</style>
<body><h1>Über</h1><p id="wide" style="width: 500px">wide</p>{more}</body>"""


def write(path: Path, more: str = "") -> Path:
    path.write_text(PAGE.replace("{more}", more))
    return path


@pytest.mark.slow
def test_a_quiet_page(chromium: Chromium, tmp_path: Path) -> None:
    with chromium.open(write(tmp_path / "page.html")) as page:
        assert page.text().split() == ["Über", "wide"]
        assert (page.errors, page.requests) == ([], [])
        assert page.evaluate("1 + 1") == 2
        assert page.overflow() == 0
        page.resize(390)
        assert page.overflow() > 0
        colour = "getComputedStyle(document.body).color"
        page.set_dark(True)
        assert page.evaluate(colour) == "rgb(255, 255, 255)"
        pictures = page.screenshots(tmp_path / "pictures", "page")
    assert len(pictures) == 4
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in pictures)


def test_what_a_page_requests_and_reports(chromium: Chromium, tmp_path: Path) -> None:
    more = """<script src="https://example.com/a.js"></script>
    <script>console.error("of the page"); throw new Error("uncaught")</script>"""
    with chromium.open(write(tmp_path / "page.html", more)) as page:
        assert page.requests == ["https://example.com/a.js"]
        assert "of the page" in page.errors
        assert any("uncaught" in error for error in page.errors)


def test_browsers_leave_event_loops_alone(chromium: Chromium, tmp_path: Path) -> None:
    # This takes the main thread's default loop away, which playwright must not miss.
    assert asyncio.run(asyncio.sleep(0, "done")) == "done"
    with chromium.open(write(tmp_path / "page.html")) as page:
        assert page.count("h1") == 1
    assert asyncio.run(asyncio.sleep(0, "done")) == "done"
