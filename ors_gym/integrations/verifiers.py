"""verifiers: any ORS server as a taskset, to evaluate or, with prime-rl, to train on.

verifiers finds a plugin by the name of a top-level module, so write one:

    # ors_tasks.py
    from ors_gym.integrations.verifiers import ORSHarness, ORSPlayerEnv, ORSTaskset

    __all__ = ["ORSHarness", "ORSPlayerEnv", "ORSTaskset"]

The harness plays in verifiers' own process, so nothing is installed in a runtime.
verifiers writes its configuration to traces and files. Therefore the key comes from
``ORS_API_KEY``, and the configuration names the environment variables that hold
secrets. Tested with verifiers 0.4.0.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping
from typing import Any, Final

from ors_gym.errors import InvalidRequestError, ORSError, needs_extra
from ors_gym.integrations import ATTEMPTS, EPISODE_SECRETS, choose_indexes
from ors_gym.rollout._chat_policy import ChatPolicy
from ors_gym.rollout._clients import connect
from ors_gym.rollout._live_episode import LiveEpisode

__all__ = [
    "ORSData",
    "ORSHarness",
    "ORSPlayerEnv",
    "ORSPlayerEnvConfig",
    "ORSState",
    "ORSTask",
    "ORSTaskset",
    "ORSTasksetConfig",
]

with needs_extra("verifiers", "ors_gym.integrations.verifiers"):
    import verifiers.v1 as vf
    from pydantic import Field, field_validator

# As in the harnesses of verifiers.
_MAX_RETRIES: Final = 2
# In effect none: verifiers has its own limits on an agent.
_TURN_TIMEOUT_SECONDS: Final = 24 * 3600.0


class ORSData(vf.TaskData):
    """Which task is played, and how; the task spec stays on the server.

    Example:
        >>> config = ORSTasksetConfig(env_name="math", tasks=[0, 1])
        >>> next(iter(ORSTaskset(config).load())).data.task_index
        0
    """

    env_name: str
    """The environment's name on the server."""
    split: str
    """The split."""
    task_index: int
    """The task's index in the split."""
    base_url: str | None = None
    """The server's address; None is ``ORS_BASE_URL`` of the process that plays."""
    arguments: dict[str, Any] = Field(default_factory=dict)
    """More arguments of `LiveEpisode`."""
    secrets_from_env: dict[str, str] = Field(default_factory=dict)
    """For each secret the environment variable that holds it."""


class ORSState(vf.State):
    """The outcome of an episode.

    Example:
        >>> ORSState(reward=1.0, turn_rewards=[0.25, 0.75]).reward
        1.0
    """

    reward: float | None = None
    """The episode's reward; None if an outage left it without one."""
    stop_reason: str = ""
    """Why the episode ended."""
    turn_rewards: list[float] = Field(default_factory=list)
    """What each turn added to the reward, in the order of the sampled messages."""
    figures: dict[str, float] = Field(default_factory=dict)
    """The episode's metrics."""


class ORSTask(vf.Task[ORSData, ORSState]):
    """One task, rewarded by the server.

    Example:
        >>> config = ORSTasksetConfig(env_name="math", tasks=[0, 1])
        >>> [task.key for task in ORSTaskset(config).load()]
        ['math/train#0', 'math/train#1']
    """

    @property
    def key(self) -> str:
        """The task's identity, whatever the server's address and the arguments."""
        data = self.data
        return f"{data.env_name}/{data.split}#{data.task_index}"

    @vf.reward  # type: ignore[untyped-decorator]
    async def ors(self, trace: vf.Trace) -> float:
        """Return the episode's reward.

        Args:
            trace: The trace, whose state is an `ORSState`.

        Raises:
            InvalidRequestError: If another harness than `ORSHarness` played it.
        """
        reward: float | None = trace.state.reward
        if reward is None:
            raise InvalidRequestError(
                "no episode was played: an ORS task is played by the ORSHarness"
            )
        return reward

    @vf.metric  # type: ignore[untyped-decorator]
    async def ors_figures(self, trace: vf.Trace) -> dict[str, float]:
        """Return the episode's metrics.

        Args:
            trace: The trace, whose state is an `ORSState`.
        """
        return dict(trace.state.figures)


class ORSTasksetConfig(vf.TasksetConfig):
    """The environment and its tasks, under ``--env.taskset``.

    Example:
        >>> ORSTasksetConfig(env_name="math", tasks=[0, 1]).split is None
        True
    """

    env_name: str = ""
    """The environment's name on the server."""
    base_url: str | None = None
    """The server's address, as for `ORSEnv`."""
    split: str | None = None
    """The split; ``train`` if None and there is one, else the only one."""
    tasks: list[int] | None = None
    """Indexes; None for the whole split."""
    arguments: dict[str, Any] = Field(default_factory=dict)
    """Arguments of `LiveEpisode`: ``max_turns``, ``attempts`` (3), ``on_plain_text``,
    ``call_timeout``, ``reward_reduction``, ``nonterminal_reward``, ..."""
    secrets_from_env: dict[str, str] = Field(default_factory=dict)
    """For each secret of the environment the environment variable that holds it. The
    variables are read in the process that plays an episode."""

    @field_validator("arguments")
    @classmethod
    def _refuse_secrets(cls, given: dict[str, Any]) -> dict[str, Any]:
        if shown := sorted(EPISODE_SECRETS & given.keys()):
            raise ValueError(
                f"{', '.join(shown)} would be written to traces and files; set "
                "ORS_API_KEY, and name the variables of secrets in secrets_from_env"
            )
        return given


class ORSTaskset(vf.Taskset[ORSTask, ORSTasksetConfig]):
    """An environment's tasks, listed without their specs.

    Example:
        >>> config = ORSTasksetConfig(env_name="math", tasks=[0, 1])
        >>> len(list(ORSTaskset(config).load()))
        2
    """

    def load(self) -> Iterator[ORSTask]:
        """Yield the tasks.

        Raises:
            InvalidRequestError: If no environment is named.
            UnknownTaskError: If there is no such split.
        """
        config = self.config
        name = config.env_name
        if not name:
            raise InvalidRequestError("name an environment: --env.taskset.env-name")
        split, tasks = choose_indexes(
            name, config.base_url, None, config.split, config.tasks
        )
        for index in tasks:
            data = ORSData(
                name=f"{name}/{split}#{index}",
                # The real prompt belongs to the session: the harness asks for it.
                prompt=f"Task {index} of the split {split!r} of {name!r}.",
                env_name=name,
                split=split,
                task_index=index,
                base_url=config.base_url,
                arguments=config.arguments,
                secrets_from_env=config.secrets_from_env,
            )
            yield ORSTask(data, config.task)


class ORSHarness(vf.Harness[vf.HarnessConfig]):
    """Plays a task as an episode with native tool calls.

    Every request to the model goes through verifiers, which records it and enforces its
    limits. An episode that such a limit ends keeps the reward it has earned. After an
    outage the episode goes on with another session, if the environment answers as
    before. An outage that stays fails the trace: it gets no reward, and the model is
    not told of it. verifiers can repeat such a trace (``--env.retries``).

    Example:
        >>> ORSHarness(vf.HarnessConfig()).NEEDS_CONTAINER
        False
    """

    APPENDS_SYSTEM_PROMPT = True
    EXECUTES_CODE = False
    NEEDS_CONTAINER = False

    async def launch(  # noqa: PLR0917 - verifiers calls it so
        self,
        ctx: vf.ModelContext,
        trace: vf.Trace,
        runtime: vf.Runtime,  # noqa: ARG002
        endpoint: str,
        secret: str,
        mcp_urls: Mapping[str, str],  # noqa: ARG002
        data: ORSData,
    ) -> vf.ProgramResult:
        """Play the episode to its end.

        Args:
            ctx: The model.
            trace: The trace; its state gets the outcome.
            runtime: Not used: the tools run on the server.
            endpoint: The address at which verifiers takes requests to the model.
            secret: The key for that address.
            mcp_urls: Not used: the tools run on the server.
            data: The task.

        Returns:
            A result with exit code 0.

        Raises:
            ORSError: For an outage of the server or of the model.
        """
        policy = ChatPolicy(
            ctx.model,
            base_url=endpoint,
            api_key=secret,
            system_prompt=data.system_prompt,
            timeout=_TURN_TIMEOUT_SECONDS,
            max_retries=_MAX_RETRIES,
            seed=None,
        )
        given = {"attempts": ATTEMPTS, **data.arguments}
        if data.secrets_from_env:
            given["secrets"] = _read_secrets(data.secrets_from_env)
        async with (
            contextlib.aclosing(policy),
            connect(data.base_url) as client,
            LiveEpisode(
                client, data.env_name, data.task_index, split=data.split, **given
            ) as live,
        ):
            try:
                await live.start()
                while not live.ended:
                    await live.take(await policy(live.episode))
                    trace.state.turn_rewards.append(live.collect_reward())
            except ORSError as error:
                # verifiers refuses a turn beyond one of its limits: that is no outage.
                if trace.stop_condition is None:
                    live.episode.fail(error, error.kind)
                    raise
            finally:
                # verifiers cancels this coroutine when the time of the agent is up.
                _record(live, trace.state)
        return vf.ProgramResult(exit_code=0, stdout="", stderr="")


def _read_secrets(variables: Mapping[str, str]) -> dict[str, str]:
    missing = sorted(set(variables.values()) - os.environ.keys())
    if missing:
        raise InvalidRequestError(
            f"no environment variable {', '.join(missing)}: secrets_from_env names it"
        )
    return {name: os.environ[variable] for name, variable in variables.items()}


def _record(live: LiveEpisode, state: ORSState) -> None:
    state.reward = live.stop()
    state.stop_reason = live.episode.stop_reason
    if state.reward is not None:
        state.figures = live.episode.metrics()


class ORSPlayerEnvConfig(vf.EnvConfig):
    """One agent, in verifiers' own process.

    Example:
        >>> ORSPlayerEnvConfig().agent.runtime.type
        'subprocess'
    """

    agent: vf.AgentConfig = vf.AgentConfig(runtime=vf.SubprocessConfig())
    """The agent that plays. Its runtime is an empty directory."""


class ORSPlayerEnv(vf.Env[ORSPlayerEnvConfig]):
    """One agent that plays one task.

    Example:
        >>> issubclass(ORSPlayerEnv, vf.Env)  # so that verifiers finds it in a plugin
        True
    """

    async def run(self, task: ORSTask, agents: vf.Agents) -> None:
        """Play one episode.

        Args:
            task: The task.
            agents: The agents, of which there is one.
        """
        await agents.agent.run(task)
