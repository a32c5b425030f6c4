"""Episodes of an engine of tokens: the ids only grow, and are kept as they are."""

import asyncio
import json
import pickle
from typing import Any

import pytest

from ors_gym.errors import InvalidRequestError
from ors_gym.rollout import (
    Episode,
    Generated,
    Parsed,
    Rendered,
    Stop,
    TemplateRenderer,
    TokenPolicy,
    Turn,
    TurnTokens,
    run_episode,
)
from ors_gym.rollout._policies import is_async
from tests.rollout.scripted_env import ScriptedEnv
from tests.rollout.small_tokenizer import END, START, SmallTokenizer, chatml
from tests.rollout.test_renderers import drops_reasoning

pytestmark = pytest.mark.unit

CALL = '{"tool": "submit", "input": {"answer": "4"}}'
TOKENIZER = SmallTokenizer()


class Engine:
    """Says what a script tells it to, and keeps what it read and sampled."""

    def __init__(self, *script: str, **fields) -> None:
        self.script = list(script)
        self.fields = fields
        self.log: list[tuple[list[int], list[int], int]] = []

    def __call__(self, ids, *, max_new_tokens, stop, **mm):
        sampled = TOKENIZER.encode(self.script.pop(0))[:max_new_tokens]
        self.log.append((ids, sampled, max_new_tokens))
        assert stop == [2, 0]
        return Generated(sampled, [-1.0] * len(sampled), **self.fields)


def play(engine, *script, renderer=TOKENIZER, rules=None, **arguments) -> Episode:
    env = ScriptedEnv(*map(dict, script))
    policy = TokenPolicy(engine, renderer, **arguments)
    return run_episode(env, policy, **rules or {})


def tokens_of(episode: Episode) -> list[TurnTokens]:
    return [turn.tokens for turn in episode.turns if turn.tokens is not None]


def check_exact(episode: Episode, engine: Engine) -> None:
    """Compare the sequences with what the engine read and sampled, id for id."""
    for sequence in episode.sequences():
        end = 0
        for number in sequence.turns:
            read, said, _ = engine.log[number]
            assert sequence.ids[: len(read)] == read
            end = len(read) + len(said)
            assert sequence.ids[len(read) : end] == said
            assert sequence.mask[end - len(said) : end] == [1] * len(said)
        assert end == len(sequence.ids)
    sampled = sum(len(one) for _, one, _ in engine.log)
    assert sum(sum(one.mask) for one in episode.sequences()) == sampled


def test_the_ids_only_grow():
    engine = Engine(f"Hm.{CALL}{END}", CALL, END, f"{CALL}{END}", version=3)
    episode = play(engine, {"reward": 0.5}, {}, {}, {"reward": 1.0, "finished": True})
    check_exact(episode, engine)
    (sequence,) = episode.sequences()
    text = TOKENIZER.decode(sequence.ids)
    assert text.endswith(f"{START}assistant\n{CALL}{END}")
    assert text.count(f"{END}\n{START}") == text.count(START) - 1  # one end, always
    assert sequence.rewards[-1] == 1.0
    assert sum(sequence.rewards) == sequence.reward == 1.5
    assert {v for v, m in zip(sequence.versions, sequence.mask, strict=True) if m} == {
        3
    }
    assert [turn.version for turn in episode.turns] == [3] * 4
    assert Episode.from_json(episode.to_json()) == episode
    assert json.loads(episode.to_json())["turns"][1]["tokens"]["version"] == 3


def test_an_end_that_the_engine_left_out_is_read_and_not_trained_on():
    engine = Engine(CALL, f"{CALL}{END}")
    episode = play(engine, {}, {"finished": True})
    check_exact(episode, engine)
    first, second = tokens_of(episode)
    assert first.ids[-1] != 2
    assert second.prompt_ids[0] == 2
    assert first.starts_sequence
    assert not second.starts_sequence


def test_a_turn_that_cannot_fit_ends_the_episode_with_what_it_earned():
    engine = Engine(*[f"{CALL}{END}"] * 5)
    script = [{"reward": 0.25}] * 5
    (first,) = tokens_of(play(Engine(f"{CALL}{END}"), {"finished": True}))
    prompt, turn = len(first.prompt_ids), len(first.ids)
    limits = {"max_tokens": prompt + 3 * turn, "min_new_tokens": turn}
    episode = play(engine, *script, **limits)
    assert episode.stop_reason == "max_tokens"
    assert 0 < len(episode.turns) < 5
    assert episode.total_reward == 0.25 * len(episode.turns)
    (sequence,) = episode.sequences()
    assert len(sequence.ids) <= limits["max_tokens"]
    for read, _, room in engine.log:
        assert room == limits["max_tokens"] - len(read)
    nothing = play(Engine(), max_tokens=10, rules={"nonterminal_reward": -1.0})
    assert (nothing.stop_reason, nothing.total_reward) == ("max_tokens", -1.0)
    assert nothing.sequences() == []


def test_a_cut_turn_is_an_outcome_too():
    engine = Engine(f"{CALL}{END}", f"{CALL}{END}")
    episode = play(engine, {}, {"finished": True}, max_new_tokens=5)
    check_exact(episode, engine)
    assert episode.turns[0].actions == ['{"too']
    assert len(tokens_of(episode)[0].ids) == 5


def test_a_rewriting_template_is_refused_or_splits_the_episode():
    hostile = SmallTokenizer(drops_reasoning)
    with pytest.raises(InvalidRequestError, match="where the model had seen"):
        TokenPolicy(Engine(), hostile)
    said = f"<think>2 + 2</think>{CALL}{END}"
    engine = Engine(said, f"{CALL}{END}", said, f"{CALL}{END}")
    script = [{}, {}, {}, {"finished": True}]
    episode = play(engine, *script, renderer=hostile, on_rewrite="split")
    check_exact(episode, engine)
    # The turns whose reasoning was dropped are the last of their sequence.
    assert [one.turns for one in episode.sequences()] == [[0], [1, 2], [3]]
    assert "<think>" not in TOKENIZER.decode(engine.log[3][0])
    engine = Engine(said, f"{CALL}{END}", said, f"{CALL}{END}")
    episode = play(engine, *script, renderer=hostile, on_rewrite="append")
    check_exact(episode, engine)
    assert len(episode.sequences()) == 1


def test_an_async_engine_runs_on_the_loop():
    engine = Engine(f"{CALL}{END}", f"{CALL}{END}")

    async def generate(ids, **arguments):
        await asyncio.sleep(0)
        return engine(ids, **arguments)

    policy = TokenPolicy(generate, TOKENIZER)
    assert is_async(policy)
    assert not is_async(TokenPolicy(engine, TOKENIZER))
    assert "generate(max_tokens=None" in policy.policy_name
    assert TokenPolicy(engine, TOKENIZER, policy_name="m").policy_name == "m"
    episode = run_episode(ScriptedEnv({}, {"finished": True}), policy)
    check_exact(episode, engine)


def test_a_turn_that_failed_can_be_asked_for_again():
    engine = Engine(f"{CALL}{END}", f"{CALL}{END}")
    failures = [RuntimeError("no GPU"), None, RuntimeError("no GPU"), None]

    def generate(ids, **arguments):
        if (failure := failures.pop(0)) is not None:
            raise failure
        return engine(ids, **arguments)

    policy = TokenPolicy(generate, TOKENIZER)

    def patient(episode):
        try:
            return policy(episode)
        except RuntimeError:
            return policy(episode)

    episode = run_episode(ScriptedEnv({}, {"finished": True}), patient)
    check_exact(episode, engine)


class WithImages:
    """A renderer that makes inputs of another kind beside ids."""

    def __init__(self) -> None:
        self._renderer: Any = TemplateRenderer(TOKENIZER)
        self.stop_ids = [2, 0]

    def render(self, messages, tools):
        return Rendered(self._renderer.render(messages, tools), "first")

    def render_reply(self, messages):
        return Rendered(self._renderer.render_reply(messages), "more")

    def parse(self, ids):
        return Parsed(self._renderer.parse(ids).text)


def test_multimodal_inputs_are_carried_through():
    engine = Engine(CALL, f"{CALL}{END}")
    seen = []

    def generate(ids, *, mm, **arguments):
        seen.append(list(mm))
        return engine(ids, **arguments)

    episode = play(generate, {}, {"finished": True}, renderer=WithImages())
    check_exact(episode, engine)
    (sequence,) = episode.sequences()
    first, second = tokens_of(episode)
    start = len(sequence.ids) - len(second.ids) - len(second.prompt_ids)
    assert seen == [[(0, "first")], [(0, "first"), (start + 1, "more")]]
    assert sequence.mm == seen[1]
    # The place counts from behind the end of the turn, which the engine left out.
    assert (second.mm, second.prompt_ids[0]) == ((1, "more"), 2)
    assert first.mm == (0, "first")
    assert "mm" not in json.loads(episode.to_json())["turns"][0]["tokens"]


class Cannot(WithImages):
    def render_reply(self, messages):
        return None


def test_a_renderer_that_cannot_append_renders_again():
    engine = Engine(f"{CALL}{END}", f"{CALL}{END}")
    script = [{}, {"finished": True}]
    episode = play(engine, *script, renderer=Cannot(), on_rewrite="split")
    check_exact(episode, engine)
    assert [one.turns for one in episode.sequences()] == [[0], [1]]
    with pytest.raises(InvalidRequestError, match='on_rewrite="split"'):
        play(Engine(f"{CALL}{END}"), *script, renderer=Cannot())


@pytest.mark.parametrize(
    ("answer", "why"),
    [([1, 2], "it returns a Generated"), (Generated([5] * 9), "9 ids; it was asked")],
)
def test_an_engine_that_breaks_its_word_is_told_so(answer, why):
    with pytest.raises(InvalidRequestError, match=why):
        play(lambda ids, **rest: answer, max_new_tokens=8)


def test_a_policy_can_be_pickled():
    policy = pickle.loads(pickle.dumps(TokenPolicy(Engine(f"{CALL}{END}"), TOKENIZER)))
    episode = run_episode(ScriptedEnv({"finished": True}), policy)
    check_exact(episode, policy._generate)


def test_nobody_elses_turns_are_continued():
    policy = TokenPolicy(Engine(), TOKENIZER)
    with pytest.raises(InvalidRequestError, match="turns of its own"):
        policy(Episode("math", turns=[Turn(["hi"], call_ids=["a"])]))


@pytest.mark.parametrize(
    "arguments",
    [
        {"on_rewrite": "hope"},
        {"max_tokens": 0},
        {"max_new_tokens": 0},
        {"min_new_tokens": -1},
        {"min_new_tokens": 9, "max_new_tokens": 8},
    ],
)
def test_wrong_arguments_are_refused(arguments):
    with pytest.raises(InvalidRequestError):
        TokenPolicy(Engine(), TOKENIZER, **arguments)
    with pytest.raises(InvalidRequestError, match="a function that samples"):
        TokenPolicy(3, TOKENIZER)  # type: ignore[arg-type]


def test_the_system_prompt_is_joined_to_that_of_the_environment():
    engine = Engine(f"{CALL}{END}")
    play(engine, {"finished": True}, system_prompt="Be brief.")
    text = TOKENIZER.decode(engine.log[0][0])
    assert text.count(f"{START}system\n") == 1
    assert "Be brief." in text


def test_a_policy_says_why_it_stops():
    episode = run_episode(ScriptedEnv(), lambda _: Stop("max_tokens"))
    assert (episode.stop_reason, episode.turns) == ("max_tokens", [])
    episode = run_episode(ScriptedEnv(), lambda _: Stop())
    assert episode.gave_up_at_once


def test_tokens_of_another_kind_are_refused():
    turn = Turn(CALL, tokens=[1, 2])  # type: ignore[arg-type]
    with pytest.raises(InvalidRequestError, match="not list"):
        run_episode(ScriptedEnv({}), lambda _: turn)


def test_a_template_of_plain_text_is_kept():
    assert TOKENIZER.chat_template is chatml
