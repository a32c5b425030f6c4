"""The recipe for miles with its own samples, payloads and HTTP client.

The engine is a server that says prepared texts in SGLang's form. miles is the newest of
PyPI, 0.0.2; the one function of the recipe that it lacks stands in.
"""

import asyncio
import json
import sys
import threading
import types
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import httpx
import pytest

from tests.integrations.chat_tokenizers import SMOLLM2, train_tokenizer
from tests.support.hermes_calls import write
from tests.support.proxy.faults import Answer

# Its data sets, of which the types of a rollout name one, import Ray.
_NAMED: Any = types.ModuleType("miles.rollout.data_source")
_NAMED.DataSource = object
sys.modules[_NAMED.__name__] = _NAMED

from miles.rollout.base_types import GenerateFnInput  # noqa: E402 - as above
from miles.rollout.generate_utils import generate_endpoint_utils  # noqa: E402
from miles.utils import http_utils  # noqa: E402
from miles.utils.types import Sample  # noqa: E402

GROUP = "tokens"
TASK = {"env_name": "Contract", "task_index": 0}


TEXTS = [write("add", a=1, b=2), "What now?", write("submit", answer="0")]


class Engine:
    """Says the texts in their order, as many as turns stand in the conversation."""

    def __init__(self) -> None:
        self.tokenizer = train_tokenizer(SMOLLM2)
        self.seen: list[list[int]] = []
        self.reason = "stop"

    def generate(self, payload: Any) -> Any:
        assert payload["return_logprob"]
        params, read = payload["sampling_params"], payload["input_ids"]
        assert 0 < params["max_new_tokens"] <= 4096
        self.seen.append(read)
        turn = self.tokenizer.decode(read).count("<|im_start|>assistant") - 1
        ids = self.tokenizer.encode(TEXTS[turn] + "<|im_end|>")
        assert ids[-1] in params["stop_token_ids"]
        known: dict[str, Any] = {
            "output_token_logprobs": [(-0.5, number, None) for number in ids]
        }
        known |= {"finish_reason": {"type": self.reason}, "weight_version": "7"}
        return {"text": TEXTS[turn], "meta_info": known}


@pytest.fixture
def engine() -> Engine:
    return Engine()


@pytest.fixture
def router(engine: Engine) -> Iterator[int]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            assert self.path == "/generate"
            length = int(self.headers["Content-Length"])
            body = json.dumps(engine.generate(json.loads(self.rfile.read(length))))
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body.encode())

        def log_message(self, *_: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server.server_address[1]
        server.shutdown()
        thread.join()


@pytest.fixture
def run(
    documented: Any, engine: Engine, router: int, monkeypatch: pytest.MonkeyPatch
) -> Any:
    shared = types.ModuleType("ors_recipe")
    exec(documented("ors_recipe.py"), vars(shared))
    monkeypatch.setitem(sys.modules, "ors_recipe", shared)
    monkeypatch.setattr(
        generate_endpoint_utils,
        "compute_routing_headers",
        lambda args, sample: None,
        raising=False,
    )
    recipe = types.ModuleType("recipe_miles")
    title = "recipe_miles.py, run with parts of miles 0.0.2"
    exec(documented(title), vars(recipe))

    def play() -> Sample:
        args = types.SimpleNamespace(
            sglang_router_ip="127.0.0.1",
            sglang_router_port=router,
            rollout_max_response_len=4096,
            rollout_max_context_len=8192,
            use_rollout_routing_replay=False,
        )
        state: Any = types.SimpleNamespace(args=args, tokenizer=engine.tokenizer)
        sample = Sample(index=0, metadata=dict(TASK))
        given = GenerateFnInput(state, sample, {"max_new_tokens": 4096}, False)

        async def work() -> Any:
            async with httpx.AsyncClient(trust_env=False) as client:
                monkeypatch.setattr(http_utils, "_http_client", client)
                return (await recipe.generate(given)).samples

        played: Sample = asyncio.run(work())
        assert played is sample
        return played

    return play


def test_a_sample_has_what_was_sampled_and_paid(run, engine, tidy_server, monkeypatch):
    monkeypatch.setenv("ORS_BASE_URL", tidy_server.base_url)
    sample = run()
    assert (sample.status, sample.reward) == (Sample.Status.COMPLETED, 1.5)
    assert sample.metadata["turn_rewards"] == [0.5, 0.0, 1.0]
    assert sample.weight_versions == ["7"]
    response = sample.tokens[-sample.response_length :]
    own = zip(response, sample.loss_mask, strict=True)
    said = engine.tokenizer.decode([number for number, mask in own if mask])
    assert said == "".join(f"{text}<|im_end|>" for text in TEXTS)
    for seen in engine.seen:
        assert sample.tokens[: len(seen)] == seen
    assert sample.rollout_log_probs == [-0.5 * mask for mask in sample.loss_mask]
    assert Sample.from_dict(sample.to_dict()).tokens == sample.tokens


def test_an_outage_is_repaired(run, engine, proxy, monkeypatch):
    monkeypatch.setenv("ORS_BASE_URL", proxy.url)
    proxy.plan("/call", [None, Answer(404)])
    assert run().reward == 1.5
    assert len(engine.seen) > len(TEXTS)


def test_an_aborted_sample_comes_back_as_it_was(run, engine, tidy_server, monkeypatch):
    monkeypatch.setenv("ORS_BASE_URL", tidy_server.base_url)
    engine.reason = "abort"
    sample = run()
    assert sample.status is Sample.Status.ABORTED
    assert (sample.tokens, sample.reward) == ([], None)
