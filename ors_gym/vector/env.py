"""The vector environment: many sessions in one process, on one event loop."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Coroutine, Iterator, Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
from gymnasium.error import AlreadyPendingCallError, NoAsyncCallError
from gymnasium.vector.utils import concatenate
from numpy.typing import NDArray

from ors_gym.vector.arguments import (
    list_actions,
    list_env_ids,
    spread_seed,
    take_reset_mask,
)
from ors_gym.vector.base import SlottedVectorEnv
from ors_gym.vector.infos import batch_infos, merge_info
from ors_gym.vector.slot import Outcome

__all__ = ["ORSVectorEnv"]

Steps: TypeAlias = tuple[
    Any, NDArray[np.float64], NDArray[np.bool_], NDArray[np.bool_], dict[str, Any]
]


class ORSVectorEnv(SlottedVectorEnv):
    """Many sessions of one environment, in one process, as a Gymnasium vector env.

    It behaves as Gymnasium's ``SyncVectorEnv`` does over as many `ORSEnv`, except that
    their calls run at the same time, that they share connections and what is known of
    the server, and that an outage of one env ends only that env's episode.

    For tools of uneven length there are `send` and `recv`: no env waits for another.

    Args:
        env_name: The environment's name on the server, in any case.
        base_url: The server's address, as for `ORSEnv`.
        num_envs: The number of envs.
        autoreset_mode: When an episode follows one that ended: ``NextStep`` with the
            next step, whose action is ignored; ``SameStep`` with the same one
            (``final_obs`` and ``final_info`` are in the infos); ``Disabled``: when
            ``reset`` is called with ``options={"reset_mask": ...}``.
        task_offset: Which of the vector envs that share a set of tasks this one is.
        task_stride: How many of them share it. Env i of this one plays every
            ``task_stride * num_envs``-th task, so that all envs play different tasks;
            with seeds, give the k-th the seed ``s + k * num_envs``.
        on_error: Whether an outage truncates its env's episode, or raises.
        open_ahead: Whether, in ``NextStep`` mode, the next session of an env is opened
            as soon as its episode is over, while the other envs and the policy go on.
            Until its reset an env then holds two. What is not played is deleted:
            switch it off where a set-up is dear and each env plays one episode only,
            or where the server limits its sessions.
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

    def reset(
        self,
        *,
        seed: int | Sequence[int | None] | None = None,
        options: Mapping[str, Any] | None = None,
    ) -> tuple[Any, dict[str, Any]]:
        """Start an episode in each env. An env that is busy gives up what it does.

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
        """
        chosen = self._begin(seed, options)
        with self._given_up_on_interrupt():
            self._loop.wait_for(chosen)
        infos = [outcome.info for outcome in self._collect(chosen)]
        observations = self._concatenate(self._shown)
        if len(chosen) < self.num_envs:
            # The arrays of the others were given to the caller once already.
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
        with self._given_up_on_interrupt():
            self._loop.turn()

    def _begin(
        self,
        seed: int | Sequence[int | None] | None,
        options: Mapping[str, Any] | None,
    ) -> list[int]:
        seeds = spread_seed(seed, self.num_envs)
        chosen, options = take_reset_mask(options, self.num_envs)
        for i in chosen:
            self._slots[i].check_usable()
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
            EpisodeOverError: If an env has no episode to step; nothing was sent then.
            AlreadyPendingCallError: If an env is busy with what `send` gave it.
            ORSError: For an outage with ``on_error="raise"``, once all other calls are
                over.
        """
        if self._loop.busy:
            raise AlreadyPendingCallError(
                f"step() while {len(self._loop.busy)} envs are busy with what send() "
                "gave them; recv() their results first, or reset()",
                "step",
            )
        every = range(self.num_envs)
        self._advance(list_actions(actions, self.num_envs), every)
        with self._given_up_on_interrupt():
            self._loop.wait_for(every)
        return self._batch(self._collect(every))

    def send(self, actions: Any, env_ids: Any = None) -> None:
        """Have envs call a tool, without waiting: `recv` gives the results.

        An env whose last result was the end of an episode ignores the action and is
        reset (in ``NextStep`` mode, the default): its next result is the prompt, with
        reward 0. In ``SameStep`` mode the result of the end holds the new prompt, and
        in ``Disabled`` mode such an env has to be `reset` with a mask.

        Args:
            actions: One action for each of these envs.
            env_ids: Their indexes; all if None.

        Raises:
            AlreadyPendingCallError: If one of them is busy; nothing was sent then.
            EpisodeOverError: If one has no episode to step; nothing was sent then.
        """
        ids = list_env_ids(env_ids, self.num_envs)
        busy = sorted(set(ids) & set(self._loop.busy))
        if busy:
            raise AlreadyPendingCallError(
                f"send() to the busy envs {busy}; recv() their results first",
                "send",
            )
        self._advance(list_actions(actions, len(ids)), ids)
        with self._given_up_on_interrupt():
            self._loop.turn()

    def recv(self, min_envs: int = 1) -> Steps:
        """Wait until some of the busy envs are ready, and take all that are.

        Args:
            min_envs: How many, at least.

        Returns:
            Observations, rewards, terminations, truncations and infos of the envs in
            the order in which they became ready; ``infos["env_id"]`` says which.

        Raises:
            NoAsyncCallError: If fewer envs are busy.
            ORSError: What an env raised; the results of others are kept.
        """
        busy = len(self._loop.busy)
        if not 1 <= min_envs <= busy:
            raise NoAsyncCallError(
                f"recv() waits for {min_envs} envs, and {busy} are busy; send() "
                "actions first",
                "recv",
            )
        with self._given_up_on_interrupt():
            self._loop.wait_for_any(min_envs)
        ids = self._loop.finished
        failed = [i for i in ids if self._loop.failure(i) is not None]
        outcomes = self._collect(failed[:1] or ids)
        results = self._batch(outcomes)
        results[4]["env_id"] = np.array(ids, dtype=np.int64)
        results[4]["_env_id"] = np.ones(len(ids), dtype=np.bool_)
        return results

    def _advance(self, actions: Sequence[Any], ids: Sequence[int]) -> None:
        for i in ids:
            self._slots[i].check_ready()
        works = zip(ids, actions, strict=True)
        self._start({i: self._slots[i].advance(action) for i, action in works})

    def _start(self, works: Mapping[int, Coroutine[Any, Any, Outcome]]) -> None:
        with self._given_up_on_interrupt():
            for i, work in works.items():
                self._loop.start(i, work)

    @contextlib.contextmanager
    def _given_up_on_interrupt(self) -> Iterator[None]:
        """Leave no env busy with something whose result nobody will take."""
        try:
            yield
        except BaseException:
            self._give_up(self._loop.busy)
            raise

    def _collect(self, ids: Sequence[int]) -> list[Outcome]:
        """Take the results of envs, or raise the first error among them."""
        outcomes: list[Outcome] = []
        errors: list[BaseException] = []
        for i in ids:
            try:
                outcome = self._loop.take(i)
            except BaseException as error:  # noqa: BLE001  # raised below
                error.add_note(f"in env {i} of the vector env")
                errors.append(error)
            else:
                self._shown[i] = outcome.observation
                outcomes.append(outcome)
        if errors:
            raise errors[0]
        return outcomes

    def _batch(self, outcomes: Sequence[Outcome]) -> Steps:
        count = len(outcomes)
        infos: dict[str, Any] = {}
        for place, outcome in enumerate(outcomes):
            if outcome.final is not None:
                observation, info = outcome.final
                final = {"final_obs": observation, "final_info": info}
                merge_info(infos, final, place, count)
        infos |= batch_infos([o.info for o in outcomes], range(count), count)
        return (
            self._concatenate([o.observation for o in outcomes]),
            np.array([o.reward for o in outcomes], dtype=np.float64),
            np.array([o.terminated for o in outcomes], dtype=np.bool_),
            np.array([o.truncated for o in outcomes], dtype=np.bool_),
            infos,
        )

    def _concatenate(self, observations: Sequence[Any]) -> Any:
        return concatenate(self.single_observation_space, observations, self._nothing)
