"""Gymnasium environments as ORS environments: what a client of the protocol sees."""

import asyncio
import base64
import contextlib
import io
import json
import threading
import uuid
from collections.abc import Iterator
from typing import Any

import gymnasium as gym
import httpx
import numpy as np
import pytest
from gymnasium import spaces
from PIL import Image

import ors_gym
from ors_gym._gymnasium_json.spaces import read_space
from ors_gym._gymnasium_json.values import read_value
from ors_gym.client import ORSClient
from ors_gym.errors import (
    InvalidRequestError,
    SetupFailedError,
    ToolFailedError,
    ToolRejectedError,
    UnknownTaskError,
)
from ors_gym.server import run, serve
from ors_gym.server.adapters._gymnasium import as_environment
from tests.support.gymnasium_envs import FAULTS, Nested, Overlapping, hostile
from tests.support.servers.raw import RawSession

MODULE = "tests.support.gymnasium_envs"


@pytest.fixture(scope="module")
def base_url() -> Iterator[str]:
    shared = Nested()
    with serve(
        "gymnasium:CartPole-v1",
        "gymnasium:FrozenLake-v1?is_slippery=false&map_name=8x8&render_mode=ansi",
        f"{MODULE}:Nested",
        lambda task: gym.make("Blackjack-v1", sab=task["split"] == "train"),
        named(lambda task: shared, "shared"),
        picture_env,
        named(lambda task: Overlapping(), "overlapping"),
        *(hostile(fault) for fault in FAULTS),
    ) as address:
        yield address


def named(function: Any, name: str) -> Any:
    function.__name__ = name
    return function


def picture_env(task: Any) -> Any:
    env = Nested()
    env.observation_space = spaces.Box(0, 255, (20, 30, 1), np.uint8)
    return env


@pytest.fixture
def client(base_url: str) -> Iterator[ORSClient]:
    with ORSClient(base_url) as client:
        yield client


def test_names_are_ids_and_those_of_functions(client):
    names = client.list_environments()
    assert names[:5] == [
        "cartpole-v1",
        "frozenlake-v1",
        "nested",
        "blackjack-v1",
        "shared",
    ]


def test_a_task_is_a_seed_and_splits_share_none(client):
    splits = [split["name"] for split in client.list_splits("cartpole-v1")]
    assert splits == ["train", "validation", "test"]
    ranges = []
    for split in splits:
        count = client.num_tasks("cartpole-v1", split)
        ends = [client.get_task("cartpole-v1", split, i) for i in (0, count - 1)]
        ranges.append((ends[0]["seed"], ends[1]["seed"]))
        assert ends[1]["seed"] - ends[0]["seed"] == count - 1
        assert ends[0]["split"] == split
        with pytest.raises(UnknownTaskError):
            client.get_task("cartpole-v1", split, count)
    assert ranges[0] == (0, 2**30 - 1)
    assert ranges[0][1] < ranges[1][0]
    assert ranges[1][1] < ranges[2][0]
    assert ranges[2][1] < 2**31
    assert client.get_task("cartpole-v1", "train", 7)["seed"] == 7
    assert len(client.list_tasks("cartpole-v1", "test")) == 1000


def test_nobody_plays_every_seed_by_mistake(base_url):
    with pytest.raises(InvalidRequestError, match=r"1073741824 tasks.*tasks=range"):
        ors_gym.evaluate(base_url, "cartpole-v1", None, print, progress=False)


def test_the_first_observation_is_that_of_the_seed(client):
    task = client.get_task("cartpole-v1", "test", 3)
    native = gym.make("CartPole-v1")
    expected, _ = native.reset(seed=task["seed"])
    with client.session("cartpole-v1", split="test", index=3) as session:
        about, shown = session.get_prompt()
        again = read_value(about["detail"]["observation"])
        assert again.tobytes() == expected.tobytes()
        # For readers the same numbers, as short as float32 allows.
        assert (
            np.array(json.loads(shown["text"]), np.float32).tobytes() == again.tobytes()
        )
        assert "Push cart to the left" in about["text"]
        assert "Version History" not in about["text"]
        result = session.call_tool("step", {"action": 1})
        observation, reward, terminated, truncated, _ = native.step(1)
        metadata = result["metadata"]
        assert read_value(metadata["observation"]).tobytes() == observation.tobytes()
        assert result["reward"] == reward
        assert (metadata["terminated"], metadata["truncated"]) == (
            terminated,
            truncated,
        )
        assert "reward" not in metadata


def test_the_tool_says_what_an_action_is(client):
    (tool,) = client.list_tools("cartpole-v1")
    schema = tool["input_schema"]
    assert schema["properties"] == {
        "action": {"type": "integer", "minimum": 0, "maximum": 1}
    }
    described = schema["x-gymnasium"]
    native = gym.make("CartPole-v1")
    assert read_space(described["action_space"]) == native.action_space
    assert read_space(described["observation_space"]) == native.observation_space
    # No model is told of it.
    (told,) = ors_gym.formats.to_openai_tools([tool])
    assert "x-gymnasium" not in told["function"]["parameters"]
    assert "CartPole" not in json.dumps(told)


@pytest.mark.parametrize(
    "arguments", [{"action": 2}, {"action": "left"}, {}, {"action": 1, "more": 2}]
)
def test_what_is_no_action_is_refused_and_nothing_happens(client, arguments):
    with client.session("cartpole-v1", split="train", index=0) as session:
        session.get_prompt()
        with pytest.raises(ToolRejectedError, match=r"action|more"):
            session.call_tool("step", arguments)
        result = session.call_tool("step", {"action": 1})
        native = gym.make("CartPole-v1")
        native.reset(seed=0)
        expected = native.step(1)[0]
        observation = read_value(result["metadata"]["observation"])
        assert observation.tobytes() == expected.tobytes()


def test_finished_is_terminated_or_truncated(client):
    # The way to the goal of the 8x8 map, and a walk into the wall until time is over.
    for actions, ends in (("22222221111111", "terminated"), ("0" * 100, "truncated")):
        with client.session("frozenlake-v1", split="train", index=0) as session:
            session.get_prompt()
            results = [session.call_tool("step", {"action": int(a)}) for a in actions]
        *before, last = results
        assert not any(one["finished"] for one in before)
        assert last["finished"]
        flags = {name: last["metadata"][name] for name in ("terminated", "truncated")}
        assert flags == {"terminated": False, "truncated": False} | {ends: True}
        assert last["reward"] == (ends == "terminated")


def test_arguments_stand_after_the_id(client):
    with client.session("frozenlake-v1", split="train", index=0) as session:
        *_, frame = session.get_prompt()
        # render_mode=ansi and map_name=8x8.
        assert frame["text"].count("F") > 40
        assert session.call_tool("step", {"action": 1})["metadata"]["info"] == {
            "prob": 1.0
        }


def test_a_function_makes_the_env_of_a_task(client):
    def play(split: str) -> Any:
        with client.session("blackjack-v1", split=split, index=5) as session:
            return session.get_prompt()[0]["detail"]

    natives = {
        split: gym.make("Blackjack-v1", sab=split == "train")
        for split in ("train", "test")
    }
    for split, native in natives.items():
        seed = client.get_task("blackjack-v1", split, 5)["seed"]
        assert read_value(play(split)["observation"]) == native.reset(seed=seed)[0]


def test_an_env_that_a_function_returns_again_is_copied(client):
    with contextlib.ExitStack() as stack:
        sessions = [
            stack.enter_context(client.session("shared", split="train", index=index))
            for index in (0, 1, 0)
        ]
        first, other, same = (one.get_prompt()[0]["detail"] for one in sessions)
    assert first == same != other


def test_a_task_of_ones_own_has_a_seed_and_options(client):
    task = {"seed": 2**40, "options": {"low": 0.0, "high": 0.01}}
    with client.session("cartpole-v1", task) as session:
        detail = session.get_prompt()[0]["detail"]
    native = gym.make("CartPole-v1").reset(
        seed=2**40, options={"low": 0.0, "high": 0.01}
    )[0]
    assert read_value(detail["observation"]).tobytes() == native.tobytes()
    for bad in ({"seed": "7"}, {"seed": True}, {"seed": 1, "options": {"@odd": 1}}):
        with (
            client.session("cartpole-v1", bad) as session,
            pytest.raises(SetupFailedError),
        ):
            session.get_prompt()


def test_pictures_are_shown_as_such(client):
    for name, mode in (("picture_env", "L"), ("nested", "RGB")):
        with client.session(name, split="train", index=0) as session:
            about, *blocks = session.get_prompt()
        shown = [block for block in blocks if block["type"] == "image"]
        value = read_value(about["detail"]["observation"])
        expected = value["image"] if name == "nested" else value[:, :, 0]
        data = base64.b64decode(shown[0]["data"])
        image = Image.open(io.BytesIO(data))
        assert image.mode == mode
        assert (np.asarray(image) == expected).all()
        # A picture alone needs no text.
        assert len(blocks) == (1 if name == "picture_env" else 2)


def test_after_the_end_nothing_happens(base_url):
    # ors-sdk itself would run the tool and pay again; our client would not ask it to.
    with httpx.Client(base_url=base_url, trust_env=False) as http:
        session = RawSession(http, uuid.uuid4().hex, "blackjack-v1")
        task = {"env_name": "blackjack-v1", "split": "train", "index": 0}
        session.request("POST", "/create", json=task)
        session.get("prompt")
        outputs = [session.result("step", action=0)["output"] for _ in range(2)]
        session.request("POST", "/delete")
    assert outputs[0]["metadata"]["terminated"]
    assert [one["finished"] for one in outputs] == [True, True]
    assert (outputs[1]["reward"], outputs[1]["metadata"]) == (0.0, None)


def call_hostile(client: ORSClient, fault: str, *actions: int) -> list[Any]:
    name = fault.replace(" ", "_").lower()
    with client.session(name, split="train", index=0) as session:
        session.get_prompt()
        return [session.call_tool("step", {"action": action}) for action in actions]


def test_a_reset_that_raises_fails_the_set_up(client):
    assert call_hostile(client, "reset raises", 0)
    with (
        client.session("reset_raises", split="train", index=1) as session,
        pytest.raises(SetupFailedError, match="reset said no"),
    ):
        session.get_prompt()


@pytest.mark.parametrize(
    ("action", "said"), [(1, "step said no"), (2, "StopIteration"), (3, "SystemExit")]
)
def test_a_step_that_raises_is_a_tool_that_failed(client, action, said):
    with client.session("step_raises", split="train", index=0) as session:
        session.get_prompt()
        with pytest.raises(ToolFailedError, match=said):
            session.call_tool("step", {"action": action})
        assert session.call_tool("step", {"action": 0})["reward"] == 1.0


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        ("an object as an observation", "observation cannot be carried.*object"),
        ("four values", "not enough values"),
    ],
)
def test_what_cannot_be_carried_in_play_is_a_tool_that_failed(client, fault, said):
    with pytest.raises(ToolFailedError, match=said):
        call_hostile(client, fault, 0)


def test_an_observation_outside_its_space_is_carried_as_it_is(client):
    (result,) = call_hostile(client, "outside its space", 0)
    observation = read_value(result["metadata"]["observation"])
    assert observation.dtype == np.float64
    assert np.array_equal(observation, [5, np.nan], equal_nan=True)
    assert result["blocks"][0]["text"] == '[5.0, "NaN"]'


def test_of_an_info_what_json_holds_is_carried(client):
    (result,) = call_hostile(client, "info is no JSON", 0)
    assert result["metadata"]["info"] == {"plain": 1}
    assert result["metadata"]["left_out"] == ["odd", "set"]


def test_a_reward_that_json_has_not_is_in_the_metadata(client):
    (result,) = call_hostile(client, "reward is NaN", 0)
    assert result["reward"] is None
    assert np.isnan(read_value(result["metadata"]["reward"]))


@pytest.mark.parametrize(
    "fault", ["render raises", "render gives None", "close raises"]
)
def test_without_a_picture_or_a_close_the_episode_goes_on(client, fault):
    results = call_hostile(client, fault, 0, 0, 0, 0)
    assert [one["finished"] for one in results] == [False, False, False, True]
    assert [block["type"] for block in results[0]["blocks"]] == ["text"]


def test_an_env_is_never_used_by_two_threads_at_a_time(base_url):
    def play() -> None:
        with (
            ORSClient(base_url) as client,
            client.session("overlapping", split="train", index=0) as session,
        ):
            session.get_prompt()
            for _ in range(5):
                session.call_tool("step", {"action": 0})
            played.append(True)

    played: list[bool] = []
    threads = [threading.Thread(target=play) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(played) == 4


def test_they_are_registered_and_made_as_any_other(base_url, closing):
    ids = ors_gym.register_envs(base_url, namespace="served")
    assert "served/cartpole_v1" in ids
    assert "served/blackjack_v1" in ids
    env = closing(gym.make("served/cartpole_v1", split="validation"))
    env.reset(seed=1)
    assert env.step(env.action_space.sample())[4]["tool"] == "step"


class Unknown(spaces.Box):
    """A space of one's own."""


def with_spaces(**replaced: Any) -> Any:
    def make(task: Any) -> Any:
        env = Nested()
        vars(env).update(replaced)
        return env

    return named(make, "strange")


@pytest.mark.parametrize(
    ("what", "said"),
    [
        ("gymnasium:NoSuchEnv-v0", "NoSuchEnv"),
        ("gymnasium:CartPole-v1?no_such_argument=1", "no_such_argument"),
        ("gymnasium:CartPole-v1?nonsense", "arguments of .*nonsense.* cannot be read"),
        ("gymnasium:", "does not name an environment"),
        ("tests.support.gymnasium_envs:no_such", "no class 'no_such'"),
        (with_spaces(action_space=Unknown(0, 1)), "strange.*action space.*Unknown"),
        (
            with_spaces(action_space=spaces.Graph(spaces.Discrete(2), None)),
            "strange.*action space.*Graph",
        ),
        (
            with_spaces(observation_space=spaces.Tuple([Unknown(0, 1)])),
            "strange.*observation space.*Unknown",
        ),
        (named(lambda task: 5, "five"), "five made 5, which is no gymnasium.Env"),
        (with_spaces(reset=lambda **_: 3), "first observation.*3, which is no pair"),
        (
            with_spaces(reset=lambda **_: (len, {})),
            "first observation.*cannot be carried",
        ),
        (with_spaces(reset=lambda **_: 1 / 0), "ZeroDivisionError(?s:.)*Traceback"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_cannot_be_carried_is_an_error_when_it_is_served(what, said):
    with pytest.raises(InvalidRequestError, match=said):
        run([what], port=0)
    # From a process of its own the error is the same.
    if "Unknown" in said:
        with pytest.raises(InvalidRequestError, match=said), serve(what):
            pass


def test_an_env_itself_is_no_way_to_make_one():
    with pytest.raises(InvalidRequestError, match="lambda task: env"), serve(Nested()):  # type: ignore[arg-type]
        pass


class Slow(Nested):
    """Resets when it is let to."""

    def __init__(self, resets: threading.Event, closed: list[Any]) -> None:
        super().__init__()
        self.resets, self.closed = resets, closed

    def reset(self, *, seed=None, options=None):
        assert self.resets.wait(30)
        return super().reset(seed=seed)

    def close(self):
        self.closed.append(self)


def test_an_env_whose_session_was_deleted_meanwhile_is_closed():
    resets, closed = threading.Event(), list[Any]()
    resets.set()
    served = as_environment(named(lambda task: Slow(resets, closed), "slow"))
    # It was looked at: one env to know its spaces, one to know that there are two.
    assert len(closed) == 2

    async def delete_in_set_up() -> None:
        resets.clear()
        setting_up = asyncio.create_task(served({"seed": 0}).setup())
        await asyncio.sleep(0)
        setting_up.cancel()
        with pytest.raises(asyncio.CancelledError):
            await setting_up
        assert len(closed) == 2
        resets.set()
        await served.host.worker.run(lambda: None)
        assert len(closed) == 3

    asyncio.run(delete_in_set_up())
