"""The public names of every package: complete, importable, and light to import."""

import ast
import importlib
import inspect
import pkgutil
import re
import subprocess
import sys
from pathlib import Path

import pytest

import ors_gym
from ors_gym.errors import ORSError

MULTILINE_DOTALL = re.MULTILINE | re.DOTALL

HEAVY = (
    *("scipy", "matplotlib", "tqdm", "pandas", "ray", "openai"),
    *("jsonschema", "PIL", "ors"),
)
# Each integration needs its framework.
PACKAGES = [
    module.name
    for module in pkgutil.walk_packages(ors_gym.__path__, "ors_gym.")
    if "._" not in module.name and not module.name.startswith("ors_gym.integrations.")
]
# What no user imports has no place in the reference: the command line, the background,
# the registry, the bundled environments (they have pages of their own) and the plugin
# of pytest.
INTERNAL = re.compile(
    r"ors_gym\.(cli|protocol|registration|client\..*|server\..*|testing\..*)"
)
PUBLIC = [name for name in ["ors_gym", *PACKAGES] if not INTERNAL.fullmatch(name)]


def public_names(name: str) -> list[str]:
    return list(getattr(importlib.import_module(name), "__all__", []))


def test_every_public_name_can_be_had() -> None:
    assert len(ors_gym.__all__) == len(set(ors_gym.__all__))
    assert set(ors_gym.__all__) <= set(dir(ors_gym))
    for name in ors_gym.__all__:
        assert getattr(ors_gym, name).__module__.startswith("ors_gym")


def test_type_checkers_are_told_the_names_of_the_lazy_table() -> None:
    tree = ast.parse(Path(ors_gym.__file__).read_text())
    told = {
        alias.asname: node.module
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
        if alias.asname is not None
    }
    assert set(told) == set(ors_gym.__all__)
    for name, package in ors_gym._PACKAGE_OF.items():
        assert told[name] == f"ors_gym.{package}"


@pytest.mark.parametrize("name", ["ors_gym", *PACKAGES])
def test_a_package_exports_what_it_lists(name: str) -> None:
    package = importlib.import_module(name)
    for public in getattr(package, "__all__", []):
        assert hasattr(package, public)


@pytest.mark.parametrize("name", ["ors_gym", *PACKAGES])
def test_the_source_of_a_public_class_can_be_found(name: str) -> None:
    # A class whose __module__ is rewritten to the package, as httpx does it, has no
    # source for `inspect` and no `ORSEnv??` in a notebook.
    package = importlib.import_module(name)
    for public in getattr(package, "__all__", []):
        value = getattr(package, public)
        if isinstance(value, type) and not issubclass(value, BaseException):
            assert f"class {value.__name__}" in inspect.getsource(value)


@pytest.mark.parametrize("name", PUBLIC)
def test_a_public_class_or_function_has_an_example(name: str) -> None:
    # The default run executes it, as it collects the doctests of the package.
    package = importlib.import_module(name)
    found = {public: getattr(package, public) for public in public_names(name)}
    assert [
        public
        for public, value in found.items()
        if isinstance(value, type) or inspect.isfunction(value)
        if ">>>" not in (inspect.getdoc(value) or "")
    ] == []


def integrations() -> dict[str, list[str]]:
    """Read what each integration lists as public, without its framework."""
    folder = Path(ors_gym.__file__).parent / "integrations"
    listed = {}
    for path in sorted(folder.glob("[!_]*")):
        source = path / "__init__.py" if path.is_dir() else path
        names = re.search(r"^__all__ = (\[.*?\])", source.read_text(), MULTILINE_DOTALL)
        if names:
            listed[path.stem] = list(ast.literal_eval(names[1]))
    return listed


@pytest.mark.parametrize("name", integrations())
def test_an_integration_has_an_example_of_each_public_name(name: str) -> None:
    # `tests.integrations` and `tests/system/test_tracing.py` execute them.
    path = Path(ors_gym.__file__).parent / "integrations" / name
    files = path.glob("*.py") if path.is_dir() else [path.with_suffix(".py")]
    documented = {
        node.name: ast.get_docstring(node) or ""
        for file in files
        for node in ast.parse(file.read_text()).body
        if isinstance(node, ast.ClassDef | ast.FunctionDef)
    }
    names = integrations()[name]
    assert [public for public in names if ">>>" not in documented[public]] == []


@pytest.mark.parametrize("name", ["ors_gym", *PACKAGES])
def test_a_traceback_names_an_error_by_its_public_path(name: str) -> None:
    package = importlib.import_module(name)
    for public in getattr(package, "__all__", []):
        value = getattr(package, public)
        if isinstance(value, type) and issubclass(value, BaseException):
            assert "._" not in value.__module__
            home = importlib.import_module(value.__module__)
            assert getattr(home, public) is value
    assert ORSError.__module__ == "ors_gym.errors"


def test_the_import_brings_nothing_heavy_and_opens_no_connection() -> None:
    script = f"""
import socket, sys
def refuse(*_, **__):
    raise AssertionError("a connection at import")
socket.socket.connect = refuse
import gymnasium, httpx
before = set(sys.modules)
import ors_gym
print(sorted({set(HEAVY)!r} & (set(sys.modules) - before)))
"""
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert done.stdout == "[]\n"


def test_packages_need_no_import_of_their_own() -> None:
    script = """
import ors_gym
print(ors_gym.server.serve, ors_gym.wrappers.DiscreteTools, ors_gym.rollout)
print(ors_gym.mcp.serve)
"""
    subprocess.run([sys.executable, "-c", script], capture_output=True, check=True)


def test_a_name_that_is_not_there() -> None:
    with pytest.raises(AttributeError, match="nothing"):
        _ = ors_gym.nothing
