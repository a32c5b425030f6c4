"""SkyRL: episodes of any ORS server as a text environment of SkyRL-Gym 0.4.

Register it by name, so that the workers of a trainer find it:

    skyrl_gym.register("ors", "ors_gym.integrations.skyrl:ORSTextEnv")

The settings of an episode come from three places: the ``ors`` column of the dataset,
which `ors_rows` makes; the environment's configuration (``environment.skyrl_gym.ors``);
the ``kwargs`` of ``register``. The first that has a setting counts.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

from ors_gym.client import AsyncORSClient
from ors_gym.client.background import run_and_wait
from ors_gym.env._settings import find_server
from ors_gym.errors import InvalidRequestError, needs_extra
from ors_gym.formats import describe_tools, to_template_messages
from ors_gym.formats._json import to_plain_json
from ors_gym.formats._messages import join_system_messages, with_calls_as_text
from ors_gym.integrations import (
    ATTEMPTS,
    EPISODE_SECRETS,
    ClientFactory,
    choose_indexes,
)
from ors_gym.rollout import Episode
from ors_gym.rollout._clients import connect, split_client_arguments
from ors_gym.rollout._live_episode import LiveEpisode
from ors_gym.types import JSONObject, ToolSpec

__all__ = ["ORSTextEnv", "ors_rows"]

with needs_extra("skyrl", "ors_gym.integrations.skyrl"):
    from skyrl_gym.envs.base_text_env import BaseTextEnv, BaseTextEnvStepOutput

_COLUMN: Final = "ors"
# One client for each server and key, so that episodes share connections.
_clients: dict[str, AsyncORSClient] = {}


class ORSTextEnv(BaseTextEnv):
    """One episode of an ORS environment, as SkyRL plays it.

    The prompt is the dataset's messages and then the environment's own. The first
    system message describes the tools. The model calls tools with ``<tool_call>``
    blocks or JSON.

    A step pays what it adds to the episode's reward. Over a whole episode, also one
    that ``max_turns`` ends, the steps add up to the episode's reward, whatever
    ``reward_reduction`` is. At its limit of tokens SkyRL stops without telling the
    environment. The steps then add up to the reward so far, without
    ``nonterminal_reward``, or to 0 with ``pay_at_end``.

    After an outage the episode goes on with another session, if the environment answers
    as before; see ``attempts`` of `LiveEpisode`. An outage that stays raises: SkyRL has
    no place for an episode without a reward.

    Args:
        env_config: Settings from the environment's configuration: a mapping, or an
            object with attributes.
        extras: The other columns of the dataset's row. ``ors`` holds settings;
            ``max_turns`` is SkyRL's own limit.
        **settings: Settings from the ``kwargs`` of ``skyrl_gym.register``.

    Settings:
        ``env_name`` and ``task_index`` or ``task``; ``split``; ``base_url``,
        ``api_key``, ``headers`` and ``client_options``; the arguments of
        `LiveEpisode`, such as ``secrets`` or ``reward_reduction``; ``attempts`` (3);
        ``tools_in_prompt`` (True);
        ``observation_role``: ``tool``, or ``user`` for chat templates without tools,
        to which the calls of a prompt with roles are text, too;
        ``pay_at_end`` (False): pay the whole reward with the last step, for
        ``generator.step_wise_trajectories``, where SkyRL uses only the last reward. The
        step's own reward is ``turn_reward`` in its metadata either way.

    Raises:
        InvalidRequestError: If a setting is wrong.

    Example:
        >>> env = ORSTextEnv(extras=ors_rows("math", tasks=[0])[0])
        >>> messages, metadata = env.init([])
        >>> env.step('{"name": "submit", "arguments": {"answer": "?"}}')["done"]
        True
        >>> env.close()
    """

    def __init__(
        self,
        env_config: Any = None,
        extras: Mapping[str, Any] | None = None,
        **settings: Any,
    ) -> None:
        super().__init__()
        extras = extras or {}
        given = {**settings, **_known(env_config), **_known(extras.get(_COLUMN))}
        if extras.get("max_turns") is not None:
            self.max_turns = given["max_turns"] = int(extras["max_turns"])
        self._tools_in_prompt = bool(given.pop("tools_in_prompt", True))
        self._pay_at_end = bool(given.pop("pay_at_end", False))
        self._role = given.pop("observation_role", "tool")
        if self._role not in ("tool", "user"):
            raise InvalidRequestError(
                f"observation_role is {self._role!r}; it must be 'tool' or 'user'"
            )
        connection, given = split_client_arguments(given)
        connection["base_url"] = given.pop("base_url", None)
        self._live = _make(connection, given)

    @property
    def episode(self) -> Episode:
        """What happened so far."""
        return self._live.episode

    def init(
        self, prompt: Sequence[Mapping[str, Any]]
    ) -> tuple[list[JSONObject], dict[str, Any]]:
        """Open the session.

        Args:
            prompt: The messages of the dataset's row.

        Returns:
            These messages, then the environment's prompt; and a dict with the task's
            index and split.

        Raises:
            ORSError: If the episode cannot be set up.
        """
        with self._closed_if_raised():
            asked = run_and_wait(self._live.start())
            messages = [dict(message) for message in prompt]
            if self._tools_in_prompt:
                messages = _with_tools(messages, self.episode.tools)
        where = {"task_index": self.episode.task_index, "split": self.episode.split}
        told = to_template_messages(join_system_messages(messages, asked))
        return [self._shown(message) for message in told], where

    def step(self, action: str) -> BaseTextEnvStepOutput:
        """Play one turn.

        Args:
            action: The text of the model.

        Returns:
            The environment's answer, what the turn added to the episode's reward,
            whether the episode is over, and metadata of the turn.

        Raises:
            ORSError: For an outage; the session is deleted then.
        """
        with self._closed_if_raised():
            told = run_and_wait(self._live.take(action))
        self.turns += 1
        episode = self.episode
        reward = turn_reward = self._live.collect_reward()
        if self._pay_at_end:
            reward = (episode.total_reward or 0.0) if self._live.ended else 0.0
        latest = episode.steps[-1] if episode.steps else None
        return BaseTextEnvStepOutput(
            observations=[self._shown(message) for message in told],
            reward=reward,
            done=self._live.ended,
            metadata={
                "stop_reason": episode.stop_reason,
                "tool": latest.tool if latest is not None else "",
                "error_kind": latest.error_kind if latest is not None else "",
                "turn_reward": turn_reward,
            },
        )

    def get_metrics(self) -> dict[str, float]:
        """Return the episode's metrics, which SkyRL averages."""
        return self.episode.metrics()

    def close(self) -> None:
        """Delete the session. Closing twice is fine."""
        run_and_wait(self._live.close())

    @contextlib.contextmanager
    def _closed_if_raised(self) -> Iterator[None]:
        """SkyRL does not close an environment that raised."""
        try:
            yield
        except BaseException:
            self.close()
            raise

    def _shown(self, message: JSONObject) -> JSONObject:
        if self._role != "user":
            return message
        if message["role"] == "tool":
            return {"role": "user", "content": message["content"]}
        return with_calls_as_text(message)


def _known(settings: Any) -> dict[str, Any]:
    """Make a plain dict of settings in any of SkyRL's types, without unset ones."""
    if settings is None:
        return {}
    if dataclasses.is_dataclass(settings) and not isinstance(settings, type):
        settings = vars(settings)
    if not isinstance(settings, Mapping):
        raise InvalidRequestError(
            f"the settings of an episode are a mapping, not {type(settings).__name__}"
        )
    # A table has every column in every row, with None for a setting that is not set.
    known = {str(name): one for name, one in settings.items() if one is not None}
    try:
        plain: dict[str, Any] = to_plain_json(known, root="settings")
    except ValueError as error:
        raise InvalidRequestError(f"the settings are not JSON: {error}") from None
    if "tool_schemas" in plain:
        plain["tool_schemas"] = _without_nulls(plain["tool_schemas"])
    return plain


def _without_nulls(value: Any) -> Any:
    """Undo a table's columns: each row has the keys of all rows, with null for none."""
    if not isinstance(value, dict):
        return value
    return {k: _without_nulls(one) for k, one in value.items() if one is not None}


def _make(connection: dict[str, Any], given: dict[str, Any]) -> LiveEpisode:
    task = given.pop("task", None)
    index = given.pop("task_index", None)
    if not given.get("env_name") or (task is None) == (index is None):
        raise InvalidRequestError(
            "an episode needs env_name, and either task_index or task, in the row's "
            f"{_COLUMN!r} column or in the environment's configuration"
        )
    name = given.pop("env_name")
    return LiveEpisode(
        _client(connection),
        name,
        int(index) if task is None else task,
        **{"attempts": ATTEMPTS, **given},
    )


def _client(connection: Mapping[str, Any]) -> AsyncORSClient:
    known = {**connection, "base_url": find_server(connection.get("base_url"))}
    key = json.dumps(known, sort_keys=True, default=repr)
    if key not in _clients:
        _clients[key] = connect(**known)
    return _clients[key]


def _with_tools(
    messages: Sequence[JSONObject], tools: Sequence[ToolSpec]
) -> list[JSONObject]:
    """Describe the tools in the first system message, or in a new one."""
    described = describe_tools(tools)
    if not described:
        return list(messages)
    if messages and messages[0].get("role") == "system":
        told = "\n\n".join(filter(None, (messages[0].get("content"), described)))
        return [{**messages[0], "content": told}, *messages[1:]]
    return [{"role": "system", "content": described}, *messages]


def ors_rows(
    env_name: str,
    base_url: str | None = None,
    *,
    split: str | None = None,
    tasks: Iterable[int] | None = None,
    system_prompt: str = "Solve the task by calling functions.",
    env_class: str = "ors",
    client_factory: ClientFactory | None = None,
    **settings: Any,
) -> list[JSONObject]:
    """Return the rows of a SkyRL dataset: one for each task, without the task spec.

    ``datasets.Dataset.from_list(rows).to_parquet(path)`` makes the file that it reads.

    Args:
        env_name: The environment's name on the server.
        base_url: The server's address, as for `ORSEnv`. If given, it is in the rows.
        split: The split; ``train`` if None and there is one, else the only one.
        tasks: Indexes; None for the whole split.
        system_prompt: The beginning of each prompt.
        env_class: The name under which `ORSTextEnv` is registered.
        client_factory: Makes the client that lists the tasks, where more than an
            address is needed; the rows hold nothing of it.
        **settings: More settings of `ORSTextEnv`. Secrets (``api_key``, ``secrets``,
            ``headers``) are refused, because a dataset is a file.

    Raises:
        InvalidRequestError: If a setting is secret.
        UnknownTaskError: If there is no such split.

    Example:
        >>> ors_rows("math", tasks=range(3))[2]["ors"]
        {'env_name': 'math', 'split': 'train', 'task_index': 2}
    """
    secret = EPISODE_SECRETS & settings.keys()
    if secret:
        raise InvalidRequestError(
            f"{', '.join(sorted(secret))} would be written to the dataset's file; put "
            "them into the kwargs of skyrl_gym.register, or into the environment's "
            "configuration; pass client_factory= to list the tasks with a key"
        )
    chosen, tasks = choose_indexes(env_name, base_url, client_factory, split, tasks)
    known = {**settings, "env_name": env_name, "split": chosen}
    if base_url is not None:
        known["base_url"] = base_url
    return [
        {
            "prompt": [{"role": "system", "content": system_prompt}],
            "env_class": env_class,
            _COLUMN: {**known, "task_index": index},
        }
        for index in tasks
    ]
