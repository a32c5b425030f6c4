"""Sends what is to be served to the server process, which loads it.

A class or a function goes by name if the other process can import its module. One of a
notebook cell, of ``__main__`` or of a function goes by value, with cloudpickle.
"""

from __future__ import annotations

import base64
import functools
import importlib
import importlib.machinery
import inspect
import io
import pickle
import sys
import typing
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final

from ors_gym.errors import InvalidRequestError

LIBRARIES: Final = {
    "gymnasium": "ors_gym.server.adapters._gymnasium",
    "reasoning_gym": "ors_gym.server.adapters._reasoning_gym",
}
"""Libraries whose environments are served by name, as in ``gymnasium:CartPole-v1``, and
the module that finds them.

Example:
    >>> sorted(LIBRARIES)
    ['gymnasium', 'reasoning_gym']
"""


def describe_environment(environment: object) -> dict[str, str]:
    """Write what `ors_gym.server.serve` takes as JSON for `load_environment`.

    If a class that is sent by value could also be imported by name, ``name`` says that
    name.
    """
    if isinstance(environment, str):
        module, _, name = environment.partition(":")
        if not module or not (name.isidentifier() or (module in LIBRARIES and name)):
            raise InvalidRequestError(
                f"{environment!r} does not name an environment; write it as "
                '"module:Class", such as "my_package.my_module:MyEnvironment", or as '
                '"gymnasium:CartPole-v1" or "reasoning_gym:leg_counting".'
            )
        return {"reference": environment}
    if not callable(environment):
        raise InvalidRequestError(
            f"{environment!r} cannot be served; pass a subclass of ors.Environment "
            "(the class, not an instance), a function that makes a Gymnasium env "
            "(lambda task: env), or a string such as "
            '"module:Class" or "gymnasium:CartPole-v1".'
        )
    name = getattr(environment, "__qualname__", repr(environment))
    try:
        described = {"pickle": base64.b64encode(_pickle(environment)).decode("ascii")}
    except Exception as error:
        kind = "class" if isinstance(environment, type) else "function"
        shown = "Class" if isinstance(environment, type) else "function"
        raise InvalidRequestError(
            f"The {kind} {name} cannot be sent to the process that "
            f"would serve it: {type(error).__name__}: {error}. Put it into a module of "
            f'its own and pass "module:{shown}".'
        ) from error
    module = getattr(environment, "__module__", None) or "__main__"
    if name.isidentifier() and module != "__main__" and _is_importable(module):
        described["name"] = f"{module}:{name}"
    return described


def describe_application(reference: str, **arguments: Any) -> dict[str, Any]:
    """Write an ASGI application to serve in place of environments, for `load_served`.

    ``reference`` names its class, as ``"module:Class"``; the arguments are JSON.
    """
    return {"application": reference, "arguments": arguments}


def load_served(described: Sequence[dict[str, Any]]) -> Any:
    """Load environments, or the one application in their place."""
    match described:
        case [{"application": reference, "arguments": arguments}]:
            return import_environment(reference)(**arguments)
    return [load_environment(one) for one in described]


def load_environment(described: dict[str, str]) -> Any:
    """Load what `describe_environment` wrote."""
    if "reference" in described:
        return import_environment(described["reference"])
    return pickle.loads(  # noqa: S301 - our owner's own class
        base64.b64decode(described["pickle"])
    )


def import_environment(reference: str) -> Any:
    """Import a class or a function by ``"module:Class"``, or find it in a library."""
    name, _, wanted = reference.partition(":")
    if name in LIBRARIES:
        # Only the server's process imports the library.
        return importlib.import_module(LIBRARIES[name]).find(wanted)
    module = importlib.import_module(name)
    found = getattr(module, wanted, None)
    if not callable(found):
        own = [one for one in vars(module).values() if isinstance(one, type)]
        names = [one.__name__ for one in own if one.__module__ == name]
        has = f"it has {', '.join(names)}" if names else "it has none at all"
        raise InvalidRequestError(f"module {name!r} has no class {wanted!r}; {has}")
    return found


def _pickle(environment: Any) -> bytes:
    import cloudpickle  # type: ignore[import-untyped]  # noqa: PLC0415

    class Pickler(cloudpickle.CloudPickler):  # type: ignore[misc]
        """Sends a cached function by value; pickle would send it by name."""

        dispatch_table = cloudpickle.CloudPickler.dispatch_table.new_child(
            {functools._lru_cache_wrapper: _reduce_cached}  # noqa: SLF001
        )

    kind = environment if isinstance(environment, type) else type(environment)
    classes = [*kind.__mro__, *getattr(environment, "toolsets", ())]
    names = {getattr(one, "__module__", None) for one in (*classes, environment)}
    by_value = {
        sys.modules[name]
        for name in names
        if name in sys.modules and not _is_importable(name)
    } - {sys.modules["__main__"]}
    buffer = io.BytesIO()
    for module in by_value:
        cloudpickle.register_pickle_by_value(module)
    try:
        with _resolved_annotations(classes):
            Pickler(buffer).dump(environment)
    finally:
        for module in by_value:
            cloudpickle.unregister_pickle_by_value(module)
    return buffer.getvalue()


def _reduce_cached(function: Any) -> tuple[Any, ...]:
    parameters = function.cache_parameters()
    return _cached, (function.__wrapped__, parameters["maxsize"], parameters["typed"])


def _cached(function: Any, maxsize: int | None, typed: bool) -> Any:
    return functools.lru_cache(maxsize, typed)(function)


def _is_importable(module: str) -> bool:
    """Say whether a process with the same ``sys.path`` finds the same module."""
    path: Sequence[str] | None = None
    parts = module.split(".")
    for count in range(1, len(parts) + 1):
        name = ".".join(parts[:count])
        if name in sys.builtin_module_names:
            return True
        spec = importlib.machinery.PathFinder.find_spec(name, path)
        if spec is None:
            return False
        path = spec.submodule_search_locations
    return spec is not None and spec.origin == getattr(
        sys.modules[module], "__file__", None
    )


@contextmanager
def _resolved_annotations(classes: Sequence[type[Any]]) -> Iterator[None]:
    """Replace annotations that are strings by the objects they name, for a while.

    The SDK reads the annotations of tools. cloudpickle sends the globals that a
    function's code uses, but not those that only its annotations name.
    """
    changed: list[tuple[Any, dict[str, Any]]] = []
    try:
        for owner in classes:
            for value in list(vars(owner).values()):
                function = inspect.unwrap(getattr(value, "__func__", value))
                written = getattr(function, "__annotations__", None)
                if not inspect.isfunction(function) or not written:
                    continue
                if any(isinstance(one, str) for one in written.values()):
                    changed.append((function, written))
                    function.__annotations__ = _hints(function, written)
        yield
    finally:
        for function, written in changed:
            function.__annotations__ = written


def _hints(function: Any, written: dict[str, Any]) -> dict[str, Any]:
    try:
        return typing.get_type_hints(function, include_extras=True)
    except NameError:
        # The name exists for type checkers only. This is no tool: the SDK could not
        # read its annotations either.
        return written
