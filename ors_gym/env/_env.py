"""The blocking environment: one ORS session at a time as a Gymnasium env."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Literal, TypeVar

import gymnasium
import numpy as np
from gymnasium.envs.registration import EnvSpec
from numpy.typing import NDArray

from ors_gym.client import ORSClient, Session
from ors_gym.env._opening import Opened, Prefetch
from ors_gym.env._rules import EnvCore, ResetResult, StepResult
from ors_gym.env._settings import UNPICKLED, EnvConfig, find_server, without_secrets
from ors_gym.env._task_order import TaskOrder, TaskSet
from ors_gym.errors import InvalidRequestError, ORSError
from ors_gym.protocol._exchange import Operation
from ors_gym.types import JSONObject, Split, TaskSpec, ToolSpec

if TYPE_CHECKING:
    from ors_gym.display._transcript import Transcript

__all__ = ["ORSEnv"]

T = TypeVar("T")


class ORSEnv(gymnasium.Env[Any, Any]):
    """An environment of an ORS server, as a Gymnasium env.

    ``reset()`` opens a session, ``step(action)`` calls a tool, ``close()`` deletes the
    session. Spaces: actions are calls ``{"tool": name, "input": {...}}`` (or text),
    observations are the text of the reply (or text and images).

    Args:
        env_name: The environment's name on the server, in any case.
        base_url: The server's address; the variable ``ORS_BASE_URL`` if None, and
            without that the embedded server with the bundled environments.
        split: The split; ``train`` if None and there is one, else the only one.
        tasks: Narrows the split: a range, indexes, task specs, or a function
            ``f(rng, history) -> index`` for a curriculum.
        task_order: ``sequential``, ``shuffle`` or ``random``, as `reset` says.
        task_offset: Which of the envs that share a set of tasks this one is.
        task_stride: How many envs share it.
        observation_mode: ``text``, or ``dict`` for ``{"text", "images"}``.
        action_mode: ``tool_call``, or ``text`` for an action space of text.
        plain_text: What text without a tool call is: ``invalid``, or an answer to
            ``submit`` to the one tool with one required string.
        max_episode_steps: Steps after which an episode is truncated.
        call_timeout: Seconds for a tool call.
        setup_timeout: Seconds for a reset, the environment's set-up included.
        invalid_action_reward: The reward of an action that is no valid call.
        on_tool_error: Whether a tool that raised is an observation, an exception, or
            the (truncated) end of the episode.
        on_error: Whether an outage raises, or truncates the episode.
        prefetch: Whether the next task's session is opened while this one is played.
        render_mode: ``ansi``, ``human``, ``rgb_array`` (extra ``images``) or None.
        api_key: Sent as ``X-API-Key``; the variable ``ORS_API_KEY`` if None.
        secrets: Values for the environment, by name.
        headers: Sent with every request.
        create_options: Further fields for the body of /create.
        session_options: The body of /create_session.
        client_options: Further arguments of the env's `ORSClient`.
        client: A client to use, which is not closed here, in place of an own one.

    Raises:
        UnknownEnvironmentError: If the server has no such environment.
        ConnectionFailedError: If the server cannot be reached.
        InvalidRequestError: If an argument cannot be right.

    Example:
        >>> import gymnasium as gym
        >>> import ors_gym
        >>> env = gym.make("ors/guess")
        >>> observation, info = env.reset(seed=7)
        >>> action = {"tool": "guess", "input": {"number": 50}}
        >>> observation, reward, terminated, truncated, info = env.step(action)
        >>> info["tool"], info["task_index"]
        ('guess', 7)
        >>> env.close()
    """

    metadata: ClassVar[dict[str, Any]] = {  # type: ignore[misc]
        "render_modes": ["ansi", "human", "rgb_array"],
        "render_fps": 1,
    }

    def __init__(
        self,
        env_name: str,
        base_url: str | None = None,
        *,
        split: str | None = None,
        tasks: TaskSet | None = None,
        task_order: TaskOrder = "sequential",
        task_offset: int = 0,
        task_stride: int = 1,
        observation_mode: Literal["text", "dict"] = "text",
        action_mode: Literal["tool_call", "text"] = "tool_call",
        plain_text: Literal["invalid", "submit"] = "invalid",
        max_episode_steps: int | None = None,
        call_timeout: float = 600.0,
        setup_timeout: float = 600.0,
        invalid_action_reward: float = 0.0,
        on_tool_error: Literal["observe", "raise", "truncate"] = "observe",
        on_error: Literal["raise", "truncate"] = "raise",
        prefetch: bool = False,
        render_mode: str | None = None,
        api_key: str | None = None,
        secrets: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
        create_options: Mapping[str, Any] | None = None,
        session_options: Mapping[str, Any] | None = None,
        client_options: Mapping[str, Any] | None = None,
        client: ORSClient | None = None,
    ) -> None:
        if render_mode is not None and render_mode not in self.metadata["render_modes"]:
            raise InvalidRequestError(
                f"render_mode is {render_mode!r}; it must be one of "
                f"{self.metadata['render_modes']} or None"
            )
        arguments = {k: v for k, v in locals().items() if k not in ("self", "client")}
        self._config = EnvConfig(**arguments)
        self.render_mode = render_mode
        self._connect(client)

    def _connect(self, client: ORSClient | None) -> None:
        config = self._config
        if client is None:
            base_url = find_server(config.base_url)
            self._client = ORSClient(base_url, **config.client_arguments())
        else:
            self._client = client
        self._owns_client = client is None
        self._core: EnvCore[Session] = EnvCore(
            config, self._client.link, self._new_session
        )
        self._prefetch: Prefetch[Session] = Prefetch(self._client.link)
        self._spec: EnvSpec | None = None
        self._run(self._core.learn())
        self.action_space = self._core.action_space
        self.observation_space = self._core.observation_space

    def _new_session(self, environment: str, task: Mapping[str, Any]) -> Session:
        arguments = self._config.session_arguments()
        return self._client.session(environment, **task, **arguments)

    def _run(self, operation: Operation[T]) -> T:
        return self._client.run(operation)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> ResetResult:
        """Start an episode; the previous session is deleted in the background.

        Args:
            seed: Plays the task that it selects: in ``sequential`` order the task
                ``seed`` modulo their number. Later resets go on from there. The first
                reset without a seed draws one.
            options: ``task_index``, ``task`` (a spec) or ``split``: one episode outside
                the order.

        Returns:
            The prompt as an observation, and the info.

        Raises:
            SetupFailedError: If the environment's set-up raised.
            UnknownTaskError: If there is no such split or task.
            ConnectionFailedError: If the server cannot be reached.
        """
        super().reset(seed=seed)
        core = self._core
        core.check_usable()
        if seed is not None:
            core.schedule.seed(seed)
            self._prefetch.drop()
        core.leave()
        result = core.begin(self._next_episode(options))
        if self._config.prefetch and not self._prefetch.pending:
            task = self._run(core.plan(self.np_random, None))
            self._prefetch.open(task, core.open(task))
        if self.render_mode == "human":
            self.render()
        return result

    def _next_episode(self, options: dict[str, Any] | None) -> Opened[Session]:
        core = self._core
        prefetched = None if options else self._prefetch.take()
        if prefetched is None:
            return self._run(core.open(self._run(core.plan(self.np_random, options))))
        try:
            return prefetched.future.result()
        except ORSError:
            # The server may be back by now, and the task is still to be played.
            return self._run(core.open(prefetched.task))
        except BaseException:
            prefetched.future.cancel()
            raise

    def step(self, action: Any) -> StepResult:
        """Call a tool.

        Args:
            action: ``{"tool": name, "input": {...}}``, or any other form that
                `ors_gym.formats.parse_action` reads.

        Returns:
            Observation, reward, whether the server finished the episode, whether it
            was cut short, and the info. An action that is no valid call is an
            observation that says so.

        Raises:
            EpisodeOverError: If there is no episode to step.
            ORSError: For an outage, unless ``on_error="truncate"``.
        """
        core = self._core
        taken = core.take(action)
        if len(taken) == 2:
            session, call = taken
            try:
                output = session.call_tool(call["tool"], call["input"])
            except ORSError as error:
                result = core.failed(call, error)
            except BaseException:
                core.interrupted()
                raise
            else:
                result = core.succeeded(call, output)
        else:
            result = taken
        if self.render_mode == "human":
            self.render()
        return result

    def render(self) -> str | NDArray[np.uint8] | None:
        """Show the episode.

        Returns:
            The whole episode as text with ``render_mode="ansi"``; a picture of its
            newest turns with ``"rgb_array"``, always of one size; None with
            ``"human"``, which prints what is new, in colours if rich is installed.
        """
        if self.render_mode is None:
            gymnasium.logger.warn(
                "render() does nothing without a render_mode; make the env with "
                "render_mode='ansi', 'human' or 'rgb_array'"
            )
        return self._core.render()

    def close(self) -> None:
        """Delete the session, in bounded time. Closing twice is fine."""
        core = getattr(self, "_core", None)
        if core is None:
            return
        if core.session is not None:
            core.session.close()
        self._prefetch.drop()
        core.closed()
        if self._owns_client:
            self._client.close()
        super().close()

    def set_tasks(self, tasks: TaskSet | None) -> None:
        """Narrow the tasks from the next reset on.

        Args:
            tasks: As for the constructor; None for the whole split.

        Raises:
            InvalidRequestError: If the set is empty or none of these.
        """
        if self._prefetch.drop():
            self._core.schedule.step_back()
        self._core.schedule.set_tasks(tasks)

    @property
    def tools(self) -> list[ToolSpec]:
        """The tools of the current session; before the first, those of all."""
        return self._core.tools

    @property
    def transcript(self) -> Transcript | None:
        """The episode so far, as a person reads it; None without a render mode."""
        return self._core.transcript

    @property
    def environment(self) -> str:
        """The environment's name as the server spells it."""
        return self._core.environment

    @property
    def terminal_tool(self) -> JSONObject | None:
        """The tool that takes plain text in the current session, if there is one."""
        session = self._core.session
        return session.terminal_tool if session is not None else None

    @property
    def session_id(self) -> str | None:
        """The server's id of the current session, or None."""
        session = self._core.session
        return session.session_id if session is not None else None

    @property
    def task(self) -> TaskSpec | None:
        """The current task, or None. It usually holds the answer."""
        task = self._core.task
        if task is None or task.spec is not None:
            return task.spec if task is not None else None
        return self._client.get_task(self._core.environment, task.split, task.index)

    @property
    def num_tasks(self) -> int:
        """The number of tasks that are played."""
        return self._run(self._core.count_tasks())

    @property
    def splits(self) -> list[Split]:
        """The splits of the environment."""
        return self._run(self._core.list_splits())

    @property
    def base_url(self) -> str:
        """The server's address."""
        return self._client.base_url

    @property
    def spec(self) -> EnvSpec | None:
        """How Gymnasium made the env, without the secrets among the arguments."""
        return self._spec

    @spec.setter
    def spec(self, spec: EnvSpec | None) -> None:
        if spec is not None:
            spec = copy.copy(spec)
            spec.kwargs = without_secrets(spec.kwargs)
        self._spec = spec

    def __str__(self) -> str:
        return f"<ORSEnv {self._core.environment!r} at {self.base_url}>"

    def __repr__(self) -> str:
        return str(self)

    def __getstate__(self) -> dict[str, Any]:
        arguments = without_secrets(vars(self._config))
        if self._config.secrets:
            arguments["secrets"] = UNPICKLED
        return {
            "arguments": arguments,
            "spec": self._spec,
        }

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(**state["arguments"])  # type: ignore[misc]
        self._spec = state["spec"]
