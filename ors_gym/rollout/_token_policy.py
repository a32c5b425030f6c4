"""A policy of tokens: an engine samples ids, and the ids of an episode only grow."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final, Literal, TypeAlias, get_args

from ors_gym.env._task_order import TaskChoice
from ors_gym.errors import InvalidRequestError
from ors_gym.formats import to_openai_tools, to_template_messages
from ors_gym.formats._messages import join_system_messages
from ors_gym.rollout._clients import AnyClient
from ors_gym.rollout._episode import Episode, Stop, Turn, messages_of_last_turn
from ors_gym.rollout._policies import is_async, name_policy
from ors_gym.rollout._renderers import (
    Rendered,
    Renderer,
    as_renderer,
    check_prefix_preserving,
)
from ors_gym.rollout._run_episode import run_episode_async
from ors_gym.rollout._tokens import Generated, TurnTokens
from ors_gym.types import JSONObject

OnRewrite: TypeAlias = Literal["refuse", "split", "append"]
Generate: TypeAlias = Callable[..., Generated | Awaitable[Generated]]
"""Samples one turn: ``generate(ids, *, max_new_tokens, stop) -> Generated``."""

_STATE: Final = "ors_gym.TokenPolicy"


class TokenPolicy:
    """An engine that samples token ids, as the policy.

    The prompt of a turn is the last prompt, the ids that were sampled, and the rendered
    reply, appended. Sampled ids are kept verbatim: nothing is tokenised again. Each
    `Turn` has them as ``tokens``, and `Episode.sequences` gives what a loss takes.

    One policy plays any number of episodes at once, wherever a policy is taken.

    Args:
        generate: Samples one turn: ``generate(ids, *, max_new_tokens, stop)`` returns a
            `Generated`. Given are the whole prompt, the most ids that it may sample,
            and the ids that end a turn. A plain function runs in a thread, an async one
            on the event loop. Where a renderer makes multimodal inputs it is also given
            ``mm``, a list of pairs: the place in ``ids`` where a rendered part begins,
            and the inputs of that part.
        renderer: A tokenizer with a chat template, a `Renderer`, or a renderer of the
            ``renderers`` package or of tinker-cookbook.
        max_tokens: The model's context: ids that prompt and turn may have together. A
            turn for which there is no room ends the episode as ``max_tokens``, with
            what it had earned. None if there is no such limit.
        max_new_tokens: Ids that a turn may have.
        min_new_tokens: Room below which a turn does not fit.
        system_prompt: A message before the environment's prompt. The environment's own
            system message is joined to it.
        on_rewrite: What happens where the renderer would write earlier turns otherwise
            once the conversation goes on. ``refuse``: the policy is not made.
            ``split``: the model reads the rewritten prompt, and the episode becomes
            several sequences; each turn then renders the whole conversation.
            ``append``: it goes on from what the model saw.
        policy_name: The name for records; made of the function's name if None.

    Raises:
        InvalidRequestError: If an argument cannot be right, or the renderer rewrites.

    Example:
        >>> def generate(ids, *, max_new_tokens, stop):
        ...     output = engine.sample(ids, max_new_tokens, stop_token_ids=stop)
        ...     return Generated(output.ids, output.logprobs, version=engine.version)
        >>> def make(tokenizer):
        ...     return TokenPolicy(generate, tokenizer, max_tokens=8192)
    """

    def __init__(
        self,
        generate: Generate,
        renderer: Any,
        *,
        max_tokens: int | None = None,
        max_new_tokens: int = 4096,
        min_new_tokens: int = 1,
        system_prompt: str | None = None,
        on_rewrite: OnRewrite = "refuse",
        policy_name: str | None = None,
    ) -> None:
        if not callable(generate):
            raise InvalidRequestError("generate is a function that samples ids")
        if on_rewrite not in get_args(OnRewrite):
            raise InvalidRequestError(
                f"on_rewrite is {on_rewrite!r}; it must be 'refuse', 'split' or "
                "'append'"
            )
        limits = (
            max_new_tokens,
            min_new_tokens,
            1 if max_tokens is None else max_tokens,
        )
        if min(limits) < 1 or min_new_tokens > max_new_tokens:
            raise InvalidRequestError(
                "max_tokens, max_new_tokens and min_new_tokens must be at least 1, and "
                "min_new_tokens at most max_new_tokens"
            )
        self.renderer: Renderer = as_renderer(renderer)
        if on_rewrite == "refuse":
            check_prefix_preserving(self.renderer)
        self.max_tokens = max_tokens
        self.max_new_tokens = max_new_tokens
        self.min_new_tokens = min_new_tokens
        self.system_prompt = system_prompt
        self._splits = on_rewrite == "split"
        self._generate = generate
        self._stop_ids = list(self.renderer.stop_ids)
        self._name = policy_name

    @property
    def is_async(self) -> bool:
        """Whether ``generate`` is, so that the policy runs on the event loop."""
        return is_async(self._generate)

    @property
    def policy_name(self) -> str:
        """Its name in records: that of the engine's function, with the limits."""
        if self._name is not None:
            return self._name
        limits = f"max_tokens={self.max_tokens}, max_new_tokens={self.max_new_tokens}"
        return f"{name_policy(self._generate)}({limits})"

    def __repr__(self) -> str:
        return f"TokenPolicy({self.policy_name})"

    def __call__(self, episode: Episode) -> Turn | Stop | Awaitable[Turn | Stop]:
        """Return the next turn, `Stop` where it has no room, or an awaitable of one."""
        return self._ask_on_loop(episode) if self.is_async else self._ask(episode)

    async def _ask_on_loop(self, episode: Episode) -> Turn | Stop:
        answer = self._ask(episode)
        return await answer if inspect.isawaitable(answer) else answer

    def _ask(self, episode: Episode) -> Turn | Stop | Awaitable[Turn]:
        context = self._context(episode)
        prompt = self._next_prompt(context, episode)
        # A new list, since the engine may keep it.
        ids = [*(() if prompt.starts_sequence else context.ids), *prompt.added]
        room = self.max_new_tokens
        if self.max_tokens is not None:
            room = min(room, self.max_tokens - len(ids))
        if room < self.min_new_tokens:
            return Stop("max_tokens")
        inputs = {} if not prompt.mm else {"mm": prompt.mm}
        stop = list(self._stop_ids)
        answer = self._generate(ids, max_new_tokens=room, stop=stop, **inputs)
        if inspect.isawaitable(answer):
            return self._await(answer, context, prompt, room)
        return self._take(answer, context, prompt, room)

    async def _await(
        self,
        answer: Awaitable[Generated],
        context: _Context,
        prompt: _Prompt,
        room: int,
    ) -> Turn:
        return self._take(await answer, context, prompt, room)

    def _take(self, answer: Any, context: _Context, prompt: _Prompt, room: int) -> Turn:
        """Add what was sampled to what the model has seen, and return the turn."""
        if not isinstance(answer, Generated):
            raise InvalidRequestError(
                f"generate returned {type(answer).__name__}; it returns a Generated"
            )
        sampled = list(answer.ids)
        if len(sampled) > room:
            raise InvalidRequestError(
                f"generate returned {len(sampled)} ids; it was asked for {room} at most"
            )
        said = self.renderer.parse(sampled)
        if prompt.starts_sequence:
            context.ids = []
        context.ids += prompt.added
        context.ids += sampled
        context.ended = bool(sampled) and sampled[-1] in self._stop_ids
        context.mm = prompt.mm
        context.turns += 1
        if self._splits:
            message = said.message or {"role": "assistant", "content": said.text}
            context.messages = [*prompt.messages, message]
        version = answer.version
        tokens = TurnTokens(
            prompt.added,
            sampled,
            None if answer.logprobs is None else list(answer.logprobs),
            answer.finish_reason,
            list(version) if isinstance(version, Sequence) else version,
            starts_sequence=prompt.starts_sequence,
            mm=prompt.new_mm,
        )
        latest = version[-1] if isinstance(version, list) and version else version
        return Turn(said.calls, message=said.text, version=latest, tokens=tokens)

    def _context(self, episode: Episode) -> _Context:
        context: _Context | None = episode.state.get(_STATE)
        if context is None:
            context = episode.state[_STATE] = _Context()
        if context.turns != len(episode.turns):
            raise InvalidRequestError(
                "TokenPolicy goes on only from turns of its own: the episode has "
                f"{len(episode.turns)}, of which it played {context.turns}"
            )
        return context

    def _next_prompt(self, context: _Context, episode: Episode) -> _Prompt:
        if not episode.turns:
            return self._whole_prompt(self._opening(episode), episode)
        said, answers = messages_of_last_turn(episode)
        # The names of tools are in the calls.
        replies = to_template_messages([*said, *answers])[len(said) :]
        messages = [*context.messages, *replies] if self._splits else []
        reply = self.renderer.render_reply(replies)
        if reply is None or (self._splits and self._is_rewritten(messages, episode)):
            if not self._splits:
                raise InvalidRequestError(
                    "the renderer cannot append this reply to what the model saw; pass "
                    'on_rewrite="split" for several sequences'
                )
            return self._whole_prompt(messages, episode)
        rendered = _as_rendered(reply)
        ending = [] if context.ended else self._stop_ids[:1]
        # What begins the reply may have ended the turn: GLM samples the next role.
        has_begun = context.ended and rendered.ids[:1] == context.ids[-1:]
        prompt = _Prompt(ending + rendered.ids[has_begun:], messages, context.mm)
        if rendered.mm is not None:
            place = len(ending) - has_begun
            prompt.new_mm = (place, rendered.mm)
            prompt.mm = [*context.mm, (len(context.ids) + place, rendered.mm)]
        return prompt

    def _opening(self, episode: Episode) -> list[JSONObject]:
        messages = episode.messages()
        if self.system_prompt is not None:
            own = {"role": "system", "content": self.system_prompt}
            messages = join_system_messages([own], messages)
        return to_template_messages(messages)

    def _whole_prompt(self, messages: list[JSONObject], episode: Episode) -> _Prompt:
        tools = to_openai_tools(episode.tools)
        rendered = _as_rendered(self.renderer.render(messages, tools))
        prompt = _Prompt(rendered.ids, messages, starts_sequence=True)
        if rendered.mm is not None:
            prompt.new_mm = (0, rendered.mm)
            prompt.mm = [prompt.new_mm]
        return prompt

    def _is_rewritten(self, messages: list[JSONObject], episode: Episode) -> bool:
        find = getattr(self.renderer, "find_rewrite", None)
        tools = to_openai_tools(episode.tools)
        return find is not None and find(messages, tools) is not None


@dataclasses.dataclass(slots=True)
class _Context:
    """What the model has seen of an episode, up to the end of its last turn."""

    ids: list[int] = dataclasses.field(default_factory=list)
    ended: bool = True  # whether the last turn ended with a stop id
    turns: int = 0
    messages: list[JSONObject] = dataclasses.field(default_factory=list)
    mm: list[tuple[int, Any]] = dataclasses.field(default_factory=list)


@dataclasses.dataclass(slots=True)
class _Prompt:
    """What the model reads in its next turn."""

    added: list[int]
    messages: list[JSONObject]
    mm: list[tuple[int, Any]] = dataclasses.field(default_factory=list)
    new_mm: tuple[int, Any] | None = None
    starts_sequence: bool = False


def _as_rendered(value: list[int] | Rendered) -> Rendered:
    return value if isinstance(value, Rendered) else Rendered(list(value))


async def run_token_episode(
    client: AnyClient,
    env_name: str,
    task: TaskChoice,
    generate: Generate,
    renderer: Any,
    *,
    max_tokens: int | None = None,
    max_new_tokens: int = 4096,
    system_prompt: str | None = None,
    on_rewrite: OnRewrite = "refuse",
    **arguments: Any,
) -> Episode:
    """Play one episode with an engine that samples token ids.

    Args:
        client: As for `run_episode_async`.
        env_name: The environment's name on the server.
        task: Its index in the split, a pair of split and index, or the task itself.
        generate: The engine; see `TokenPolicy`.
        renderer: The renderer; see `TokenPolicy`.
        max_tokens: The model's context; see `TokenPolicy`.
        max_new_tokens: Ids that a turn may have.
        system_prompt: A message before the environment's prompt.
        on_rewrite: See `TokenPolicy`.
        **arguments: More arguments of `run_episode_async`.

    Returns:
        The episode, whose turns have ``tokens``.

    Raises:
        InvalidRequestError: If an argument cannot be right.
        ORSError: As for `run_episode_async`.
        Exception: What ``generate`` raises.

    Example:
        >>> import asyncio
        >>> from ors_gym.rollout import Parsed
        >>> class Characters:
        ...     stop_ids = [0]
        ...
        ...     def render(self, messages, tools):
        ...         return [*map(ord, messages[-1]["content"]), 10]
        ...
        ...     def render_reply(self, messages):
        ...         return self.render(messages, ())
        ...
        ...     def parse(self, ids):
        ...         return Parsed("".join(map(chr, ids[:-1])))
        >>> def generate(ids, *, max_new_tokens, stop):
        ...     call = '{"tool": "submit", "input": {"answer": "?"}}'
        ...     return Generated([*map(ord, call), *stop])
        >>> play = run_token_episode(None, "math", 0, generate, Characters())
        >>> (sequence,) = asyncio.run(play).sequences()
        >>> sum(sequence.mask), sequence.reward
        (45, 0.0)
    """
    policy = TokenPolicy(
        generate,
        renderer,
        max_tokens=max_tokens,
        max_new_tokens=max_new_tokens,
        system_prompt=system_prompt,
        on_rewrite=on_rewrite,
    )
    return await run_episode_async(client, env_name, task, policy, **arguments)
