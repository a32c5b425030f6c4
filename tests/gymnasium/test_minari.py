"""Minari records an env's text and calls, and gives them back.

Recording with Minari needs jax, and Arrow is large: 0.9 GB in all, so it has a virtual
environment of its own, which is cached.
"""

from __future__ import annotations

import importlib.metadata
import os
import subprocess
from pathlib import Path

import pytest

import ors_gym
from tests.servers import venvs
from tests.servers.process import RunningServer

ROOT = Path(ors_gym.__file__).parents[1]
VERSION = "0.5.4"


def minari() -> venvs.Sdk:
    required = importlib.metadata.requires("ors-gym") or []
    own = tuple(line for line in required if "extra ==" not in line)
    # Its storages import Pillow without asking for it.
    wanted = (f"minari[create,hdf5,arrow]=={VERSION}", "pillow", *own)
    return venvs.Sdk("minari", VERSION, requirements=wanted)


def link_metadata(directory: Path) -> Path:
    """Make a directory from which Python knows of this package's version."""
    files = importlib.metadata.files("ors-gym") or []
    (metadata,) = (file for file in files if file.name == "METADATA")
    described = Path(str(metadata.locate())).resolve().parent
    directory.mkdir()
    (directory / described.name).symlink_to(described)
    return directory


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.xdist_group("minari")
@pytest.mark.parametrize("data_format", ["hdf5", "arrow"])
def test_a_dataset_gives_back_what_was_played(
    server: RunningServer,
    data_format: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    sdk = minari()
    monkeypatch.setitem(venvs.SDKS, sdk.name, sdk)
    try:
        python = venvs.ensure_venv(sdk.name)
    except venvs.VenvBuildError as error:
        pytest.skip(str(error))
    environment = {
        **os.environ,
        "MINARI_DATASETS_PATH": str(tmp_path / "datasets"),
        "PYTHONPATH": f"{ROOT}{os.pathsep}{link_metadata(tmp_path / 'metadata')}",
    }
    module = "tests.gymnasium.minari_recording"
    done = subprocess.run(
        [python, "-m", module, server.base_url, data_format],
        check=False,
        cwd=tmp_path,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout[-4000:]
