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


def write(tool: str, **given: Any) -> str:
    """Write a call as Hermes and Qwen models do."""
    call = json.dumps({"name": tool, "arguments": given})
    return f"<tool_call>\n{call}\n</tool_call>"


class Letters:
    """A tokenizer of single letters, with a chat template like Qwen's."""

    eos_token = "<|im_end|>"

    def apply_chat_template(
        self,
        messages: Sequence[Mapping[str, Any]],
        tools: Any = None,
        tokenize: bool = True,
        add_generation_prompt: bool = False,
        return_dict: bool = False,
    ) -> Any:
        assert not (tokenize and return_dict)
        parts = [f"<|im_start|>tools\n{json.dumps(tools)}<|im_end|>\n"] if tools else []
        for message in messages:
            said = message["content"]
            for call in message.get("tool_calls") or ():
                said += "\n" + write(
                    call["function"]["name"], **call["function"]["arguments"]
                )
            parts.append(f"<|im_start|>{message['role']}\n{said}<|im_end|>\n")
        text = "".join(parts)
        if add_generation_prompt:
            text += "<|im_start|>assistant\n"
        return self.encode(text) if tokenize else text

    def encode(self, text: str, add_special_tokens: bool = False) -> list[int]:
        return [ord(letter) for letter in text]

    def decode(self, ids: Sequence[int], skip_special_tokens: bool = False) -> str:
        text = "".join(map(chr, ids))
        return text.replace(self.eos_token, "") if skip_special_tokens else text


class Sampler:
    """Says prepared texts, one a turn, and remembers what it was shown."""

    def __init__(self, texts: Sequence[str]) -> None:
        self.texts = list(texts)
        self.seen: list[str] = []
        self.before: Callable[[int], None] = lambda turn: None

    def say(self, shown: str) -> str:
        self.before(len(self.seen))
        self.seen.append(shown)
        turn = shown.count("<|im_start|>assistant") - 1
        return self.texts[turn] + Letters.eos_token


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

    @dataclasses.dataclass
    class Merged:
        token_ids: list[int]

    class Servers:
        async def generate(
            self, *, request_id: str, prompt_ids: list[int], sampling_params: Any
        ) -> Any:
            ids = letters.encode(sampler.say(letters.decode(prompt_ids)))
            return types.SimpleNamespace(token_ids=ids, log_probs=[-1.0] * len(ids))

    class Base:
        rollout_config = types.SimpleNamespace(
            response_length=10_000,
            multi_turn=types.SimpleNamespace(max_assistant_turns=8),
        )
        server_manager = Servers()
        tokenizer = Letters()

        async def ct_build_initial_tokens(
            self, messages: Any, tools: Any = None
        ) -> list[int]:
            ids: list[int] = letters.apply_chat_template(
                messages, tools=tools, add_generation_prompt=True
            )
            return ids

        async def ct_merge_assistant_token(
            self,
            runtime_token_ids: list[int],
            assistant_token_ids: list[int],
            response_mask: list[int],
            response_logprobs: list[float] | None = None,
            assistant_logprobs: list[float] | None = None,
        ) -> Any:
            assert (response_logprobs is None) == (assistant_logprobs is None)
            mask = response_mask + [1] * len(assistant_token_ids)
            logprobs = (response_logprobs or []) + (assistant_logprobs or [])
            return Merged(runtime_token_ids + assistant_token_ids), mask, logprobs

        async def ct_merge_context_msg(
            self,
            previous_messages: list[Any],
            updated_messages: list[Any],
            runtime_token_ids: list[int],
            response_mask: list[int],
            response_logprobs: list[float] | None = None,
            tools: Any = None,
        ) -> Any:
            template = letters.apply_chat_template
            head = template(previous_messages)
            whole = template(updated_messages, add_generation_prompt=True)
            new = whole[len(head) - 1 :]
            mask = response_mask + [0] * len(new)
            logprobs = (response_logprobs or []) + [0.0] * len(new)
            return Merged(runtime_token_ids + new), mask, logprobs

    letters = Letters()
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
    rollout_log_probs: list[float] | None = None
    reward: float | None = None
    status: SampleStatus = SampleStatus.PENDING

    def append_response_tokens(
        self,
        args: Any = None,
        *,
        tokens: list[int],
        log_probs: list[float] | None = None,
        trainable: bool = True,
        meta_info: dict[str, Any] | None = None,
        text: str | None = None,
    ) -> None:
        assert (log_probs is not None) == trainable
        self.tokens += tokens
        self.response += text or ""
        self.response_length += len(tokens)
        self.loss_mask = [*(self.loss_mask or []), *[int(trainable)] * len(tokens)]
        self.rollout_log_probs = [
            *(self.rollout_log_probs or []),
            *(log_probs or [0.0] * len(tokens)),
        ]
        if meta_info:
            self.status = SampleStatus.COMPLETED


def _generated(sampler: Sampler) -> Callable[..., Any]:
    async def post(url: str, payload: dict[str, Any], headers: Any = None) -> Any:
        assert url == "http://router:1/generate"
        assert payload["sampling_params"]["max_new_tokens"] > 0
        text = sampler.say(Letters().decode(payload["input_ids"]))
        said = [(-1.0, ord(letter), None) for letter in text]
        meta = {"output_token_logprobs": said, "finish_reason": {"type": "stop"}}
        return {"text": text, "meta_info": meta}

    return post


def _slime(sampler: Sampler) -> dict[str, types.ModuleType]:
    def state(args: Any) -> Any:
        return types.SimpleNamespace(tokenizer=Letters())

    return _packages(
        _module("slime.rollout.sglang_rollout", GenerateState=state),
        _module("slime.utils.http_utils", post=_generated(sampler)),
        _module("slime.utils.types", Sample=Sample),
    )


def _miles(sampler: Sampler) -> dict[str, types.ModuleType]:
    @dataclasses.dataclass
    class Output:
        samples: Any

    def payload_of(args: Any, ids: list[int], params: Any) -> Any:
        return {"input_ids": ids, "sampling_params": params}, None

    async def update(
        args: Any, sample: Sample, payload: Any, output: Any, update_loss_mask: bool
    ) -> None:
        said = output["meta_info"]["output_token_logprobs"]
        sample.append_response_tokens(
            tokens=[one[1] for one in said],
            log_probs=[one[0] for one in said],
            meta_info=output["meta_info"],
            text=output["text"],
        )

    return _packages(
        _module("miles.rollout.base_types", GenerateFnOutput=Output),
        _module(
            "miles.rollout.generate_utils.generate_endpoint_utils",
            compute_request_payload=payload_of,
            compute_routing_headers=lambda args, sample: None,
            update_sample_from_response=update,
        ),
        _module("miles.utils.http_utils", post=_generated(sampler)),
        _module("miles.utils.types", Sample=Sample),
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
        _module("rllm.types", Episode=Record, Trajectory=Record),
    )
