"""The envs, as columns."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar, Final, Literal

import ors_gym
from ors_gym.vector import ORSVectorEnv
from tests.support.proxy.proxy import FaultProxy
from tests.system.faults.columns import RESULT, Column, Options, Shown, failed

__all__ = ["RaisingEnv", "TruncatingEnv", "VectorEnv"]

_COUNT: Final = "count"


class _Env(Column):
    """`ORSEnv`, in one of its ways to treat an outage."""

    on_error: ClassVar[Literal["raise", "truncate"]]

    def __init__(self, url: str, options: Options) -> None:
        super().__init__(url, options)
        self._env: ors_gym.ORSEnv | None = None

    @property
    def victim(self) -> str | None:
        return self._env.session_id if self._env is not None else None

    def open(self) -> Shown | None:
        try:
            self._env = ors_gym.ORSEnv(
                "contract",
                self.url,
                on_error=self.on_error,
                **self.options.for_env(),
            )
            self._env.reset(seed=0)
        except ors_gym.ORSError as error:
            return failed(error)
        return None

    def call(self, tool: str, arguments: Mapping[str, Any]) -> Shown:
        assert self._env is not None
        action = {"tool": tool, "input": dict(arguments)}
        try:
            observation, reward, _, truncated, info = self._env.step(action)
        except ors_gym.ORSError as error:
            quiet = error.outage and self.on_error == "truncate"
            return dataclasses.replace(
                failed(error), wrong="an outage was raised" if quiet else ""
            )
        kind = info["error_kind"] or RESULT
        wrong = ""
        if truncated is not (kind != RESULT) or (kind != RESULT and reward != 0.0):
            wrong = f"truncated is {truncated}, the reward {reward}"
        return Shown(kind, observation, float(reward), wrong=wrong)

    def after(self, shown: Shown, proxy: FaultProxy) -> str:
        if self._env is None:
            return ""
        if shown.outcome != RESULT:
            try:
                self._env.step({"tool": _COUNT, "input": {}})
            except (ors_gym.EpisodeOverError, ors_gym.SessionClosedError):
                self._env.reset()
            else:
                return "an episode went on after its end"
        again = self.call(_COUNT, {})
        return "" if again.outcome == RESULT else f"no episode follows: {again}"

    def close(self) -> None:
        if self._env is not None:
            self._env.close()


class RaisingEnv(_Env):
    """`ORSEnv` that raises an outage."""

    name = "ORSEnv, raise"
    on_error = "raise"


class TruncatingEnv(_Env):
    """`ORSEnv` that ends the episode at an outage."""

    name = "ORSEnv, truncate"
    on_error = "truncate"


class VectorEnv(Column):
    """`ORSVectorEnv` of two, of which the first is harmed."""

    name = "ORSVectorEnv"

    def __init__(self, url: str, options: Options) -> None:
        super().__init__(url, options)
        self._envs: ORSVectorEnv | None = None

    @property
    def victim(self) -> str | None:
        if self._envs is None:
            return None
        victim: str | None = self._envs.get_attr("session_id")[0]
        return victim

    @property
    def bystander(self) -> str | None:
        if self._envs is None:
            return None
        bystander: str | None = self._envs.get_attr("session_id")[1]
        return bystander

    def open(self) -> Shown | None:
        try:
            self._envs = ORSVectorEnv(
                "contract", self.url, num_envs=2, **self.options.for_env()
            )
            texts, infos = self._envs.reset(seed=0)
        except ors_gym.ORSError as error:
            return failed(error)
        kinds = [str(kind) for kind in infos["error_kind"] if kind]
        return Shown(kinds[0], texts[0]) if kinds else None

    def call(self, tool: str, arguments: Mapping[str, Any]) -> Shown:
        assert self._envs is not None
        action = {"tool": tool, "input": dict(arguments)}
        try:
            steps = self._envs.step([action, {"tool": _COUNT, "input": {}}])
        except ors_gym.ORSError as error:
            quiet = "an outage was raised" if error.outage else ""
            return dataclasses.replace(failed(error), wrong=quiet)
        texts, rewards, _, truncations, infos = steps
        kind = str(infos["error_kind"][0] or RESULT)
        wrong = ""
        if bool(truncations[0]) is not (kind != RESULT):
            wrong = f"truncated is {truncations[0]}"
        neighbour = (texts[1], float(rewards[1]), str(infos["error_kind"][1]))
        if self.bystander_is_safe and (neighbour != ("1", 1.0, "") or truncations[1]):
            wrong = f"the neighbour saw {neighbour}"
        return Shown(kind, texts[0], float(rewards[0]), wrong=wrong)

    def after(self, shown: Shown, proxy: FaultProxy) -> str:
        if self._envs is None:
            return ""
        action = {"tool": _COUNT, "input": {}}
        if not (self.opened and self.bystander_is_safe):
            self._envs.reset()
        try:
            # One that ended is reset by the first of these steps.
            first = self._envs.step([action, action])
        except ors_gym.EpisodeOverError:
            # It raised what is no outage: all are reset.
            self._envs.reset()
            first = self._envs.step([action, action])
        second = self._envs.step([action, action])
        kinds = [*first[4]["error_kind"], *second[4]["error_kind"]]
        if any(kinds) or list(second[1]) != [1.0, 1.0]:
            return f"the envs do not go on: {kinds} {second}"
        return ""

    def close(self) -> None:
        if self._envs is not None:
            self._envs.close()
