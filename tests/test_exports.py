"""The public names are all there, sorted, and light to import."""

from __future__ import annotations

import subprocess
import sys

import ors_gym

HEAVY = (
    *("scipy", "matplotlib", "tqdm", "pandas", "ray", "openai"),
    *("jsonschema", "PIL", "ors"),
)


def test_every_public_name_can_be_had() -> None:
    assert sorted(ors_gym.__all__) == ors_gym.__all__
    assert set(ors_gym.__all__) == set(ors_gym._MODULES) <= set(dir(ors_gym))
    for name in ors_gym.__all__:
        assert getattr(ors_gym, name).__module__.startswith("ors_gym")


def test_the_import_brings_nothing_heavy_and_opens_no_connection() -> None:
    script = f"""
import socket, sys
def refuse(*_, **__):
    raise AssertionError("a connection at import")
socket.socket.connect = refuse
import gymnasium, httpx
before = set(sys.modules)
import ors_gym
print(sorted({set(HEAVY)!r} & (set(sys.modules) - before)))
"""
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert done.stdout == "[]\n"


def test_submodules_need_no_import_of_their_own() -> None:
    script = """
import ors_gym
print(ors_gym.server.serve, ors_gym.wrappers.DiscreteTools, ors_gym.rollout)
"""
    subprocess.run([sys.executable, "-c", script], capture_output=True, check=True)


def test_a_name_that_is_not_there() -> None:
    try:
        _ = ors_gym.nothing
    except AttributeError as error:
        assert "nothing" in str(error)
    else:
        raise AssertionError("there is no such name")
