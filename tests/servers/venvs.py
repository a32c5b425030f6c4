"""Virtual environments of the server SDKs, built once and cached.

Each SDK version has its own, since openreward pins ``sse-starlette``. Only what the
*server* half of an SDK imports is installed: openreward's other requirements are
three vendors' model clients, which make an environment four times as large and its
start ten times as slow.

From a shell: ``python -m tests.servers.venvs [NAME...]`` builds all or some of them.
``ORS_GYM_TEST_VENVS`` names another place for them.
"""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import hashlib
import importlib.util
import os
import shutil
import subprocess
import sys
import time
import venv
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

__all__ = ["SDKS", "Sdk", "VenvBuildError", "cache_directory", "ensure_venv", "main"]

_BUILD_SECONDS: Final = 300.0


class VenvBuildError(Exception):
    """Raised when an SDK could not be installed, most often for want of a network."""


@dataclasses.dataclass(frozen=True, slots=True)
class Sdk:
    """One version of a server SDK.

    Args:
        package: The distribution's name.
        version: Its version.
        current: Whether every test run needs it; the others need ``old_sdks``.
        requirements: What the SDK's server half imports. None installs what the SDK
            itself asks for.
    """

    package: str
    version: str
    current: bool = False
    requirements: tuple[str, ...] | None = None

    @property
    def name(self) -> str:
        """What tests and fixtures call it, such as ``openreward-0.1.167``."""
        return f"{self.package}-{self.version}"

    @property
    def pinned(self) -> str:
        """The requirement that installs the SDK itself."""
        return f"{self.package}=={self.version}"


_SERVER_HALF: Final = (
    "fastapi",
    "pydantic",
    "sse-starlette==2.3.6",
    "typing-extensions",
    "uvicorn",
)
_TELEMETRY: Final = ("opentelemetry-exporter-otlp-proto-grpc", "opentelemetry-sdk")

SDKS: Final[dict[str, Sdk]] = {
    sdk.name: sdk
    for sdk in (
        Sdk("ors-sdk", "0.1.0", current=True),
        Sdk(
            "openreward",
            "0.1.167",
            current=True,
            requirements=(*_SERVER_HALF, "structlog", *_TELEMETRY),
        ),
        Sdk("openreward", "0.1.80", requirements=(*_SERVER_HALF, "structlog")),
        Sdk("openreward", "0.1.50", requirements=(*_SERVER_HALF, "structlog")),
        Sdk("openreward", "0.1.22", requirements=_SERVER_HALF),
        Sdk("openreward", "0.1.9", requirements=_SERVER_HALF),
        Sdk("openreward", "0.1.0", requirements=_SERVER_HALF),
    )
}
"""Every version that the project promises to work with, by name."""


def cache_directory() -> Path:
    """Return the directory that holds the environments; it need not exist."""
    chosen = os.environ.get("ORS_GYM_TEST_VENVS")
    if chosen:
        return Path(chosen).expanduser()
    cache = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(cache).expanduser() / "ors_gym" / "venvs"


def ensure_venv(name: str) -> Path:
    """Return the Python of an SDK's environment, building that first if need be.

    Several processes may ask at once: one builds, the others wait for it.

    Args:
        name: A key of `SDKS`.

    Returns:
        The path of the environment's interpreter.

    Raises:
        VenvBuildError: If the SDK could not be installed.
    """
    sdk = SDKS[name]
    recipe = "\n".join((sdk.pinned, *(sdk.requirements or ("its own",))))
    digest = hashlib.sha256(recipe.encode()).hexdigest()[:10]
    python = f"py{sys.version_info.major}.{sys.version_info.minor}"
    directory = cache_directory() / f"{name}-{python}-{digest}"
    interpreter = directory / "bin" / "python"
    complete = directory / "complete"
    # The interpreter is a link, which dangles once its Python was removed.
    if complete.exists() and interpreter.exists():
        return interpreter
    directory.parent.mkdir(parents=True, exist_ok=True)
    with _locked(directory.with_name(f"{directory.name}.lock")):
        if not (complete.exists() and interpreter.exists()):
            shutil.rmtree(directory, ignore_errors=True)
            _build(sdk, directory, interpreter)
            complete.touch()
    return interpreter


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Hold an exclusive lock that ends with the process, however that ends."""
    with path.open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def _build(sdk: Sdk, directory: Path, interpreter: Path) -> None:
    if importlib.util.find_spec("pip") is None:
        raise VenvBuildError(
            f"cannot build the environment of {sdk.name}: pip is not installed "
            f"for {sys.executable}"
        )
    venv.create(directory, symlinks=True)
    if sdk.requirements is None:
        _install(sdk, interpreter, [sdk.pinned])
    else:
        _install(sdk, interpreter, sdk.requirements)
        _install(sdk, interpreter, ["--no-deps", sdk.pinned])
    # Byte code now, once, rather than in the first start of a server in each run.
    subprocess.run(
        [interpreter, "-I", "-m", "compileall", "-q", directory / "lib"],
        check=False,
        capture_output=True,
        timeout=_BUILD_SECONDS,
    )


def _install(sdk: Sdk, interpreter: Path, arguments: Sequence[str]) -> None:
    command = [sys.executable, "-m", "pip", "--python", str(interpreter), "install"]
    command += ["--quiet", "--disable-pip-version-check", "--retries", "1", *arguments]
    try:
        done = subprocess.run(
            command,
            check=False,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=_BUILD_SECONDS,
        )
    except subprocess.TimeoutExpired as error:
        raise VenvBuildError(
            f"installing {sdk.pinned} took more than {_BUILD_SECONDS:.0f} s"
        ) from error
    if done.returncode:
        raise VenvBuildError(
            f"could not install {sdk.pinned} (is there a network?): "
            f"{done.stdout.strip()[-1500:]}"
        )


def main(names: Sequence[str]) -> int:
    """Build environments and print where they are and how long that took."""
    unknown = sorted(set(names) - set(SDKS))
    if unknown:
        _say(f"unknown: {', '.join(unknown)}; known: {', '.join(SDKS)}")
        return 2
    for name in names or SDKS:
        start = time.monotonic()
        try:
            interpreter = ensure_venv(name)
        except VenvBuildError as error:
            _say(f"{name}: {error}")
            return 1
        _say(f"{name:20} {time.monotonic() - start:6.1f} s  {interpreter}")
    return 0


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
