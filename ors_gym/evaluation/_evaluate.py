"""The options of an evaluation, listed once for both functions that take them."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import os
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from importlib import metadata
from typing import Any, Final, Literal, TypedDict, Unpack

from ors_gym.client import AsyncORSClient
from ors_gym.client.background import run_and_wait
from ors_gym.errors import InvalidRequestError
from ors_gym.evaluation._output import FORMAT, Output, Record, Success, name_success
from ors_gym.evaluation._plan import Plan, Tasks, make_plan
from ors_gym.evaluation._player import Settings
from ors_gym.evaluation._progress import Progress
from ors_gym.evaluation._ray import connect, play_on_ray
from ors_gym.evaluation._result import Evaluation
from ors_gym.evaluation._run import Run, play_here
from ors_gym.formats._actions import name_type
from ors_gym.rollout import Episode, Policy, RewardReduction, Rules
from ors_gym.rollout._clients import AnyClient, borrow_async
from ors_gym.rollout._driver import TaskEnv
from ors_gym.rollout._policies import choose_policy, name_policy
from ors_gym.types import JSONObject

__all__ = ["OWN_OPTIONS", "Options", "evaluate", "parallel_evaluate"]


class Options(TypedDict, total=False):
    """The keyword arguments of `evaluate` and `parallel_evaluate`.

    Those from ``secrets`` on are `ORSEnv`'s.
    """

    policy_factory: Callable[[], Policy] | None
    """Makes a policy for each episode, in place of ``policy``."""
    split: str | None
    """The split of indexes; ``train`` if None and there is one, else the only one."""
    episodes_per_task: int
    """How often each task is played; 1."""
    max_turns: int | None
    """Turns after which an episode ends."""
    deadline: float | None
    """Seconds after which an episode ends, set-up included."""
    seed: int | None
    """``episode.seed`` is this plus the episode's number."""
    on_plain_text: Literal["nudge", "stop", "submit"]
    """What text without a tool call leads to, as for `Rules`; ``nudge``."""
    reward_reduction: RewardReduction
    """How the rewards of an episode's steps become one; ``sum``."""
    nonterminal_reward: float
    """Added where the server did not finish the episode; 0."""
    success: Success
    """A threshold of the reward, or a function of the `Episode`; finished with a
    reward above 0 if None."""
    output: str | os.PathLike[str] | None
    """The path of a JSON-lines file that each episode is appended to. The same call
    again plays only what is missing or has no outcome; other settings are refused."""
    policy_name: str | None
    """For that file; the policy's own name if None."""
    on_episode: Callable[[Episode], Any] | None
    """Called with each episode that ended; may be async."""
    progress: bool | None
    """Whether a bar is shown; if None, where tqdm is installed."""
    engine: Literal["local", "ray"]
    """Where episodes are played: in this process, or by the actors of a Ray cluster."""
    actors: int | None
    """How many processes play with ``engine="ray"``; one per CPU of it if None."""
    actor_options: Mapping[str, Any] | None
    """What each of them asks Ray for, as ``Dataset.map_batches`` takes it:
    ``num_cpus``, ``num_gpus``, ``memory``, ``runtime_env``, ..."""

    secrets: Mapping[str, str] | None
    call_timeout: float
    setup_timeout: float
    max_episode_steps: int | None
    invalid_action_reward: float
    on_tool_error: Literal["observe", "raise", "truncate"]
    observation_mode: Literal["text", "dict"]
    create_options: Mapping[str, Any] | None
    session_options: Mapping[str, Any] | None


OWN_OPTIONS: Final = (
    "policy_factory",
    "split",
    "episodes_per_task",
    "seed",
    "success",
    "output",
    "policy_name",
    "on_episode",
    "progress",
    "engine",
    "actors",
    "actor_options",
)
"""Those that are neither a rule of episodes nor an argument of the env."""


_RULES: Final = tuple(field.name for field in dataclasses.fields(Rules))
_SECRET_ARGUMENTS: Final = ("secrets",)
"""Arguments of an env of which an output file holds nothing."""
_HASHED_ARGUMENTS: Final = ("create_options", "session_options")
"""Those of which it holds a digest: enough to see a change, and it may be private."""


def evaluate(
    client: AnyClient,
    env_name: str,
    tasks: Tasks = None,
    policy: Policy | None = None,
    *,
    max_concurrent: int = 8,
    **options: Unpack[Options],
) -> Evaluation:
    """Evaluate a policy: play many episodes at once, and say what came of them.

    Works where an event loop runs too, as in a notebook. Ctrl-C returns what is there
    so far and leaves no session behind.

    Args:
        client: A client (it lends its settings; its connections are not used), a
            server's address, or None for ``ORS_BASE_URL`` or the embedded server.
        env_name: The environment's name on the server.
        tasks: As for `parallel_evaluate`.
        policy: Called with each `Episode` so far; a plain function runs in threads.
        max_concurrent: How many episodes are played at once at most.
        **options: `ors_gym.evaluation.Options`, all by name.

    Returns:
        The evaluation.

    Raises:
        ORSError: If it cannot begin: no such server, environment or task, or an
            output file of other settings; or if a key or the model is wrong. Later
            failures are rows.

    Example:
        >>> from ors_gym.rollout import reference_policy
        >>> found = evaluate(None, "math", range(4), reference_policy(), progress=False)
        >>> f"{found['success_rate']:.1%}", found["avg_steps"]
        ('100.0%', 1.0)
    """
    job = _Job(
        client, env_name, tasks, policy, max_concurrent=max_concurrent, **options
    )
    if options.get("engine") == "ray":
        # Here, since Ray sets its handlers of signals in the main thread only.
        connect()
    try:
        run_and_wait(job.run(elsewhere=True))
    except KeyboardInterrupt:
        if job.played is None:
            raise
        return job.evaluation("interrupted")
    return job.evaluation()


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
            actions, a `Turn`, or None to give up. A plain function runs in threads,
            one per episode that is under way.
        max_concurrent: How many episodes are played at once at most; fewer for a while
            where the server answers 429.
        **options: `ors_gym.evaluation.Options`, all by name.

    Returns:
        The evaluation.

    Raises:
        ORSError: If it cannot begin, or a key or the model is wrong. Later failures
            are rows.

    Example:
        >>> import asyncio
        >>> from ors_gym.rollout import random_policy
        >>> job = parallel_evaluate(
        ...     None, "guess", range(3), random_policy(0), max_turns=4, progress=False
        ... )
        >>> len(asyncio.run(job)["results"])
        3
    """
    job = _Job(
        client, env_name, tasks, policy, max_concurrent=max_concurrent, **options
    )
    await job.run()
    return job.evaluation()


class _Job:
    """The arguments of an evaluation, checked, and what came of it."""

    def __init__(
        self,
        client: AnyClient,
        env_name: str,
        tasks: Tasks,
        policy: Policy | None,
        *,
        max_concurrent: int,
        **options: Unpack[Options],
    ) -> None:
        if not isinstance(env_name, str):
            raise InvalidRequestError(
                f"env_name is {name_type(env_name)}; the order is evaluate(client, "
                "env_name, tasks, policy); client=None is the bundled server"
            )
        if max_concurrent < 1:
            raise InvalidRequestError("max_concurrent must be at least 1")
        own: dict[str, Any] = {name: options.get(name) for name in OWN_OPTIONS}
        policy_factory = options.get("policy_factory")
        given: dict[str, Any] = dict(options)
        self._settings = Settings(
            env_name=env_name,
            make_policy=choose_policy(policy, policy_factory),
            rules=Rules(**{name: given[name] for name in _RULES if name in given}),
            max_concurrent=max_concurrent,
            seed=own["seed"],
            success=own["success"],
            env_arguments={
                name: value
                for name, value in given.items()
                if name not in OWN_OPTIONS and name not in _RULES
            },
        )
        self._client = client
        self._tasks, self._split = tasks, own["split"]
        self._episodes_per_task = options.get("episodes_per_task", 1)
        self._policy_name = own["policy_name"] or name_policy(policy or policy_factory)
        self._output_path = own["output"]
        self._shows_progress = own["progress"]
        self._on_episode = own["on_episode"]
        self._engine = _read_engine(options)
        self._plan: Plan | None = None
        self._head: JSONObject = {}
        self.played: Run | None = None
        """What was played; None before it begins."""

    async def run(self, *, elsewhere: bool = False) -> None:
        """Play what is to be played.

        Args:
            elsewhere: Whether an async client belongs to another event loop.
        """
        async with borrow_async(self._client, elsewhere=elsewhere) as client:
            settings = self._settings
            # Complains of wrong arguments before anything is played.
            TaskEnv(client, settings.env_name, **settings.env_arguments)
            name = await client.run(client.catalog.resolve(settings.env_name))
            settings = dataclasses.replace(settings, env_name=name)
            plan = self._plan = await make_plan(
                client, name, self._tasks, self._split, self._episodes_per_task
            )
            self._head = self._describe(client, name, plan)
            with contextlib.ExitStack() as stack:
                output = self._open_output(plan)
                if output is not None:
                    stack.enter_context(output)
                progress = Progress(len(plan), name, shown=self._shows_progress)
                stack.callback(progress.close)
                done = {} if output is None else output.records
                run = self.played = Run(
                    plan,
                    settings.max_concurrent,
                    output=output,
                    progress=progress,
                    done=done,
                    on_episode=self._on_episode,
                )
                await self._play(run, client, settings)
                run.raise_if_refused()

    async def _play(self, run: Run, client: AsyncORSClient, settings: Settings) -> None:
        if self._engine is None:
            await play_here(run, client, settings)
        else:
            await play_on_ray(run, client, settings, *self._engine)

    def _open_output(self, plan: Plan) -> Output | None:
        if self._output_path is None:
            return None
        keys = {planned.key for planned in plan}
        return Output(self._output_path, self._head, keys)

    def evaluation(self, stopped: str = "") -> Evaluation:
        """Return what came of it, in the order of the tasks.

        Args:
            stopped: Why some episodes are missing, if that is known here.
        """
        records: list[Record] = []
        plan, run = self._plan, self.played
        if plan is None or run is None:
            return Evaluation(records, stopped=stopped)
        records = [run.records[one.key] for one in plan if one.key in run.records]
        return Evaluation(
            records,
            head=self._head,
            planned=len(plan),
            stopped=stopped or run.stopped,
        )

    def _describe(self, client: AsyncORSClient, name: str, plan: Plan) -> JSONObject:
        """Return the first line of an output file."""
        settings = self._settings
        arguments = {
            argument: _digest(value) if argument in _HASHED_ARGUMENTS else value
            for argument, value in settings.env_arguments.items()
            if value is not None and argument not in _SECRET_ARGUMENTS
        }
        limits = {rule: getattr(settings.rules, rule) for rule in _RULES}
        limits |= {"seed": settings.seed, "success": name_success(settings.success)}
        return {
            "format": FORMAT,
            "server": client.base_url,
            "environment": name,
            "split": plan.split,
            "policy": self._policy_name,
            "limits": limits | arguments,
            "created": datetime.now(UTC).isoformat(),
            "version": metadata.version("ors-gym"),
        }


def _read_engine(options: Options) -> tuple[int | None, Mapping[str, Any]] | None:
    """Return how Ray's actors are made, or None where it is not Ray that plays."""
    engine, actors = options.get("engine", "local"), options.get("actors")
    actor_options = options.get("actor_options")
    if engine not in ("local", "ray"):
        raise InvalidRequestError(f"engine is {engine!r}; it must be 'local' or 'ray'")
    if engine == "local" and (actors is not None or actor_options is not None):
        raise InvalidRequestError('actors= and actor_options= need engine="ray"')
    if actors is not None and actors < 1:
        raise InvalidRequestError("actors must be at least 1")
    return None if engine == "local" else (actors, actor_options or {})


def _digest(value: Mapping[str, Any]) -> str:
    text = json.dumps(value, sort_keys=True, default=repr)
    return hashlib.sha256(text.encode()).hexdigest()[:16]
