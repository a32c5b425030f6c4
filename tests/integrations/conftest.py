"""Fixtures for the frameworks' tests."""

import importlib.util
import re
import runpy
from collections.abc import Callable, Iterator
from types import CodeType, SimpleNamespace

import pytest

from ors_gym.server import serve
from tests.support.servers.process import RunningServer
from tests.support.virtual_environments import ROOT

if importlib.util.find_spec("torchvision") is not None:
    import torch

    # That of PyPI needs CUDA for operators that no processor of images uses.
    OPERATORS = torch.library.Library("torchvision", "FRAGMENT")
    for _name in ("nms", "qnms"):
        if not hasattr(torch.ops.torchvision, _name):
            OPERATORS.define(
                f"{_name}(Tensor boxes, Tensor scores, float at) -> Tensor"
            )


@pytest.fixture(scope="session")
def bundled() -> Iterator[str]:
    """Give the base URL of a server with the bundled environments."""
    with serve() as base_url:
        yield base_url


@pytest.fixture
def tidy_server(one_server: RunningServer) -> Iterator[RunningServer]:
    """Give `one_server`, on which the test leaves no session open."""
    yield one_server
    assert one_server.open_sessions() == set()


@pytest.fixture
def example() -> Callable[[str], SimpleNamespace]:
    """Give what loads a script of ``docs/examples`` without running its main part."""

    def load(name: str) -> SimpleNamespace:
        path = ROOT / "docs" / "examples" / f"{name}.py"
        return SimpleNamespace(**runpy.run_path(str(path)))

    return load


@pytest.fixture(scope="session")
def documented() -> Callable[[str], CodeType]:
    """Give what compiles the block of this title of ``docs/frameworks.md``."""
    page = (ROOT / "docs" / "frameworks.md").read_text(encoding="utf-8")

    def load(title: str) -> CodeType:
        fence = rf'^```python title="{re.escape(title)}"\n(.*?)^```$'
        (code,) = re.findall(fence, page, re.DOTALL | re.MULTILINE)
        return compile(code, f"frameworks.md, {title}", "exec")

    return load
