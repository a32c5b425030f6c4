"""Writes the locks of the tests' cached virtual environments, with uv.

    python -m tests.locks [NAME...] [-- ARGUMENTS OF `uv pip compile`]

A version that still fits stays as it is, but for ``--upgrade``. An environment whose
lock changes is built anew when it is next asked for.
"""

import subprocess
import sys
from collections.abc import Sequence
from typing import Final

from tests.integrations.venvs import GROUPS
from tests.support.servers.venvs import OFFICIAL_CLIENT, SDKS
from tests.support.virtual_environments import Recipe
from tests.system.gymnasium.test_minari import RECIPE as MINARI

RECIPES: Final = {
    recipe.name: recipe
    for recipe in (
        *(sdk.recipe for sdk in SDKS.values()),
        *(OFFICIAL_CLIENT, MINARI),
        *(group.recipe for group in GROUPS.values()),
    )
}
"""Every environment that pip builds, by name."""

_COMPILE: Final = (
    "uv pip compile - --universal --python-version 3.11 --quiet --no-annotate"
    " --custom-compile-command"
)


def main(arguments: Sequence[str]) -> int:
    listed = [*arguments, "--"]
    place = listed.index("--")
    names, options = listed[:place], listed[place + 1 : -1]
    for name in names or RECIPES:
        _write(RECIPES[name], options)
    return 0


def _write(recipe: Recipe, options: Sequence[str]) -> None:
    told = f"python -m tests.locks {recipe.name}"
    command = [*_COMPILE.split(), told, "--output-file", str(recipe.lock), *options]
    asked = "\n".join(map(str, recipe.requirements))
    subprocess.run(
        command, input=asked, text=True, check=True, stdout=subprocess.DEVNULL
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
