"""Episodes and pages that tests of cards look at."""

import base64
import io
import pathlib
from typing import Any

from PIL import Image

from ors_gym import Episode, Turn
from ors_gym.rollout._episode import Step

HOSTILE = (
    '<script>window.hacked=1;fetch("http://127.0.0.1:9/stolen")</script>',
    '</details></pre></div><img src=x onerror="window.hacked=2">',
    '"><svg onload=window.hacked=3>',
    "' autofocus onfocus=window.hacked=4 x='",
    '</style><style>.ors-card{display:none}</style><link rel=stylesheet href="//x">',
    '<a href="javascript:window.hacked=5">x</a><iframe src="//127.0.0.1:9"></iframe>',
    "$$\\href{javascript:window.hacked=6}{x}$$ \u202edesrever\u202c \x00\x1b[2J \ud800",
)


def picture(colour: str = "red", size: tuple[int, int] = (40, 30)) -> dict[str, Any]:
    buffer = io.BytesIO()
    Image.new("RGB", size, colour).save(buffer, "PNG")
    return image(base64.b64encode(buffer.getvalue()).decode())


def image(data: str, media_type: str = "image/png") -> dict[str, Any]:
    return {"type": "image", "data": data, "mimeType": media_type}


def hostile_episode() -> Episode:
    """Return an episode in which every text tries to get out of the card."""
    text = "\n".join(HOSTILE)
    svg = base64.b64encode(b"<svg onload='window.hacked=7'/>").decode()
    good = picture()["data"]
    images = [
        *(image(svg, "image/svg+xml"), image(svg), image("http://127.0.0.1:9/a.png")),
        image('x" onerror="window.hacked=8'),
        image(good, 'image/png" onerror="hacked=9'),
    ]
    prompt = [{"type": "text", "text": text}, *images, {"type": text, "x": text}]
    episode = Episode(text, task_index=2, split=text, prompt=prompt)
    call = {"tool": text, "input": {text: text}}
    said = f"{text}\nI think so."
    episode.turns = [Turn([call], message=said, call_ids=["c"])]
    reply = [{"type": "text", "text": text * 20}, *images]
    episode.steps = [Step(0, "c", text, {text: text}, reply, -1.0, error_kind=text)]
    episode.fail(RuntimeError(text), text)
    return episode


def ordinary_episode(steps: int = 4) -> Episode:
    prompt = [{"type": "text", "text": "Find the goal. " + "word " * 40}, picture()]
    episode = Episode("maze", task_index=3, split="train", prompt=prompt)
    given = {"direction": "right", "note": "x" * 200}
    for number in range(steps):
        call, ids = {"tool": "move", "input": dict(given)}, [f"{number}"]
        said = f"Step {number}: I go right."
        episode.turns.append(Turn([call], message=said, call_ids=ids))
        reply = [{"type": "text", "text": f"reply {number}\n" * 30}, picture()]
        step = Step(number, ids[0], "move", dict(given), reply, 0.25 * number)
        step.finished = number == steps - 1
        if number == 1:
            step.reward, step.error_kind = -0.5, "tool_failed"
        episode.steps.append(step)
    episode.stop_reason, episode.total_reward = "finished", 1.0
    return episode


def write_page(path: pathlib.Path, body: str, attributes: str = "") -> pathlib.Path:
    path.write_text(
        "<!doctype html><meta charset=utf-8>"
        "<meta name=viewport content='width=device-width'>"
        f"<body {attributes}>{body}</body>"
    )
    return path
