"""What describes an environment is asked once by all envs of a client."""

from collections import Counter
from typing import Any

import ors_gym
from tests.support.proxy.proxy import FaultProxy

ADD = {"tool": "add", "input": {"a": 1, "b": 2}}
METADATA = ("/openapi.json", "/list_environments", "/tools", "/splits", "/num_tasks")


def count_metadata(proxy: FaultProxy) -> Counter[str]:
    return Counter({path: len(proxy.requests(path)) for path in METADATA})


def test_envs_of_one_client_ask_once(fault_proxy: FaultProxy) -> None:
    with ors_gym.ORSClient(fault_proxy.url) as client:
        for name in ("contract", "Contract", "contract"):
            env = ors_gym.ORSEnv(name, client=client, split="train")
            env.reset(seed=1)
            assert [tool["name"] for tool in env.tools]
            env.close()
    assert count_metadata(fault_proxy) == Counter(METADATA)


def test_an_evaluation_asks_for_no_tools_but_the_sessions(fault_proxy):
    work: Any = (fault_proxy.url, "contract", [0, 1], lambda _: ADD)
    options: Any = {"episodes_per_task": 4, "max_concurrent": 8, "max_turns": 1}
    found = ors_gym.evaluate(*work, progress=False, **options)
    assert found.outcomes == 8
    asked = count_metadata(fault_proxy)
    assert asked["/tools"] == 0
    assert max(asked.values()) == 1
    assert len(fault_proxy.requests("/task_tools")) == 8
