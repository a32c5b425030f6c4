# mypy: disable-error-code="misc, untyped-decorator"
"""The environments, each with something that a client must cope with."""

from typing import Any

from .base import Logged, Shared, SubmitInput
from .recording import log
from .sdk import (
    HAS_INDEX,
    HAS_MESSAGES,
    HAS_TASK_TOOLS,
    Base,
    TextBlock,
    ToolOutput,
    sdk,
    tool,
)
from .tools import Contract, EchoInput


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
    """A thousand million tasks, which nobody should list."""

    @classmethod
    def list_tasks(cls, split: str) -> Any:
        log("list_tasks", cls.__name__, split=split)
        raise NotImplementedError

    @classmethod
    async def num_tasks(cls, split: str) -> int:
        log("num_tasks", cls.__name__, split=split)
        return 10**9

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


ENVIRONMENTS: list[Any] = [
    *(Contract, Hall, TaskTools, SlowSetup, BrokenSetup, ListOnly, NoTrain),
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
