"""The colours of pictures and cards, dark and light, and the style sheet of cards.

Every colour of text has a contrast of at least 4.5 on ``ground`` and on ``surface``
(WCAG 2.2, success criterion 1.4.3).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

__all__ = ["DARK", "LIGHT", "STYLE", "TEXT_COLOURS", "reward_colour"]

DARK: Final[Mapping[str, str]] = {
    "ground": "#15181e",
    "surface": "#20252e",
    "line": "#3b4350",
    "text": "#e7e9ee",
    "muted": "#a8b0bd",
    "accent": "#82b8ff",
    "good": "#71d98f",
    "bad": "#ff958c",
    "warn": "#f2c364",
}
LIGHT: Final[Mapping[str, str]] = {
    "ground": "#ffffff",
    "surface": "#f4f6f9",
    "line": "#d3d9e2",
    "text": "#1b2330",
    "muted": "#525c6b",
    "accent": "#0b57b0",
    "good": "#0f6a2f",
    "bad": "#b3261e",
    "warn": "#7d4e00",
}
TEXT_COLOURS: Final = ("text", "muted", "accent", "good", "bad", "warn")


def reward_colour(reward: float) -> str:
    """Return the name of a reward's colour.

    Example:
        >>> reward_colour(1.0), reward_colour(-0.5), reward_colour(0.0)
        ('good', 'bad', 'muted')
    """
    if reward == 0:
        return "muted"
    return "good" if reward > 0 else "bad"


_IN_THE_LIGHT: Final = (
    '[data-jp-theme-light="true"]',
    ".vscode-light",
    'html[theme="light"]',
    '[data-md-color-scheme="default"]',
)
_IN_THE_DARK: Final = (
    '[data-jp-theme-light="false"]',
    ".vscode-dark",
    'html[theme="dark"]',
    '[data-md-color-scheme="slate"]',
)

# The class is doubled to outweigh the notebook's own rules for pre, img and code.
_RULES: Final = """
.ors-card.ors-card{background:var(--ors-ground);color:var(--ors-text);border:1px solid
var(--ors-line);border-radius:8px;padding:12px;margin:4px 0;max-width:960px;
box-sizing:border-box;font:14px/1.5 system-ui,sans-serif;overflow-wrap:anywhere}
.ors-card.ors-card *{box-sizing:border-box}
.ors-card.ors-card .ors-head{display:flex;flex-wrap:wrap;gap:4px 12px;
align-items:baseline;margin:0 0 4px}
.ors-card.ors-card .ors-title{font-weight:600;font-size:16px;
color:var(--ors-accent)}
.ors-card.ors-card .ors-muted{color:var(--ors-muted)}
.ors-card.ors-card .ors-text-colour{color:var(--ors-text)}
.ors-card.ors-card .ors-accent{color:var(--ors-accent)}
.ors-card.ors-card .ors-good{color:var(--ors-good)}
.ors-card.ors-card .ors-bad{color:var(--ors-bad)}
.ors-card.ors-card .ors-warn{color:var(--ors-warn)}
.ors-card.ors-card .ors-pill{border:1px solid currentColor;border-radius:10px;
padding:0 8px;font-size:13px;font-weight:600;white-space:normal}
.ors-card.ors-card .ors-part{background:var(--ors-surface);border-left:4px solid
var(--ors-line);border-radius:4px;padding:8px 12px;margin:8px 0 0}
.ors-card.ors-card .ors-edge-accent{border-left-color:var(--ors-accent)}
.ors-card.ors-card .ors-edge-good{border-left-color:var(--ors-good)}
.ors-card.ors-card .ors-edge-bad{border-left-color:var(--ors-bad)}
.ors-card.ors-card .ors-label{font-size:12px;color:var(--ors-muted)}
.ors-card.ors-card .ors-row{display:flex;flex-wrap:wrap;gap:2px 8px;margin:0;
align-items:center}
.ors-card.ors-card .ors-blocks{display:flex;flex-wrap:wrap;gap:0 16px}
.ors-card.ors-card .ors-words{flex:1 1 320px;min-width:0}
.ors-card.ors-card pre.ors-text{margin:2px 0;padding:0;border:0;background:none;
color:var(--ors-text);font:13px/1.45 ui-monospace,"DejaVu Sans Mono",Menlo,Consolas,
monospace;white-space:pre-wrap;overflow-wrap:anywhere;word-break:normal;
unicode-bidi:plaintext;max-height:none;overflow:visible;text-align:start}
.ors-card.ors-card pre.ors-call{color:var(--ors-accent);font-weight:600}
.ors-card.ors-card pre.ors-said{font:14px/1.5 system-ui,sans-serif}
.ors-card.ors-card pre.ors-failed{color:var(--ors-warn)}
.ors-card.ors-card img.ors-image{display:block;max-width:100%;height:auto;margin:6px 0;
align-self:flex-start;border-radius:4px;background:#fff;
border:1px solid var(--ors-line)}
.ors-card.ors-card img.ors-pixels{image-rendering:pixelated}
.ors-card.ors-card details{margin:2px 0}
.ors-card.ors-card summary{cursor:pointer;color:var(--ors-text);list-style:none}
.ors-card.ors-card summary::-webkit-details-marker{display:none}
.ors-card.ors-card summary.ors-row::before{content:"\\25b8";color:var(--ors-muted)}
.ors-card.ors-card details[open]>summary.ors-row::before{content:"\\25be"}
.ors-card.ors-card .ors-more{color:var(--ors-accent);font-size:12px;
text-decoration:underline}
.ors-card.ors-card details[open]>summary>.ors-peek{display:none}
.ors-card.ors-card .ors-fields{display:grid;grid-template-columns:minmax(0,max-content)
minmax(0,1fr);gap:2px 12px;margin:4px 0 0}
@media (max-width:560px){.ors-card.ors-card .ors-fields{grid-template-columns:
minmax(0,1fr);gap:0}}
"""


def _variables(palette: Mapping[str, str]) -> str:
    return ";".join(f"--ors-{name}:{value}" for name, value in palette.items())


def _themes() -> str:
    light, dark = _variables(LIGHT), _variables(DARK)
    in_light = ",".join(f"{where} .ors-card.ors-card" for where in _IN_THE_LIGHT)
    in_dark = ",".join(f"{where} .ors-card.ors-card" for where in _IN_THE_DARK)
    return (
        f".ors-card.ors-card{{{light};color-scheme:light}}\n"
        "@media (prefers-color-scheme:dark){"
        f".ors-card.ors-card{{{dark};color-scheme:dark}}}}\n"
        f"{in_light}{{{light};color-scheme:light}}\n"
        f"{in_dark}{{{dark};color-scheme:dark}}"
    )


STYLE: Final = f"<style>{_themes()}{_RULES}</style>"
