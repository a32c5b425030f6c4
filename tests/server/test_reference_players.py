"""Each environment, played over HTTP from its text alone by its reference player."""

import base64
import io
import statistics
from random import Random

import pytest
from PIL import Image

from ors_gym.client import ORSClient
from ors_gym.server import BUNDLED, REFERENCE_PLAYERS
from ors_gym.types import ToolCall
from tests.server.played_episodes import Played, play, text_of

EPISODES = 12
SPLITS = ["train", "validation", "test"]


def play_some(client: ORSClient, name: str, split: str) -> list[Played]:
    player = REFERENCE_PLAYERS[name]
    return [play(client, name, split, index, player()) for index in range(EPISODES)]


def test_every_environment_has_a_player_and_is_served(client: ORSClient):
    assert client.list_environments() == list(BUNDLED) == list(REFERENCE_PLAYERS)


@pytest.mark.parametrize("split", SPLITS)
@pytest.mark.parametrize("name", ["math", "maze", "sql"])
def test_full_reward_where_it_can_be_had(client: ORSClient, name: str, split: str):
    for played in play_some(client, name, split):
        assert played.finished
        assert sum(played.rewards) == 1.0


@pytest.mark.parametrize("split", SPLITS)
def test_bisecting_finds_every_number_in_five_guesses(client: ORSClient, split: str):
    for played in play_some(client, "guess", split):
        assert played.finished
        assert len(played.rewards) <= 5
        assert sum(played.rewards) == 1 - (len(played.rewards) - 1) / 16


@pytest.mark.parametrize("split", SPLITS)
def test_blackjack_ends_with_a_win_a_draw_or_a_loss(client: ORSClient, split: str):
    totals = [sum(played.rewards) for played in play_some(client, "blackjack", split)]
    assert set(totals) <= {-1.0, 0.0, 1.0}
    assert len(set(totals)) > 1


def test_a_task_of_sql_takes_several_steps(client: ORSClient):
    steps = [len(played.rewards) for played in play_some(client, "sql", "train")]
    assert (min(steps), max(steps)) == (5, 6)


def test_a_maze_is_a_picture_in_the_prompt_and_in_every_reply(client: ORSClient):
    played = play(client, "maze", "train", 0, REFERENCE_PLAYERS["maze"]())
    images = [block for block in played.blocks if block["type"] == "image"]
    assert len(images) == len(played.texts)
    for block, text in zip(images, played.texts, strict=True):
        picture = Image.open(io.BytesIO(base64.b64decode(block["data"])))
        grid = [line for line in text.splitlines() if line.startswith("#")]
        assert block["mimeType"] == "image/png"
        assert picture.size == (8 * len(grid[0]), 8 * len(grid))
        # The picture shows what the map says: one colour for each mark.
        colours: dict[str, set[object]] = {}
        for row, line in enumerate(grid):
            for column, mark in enumerate(line):
                pixel = picture.convert("RGB").getpixel((8 * column + 4, 8 * row + 4))
                colours.setdefault(mark, set()).add(pixel)
        assert all(len(seen) == 1 for seen in colours.values())
        assert len(set.union(*colours.values())) == len(colours)


@pytest.mark.parametrize(
    ("name", "schema_of"),
    [("math", "submit"), ("guess", "guess"), ("maze", "move"), ("sql", "query")],
)
def test_tools_with_arguments_describe_them(client, name, schema_of):
    tools = {tool["name"]: tool for tool in client.list_tools(name)}
    schema = tools[schema_of]["input_schema"]
    assert schema is not None
    assert all("description" in field for field in schema["properties"].values())
    assert all(tool["description"] for tool in tools.values())


def test_the_schemas_of_blackjack_and_maze(client: ORSClient):
    tools = client.list_tools("blackjack")
    schemas = {tool["name"]: tool["input_schema"] for tool in tools}
    assert schemas == {"hit": None, "stand": None}
    [tool] = client.list_tools("maze")
    assert tool["input_schema"] is not None
    direction = tool["input_schema"]["properties"]["direction"]
    assert direction["enum"] == ["up", "down", "left", "right"]


def test_a_random_player_of_guess_gets_next_to_nothing(client: ORSClient):
    generator = Random(1)

    def guess(_text: str, _tools: object) -> ToolCall:
        return {"tool": "guess", "input": {"number": generator.randint(1, 16)}}

    played = [play(client, "guess", "train", index, guess) for index in range(60)]
    totals = [sum(one.rewards) for one in played]
    # 0.03 is expected; the deviation of a mean of 60 is 0.09.
    assert statistics.mean(totals) < 0.4


def test_the_published_sample_usage_of_math(client: ORSClient):
    task = client.list_tasks("math", "train")[0]
    assert task["id"] == "math-train-0"
    session_id = client.create_session()
    try:
        client.create_episode(session_id, "math", task)
        prompt = client.get_prompt(session_id, "math")
        assert text_of(prompt).startswith(task["question"])
        answer = {"answer": task["answer"]}
        result = client.call_tool(session_id, "math", "submit", answer)
        assert (result["reward"], result["finished"]) == (1.0, True)
    finally:
        client.delete_episode(session_id)
