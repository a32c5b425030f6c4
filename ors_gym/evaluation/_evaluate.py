"""Evaluate a policy: `evaluate` blocks, `parallel_evaluate` runs on an event loop."""

from __future__ import annotations

import contextlib
import dataclasses
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, Literal, TypedDict, Unpack

from ors_gym.client import AsyncORSClient
from ors_gym.client.background import run_and_wait
from ors_gym.env._settings import OnToolError
from ors_gym.errors import InvalidRequestError
from ors_gym.evaluation._collector import Collector, ProgressBar
from ors_gym.evaluation._figures import check_range, write_range
from ors_gym.evaluation._loggers import EvaluationLogger, read_loggers
from ors_gym.evaluation._plan import Plan, Tasks, make_plan
from ors_gym.evaluation._result import Evaluation
from ors_gym.formats._actions import name_type
from ors_gym.protocol._redaction import SECRET_ARGUMENTS, takes_secrets
from ors_gym.rollout import Episode, Policy
from ors_gym.rollout._clients import AnyClient, borrow_async, split_client_arguments
from ors_gym.rollout._episode_rules import RuleOptions, take_rules
from ors_gym.rollout._limits import Budget, LimitOptions, take_limits
from ors_gym.rollout._output import (
    PRIVATE_ARGUMENTS,
    Output,
    Success,
    describe_run,
    name_success,
)
from ors_gym.rollout._player import make_rollout_env
from ors_gym.rollout._policies import choose_policy, name_policy
from ors_gym.rollout._ray import (
    ClusterFailedError,
    connect,
    make_scheduler,
    read_ray_options,
)
from ors_gym.rollout._scheduler import Settings
from ors_gym.spaces import ToolSchemas
from ors_gym.types import JSONObject, Secrets, TerminalToolAs


class _EnvOptions(TypedDict, total=False):
    """Arguments of `ORSEnv` that an evaluation takes too.

    The first three make the client where only an address is given.
    """

    api_key: str | None
    headers: Mapping[str, str] | None
    client_options: Mapping[str, Any] | None
    secrets: Secrets | None
    toolset: str | None
    env_overrides: Mapping[str, str] | None
    call_timeout: float
    setup_timeout: float
    max_episode_steps: int | None
    invalid_action_reward: float
    terminal_tool_as: TerminalToolAs
    tool_schemas: ToolSchemas | None
    on_tool_error: OnToolError | Mapping[str, OnToolError]
    observation_mode: Literal["text", "dict"]
    create_options: Mapping[str, Any] | None
    session_options: Mapping[str, Any] | None


class Options(RuleOptions, LimitOptions, _EnvOptions, total=False):
    """The keyword arguments of `evaluate` and `parallel_evaluate`.

    Beside those below they are the limits of a run, such as ``max_cost``; the arguments
    of `Rules`, such as ``max_turns``; and these of `ORSEnv`: ``api_key``, ``headers``,
    ``client_options``, ``secrets``, ``toolset``, ``env_overrides``, ``call_timeout``,
    ``setup_timeout``, ``max_episode_steps``, ``invalid_action_reward``,
    ``terminal_tool_as``, ``tool_schemas``, ``on_tool_error``, ``observation_mode``,
    ``create_options`` and ``session_options``.

    Example:
        >>> options: Options = {"split": "test", "max_concurrent": 4, "progress": False}
        >>> evaluate(None, "math", [0], lambda _: None, **options).success_rate
        0.0
    """

    min_concurrent: int
    """The fewest episodes that are played at once while the server is busy; 1."""
    adapt_to_latency: bool
    """Whether fewer are played at once while requests wait for each other at the
    server, and not only while it answers 429; False."""
    policy_factory: Callable[[], Policy] | None
    """Makes a policy for each episode, in place of ``policy``."""
    split: str | None
    """The split of indexes; ``train`` if None and there is one, else the only one."""
    episodes_per_task: int
    """How often each task is played; 1."""
    seed: int | None
    """``episode.seed`` is this plus the episode's number."""
    success: Success
    """The least reward of a success, or a function of the `Episode`. If None, success
    is finished with a reward above 0."""
    reward_range: tuple[float, float] | None
    """The least and the greatest reward that an episode can have, if you know them: no
    confidence interval goes beyond them."""
    output: str | os.PathLike[str] | None
    """The path of a JSON-lines file that each episode is appended to. The same call
    again plays only episodes that are missing or have no outcome. It is refused if
    a setting that the file records has changed."""
    policy_name: str | None
    """The policy's name in that file; the policy's own name if None."""
    log_to: EvaluationLogger | Sequence[EvaluationLogger] | None
    """Where the run is recorded while it goes on, such as
    `ors_gym.integrations.wandb.WandbLogger`; one or several."""
    on_episode: Callable[[Episode], Any] | None
    """Called with each episode that ended; may be async."""
    progress: bool | None
    """Whether a bar is shown; if None, where tqdm is installed."""
    engine: Literal["local", "ray"]
    """Where episodes are played: in this process, or by the actors of a Ray cluster."""
    actors: int | None
    """How many processes play with ``engine="ray"``; one per CPU of it if None."""
    actor_options: Mapping[str, Any] | None
    """What each actor asks Ray for, as ``Dataset.map_batches`` takes it:
    ``num_cpus``, ``num_gpus``, ``memory``, ``runtime_env``, ..."""


_OWN_OPTIONS: Final = Options.__annotations__.keys() - _EnvOptions.__annotations__
"""Options that are not arguments of the env."""


@takes_secrets
def evaluate(
    client: AnyClient,
    env_name: str,
    tasks: Tasks = None,
    policy: Policy | None = None,
    *,
    max_concurrent: int = 8,
    **options: Unpack[Options],
) -> Evaluation:
    """Evaluate a policy: play many episodes at once, and return their figures.

    It also works where an event loop runs, as in a notebook. Ctrl-C returns the
    episodes that ended so far, and leaves no session behind.

    Args:
        client: A client (it lends its settings; its connections are not used), a
            server's address, or None for ``ORS_BASE_URL`` or the embedded server.
        env_name: The environment's name on the server.
        tasks: As for `parallel_evaluate`.
        policy: As for `parallel_evaluate`.
        max_concurrent: The most episodes that are played at once.
        **options: `ors_gym.evaluation.Options`, all by name.

    Returns:
        The evaluation.

    Raises:
        ORSError: If there is no such server, environment or task, if the output file
            is of other settings, or if a key or the model is wrong. Any other failure
            is a row of the results.

    Example:
        >>> from ors_gym.rollout import reference_policy
        >>> found = evaluate(None, "math", range(4), reference_policy(), progress=False)
        >>> f"{found['success_rate']:.1%}", found["avg_steps"]
        ('100.0%', 1.0)
    """
    job = _Job(client, env_name, tasks, policy, max_concurrent, options=options)
    if options.get("engine") == "ray":
        # In the caller's thread: Ray sets its signal handlers in the main thread only.
        connect()
    try:
        run_and_wait(job.run(elsewhere=True))
    except KeyboardInterrupt:
        if job.collector is None:
            raise
        return job.evaluation("interrupted")
    return job.evaluation()


@takes_secrets
async def parallel_evaluate(
    client: AnyClient,
    env_name: str,
    tasks: Tasks = None,
    policy: Policy | None = None,
    max_concurrent: int = 5,
    **options: Unpack[Options],
) -> Evaluation:
    """Evaluate a policy on the running event loop.

    Args:
        client: A client (a blocking one lends its settings), a server's address, or
            None for ``ORS_BASE_URL`` or the embedded server.
        env_name: The environment's name on the server.
        tasks: Indexes, tasks as the server lists them, or pairs of split and index;
            None for the whole split.
        policy: Called with each `Episode` so far; returns an action, a list of
            actions, a `Turn`, or None to give up. A plain function runs in a thread
            for each episode under way.
        max_concurrent: The most episodes that are played at once; fewer while the
            server answers 429.
        **options: `ors_gym.evaluation.Options`, all by name.

    Returns:
        The evaluation.

    Raises:
        ORSError: As for `evaluate`.

    Example:
        >>> import asyncio
        >>> from ors_gym.rollout import random_policy
        >>> job = parallel_evaluate(
        ...     None, "guess", range(3), random_policy(0), max_turns=4, progress=False
        ... )
        >>> len(asyncio.run(job)["results"])
        3
    """
    job = _Job(client, env_name, tasks, policy, max_concurrent, options=options)
    await job.run()
    return job.evaluation()


class _Job:
    """An evaluation's checked arguments, and the state of its run."""

    def __init__(
        self,
        client: AnyClient,
        env_name: str,
        tasks: Tasks,
        policy: Policy | None,
        max_concurrent: int,
        *,
        options: Options,
    ) -> None:
        if not isinstance(env_name, str):
            raise InvalidRequestError(
                f"env_name is {name_type(env_name)}; the order is evaluate(client, "
                "env_name, tasks, policy); client=None is the bundled server"
            )
        check_range(options.get("reward_range"))
        policy_factory = options.get("policy_factory")
        self._options = options
        # Unknown options go to the env as well, which refuses them.
        self._connection, env_arguments = split_client_arguments(
            {k: v for k, v in options.items() if k not in _OWN_OPTIONS}
        )
        self._settings = Settings(
            env_name=env_name,
            make_policy=choose_policy(policy, policy_factory),
            rules=take_rules(dict(options)),
            max_concurrent=max_concurrent,
            min_concurrent=options.get("min_concurrent", 1),
            adapt_to_latency=options.get("adapt_to_latency", False),
            seed=options.get("seed"),
            success=options.get("success"),
            limits=take_limits(dict(options)),
            env_arguments=env_arguments,
        )
        self._client = client
        self._loggers = read_loggers(options.get("log_to"))
        self._tasks = tasks
        self._policy_name = options.get("policy_name") or name_policy(
            policy or policy_factory
        )
        self._ray_options = read_ray_options(
            options.get("engine", "local"),
            options.get("actors"),
            options.get("actor_options"),
        )
        self._plan: Plan | None = None
        self._head: JSONObject = {}
        self.collector: Collector | None = None
        """None before anything is played."""

    async def run(self, *, elsewhere: bool = False) -> None:
        """Play what is left; ``elsewhere`` means on another loop than the client's."""
        options = self._options
        async with borrow_async(
            self._client, self._connection, elsewhere=elsewhere
        ) as client:
            settings = self._settings
            # Refuses wrong arguments before anything is played.
            make_rollout_env(client, settings.env_name, **settings.env_arguments)
            name = await client.run(client.catalog.resolve(settings.env_name))
            settings = dataclasses.replace(settings, env_name=name)
            plan = self._plan = await make_plan(
                client,
                name,
                self._tasks,
                options.get("split"),
                options.get("episodes_per_task", 1),
            )
            self._head = self._describe(client, name, plan)
            with contextlib.ExitStack() as stack:
                output = self._open_output(plan)
                if output is not None:
                    stack.enter_context(output)
                    self._head |= output.used_before
                used = {} if output is None else output.used
                budget = Budget(settings.limits, used)
                progress = ProgressBar(
                    len(plan), name, shown=options.get("progress"), budget=budget
                )
                stack.callback(progress.close)
                collector = self.collector = Collector(
                    plan,
                    settings.max_concurrent,
                    output=output,
                    progress=progress,
                    done={} if output is None else output.records,
                    loggers=self._loggers,
                    budget=budget,
                    on_episode=options.get("on_episode"),
                )
                async with self._loggers.run(self._head, self.evaluation):
                    await _play(collector, client, settings, self._ray_options)
                    collector.raise_if_refused()

    def _open_output(self, plan: Plan) -> Output | None:
        path = self._options.get("output")
        if path is None:
            return None
        return Output(path, self._head, {planned.key for planned in plan})

    def evaluation(self, stopped: str = "") -> Evaluation:
        """Return the episodes so far in the order of the tasks."""
        plan, collector = self._plan, self.collector
        if plan is None or collector is None:
            return Evaluation([], stopped=stopped)
        records = collector.records
        return Evaluation(
            [records[one.key] for one in plan if one.key in records],
            head=self._head,
            planned=len(plan),
            stopped=stopped or collector.stopped,
        )

    def _describe(self, client: AsyncORSClient, name: str, plan: Plan) -> JSONObject:
        """Return the head of an output file."""
        settings = self._settings
        judged: JSONObject = {"success": name_success(settings.success)}
        if (rewards := self._options.get("reward_range")) is not None:
            judged["reward_range"] = write_range(rewards)
        head = describe_run(
            client,
            environment=name,
            split=plan.split,
            policy=self._policy_name,
            limits=settings.describe() | judged,
            env_arguments=settings.env_arguments,
        )
        return head | {"planned": len(plan)}


def read_env_arguments(head: Mapping[str, Any]) -> JSONObject:
    """Return the arguments of an env that the head of an output file holds."""
    hidden = {*SECRET_ARGUMENTS, *PRIVATE_ARGUMENTS}
    limits = head.get("limits")
    return {
        name: value
        for name, value in (limits if isinstance(limits, dict) else {}).items()
        if name in _EnvOptions.__annotations__ and name not in hidden
    }


async def _play(
    collector: Collector,
    client: AsyncORSClient,
    settings: Settings,
    ray: tuple[int | None, Mapping[str, Any]] | None,
) -> None:
    """Play all that is left."""
    scheduler = make_scheduler(client, settings, None, collector.budget, ray)
    async with contextlib.aclosing(scheduler):

        async def work() -> None:
            while (planned := collector.next()) is not None:
                await collector.keep(planned, await scheduler.play_record(planned))

        try:
            await scheduler.run(work)
        except ClusterFailedError as error:
            if not collector.records:
                raise
            collector.reason = str(error)
