"""Environment classes, written down so that another process can load them.

A class of a module that the other process can import goes by name, any other by value:
those of a notebook cell, of ``__main__``, of a function.
"""

from __future__ import annotations

import base64
import functools
import importlib.machinery
import inspect
import io
import sys
import typing
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from ors_gym.errors import InvalidRequestError

__all__ = ["describe_environment"]


def describe_environment(environment: object) -> dict[str, str]:
    """Write an environment down as JSON.

    Args:
        environment: An Environment class of ors-sdk, or a string ``"module:Class"``.

    Returns:
        A dict with the key ``reference`` or ``pickle``.

    Raises:
        InvalidRequestError: If it is neither, or cannot be pickled.

    Example:
        >>> describe_environment("package.module:Class")
        {'reference': 'package.module:Class'}
    """
    if isinstance(environment, str):
        module, _, name = environment.partition(":")
        if not module or not name.isidentifier():
            raise InvalidRequestError(
                f"{environment!r} does not name an environment; write it as "
                '"module:Class", such as "my_package.my_module:MyEnvironment".'
            )
        return {"reference": environment}
    if not isinstance(environment, type):
        raise InvalidRequestError(
            f"{environment!r} cannot be served; pass a subclass of ors.Environment "
            '(the class, not an instance) or a string "module:Class".'
        )
    try:
        return {"pickle": base64.b64encode(_pickle(environment)).decode("ascii")}
    except Exception as error:
        raise InvalidRequestError(
            f"The class {environment.__qualname__} cannot be sent to the process that "
            f"would serve it: {type(error).__name__}: {error}. Put it into a module of "
            'its own and pass "module:Class".'
        ) from error


def _pickle(environment: type[Any]) -> bytes:
    import cloudpickle  # type: ignore[import-untyped]  # noqa: PLC0415

    class Pickler(cloudpickle.CloudPickler):  # type: ignore[misc]
        """Also takes a cached function, which pickle would send by name."""

        dispatch_table = cloudpickle.CloudPickler.dispatch_table.new_child(
            {functools._lru_cache_wrapper: _reduce_cached}  # noqa: SLF001
        )

    classes = [*environment.__mro__, *getattr(environment, "toolsets", ())]
    by_value = {
        sys.modules[one.__module__]
        for one in classes
        if one.__module__ in sys.modules and not _is_importable(one.__module__)
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
    return _cached, (
        function.__wrapped__,
        parameters["maxsize"],
        parameters["typed"],
    )


def _cached(function: Any, maxsize: int | None, typed: bool) -> Any:
    return functools.lru_cache(maxsize, typed)(function)


def _is_importable(module: str) -> bool:
    """Say whether a new process with the same path finds the same module."""
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
    """Replace annotations that are strings by what they name, for a while.

    The SDK reads the annotations of tools. A function that travels by value takes along
    the globals that its code uses, not those that only its annotations name.
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
        # A name for type checkers alone; no tool, as the SDK could not read it either.
        return written
