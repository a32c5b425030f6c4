"""The page about frameworks: its recipes, on a real server and against fakes.

Its blocks for frameworks that have an adapter run in ``tests/integrations``.
"""

import asyncio
import re
import sys
import types
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import pytest

from ors_gym.errors import IncompleteGroupError, SessionLostError
from tests.rollout.chat_server import running_chat_server
from tests.rollout.small_tokenizer import END, SmallTokenizer
from tests.support.hermes_calls import write
from tests.support.processes import run_python
from tests.support.servers.process import RunningServer, start_server
from tests.system.docs import framework_fakes as fakes
from tests.system.docs.pages import ROOT

PAGE = ROOT / "docs" / "frameworks.md"
SDK = "ors-sdk-0.1.0"
TASK = {"env_name": "Contract", "task_index": 0}
TEXTS = (write("add", a=1, b=2), "What now?", write("submit", answer="0"))
F = TypeVar("F", bound=Callable[..., Any])
MOST_LINES = 24
RECIPES = ("verl", "slime", "miles", "nemo_gym", "rllm")
RUN = ("verl", "miles", "nemo_gym")
"""Those that tests/integrations run with the framework itself."""


def block(title: str) -> str:
    fence = rf'^```python title="{re.escape(title)}[^\n]*\n(.*?)^```$'
    (code,) = re.findall(fence, PAGE.read_text(), re.DOTALL | re.MULTILINE)
    return str(code)


def load(title: str, name: str) -> Any:
    module = types.ModuleType(name)
    exec(compile(block(title), f"{PAGE}:{title}", "exec"), vars(module))
    return module


@pytest.fixture
def contract(shared_server: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    server = shared_server(SDK)
    monkeypatch.setenv("ORS_BASE_URL", server.base_url)
    yield server
    assert server.open_sessions() == set()


@pytest.fixture
def mortal(monkeypatch: pytest.MonkeyPatch) -> Iterator[RunningServer]:
    with start_server(SDK) as server:
        monkeypatch.setenv("ORS_BASE_URL", server.base_url)
        yield server


@pytest.fixture
def sampler() -> fakes.Sampler:
    return fakes.Sampler(TEXTS)


@pytest.fixture
def recipe(
    monkeypatch: pytest.MonkeyPatch, sampler: Any, request: pytest.FixtureRequest
) -> Any:
    modules = fakes.modules_of(request.param, sampler)
    modules["ors_recipe"] = load("ors_recipe.py", "ors_recipe")
    for name, module in modules.items():
        monkeypatch.setitem(sys.modules, name, module)
    return load(f"recipe_{request.param}.py, ", f"recipe_{request.param}")


def only(*names: str) -> Callable[[F], F]:
    return pytest.mark.parametrize("recipe", names, indirect=True)


def test_every_block_compiles_and_says_what_it_runs_with() -> None:
    page = PAGE.read_text()
    whole = re.DOTALL | re.MULTILINE
    blocks = re.findall(r"^```python([^\n]*)\n(.*?)^```$", page, whole)
    titles = [title for title, _ in blocks]
    assert all(re.fullmatch(r' title="[^"]+"', title) for title in titles)
    for title, code in blocks:
        compile(code, title, "exec")
    for name in RECIPES:
        (title,) = [title for title in titles if f"recipe_{name}.py" in title]
        assert ("not run with" in title) == (name not in RUN)
    rows = [line for line in page.splitlines() if "| a recipe |" in line]
    assert len(rows) == len(RECIPES)
    assert sum("**not run**" in row for row in rows) == len(RECIPES) - len(RUN)


def test_the_common_part_runs(capsys: pytest.CaptureFixture[str]) -> None:
    load("runs with ors_gym alone", "common")
    assert capsys.readouterr().out.strip()


def play_sample(recipe: Any, task: Any = TASK, longest: int = 10_000) -> fakes.Sample:
    sample = fakes.Sample(dict(task))
    args = types.SimpleNamespace(sglang_router_ip="router", sglang_router_port=1)
    args.rollout_max_context_len = None
    params = {"max_new_tokens": longest}
    if recipe.__name__ != "recipe_miles":
        return asyncio.run(recipe.generate(args, sample, params))  # type: ignore[no-any-return]
    state = types.SimpleNamespace(tokenizer=SmallTokenizer(fakes.chat_template))
    given = types.SimpleNamespace(args=args, state=state, sample=sample)
    given.sampling_params = params
    return asyncio.run(recipe.generate(given)).samples  # type: ignore[no-any-return]


def check_tokens(ids: list[int], mask: list[int], logprobs: Any, sampler: Any) -> None:
    """The trained tokens are what the model said, and it was shown the others."""
    letters = SmallTokenizer(fakes.chat_template)
    trained = [i for i, own in zip(ids[-len(mask) :], mask, strict=True) if own]
    assert letters.decode(trained) == "".join(text + END for text in TEXTS)
    assert logprobs == [-1.0 * own for own in mask]
    whole = letters.decode(ids)
    assert whole == sampler.seen[-1] + TEXTS[-1] + END
    assert whole.startswith(sampler.seen[0])
    told = "<|im_end|>\n<|im_start|>tool\n3<|im_end|>\n<|im_start|>assistant\n"
    assert told in whole


@only("slime", "miles")
def test_samples_hold_the_episode_and_its_reward(recipe, sampler, contract):
    sample = play_sample(recipe)
    assert sample.reward == 1.5
    assert sample.status is fakes.Sample.Status.COMPLETED
    logprobs = sample.rollout_log_probs
    check_tokens(sample.tokens, sample.loss_mask or [], logprobs, sampler)
    assert sample.response_length == len(sample.loss_mask or [])
    assert sample.response.startswith(TEXTS[0])
    assert sample.metadata == {**TASK, "turn_rewards": [0.5, 0.0, 1.0]}
    assert sample.weight_versions == ["7"]


@only("slime", "miles")
def test_an_aborted_sample_comes_back_as_it_was(recipe, sampler, contract):
    sampler.abort = True
    sample = play_sample(recipe)
    assert sample.status is fakes.Sample.Status.ABORTED
    assert (sample.tokens, sample.reward) == ([], None)
    assert len(sampler.seen) == 1


@only("slime")
def test_a_response_is_as_long_as_the_trainer_allows(recipe, sampler, contract):
    sample = play_sample(recipe, longest=150)
    assert sample.status is fakes.Sample.Status.TRUNCATED
    assert 0 < sample.response_length <= 150
    assert sample.reward == 1.5


@pytest.mark.slow
@only("slime", "miles")
def test_samples_are_played_anew_after_an_outage(recipe, sampler, mortal):
    def before(turn: int) -> None:
        if turn == 1:
            mortal.restart()
            mortal.mark()

    sampler.before = before
    sample = play_sample(recipe)
    assert sample.reward == 1.5
    assert len(sampler.seen) == 2 * len(TEXTS)
    assert mortal.open_sessions() == set()


def play_verl(recipe: Any, task: Any = TASK) -> Any:
    return asyncio.run(recipe.ORSAgentLoop().run({}, extra_info=task))


INTERVIEW = {"env_name": "Interview", "task_index": 2}
TOLD = [
    ("system", "Be brief."),
    ("user", "Is it 7?"),
    ("assistant", f"I try.\n{write('submit', answer='7')}"),
    ("tool", "wrong"),
    ("user", "2 + 2 = ?"),
]


@only(*RECIPES)
def test_a_prompt_with_roles_keeps_them(recipe, sampler, newest, monkeypatch):
    monkeypatch.setenv("ORS_BASE_URL", newest.base_url)
    sampler.texts = ["", write("submit", answer="4")]
    name = recipe.__name__.removeprefix("recipe_")
    told = "".join(f"<|im_start|>{role}\n{text}<|im_end|>\n" for role, text in TOLD)
    if name == "verl":
        assert play_verl(recipe, INTERVIEW).reward_score == 1.0
    elif name in ("slime", "miles"):
        assert play_sample(recipe, INTERVIEW).reward == 1.0
    elif name == "rllm":
        submit = {"calls": [["b", "submit", '{"answer": "4"}']]}
        # The gateway counts the assistant's turns, of which there is one already.
        roles, episode = play_rllm(recipe, {}, submit, task=INTERVIEW)
        assert (roles, episode.trajectories[0].reward) == ([r for r, _ in TOLD], 1.0)
    else:
        # It is text only: the roles are words in it.
        opening = asyncio.run(reset_once(recipe.ORSServer()))
        words = "[system]\n\nBe brief.\n\n[user]\n\nIs it 7?\n\n[assistant]\n\n"
        assert opening.startswith(words)
    if sampler.seen:
        assert sampler.seen[0].endswith(f"{told}<|im_start|>assistant\n")
    assert len(newest.log("prompt")) == 1
    assert newest.open_sessions() == set()


async def reset_once(server: Any) -> Any:
    opening, _ = await server.reset(INTERVIEW, "s")
    await server.close_session("s")
    return opening


@only("verl")
def test_an_agent_loop_returns_tokens_and_the_reward(recipe, sampler, contract):
    output = play_verl(recipe)
    assert output.reward_score == 1.5
    ids = output.prompt_ids + output.response_ids
    check_tokens(ids, output.response_mask, output.response_logprobs, sampler)
    assert output.num_turns == 7
    assert output.extra_fields["turn_scores"] == [0.5, 0.0, 1.0]


@pytest.mark.slow
@only("verl")
def test_an_outage_that_stays_is_raised_in_the_end(recipe, sampler, mortal):
    sampler.before = lambda turn: mortal.restart()
    with pytest.raises(IncompleteGroupError, match="3 attempts: session_lost"):
        play_verl(recipe)
    assert len(sampler.seen) == 3


class Item:
    def __init__(self, **values: Any) -> None:
        self.values = values

    def model_dump(self) -> dict[str, Any]:
        return self.values


def responses(text: str, *calls: tuple[str, str]) -> Any:
    content = [{"type": "output_text", "text": text, "annotations": []}]
    items = [
        Item(type="reasoning", id="r", summary=[]),
        Item(type="message", id="m", role="assistant", content=content),
    ]
    for number, (name, arguments) in enumerate(calls):
        call = {"name": name, "arguments": arguments, "call_id": f"c{number}"}
        items.append(Item(type="function_call", id=f"f{number}", **call))
    return types.SimpleNamespace(output=items)


@only("nemo_gym")
def test_a_resources_server_answers_and_pays_once(recipe: Any, contract: Any) -> None:
    async def work() -> Any:
        server = recipe.ORSServer()
        opening, info = await server.reset(TASK, "s")
        assert opening and info == {}
        adding = responses("Adding.", ("add", '{"a": 1, "b": 2}'), ("echo", "{}"))
        steps = [await server.step(adding, TASK, "s")]
        steps.append(await server.step(responses("What now?"), TASK, "s"))
        ending = responses("", ("submit", '{"answer": "0"}'))
        steps.append(await server.step(ending, TASK, "s"))
        await server.close_session("s")
        await server.close_session("s")
        assert not server.session_state
        return steps

    first, second, third = asyncio.run(work())
    assert [o["call_id"] for o in first[4]["tool_outputs"]] == ["c0", "c1"]
    assert first[4]["tool_outputs"][0]["output"] == "3"
    assert first[:4] == (None, 0.5, False, False)
    assert "Invalid action" in second[0]
    assert third[1:4] == (1.0, True, False)


@pytest.mark.slow
@only("nemo_gym")
@pytest.mark.parametrize("before", ["same", "other"])
def test_an_outage_is_repaired_or_fails_the_request(recipe, mortal, before):
    async def work() -> None:
        server = recipe.ORSServer()
        await server.reset(TASK, "s")
        await server.step(responses("", ("count", "{}")), TASK, "s")
        if before == "other":
            live = server.session_state["s"]
            live.episode.steps[0].blocks[0]["text"] = "7"
        mortal.restart()
        mortal.mark()
        again = responses("", ("count", "{}"))
        if before == "same":
            told = await server.step(again, TASK, "s")
            assert told[4]["tool_outputs"] == [{"call_id": "c0", "output": "2"}]
            assert told[1:4] == (1.0, False, False)
            await server.close_session("s")
        else:
            with pytest.raises(SessionLostError):
                await server.step(again, TASK, "s")
        assert not server.session_state

    asyncio.run(work())
    assert mortal.open_sessions() == set()


def play_rllm(recipe: Any, *replies: dict[str, Any], task: Any = TASK) -> Any:
    """Return the roles that the gateway was sent first, and rllm's episode."""
    with running_chat_server() as gateway:
        model = gateway.script(*replies)
        config = types.SimpleNamespace(model=model, base_url=gateway.base_url)
        given = types.SimpleNamespace(metadata=dict(task))
        episode = asyncio.run(recipe.play(given, config))
        sent = gateway.requests(model)[0]["body"]["messages"]
        return [message["role"] for message in sent], episode


@only("rllm")
def test_a_rollout_asks_the_gateway_for_each_turn(recipe: Any, contract: Any) -> None:
    add = {"calls": [["a", "add", '{"a": 1, "b": 2}']]}
    submit = {"calls": [["b", "submit", '{"answer": "0"}']]}
    _, episode = play_rllm(recipe, add, submit)
    assert (episode.trajectories[0].reward, episode.metrics["turns"]) == (1.5, 2)
    assert [step.reward for step in episode.trajectories[0].steps] == [0.5, 1.0]
    assert recipe.score(None, episode) == (1.5, True)


@pytest.mark.slow
@only("rllm")
@pytest.mark.parametrize("times", [1, 9])
def test_an_outage_costs_no_request_to_the_gateway(recipe, mortal, monkeypatch, times):
    add = {"calls": [["a", "add", '{"a": 1, "b": 2}']]}
    submit = {"calls": [["b", "submit", '{"answer": "0"}']]}
    left = [None] * times
    take = recipe.LiveEpisode._go_on

    async def breaking(live: Any, answer: Any) -> None:
        if answer is not None and live.episode.turns and left:
            left.pop()
            mortal.restart()
            mortal.mark()
        await take(live, answer)

    monkeypatch.setattr(recipe.LiveEpisode, "_go_on", breaking)
    if times == 1:
        _, episode = play_rllm(recipe, add, submit)
        assert episode.trajectories[0].reward == 1.5
    else:
        with pytest.raises(RuntimeError, match="no outcome"):
            play_rllm(recipe, add, submit)
    assert mortal.open_sessions() == set()


def test_a_recipe_is_short() -> None:
    for name in RECIPES:
        code = block(f"recipe_{name}.py, ")
        lines = [line for line in code.splitlines() if line.strip()]
        own = [line for line in lines if not line.startswith(("import ", "from "))]
        assert len(own) <= MOST_LINES, f"recipe_{name}.py has {len(own)} lines"


@pytest.mark.parametrize(
    ("module", "framework", "extra"),
    [
        ("skyrl", "skyrl_gym", "skyrl"),
        ("tinker", "tinker_cookbook", "tinker"),
        ("inspect", "inspect_ai", "inspect"),
        ("verifiers", "verifiers", "verifiers"),
    ],
)
def test_without_its_framework_an_adapter_says_what_to_do(module, framework, extra):
    code = f"import sys; sys.modules[{framework!r}] = None; "
    code += f"import ors_gym.integrations.{module}"
    last = run_python("-c", code).stderr.splitlines()[-1]
    assert last.startswith("ors_gym.errors.MissingExtraError: ")
    assert f'pip install "ors-gym[{extra}]"' in last
