"""The background's connections: shared by clients, and few."""

import contextlib
import functools
from collections.abc import Callable

import pytest

import ors_gym
from ors_gym.client.background import background
from tests.support.processes import run_python
from tests.support.servers.process import RunningServer
from tests.support.waiting import wait_until
from tests.system.faults.scripted_ors import scripted_ors

MANY_ENVS = """
import resource
import gymnasium, ors_gym

_, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
resource.setrlimit(resource.RLIMIT_NOFILE, (64, hard))
for number in range(80):
    env = gymnasium.make("ors/remote", env_name="contract", base_url={url!r})
    # The background deletes the session of the first episode.
    env.reset(seed=number)
    env.reset()
    env.close()
for number in range(12):
    envs = gymnasium.make_vec(
        "ors/remote", num_envs=4, env_name="contract", base_url={url!r}
    )
    envs.reset(seed=number)
    envs.reset(seed=number)
    envs.close()
print("done")
"""


@pytest.mark.slow
def test_envs_one_after_the_other_need_few_descriptors(server: RunningServer) -> None:
    ended = run_python("-c", MANY_ENVS.format(url=server.base_url))
    assert (ended.stdout, ended.returncode) == ("done\n", 0), ended.stderr


@pytest.mark.parametrize("key", ["same", "other"])
def test_only_clients_with_the_same_headers_share_connections(key: str) -> None:
    with scripted_ors() as server:

        def deletes(*, path: str = "/delete") -> list[int]:
            found = list(server.requests)
            return [each.connection for each in found if each.path == path]

        with contextlib.ExitStack() as stack:
            sessions = []
            for own in ("same", key):
                client = stack.enter_context(ors_gym.ORSClient(server.url, api_key=own))
                session = client.session("box", split="train", index=0).open()
                session.get_prompt()
                sessions.append(session)
            # One soon after the other, as a connection is not used again after a while,
            # and not before the reply to the first: until then its connection is busy.
            # Second deletes of other tests are due up to a minute later.
            for session in sessions:
                before = len(deletes())
                session.close(wait=False)
                wait_until(functools.partial(_is_longer, deletes, before))
                wait_until(lambda: not background()._deletes._work)
        assert len(set(deletes())) == (1 if key == "same" else 2)


def _is_longer(found: Callable[[], list[int]], than: int) -> bool:
    return len(found()) > than
