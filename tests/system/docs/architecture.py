"""The picture of the architecture, drawn from the import rules that are checked.

``python -m tests.system.docs.architecture`` writes ``docs/architecture.svg`` anew.
"""

import ast
import configparser
import html
import sys
from pathlib import Path
from typing import Final

from tests.system.docs.pages import ROOT

PICTURE: Final = ROOT / "docs" / "architecture.svg"
CAPTIONS: Final = {
    "__main__": "python -m ors_gym",
    "cli": "the command line",
    "integrations": "training frameworks",
    "agents": "agent programs as policies",
    "mcp": "episodes for agents that speak MCP",
    "evaluation": "many episodes, figures",
    "testing": "contract check of servers",
    "display": "whatever people look at: cards, pictures, the playground",
    "rollout": "one episode, one group",
    "wrappers": "numbers for classical RL",
    "registration": "gym.make ids",
    "vector": "ORSVectorEnv: many sessions, one loop",
    "env": "ORSEnv, AsyncORSEnv: tasks, actions, observations, rewards",
    "formats": "actions, tools, prompts: any form in, the providers' forms out",
    "_gymnasium_json": "Gymnasium's spaces and values as JSON",
    "spaces": "schema to sample, contains",
    "client": "HTTP: the only sockets to a server of ORS",
    "protocol": "what to send, what may be sent again: no I/O at all",
    "types": "tools, tasks and results as plain JSON",
    "_system": "what Windows lacks, what a fork resets",
    "errors": "one tree",
    "_shown_text": "what a person is shown of a server's text",
}
_WIDTH: Final = 1000
_BAND: Final = 40
_GAP: Final = 10
_LEFT: Final = 20
_RIGHT: Final = 700
_STYLE: Final = """
    text { font-family: system-ui, "Segoe UI", Helvetica, Arial, sans-serif;
      text-anchor: middle; fill: #1f2430 }
    .page { fill: #ffffff }
    .name { font-size: 15px; font-weight: 600 }
    .says { font-size: 11.5px; fill: #4b5264 }
    .box { fill: #eef1fb; stroke: #aab4d8 }
    .pure { fill: #e2f3e6; stroke: #8fc29b }
    .wire { fill: #fdf0dc; stroke: #dcb878 }
    .away { fill: #f3f3f5; stroke: #b9bcc6 }
    .line { stroke: #6b7280; stroke-width: 1.5; fill: none }
"""


def read_layers() -> list[list[str]]:
    """Read the layers from ``setup.cfg``, the highest first."""
    rules = configparser.ConfigParser()
    rules.read(ROOT / "setup.cfg")
    lines = rules["importlinter:contract:layers"]["layers"].split("\n")
    return [
        [name.strip(" ()").removeprefix("ors_gym.") for name in line.split("|")]
        for line in lines
        if line.strip()
    ]


def draw() -> str:
    layers = [[name for name in layer if _path(name)] for layer in read_layers()]
    layers = [layer for layer in layers if layer]
    height = len(layers) * (_BAND + _GAP) + 60
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{_WIDTH}" height="{height}"',
        f'  viewBox="0 0 {_WIDTH} {height}" role="img">',
        "  <title>The layers of ors_gym: imports go down only</title>",
        f"  <style>{_STYLE}  </style>",
        f'  <rect class="page" width="{_WIDTH}" height="{height}" rx="8"/>',
    ]
    tops = {}
    for number, layer in enumerate(layers):
        top = 40 + number * (_BAND + _GAP)
        width = (_RIGHT - _LEFT - _GAP * (len(layer) - 1)) / len(layer)
        for place, name in enumerate(layer):
            left = _LEFT + place * (width + _GAP)
            kind = {"protocol": "pure", "client": "wire"}.get(name, "box")
            parts += _box(left, top, width, _BAND, kind, name, _caption(name))
            tops[name] = top
    parts += _servers(tops["client"], tops["errors"])
    middle = (_LEFT + _RIGHT) / 2
    parts += _text(middle, 26, "says", "ors_gym: each layer imports only those below")
    return "\n".join([*parts, "</svg>", ""])


def _servers(client: int, bottom: int) -> list[str]:
    left, width = 760, 220
    height = _BAND + 30
    lines = ("any ORS server", "seven versions are tested")
    parts = _box(left, client, width, height, "away", *lines)
    middle = client + _BAND / 2
    parts += [
        f'  <path class="line" d="M{_RIGHT} {middle} H{left}"/>',
        f'  <path class="line" d="M{left - 8} {middle - 5} l8 5 l-8 5"/>',
    ]
    parts += _text((_RIGHT + left) / 2, middle - 8, "says", "HTTP")
    top = client - 2 * _BAND - 60
    lines = ("server", "five environments, or your own")
    parts += _box(left, top, width, height, "box", *lines)
    end = left + width / 2
    parts.append(f'  <path class="line" d="M{end} {top + height} V{client}"/>')
    parts += _text(end + 58, client - 22, "says", "a child process")
    parts += _text(end, bottom + 14, "says", "server sees types and errors only;")
    parts += _text(end, bottom + 32, "says", "protocol has neither socket nor clock")
    return parts


def _box(
    left: float, top: float, width: float, height: float, kind: str, *lines: str
) -> list[str]:
    middle = left + width / 2
    return [
        f'  <rect class="{kind}" x="{left:g}" y="{top:g}" rx="6"',
        f'    width="{width:g}" height="{height:g}"/>',
        *_text(middle, top + height / 2 - 3, "name", lines[0]),
        *_text(middle, top + height / 2 + 14, "says", lines[1]),
    ]


def _text(x: float, y: float, kind: str, text: str) -> list[str]:
    written = html.escape(text)
    return [f'  <text class="{kind}" x="{x:g}" y="{y:g}">{written}</text>']


def _caption(name: str) -> str:
    if name in CAPTIONS:
        return CAPTIONS[name]
    path = _path(name)
    said = ast.get_docstring(ast.parse(path.read_text())) if path else None
    return (said or "").partition("\n")[0].rstrip(".")[:40]


def _path(name: str) -> Path | None:
    package = ROOT / "ors_gym" / name / "__init__.py"
    module = ROOT / "ors_gym" / f"{name}.py"
    return next((path for path in (package, module) if path.exists()), None)


if __name__ == "__main__":
    PICTURE.write_text(draw(), encoding="utf-8")
    sys.stdout.write(f"{PICTURE.relative_to(ROOT)}\n")
