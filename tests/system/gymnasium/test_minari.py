"""Minari records an env's text and calls, and gives them back.

Recording with Minari needs jax, and Arrow is large: 0.9 GB in all, so it has a virtual
environment of its own, which is cached.
"""

from __future__ import annotations

import os

import pytest

from tests.support.processes import run
from tests.support.virtual_environments import (
    ROOT,
    Recipe,
    VenvBuildError,
    ensure,
    own_requirements,
    write_metadata,
)

VERSION = "0.5.4"


# Its storages import Pillow without asking for it.
RECIPE = Recipe(
    "minari",
    ((f"minari[create,hdf5,arrow]=={VERSION}", "pillow", *own_requirements()),),
)


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("data_format", ["hdf5", "arrow"])
def test_a_dataset_gives_back_what_was_played(server, data_format, tmp_path):
    try:
        python = ensure(RECIPE)
    except VenvBuildError as error:
        pytest.skip(str(error))
    environment = {
        "MINARI_DATASETS_PATH": str(tmp_path / "datasets"),
        "PYTHONPATH": f"{ROOT}{os.pathsep}{write_metadata(tmp_path / 'metadata')}",
    }
    module = "tests.system.gymnasium.minari_recording"
    command = (python, "-m", module, server.base_url, data_format)
    done = run(*command, cwd=tmp_path, environment=environment, seconds=300)
    assert done.returncode == 0, (done.stdout + done.stderr)[-4000:]
