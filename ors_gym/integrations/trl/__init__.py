"""GRPO with TRL on any ORS server (extra ``trl``).

    _train         `trl_environment`: the dataset, the factory and the reward function
    _environment   one rollout, the factory that makes them, and their rewards
    _sessions      the sessions of a trainer's rollouts, opened a group at a time
    _tool_methods  a typed method for each tool

A complete example; any model that calls tools works::

    from trl import GRPOConfig, GRPOTrainer
    from ors_gym.integrations.trl import trl_environment

    made = trl_environment("math", tasks=range(100), num_generations=8)
    args = GRPOConfig(num_generations=8, max_completion_length=512)
    GRPOTrainer("Qwen/Qwen3-0.6B", args=args, **made._asdict()).train()
"""

from ors_gym.integrations.trl._train import (
    TRLEnvironment,
    combine_environments,
    trl_environment,
)

__all__ = ["TRLEnvironment", "combine_environments", "trl_environment"]
