"""GRPO with TRL on any ORS server (extra ``trl``).

    docstrings    text of a server in Google docstrings
    references    what a parameter's schema says, its references followed
    hints         from a JSON Schema to type hints
    tool_methods  a typed method for each tool
    content       replies as text, or as text and images
    sessions      the sessions of a trainer's rollouts
    environment   one rollout
    factory       makes the environments, and scores them
    dataset       the tasks as rows, and their tools
    entry         the way in

Example, complete with a model (any that calls tools will do)::

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
