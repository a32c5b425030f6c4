"""The OpenReward platform: an evaluation as rollouts, recorded by its own client.

    logger = OpenRewardLogger("my run", environment="Owner/Name")
    evaluate(None, "math", log_to=logger)

The key is that of ``OPENREWARD_API_KEY``. Tested with openreward 0.1.167 and a server
that takes what its client sends; the platform itself was not reached.
"""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Iterator
from typing import Any, Final

from ors_gym.errors import AuthenticationError, ORSError, needs_extra
from ors_gym.evaluation import Evaluation, EvaluationLogger, Record
from ors_gym.formats._blocks import render_text
from ors_gym.rollout import Episode, Step, Turn
from ors_gym.rollout._episode import (
    assistant_blocks,
    is_recorded_call,
    message_text,
    turns_with_steps,
)
from ors_gym.types import JSONObject

__all__ = ["OpenRewardLogger"]

with needs_extra("openreward", "ors_gym.integrations.openreward"):
    import openreward

_KEY: Final = "OPENREWARD_API_KEY"
_SAID: Final = {
    "system": openreward.SystemMessage,
    "user": openreward.UserMessage,
    "assistant": openreward.AssistantMessage,
}


class OpenRewardLogger(EvaluationLogger):
    """Records each episode that has an outcome as a rollout of the platform.

    Rewards stand at the tool results that they were given for. Episodes that an outage
    or an error of the policy ended are left out, since the platform takes averages.
    Task specs are not sent. The platform's client uploads messages in the background
    and reports a failure there in its own log only.

    Args:
        run_name: The name of the run on the platform; if None, environment, policy and
            time.
        environment: The environment's name there, ``Owner/Name``; if None, the name on
            the server that was played on.
        variant: The environment's variant.
        run_info: What the platform shows of the model; if None, the policy's name, as
            a run of type ``eval``.
        client: An ``openreward.OpenReward`` of yours, which is not closed; if None,
            one is made with ``api_key`` and ``base_url``.
        api_key: The key; if None, that of ``OPENREWARD_API_KEY``.
        base_url: The platform's address; if None, that of its client.

    Example:
        >>> logger = OpenRewardLogger("a run", environment="Owner/Math", api_key="key")
        >>> # evaluate(..., log_to=logger)
    """

    def __init__(
        self,
        run_name: str | None = None,
        *,
        environment: str | None = None,
        variant: str | None = None,
        run_info: Any = None,
        client: Any = None,
        api_key: str | None = None,
        base_url: str | None = None,
    ) -> None:
        self._given = run_name, environment, run_info
        self._variant = variant
        self._client = client
        self._own = client is None
        self._connection = {"api_key": api_key, "base_url": base_url}

    def begin(self, run: JSONObject) -> None:
        """Make the platform's client, unless there is one."""
        if self._own:
            if not (self._connection["api_key"] or os.environ.get(_KEY)):
                raise AuthenticationError(f"the platform wants a key; set {_KEY}")
            self._client = openreward.OpenReward(**self._connection)
        # What was not given is of this evaluation; the next one may be of another.
        run_name, environment, run_info = self._given
        policy = str(run.get("policy"))
        self._environment = environment or str(run.get("environment"))
        self._run_info = run_info or openreward.RunInfo(
            model_name=policy, run_type="eval", framework="ors_gym"
        )
        self._run_name = run_name or (
            f"{self._environment} {policy} {run.get('created', '')}"
        )

    def log_episode(self, record: Record) -> None:
        """Record the episode as a rollout."""
        if not record.has_outcome:
            return
        episode = record.episode
        rollout = self._client.rollout.create(
            run_name=self._run_name,
            rollout_name=f"{episode.split}/{record.key[1]}/{episode.number}",
            environment=self._environment,
            variant=self._variant,
            split=episode.split or None,
            metadata={
                "success": record.success,
                "total_reward": episode.total_reward,
                "stop_reason": episode.stop_reason,
                "episode": episode.number,
            },
            run_info=self._run_info,
        )
        # Its client only writes this to its log, and drops what follows.
        if getattr(rollout, "_rollouts_disabled", False):
            raise ORSError("the platform did not take the rollout; is the key right?")
        info = None
        if episode.task_index >= 0:
            info = openreward.RolloutInfo(
                task_index=episode.task_index,
                duration_ms=round(episode.seconds * 1000),
                harness="ors_gym",
            )
        for message, step in _messages(episode):
            rollout.log(
                message,
                reward=step.reward if step is not None and step.is_paid else None,
                is_finished=step is not None and step.finished,
                metadata={"error_kind": step.error_kind} if step else None,
                rollout_info=info,
            )
            info = None

    def end(self, evaluation: Evaluation) -> None:  # noqa: ARG002
        """Wait, at most ten seconds, until everything is sent."""
        if self._own and self._client is not None:
            self._client.rollout.close()


def _messages(episode: Episode) -> Iterator[tuple[Any, Step | None]]:
    """Yield the messages of an episode, each result with its step."""
    prompt = dataclasses.replace(episode, turns=[], steps=[]).messages()
    for message in prompt:
        yield from ((told, None) for told in _told(message))
    for turn, steps in turns_with_steps(episode):
        yield from ((said, None) for said in _said(turn))
        for step, action in zip(steps, turn.actions, strict=False):
            text = render_text(step.reply)
            if is_recorded_call(action):
                yield openreward.ToolResult(content=text, call_id=step.call_id), step
            else:
                yield openreward.UserMessage(content=text), step


def _told(message: JSONObject) -> Iterator[Any]:
    """Yield what one message of a prompt holds."""
    text = message_text(message)
    if message["role"] == "tool":
        yield openreward.ToolResult(content=text, call_id=message["tool_call_id"])
        return
    if thoughts := message.get("reasoning_content"):
        yield openreward.ReasoningItem(content=thoughts)
    calls = message.get("tool_calls") or ()
    if text or not calls:
        make = _SAID.get(message["role"], openreward.UserMessage)
        yield make(content=text)
    for call in calls:
        function = call["function"]
        yield openreward.ToolCall(
            name=function["name"], content=function["arguments"], call_id=call["id"]
        )


def _said(turn: Turn) -> Iterator[Any]:
    """Yield the policy's reasoning, words and calls."""
    message = turn.message if isinstance(turn.message, dict) else {}
    for name in ("reasoning_content", "reasoning"):
        if isinstance(message.get(name), str):
            yield openreward.ReasoningItem(content=message[name])
            break
    for block in assistant_blocks(turn):
        if block["type"] == "text":
            yield openreward.AssistantMessage(content=block["text"])
        else:
            yield openreward.ToolCall(
                name=block["name"],
                content=json.dumps(block["input"]),
                call_id=block["id"],
            )
