"""Episodes on real servers: one by one, in groups, and by a runner."""

import asyncio
import contextlib
import threading
from typing import Any

import pytest

from ors_gym import AsyncORSClient, ORSClient, ORSEnv, errors
from ors_gym.evaluation import evaluate
from ors_gym.rollout import (
    Episode,
    EpisodeRunner,
    Rules,
    random_policy,
    replay,
    run_episode,
    run_episode_async,
    run_group,
)
from ors_gym.rollout._limits import RUN_LIMIT, Budget, RunLimits
from ors_gym.rollout._player import EpisodePlayer, Turns
from tests.evaluation.contract_evaluations import unfold
from tests.rollout.contract_episodes import ADD, SDK, SUBMIT, play, scripted
from tests.rollout.scripted_env import call
from tests.support.proxy.proxy import FaultProxy
from tests.support.servers.process import start_server
from tests.testing.small_server import Answer, Sums, serving

OPENREWARD = "openreward-0.1.167"


def test_an_episode_is_played_and_its_session_deleted(contract):
    episode = play(contract, scripted(ADD, [SUBMIT, SUBMIT]))
    assert (episode.stop_reason, episode.total_reward) == ("finished", 1.5)
    assert (episode.environment, episode.split) == ("contract", "train")
    assert episode.task_index == 0
    assert [step.reply[0]["text"] for step in episode.steps] == ["3", "right"]
    assert episode.seconds >= episode.setup_seconds > 0
    # The call after the end is not sent.
    assert contract.runs("submit") == 1
    contract.wait_for("teardown")
    assert not contract.open_sessions()


def test_the_task_is_nowhere_in_an_episode(contract):
    seen = []

    def policy(episode):
        seen.append(repr(vars(episode)))
        return call("echo", text="x") if len(seen) == 1 else None

    episode = play(contract, policy, task=7)
    texts = [*seen, episode.to_json(), repr(episode.messages())]
    assert not any("'14'" in text or '"14"' in text for text in texts)
    spec = {"id": "mine", "question": "1 + 1?", "answer": "two"}
    episode = play(contract, scripted(call("submit", answer="two")), task=spec)
    assert episode.total_reward == 1.0
    assert "two" not in episode.prompt[0]["text"]
    assert episode.task_index == -1
    assert "mine" not in episode.to_json()


@pytest.mark.parametrize("kept", [False, True])
def test_metadata_is_nowhere_in_an_episode_unless_asked_for(contract, tmp_path, kept):
    output, seen = tmp_path / "run.jsonl", []

    def policy(episode):
        seen.append(repr(vars(episode)) + repr(episode.messages()))
        return call("metadata") if not episode.steps else None

    options: Any = {"split": "train", "output": output, "progress": False}
    options |= {"keep_metadata": True} if kept else {}
    found = evaluate(contract.base_url, "Contract", [0], policy, **options)
    (episode,) = found.episodes
    answer = str(2**53 + 1)
    for text in (*seen[1:], output.read_text(), repr(found.results), str(episode)):
        assert (answer in text) is (kept and text != repr(found.results))
    assert answer not in repr(episode.messages())
    assert replay(contract.base_url, episode).same
    if kept:
        episode.steps[0].metadata = {"big": 1}
        assert "metadata was" in str(replay(contract.base_url, episode))
    env = ORSEnv("Contract", contract.base_url)
    env.reset()
    assert env.step(call("metadata"))[4]["metadata"]["big"] == 2**53 + 1
    env.close()


def test_images_are_kept(contract):
    episode = play(contract, scripted(call("image")))
    kinds = [block["type"] for block in episode.steps[0].blocks]
    assert kinds == ["text", "image", "text"]
    assert Episode.from_json(episode.to_json()) == episode
    user = episode.messages()[3]
    assert user["content"][1]["image_url"]["url"].startswith("data:image/png;base64,")


def test_the_deadline_interrupts_a_policy_and_a_call(contract):
    never = threading.Event()
    try:
        episode = play(contract, lambda episode: never.wait(60), deadline=0.3)
    finally:
        never.set()
    assert (episode.stop_reason, episode.total_reward) == ("deadline", 0.0)
    slow = [ADD, call("slow", seconds=60)]
    episode = play(contract, scripted(*slow), deadline=1.5)
    assert (episode.stop_reason, episode.total_reward) == ("deadline", 0.5)
    assert [step.tool for step in episode.steps] == ["add"]
    assert episode.messages()[-1]["content"] == "not run: the episode ended (deadline)"
    # A call that times out is an outage, and leaves no reward.
    episode = play(contract, scripted(*slow), call_timeout=0.3)
    assert (episode.error_kind, episode.total_reward) == ("timeout", None)
    assert episode.stop_reason == "error"


def test_max_episode_steps_truncates(contract):
    episode = play(contract, lambda episode: ADD, max_episode_steps=3)
    assert (episode.stop_reason, len(episode.steps)) == ("max_steps", 3)


def test_a_policys_own_timeout_is_not_the_deadline(contract):
    async def policy(episode):
        raise TimeoutError("the model")

    with pytest.raises(TimeoutError, match="the model"):
        play(contract, policy, deadline=60)
    found = evaluate(contract.base_url, "Contract", [0, 1], policy, progress=False)
    assert {episode.error for episode in found.episodes} == {"TimeoutError: the model"}
    assert "the policy raised TimeoutError in every episode" in unfold(str(found))


def test_a_broken_setup_is_an_episode_without_an_outcome(contract):
    work = run_episode_async(contract.base_url, "BrokenSetup", 0, scripted())
    episode = asyncio.run(work)
    assert (episode.stop_reason, episode.error_kind) == ("error", "setup_failed")
    assert episode.total_reward is None
    assert "locked" in episode.error


def test_mistakes_of_the_caller_are_raised(contract):
    for error, arguments in (
        (errors.UnknownTaskError, {"task": "zero"}),
        (errors.InvalidRequestError, {"max_step": 3}),
        (errors.InvalidRequestError, {"on_error": "raise"}),
    ):
        with pytest.raises(error, match=r"'zero'|unknown argument|on_error"):
            play(contract, scripted(), **arguments)
    assert not contract.open_sessions()


def test_a_server_that_ends_leaves_an_episode_without_an_outcome():
    with start_server(SDK, environments=["Contract"]) as server:

        def policy(episode):
            if episode.steps:
                server.kill()
            return ADD

        async def main() -> Episode:
            async with AsyncORSClient(server.base_url, timeout=1.0) as client:
                work = (client, "Contract", 0, policy)
                return await run_episode_async(*work, call_timeout=2.0)

        episode = asyncio.run(main())
    assert (episode.stop_reason, episode.total_reward) == ("error", None)
    assert episode.error_kind in {"connection", "ambiguous_call", "timeout"}
    assert episode.steps[0].reward == 0.5


def test_a_blocking_env_is_played_with_the_same_outcome(contract):
    failing = [call("fail", message="boom"), call("nothing")]
    actions = [ADD, *failing, call("submit", answer="")]
    env = ORSEnv("Contract", contract.base_url)
    episode = run_episode(env, scripted(*actions), seed=3)
    env.close()
    again = play(contract, scripted(*actions), task=3)
    kinds = ["", "tool_failed", "invalid_action", ""]
    for one in (episode, again):
        assert [step.error_kind for step in one.steps] == kinds
        assert one.finished
        assert one.total_reward == 0.5
    assert episode.metrics().keys() == again.metrics().keys()
    assert (episode.prompt, episode.tools) == (again.prompt, again.tools)
    assert episode.seed == episode.task_index == 3


def test_a_blocking_env_that_raises_on_tool_errors_raises(contract):
    env = ORSEnv("Contract", contract.base_url, on_tool_error="raise")
    with pytest.raises(errors.ToolFailedError):
        run_episode(env, scripted(call("fail", message="x")))
    env.close()


def test_a_group_plays_one_task_at_once(contract):
    all_there = threading.Barrier(4, timeout=20)

    def policy(episode):
        all_there.wait()
        return call("submit", answer=str(2 * episode.number))

    work = run_group(contract.base_url, "Contract", 2, policy, n=4, seed=10)
    group = asyncio.run(work)
    assert [episode.total_reward for episode in group] == [0.0, 0.0, 1.0, 0.0]
    assert [episode.seed for episode in group] == [10, 11, 12, 13]
    assert {episode.task_index for episode in group} == {2}
    contract.wait_for("teardown", 4)
    assert not contract.open_sessions()


def test_a_policy_that_raises_ends_its_group(contract):
    def policy(episode):
        if episode.number == 1:
            raise ZeroDivisionError
        return call("echo", text="x")

    with pytest.raises(ZeroDivisionError):
        asyncio.run(run_group(contract.base_url, "Contract", 2, policy, n=3))
    contract.wait_until_none_is_open()


def test_a_group_is_scored_beside_its_rewards(shared_server):
    server = shared_server(OPENREWARD)
    policy = scripted("first", "second", "third")
    work = run_group(server.base_url, "Conversation", 0, policy, n=3, score_group=True)
    group = asyncio.run(work)
    assert [episode.total_reward for episode in group] == [1.0, 1.0, 1.0]
    scores = [episode.group_score for episode in group if episode.group_score]
    assert [score["reward"] for score in scores] == [0.0, 1.0, 2.0]
    assert server.log("score_group")[0]["candidates"] == 3


class Submitter(EpisodeRunner):
    answer = "0"

    def select_action(self, observation):
        assert observation[0]["text"]
        return call("submit", answer=self.answer)


class Watcher:
    """A policy that keeps how each of its episodes ended."""

    def __init__(self, *actions: Any) -> None:
        self._actions = actions
        self.ends: list[str] = []

    def __call__(self, episode: Episode) -> Any:
        action = self._actions[len(episode.turns)]
        if isinstance(action, BaseException):
            raise action
        return action

    def end_episode(self, episode: Episode) -> Any:
        self.ends.append(episode.stop_reason)
        episode.extra = {"usage": {"input_tokens": 3, "model": "x", "cached": True}}


class AsyncWatcher(Watcher):
    async def __call__(self, episode):
        return super().__call__(episode)

    async def end_episode(self, episode):
        super().end_episode(episode)


@pytest.mark.parametrize("kind", [Watcher, AsyncWatcher])
@pytest.mark.parametrize(
    ("action", "reason"),
    [
        (SUBMIT, "finished"),
        (None, "policy_stopped"),
        (ADD, "max_turns"),
        (call("slow", seconds=30.0), "deadline"),
        (OSError("no model"), "error"),
    ],
)
def test_a_policy_is_told_once_that_its_episode_is_over(contract, kind, action, reason):
    policy = kind(action)
    limits: Any = {"max_turns": 1, "deadline": 2.0 if reason == "deadline" else 60.0}
    found = evaluate(
        contract.base_url, "Contract", [0], policy, progress=False, **limits
    )
    (episode,) = found.episodes
    assert episode.stop_reason == reason
    assert policy.ends == [reason]
    assert episode.metrics()["input_tokens"] == 3
    assert {"model", "cached"}.isdisjoint(episode.metrics())
    assert Episode.from_json(episode.to_json()).extra == episode.extra
    if reason in ("finished", "policy_stopped"):
        with contextlib.closing(ORSEnv("Contract", contract.base_url)) as env:
            run_episode(env, policy)
        assert policy.ends == [reason, reason]


class Blocked(Watcher):
    """Still blocks its thread when its episode is over."""

    def __init__(self) -> None:
        super().__init__()
        self.go_on = threading.Event()

    def __call__(self, episode: Episode) -> Any:
        self.go_on.wait(60)


class BlockedThenAsync(Blocked):
    async def end_episode(self, episode: Episode) -> None:
        super().end_episode(episode)


@pytest.mark.parametrize("kind", [Blocked, BlockedThenAsync])
def test_a_policy_that_still_blocks_is_told_of_the_end_of_its_episode(contract, kind):
    policy = kind()
    try:
        episode = play(contract, policy, deadline=0.3)
    finally:
        policy.go_on.set()
    assert (episode.stop_reason, policy.ends) == ("deadline", ["deadline"])


def test_what_a_policy_used_counts_though_it_fails_at_the_end(contract):
    class Failing(Watcher):
        def end_episode(self, episode: Episode) -> None:
            super().end_episode(episode)
            raise OSError("no disk")

    found = evaluate(
        *(contract.base_url, "Contract", range(6), Failing(SUBMIT)),
        max_tokens=5,
        max_concurrent=1,
        progress=False,
    )
    assert found.stopped == "max_tokens: 6 of 5 used"
    assert found.errors == {"policy": 2}


def test_a_pause_does_not_hold_back_the_end_of_a_run(contract):
    """Both come just before the same turn."""

    async def run() -> Episode:
        now = [0.0]
        budget = Budget(RunLimits(max_seconds=1), clock=lambda: now[0])
        turns = Turns()

        def stop() -> None:
            turns.pause()
            now[0] = 2.0
            budget.look_at_clock()

        async def policy(_: Episode) -> str:
            # Text goes to no tool, so the next turn is due at once.
            asyncio.get_running_loop().call_soon(stop)
            return "Hm."

        async with (
            asyncio.timeout(30),
            AsyncORSClient(contract.base_url) as client,
            EpisodePlayer(client, "Contract", Rules(), {}, turns) as player,
        ):
            budget.on_stop(player.stop)
            task = await player.env.find_task(0)
            episode = Episode("Contract", 0, "train")
            await player.play(episode, task, policy, budget.begin())
        return episode

    episode = asyncio.run(run())
    assert (episode.error_kind, len(episode.turns)) == (RUN_LIMIT, 1)


def test_an_episode_runner_plays_tasks_and_indexes(contract):
    client = ORSClient(contract.base_url)
    tasks = client.list_tasks("Contract", "test")
    runner = Submitter(client, "Contract")
    figures = {"success": True, "total_reward": 1.0, "steps": 1}
    assert runner.run_episode(tasks[0]) == {**figures, "task": tasks[0]}
    assert runner.run_episode(1)["success"] is False
    unchosen = Submitter(client, "NoTrain").run_episode(tasks[0])
    assert unchosen == {**figures, "task": tasks[0]}
    contract.wait_for("teardown", 3)
    client.close()


@pytest.mark.slow
@pytest.mark.parametrize("on_error", ["raise", "truncate"])
def test_an_episode_runner_raises_after_an_outage(on_error):
    with start_server(SDK, environments=["Contract"]) as server:

        class Killer(EpisodeRunner):
            def select_action(self, observation):
                server.restart()
                return ADD

        with pytest.raises(errors.SessionLostError):
            Killer(server.base_url, "Contract", on_error=on_error).run_episode(0)


def test_an_episode_runner_plays_a_task_of_a_server_without_splits():
    class WithoutSplits(Sums):
        def splits(self) -> list[Any]:
            return []

        def create(self, session_id: str, body: dict[str, Any]) -> Answer:
            assert body.keys().isdisjoint({"split", "index"})
            return super().create(session_id, {**body, "split": "train", "index": 0})

    with serving(WithoutSplits()) as base_url:
        found = Submitter(base_url, "sums").run_episode({"id": "train-0"})
    assert found["steps"] == 1


def test_a_runner_without_actions_says_what_to_define(contract):
    with pytest.raises(NotImplementedError, match="select_action"):
        EpisodeRunner(contract.base_url, "Contract").run_episode(0)


def test_random_policies_draw_the_same_however_many_play(contract):
    def actions(n: int) -> list[object]:
        policy = random_policy(5)
        work = run_group(contract.base_url, "ListOnly", 1, policy, n=n, max_turns=2)
        return [episode.turns[0].actions for episode in asyncio.run(work)]

    alone, among = actions(1), actions(4)
    assert alone == among[:1]
    assert among[0] != among[1]


def test_a_plain_policy_runs_in_a_thread_and_a_second_one_beside_it(contract):
    both = threading.Barrier(2, timeout=20)

    def policy(episode):
        both.wait()

    async def main() -> list[Episode]:
        async with AsyncORSClient(contract.base_url) as client:
            one = run_episode_async(client, "Contract", 0, policy)
            two = run_episode_async(client, "Contract", 1, policy)
            return list(await asyncio.gather(one, two))

    ends = [episode.stop_reason for episode in asyncio.run(main())]
    assert ends == ["policy_stopped", "policy_stopped"]


CONNECTION: Any = {"api_key": "KEY-hunter22", "headers": {"X-Team": "blue"}}


class Submitting(EpisodeRunner):
    def select_action(self, observation: Any) -> Any:
        return SUBMIT


def play_with(way: str, client: Any) -> None:
    """Play an episode in one of the ways that take a client or an address."""
    policy, split = scripted(SUBMIT), "train"
    arguments: Any = {"split": split, **CONNECTION}
    if way == "run_episode_async":
        asyncio.run(run_episode_async(client, "contract", 0, policy, **arguments))
    elif way == "run_group":
        asyncio.run(run_group(client, "contract", 0, policy, n=1, **arguments))
    elif way == "evaluate":
        evaluate(client, "contract", [0], policy, progress=False, **arguments)
    else:
        Submitting(client, "contract", **arguments).run_episode(0)


WAYS = ["run_episode_async", "run_group", "evaluate", "EpisodeRunner"]


@pytest.mark.parametrize("way", WAYS)
def test_a_key_and_headers_reach_the_server_of_an_address(contract, way):
    with FaultProxy(contract.base_url) as proxy:
        play_with(way, proxy.url)
        requests = proxy.requests()
    assert requests
    for request in requests:
        assert request.header("x-api-key") == "KEY-hunter22", request.path
        assert request.header("x-team") == "blue", request.path


@pytest.mark.parametrize("way", WAYS)
def test_a_key_beside_a_client_is_refused(contract, way):
    with (
        ORSClient(contract.base_url) as client,
        pytest.raises(errors.InvalidRequestError, match="api_key= is of no use beside"),
    ):
        play_with(way, client)
