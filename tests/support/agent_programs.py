"""Installs the agent programs that the tests drive, outside the checkout.

    python -m tests.support.agent_programs

They come from npm, in the versions that ``ors_gym/agents/programs.toml`` names.
"""

import sys
from pathlib import Path
from typing import Final

from ors_gym.agents import AGENT_PROGRAMS
from tests.support.npm import ensure_packages

PACKAGES: Final = {
    name: f"{program.install.split()[-1]}@{program.tried_with}"
    for name, program in AGENT_PROGRAMS.items()
}
"""What is installed for each program."""


def ensure_agent_programs() -> Path:
    """Return the directory of the programs, installing them first if need be."""
    return ensure_packages("agent-programs", PACKAGES.values())


if __name__ == "__main__":
    sys.stdout.write(f"{ensure_agent_programs()}\n")
