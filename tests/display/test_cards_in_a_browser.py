"""Cards in Chromium: inert, readable in every theme, never wider than the page."""

import pathlib
from typing import Any

import pytest

import ors_gym
from ors_gym.display._html import DARK, LIGHT
from tests.display import episodes
from tests.display.episodes import HOSTILE, ordinary_episode, write_page

TEXT = "\n".join(HOSTILE)
PROPERTIES = {
    HOSTILE[0]: {"type": HOSTILE[1], "description": HOSTILE[2]},
    "x": {"enum": list(HOSTILE)},
}
SCHEMA = {"properties": PROPERTIES}
TOOLS = [{"name": TEXT, "description": TEXT, "input_schema": SCHEMA}]

UNFOLD = "document.querySelectorAll('details').forEach(d => d.open = true)"

# How dark each element's text is against what is behind it (WCAG 2.2, 1.4.3).
CONTRASTS = """() => {
  const light = rgb => {
    const parts = rgb.match(/[\\d.]+/g).slice(0, 3).map(Number).map(value => {
      value /= 255;
      return value <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4;
    });
    return 0.2126 * parts[0] + 0.7152 * parts[1] + 0.0722 * parts[2];
  };
  const behind = element => {
    for (let at = element; at; at = at.parentElement) {
      const colour = getComputedStyle(at).backgroundColor;
      if (colour !== 'rgba(0, 0, 0, 0)' && colour !== 'transparent') return colour;
    }
    return 'rgb(255, 255, 255)';
  };
  const found = [];
  for (const element of document.querySelectorAll('.ors-card *')) {
    const own = [...element.childNodes].some(
      node => node.nodeType === 3 && node.textContent.trim());
    if (!own || element.tagName === 'STYLE') continue;
    const [a, b] = [light(getComputedStyle(element).color), light(behind(element))];
    const contrast = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    found.push([contrast, element.className, element.textContent.slice(0, 40)]);
  }
  return found;
}"""


def luminance(colour: str) -> float:
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [
        part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4
        for part in parts
    ]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize("palette", [LIGHT, DARK])
def test_every_colour_has_enough_contrast(palette):
    for ground in ("ground", "surface"):
        for text in ("text", "muted", "accent", "good", "bad", "warn"):
            pair = sorted(luminance(palette[name]) + 0.05 for name in (ground, text))
            assert pair[1] / pair[0] >= 4.5, (ground, text)


@pytest.fixture(scope="module")
def hostile_page(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    spec = {HOSTILE[0]: HOSTILE[1], "answer": list(HOSTILE)}
    message = {"role": HOSTILE[0], "content": TEXT}
    values = (episodes.hostile_episode(), TOOLS, [spec], [message], HOSTILE)
    body = "".join(ors_gym.show(value)._repr_html_() for value in values)
    return write_page(tmp_path_factory.mktemp("pages") / "hostile.html", body)


@pytest.mark.slow
def test_what_servers_and_models_write_is_text(chromium, hostile_page):
    with chromium.open(hostile_page) as page:
        page.evaluate(UNFOLD)
        assert page.evaluate("typeof window.hacked") == "undefined"
        assert (page.requests, page.errors) == ([], [])
        for dangerous in ("script", "svg", "iframe", "a", "link", "[onerror]"):
            assert page.count(f".ors-card {dangerous}") == 0, dangerous
        # Two pictures are ones, and have the type of their bytes, not the server's.
        assert page.count(".ors-card img") == 2
        assert page.count(".ors-card img[src^='data:image/png;base64,']") == 2
        # Nothing broke out of its card, whose own style is the only one.
        assert page.evaluate("document.body.children.length") == 5
        assert page.count("style") == 5
        shown = page.text()
        for text in HOSTILE[:5]:
            assert text in shown


@pytest.mark.slow
@pytest.mark.parametrize("width", [1280, 390])
def test_no_card_is_wider_than_the_page(chromium, hostile_page, tmp_path, width):
    ordinary = write_page(tmp_path / "page.html", ordinary_episode()._repr_html_())
    for path in (hostile_page, ordinary):
        with chromium.open(path, width=width) as page:
            page.evaluate(UNFOLD)
            assert page.overflow() == 0


THEMES: list[tuple[str, bool, bool]] = [
    ("", False, False),
    ("", True, True),
    ('data-jp-theme-light="true"', True, False),
    ('data-jp-theme-light="false"', False, True),
    ('class="vscode-dark"', False, True),
]


@pytest.mark.parametrize(("attributes", "dark", "card_dark"), THEMES)
def test_the_card_follows_the_theme(chromium, tmp_path, attributes, dark, card_dark):
    body = ordinary_episode(12)._repr_html_() + ors_gym.show(TOOLS)._repr_html_()
    path = write_page(tmp_path / "page.html", body, attributes)
    with chromium.open(path, dark=dark) as page:
        card = "document.querySelector('.ors-card')"
        ground = page.evaluate(f"getComputedStyle({card}).backgroundColor")
        wanted = (DARK if card_dark else LIGHT)["ground"]
        assert ground == f"rgb{tuple(int(wanted[i : i + 2], 16) for i in (1, 3, 5))}"
        found: list[Any] = page.evaluate(CONTRASTS)
        assert len(found) > 30
        assert [row for row in found if row[0] < 4.5] == []


def test_long_texts_and_middle_steps_are_folded(chromium, tmp_path):
    path = write_page(tmp_path / "page.html", ordinary_episode(12)._repr_html_())
    with chromium.open(path) as page:
        assert "all 31 lines" in page.text()
        before = page.evaluate("document.body.scrollHeight")
        page.evaluate(UNFOLD)
        assert page.evaluate("document.body.scrollHeight") > 2 * before
        assert page.count("img") == 13
        loaded = "[...document.images].every(i => i.complete && i.naturalWidth === 40)"
        assert page.evaluate(loaded)
