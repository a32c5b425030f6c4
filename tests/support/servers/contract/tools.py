# mypy: disable-error-code="misc, untyped-decorator"
"""The main environment, with a tool for each thing that a reply may be."""

import asyncio
import base64
import time

from pydantic import BaseModel

from .base import Logged
from .outputs import METADATA, REWARDS, png, text_of
from .sdk import ImageBlock, TextBlock, ToolOutput, tool


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
