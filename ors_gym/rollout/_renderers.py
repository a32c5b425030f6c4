"""Renderers: conversations to token ids, and sampled ids back to text and calls.

`TemplateRenderer` stands on a `transformers` tokenizer or processor. Renderers
of other libraries are adapted in `_foreign_renderers`. Nothing is imported of either.
"""

from __future__ import annotations

import copy
import dataclasses
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final, Protocol, TypeAlias, runtime_checkable

from ors_gym.errors import InvalidRequestError
from ors_gym.formats import describe_tools
from ors_gym.formats._blocks import replace_surrogates, to_picture_parts
from ors_gym.formats._messages import (
    block_of_part,
    join_system_messages,
    with_calls_as_text,
)
from ors_gym.types import JSONObject

Messages: TypeAlias = Sequence[JSONObject]
"""Chat messages as `ors_gym.formats.to_template_messages` gives them."""


@dataclasses.dataclass(frozen=True, slots=True)
class Rendered:
    """Ids with the multimodal inputs that belong to them.

    Args:
        ids: The ids.
        mm: What the engine takes beside them, such as pixel values and their places
            among ``ids``.

    Example:
        >>> Rendered([1, 2, 3], mm={"pixel_values": [0.5]}).ids
        [1, 2, 3]
    """

    ids: list[int]
    mm: Any = None


@dataclasses.dataclass(frozen=True, slots=True)
class Parsed:
    """What a model said in a turn.

    Args:
        text: The text of its ids, without the end of the turn.
        calls: Its calls, in any form of `Turn.actions`; None to read them from
            ``text``.
        message: The assistant's message for the renderer, if it is not ``text``.

    Example:
        >>> Parsed("I look.", calls={"tool": "look", "input": {}}).calls["tool"]
        'look'
    """

    text: str
    calls: Any = None
    message: JSONObject | None = None


@runtime_checkable
class Renderer(Protocol):
    """What `TokenPolicy` needs of a renderer.

    A renderer may also have ``find_rewrite()``, which says what it would write
    otherwise of a conversation that goes on; see `check_prefix_preserving`.

    Example:
        >>> class Letters:
        ...     stop_ids = (0,)
        ...
        ...     def render(self, messages, tools):
        ...         return [ord(c) for m in messages for c in m["content"]]
        ...
        ...     def render_reply(self, messages):
        ...         return self.render(messages, ())
        ...
        ...     def parse(self, ids):
        ...         return Parsed("".join(map(chr, ids)))
        >>> isinstance(Letters(), Renderer)
        True
    """

    @property
    def stop_ids(self) -> Sequence[int]:
        """The ids that end a turn of the model. The first is what a template writes."""

    def render(
        self, messages: Messages, tools: Sequence[JSONObject]
    ) -> list[int] | Rendered:
        """Return a whole prompt, with the beginning of the model's turn.

        Args:
            messages: The conversation.
            tools: The tools, as `ors_gym.formats.to_openai_tools` gives them.
        """

    def render_reply(self, messages: Messages) -> list[int] | Rendered | None:
        """Return what stands between two turns of the model.

        It begins after the stop id of the one and ends at the start of the next. None
        says that it cannot be appended: the whole prompt has to be rendered again.

        Args:
            messages: What answers the model's turn. Messages of tools have a ``name``.
        """

    def parse(self, ids: Sequence[int]) -> Parsed:
        """Return what sampled ids say. It never raises, whatever the ids are."""


def check_prefix_preserving(renderer: Any) -> None:
    """Check that a conversation which goes on only grows at its end.

    A chat template may write an earlier turn otherwise once something follows it: drop
    its reasoning, trim its blanks, move the system prompt. What the model saw and what
    a loss is given would then differ.

    Args:
        renderer: A renderer, or a tokenizer or processor with a chat template.

    Raises:
        InvalidRequestError: If the renderer rewrites. The message shows the first
            difference.

    Example:
        >>> def keeps(tokenizer):
        ...     try:
        ...         check_prefix_preserving(tokenizer)
        ...     except InvalidRequestError as error:
        ...         return str(error)
    """
    find = getattr(as_renderer(renderer), "find_rewrite", None)
    difference = find() if find is not None else None
    if difference:
        raise InvalidRequestError(
            f"the renderer does not keep what came before: {difference}. Use a chat "
            "template that keeps it (get_training_chat_template of TRL has some), a "
            "renderer of the renderers package or of tinker-cookbook for the model, "
            'on_rewrite="split" for several sequences, each true to what the model '
            'saw, or on_rewrite="append" to go on from what was sampled all the same'
        )


def as_renderer(value: Any) -> Renderer:
    """Return a renderer for what a user has: one of ours, of a library, a tokenizer.

    Raises:
        InvalidRequestError: If it is none of these.

    Example:
        >>> as_renderer(7)
        Traceback (most recent call last):
            ...
        ors_gym.errors.InvalidRequestError: int is no renderer: pass a tokenizer ...
    """
    if isinstance(value, Renderer):
        return value
    if hasattr(value, "bridge_to_next_turn") or hasattr(
        value, "build_generation_prompt"
    ):
        # Only who uses another library's renderer needs these.
        from ors_gym.rollout._foreign_renderers import adapt  # noqa: PLC0415

        return adapt(value)
    if hasattr(value, "apply_chat_template"):
        return TemplateRenderer(value)
    raise InvalidRequestError(
        f"{type(value).__name__} is no renderer: pass a tokenizer or a processor with "
        "a chat template, a renderer of the renderers package or of tinker-cookbook, "
        "or an object with render, render_reply, parse and stop_ids"
    )


_USER: Final[JSONObject] = {"role": "user", "content": "Question?"}
_ANSWER: Final = "An answer."
_RESULT: Final = "A result."
_TOOL: Final[JSONObject] = {
    "type": "function",
    "function": {
        "name": "a_tool",
        "description": "A tool.",
        "parameters": {"type": "object", "properties": {}},
    },
}
_CALL: Final[JSONObject] = {
    "id": "call00000",
    "type": "function",
    "function": {"name": "a_tool", "arguments": {}},
}
_THINK: Final = "<think>"
_END_THINK: Final = "</think>"
_HIDDEN: Final = "zq1q"
"""Begins the word for a marker that is mere text of a message; letters and digits
alone, so that no filter of a template changes it."""
_HIDDEN_WORD: Final = re.compile(_HIDDEN + r"(\d{4})z")
_SHOWN: Final = 40


class TemplateRenderer:
    """A renderer on a `transformers` tokenizer or processor, and its chat template.

    The text of a conversation is what the template writes, and its ids are those that
    the tokenizer gives that text. There are two exceptions. A marker such as
    ``<|im_end|>`` that a message spells out stays text and never becomes the special
    id. What the model sampled is not rendered at all.

    A template that knows no tools gets them described in the system message, and calls
    of the prompt as text. One that knows no tool messages gets results from the user.

    With a processor messages may hold images. The ids are then those of the processor,
    with as many ids for an image as its model takes. `Rendered.mm` is a dict of
    whatever else the processor returns, such as ``pixel_values`` and
    ``image_grid_thw``, and of the Pillow images as ``images``, for engines that process
    them again.

    Args:
        tokenizer: The tokenizer or the processor. A copy of it is used.
        chat_template: A template in place of the tokenizer's own.
        parse: Reads sampled ids where the model's calls have a syntax of their own.
            It is given the ids without the stop id and returns a message, as
            ``parse_response`` of TRL does, calls, or a `Parsed`. By default calls are
            read as JSON and ``<tool_call>`` blocks, outside of reasoning.
        stop_ids: More ids that end a turn.
        **template_arguments: Arguments of the template, such as
            ``enable_thinking=False``.

    Raises:
        InvalidRequestError: If the template cannot be used.

    Example:
        >>> def make(model):
        ...     tokenizer = transformers.AutoTokenizer.from_pretrained(model)
        ...     return TemplateRenderer(tokenizer, enable_thinking=False)
    """

    def __init__(
        self,
        tokenizer: Any,
        *,
        chat_template: str | None = None,
        parse: Callable[[list[int]], Any] | None = None,
        stop_ids: Sequence[int] = (),
        **template_arguments: Any,
    ) -> None:
        # A trainer may set padding and truncation on its own one, from other threads.
        self._writer = copy.deepcopy(tokenizer)
        if chat_template is not None:
            self._writer.chat_template = chat_template
        self._tokenizer = self._writer
        self._parse = parse
        self._arguments = template_arguments
        self._takes_text = True
        self._image = ""
        if hasattr(tokenizer, "image_processor"):
            self._tokenizer = self._writer.tokenizer
            self._writer.tokenizer = _TextKeeper(self._tokenizer)
        self._markers = _Markers(self._tokenizer, str(self._writer.chat_template))
        self._ends: dict[tuple[str, ...], int] = {}
        self._learn_content()
        self._learn_roles()
        self._learn_turn()
        end_of_text = getattr(self._tokenizer, "eos_token_id", None)
        found = [self._markers.ids[self._end], end_of_text, *stop_ids]
        self._stop_ids = list(dict.fromkeys(one for one in found if one is not None))

    @property
    def stop_ids(self) -> list[int]:
        """The id that ends a turn in the template, then others that end one."""
        return list(self._stop_ids)

    def render(
        self, messages: Messages, tools: Sequence[JSONObject]
    ) -> list[int] | Rendered:
        """Return a whole prompt, with the beginning of the model's turn.

        Args:
            messages: The conversation.
            tools: The tools.

        Raises:
            InvalidRequestError: If the template refuses it, or there is an image
                and no processor.
        """
        told, images = self._take_images(messages)
        return self._encode(self._write(told, tools), images)

    def render_reply(self, messages: Messages) -> list[int] | Rendered:
        """Return what stands between two turns of the model.

        Args:
            messages: What answers the model's turn.

        Raises:
            InvalidRequestError: If the template refuses it, or there is an image
                and no processor.
        """
        told, images = self._take_images(messages)
        # Some tokens take the blanks behind them; some tokenizers begin with one.
        read = self._encode(self._end + self._write_reply(told), images)
        ids = read.ids if isinstance(read, Rendered) else read
        ids = ids[ids.index(self._stop_ids[0]) + 1 :]
        return Rendered(ids, read.mm) if isinstance(read, Rendered) else ids

    def parse(self, ids: Sequence[int]) -> Parsed:
        """Return what sampled ids say.

        Args:
            ids: The ids, with or without a stop id at their end.
        """
        said = list(ids)
        if said and said[-1] in self._stop_ids:
            said.pop()
        text = self._tokenizer.decode(
            said, skip_special_tokens=False, clean_up_tokenization_spaces=False
        )
        message = self._message(text)
        if self._parse is not None:
            try:
                return _read_parsed(self._parse(said), text, message)
            except Exception:  # noqa: BLE001 - a broken output breaks parsers in all ways
                return Parsed(text, message=message)
        _, closed, rest = text.rpartition(_END_THINK)
        if closed:
            return Parsed(text, rest, message)  # what it considered is no call
        if self._opened or _THINK in text:
            return Parsed(text, "", message)  # it never came to an end
        return Parsed(text, message=message)

    def _message(self, text: str) -> JSONObject:
        """Return a turn of the model as a message, with what the prompt began of it."""
        said = self._opened + text.removesuffix(self._before_end)
        return {"role": "assistant", "content": said}

    def find_rewrite(
        self, messages: Messages | None = None, tools: Sequence[JSONObject] = ()
    ) -> str | None:
        """Find where the template would not continue what the model saw.

        Args:
            messages: A conversation that ends with replies to the model's last turn;
                None for ones of its own that templates are known to rewrite.
            tools: Its tools.

        Returns:
            The first difference in words, or None.
        """
        if messages is not None:
            return self._compare(self._take_images(messages)[0], tools)
        try:
            for told in self._probes():
                if difference := self._compare(told, [_TOOL]):
                    return difference
        except InvalidRequestError as error:
            return str(error)
        return None

    def _probes(self) -> Iterator[list[JSONObject]]:
        """Yield a conversation of all that templates rewrite, as it grows."""
        answer = f"First, look.\n{_END_THINK}\n\n I look. "
        if not self._opened:
            answer = f"{_THINK}\n{answer}"
        if self._prefix.endswith(f"{_END_THINK}\n\n"):
            answer = "I look. "
        elif _THINK not in str(self._writer.chat_template):
            answer = f" {answer}"
        said = self._message(answer)
        result = {"role": "tool", "tool_call_id": "call00000", "name": "a_tool"}
        told: list[JSONObject] = [{"role": "system", "content": "A rule."}, _USER]
        replies = (
            {**result, "content": f" {_RESULT} "},
            {**result, "content": f"{_RESULT}\n"},
            {"role": "user", "content": " Go on. "},
            {**result, "content": _RESULT},
        )
        for reply in replies:
            told = [*told, said, reply]
            yield told

    def _compare(self, messages: Messages, tools: Sequence[JSONObject]) -> str | None:
        roles = [message["role"] for message in messages]
        place = len(roles) - 1 - roles[::-1].index("assistant")
        said = self._markers.hide_in_message(messages[place])
        seen = self._write(messages[:place], tools)
        seen += said["content"].removeprefix(self._opened)
        seen += self._before_end + self._end
        seen += self._write_reply(messages[place + 1 :])
        written = self._write(messages, tools)
        if written == seen:
            return None
        return _describe_difference(seen, written, roles[place + 1 :])

    # What the template does.

    def _learn_content(self) -> None:
        """Find out in which form the template takes text, and how it writes images."""
        if not self._accepts([_USER], str(_USER["content"])):
            self._takes_text = False
        if self._tokenizer is self._writer:
            return
        parts = [_text_part(_ANSWER), {"type": "image"}, _text_part(_RESULT)]
        asked = {"role": "user", "content": parts}
        if self._accepts([asked], _RESULT):
            written = self._apply([asked], (), begin_turn=True)
            place = written.partition(_ANSWER)[2].partition(_RESULT)[0]
            own = getattr(self._writer, "image_token", None)
            self._image = own if own and own in place else place

    def _take_images(self, messages: Messages) -> tuple[list[JSONObject], list[Any]]:
        """Return messages with the places of their images alone, and the images."""
        told: list[JSONObject] = []
        images: list[Any] = []
        for message in messages:
            if not self._image or not _has_image(message):
                told.append(with_plain_content(message))
                continue
            parts = to_picture_parts(list(map(block_of_part, message["content"])))
            images += [part.pop("image") for part in parts if "image" in part]
            told.append({**message, "content": parts})
        return told, images

    def _learn_roles(self) -> None:
        """Find out what the template takes, where templates differ."""
        system = {"role": "system", "content": "A rule."}
        self._takes_system = self._accepts([system, _USER], "A rule.")
        name = str(_TOOL["function"]["name"])
        self._takes_tools = self._accepts([_USER], name, tools=[_TOOL])
        said = {"role": "assistant", "content": "", "tool_calls": [_CALL]}
        result = {"role": "tool", "tool_call_id": "call00000", "name": name}
        result["content"] = _RESULT
        plain = {"role": "assistant", "content": _ANSWER}
        self._takes_results = self._accepts([_USER, said, result], _RESULT) or (
            self._accepts([_USER, plain, result], _RESULT)
        )
        self._takes_calls = self._accepts([_USER, said, result], name)

    def _accepts(
        self, messages: Messages, content: str, tools: Sequence[JSONObject] = ()
    ) -> bool:
        try:
            return content in self._apply(messages, tools, begin_turn=True)
        except InvalidRequestError:
            return False

    def _learn_turn(self) -> None:
        """Find out how a turn of the model begins and ends."""
        said = {"role": "assistant", "content": _ANSWER}
        ended = self._apply([_USER, said], (), begin_turn=False)
        end = ended.rpartition(_ANSWER)[2]
        marker = self._markers.all.search(end)
        if _ANSWER not in ended or marker is None:
            raise InvalidRequestError(
                "the chat template writes no special token after a turn of the model, "
                "so that nobody can tell where one ends; use another template, or the "
                "model's renderer of the renderers package, such as GLM45Renderer with "
                'thinking_retention="all"'
            )
        self._end = marker.group()
        self._before_end = end[: marker.start()]
        asked = self._apply([_USER], (), begin_turn=False)
        begun = self._apply([_USER], (), begin_turn=True)
        self._prefix = begun.removeprefix(asked)
        begins = self._prefix.rfind(_THINK)
        reasons = begins >= 0 and _END_THINK not in self._prefix[begins:]
        self._opened = self._prefix[begins:] if reasons else ""

    def _write(self, messages: Messages, tools: Sequence[JSONObject]) -> str:
        """Return the text of a prompt, with the markers of its messages hidden."""
        told = [self._markers.hide_in_message(message) for message in messages]
        shown = self._markers.hide(list(tools))
        if tools and not self._takes_tools:
            described = describe_tools([_as_spec(tool) for tool in tools])
            described = self._markers.hide(described)
            told = join_system_messages(
                [{"role": "system", "content": described}], told
            )
            shown = []
        return self._apply(self._fit(told), shown, begin_turn=True)

    def _write_reply(self, messages: Messages) -> str:
        """Return the text after the end of a turn, by a conversation of little else."""
        told = self._fit([self._markers.hide_in_message(one) for one in messages])
        refusal = None
        for said in self._stand_ins(told):
            opening = [_USER, said]
            try:
                # Anything before the turn's end does not matter, rewritten or not.
                ends = self._count_ends(opening)
                written = self._apply([*opening, *told], (), begin_turn=True)
                return written.split(self._end, ends)[ends]
            except (InvalidRequestError, IndexError) as error:
                refusal = error
        raise InvalidRequestError(
            f"the chat template cannot write this reply: {refusal}"
        )

    def _stand_ins(self, replies: Messages) -> Iterator[JSONObject]:
        """Yield turns of the model that the replies may answer, the likeliest first."""
        calls = [
            {
                "id": reply.get("tool_call_id", ""),
                "type": "function",
                "function": {"name": reply.get("name", ""), "arguments": {}},
            }
            for reply in replies
            if reply["role"] == "tool"
        ]
        if calls:
            yield {"role": "assistant", "content": "", "tool_calls": calls}
        if len(calls) > 1:
            yield {"role": "assistant", "content": "", "tool_calls": calls[:1]}
        yield {"role": "assistant", "content": _ANSWER}

    def _count_ends(self, opening: Messages) -> int:
        calls = opening[-1].get("tool_calls", ())
        key = tuple(call["function"]["name"] for call in calls)
        if key not in self._ends:
            text = self._apply(opening, (), begin_turn=False)
            if len(self._ends) > 1000:
                self._ends.clear()
            self._ends[key] = text.count(self._end)
        return self._ends[key]

    def _fit(self, messages: Messages) -> list[JSONObject]:
        """Put messages into the roles that the template takes."""
        told = list(messages)
        if not self._takes_calls:
            told = [
                with_calls_as_text(one) if one.get("tool_calls") else one
                for one in told
            ]
        if not self._takes_results:
            told = [
                {"role": "user", "content": one["content"]}
                if one["role"] == "tool"
                else one
                for one in told
            ]
            told = _join_users(told)
        if not self._takes_system and told and told[0]["role"] == "system":
            told[0] = {"role": "user", "content": told[0]["content"]}
            told = _join_users(told)
        return told

    def _apply(
        self, messages: Messages, tools: Sequence[JSONObject], *, begin_turn: bool
    ) -> str:
        told = list(messages)
        if not self._takes_text:
            told = [{**one, "content": _parts_of(one)} for one in told]
        try:
            text = self._writer.apply_chat_template(
                told,
                tools=list(tools) or None,
                tokenize=False,
                add_generation_prompt=begin_turn,
                **self._arguments,
            )
        except Exception as error:  # noqa: BLE001 - templates raise errors of all kinds
            raise InvalidRequestError(
                f"the chat template refuses a conversation ({error})"
            ) from None
        return str(text)

    def _encode(self, text: str, images: Sequence[Any]) -> list[int] | Rendered:
        """Return the ids of a text in which the markers of messages are hidden."""
        if not images:
            return self._encode_text(text)
        if text.count(self._image) != len(images):
            raise InvalidRequestError(
                f"the chat template writes {text.count(self._image)} of "
                f"{len(images)} images; use one that writes those of every role, or a "
                "multimodal renderer of the renderers package"
            )
        made = dict(self._writer(text=[text], images=list(images)))
        (whole,) = made.pop(_TextKeeper.key)
        for name in ("input_ids", "attention_mask", "mm_token_type_ids"):
            made.pop(name, None)
        return Rendered(self._encode_text(whole), {**made, "images": list(images)})

    def _encode_text(self, text: str) -> list[int]:
        ids: list[int] = []
        for part in self._markers.reveal(text):
            ids += self._tokenizer.encode(
                replace_surrogates(part), add_special_tokens=False
            )
        markers = sum(map(self._markers.known_ids.__contains__, ids))
        if markers > len(self._markers.all.findall(text)):
            raise InvalidRequestError(
                "the tokenizer makes special tokens of what is text in a message; use "
                "one whose special tokens are not normalized"
            )
        return ids


class _TextKeeper:
    """The tokenizer of a processor, which hands out the text it is given, too.

    In that text the processor has written the places of images out.
    """

    key: Final = "ors_gym.text"

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer

    def __call__(self, text: Any, **arguments: Any) -> Any:
        encoded = self._tokenizer(text, **arguments)
        encoded[self.key] = text
        return encoded

    def __getattr__(self, name: str) -> Any:
        return getattr(self._tokenizer, name)


class _Markers:
    """The special tokens of a template, which are kept out of the text of messages.

    A marker that a message spells out goes through the template as a word. It is
    written again in the template's output, and cut there, so that the tokenizer finds
    no marker in either part.
    """

    def __init__(self, tokenizer: Any, template: str) -> None:
        added = [
            (str(token), number, bool(getattr(token, "special", True)))
            for number, token in tokenizer.added_tokens_decoder.items()
        ]
        # Others, like a run of blanks or a tag of HTML, are text as any.
        chosen = [
            (text, number, special)
            for text, number, special in added
            if len(text) > 1 and (special or (text.strip() and text in template))
        ]
        self.ids = {text: number for text, number, _ in chosen}
        # What no vocabulary holds becomes the unknown token in any text.
        unknown = getattr(tokenizer, "unk_token_id", None)
        self.known_ids = frozenset(self.ids.values()) - {unknown}
        self.all = _any_of(self.ids)
        # The beginning of such a word is hidden like a marker.
        self._texts = [_HIDDEN, *sorted(self.ids)]
        self._places = {text: place for place, text in enumerate(self._texts)}
        self._hidden = _any_of(self._texts)
        special_ones = (text for text, _, special in chosen if special)
        self._hidden_of_model = _any_of([_HIDDEN, *special_ones])

    def hide_in_message(self, message: JSONObject) -> JSONObject:
        """Hide the markers of a message; tags in what the model said stay."""
        hidden: JSONObject = self.hide(message)
        if message["role"] == "assistant":
            content = message.get("content")
            said = _replace_strings(content, self._hidden_of_model, self._name)
            hidden["content"] = said
        return hidden

    def hide(self, value: Any) -> Any:
        """Hide the markers of all strings in a JSON value."""
        return _replace_strings(value, self._hidden, self._name)

    def _name(self, marker: re.Match[str]) -> str:
        return f"{_HIDDEN}{self._places[marker.group()]:04}z"

    def reveal(self, text: str) -> list[str]:
        """Write the hidden markers again, and cut the text inside of each."""
        first, *rest = _HIDDEN_WORD.split(text)
        parts = [first]
        for place, after in zip(rest[::2], rest[1::2], strict=True):
            marker = self._texts[int(place)]
            if marker == _HIDDEN:
                parts[-1] += marker + after
            else:
                parts[-1] += marker[0]
                parts.append(marker[1:] + after)
        return parts


def _replace_strings(
    value: Any, pattern: re.Pattern[str], name: Callable[[re.Match[str]], str]
) -> Any:
    if isinstance(value, str):
        return pattern.sub(name, value)
    if isinstance(value, Mapping):
        return {
            _replace_strings(key, pattern, name): _replace_strings(one, pattern, name)
            for key, one in value.items()
        }
    if isinstance(value, list | tuple):
        return [_replace_strings(one, pattern, name) for one in value]
    return value


def _any_of(texts: Any) -> re.Pattern[str]:
    ordered = sorted(texts, key=len, reverse=True)
    return re.compile("|".join(map(re.escape, ordered)) or "(?!)")


def with_plain_content(message: JSONObject) -> JSONObject:
    """Return a message whose content is one text."""
    content = message.get("content")
    if isinstance(content, str):
        return message
    if content is None:
        return {**message, "content": ""}
    if _has_image(message):
        raise InvalidRequestError(
            "a message holds an image, and the renderer writes text alone; pass the "
            "model's processor (AutoProcessor of transformers) in place of its "
            "tokenizer, with a chat template that writes images, or a multimodal "
            "renderer of the renderers package"
        )
    return {**message, "content": "\n\n".join(part["text"] for part in content)}


def _has_image(message: JSONObject) -> bool:
    content = message.get("content")
    return isinstance(content, list) and any(one["type"] != "text" for one in content)


def _text_part(text: str) -> JSONObject:
    return {"type": "text", "text": text}


def _parts_of(message: JSONObject) -> list[JSONObject]:
    content = message.get("content") or ""
    return [_text_part(content)] if isinstance(content, str) else list(content)


def _join_users(messages: Messages) -> list[JSONObject]:
    """Join messages of the user's that follow each other."""
    joined: list[JSONObject] = []
    for message in messages:
        if joined and message["role"] == joined[-1]["role"] == "user":
            both = [*_parts_of(joined[-1]), _text_part("\n\n"), *_parts_of(message)]
            if all(part["type"] == "text" for part in both):
                text = "".join(part["text"] for part in both)
                joined[-1] = {"role": "user", "content": text}
            else:
                joined[-1] = {"role": "user", "content": both}
        else:
            joined.append(message)
    return joined


def _as_spec(tool: JSONObject) -> Any:
    function = tool["function"]
    return {
        "name": function["name"],
        "description": function.get("description", ""),
        "input_schema": function.get("parameters"),
    }


def _read_parsed(value: Any, text: str, message: JSONObject) -> Parsed:
    """Read what a user's parser gave; the text stays what the model said."""
    if isinstance(value, Parsed):
        return value
    calls = value
    if isinstance(value, Mapping):
        calls = value.get("tool_calls") or value.get("content") or ""
    return Parsed(text, calls, message)


def _describe_difference(seen: str, written: str, roles: Sequence[str]) -> str:
    pairs = zip(seen, written, strict=False)
    same = next(
        (place for place, (one, other) in enumerate(pairs) if one != other),
        min(len(seen), len(written)),
    )
    start = max(0, same - _SHOWN // 2)
    after = f"a {roles[0]} message" if roles else "the end of a turn"
    return (
        f"once {after} follows, it writes {written[start : same + _SHOWN]!r} where the "
        f"model had seen {seen[start : same + _SHOWN]!r} (character {same})"
    )
