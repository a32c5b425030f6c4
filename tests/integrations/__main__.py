"""Runs the tests of the frameworks, each group in its own virtual environment.

    python -m tests.integrations [GROUP...] [--slow] [-- PYTEST ARGUMENTS]

What is missing is built first, which takes minutes once. With test files among the
arguments of pytest only these run, in the one group that they belong to; with
notebooks (and ``--nbmake``) only those, in every group that is named.
"""

import argparse
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final
from xml.etree import ElementTree as ET

from tests.integrations.venvs import GROUPS, Group, files_of
from tests.support.servers.venvs import ensure_venv
from tests.support.virtual_environments import (
    ROOT,
    VenvBuildError,
    ensure,
    write_metadata,
)

_NOTHING_CHOSEN: Final = 5  # what pytest exits with if it deselected every test
_ADDOPTS: Final = "-ra --strict-config --strict-markers --import-mode=importlib"


def main(arguments: Sequence[str]) -> int:
    """Run the groups, print how each ended, and return 1 if one failed."""
    ours, theirs = _split(arguments)
    parser = argparse.ArgumentParser(
        prog="python -m tests.integrations", description=__doc__
    )
    parser.add_argument("group", nargs="*", choices=[*GROUPS, []], metavar="GROUP")
    parser.add_argument("--slow", action="store_true", help="the slow tests instead")
    options = parser.parse_args(ours)
    closing = []
    for name in options.group or GROUPS:
        start = time.monotonic()
        code, line = _run(GROUPS[name], options.slow, theirs)
        seconds = time.monotonic() - start
        closing.append((code, f"{name:10} {seconds:6.0f} s  {line}"))
    for _, line in closing:
        sys.stdout.write(f"{line}\n")
    return int(any(code for code, _ in closing))


def _split(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    listed = list(arguments)
    place = listed.index("--") if "--" in listed else len(listed)
    return listed[:place], listed[place + 1 :]


def _run(group: Group, slow: bool, arguments: Sequence[str]) -> tuple[int, str]:
    """Run a group's tests, and return an exit code and pytest's closing line."""
    files, options = _choose(group, arguments)
    if not files:
        return 0, "no such tests"
    try:
        python = ensure(group.recipe)
        ensure_venv("ors-sdk-0.1.0")
    except VenvBuildError as error:
        return 1, str(error)
    # As in setup.cfg.
    unreadable = "ignore:.*no tool call could be read:UserWarning"
    filters = "\n".join(("error", unreadable, *group.warnings))
    command = [str(python), "-m", "pytest", "-p", "no:cacheprovider", "-q"]
    command += ["-o", f"addopts={_ADDOPTS}", "-o", f"filterwarnings={filters}"]
    command += ["-m", "slow" if slow else "not slow", "--doctest-modules"]
    command += [*options, *files]
    with tempfile.TemporaryDirectory() as directory:
        report = Path(directory, "report.xml")
        command.append(f"--junitxml={report}")
        # Its output is not read here: what frameworks start may outlive it.
        environment = _environment(Path(directory))
        code = subprocess.run(
            command, check=False, cwd=ROOT, env=environment
        ).returncode
        if code == _NOTHING_CHOSEN:
            return 0, "no such tests"
        return code, _summarise(report) if report.exists() else f"exit code {code}"


def _choose(group: Group, arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """Return the files that a group runs, and pytest's other arguments.

    Its own files are tests, and modules with examples. Named files that belong to no
    group, such as notebooks, run in each.
    """
    named: dict[str, Path] = {}
    for argument in arguments:
        path = Path(argument.partition("::")[0]).resolve()
        if path.suffix in (".py", ".ipynb") and path.is_file():
            named[argument] = path
    options = [argument for argument in arguments if argument not in named]
    own = files_of(group.name)
    own += [ROOT / "ors_gym" / "integrations" / name for name in group.examples]
    if not named:
        return [str(path) for path in own], options
    elsewhere = {path for name in GROUPS for path in files_of(name)} - set(own)
    return [a for a, path in named.items() if path not in elsewhere], options


def _summarise(report: Path) -> str:
    suite = ET.parse(report).getroot()[0]
    names = ("tests", "failures", "errors", "skipped")
    total, failed, broken, skipped = (int(suite.attrib[name]) for name in names)
    passed = total - failed - broken - skipped
    counts = {"passed": passed, "failed": failed, "errors": broken, "skipped": skipped}
    told = ", ".join(f"{number} {what}" for what, number in counts.items() if number)
    return f"{told or 'no tests ran'} in {float(suite.attrib['time']):.0f} s"


def _environment(directory: Path) -> dict[str, str]:
    path = os.pathsep.join((str(ROOT), str(write_metadata(directory))))
    # More threads than this make the small networks of tests no faster.
    threads = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    quiet = {"HF_HUB_OFFLINE": "1", "PYTHONDONTWRITEBYTECODE": "1"}
    return {**os.environ, **threads, **quiet, "PYTHONPATH": path}


def _end(number: int, frame: object) -> None:
    """End as after Ctrl-C, so that pytest does not go on alone."""
    del frame
    raise SystemExit(128 + number)


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, _end)
    sys.exit(main(sys.argv[1:]))
