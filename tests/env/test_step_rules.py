"""What an action means and what a reply becomes, on a session that is none."""

import pickle
from typing import Any

import pytest

from ors_gym import errors
from ors_gym.env._open_for_task import Opened
from ors_gym.env._settings import UNPICKLED, TaskEnvSettings
from ors_gym.env._step_rules import Metadata, PendingCall, StepRules
from ors_gym.env._task_order import Task

pytestmark = pytest.mark.unit

TOOLS: Any = [
    {"name": "add", "description": "", "input_schema": {}},
    {"name": "say", "description": "", "input_schema": None},
]
ADD: Any = {"tool": "add", "input": {"a": 1}}
TEXT = [{"type": "text", "text": "hello"}]


class FakeSession:
    finished = False


class Recorder:
    def __init__(self) -> None:
        self.prompts: list[Any] = []
        self.steps: list[Any] = []

    def record_prompt(self, *prompt: Any) -> None:
        self.prompts.append(prompt)

    def record_step(self, *step: Any) -> None:
        self.steps.append(step)


def make(recorder: Recorder | None = None, **settings: Any) -> StepRules[Any]:
    return StepRules(TaskEnvSettings(env_name="sums", **settings), recorder)


def begin(recorder: Recorder | None = None, **settings: Any) -> StepRules[Any]:
    rules = make(recorder, **settings)
    session: Any = FakeSession()
    rules.begin(Opened(Task("train", 3), "Sums", session, list(TEXT), TOOLS))
    return rules


def output(**changed: Any) -> Any:
    given = {"blocks": TEXT, "reward": 0.5, "finished": False, "metadata": None}
    return {**given, **changed}


def test_an_episode_begins_with_its_prompt_and_tools():
    recorder = Recorder()
    rules = begin(recorder)
    assert rules.environment == "Sums"
    assert rules.action_space.contains(ADD)
    assert rules.outcome is None
    assert recorder.prompts == [("hello", TEXT, "Sums", "task 3 of train")]


def test_an_action_is_a_pending_call_or_has_its_result_at_once():
    rules = begin(invalid_action_reward=-1.0)
    read = rules.read_action('{"name": "add", "arguments": {"a": 1}}')
    assert isinstance(read, PendingCall)
    assert (read.session, read.call) == (rules.session, ADD)
    result = rules.read_action("no call at all")
    assert not isinstance(result, PendingCall)
    observation, reward, terminated, truncated, info = result
    assert (reward, terminated, truncated) == (-1.0, False, False)
    assert (info["error_kind"], info["error"]) == ("invalid_action", observation)


def test_an_output_becomes_a_step():
    recorder = Recorder()
    rules = begin(recorder)
    result = rules.succeeded(ADD, output(metadata={"tokens": 3}))
    assert result[:4] == ("hello", 0.5, False, False)
    assert (result[4]["task_index"], result[4]["split"]) == (3, "train")
    assert result[4]["metadata"]["tokens"] == 3
    assert recorder.steps == [(ADD, "hello", result)]
    end = output(reward=None, finished=True)
    _, reward, terminated, _, info = rules.succeeded(ADD, end)
    assert (reward, terminated, info["reward_is_null"]) == (0.0, True, True)
    assert rules.outcome == (3, 0.5)
    with pytest.raises(errors.EpisodeOverError, match="its episode is over"):
        rules.read_action(ADD)


def test_a_step_limit_truncates_beside_the_end():
    rules = begin(max_episode_steps=2)
    assert rules.succeeded(ADD, output())[2:4] == (False, False)
    assert rules.succeeded(ADD, output(finished=True))[2:4] == (True, True)


REJECTED = errors.ToolRejectedError("no such tool")
FAILED = errors.ToolFailedError("it raised")
LOST = errors.SessionLostError("gone")
MISTAKE = errors.InvalidRequestError("not JSON")


@pytest.mark.parametrize(
    ("error", "settings", "truncated"),
    [
        (REJECTED, {}, False),
        (REJECTED, {"on_tool_error": "raise", "on_error": "raise"}, False),
        (FAILED, {}, False),
        (FAILED, {"on_tool_error": "truncate"}, True),
        (FAILED, {"on_tool_error": "raise"}, None),
        (LOST, {}, None),
        (LOST, {"on_error": "truncate"}, True),
        (MISTAKE, {"on_error": "truncate"}, None),
    ],
)
def test_what_a_failure_becomes(error, settings, truncated):
    rules = begin(**settings)
    if truncated is None:
        with pytest.raises(type(error)):
            rules.failed(ADD, error)
    else:
        observation, reward, *ends, info = rules.failed(ADD, error)
        assert (observation, reward, ends) == (str(error), 0.0, [False, truncated])
        assert (info["tool"], info["error_kind"]) == ("add", error.kind)
    is_alive = error in (REJECTED, FAILED) and not truncated
    assert isinstance(rules.read_action(ADD), PendingCall) if is_alive else True
    if error is LOST and truncated:
        # After an outage nobody knows the reward.
        assert rules.outcome == (3, None)


def test_an_episode_without_a_session_tells_at_its_first_step():
    rules = make()
    observation, info = rules.begin_without_session(Task("train", 5), LOST)
    assert (observation, info["error_kind"]) == (str(LOST), "session_lost")
    assert info["task_index"] == 5
    rules.check_steppable()
    result: Any = rules.read_action(ADD)
    assert (result[0], result[2:4]) == (str(LOST), (False, True))
    with pytest.raises(errors.EpisodeOverError, match="could not be opened"):
        rules.read_action(ADD)


def test_why_no_step_can_be_taken():
    rules = make()
    with pytest.raises(errors.EpisodeOverError, match="not reset yet; call reset"):
        rules.check_steppable()
    rules = begin()
    session = rules.session
    rules.interrupted()
    with pytest.raises(errors.EpisodeOverError, match="interrupted"):
        rules.read_action(ADD)
    assert rules.leave() is session
    assert (rules.task, rules.leave()) == (None, None)
    with pytest.raises(errors.EpisodeOverError, match="after its last episode"):
        rules.read_action(ADD)
    rules.check_usable()
    rules.close()
    with pytest.raises(errors.EpisodeOverError, match="closed; make a new env"):
        rules.read_action(ADD)
    with pytest.raises(errors.SessionClosedError, match="make a new one"):
        rules.check_usable()


def test_an_env_that_lost_its_secrets_cannot_be_used():
    with pytest.raises(errors.InvalidRequestError, match="do not travel in a pickle"):
        make(secrets=UNPICKLED).check_usable()


def test_metadata_is_a_mapping_and_no_dict():
    metadata = Metadata({"tokens": 3})
    assert dict(metadata) == {"tokens": 3}
    assert not isinstance(metadata, dict)
    assert pickle.loads(pickle.dumps(metadata)) == metadata
    assert repr(metadata) == "Metadata({'tokens': 3})"
