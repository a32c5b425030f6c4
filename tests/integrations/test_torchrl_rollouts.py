"""TorchRL's own wrapper of Gymnasium takes the envs as they are."""

import torch
from torchrl.envs import GymWrapper
from torchrl.envs.utils import check_env_specs

from ors_gym.server import serve
from ors_gym.testing import record

GROUP = "training"

PRICE = -1 / 16


def test_numbers_are_tensors(example, bundled):
    played = example("torchrl_rollout").roll_out(64, base_url=bundled)
    rewards = played["next", "reward"].flatten()
    ended = played["next", "done"].flatten()
    assert ended.sum() > 3
    assert set(rewards.tolist()) <= {PRICE, 1.0}
    # A win ends an episode, and so does the tenth wrong guess.
    assert ended[rewards == 1.0].all()
    starts = torch.cat([torch.tensor([True]), ended[:-1]])
    assert (played["observation"][starts] == torch.tensor([1.0, 16.0])).all()
    # What RewardSum adds up is the reward of each episode by itself.
    totals = played["next", "episode_reward"].flatten()[ended]
    assert ((totals <= 1.0) & (totals >= 10 * PRICE)).all()
    assert totals.sum() == rewards[: int(ended.nonzero()[-1]) + 1].sum()


def test_its_own_check_of_specs_passes(example, bundled):
    env = example("torchrl_rollout").make(base_url=bundled)
    assert isinstance(env.base_env, GymWrapper)
    check_env_specs(env, seed=0)
    env.close()


def test_text_stays_text(example, bundled):
    played = example("torchrl_rollout").play_text(base_url=bundled)
    assert "1..16" in played["observation"][0]
    assert played["action"][0] == '{"tool": "guess", "input": {"number": 8}}'
    assert played["next", "observation"][-1].startswith("Yes, it is ")
    assert played["next", "reward"][-1].item() == 1.0
    assert played["next", "terminated"][-1].item()


def test_a_recorded_server_is_enough(example, bundled, tmp_path):
    cassette = tmp_path / "guess.jsonl"
    played = []
    with record(bundled, cassette) as base_url:
        played.append(example("torchrl_rollout").roll_out(64, base_url=base_url))
    with serve(cassette=cassette) as base_url:
        played.append(example("torchrl_rollout").roll_out(64, base_url=base_url))
    for name in ("observation", "action", ("next", "reward"), ("next", "done")):
        first, again = (one[name] for one in played)
        assert torch.equal(first, again), name
