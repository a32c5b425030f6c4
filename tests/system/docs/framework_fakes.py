"""Fakes of the frameworks of the recipes in ``docs/frameworks.md``.

They have the names and signatures that the recipes use, as the named versions have
them, and do the least that a recipe can be played with. They prove nothing about the
frameworks.
"""

import dataclasses
import enum
import json
import types
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

from tests.rollout.small_tokenizer import END, START, SmallTokenizer
from tests.support.hermes_calls import write


def chat_template(
    messages: Sequence[Mapping[str, Any]], tools: Any, begin_turn: bool
) -> str:
    """Write a conversation as Qwen's template does, with tools as JSON."""
    parts = [f"{START}tools\n{json.dumps(tools)}{END}\n"] if tools else []
    for message in messages:
        said = message["content"]
        for call in message.get("tool_calls") or ():
            function = call["function"]
            said += "\n" + write(function["name"], **function["arguments"])
        parts.append(f"{START}{message['role']}\n{said}{END}\n")
    return "".join(parts) + (f"{START}assistant\n" if begin_turn else "")


class Sampler:
    """Says prepared texts, one a turn, and remembers what it was shown."""

    def __init__(self, texts: Sequence[str]) -> None:
        self.texts = list(texts)
        self.seen: list[str] = []
        self.longest = 10_000
        self.abort = False
        self.before: Callable[[int], None] = lambda turn: None

    def say(self, shown: str) -> str:
        self.before(len(self.seen))
        self.seen.append(shown)
        return self.texts[shown.count(f"{START}assistant") - 1] + END


def _module(name: str, **values: Any) -> types.ModuleType:
    module = types.ModuleType(name)
    vars(module).update(values)
    return module


def _packages(*modules: types.ModuleType) -> dict[str, types.ModuleType]:
    found = {module.__name__: module for module in modules}
    for name in list(found):
        parts = name.split(".")
        for stop in range(1, len(parts)):
            package = ".".join(parts[:stop])
            found.setdefault(package, types.ModuleType(package))
    return found


def modules_of(framework: str, sampler: Sampler) -> dict[str, types.ModuleType]:
    """Return the modules that a recipe imports, for ``sys.modules``."""
    made: dict[str, types.ModuleType] = globals()[f"_{framework}"](sampler)
    return made


def _verl(sampler: Sampler) -> dict[str, types.ModuleType]:
    @dataclasses.dataclass
    class Metrics:
        generate_sequences: float = 0.0

    @dataclasses.dataclass(kw_only=True)
    class Output:
        prompt_ids: list[int]
        response_ids: list[int]
        response_mask: list[int]
        response_logprobs: list[float] | None = None
        reward_score: float | None = None
        num_turns: int = 0
        metrics: Metrics
        extra_fields: dict[str, Any]

    class Servers:
        async def generate(
            self, request_id: str, *, prompt_ids: list[int], sampling_params: Any
        ) -> Any:
            assert sampling_params["max_tokens"] > 0
            assert tokenizer.encode(END)[0] in sampling_params["stop_token_ids"]
            ids = tokenizer.encode(sampler.say(tokenizer.decode(prompt_ids)))
            return types.SimpleNamespace(token_ids=ids, log_probs=[-1.0] * len(ids))

    class Base:
        rollout_config = types.SimpleNamespace(
            prompt_length=10_000, response_length=sampler.longest
        )

        def __init__(self) -> None:
            self.server_manager = Servers()
            self.tokenizer = tokenizer

    tokenizer = SmallTokenizer(chat_template)
    return _packages(
        _module(
            "verl.experimental.agent_loop.agent_loop",
            AgentLoopBase=Base,
            AgentLoopMetrics=Metrics,
            AgentLoopOutput=Output,
            register=lambda name: lambda kind: kind,
        )
    )


class SampleStatus(enum.Enum):
    PENDING = "pending"
    COMPLETED = "completed"
    TRUNCATED = "truncated"
    ABORTED = "aborted"


@dataclasses.dataclass
class Sample:
    Status: ClassVar = SampleStatus

    metadata: dict[str, Any]
    tokens: list[int] = dataclasses.field(default_factory=list)
    response: str = ""
    response_length: int = 0
    loss_mask: list[int] | None = None
    weight_versions: list[str] = dataclasses.field(default_factory=list)
    rollout_log_probs: list[float] | None = None
    reward: float | None = None
    status: SampleStatus = SampleStatus.PENDING


def _generated(sampler: Sampler) -> Callable[..., Any]:
    tokenizer = SmallTokenizer(chat_template)

    async def post(url: str, payload: dict[str, Any], headers: Any = None) -> Any:
        assert url == "http://router:1/generate"
        assert payload["return_logprob"]
        params = payload["sampling_params"]
        assert params["max_new_tokens"] > 0
        assert tokenizer.encode(END)[0] in params["stop_token_ids"]
        text = sampler.say(tokenizer.decode(payload["input_ids"]))
        said = [(-1.0, number, None) for number in tokenizer.encode(text)]
        reason = {"type": "abort" if sampler.abort else "stop"}
        known = {"output_token_logprobs": said, "finish_reason": reason}
        return {"text": text, "meta_info": {**known, "weight_version": "7"}}

    return post


def _slime(sampler: Sampler) -> dict[str, types.ModuleType]:
    def state(args: Any) -> Any:
        return types.SimpleNamespace(tokenizer=SmallTokenizer(chat_template))

    return _packages(
        _module("slime.rollout.sglang_rollout", GenerateState=state),
        _module("slime.utils.http_utils", post=_generated(sampler)),
    )


def _miles(sampler: Sampler) -> dict[str, types.ModuleType]:
    @dataclasses.dataclass
    class Output:
        samples: Any

    def payload_of(args: Any, ids: list[int], params: Any) -> Any:
        wanted = {"input_ids": ids, "sampling_params": params}
        return {**wanted, "return_logprob": True}, None

    return _packages(
        _module("miles.rollout.base_types", GenerateFnOutput=Output),
        _module(
            "miles.rollout.generate_utils.generate_endpoint_utils",
            compute_request_payload=payload_of,
            compute_routing_headers=lambda args, sample: None,
        ),
        _module("miles.utils.http_utils", post=_generated(sampler)),
    )


def _nemo_gym(sampler: Sampler) -> dict[str, types.ModuleType]:
    class Server:
        def __init__(self) -> None:
            self.session_state: dict[str, Any] = {}

    return _packages(_module("resources_servers.gymnasium", GymnasiumServer=Server))


def _rllm(sampler: Sampler) -> dict[str, types.ModuleType]:
    class Record:
        def __init__(self, **values: Any) -> None:
            vars(self).update(values)

    return _packages(
        _module(
            "rllm",
            rollout=lambda name: lambda function: function,
            evaluator=lambda function: function,
        ),
        _module("rllm.types", Episode=Record, Step=Record, Trajectory=Record),
    )
