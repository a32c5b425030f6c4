"""What a server has is asked once per client."""

from __future__ import annotations

import pytest

from ors_gym.client._catalog import Catalog
from ors_gym.errors import UnknownEnvironmentError
from tests.protocol.scripted_exchanges import RecordingServer, Script, ok, refused

TOOLS = [{"name": "say", "description": "", "input_schema": None}]


def test_each_question_is_asked_once_however_the_environment_is_written() -> None:
    server = RecordingServer()
    catalog = Catalog(server)
    assert catalog.known_tools("Math") is None
    script = Script(ok({"tools": TOOLS}), ok(["train"]), ok({"num_tasks": 3}))
    for name in ("math", "Math"):
        assert script.run_all(
            catalog.tools(name),
            catalog.splits(name),
            catalog.count_tasks(name, "train"),
        ) == [TOOLS, [{"name": "train", "type": "train"}], 3]
    assert script.targets == [
        "GET /Math/tools",
        "GET /Math/splits",
        "POST /Math/num_tasks",
    ]
    assert catalog.known_tools("Math") == TOOLS


def test_an_environment_that_the_server_lacks() -> None:
    server = RecordingServer()
    with pytest.raises(UnknownEnvironmentError, match="it has 'Math', 'guess'"):
        Script().run(Catalog(server).tools("chess"))


def test_a_failed_question_is_asked_again() -> None:
    server = RecordingServer()
    catalog = Catalog(server)
    script = Script(refused(500), ok(["train"]))
    with pytest.raises(Exception, match="500"):
        script._run(catalog.splits("Math"))
    assert script.run(catalog.splits("Math"))[0]["name"] == "train"
