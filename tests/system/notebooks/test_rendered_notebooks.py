"""Notebooks as pages, opened in a browser."""

from __future__ import annotations

from pathlib import Path

import pytest
from nbconvert import HTMLExporter

from tests.support.browser import Chromium
from tests.system.notebooks.refresh import NOTEBOOKS

NAMES = ["01_quickstart", "02_explore_an_environment"]


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_it_reads_well_on_a_desk_and_on_a_phone(
    name: str, chromium: Chromium, tmp_path: Path
) -> None:
    text, _ = HTMLExporter().from_filename(NOTEBOOKS / f"{name}.ipynb")
    path = tmp_path / f"{name}.html"
    path.write_text(text)
    for width in (1280, 390):
        with chromium.open(path, width=width) as page:
            assert page.overflow() == 0
            assert page.count("h1") == 1
            assert page.count(".ors-card") >= 1
            shown = name.partition("_")[2].replace("_", " ")
            assert shown in page.text("h1").lower()
