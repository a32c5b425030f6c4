"""Virtual environments of the server SDKs, built once and cached.

Each SDK version has its own, since openreward pins ``sse-starlette``. Only what the
*server* half of an SDK imports is installed: openreward's other requirements are
three vendors' model clients, which make an environment four times as large and its
start ten times as slow.

From a shell: ``python -m tests.support.servers.venvs [NAME...]`` builds some or all.
``ORS_GYM_TEST_VENVS`` names another place for them.
"""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path
from typing import Final

from tests.support.virtual_environments import Recipe, VenvBuildError, build_all, ensure

__all__ = ["SDKS", "Sdk", "VenvBuildError", "ensure_venv"]


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

    @property
    def recipe(self) -> Recipe:
        """How its environment is made."""
        if self.requirements is None:
            return Recipe(self.name, ((self.pinned,),))
        return Recipe(self.name, (self.requirements, ("--no-deps", self.pinned)))


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


def ensure_venv(name: str) -> Path:
    """Return the Python of an SDK's environment, building that first if need be.

    Args:
        name: A key of `SDKS`.

    Returns:
        The path of the environment's interpreter.

    Raises:
        VenvBuildError: If the SDK could not be installed.
    """
    return ensure(SDKS[name].recipe)


if __name__ == "__main__":
    sys.exit(build_all({sdk.name: sdk.recipe for sdk in SDKS.values()}, sys.argv[1:]))
