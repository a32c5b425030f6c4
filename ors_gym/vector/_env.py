"""Many sessions of one environment as a Gymnasium vector env."""

from __future__ import annotations

import asyncio
import contextlib
import copy
import dataclasses
import operator
import weakref
from collections.abc import Coroutine, Iterable, Iterator, Mapping, Sequence
from typing import Any, ClassVar, Final, TypeAlias

import gymnasium
import numpy as np
from gymnasium.envs.registration import EnvSpec
from gymnasium.error import AlreadyPendingCallError, NoAsyncCallError
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space, concatenate, create_empty_array
from numpy.typing import NDArray

from ors_gym._shown_text import even_half_made, warn
from ors_gym.client import AsyncORSClient
from ors_gym.env._settings import (
    EnvSettings,
    find_server,
    refuse_client_arguments,
    shows_settings,
    spec_arguments,
)
from ors_gym.errors import InvalidArgumentError, ORSError
from ors_gym.vector._loop import SlotLoop
from ors_gym.vector._slot import SlotResult, VectorSlot

_NUMBERS: Final = (bool, int, float)

Steps: TypeAlias = tuple[
    Any, NDArray[np.float64], NDArray[np.bool_], NDArray[np.bool_], dict[str, Any]
]


class ORSVectorEnv(VectorEnv[Any, Any, NDArray[Any]]):
    """Many sessions of one environment, in one process, as a Gymnasium vector env.

    It behaves as Gymnasium's ``SyncVectorEnv`` over as many `ORSEnv`, with three
    differences: calls run at the same time, the envs share connections and what is
    known of the server, and an outage of one env ends only that env's episode.

    For tools of uneven length there are `send` and `recv`: no env waits for another.

    Args:
        env_name: The environment's name on the server, in any case.
        base_url: The server's address, as for `ORSEnv`.
        num_envs: The number of envs.
        autoreset_mode: When the next episode of an env begins. ``NextStep``: with the
            next step, whose action is ignored. ``SameStep``: with the step that ended
            the last one; ``final_obs`` and ``final_info`` are in the infos.
            ``Disabled``: when ``reset`` is called with
            ``options={"reset_mask": ...}``.
        task_offset: The number, from 0, of this vector env among those that share the
            tasks.
        task_stride: How many vector envs share the tasks. Env i of this one plays every
            ``task_stride * num_envs``-th task, so that all envs play different tasks.
            If you seed them, reset the k-th vector env with ``seed=s + k * num_envs``.
        on_error: What an outage does: ``truncate`` ends its env's episode, ``raise``
            raises. With ``truncate`` a failed set-up also ends the episode. The first
            failed start gives a warning. If no env has ever started an episode and each
            has failed at least once, the error is raised.
        max_failed_starts: After so many failed starts of one env in a row the error is
            raised, also with ``truncate``; never if None.
            ``get_attr("failed_starts")`` counts those of each env.
        open_ahead: Whether, in ``NextStep`` mode, the next session of an env is opened
            as soon as its episode is over, while the other envs and the policy go on.
            Until its reset an env then holds two sessions. A session that is not
            played is deleted. Switch it off where a set-up is dear and each env plays
            one episode only, or where the server limits its sessions.
        render_mode: ``ansi``, ``rgb_array`` (extra ``images``) or None.
        client: An `AsyncORSClient` to use, which is not closed here, in place of an
            own one. It keeps its connections for one event loop at a time.
        **arguments: The other arguments of `ORSEnv`.

    Raises:
        UnknownEnvironmentError: If the server has no such environment.
        ConnectionFailedError: If the server cannot be reached.
        InvalidRequestError: If an argument cannot be right.

    Example:
        >>> import gymnasium as gym
        >>> import ors_gym
        >>> envs = gym.make_vec("ors/guess", num_envs=3)
        >>> observations, infos = envs.reset(seed=7)
        >>> infos["task_index"]
        array([7, 8, 9])
        >>> guess = {"tool": "guess", "input": {"number": 8}}
        >>> results = envs.step([guess, guess, "no call at all"])
        >>> observations, rewards, terminations, truncations, infos = results
        >>> infos["error_kind"]
        array(['', '', 'invalid_action'], dtype=object)
        >>> envs.close()
    """

    metadata: ClassVar[dict[str, Any]] = {  # type: ignore[misc]
        "render_modes": ["ansi", "rgb_array"],
        "render_fps": 1,
    }

    __repr__ = even_half_made(VectorEnv.__repr__)

    @shows_settings(EnvSettings, on_error="truncate")
    def __init__(
        self,
        env_name: str,
        base_url: str | None = None,
        num_envs: int = 1,
        *,
        autoreset_mode: AutoresetMode | str = AutoresetMode.NEXT_STEP,
        open_ahead: bool = True,
        max_failed_starts: int | None = 10,
        client: AsyncORSClient | None = None,
        **arguments: Any,
    ) -> None:
        if num_envs < 1:
            raise InvalidArgumentError(f"num_envs is {num_envs}; it must be at least 1")
        if max_failed_starts is not None and max_failed_starts < 1:
            raise InvalidArgumentError("max_failed_starts must be at least 1, or None")
        settings = EnvSettings.read(
            type(self).__name__,
            {
                "env_name": env_name,
                "base_url": base_url,
                "on_error": "truncate",
                **arguments,
            },
        )
        if settings.render_mode == "human":
            raise InvalidArgumentError(
                "render_mode is 'human'; a vector env takes 'ansi', 'rgb_array' or None"
            )
        self.num_envs = num_envs
        self.render_mode = settings.render_mode
        self._mode = AutoresetMode(autoreset_mode)
        self.metadata = {**self.metadata, "autoreset_mode": self._mode}  # type: ignore[misc]
        self._spec: EnvSpec | None = None
        self._owned: AsyncORSClient | None = None
        if client is None:
            client = AsyncORSClient(
                find_server(base_url), **settings.client_arguments()
            )
            self._owned = client
        else:
            refuse_client_arguments(arguments)
        self._loop = SlotLoop()
        # The loop and the client do not refer to this object, so it can be collected.
        self._finalizer = weakref.finalize(self, _let_go, self._loop, self._owned)
        self._is_discarded = False
        """Whether it was closed without driving the loop."""
        self._warned = False
        """Whether a session that failed to start was warned of."""
        try:
            self._slots = self._make_slots(
                settings,
                client,
                open_ahead=open_ahead,
                max_failed_starts=max_failed_starts,
            )
            self._make_spaces()
        except BaseException:
            # A timer on the loop may keep the traceback, and with it this object.
            self._finalizer()
            raise

    def _make_slots(
        self, settings: EnvSettings, client: AsyncORSClient, **options: Any
    ) -> list[VectorSlot]:
        count = self.num_envs
        slots: list[VectorSlot] = []
        start = int(np.random.default_rng().integers(2**31))
        for i in range(count):
            offset = settings.task_offset * count + i
            stride = settings.task_stride * count
            own = dataclasses.replace(settings, task_offset=offset, task_stride=stride)
            slot = VectorSlot(own, client, self._loop, self.metadata, **options)
            if settings.task_stride == 1:
                # Nobody else shares the set of tasks: its first start is drawn here.
                slot.env.seed_tasks(start + offset)
            self._loop.run(slot.env.fetch_tools())
            slots.append(slot)
        return slots

    def _make_spaces(self) -> None:
        first = self._slots[0].env
        self.single_observation_space = first.observation_space
        self.observation_space = batch_space(first.observation_space, self.num_envs)
        self.single_action_space = copy.deepcopy(first.action_space)
        # Each env's part of the batched space follows the tools of its sessions.
        self.action_space = gymnasium.spaces.Tuple(
            [slot.env.action_space for slot in self._slots]
        )
        nothing = first.empty_observation()
        # What each env showed last: a masked reset gives it again for the others.
        self._shown: list[Any] = [nothing] * self.num_envs
        self._nothing: Any = create_empty_array(first.observation_space, self.num_envs)

    def reset(
        self,
        *,
        seed: int | Sequence[int | None] | None = None,
        options: Mapping[str, Any] | None = None,
    ) -> tuple[Any, dict[str, Any]]:
        """Start an episode in each env, or in those of ``reset_mask``.

        The call of a busy env is given up.

        Args:
            seed: Env i gets ``seed + i``, or the i-th of a list. Without a seed each
                goes on in its order of tasks; before the first seed a start is drawn,
                one for all, so that they play different tasks.
            options: The options of `ORSEnv.reset`, for each env; and ``reset_mask``,
                an array of bools: which envs are reset.

        Returns:
            Observations and infos. With ``on_error="truncate"`` an env that could not
            be reset shows why; its next step ends the episode.

        Raises:
            SessionClosedError: If the vector env was closed.
            UnknownTaskError: If there is no such split or task.
            ORSError: If no env could start an episode, now or before; if one env failed
                to start ``max_failed_starts`` times in a row; with
                ``on_error="raise"``, for any outage or failed set-up.
        """
        chosen = self._begin(seed, options)
        with self._cancelled_on_error():
            self._loop.wait_for(chosen)
        infos = [result.info for result in self._collect(chosen)]
        observations = self._concatenate(self._shown)
        if len(chosen) < self.num_envs:
            # The caller holds the observations of the others already: share no arrays.
            observations = copy.deepcopy(observations)
        return observations, batch_infos(infos, chosen, self.num_envs)

    def async_reset(
        self,
        *,
        seed: int | Sequence[int | None] | None = None,
        options: Mapping[str, Any] | None = None,
    ) -> None:
        """Start an episode in each env, without waiting: `recv` gives the results.

        Args:
            seed: As for `reset`.
            options: As for `reset`.
        """
        self._begin(seed, options)
        with self._cancelled_on_error():
            self._loop.turn()

    def _begin(
        self, seed: int | Sequence[int | None] | None, options: Mapping[str, Any] | None
    ) -> list[int]:
        seeds = spread_seed(seed, self.num_envs)
        chosen, options = take_reset_mask(options, self.num_envs)
        for i in chosen:
            self._slots[i].env.check_usable()
        self._give_up(chosen)
        self._loop.run(self._slots[chosen[0]].prepare(options))
        self._start({i: self._slots[i].begin(seeds[i], options) for i in chosen})
        return chosen

    def step(self, actions: Any) -> Steps:
        """Call a tool in each env, and wait for all of them.

        Args:
            actions: One action for each env, each in any form that `ORSEnv.step`
                takes.

        Returns:
            Observations, rewards, terminations, truncations and infos.

        Raises:
            InvalidArgumentError: If there is not one action for each env, or one is
                no action at all; nothing was sent then.
            EpisodeOverError: If an env has no episode to step; nothing was sent then.
            AlreadyPendingCallError: If an env is busy with what `send` gave it.
            ORSError: For an outage with ``on_error="raise"``, a tool that raised with
                ``on_tool_error="raise"``, or if an env fails to start too often in a
                row; once all other calls are over. The results of the others are lost
                (`recv` keeps them).
        """
        if self._loop.busy:
            raise AlreadyPendingCallError(
                f"step() while {len(self._loop.busy)} envs are busy with what send() "
                "gave them; recv() their results first, or reset()",
                "step",
            )
        every = range(self.num_envs)
        self._advance(list_actions(actions, self.num_envs), every)
        with self._cancelled_on_error():
            self._loop.wait_for(every)
        return self._batch(self._collect(every))

    def send(self, actions: Any, env_ids: Any = None) -> None:
        """Have envs call a tool, without waiting: `recv` gives the results.

        An env whose last result was the end of an episode ignores the action and is
        reset (in ``NextStep`` mode, the default): its next result is the prompt, with
        reward 0. In ``SameStep`` mode the result that ends an episode holds the next
        prompt, and in ``Disabled`` mode such an env has to be `reset` with a mask.

        Args:
            actions: One action for each of these envs.
            env_ids: Their indexes; all if None.

        Raises:
            AlreadyPendingCallError: If one of them is busy; nothing was sent then.
            EpisodeOverError: If one has no episode to step; nothing was sent then.
            InvalidArgumentError: If an index is wrong or named twice, or there is not
                one action for each.
        """
        ids = list_env_ids(env_ids, self.num_envs)
        busy = sorted(set(ids) & set(self._loop.busy))
        if busy:
            raise AlreadyPendingCallError(
                f"send() to the busy envs {busy}; recv() their results first", "send"
            )
        self._advance(list_actions(actions, len(ids)), ids)
        with self._cancelled_on_error():
            self._loop.turn()

    def recv(self, min_envs: int = 1) -> Steps:
        """Wait until some of the busy envs are ready, and take all that are.

        Args:
            min_envs: How many, at least.

        Returns:
            Observations, rewards, terminations, truncations and infos of the envs in
            the order in which they became ready; ``infos["env_id"]`` says which.

        Raises:
            NoAsyncCallError: If fewer envs are busy, or ``min_envs`` is below 1.
            ORSError: What an env raised; the results of others are kept.
        """
        busy = len(self._loop.busy)
        if not 1 <= min_envs <= busy:
            raise NoAsyncCallError(
                f"recv() waits for {min_envs} envs, and {busy} are busy; send() "
                "actions first",
                "recv",
            )
        with self._cancelled_on_error():
            self._loop.wait_for_any(min_envs)
        ids = self._loop.finished
        failed = [i for i in ids if self._loop.failure(i) is not None]
        batch = self._batch(self._collect(failed[:1] or ids))
        infos = batch[4]
        infos["env_id"] = np.array(ids, dtype=np.int64)
        infos["_env_id"] = np.ones(len(ids), dtype=np.bool_)
        return batch

    def _advance(self, actions: Sequence[Any], ids: Sequence[int]) -> None:
        for i, action in zip(ids, actions, strict=True):
            self._slots[i].check_ready(action)
        works = zip(ids, actions, strict=True)
        self._start({i: self._slots[i].advance(action) for i, action in works})

    def _start(self, works: Mapping[int, Coroutine[Any, Any, SlotResult]]) -> None:
        with self._cancelled_on_error():
            for i, work in works.items():
                self._loop.start(i, work)

    @contextlib.contextmanager
    def _cancelled_on_error(self) -> Iterator[None]:
        """If the block raises, leave no env busy: nobody would take its result."""
        try:
            yield
        except BaseException:
            if not self._loop.ended:
                self._give_up(self._loop.busy)
            elif self._is_discarded:
                # Otherwise `close_extras`, which ended the loop, cleans up.
                self._finalizer()
            raise

    def _collect(self, ids: Sequence[int]) -> list[SlotResult]:
        """Take the results of envs, or raise the first error among them."""
        results: list[SlotResult] = []
        errors: list[BaseException] = []
        for i in ids:
            try:
                result = self._loop.take(i)
            except BaseException as error:  # noqa: BLE001  # raised below
                error.add_note(f"in env {i} of the vector env")
                errors.append(error)
            else:
                self._shown[i] = result.observation
                results.append(result)
        if errors:
            raise errors[0]
        for i, result in zip(ids, results, strict=True):
            if result.unopened is not None:
                self._judge_failed_start(i, result.unopened)
        return results

    def _judge_failed_start(self, i: int, error: ORSError) -> None:
        """Raise if every env failed and none ever started an episode; else warn."""
        if all(s.failed_starts and not s.has_started for s in self._slots):
            error.add_note(f"none of {self.num_envs} envs could start an episode")
            raise error
        if not self._warned:
            self._warned = True
            warn(
                f"env {i} of the vector env could not start an episode ({error}). Such "
                "an episode is truncated; get_attr('failed_starts') counts them"
            )

    def _batch(self, results: Sequence[SlotResult]) -> Steps:
        count = len(results)
        infos: dict[str, Any] = {}
        for place, result in enumerate(results):
            if result.final is not None:
                observation, info = result.final
                final = {"final_obs": observation, "final_info": info}
                merge_info(infos, final, place, count)
        infos |= batch_infos([o.info for o in results], range(count), count)
        return (
            self._concatenate([o.observation for o in results]),
            np.array([o.reward for o in results], dtype=np.float64),
            np.array([o.terminated for o in results], dtype=np.bool_),
            np.array([o.truncated for o in results], dtype=np.bool_),
            infos,
        )

    def _concatenate(self, observations: Sequence[Any]) -> Any:
        return concatenate(self.single_observation_space, observations, self._nothing)

    def _give_up(self, ids: Sequence[int], *, closing: bool = False) -> None:
        given_up = set(ids).intersection(self._loop.busy)
        self._loop.cancel(given_up, closing=closing)
        for i in given_up:
            self._slots[i].interrupt()

    def get_attr(self, name: str) -> tuple[Any, ...]:
        """Return an attribute of each env.

        Args:
            name: Its name: ``tools``, ``task``, ``session_id``, ``num_tasks``,
                ``splits``, ...

        Returns:
            One value for each env.
        """
        return self.call(name)

    def set_attr(self, name: str, values: Any) -> None:
        """Set an attribute beside each env, which `get_attr` returns from then on.

        The env itself is not changed.

        Args:
            name: Its name.
            values: A list or tuple with a value for each env, or one value for all.

        Raises:
            InvalidArgumentError: If their number is not that of the envs.
        """
        if not isinstance(values, list | tuple):
            values = [values] * self.num_envs
        if len(values) != self.num_envs:
            raise InvalidArgumentError(
                f"there are {len(values)} values of {name!r} for {self.num_envs} envs"
            )
        for slot, value in zip(self._slots, values, strict=True):
            setattr(slot, name, value)

    def call(self, name: str, *args: Any, **kwargs: Any) -> tuple[Any, ...]:
        """Call a method of each env, or return an attribute of each.

        Args:
            name: Its name: ``set_tasks``, ``render``, ...
            *args: What it is called with.
            **kwargs: What it is called with.

        Returns:
            One result for each env.
        """
        found = [slot.get(name) for slot in self._slots]
        return tuple(
            value(*args, **kwargs) if callable(value) else value for value in found
        )

    def render(self) -> tuple[Any, ...]:
        """Return each env's episode, as text or as a picture.

        Returns:
            One text or picture for each env; None for each without a render mode.
        """
        return self.call("render")

    def close_extras(self, **_: Any) -> None:
        """Delete all sessions, in bounded time; `close` calls it.

        A call that is waiting for an env raises SessionClosedError, whether another
        thread or a signal's handler closes the vector env.
        """
        if not self._loop.end():
            self._discard_all()
            return
        try:
            self._give_up(self._loop.busy, closing=True)
            self._loop.run(_close_all(self._slots, self._owned), closing=True)
        except BaseException:
            self._discard_all()
            raise
        finally:
            self._finalizer()

    def _discard_all(self) -> None:
        self._is_discarded = True
        for slot in self._slots:
            slot.env.discard()

    def __del__(self) -> None:
        """Unlike older versions of Gymnasium, do not `close`: no I/O in a finaliser.

        The background deletes the sessions (docs/wire.md, point 14).
        """

    @property  # type: ignore[misc]
    def np_random(self) -> tuple[np.random.Generator, ...]:  # type: ignore[override]
        """The generators of the envs."""
        return self.get_attr("np_random")

    @property
    def np_random_seed(self) -> tuple[int, ...]:  # type: ignore[override]
        """The seeds of the generators in ``np_random``."""
        return self.get_attr("np_random_seed")

    @property
    def spec(self) -> EnvSpec | None:
        """How Gymnasium made the envs, without the secrets among the arguments."""
        return self._spec

    @spec.setter
    def spec(self, spec: EnvSpec | None) -> None:
        if spec is not None:
            spec = copy.copy(spec)
            spec.kwargs = spec_arguments(spec.kwargs, self._slots[0].env.base_url)
            if "autoreset_mode" in spec.kwargs:
                # The enum is no JSON, which a spec has to be.
                spec.kwargs["autoreset_mode"] = self._mode.value
        self._spec = spec


def list_actions(actions: object, count: int) -> list[Any]:
    """Return one action for each env, of a sequence or an array of actions."""
    scalar = isinstance(actions, np.ndarray) and actions.ndim == 0
    wrong = scalar or isinstance(actions, str | bytes | Mapping)
    if wrong or not isinstance(actions, Iterable):
        raise InvalidArgumentError(
            f"actions hold one action for each of {count} envs, in a list, a tuple or "
            f"an array; not {type(actions).__name__}"
        )
    listed = list(actions)
    if len(listed) != count:
        raise InvalidArgumentError(f"there are {len(listed)} actions for {count} envs")
    return listed


def list_env_ids(env_ids: Iterable[int] | None, count: int) -> list[int]:
    """Return the indexes of the envs that are meant, each once; None means all."""
    if env_ids is None:
        return list(range(count))
    given = np.asarray(env_ids).reshape(-1)
    if given.size and given.dtype.kind not in "iu":
        # A mask of bools would name the envs 0 and 1.
        raise InvalidArgumentError(
            f"env_ids are indexes, 0 to {count - 1}; not {env_ids!r:.100}"
        )
    listed: list[int] = given.astype(np.int64).tolist()
    for i in listed:
        if not 0 <= i < count:
            raise InvalidArgumentError(
                f"there is no env {i}; they are 0 to {count - 1}"
            )
    if len(set(listed)) != len(listed):
        raise InvalidArgumentError(f"env_ids name an env twice: {listed}")
    return listed


def spread_seed(
    seed: int | Sequence[int | None] | None, count: int
) -> list[int | None]:
    """Return a seed for each env: ``seed``, ``seed + 1``, ..., or those of a list."""
    if seed is None:
        return [None] * count
    if not isinstance(seed, Iterable) or np.ndim(seed) == 0:  # type: ignore[arg-type]
        first = _read_seed(seed)
        return [first + i for i in range(count)]
    seeds = [None if one is None else _read_seed(one) for one in seed]
    if len(seeds) != count:
        raise InvalidArgumentError(f"there are {len(seeds)} seeds for {count} envs")
    return seeds


def _read_seed(seed: object) -> int:
    try:
        number = operator.index(seed)  # type: ignore[arg-type]  # raises TypeError
    except TypeError:
        number = -1
    if number < 0:
        raise InvalidArgumentError(
            f"a seed is a whole number that is not negative, or None; not {seed!r:.100}"
        )
    return number


def take_reset_mask(
    options: Mapping[str, Any] | None, count: int
) -> tuple[list[int], dict[str, Any] | None]:
    """Return which envs the options of a reset mean, and the other options."""
    if options is None or "reset_mask" not in options:
        return list(range(count)), None if options is None else dict(options)
    others = {name: value for name, value in options.items() if name != "reset_mask"}
    mask = options["reset_mask"]
    wanted = f"options['reset_mask'] is an array of {count} bools"
    if not isinstance(mask, np.ndarray):
        raise InvalidArgumentError(f"{wanted}, not {type(mask).__name__}")
    if mask.shape != (count,) or mask.dtype != np.bool_:
        raise InvalidArgumentError(
            f"{wanted}, not of shape {mask.shape} and type {mask.dtype}"
        )
    chosen = np.flatnonzero(mask).tolist()
    if not chosen:
        raise InvalidArgumentError(f"{wanted}, at least one of them True")
    return chosen, others


async def _close_all(
    slots: Sequence[VectorSlot], client: AsyncORSClient | None
) -> None:
    await asyncio.gather(*(slot.env.close() for slot in slots))
    if client is not None:
        await client.aclose()


def _let_go(loop: SlotLoop, client: AsyncORSClient | None) -> None:
    """Close a vector env's loop and its own client, without sending anything.

    The background deletes the sessions once they are garbage-collected.
    """
    loop.close()
    if client is not None:
        closing = client.aclose()
        # With its loop closed there is nothing it could wait for.
        with contextlib.suppress(StopIteration, RuntimeError):
            closing.send(None)
        closing.close()


def batch_infos(
    infos: Sequence[Mapping[str, Any]], places: Sequence[int], count: int
) -> dict[str, Any]:
    """Batch infos that have the same keys, for the envs at these places.

    The result is that of ``VectorEnv._add_info`` called for each info in turn, which
    makes more arrays. ``_key`` tells for which envs the array of a key is filled.
    """
    batch: dict[str, Any] = {}
    filled = np.zeros(count, dtype=np.bool_)
    filled[places] = True
    for key, first in infos[0].items():
        if isinstance(first, dict | np.ndarray | np.number):
            for place, info in zip(places, infos, strict=True):
                merge_info(batch, {key: info[key]}, place, count)
            continue
        array: NDArray[Any]
        if type(first) in _NUMBERS:
            array = np.zeros(count, dtype=type(first))
            array[places] = [info[key] for info in infos]
        else:
            array = np.full(count, None, dtype=object)
            for place, info in zip(places, infos, strict=True):
                array[place] = info[key]
        batch[key] = array
        batch[f"_{key}"] = filled.copy()
    return batch


def merge_info(
    batch: dict[str, Any], info: Mapping[str, Any], place: int, count: int
) -> None:
    """Add the info of the env at a place to a batch, as Gymnasium does."""
    merger: VectorEnv[Any, Any, Any] = VectorEnv()
    merger.num_envs = count
    merger._add_info(batch, dict(info), place)  # noqa: SLF001
