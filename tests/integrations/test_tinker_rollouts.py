"""The tinker cookbook's rollout loop, token by token, with a local model's stand-in.

No service is asked: the policy samples among things to say, and says them in tokens of
a byte-level tokenizer with their log-probabilities.
"""

import asyncio
import hashlib
import math
import pickle
import random
import threading
import types
from collections.abc import Callable
from typing import Any, ClassVar

import pytest
from tinker_cookbook.completers import TokenCompleter, TokensWithLogprobs
from tinker_cookbook.renderers import get_renderer
from tinker_cookbook.rl.data_processing import (
    assemble_training_data,
    compute_advantages,
)
from tinker_cookbook.rl.rollout_strategy import FailFast, RetryOnFailure
from tinker_cookbook.rl.rollouts import do_group_rollout, do_single_rollout
from tinker_cookbook.tokenizer_utils import register_tokenizer
from tinker_cookbook.tool_use import build_agent_tool_env
from tinker_cookbook.tool_use.types import Tool, ToolInput
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from ors_gym.errors import InvalidRequestError, SessionLostError
from ors_gym.integrations.tinker import (
    ORSGroupBuilder,
    ors_messages,
    ors_reward,
    ors_tools,
)
from ors_gym.rollout import LiveEpisode, connect
from tests.support.hermes_calls import write
from tests.support.servers.process import start_server

GROUP = "agents"
SDK = "ors-sdk-0.1.0"
NAME = "ors-gym-bytes"
SECRET = "s3cret-of-the-task"


class OneAtATime(PreTrainedTokenizerFast):  # type: ignore[misc]
    """The cookbook's renderer encodes in threads, with settings that it changes."""

    _lock: ClassVar = threading.Lock()

    def encode(self, *given: Any, **named: Any) -> Any:
        with self._lock:
            return super().encode(*given, **named)


def make_tokenizer() -> PreTrainedTokenizerFast:
    """Make a tokenizer of single bytes, which needs no file."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {letter: number for number, letter in enumerate(letters)}
    plain = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    plain.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    plain.decoder = decoders.ByteLevel()
    tokenizer = OneAtATime(
        tokenizer_object=plain, eos_token="<|im_end|>", bos_token=None
    )
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|im_start|>"]})
    return tokenizer


register_tokenizer(NAME, make_tokenizer)


@pytest.fixture(scope="module")
def renderer() -> Any:
    return get_renderer("qwen3_instruct", make_tokenizer(), model_name=NAME)


class Sampler(TokenCompleter):  # type: ignore[misc]
    """Draws what to say by the conversation so far, one draw a turn."""

    def __init__(self, choose: Callable[[str], list[str]], seed: int = 0) -> None:
        self.tokenizer = make_tokenizer()
        self.choose = choose
        self.random = random.Random(seed)
        self.seen: list[str] = []

    async def __call__(
        self, model_input: Any, stop: Any, *, max_tokens: int | None = None
    ) -> TokensWithLogprobs:
        text = self.tokenizer.decode(model_input.to_ints())
        self.seen.append(text)
        choices = self.choose(text)
        said = self.random.choice(choices)
        tokens = self.tokenizer.encode(said + "<|im_end|>", add_special_tokens=False)
        first = -math.log(len(choices))
        return TokensWithLogprobs(tokens, [first] + [0.0] * (len(tokens) - 1))


def script(*texts: str) -> Callable[[str], list[str]]:
    """Say these in order, by how many turns stand in the conversation."""
    return lambda text: [texts[text.count("<|im_start|>assistant") - 1]]


def builder_for(server: Any, renderer: Any, **arguments: Any) -> ORSGroupBuilder:
    given = {"group_size": 1, "base_url": server.base_url, **arguments}
    return ORSGroupBuilder("Contract", 0, renderer, **given)


def roll(builder: ORSGroupBuilder, policy: TokenCompleter, strategy: Any = None) -> Any:
    return asyncio.run(do_group_rollout(builder, policy, strategy))


def test_a_group_of_one_task_is_played_and_becomes_training_data(one_server, renderer):
    def choose(text: str) -> list[str]:
        if text.count("<|im_start|>assistant") == 1:
            return [write("add", a=1, b=2)]
        return [write("submit", answer="0"), write("submit", answer="wrong")]

    several = {"group_size": 6, "system_prompt": "Count well."}
    policy = Sampler(choose, seed=1)
    group = roll(builder_for(one_server, renderer, **several), policy)
    rewards = group.get_total_rewards()
    assert len(set(rewards)) > 1
    assert sum(rewards) == sum(one_server.rewards())
    assert all(len(trajectory.transitions) == 2 for trajectory in group.trajectories_G)
    assert group.metrics_G[0]["ors/steps"] == 2.0
    # Each turn is paid in its transition, so that nothing is left at the end.
    for trajectory in group.trajectories_G:
        first, last = trajectory.transitions
        assert (first.reward, last.reward) == (0.5, last.reward)
    assert group.final_rewards_G == [0.0] * 6
    opening = policy.seen[0]
    assert "Count well." in opening
    assert '"name": "add"' in opening
    later = policy.seen[-1]
    assert later.startswith(opening.rpartition("<|im_start|>assistant")[0])
    assert "<tool_response>\n3\n</tool_response>" in later
    data, _ = assemble_training_data([group], compute_advantages([group]))
    assert data
    assert one_server.open_sessions() == set()
    ready = one_server.log("ready")
    assert len({entry["session"] for entry in ready}) == 6
    assert len({entry["task"] for entry in ready}) == 1


def interview(server: Any, renderer: Any) -> ORSGroupBuilder:
    return ORSGroupBuilder(
        *("Interview", 2, renderer, 1, server.base_url), system_prompt="Mine."
    )


def test_a_prompt_with_roles_keeps_them(newest, renderer):
    policy = Sampler(lambda _: [write("submit", answer="4")])
    group = roll(interview(newest, renderer), policy)
    assert group.get_total_rewards() == [1.0]
    opening = policy.seen[0]
    assert opening.startswith("<|im_start|>system\nMine.\n\nBe brief.\n\n# Tools")
    assert opening.count("<|im_start|>system") == 1
    call = write("submit", answer="7")
    turns = ["user\nIs it 7?", f"assistant\nI try.\n{call}"]
    turns.append("user\n<tool_response>\nwrong\n</tool_response>")
    turns.append("user\n2 + 2 = ?")
    told = "".join(f"<|im_start|>{turn}<|im_end|>\n" for turn in turns)
    assert opening.endswith(f"<|im_end|>\n{told}<|im_start|>assistant\n")
    assert len(newest.log("prompt")) == 1


def test_reasoning_and_names_of_tools_reach_the_renderer(newest, renderer):
    async def work() -> Any:
        async with (
            connect(newest.base_url) as client,
            LiveEpisode(client, "Interview", 2) as live,
        ):
            await live.start()
            return ors_messages(live, renderer)

    _, _, said, result, _ = asyncio.run(work())
    thinking, text = said["content"]
    assert thinking == {"type": "thinking", "thinking": "Let me try."}
    assert text == {"type": "text", "text": "I try."}
    assert said["tool_calls"][0].function.name == result["name"] == "submit"
    assert (result["tool_call_id"], result["content"]) == ("c1", "wrong")


@pytest.mark.parametrize(
    ("texts", "reward", "reason"),
    [
        # The cookbook cuts these off without asking the environment.
        ((write("add", a=1, b=2), "cut"), 0.25, "max_tokens"),
        (("<tool_call>{not json</tool_call>", write("submit", answer="0")), 0.75, None),
        (("I would rather not.",) * 4, -0.25, None),
    ],
)
def test_the_reward_is_paid_once_however_an_episode_ends(
    texts, reward, reason, one_server, renderer
):
    class Cut(Sampler):
        async def __call__(self, *given: Any, **named: Any) -> TokensWithLogprobs:
            output = await super().__call__(*given, **named)
            if "cut" in self.tokenizer.decode(output.tokens):
                output.stop_reason = "length"
            return output

    rules = {"nonterminal_reward": -0.25, "invalid_action_reward": -0.25}
    if reward == -0.25:
        del rules["invalid_action_reward"]
    builder = builder_for(one_server, renderer, arguments=rules)
    group = roll(builder, Cut(script(*texts)))
    assert group.get_total_rewards() == [reward]
    assert group.trajectories_G[0].stop_reason == reason


@pytest.mark.parametrize("attempts", [1, 3])
def test_an_outage_is_repaired_or_fails_a_rollout_that_is_retried(attempts, renderer):
    with start_server(SDK) as server:
        broken: list[bool] = []

        def choose(text: str) -> list[str]:
            if text.count("<|im_start|>assistant") == 2 and not broken:
                broken.append(True)
                server.restart()
                server.mark()
            first = text.count("<|im_start|>assistant") == 1
            return [write("add", a=1, b=2) if first else write("submit", answer="0")]

        builder = builder_for(server, renderer, arguments={"attempts": attempts})
        policy = Sampler(choose)
        if attempts == 1:
            with pytest.raises(SessionLostError):
                roll(builder, policy, FailFast())
            broken.clear()
            group = roll(builder, policy, RetryOnFailure(max_retries=2))
            (error,) = group.rollout_errors
            assert error.error_type == "SessionLostError"
        else:
            group = roll(builder, policy, FailFast())
            assert len(policy.seen) == 2
            (trajectory,) = group.trajectories_G
            assert [one.reward for one in trajectory.transitions] == [0.5, 1.0]
        assert group.get_total_rewards() == [1.5]
        assert not [text for text in policy.seen if "lost" in text]
        assert server.open_sessions() == set()


def test_a_full_conversation_costs_no_reward(one_server, renderer):
    texts = (write("add", a=1, b=2), write("add", a=3, b=4))
    opening = Sampler(script(*texts))
    roll(builder_for(one_server, renderer, arguments={"max_turns": 1}), opening)
    length = len(opening.tokenizer.encode(opening.seen[0]))
    # There is room for the first turn and its answer, and for no second one after it.
    builder = builder_for(
        *(one_server, renderer),
        arguments={"nonterminal_reward": -0.25},
        max_trajectory_tokens=length + 250,
        max_generation_tokens=100,
    )
    group = roll(builder, Sampler(script(*texts)))
    (trajectory,) = group.trajectories_G
    assert trajectory.stop_reason == "context_overflow"
    paid = 0.5 * len(trajectory.transitions)
    assert trajectory.transitions[-1].reward == 0.0
    assert group.get_total_rewards() == [paid - 0.25]


def secrets() -> dict[str, str]:
    return {"TOKEN": SECRET}


def test_a_builder_travels_without_its_secrets_and_connections(one_server, renderer):
    builder = builder_for(one_server, renderer, secrets=secrets)
    asyncio.run(builder.make_envs())
    packed = pickle.dumps(builder)
    assert SECRET.encode() not in packed
    assert SECRET not in repr(builder)
    again = pickle.loads(packed)
    group = roll(again, Sampler(script(write("submit", answer="0"))))
    assert group.get_total_rewards() == [1.0]
    digest = hashlib.sha256(SECRET.encode()).hexdigest()
    assert one_server.log("construct")[-1]["secrets"] == {"TOKEN": digest}
    assert again.logging_tags() == ["Contract"]
    for given in ({"secrets": secrets()}, {"arguments": {"api_key": SECRET}}):
        with pytest.raises(InvalidRequestError, match="pickle") as caught:
            builder_for(one_server, renderer, **given)
        assert SECRET not in str(caught.value)


def test_a_renderer_that_knows_no_tools_is_told_of_them_in_words(one_server, newest):
    renderer = get_renderer("role_colon", make_tokenizer(), model_name=NAME)

    class Colon(Sampler):
        async def __call__(self, *given: Any, **named: Any) -> TokensWithLogprobs:
            output = await super().__call__(*given, **named)
            said = write("submit", answer="0") + "\n\nUser:"
            output.tokens = self.tokenizer.encode(said, add_special_tokens=False)
            output.maybe_logprobs = [0.0] * len(output.tokens)
            return output

    policy = Colon(lambda text: ["unused"])
    group = roll(builder_for(one_server, renderer), policy)
    assert group.get_total_rewards() == [1.0]
    assert '<tools>\n{"type": "function"' in policy.seen[0]
    roll(interview(newest, renderer), policy)
    _, opening = policy.seen
    assert opening.startswith("System: Mine.\n\nBe brief.\n\n")
    said = f"Assistant: I try.\n{write('submit', answer='7')}"
    assert f"User: Is it 7?\n\n{said}\n\nTool: wrong\n\nUser: 2 + 2 = ?" in opening


def test_the_tools_serve_the_cookbooks_own_environment(tidy_server, renderer):
    both = write("submit", answer="0") + "\n" + write("add", a=5, b=5)
    policy = Sampler(script(write("add", a=1, b=2), both))

    async def work() -> Any:
        async with (
            connect(tidy_server.base_url) as client,
            LiveEpisode(client, "Contract", 0) as live,
        ):
            await live.start()
            tools = ors_tools(live)
            assert all(isinstance(tool, Tool) for tool in tools)
            opening = ors_messages(live, renderer)
            env = build_agent_tool_env(renderer, list(tools), opening, ors_reward(live))
            return await do_single_rollout(policy, env)

    trajectory = asyncio.run(work())
    assert [one.reward for one in trajectory.transitions] == [0.0, 1.5]
    assert trajectory.stop_reason == "tool_stopped"
    assert tidy_server.runs("add") == 1


def test_a_time_limit_of_the_cookbook_keeps_rewards(tidy_server, renderer, monkeypatch):
    stepping: list[Any] = []

    async def work() -> Any:
        rules = {"nonterminal_reward": -0.25}
        builder = builder_for(tidy_server, renderer, arguments=rules)
        (env,) = await builder.make_envs()
        live = env.message_env.live
        step = live._env.step

        async def hang(action: Any) -> Any:
            if not stepping:
                stepping.append(action)
                return await step(action)
            playing.cancel()
            return await asyncio.Event().wait()

        monkeypatch.setattr(live._env, "step", hang)
        policy = Sampler(lambda _: [write("add", a=1, b=2)])
        playing = asyncio.ensure_future(do_single_rollout(policy, env))
        with pytest.raises(asyncio.CancelledError):
            await playing
        cut = types.SimpleNamespace(stop_reason="rollout_timeout", transitions=[])
        rewards = await builder.compute_group_rewards([cut], [env])
        (tool, *_) = ors_tools(live)
        late = await tool.run(ToolInput(arguments={}, call_id="late"))
        await builder.cleanup()
        return rewards[0][0], late

    reward, late = asyncio.run(work())
    assert reward == 0.25
    assert late.should_stop
    assert late.messages[0]["content"] == "not run: the episode ended (deadline)"


def test_the_documented_block_runs(documented, bundled, renderer, monkeypatch, capsys):
    monkeypatch.setenv("ORS_BASE_URL", bundled)
    policy = Sampler(lambda text: [write("submit", answer="7")])
    names = {"renderer": renderer, "policy": policy}
    exec(documented("runs with tinker-cookbook 0.6.1"), names)
    assert capsys.readouterr().out == "[0.0, 0.0, 0.0, 0.0]\n"


@pytest.mark.parametrize(("how", "paid"), [("both", 1.0), ("tool", 0.0), ("text", 1.0)])
def test_a_terminal_tool_is_offered_and_reached_as_chosen(newest, renderer, how, paid):
    arguments = {"terminal_tool_as": how, "max_turns": 1}
    builder = ORSGroupBuilder(
        *("Essay", 1, renderer, 1, newest.base_url), arguments=arguments
    )
    policy = Sampler(script("2"))
    group = roll(builder, policy)
    assert group.get_total_rewards() == [paid]
    assert ('"name": "submit"' in policy.seen[0]) == (how != "text")


def test_narrowed_schemas_are_offered(one_server, renderer):
    table = {"move": {"direction": {"enum": ["up", "down"]}}}
    arguments = {"tool_schemas": table, "max_turns": 1}
    builder = ORSGroupBuilder(
        *("Board", 0, renderer, 1, one_server.base_url), arguments=arguments
    )
    policy = Sampler(script(write("move", direction="up")))
    roll(builder, policy)
    assert '"enum": ["up", "down"]' in policy.seen[0]
