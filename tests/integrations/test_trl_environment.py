"""What TRL trains on: rows of tasks without answers, and rollouts with tools."""

import base64
import copy
import gc
import inspect
import io
import json
import pickle
from collections.abc import Iterator
from typing import Any, Literal

import pytest
from PIL import Image

from ors_gym import ORSClient, errors
from ors_gym.integrations.trl import (
    TRLEnvironment,
    combine_environments,
    trl_environment,
)
from ors_gym.integrations.trl._environment import join_turns
from tests.support.proxy.faults import Answer, Point, Reset
from tests.support.servers.process import RunningServer

GROUP = "training"


def _draw() -> str:
    file = io.BytesIO()
    Image.new("RGB", (2, 1)).save(file, "PNG")
    return base64.b64encode(file.getvalue()).decode()


PNG = _draw()


def contract(url: str, **arguments: Any) -> TRLEnvironment:
    return trl_environment("Contract", url, **{"tasks": [0], **arguments})


def test_who_copies_a_row_is_told_the_prompt_as_text_or_raises(newest):
    made = trl_environment("Interview", newest.base_url, tasks=[2])
    rollout, row = made.environment_factory(), made.train_dataset[0]
    told = rollout.reset(task_index=row["task_index"])
    assert told.startswith("[system]\n\nBe brief.")
    (reward,) = made.reward_funcs
    assert reward(environments=[rollout], prompts=[row["prompt"]]) == [0.0]
    assert rollout.reset(**copy.deepcopy(row)) == "2 + 2 = ?"
    with pytest.raises(errors.InvalidRequestError, match="a copy of the row"):
        reward(environments=[rollout], prompts=[row["prompt"]])
    rollout.reset(**row)
    assert reward(environments=[rollout], prompts=[row["prompt"]]) == [0.0]


@pytest.mark.parametrize("images", [True, False])
def test_turns_of_a_row_and_of_an_environment(images):
    shown = {"type": "image", "data": PNG, "mimeType": "image/png"}
    asked: Any = [
        {"role": "user", "blocks": [{"type": "text", "text": "Look."}, shown]}
    ]
    own = [{"role": "user", "content": "First:"}]
    first, second = join_turns(own, [*asked, *asked], images=images)[:2]
    assert first == own[0]
    if images:
        text, image = second["content"]
        assert text == {"type": "text", "text": "Look."}
        assert image["image"].size == (2, 1)
    else:
        assert second["content"] == "Look.\n\n[image: image/png, 2x1]"


def test_a_row_for_each_task_and_no_answer_in_any(one_server):
    made = trl_environment("contract", one_server.base_url)
    rows = made.train_dataset.to_list()
    prompt = [{"role": "user", "content": ""}]
    same = {"prompt": prompt, "environment": "contract"}
    assert rows == [{**same, "task_index": index} for index in range(12)]
    assert not one_server.log("get_task")
    for text in (json.dumps(rows), repr(made)):
        assert "answer" not in text
        assert "= ?" not in text


def test_specs_that_are_given_stay_out_of_the_rows(one_server):
    specs = [{"id": "x", "question": f"{n}?", "answer": "hunter22"} for n in range(3)]
    made = contract(one_server.base_url, tasks=specs)
    assert "hunter22" not in json.dumps(made.train_dataset.to_list())
    assert "hunter22" not in repr(made)
    rollout = made.environment_factory()
    assert rollout.reset(**made.train_dataset[2]) == "2?"
    rollout.submit(answer="hunter22")
    assert rollout.get_reward() == 1.0
    with pytest.raises(errors.UnknownTaskError):
        rollout.reset(task_index=3)


def test_columns_are_there_by_name_only(one_server):
    made = contract(one_server.base_url, tasks=[7, 2], columns=["question"])
    rows = made.train_dataset.to_list()
    assert [row["question"] for row in rows] == ["7 + 7 = ?", "2 + 2 = ?"]
    assert [row["task_index"] for row in rows] == [7, 2]
    assert "answer" not in rows[0]
    rollout = made.environment_factory()
    assert rollout.reset(**rows[0]) == "7 + 7 = ?"


def test_a_field_that_some_tasks_lack_is_none(one_server):
    specs: list[dict[str, Any]] = [{"id": "a", "level": 1}, {"id": "b"}]
    made = contract(one_server.base_url, tasks=specs, columns=["level"])
    assert made.train_dataset["level"][:] == [1, None]


def test_a_system_prompt(one_server):
    made = contract(one_server.base_url, system_prompt="Be brief.")
    system, user = made.train_dataset[0]["prompt"]
    assert system == {"role": "system", "content": "Be brief."}
    assert user == {"role": "user", "content": ""}


def test_another_split(one_server):
    made = trl_environment("Contract", one_server.base_url, split="test")
    assert len(made.train_dataset) == 5
    rollout = made.environment_factory()
    one_server.mark()
    rollout.reset(**made.train_dataset[4])
    (entry,) = one_server.log("ready")
    assert entry["task"] == "test-4"


def test_the_environment_that_was_asked_for(one_server):
    with pytest.raises(errors.UnknownEnvironmentError, match="tasktools"):
        trl_environment("Nowhere", one_server.base_url)


def test_a_range_of_a_vast_split(one_server):
    url, tasks = one_server.base_url, range(10**8, 10**8 + 3)
    made = trl_environment("Vast", url, tasks=tasks, columns=["question"])
    assert made.train_dataset["question"][0] == f"{10**8}?"
    assert not one_server.log("list_tasks")
    with pytest.raises(errors.UnknownTaskError, match="tasks=range"):
        trl_environment("Vast", url)


def test_every_task_is_probed_but_not_more_than_were_asked_for(one_server):
    trl_environment("Contract", one_server.base_url)
    assert len({entry["task"] for entry in one_server.log("ready")}) == 12
    one_server.mark()
    trl_environment("Contract", one_server.base_url, tool_probes=3)
    probed = {entry["task"] for entry in one_server.log("ready")}
    assert probed == {"train-0", "train-4", "train-8"}
    one_server.wait_for("teardown", 3)


def test_a_task_that_cannot_be_set_up_is_no_obstacle(one_server, caplog):
    good, broken = {"id": "good"}, {"id": "broken", "setup_error": "no disk"}
    made = contract(one_server.base_url, tasks=[broken, good])
    assert len(made.train_dataset) == 2
    assert "no disk" in caplog.text
    with pytest.raises(errors.SetupFailedError, match="no disk"):
        contract(one_server.base_url, tasks=[broken])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"columns": ["answr"]}, "the tasks have: answer, id, question"),
        ({"columns": ["prompt"]}, "'prompt'"),
        ({"columns": "question"}, "list of names"),
        ({"tasks": [99]}, "99"),
        ({"tasks": []}, "empty"),
        ({"tasks": [0, {"id": "x"}]}, "all indexes or all task specs"),
        ({"tasks": lambda *_: 0}, "cannot be a function"),
        ({"split": "trian"}, "trian"),
        ({"reward_reduction": "median"}, "median"),
        ({"nonterminal_reward": float("nan")}, "finite"),
        ({"num_generations": 0}, "at least 1"),
        ({"tool_probes": 0}, "at least 1"),
        ({"prefetch": True}, "prefetch="),
        ({"call_timeout": 0}, "call_timeout"),
    ],
)
def test_mistakes_are_told_before_training(one_server, arguments, message):
    with pytest.raises(errors.InvalidRequestError, match=message):
        trl_environment("Contract", one_server.base_url, **arguments)


def test_a_column_of_several_types_is_refused(one_server):
    specs: list[dict[str, Any]] = [{"id": "a", "x": 1}, {"id": "b", "x": ["one"]}]
    with pytest.raises(errors.InvalidRequestError, match="each column has one type"):
        contract(one_server.base_url, tasks=specs, columns=["x"])


def test_several_environments_in_one_dataset(one_server):
    url = one_server.base_url
    first = trl_environment("Contract", url, tasks=[1], columns=["question"])
    second = trl_environment("TaskTools", url, tasks=[1])
    third = trl_environment("Contract", url, split="test", tasks=[0], name="tests")
    made = combine_environments(combine_environments(first, second), third)
    rows = made.train_dataset.to_list()
    assert [row["environment"] for row in rows] == ["Contract", "TaskTools", "tests"]
    assert [row["question"] for row in rows] == ["1 + 1 = ?", None, None]
    assert list(made.environment_factory) == ["Contract", "TaskTools", "tests"]
    rollouts = []
    for row in rows:
        rollout = made.environment_factory[row.pop("environment")]()
        rollout.reset(**row)
        rollouts.append(rollout)
    rollouts[2].submit(answer="0")
    assert [reward(environments=rollouts) for reward in made.reward_funcs] == [
        [0.0, None, None],
        [None, 0.0, None],
        [None, None, 1.0],
    ]
    with pytest.raises(errors.InvalidRequestError, match="two environments are named"):
        combine_environments(first, first)


@pytest.fixture
def made(one_server: RunningServer) -> TRLEnvironment:
    made = contract(one_server.base_url, tasks=range(4))
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


def test_only_the_servers_tools_are_tools(rollout):
    assert tools_of(rollout) == {
        *("add", "count", "echo", "fail", "fail_like_resume", "image", "many"),
        *("metadata", "reward", "slow", "slow_sync", "speak", "submit"),
    }


def test_an_episode(rollout, made):
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
    one_server, reduction, nonterminal, unfinished, finished
):
    rules = {"reward_reduction": reduction, "nonterminal_reward": nonterminal}
    made = contract(one_server.base_url, tasks=[3], **rules)
    rollout = start(made)
    rollout.add(a=1, b=2)
    rollout.count()
    rollout.echo(text="paid nothing at all")
    assert rollout.get_reward() == unfinished
    rollout.submit(answer="6")
    assert rollout.get_reward() == pytest.approx(finished)


def test_calls_after_the_end_are_not_run_and_pay_nothing(rollout, one_server):
    rollout.submit(answer="6")
    for _ in range(3):
        said = rollout.submit(answer="6")
        assert said == "The episode is over; this call was not run."
    assert rollout.add(a=1, b=1).endswith("was not run.")
    assert rollout.get_reward() == 1.0
    assert one_server.runs() == 1


def test_a_rollout_that_called_nothing_gets_0_and_not_none(rollout):
    assert rollout.get_reward() == 0.0


def test_a_refused_call_is_text_for_the_model(one_server, made):
    strict = contract(one_server.base_url, invalid_action_reward=-0.25)
    rollout = start(strict)
    assert "int" in rollout.add(a="many", b=2)
    assert "b" in rollout.add(a=1)
    assert rollout.get_reward() == -0.5
    rollout.add(a=1, b=1)
    assert rollout.get_reward() == 0.0
    assert one_server.runs("add") == 1
    logged: dict[str, float] = {}
    strict.reward_funcs[0](environments=[rollout], log_metric=logged.__setitem__)
    expected = {"finished": 0.0, "invalid_actions": 2.0, "outages": 0.0}
    assert logged == {f"Contract/{name}": value for name, value in expected.items()}


def test_a_tool_that_raised_is_text_for_the_model(rollout):
    assert "out of paper" in rollout.fail(message="out of paper")
    assert rollout.add(a=1, b=2) == "3"
    assert rollout.get_reward() == 0.5


def test_steps_are_limited(one_server):
    made = contract(one_server.base_url, max_episode_steps=2)
    one_server.mark()
    rollout = start(made)
    assert [rollout.count(), rollout.count()] == ["1", "2"]
    assert rollout.count().endswith("was not run.")
    assert one_server.runs() == 2
    assert rollout.get_reward() == 2.0


def test_the_methods_are_the_union_of_the_tasks_tools(one_server):
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


def test_a_tool_that_no_probed_task_had_is_warned_of(one_server, caplog):
    made = trl_environment("TaskTools", one_server.base_url, tool_probes=1)
    assert tools_of(start(made, 0)) == {"after_setup", "submit"}
    assert not caplog.records
    start(made, 1)
    start(made, 3)
    (record,) = caplog.records
    assert "'extra'" in record.getMessage()
    assert "tool_probes" in record.getMessage()


def test_images_are_parts_of_the_content(rollout):
    before, image, after = rollout.image()
    assert before == {"type": "text", "text": "before"}
    assert after == {"type": "text", "text": "after"}
    assert image["type"] == "image"
    assert image["image"].size == (5, 3)
    assert image["image"].getpixel((4, 2)) == (4, 2, 7)


def test_images_are_described_to_a_model_that_does_not_see(one_server):
    made = contract(one_server.base_url, images=False)
    assert start(made).image() == "before\n\n[image: image/png, 5x3]\n\nafter"


def test_a_prompt_with_an_image(bundled):
    made = trl_environment("maze", bundled, tasks=[0])
    rollout = made.environment_factory()
    text, image = rollout.reset(**made.train_dataset[0])
    assert text["type"] == "text"
    assert image["image"].mode == "RGB"


RESETS = (Reset(Point.BEFORE_REQUEST), Reset(Point.BEFORE_REPLY))


@pytest.mark.parametrize("fault", [*RESETS, Answer(500), Answer(404)], ids=str)
def test_an_outage_gives_no_reward_and_no_text(proxy, caplog, fault):
    made = contract(proxy.url, tasks=range(2), attempts=1)
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
    both = [rollout, start(made, 1)]
    rewards = made.reward_funcs[0](environments=both, log_metric=logged.__setitem__)
    assert rewards == [None, 0.0]
    assert logged["Contract/outages"] == 0.5
    assert "gets no reward" in caplog.text
    # The next episode is a new one.
    assert rollout.reset(**made.train_dataset[1]) == "1 + 1 = ?"
    assert rollout.submit(answer="2") == "right"
    assert rollout.get_reward() == 1.0


@pytest.mark.parametrize("fault", [*RESETS, Answer(404)], ids=str)
def test_an_outage_is_repaired_and_nobody_notices(proxy, caplog, fault):
    rollout = start(contract(proxy.url))
    assert rollout.count() == "1"
    # The second attempt is lost too, while the first call is played again.
    proxy.plan("/call", [fault, fault])
    assert rollout.count() == "2"
    assert rollout.submit(answer="0") == "right"
    assert rollout.get_reward() == 3.0
    assert rollout._outcome()["outages"] == 0.0
    assert not caplog.text


def test_an_environment_that_answers_otherwise_is_not_gone_on_with(proxy, caplog):
    rollout = start(contract(proxy.url))
    assert rollout.count() == "1"
    rollout._live.episode.steps[0].blocks = [{"type": "text", "text": "7"}]
    proxy.plan("/call", [Answer(404)])
    assert rollout.count() == ""
    assert rollout.get_reward() is None
    assert "ambiguous_call" in caplog.text


def test_a_reset_in_an_outage_gives_no_prompt_and_no_reward(proxy):
    made = contract(proxy.url)
    rollout = made.environment_factory()
    proxy.plan("/create_session", [Answer(500)], then="forever")
    assert rollout.reset(**made.train_dataset[0]) is None
    assert rollout.add(a=1, b=2) == ""
    assert rollout.get_reward() is None
    proxy.clear()
    assert rollout.reset(**made.train_dataset[0]) == "0 + 0 = ?"
    assert rollout.get_reward() == 0.0


def test_a_key_that_is_refused_ends_the_training(proxy):
    made = contract(proxy.url)
    rollout = start(made)
    proxy.plan("/create_session", [Answer(401)], then="forever")
    with pytest.raises(errors.AuthenticationError):
        rollout.reset(**made.train_dataset[0])


def test_a_set_up_that_fails_gives_no_reward(one_server):
    good = {"id": "good", "question": "ready?"}
    broken = {"id": "broken", "setup_error": "no disk"}
    made = contract(one_server.base_url, tasks=[good, broken])
    rollout = made.environment_factory()
    assert rollout.reset(**made.train_dataset[1]) is None
    assert rollout.get_reward() is None
    assert rollout.reset(**made.train_dataset[0]) == "ready?"


def test_what_cannot_be_right_ends_the_training(made):
    rollout = made.environment_factory()
    with pytest.raises(errors.UnknownTaskError):
        rollout.reset(task_index=10**6)
    with pytest.raises(errors.EpisodeOverError, match="call reset"):
        made.environment_factory().add(a=1, b=1)


def test_a_failure_of_our_own_is_no_text_for_the_model(rollout, monkeypatch):
    def fail(*_: object) -> None:
        raise RuntimeError("a bug")

    monkeypatch.setattr(rollout._live._env, "step", fail)
    assert rollout.add(a=1, b=2) == ""
    assert rollout.get_reward() is None


def test_sessions_are_deleted_at_the_end_of_an_episode(rollout, one_server):
    rollout.submit(answer="6")
    one_server.wait_for("teardown")


def test_sessions_are_deleted_once_they_are_scored(rollout, made, one_server):
    made.reward_funcs[0](environments=[rollout])
    one_server.wait_for("teardown")
    assert rollout.add(a=1, b=2).endswith("was not run.")


def test_sessions_are_deleted_by_a_reset(rollout, made, one_server):
    rollout.reset(**made.train_dataset[0])
    one_server.wait_for("teardown", task="train-3")
    assert len(one_server.open_sessions()) == 1


def test_sessions_are_deleted_with_the_trainer_that_held_them(made, one_server):
    trainer = [start(made, row) for row in range(3)]
    assert len(one_server.open_sessions()) == 3
    trainer.clear()
    gc.collect()
    one_server.wait_for("teardown", 3)


def test_a_group_is_opened_at_once(tidy_server):
    slow = [{"id": "slow", "setup_seconds": 0.5, "question": "slow?"}]
    made = contract(tidy_server.base_url, tasks=slow, num_generations=8)
    tidy_server.mark()
    group = [made.environment_factory() for _ in range(8)]
    row = made.train_dataset[0]
    assert group[0].reset(**row) == "slow?"
    # By the time the first is set up the others are under way, as the server tells.
    assert len(tidy_server.log("setup")) > 4
    assert [one.reset(**row) for one in group[1:]] == ["slow?"] * 7
    assert len({entry["session"] for entry in tidy_server.log("ready")}) == 8
    assert len({one._live._env.session_id for one in group}) == 8
    made.reward_funcs[0](environments=group)
    tidy_server.wait_for("teardown", 8)


def test_sessions_that_no_rollout_takes_are_given_up(one_server):
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


def test_scoring_gives_up_the_sessions_of_rollouts_that_did_not_come(one_server):
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


def test_a_group_outlives_the_failure_of_what_was_opened_ahead(proxy):
    made = contract(proxy.url, num_generations=2)
    first = start(made)
    waiting = next(iter(made.environment_factory.sessions._waiting.values()))
    waiting[0]._pending.result()
    proxy.plan("/create_session", [Answer(500), Answer(500)])
    other = start(made, 0)
    assert [first.count(), other.count()] == ["1", "1"]


def test_a_factory_travels_in_a_pickle_without_secrets(one_server):
    headers = {"X-Deployment": "a/b", "Authorization": "Bearer hunter22"}
    secret = {"headers": headers, "api_key": "hunter22"}
    made = contract(one_server.base_url, tasks=[3], **secret)
    data = pickle.dumps((made.environment_factory, made.reward_funcs))
    assert b"hunter22" not in data
    assert "hunter22" not in repr(made)
    factory, (reward,) = pickle.loads(data)
    rollout = factory()
    assert rollout.reset(task_index=3) == "3 + 3 = ?"
    rollout.submit(answer="6")
    assert reward(environments=[rollout]) == [1.0]


def test_secrets_reach_the_environment_and_no_pickle(one_server):
    secrets = {"TOKEN": "hunter22"}
    made = contract(one_server.base_url, secrets=secrets)
    one_server.mark()
    start(made)
    (entry,) = one_server.log("construct")
    assert list(entry["secrets"]) == ["TOKEN"]
    data = pickle.dumps(made.environment_factory)
    assert b"hunter22" not in data
    with pytest.raises(errors.InvalidRequestError, match="made with secrets"):
        pickle.loads(data)().reset(task_index=0)


def test_a_reward_function_scores_its_own_environments_only(one_server, bundled):
    one = contract(one_server.base_url)
    other = trl_environment("math", bundled, tasks=[0])
    rollouts = [start(one), start(other), object()]
    rollouts[0].add(a=1, b=1)
    assert one.reward_funcs[0](environments=rollouts) == [0.5, None, None]
    assert other.reward_funcs[0](environments=rollouts) == [None, 0.0, None]
    assert one.reward_funcs[0].__name__ == "Contract_reward"
    with pytest.raises(
        errors.InvalidRequestError, match="gives reward functions no env"
    ):
        one.reward_funcs[0](prompts=[], completions=[])


def say(text: str) -> list[dict[str, Any]]:
    return [{"role": "assistant", "content": text}]


def test_a_terminal_tool_is_a_method_or_takes_the_last_message(newest):
    made = trl_environment("Essay", newest.base_url, tasks=[0, 1, 2, 3])
    called, wrote, wrong, silent = rollouts = [start(made, row) for row in range(4)]
    assert tools_of(called) == {"submit"}
    assert called.submit(answer="0") == "right"
    assert {one.get_reward() for one in (wrote, wrong, silent)} == {0.0}
    call = {"type": "function", "function": {"name": "submit", "arguments": {}}}
    cut_off = [{"role": "assistant", "content": "", "tool_calls": [call]}]
    completions = [say("Done."), say(" 2 "), say("2"), cut_off]
    for _ in range(2):
        (reward,) = made.reward_funcs
        paid = reward(environments=rollouts, completions=completions)
        assert paid == [1.0, 1.0, 0.0, 0.0]
    assert newest.runs("submit") == 3
    assert wrote._outcome()["finished"] == 1.0


@pytest.mark.parametrize(
    ("how", "tools", "paid"), [("tool", {"submit"}, 0.0), ("text", set(), 1.0)]
)
def test_a_terminal_tool_is_reached_as_the_user_chooses(
    newest, caplog, how, tools, paid
):
    url = newest.base_url
    made = trl_environment("Essay", url, tasks=[1], terminal_tool_as=how)
    rollout = start(made)
    assert tools_of(rollout) == tools
    given: Any = {"environments": [rollout], "completions": [say("2")]}
    assert made.reward_funcs[0](**given) == [paid]
    assert not caplog.text


def test_an_outage_of_the_last_message_pays_none(newest, caplog):
    made = trl_environment("Essay", newest.base_url, tasks=[0], attempts=1)
    rollout = start(made)
    with ORSClient(newest.base_url) as client:
        client.delete_episode(rollout._live._env.session_id)
    given: Any = {"environments": [rollout], "completions": [say("0")]}
    assert made.reward_funcs[0](**given) == [None]
    assert "session_lost" in caplog.text


def test_narrowed_schemas_are_what_the_model_reads(one_server):
    ways = {"enum": ["up", "down", "left", "right"]}
    table = {"move": {"direction": ways}}
    url = one_server.base_url
    made = trl_environment("Board", url, tasks=[0], tool_schemas=table)
    rollout = start(made)
    assert (
        inspect.signature(rollout.move).parameters["direction"].annotation
        == (Literal["up", "down", "left", "right"])
    )
    assert rollout.move(direction="down") == "(1, 0)"
    assert "must be one of" in rollout.move(direction="north")
    made.reward_funcs[0](environments=[rollout])
