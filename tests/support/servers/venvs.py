"""Virtual environments of the server SDKs, built once and cached.

Each SDK version has its own, since openreward pins ``sse-starlette``. Only what the
*server* half of an SDK imports is installed: openreward's other requirements are
three vendors' model clients, which make an environment four times as large and its
start ten times as slow.

From a shell: ``python -m tests.support.servers.venvs [NAME...]`` builds some or all.
``ORS_GYM_TEST_VENVS`` names another place for them.
"""

import dataclasses
import sys
from pathlib import Path
from typing import Final

from tests.support.virtual_environments import Recipe, build_all, ensure


@dataclasses.dataclass(frozen=True, slots=True)
class Sdk:
    package: str
    version: str
    # Every test run needs it; the others need the mark ``old_sdks``.
    current: bool = False
    # What the SDK's server half imports; None installs what the SDK asks for.
    requirements: tuple[str, ...] | None = None

    @property
    def name(self) -> str:
        """What tests and fixtures call it, such as ``openreward-0.1.167``."""
        return f"{self.package}-{self.version}"

    @property
    def pinned(self) -> str:
        return f"{self.package}=={self.version}"

    @property
    def recipe(self) -> Recipe:
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


OFFICIAL_CLIENT: Final = Recipe(
    "openreward-client-0.1.167",
    (
        ("aiohttp", "pydantic", "structlog", "tenacity", "typing-extensions"),
        ("--no-deps", "openreward==0.1.167"),
    ),
)
"""What `official_episode.py` runs in."""


def ensure_venv(name: str) -> Path:
    return ensure(SDKS[name].recipe)


if __name__ == "__main__":
    sys.exit(build_all({sdk.name: sdk.recipe for sdk in SDKS.values()}, sys.argv[1:]))
