"""``sql``: answer questions about a shop from its database."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from random import Random
from typing import Any, Final

from ors import ListToolsOutput, TextBlock, ToolOutput, tool
from ors.types import ToolSpec
from pydantic import BaseModel, Field

from ors_gym.server.environments import PlayerMistakeError
from ors_gym.server.environments._base import (
    NumberedTasks,
    SplitName,
    is_same_answer,
    over,
    reply,
)
from ors_gym.server.environments._questions import QUESTIONS, REPAIR
from ors_gym.server.environments._sql_database import (
    CATEGORIES,
    CITIES,
    MONTHS,
    ShopDatabase,
    make_rows,
)

__all__ = ["Answers", "Sql", "Statement"]

_MOST_CALLS: Final = 30
_QUESTIONS_PER_TASK: Final = 3
_TABLES: Final = ("customers", "products", "orders", "order_items")


class Statement(BaseModel):
    """The input of ``query`` and ``update``."""

    sql: str = Field(description="One SQLite statement.")


class Answers(BaseModel):
    """The input of ``submit``."""

    answer: str = Field(
        description="The answers in the order of the questions, separated by ;"
    )


class Sql(NumberedTasks):
    """Three questions about a shop, to be answered from its SQLite database.

    Each task has its own database. Every third task, on average, also asks to fix data,
    and only such a task has the tool `update`.

    Rewards:
        `submit` pays the share of the parts that are right, from 0.0 to 1.0. Each
        answer is a part, and so is the fix. All other calls pay 0.0. A wrong SQL
        statement makes its tool fail.

    Starting state:
        The prompt has the questions.

    Episode end:
        It terminates with `submit`, or unpaid after 30 calls.

    Version history:
        0.1.0: the first.
    """

    served_name = "sql"

    @classmethod
    def make_task(cls, split: SplitName, generator: Random) -> dict[str, Any]:
        """Choose data and questions (see `NumberedTasks.make_task`)."""
        del split
        kinds = generator.sample(range(len(QUESTIONS)), _QUESTIONS_PER_TASK)
        city = generator.choice(CITIES)
        return {
            "data_seed": generator.getrandbits(32),
            "questions": [
                {
                    "kind": kind,
                    "city": city,
                    "month": generator.choice(MONTHS),
                    "category": generator.choice(CATEGORIES),
                }
                for kind in kinds
            ],
            "repair": city if generator.randrange(3) == 0 else None,
        }

    def read_task(self, task: Mapping[str, Any]) -> None:
        """Take what the set-up needs (see `NumberedTasks.read_task`)."""
        self._seed = int(task["data_seed"])
        self._questions = [
            (
                QUESTIONS[int(one["kind"])],
                {gap: str(one[gap]) for gap in ("city", "month", "category")},
            )
            for one in task["questions"]
        ]
        self._repair = None if task["repair"] is None else str(task["repair"])
        self._calls_left = _MOST_CALLS

    def setup(self) -> None:
        """Make the database, compute the answers, then spoil the data to be fixed."""
        self._database = ShopDatabase(make_rows(Random(self._seed)))  # noqa: S311
        self._answers = [
            self._database.value(question.sql.format(**values))
            for question, values in self._questions
        ]
        self._clean = {table: self._database.snapshot(table) for table in _TABLES}
        self._spoilt: set[int] = set()
        if self._repair is not None:
            here = [
                row[0] for row in self._clean["customers"] if row[2] == self._repair
            ]
            self._spoilt = set(here[::2])
            for number in self._spoilt:
                self._database.change(
                    "UPDATE customers SET city = ? WHERE id = ?",
                    self._repair.upper(),
                    number,
                )

    def teardown(self) -> None:
        """Free the database."""
        self._database.close()

    def get_prompt(self) -> list[TextBlock]:
        """Ask the questions."""
        lines = ["Answer these questions about a shop from its SQLite database."]
        if self._repair is not None:
            lines.append(REPAIR.fill(wrong=self._repair.upper(), right=self._repair))
        lines += [
            f"{number}. {question.template.fill(**values)}"
            for number, (question, values) in enumerate(self._questions, 1)
        ]
        lines.append(
            "Submit the answers in this order, separated by semicolons; an answer is "
            f"a number, a name or none. You have {_MOST_CALLS} calls."
        )
        return [TextBlock(text="\n".join(lines))]

    def list_task_tools(self) -> ListToolsOutput:
        """List ``update`` if this task asks to fix data."""
        if self._repair is None:
            return ListToolsOutput(tools=[])
        return ListToolsOutput(tools=[self.update_spec()])

    @staticmethod
    def update_spec() -> ToolSpec:
        """Describe the tool of the tasks that ask to fix data."""
        return ToolSpec(
            name="update",
            description=(Sql.update.__doc__ or "").strip(),
            input_schema=Statement.model_json_schema(),
        )

    @tool
    def list_tables(self) -> ToolOutput:
        """List the tables with their columns and numbers of rows."""
        return self._spend_call() or reply(self._database.describe())

    @tool
    async def query(self, params: Statement) -> ToolOutput:
        """Run a SELECT statement. At most 200 rows of its result are shown."""
        ended = self._spend_call()
        if ended:
            return ended
        # In a thread, so that a slow statement delays no other session.
        return reply(await asyncio.to_thread(self._database.query, params.sql))

    @tool(shared=False)
    async def update(self, params: Statement) -> ToolOutput:
        """Run an UPDATE statement to fix data."""
        if self._repair is None:
            raise PlayerMistakeError("This task has no tool 'update'.")
        ended = self._spend_call()
        if ended:
            return ended
        count = await asyncio.to_thread(self._database.update, params.sql)
        return reply(f"{count} {'row' if count == 1 else 'rows'} changed.")

    @tool
    def submit(self, params: Answers) -> ToolOutput:
        """Submit the answers, separated by semicolons; this ends the episode."""
        ended = self._spend_call()
        if ended:
            return ended
        self.finished = True
        given = [part.strip() for part in params.answer.split(";")]
        parts = [
            float(is_same_answer(one, expected))
            for one, expected in zip(given, self._answers, strict=False)
        ]
        right = f"{int(sum(parts))} of {len(self._answers)} answers are right."
        possible = len(self._answers)
        if self._repair is not None:
            fixed = self._fixed_share()
            parts.append(fixed)
            possible += 1
            right += f" {fixed:.0%} of the data to fix is fixed."
        return reply(right, reward=sum(parts) / possible, finished=True)

    def _spend_call(self) -> ToolOutput | None:
        if self.finished:
            return over()
        self._calls_left -= 1
        if self._calls_left >= 0:
            return None
        self.finished = True
        return reply(f"You have used all {_MOST_CALLS} calls.", finished=True)

    def _fixed_share(self) -> float:
        """Give the share of spoilt rows that are fixed; 0 if another row changed."""
        now = {table: self._database.snapshot(table) for table in _TABLES}
        customers, clean = now.pop("customers"), self._clean["customers"]
        if any(rows != self._clean[table] for table, rows in now.items()):
            return 0.0
        if len(customers) != len(clean):
            # UPDATE OR REPLACE removes the rows that are in the way.
            return 0.0
        differing = {
            before[0]
            for before, after in zip(clean, customers, strict=True)
            if before != after
        }
        if not differing <= self._spoilt:
            return 0.0
        return 1.0 - len(differing) / max(1, len(self._spoilt))
