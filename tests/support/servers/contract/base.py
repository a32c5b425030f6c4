# mypy: disable-error-code="misc, untyped-decorator"
"""What all environments share: the SDK that is installed, the log, the base class."""

import asyncio
import contextvars
import hashlib
import importlib
import importlib.machinery
import json
import os
import sys
import time
import types
import uuid
from typing import Any

from pydantic import BaseModel


def _import_sdk() -> Any:
    """Import the server half of whichever SDK is installed.

    The ``__init__`` of the openreward package imports its clients and with them three
    vendors' model clients, which are not installed here. An empty package in its
    place leaves the server's own modules as they are.
    """
    if importlib.machinery.PathFinder.find_spec("ors"):
        return importlib.import_module("ors")
    spec = importlib.machinery.PathFinder.find_spec("openreward")
    if spec is None or spec.submodule_search_locations is None:
        sys.exit("neither ors-sdk nor openreward is installed")
    package = types.ModuleType("openreward")
    package.__path__ = list(spec.submodule_search_locations)
    sys.modules["openreward"] = package
    return importlib.import_module("openreward.environments")


sdk = _import_sdk()
Base: Any = sdk.Environment
tool: Any = sdk.tool
TextBlock: Any = sdk.TextBlock
ImageBlock: Any = sdk.ImageBlock
ToolOutput: Any = sdk.ToolOutput
HAS_TASK_TOOLS = hasattr(Base, "list_task_tools")
HAS_INDEX = hasattr(Base, "num_tasks")
HAS_MESSAGES = hasattr(Base, "get_messages")

SESSION: contextvars.ContextVar[str] = contextvars.ContextVar("session", default="")
_destination: dict[str, int] = {}


def open_log(path: str) -> None:
    """Append to this file from now on."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND
    _destination["descriptor"] = os.open(path, flags, 0o600)


def log(event: str, environment: str, **fields: Any) -> None:
    """Append one line; a single write to an O_APPEND file is never torn."""
    entry: dict[str, Any] = {"event": event, "environment": environment}
    entry.update(session=SESSION.get(), time=time.time(), **fields)
    line = json.dumps(entry, default=str).encode() + b"\n"
    os.write(_destination["descriptor"], line)


class SubmitInput(BaseModel):
    answer: str


class Shared:
    """What all environments share: the log, and set-up as the task spec says.

    A spec may hold ``construct_seconds``, ``construct_error``, ``setup_seconds``,
    ``setup_error`` and ``teardown_error``.
    """

    def __init__(self, task_spec: Any = None, secrets: Any = None) -> None:
        super().__init__(dict(task_spec or {}))  # type: ignore[call-arg]
        self.spec: dict[str, Any] = dict(task_spec or {})
        self.instance = uuid.uuid4().hex
        self.ready = False
        digests = {
            name: hashlib.sha256(str(value).encode()).hexdigest()
            for name, value in dict(secrets or {}).items()
        }
        self.note("construct", spec=self.spec, secrets=digests)
        # As one that loads a data set.
        time.sleep(self.spec.get("construct_seconds", 0))
        if "construct_error" in self.spec:
            raise RuntimeError(self.spec["construct_error"])

    def note(self, event: str, **fields: Any) -> None:
        task = self.spec.get("id")
        name = type(self).__name__
        log(event, name, instance=self.instance, task=task, **fields)

    async def setup(self) -> None:
        self.note("setup")
        await asyncio.sleep(self.spec.get("setup_seconds", 0))
        if "setup_error" in self.spec:
            raise RuntimeError(self.spec["setup_error"])
        self.ready = True
        self.note("ready")

    async def teardown(self) -> None:
        self.note("teardown")
        if "teardown_error" in self.spec:
            raise RuntimeError(self.spec["teardown_error"])

    def run(self, name: str, **given: Any) -> None:
        """Log that a tool runs. It counts even if the tool never returns."""
        self.note("run", tool=name, input=given)

    def done(
        self, name: str, *texts: str, reward: Any = None, finished: bool = False
    ) -> Any:
        """Log what a tool returns, and return it."""
        whole = "\n".join(texts)
        self.note(
            "done",
            tool=name,
            reward=None if reward is None else repr(reward),
            finished=finished,
            text_length=len(whole),
            text_sha256=hashlib.sha256(whole.encode()).hexdigest(),
        )
        blocks = [TextBlock(text=text) for text in texts]
        return ToolOutput(blocks=blocks, reward=reward, finished=finished)

    @classmethod
    def list_splits(cls) -> Any:
        return ["train", "validation", "test"]

    @classmethod
    def list_tasks(cls, split: str) -> Any:
        log("list_tasks", cls.__name__, split=split)
        counts = {"train": 12, "validation": 3, "test": 5}
        return [
            {"id": f"{split}-{i}", "question": f"{i} + {i} = ?", "answer": str(2 * i)}
            for i in range(counts.get(split, 4))
        ]

    # What 0.1.0 called them.
    @classmethod
    def get_splits(cls) -> Any:
        return cls.list_splits()

    @classmethod
    def get_tasks(cls, split: str) -> Any:
        return cls.list_tasks(split)


class Logged(Shared, Base):
    """An environment with a prompt and a tool that ends the episode."""

    def get_prompt(self) -> Any:
        self.note("prompt")
        return [TextBlock(text=str(self.spec.get("question", "no question")))]

    @tool
    def submit(self, params: SubmitInput) -> ToolOutput:
        """Answer the question and finish."""
        self.run("submit", answer=params.answer)
        right = params.answer == self.spec.get("answer")
        text = "right" if right else "wrong"
        return self.done("submit", text, reward=float(right), finished=True)
