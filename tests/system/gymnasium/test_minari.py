"""Minari records an env's text and calls, and gives them back.

Recording with Minari needs jax, and Arrow is large: 0.9 GB in all, so it has a virtual
environment of its own, which is cached.
"""

import os

import pytest

from tests.support import virtual_environments as venvs
from tests.support.processes import run

VERSION = "0.5.4"


# Its storages import Pillow without asking for it.
RECIPE = venvs.Recipe(
    "minari",
    ((f"minari[create,hdf5,arrow]=={VERSION}", "pillow", *venvs.own_requirements()),),
)


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("data_format", ["hdf5", "arrow"])
def test_a_dataset_gives_back_what_was_played(server, data_format, tmp_path):
    try:
        python = venvs.ensure(RECIPE)
    except venvs.VenvBuildError as error:
        pytest.skip(str(error))
    metadata = venvs.write_metadata(tmp_path / "metadata")
    environment = {
        "MINARI_DATASETS_PATH": str(tmp_path / "datasets"),
        "PYTHONPATH": f"{venvs.ROOT}{os.pathsep}{metadata}",
    }
    module = "tests.system.gymnasium.minari_recording"
    command = (python, "-m", module, server.base_url, data_format)
    done = run(*command, cwd=tmp_path, environment=environment, seconds=300)
    assert done.returncode == 0, (done.stdout + done.stderr)[-4000:]
