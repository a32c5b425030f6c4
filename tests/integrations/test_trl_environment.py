"""One rollout as TRL plays it: reset with a row, tools as methods, one reward."""

from __future__ import annotations

import gc
import inspect
import pickle
from collections.abc import Iterator
from typing import Any

import pytest

from ors_gym.errors import (
    AuthenticationError,
    EpisodeOverError,
    InvalidRequestError,
    UnknownTaskError,
)
from ors_gym.integrations.trl import TRLEnvironment, trl_environment
from tests.support.proxy.faults import Answer, Point, Reset
from tests.support.proxy.proxy import FaultProxy
from tests.support.servers.process import RunningServer

GROUP = "training"


@pytest.fixture
def made(one_server: RunningServer) -> TRLEnvironment:
    made = trl_environment("Contract", one_server.base_url, tasks=range(4))
    one_server.mark()
    return made


@pytest.fixture
def rollout(made: TRLEnvironment) -> Iterator[Any]:
    rollout = made.environment_factory()
    assert rollout.reset(**made.train_dataset[3]) == "3 + 3 = ?"
    yield rollout
    made.reward_funcs[0](environments=[rollout])


def start(made: TRLEnvironment, row: int = 0) -> Any:
    rollout = made.environment_factory()
    rollout.reset(**made.train_dataset[row])
    return rollout


def tools_of(rollout: Any) -> set[str]:
    """Return what TRL takes for tools (GRPOTrainer, `_generate_and_score`)."""
    members = inspect.getmembers(type(rollout), predicate=inspect.isfunction)
    names = {name for name, _ in members if not name.startswith("_")}
    assert "get_reward" not in names
    return names - {"reset"}


def test_only_the_servers_tools_are_tools(rollout: Any) -> None:
    assert tools_of(rollout) == {
        *("add", "count", "echo", "fail", "fail_like_resume", "image", "many"),
        *("metadata", "reward", "slow", "slow_sync", "speak", "submit"),
    }


def test_an_episode(rollout: Any, made: TRLEnvironment) -> None:
    assert rollout.add(a=1, b=2) == "3"
    assert rollout.get_reward() == 0.5
    assert rollout.submit(answer="6") == "right"
    assert rollout.get_reward() == 1.5
    assert made.reward_funcs[0](environments=[rollout]) == [1.5]
    # Asked again it is the same, though its session is gone.
    assert made.reward_funcs[0](environments=[rollout]) == [1.5]


@pytest.mark.parametrize(
    ("reduction", "nonterminal", "unfinished", "finished"),
    [
        ("sum", None, 1.5, 2.5),
        ("last", None, 1.0, 1.0),
        ("mean", None, 0.75, 2.5 / 3),
        ("max", -1.0, 0.0, 1.0),
        ("min", 0.25, 0.75, 0.5),
    ],
)
def test_the_reward_of_an_episode(
    one_server: RunningServer,
    reduction: Any,
    nonterminal: float | None,
    unfinished: float,
    finished: float,
) -> None:
    made = trl_environment(
        "Contract",
        one_server.base_url,
        tasks=[3],
        reward_reduction=reduction,
        nonterminal_reward=nonterminal,
    )
    rollout = start(made)
    rollout.add(a=1, b=2)
    rollout.count()
    rollout.echo(text="paid nothing at all")
    assert rollout.get_reward() == unfinished
    rollout.submit(answer="6")
    assert rollout.get_reward() == pytest.approx(finished)


def test_calls_after_the_end_are_not_run_and_pay_nothing(
    rollout: Any, one_server: RunningServer
) -> None:
    rollout.submit(answer="6")
    for _ in range(3):
        assert rollout.submit(answer="6") == (
            "The episode is over; this call was not run."
        )
    assert rollout.add(a=1, b=1).endswith("was not run.")
    assert rollout.get_reward() == 1.0
    assert one_server.runs() == 1


def test_a_rollout_that_called_nothing_gets_0_and_not_none(rollout: Any) -> None:
    assert rollout.get_reward() == 0.0


def test_a_refused_call_is_text_for_the_model(
    one_server: RunningServer, made: TRLEnvironment
) -> None:
    strict = trl_environment(
        "Contract", one_server.base_url, tasks=[0], invalid_action_reward=-0.25
    )
    rollout = start(strict)
    assert "int" in rollout.add(a="many", b=2)
    assert "b" in rollout.add(a=1)
    assert rollout.get_reward() == -0.5
    rollout.add(a=1, b=1)
    assert rollout.get_reward() == 0.0
    assert one_server.runs("add") == 1
    logged: dict[str, float] = {}
    strict.reward_funcs[0](environments=[rollout], log_metric=logged.__setitem__)
    assert logged == {
        "Contract/finished": 0.0,
        "Contract/invalid_actions": 2.0,
        "Contract/outages": 0.0,
    }


def test_a_tool_that_raised_is_text_for_the_model(rollout: Any) -> None:
    assert "out of paper" in rollout.fail(message="out of paper")
    assert rollout.add(a=1, b=2) == "3"
    assert rollout.get_reward() == 0.5


def test_steps_are_limited(one_server: RunningServer) -> None:
    made = trl_environment(
        "Contract", one_server.base_url, tasks=[0], max_episode_steps=2
    )
    one_server.mark()
    rollout = start(made)
    assert [rollout.count(), rollout.count()] == ["1", "2"]
    assert rollout.count().endswith("was not run.")
    assert one_server.runs() == 2
    assert rollout.get_reward() == 2.0


def test_the_methods_are_the_union_of_the_tasks_tools(
    one_server: RunningServer,
) -> None:
    made = trl_environment("TaskTools", one_server.base_url)
    one_server.mark()
    without, with_extra = start(made, 0), start(made, 1)
    assert tools_of(without) == {"after_setup", "extra", "submit"}
    assert with_extra.extra(text="hello") == "hello"
    answer = without.extra(text="hello")
    assert "no tool 'extra'" in answer
    assert "after_setup" in answer
    assert one_server.runs("extra") == 1
    assert without.after_setup(text="still alive") == "still alive"


def test_a_tool_that_no_probed_task_had_is_warned_of(
    one_server: RunningServer, caplog: pytest.LogCaptureFixture
) -> None:
    made = trl_environment("TaskTools", one_server.base_url, tool_probes=1)
    assert tools_of(start(made, 0)) == {"after_setup", "submit"}
    assert not caplog.records
    start(made, 1)
    start(made, 3)
    (record,) = caplog.records
    assert "'extra'" in record.getMessage()
    assert "tool_probes" in record.getMessage()


def test_images_are_parts_of_the_content(rollout: Any) -> None:
    before, image, after = rollout.image()
    assert before == {"type": "text", "text": "before"}
    assert after == {"type": "text", "text": "after"}
    assert image["type"] == "image"
    assert image["image"].size == (5, 3)
    assert image["image"].getpixel((4, 2)) == (4, 2, 7)


def test_images_are_described_to_a_model_that_does_not_see(
    one_server: RunningServer,
) -> None:
    made = trl_environment("Contract", one_server.base_url, tasks=[0], images=False)
    assert start(made).image() == "before\n\n[image: image/png, 5x3]\n\nafter"


def test_a_prompt_with_an_image(bundled: str) -> None:
    made = trl_environment("maze", bundled, tasks=[0])
    rollout = made.environment_factory()
    text, image = rollout.reset(**made.train_dataset[0])
    assert text["type"] == "text"
    assert image["image"].mode == "RGB"


OUTAGES = [
    Reset(Point.BEFORE_REQUEST),
    Reset(Point.BEFORE_REPLY),
    Answer(500),
    Answer(404),
]


@pytest.mark.parametrize("fault", OUTAGES, ids=str)
def test_an_outage_gives_no_reward_and_no_text(
    proxy: FaultProxy, caplog: pytest.LogCaptureFixture, fault: Any
) -> None:
    made = trl_environment("Contract", proxy.url, tasks=range(2))
    rollout = start(made)
    assert rollout.add(a=1, b=2) == "3"
    proxy.plan("/call", [fault])
    assert rollout.add(a=3, b=4) == ""
    sent = len(proxy.requests("/call"))
    assert rollout.add(a=5, b=6) == ""
    assert rollout.submit(answer="0") == ""
    assert len(proxy.requests("/call")) == sent
    assert rollout.get_reward() is None
    logged: dict[str, float] = {}
    rewards = made.reward_funcs[0](
        environments=[rollout, start(made, 1)], log_metric=logged.__setitem__
    )
    assert rewards == [None, 0.0]
    assert logged["Contract/outages"] == 0.5
    assert "gets no reward" in caplog.text
    # The next episode is a new one.
    assert rollout.reset(**made.train_dataset[1]) == "1 + 1 = ?"
    assert rollout.submit(answer="2") == "right"
    assert rollout.get_reward() == 1.0


def test_a_reset_in_an_outage_gives_no_prompt_and_no_reward(
    proxy: FaultProxy,
) -> None:
    made = trl_environment("Contract", proxy.url, tasks=[0])
    rollout = made.environment_factory()
    proxy.plan("/create_session", [Answer(500)], then="forever")
    assert rollout.reset(**made.train_dataset[0]) is None
    assert rollout.add(a=1, b=2) == ""
    assert rollout.get_reward() is None
    proxy.clear()
    assert rollout.reset(**made.train_dataset[0]) == "0 + 0 = ?"
    assert rollout.get_reward() == 0.0


def test_an_environment_that_cannot_ask_for_tools_yet_is_made_all_the_same(
    proxy: FaultProxy,
) -> None:
    made = trl_environment("Contract", proxy.url, tasks=[0])
    proxy.plan("/tools", [Answer(500)], then="forever")
    rollout = made.environment_factory()
    assert rollout.reset(**made.train_dataset[0]) is None
    proxy.clear()
    assert rollout.reset(**made.train_dataset[0]) == "0 + 0 = ?"


def test_a_key_that_is_refused_ends_the_training(proxy: FaultProxy) -> None:
    made = trl_environment("Contract", proxy.url, tasks=[0])
    rollout = start(made)
    proxy.plan("/create_session", [Answer(401)], then="forever")
    with pytest.raises(AuthenticationError):
        rollout.reset(**made.train_dataset[0])


def test_a_set_up_that_fails_gives_no_reward(
    one_server: RunningServer,
) -> None:
    good = {"id": "good", "question": "ready?"}
    broken = {"id": "broken", "setup_error": "no disk"}
    made = trl_environment("Contract", one_server.base_url, tasks=[good, broken])
    rollout = made.environment_factory()
    assert rollout.reset(**made.train_dataset[1]) is None
    assert rollout.get_reward() is None
    assert rollout.reset(**made.train_dataset[0]) == "ready?"


def test_what_cannot_be_right_ends_the_training(made: TRLEnvironment) -> None:
    rollout = made.environment_factory()
    with pytest.raises(UnknownTaskError):
        rollout.reset(task_index=10**6)
    with pytest.raises(EpisodeOverError, match="call reset"):
        made.environment_factory().add(a=1, b=1)


def test_a_failure_of_our_own_is_no_text_for_the_model(
    rollout: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("a bug")

    monkeypatch.setattr(rollout._env, "step", fail)
    assert rollout.add(a=1, b=2) == ""
    assert rollout.get_reward() is None


def test_sessions_are_deleted_at_the_end_of_an_episode(
    rollout: Any, one_server: RunningServer
) -> None:
    rollout.submit(answer="6")
    one_server.wait_for("teardown")


def test_sessions_are_deleted_once_they_are_scored(
    rollout: Any, made: TRLEnvironment, one_server: RunningServer
) -> None:
    made.reward_funcs[0](environments=[rollout])
    one_server.wait_for("teardown")
    assert rollout.add(a=1, b=2).endswith("was not run.")


def test_sessions_are_deleted_by_a_reset(
    rollout: Any, made: TRLEnvironment, one_server: RunningServer
) -> None:
    rollout.reset(**made.train_dataset[0])
    one_server.wait_for("teardown", task="train-3")
    assert len(one_server.open_sessions()) == 1


def test_sessions_are_deleted_with_the_trainer_that_held_them(
    made: TRLEnvironment, one_server: RunningServer
) -> None:
    trainer = [start(made, row) for row in range(3)]
    assert len(one_server.open_sessions()) == 3
    trainer.clear()
    gc.collect()
    one_server.wait_for("teardown", 3)


def test_a_group_is_opened_at_once(one_server: RunningServer) -> None:
    slow = [{"id": "slow", "setup_seconds": 0.5, "question": "slow?"}]
    made = trl_environment(
        "Contract", one_server.base_url, tasks=slow, num_generations=8
    )
    one_server.mark()
    group = [made.environment_factory() for _ in range(8)]
    row = made.train_dataset[0]
    assert group[0].reset(**row) == "slow?"
    # By the time the first is set up the others are under way, as the server tells.
    assert len(one_server.log("setup")) > 4
    assert [one.reset(**row) for one in group[1:]] == ["slow?"] * 7
    assert len({entry["session"] for entry in one_server.log("ready")}) == 8
    assert len({one._env.session_id for one in group}) == 8
    made.reward_funcs[0](environments=group)
    one_server.wait_for("teardown", 8)
    assert one_server.open_sessions() == set()


def test_sessions_that_no_rollout_takes_are_given_up(
    one_server: RunningServer,
) -> None:
    made = trl_environment("Contract", one_server.base_url, num_generations=2)
    one_server.mark()
    rollout = made.environment_factory()
    for row in range(12):
        rollout.reset(**made.train_dataset[row])
    one_server.wait_for("ready", 24)
    # Eleven rollouts ended, and of twelve that never came four were given up.
    one_server.wait_for("teardown", 15)
    del rollout, made
    gc.collect()
    one_server.wait_for("teardown", 24)


def test_scoring_gives_up_the_sessions_of_rollouts_that_did_not_come(
    one_server: RunningServer,
) -> None:
    made = trl_environment("Contract", one_server.base_url, num_generations=4)
    one_server.mark()
    # As an evaluation resets them, with fewer rollouts of a task than training has.
    rollouts = [start(made, row) for row in range(2)]
    one_server.wait_for("ready", 8)
    made.reward_funcs[0](environments=rollouts)
    one_server.wait_for("teardown", 8)
    group = [start(made, 0) for _ in range(4)]
    assert [one.add(a=1, b=2) for one in group] == ["3"] * 4
    assert made.reward_funcs[0](environments=group) == [0.5] * 4


def test_a_group_outlives_the_failure_of_what_was_opened_ahead(
    proxy: FaultProxy,
) -> None:
    made = trl_environment("Contract", proxy.url, tasks=[0], num_generations=2)
    first = start(made)
    waiting = next(iter(made.environment_factory.sessions._waiting.values()))
    assert waiting[0]._next is not None
    waiting[0]._next.future.result()
    proxy.plan("/create_session", [Answer(500), Answer(500)])
    other = start(made, 0)
    assert [first.count(), other.count()] == ["1", "1"]


def test_a_factory_travels_in_a_pickle_without_secrets(
    one_server: RunningServer,
) -> None:
    made = trl_environment(
        "Contract",
        one_server.base_url,
        tasks=[3],
        headers={"X-Deployment": "a/b", "Authorization": "Bearer hunter22"},
        api_key="hunter22",
    )
    data = pickle.dumps((made.environment_factory, made.reward_funcs))
    assert b"hunter22" not in data
    assert "hunter22" not in repr(made)
    factory, (reward,) = pickle.loads(data)
    rollout = factory()
    assert rollout.reset(task_index=3) == "3 + 3 = ?"
    rollout.submit(answer="6")
    assert reward(environments=[rollout]) == [1.0]


def test_secrets_reach_the_environment_and_no_pickle(
    one_server: RunningServer,
) -> None:
    secrets = {"TOKEN": "hunter22"}
    made = trl_environment("Contract", one_server.base_url, tasks=[0], secrets=secrets)
    one_server.mark()
    start(made)
    (entry,) = one_server.log("construct")
    assert list(entry["secrets"]) == ["TOKEN"]
    data = pickle.dumps(made.environment_factory)
    assert b"hunter22" not in data
    with pytest.raises(InvalidRequestError, match="made with secrets"):
        pickle.loads(data)().reset(task_index=0)


def test_a_reward_function_scores_its_own_environments_only(
    one_server: RunningServer, bundled: str
) -> None:
    one = trl_environment("Contract", one_server.base_url, tasks=[0])
    other = trl_environment("math", bundled, tasks=[0])
    rollouts = [start(one), start(other), object()]
    rollouts[0].add(a=1, b=1)
    assert one.reward_funcs[0](environments=rollouts) == [0.5, None, None]
    assert other.reward_funcs[0](environments=rollouts) == [None, 0.0, None]
    assert one.reward_funcs[0].__name__ == "Contract_reward"
    with pytest.raises(InvalidRequestError, match="gives reward functions no env"):
        one.reward_funcs[0](prompts=[], completions=[])
