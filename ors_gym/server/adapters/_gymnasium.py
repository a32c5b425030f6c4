"""Any Gymnasium environment as an ORS environment, as a subclass of the SDK's own.

A task is a seed. The tool ``step`` takes an action, by a JSON Schema of the action
space. The text and pictures of a reply are for people and models.

Programs get the same without loss, which `ors_gym.wrappers.NativeSpaces` reads: the
spaces in the schema of ``step`` under `SPACES_KEYWORD`, the first observation and info
in the ``detail`` of the prompt's first block, those of a step in its metadata.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import copy
import inspect
import io
import json
import math
import re
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping
from typing import Any, ClassVar, Final

import gymnasium
import numpy as np
from ors import ImageBlock, TextBlock, ToolOutput, tool
from PIL import Image
from pydantic import BaseModel, ConfigDict, create_model, field_validator

from ors_gym._gymnasium_json.spaces import (
    SPACES_KEYWORD,
    action_schema,
    describe_space,
    read_action,
)
from ors_gym._gymnasium_json.values import (
    UncarriedError,
    read_value,
    show_value,
    write_value,
)
from ors_gym.errors import InvalidRequestError
from ors_gym.server.adapters._arguments import read_arguments
from ors_gym.server.adapters._worker import Worker
from ors_gym.server.environments._base import IndexedTasks, SplitName, over

Maker = Callable[[Mapping[str, Any]], Any]
"""Makes the env of a task."""
Block = TextBlock | ImageBlock

# A seed is never negative and fits into 32 bits, which some environments need.
_FIRST_SEEDS: Final[dict[SplitName, int]] = {
    "train": 0,
    "validation": 2**30,
    "test": 2**30 + 2**29,
}
_SIZES: Final[dict[SplitName, int]] = {
    "train": 2**30,
    "validation": 1000,
    "test": 1000,
}
_MOST_LISTED: Final = 10_000
_SMALLEST_PICTURE: Final = 16
_MOST_CHARACTERS: Final = 500
# Sections of Gymnasium's own docstrings that are for those who make an env.
_FOR_MAKERS: Final = re.compile(
    r"^ *#+ *(Arguments|Vectorized environment|Version History|References)\b.*?"
    r"(?=^ *#+ |\Z)",
    re.DOTALL | re.MULTILINE,
)


class GymnasiumEnvironment(IndexedTasks):
    """One episode of an env that its `_Host` makes.

    `as_environment` makes a subclass for each env, with the tool ``step``.
    """

    split_sizes: ClassVar[Mapping[SplitName, int]] = _SIZES
    host: ClassVar[_Host]

    @classmethod
    def task_at(cls, split: str, index: int) -> Mapping[str, Any]:
        """Make the task of a seed (see `IndexedTasks.task_at`)."""
        name = cls.find_split(split, index)
        seed = _FIRST_SEEDS[name] + index
        return {"id": f"{cls.served_name}-{seed}", "split": name, "seed": seed}

    @classmethod
    def list_tasks(cls, split: str) -> list[Mapping[str, Any]]:
        """List the tasks of a split; ``train`` has too many."""
        if cls.split_size(split) > _MOST_LISTED:
            # The SDK answers that tasks have to be asked for by index.
            raise NotImplementedError
        return super().list_tasks(split)

    def read_task(self, task: Mapping[str, Any]) -> None:
        """Take the seed and the options (see `IndexedTasks.read_task`)."""
        seed = task.get("seed")
        if seed is not None and (not isinstance(seed, int) or isinstance(seed, bool)):
            raise TypeError(f"the seed is {seed!r}; it is a whole number, or None")
        self._seed = seed
        self._options = read_value(task.get("options"))
        self._env: gymnasium.Env[Any, Any] | None = None
        self._prompt: list[Block] = []

    async def setup(self) -> None:
        """Make the env and reset it."""
        try:
            await self.host.worker.run(self._start)
        except asyncio.CancelledError:
            # The session was deleted, and the SDK tears down only what is set up.
            self.host.worker.submit(self._close)
            raise

    def _start(self) -> None:
        try:
            self._env = self.host.make(self.task_spec)
            observation, info = self.host.reset(self._env, self._seed, self._options)
            self._prompt = [
                TextBlock(text=self.host.intro, detail=_record(observation, info)),
                *_show(self._env, observation),
            ]
        except BaseException:
            with contextlib.suppress(Exception):
                self._close()
            raise

    def get_prompt(self) -> list[Block]:
        """Say what the environment is, and show the first observation."""
        return self._prompt

    async def play(self, action: Any) -> ToolOutput:
        """Take a step."""
        return await self.host.worker.run(lambda: self._step(action))

    def _step(self, action: Any) -> ToolOutput:
        if self.finished or self._env is None:
            return over()
        observation, reward, terminated, truncated, info = self._env.step(action)
        self.finished = bool(terminated or truncated)
        metadata = _record(observation, info)
        metadata |= {"terminated": bool(terminated), "truncated": bool(truncated)}
        if type(reward) is not float or not math.isfinite(reward):
            metadata["reward"] = write_value(reward)
        return ToolOutput(
            blocks=_show(self._env, observation),
            metadata=metadata,
            reward=float(reward),
            finished=self.finished,
        )

    async def teardown(self) -> None:
        """Close the env."""
        await self.host.worker.run(self._close)

    def _close(self) -> None:
        env, self._env = self._env, None
        if env is not None:
            env.close()


def as_environment(make: Any) -> type[GymnasiumEnvironment]:
    """Make an environment class of the SDK from a function or class that makes envs.

    An env is made and reset once. Raises an `InvalidRequestError` if that fails, or if
    something of it has no form in JSON.
    """
    host = _Host(make)

    async def step(self: GymnasiumEnvironment, params: Any) -> ToolOutput:
        return await self.play(params.action)

    step.__doc__ = f"Take one action. {host.meanings}".rstrip()
    step.__annotations__ = {"params": _input_model(host), "return": ToolOutput}
    attributes = {"served_name": host.name, "host": host, "step": tool(step)}
    return type(f"Served{host.name}", (GymnasiumEnvironment,), attributes)


def find(wanted: str) -> Maker:
    """Find what ``gymnasium:ID`` or ``gymnasium:ID?argument=value&...`` stands for."""
    identifier, arguments = read_arguments(wanted)

    def make(_: Mapping[str, Any]) -> Any:
        # The checker only warns of what is carried as it is.
        return gymnasium.make(identifier, disable_env_checker=True, **arguments)

    make.__name__ = identifier.rpartition(":")[2]
    return make


def _input_model(host: _Host) -> type[BaseModel]:
    """Make the input of ``step``: the SDK asks it for its schema, and to read calls."""
    schema = {
        "type": "object",
        "properties": {"action": host.schema},
        "required": ["action"],
        SPACES_KEYWORD: host.spaces,
    }

    class Input(BaseModel):
        model_config = ConfigDict(extra="forbid")

        @field_validator("action", mode="before", check_fields=False)
        @classmethod
        def read(cls, value: Any) -> Any:
            return read_action(host.action_space, value)

        @classmethod
        def model_json_schema(cls, *_: Any, **__: Any) -> dict[str, Any]:
            return schema

    return create_model("Step", __base__=Input, action=(Any, ...))


class _Host:
    """What all episodes of one env share: how it is made, and what it is like."""

    def __init__(self, make: Any) -> None:
        self._make: Maker = make
        if isinstance(make, type):
            self._make = lambda _: make()
        self._shared: gymnasium.Env[Any, Any] | None = None
        """The one env that the function returns each time; each episode has a copy."""
        self.name = getattr(make, "__name__", type(make).__name__)
        self.worker = Worker(self.name)
        self.worker.submit(self._look).result()

    def make(self, task: Mapping[str, Any]) -> gymnasium.Env[Any, Any]:
        """Make the env of a task."""
        made = self._make(task) if self._shared is None else copy.deepcopy(self._shared)
        if not isinstance(made, gymnasium.Env):
            raise TypeError(
                f"{self.name} made {made!r:.200}, which is no gymnasium.Env"
            )
        return made

    @staticmethod
    def reset(
        env: gymnasium.Env[Any, Any], seed: int | None, options: Any
    ) -> tuple[Any, dict[str, Any]]:
        """Reset an env; one that does not return a pair is an error that says so."""
        result: Any = env.reset(seed=seed, options=options)
        if not isinstance(result, tuple) or len(result) != 2:
            raise TypeError(f"reset() returned {result!r:.200}, which is no pair")
        return result

    def _look(self) -> None:
        """Make an env and reset it, so that what cannot be served is known now."""
        task = {"id": self.name, "split": "train", "seed": 0}
        with self._refusing("it cannot be made"):
            env = self.make(task)
            if not self._makes_another(env, task):
                self._shared = env
                env = self.make(task)
        try:
            self._describe(env)
            with self._refusing("its first observation cannot be had"):
                observation, info = self.reset(env, 0, None)
                _record(observation, info)
                _show(env, observation)
            if not env.observation_space.contains(observation):
                self._warn(
                    f"the first observation of {self.name} is not in its space "
                    f"{env.observation_space!r:.{_MOST_CHARACTERS}}; it is carried as "
                    "it is"
                )
        finally:
            try:
                env.close()
            except Exception as error:  # noqa: BLE001 - it has been looked at
                self._warn(f"close() of {self.name} raised {error!r}")

    def _makes_another(self, env: gymnasium.Env[Any, Any], task: Any) -> bool:
        """Say whether the function makes an env each time that it is called."""
        if self._make.__module__ == __name__:
            # The id or the class of an env makes one each time.
            return True
        other = self.make(task)
        if other is env:
            return False
        with contextlib.suppress(Exception):
            other.close()
        return True

    def _describe(self, env: gymnasium.Env[Any, Any]) -> None:
        if self.name == "<lambda>":
            spec = env.spec
            self.name = spec.id if spec is not None else type(env.unwrapped).__name__
        # An id may hold a namespace; a path of HTTP takes it apart.
        self.name = re.sub(r"[^\w.-]+", "-", self.name, flags=re.ASCII).strip("-")
        with self._refusing("its action space cannot be carried"):
            self.action_space = env.action_space
            self.schema = action_schema(env.action_space)
            self.spaces = {"action_space": describe_space(env.action_space)}
        with self._refusing("its observation space cannot be carried"):
            self.spaces["observation_space"] = describe_space(env.observation_space)
        self.meanings = ""
        with contextlib.suppress(Exception):
            named = enumerate(env.get_wrapper_attr("get_action_meanings")())
            self.meanings = ", ".join(f"{number}: {name}" for number, name in named)
        self.intro = "\n\n".join(_introduce(self.name, env))

    @contextlib.contextmanager
    def _refusing(self, what: str) -> Iterator[None]:
        try:
            yield
        except (UncarriedError, gymnasium.error.Error, ImportError) as error:
            raise InvalidRequestError(
                f"{self.name} cannot be served: {what}: {error}"
            ) from error
        except Exception as error:
            raise InvalidRequestError(
                f"{self.name} cannot be served: {what}: {type(error).__name__}: "
                f"{error}\n\n{traceback.format_exc()}"
            ) from error

    @staticmethod
    def _warn(text: str) -> None:
        sys.stderr.write(f"ors_gym server: {text}\n")


def _introduce(name: str, env: gymnasium.Env[Any, Any]) -> Iterator[str]:
    yield (
        f"{name}, an environment of Gymnasium. Call step with one action at a time, "
        "until the episode is over."
    )
    # The docstring of the class itself, not of a base.
    about = inspect.cleandoc(vars(type(env.unwrapped)).get("__doc__") or "")
    if about := _FOR_MAKERS.sub("", about).strip():
        yield about
    yield f"Actions: {env.action_space!r:.{_MOST_CHARACTERS}}"
    yield f"Observations: {env.observation_space!r:.{_MOST_CHARACTERS}}"


def _record(observation: Any, info: Any) -> dict[str, Any]:
    """Write an observation and an info for programs."""
    try:
        record = {"observation": write_value(observation)}
    except UncarriedError as error:
        raise UncarriedError(f"the observation cannot be carried: {error}") from None
    with contextlib.suppress(UncarriedError):
        return {**record, "info": write_value(dict(info))}
    # Entries that JSON can hold are kept; the others are named in ``left_out``.
    kept: dict[str, Any] = {}
    left_out = []
    for key, value in dict(info).items():
        try:
            write_value({key: value})
        except UncarriedError:
            left_out.append(str(key))
        else:
            kept[key] = value
    return {**record, "info": write_value(kept), "left_out": left_out}


def _show(env: gymnasium.Env[Any, Any], observation: Any) -> list[Block]:
    """Write an observation for readers: as text, and as pictures where it has any."""
    pictures = list(_find_pictures(observation))
    blocks: list[Block] = []
    if not isinstance(observation, np.ndarray) or not pictures:
        shown = show_value(observation)
        text = (
            shown if isinstance(shown, str) else json.dumps(shown, ensure_ascii=False)
        )
        blocks.append(TextBlock(text=text))
    frame: Any = None
    if not pictures and env.render_mode in ("rgb_array", "ansi"):
        try:
            frame = env.render()
        except Exception:  # noqa: BLE001 - a picture is not worth an episode
            traceback.print_exc()
    if isinstance(frame, str):
        blocks.append(TextBlock(text=frame))
    pictures += _find_pictures(frame)
    return [*blocks, *map(_picture_block, pictures)]


def _find_pictures(value: Any) -> Iterator[np.ndarray[Any, Any]]:
    if isinstance(value, dict):
        value = tuple(value.values())
    if isinstance(value, tuple | list):
        for one in value:
            yield from _find_pictures(one)
    elif isinstance(value, np.ndarray) and value.dtype == np.uint8:
        flat = value.ndim == 2 or (value.ndim == 3 and value.shape[2] in (1, 3, 4))
        if flat and min(value.shape[:2]) >= _SMALLEST_PICTURE:
            yield value


def _picture_block(picture: np.ndarray[Any, Any]) -> ImageBlock:
    if picture.shape[2:] == (1,):
        picture = picture[:, :, 0]
    buffer = io.BytesIO()
    # Level 1 takes a third of the time of the default, and little more room.
    image = Image.fromarray(np.ascontiguousarray(picture))
    image.save(buffer, "PNG", compress_level=1)
    data = base64.b64encode(buffer.getvalue()).decode("ascii")
    return ImageBlock(data=data, mimeType="image/png")
