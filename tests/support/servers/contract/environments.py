# mypy: disable-error-code="misc, untyped-decorator"
"""The environments, each with something that a client must cope with."""

import asyncio
import base64
import time
from typing import Any

from pydantic import BaseModel

from .base import (
    HAS_INDEX,
    HAS_MESSAGES,
    HAS_TASK_TOOLS,
    Base,
    ImageBlock,
    Logged,
    Shared,
    SubmitInput,
    TextBlock,
    ToolOutput,
    log,
    sdk,
    tool,
)
from .outputs import METADATA, REWARDS, png, text_of


class AddInput(BaseModel):
    a: int
    b: int


class EchoInput(BaseModel):
    text: str


class SpeakInput(BaseModel):
    kind: str
    size: int = 5_000_000


class FailInput(BaseModel):
    message: str


class RewardInput(BaseModel):
    kind: str


class SlowInput(BaseModel):
    seconds: float


class ManyInput(BaseModel):
    n: int


class Contract(Logged):
    """The main environment: a tool for each thing that a reply may be."""

    calls = 0

    @tool
    def add(self, params: AddInput) -> ToolOutput:
        """Add two numbers."""
        self.run("add", a=params.a, b=params.b)
        return self.done("add", str(params.a + params.b), reward=0.5)

    @tool
    def echo(self, params: EchoInput) -> ToolOutput:
        """Return the text as it came."""
        self.run("echo", text=params.text[:100])
        return self.done("echo", params.text)

    @tool
    def speak(self, params: SpeakInput) -> ToolOutput:
        """Return text that is hard to transport."""
        self.run("speak", kind=params.kind, size=params.size)
        return self.done("speak", text_of(params.kind, params.size))

    @tool
    def fail(self, params: FailInput) -> ToolOutput:
        """Raise an error with the message."""
        self.run("fail", message=params.message)
        raise RuntimeError(params.message)

    @tool
    def fail_like_resume(self) -> ToolOutput:
        """Raise the very words that an unknown task_id is answered with."""
        self.run("fail_like_resume")
        raise RuntimeError("unknown task_id")

    @tool
    def reward(self, params: RewardInput) -> ToolOutput:
        """Return a reward of an unusual kind."""
        self.run("reward", kind=params.kind)
        return self.done("reward", params.kind, reward=REWARDS[params.kind])

    @tool
    async def slow(self, params: SlowInput) -> ToolOutput:
        """Take a while, and leave the server free."""
        self.run("slow", seconds=params.seconds)
        await asyncio.sleep(params.seconds)
        return self.done("slow", "slept", reward=0.25)

    @tool
    def slow_sync(self, params: SlowInput) -> ToolOutput:
        """Take a while, and on older servers block everybody else."""
        self.run("slow_sync", seconds=params.seconds)
        time.sleep(params.seconds)
        return self.done("slow_sync", "slept", reward=0.25)

    @tool
    def image(self) -> ToolOutput:
        """Return text and an image of 5 by 3 pixels."""
        self.run("image")
        output = self.done("image", "before", "after")
        data = base64.b64encode(png(5, 3)).decode()
        picture = ImageBlock(data=data, mimeType="image/png", detail={"alt": "a ramp"})
        first, last = output.blocks
        return ToolOutput(blocks=[first, picture, last])

    @tool
    def many(self, params: ManyInput) -> ToolOutput:
        """Return n blocks of text."""
        self.run("many", n=params.n)
        return self.done("many", *(f"block {i}" for i in range(params.n)))

    @tool
    def metadata(self) -> ToolOutput:
        """Return nested metadata."""
        self.run("metadata")
        self.done("metadata", "see metadata")
        return ToolOutput(blocks=[TextBlock(text="see metadata")], metadata=METADATA)

    @tool
    def count(self) -> ToolOutput:
        """Say how often this was called in this session."""
        self.run("count")
        self.calls += 1
        return self.done("count", str(self.calls), reward=1.0)


class Hall(Logged):
    """An environment whose name needs percent-encoding."""


Hall.__name__ = "Salle à manger 房间"


class TaskTools(Logged):
    """Some tasks have one tool more; set-up decides whether they have another."""

    @classmethod
    def list_tasks(cls, split: str) -> Any:
        log("list_tasks", cls.__name__, split=split)
        return [{"id": str(i), "answer": "", "extra": i % 2 == 1} for i in range(4)]

    if HAS_TASK_TOOLS:

        def list_task_tools(self) -> Any:
            names = ["extra"] if self.spec.get("extra") else []
            if self.ready:
                names.append("after_setup")
            schema = EchoInput.model_json_schema()
            specs = [
                sdk.ToolSpec(
                    name=name, description=f"Tool {name}.", input_schema=schema
                )
                for name in names
            ]
            return sdk.ListToolsOutput(tools=specs)

        @tool(shared=False)
        def extra(self, params: EchoInput) -> ToolOutput:
            """A tool of some tasks only."""
            self.run("extra", text=params.text)
            return self.done("extra", params.text)

        @tool(shared=False)
        def after_setup(self, params: EchoInput) -> ToolOutput:
            """A tool that is there once set-up is over."""
            self.run("after_setup", text=params.text)
            return self.done("after_setup", params.text)


class SlowSetup(Logged):
    """Task i sets up for i / 10 seconds."""

    @classmethod
    def list_tasks(cls, split: str) -> Any:
        log("list_tasks", cls.__name__, split=split)
        return [{"id": str(i), "setup_seconds": i / 10} for i in range(31)]


class BrokenSetup(Logged):
    """Set-up raises."""

    @classmethod
    def list_tasks(cls, split: str) -> Any:
        log("list_tasks", cls.__name__, split=split)
        return [{"id": "0", "setup_error": "the database is locked\nand <empty>"}]


class Vast(Logged):
    """Tasks by index only, and for training more than anybody should list."""

    @classmethod
    def list_tasks(cls, split: str) -> Any:
        log("list_tasks", cls.__name__, split=split)
        raise NotImplementedError

    @classmethod
    async def num_tasks(cls, split: str) -> int:
        log("num_tasks", cls.__name__, split=split)
        return 5 if split == "test" else 10**9

    @classmethod
    async def get_task(cls, split: str, index: int) -> Any:
        log("get_task", cls.__name__, split=split, index=index)
        if not 0 <= index < 10**9:
            raise IndexError(index)
        return {"id": str(index), "question": f"{index}?", "answer": str(index)}


class ListOnly(Logged):
    """Only ``list_tasks``, with one split whose name is no type of split."""

    @classmethod
    def list_splits(cls) -> Any:
        if hasattr(sdk, "Split"):
            return [sdk.Split(name="hard", type="test")]
        return ["hard"]


class NoTrain(Logged):
    """Splits among which a client must not choose by itself."""

    @classmethod
    def list_splits(cls) -> Any:
        return ["validation", "test"]


class Exhausted(Logged):
    """A tool that asks an empty iterator for more."""

    @tool
    def draw(self) -> ToolOutput:
        """Draw the next card of an empty deck."""
        self.run("draw")
        cards: list[str] = []
        return self.done("draw", next(iter(cards)))


ENVIRONMENTS: list[Any] = [
    *(Contract, Hall, TaskTools, SlowSetup, BrokenSetup, ListOnly, NoTrain),
    Exhausted,
    *([Vast] if HAS_INDEX else []),
]

if HAS_MESSAGES:

    class Conversation(Shared, Base):
        """A terminal tool, messages for a prompt, and scores for a group."""

        def get_messages(self) -> Any:
            roles = (("system", "Be short."), ("user", self.spec.get("question", "?")))
            return [
                sdk.Message(role=role, blocks=[TextBlock(text=text)])
                for role, text in roles
            ]

        async def score_group(self, candidates: Any) -> Any:
            self.note("score_group", candidates=len(candidates))
            return [float(i) for i, _ in enumerate(candidates)]

        @sdk.terminal
        @tool
        def answer(self, params: SubmitInput) -> ToolOutput:
            """Take the assistant's message as the answer."""
            self.run("answer", answer=params.answer)
            return self.done("answer", params.answer, reward=1.0, finished=True)

    ENVIRONMENTS.append(Conversation)
