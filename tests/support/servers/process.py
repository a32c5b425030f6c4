"""A server of one SDK version in a child process, and the log of what it ran."""

import contextlib
import hashlib
import json
import os
import selectors
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Any, Final

from tests.support.ports import port_of, reserve_port
from tests.support.servers.venvs import SDKS, Sdk, ensure_venv

_DIRECTORY: Final = Path(__file__).parent
_START_SECONDS: Final = 60.0
_END_SECONDS: Final = 20.0
_LAST_DELETE_SECONDS: Final = 90.0
"""A session whose delete may have come before its set-up is deleted again in 60 s."""


class ServerStartError(Exception):
    """Raised when a server does not come up; carries what it wrote to stderr."""


class RunningServer:
    """A running server; `start_server` makes it."""

    def __init__(self, sdk: Sdk, options: Sequence[str]) -> None:
        self.sdk = sdk
        self._reserved = reserve_port()
        self.port = port_of(self._reserved)
        self._directory = Path(tempfile.mkdtemp(prefix="ors-gym-server-"))
        self._log_path = self._directory / "runs.jsonl"
        self._log_path.touch()
        self._error_path = self._directory / "stderr.txt"
        self._options = list(options)
        self._mark = 0
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def base_url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def named_url(self) -> str:
        """The base URL with a name that has to be looked up, as localhost has not."""
        return f"http://127.1:{self.port}"

    @property
    def pid(self) -> int:
        if self._process is None:
            raise RuntimeError("the server is not running")
        return self._process.pid

    def start(self) -> None:
        """Start the child and wait, at most a minute, until it serves."""
        if self._process is not None:
            raise RuntimeError("the server is running already")
        command = [str(ensure_venv(self.sdk.name)), "-s", "-B", "-m", "contract"]
        command += ["--log", str(self._log_path), "--port", str(self.port)]
        environment = {
            "HOME": str(self._directory),
            "LOG_LEVEL": "WARNING",
            "PATH": os.defpath,
            "PYTHONPATH": str(_DIRECTORY),
            "PYTHONUTF8": "1",
        }
        with self._error_path.open("ab") as errors:
            process = subprocess.Popen(
                [*command, *self._options],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                env=environment,
            )
        self._process = process
        assert process.stdout is not None
        line = _read_line(process.stdout, _START_SECONDS)
        if not line.endswith(b"\n"):
            self.kill()
            raise ServerStartError(
                f"the server of {self.sdk.name} did not start; stderr: {self.stderr()}"
            )
        assert json.loads(line) == {"port": self.port}

    def kill(self) -> None:
        """End the child as SIGKILL does: nothing is torn down, nothing answered."""
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        self._end(signal.SIGKILL)
        self._reserved.close()
        shutil.rmtree(self._directory, ignore_errors=True)

    def pause(self) -> None:
        os.kill(self.pid, signal.SIGSTOP)

    def resume(self) -> None:
        os.kill(self.pid, signal.SIGCONT)

    def restart(self) -> None:
        self.kill()
        self.start()

    def _end(self, number: int) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        process.send_signal(number)
        process.wait(_END_SECONDS)
        for stream in (process.stdin, process.stdout):
            if stream is not None:
                stream.close()

    def stderr(self) -> str:
        return self._error_path.read_text(errors="replace")[-4000:]

    def mark(self) -> None:
        """Let `log` and all that counts begin from here."""
        self._mark = self._log_path.stat().st_size

    def log(self, event: str | None = None, **fields: Any) -> list[dict[str, Any]]:
        """Return the entries since the mark, of this kind and with these values."""
        with self._log_path.open("rb") as handle:
            if self._mark:
                # A file grows page by page, so half of a line may lie before the mark.
                handle.seek(self._mark - 1)
                handle.readline()
            # A killed server may leave half of a line.
            lines = [line for line in handle if line.endswith(b"\n")]
        entries: list[dict[str, Any]] = [json.loads(line) for line in lines]
        if event is not None:
            fields["event"] = event
        return [e for e in entries if all(e.get(k) == v for k, v in fields.items())]

    def whole_log(self) -> list[bytes]:
        """Return the lines since the beginning, whatever the mark."""
        lines = self._log_path.read_bytes().splitlines(keepends=True)
        return [line for line in lines if line.endswith(b"\n")]

    def runs(self, tool: str | None = None, **fields: Any) -> int:
        if tool is not None:
            fields["tool"] = tool
        return len(self.log("run", **fields))

    def rewards(self, **fields: Any) -> list[float | None]:
        given = [entry["reward"] for entry in self.log("done", **fields)]
        return [None if reward is None else float(reward) for reward in given]

    def check_spoken(self, *texts: str) -> None:
        """Check that these are, to the last character, what `speak` returned."""
        for entry, text in zip(self.log("done", tool="speak"), texts, strict=True):
            assert len(text) == entry["text_length"]
            assert hashlib.sha256(text.encode()).hexdigest() == entry["text_sha256"]

    def open_sessions(self) -> set[str]:
        began = {entry["session"] for entry in self.log("ready")}
        return began - {entry["session"] for entry in self.log("teardown")}

    def wait_for(
        self,
        event: str,
        count: int = 1,
        *,
        seconds: float = _END_SECONDS,
        **fields: Any,
    ) -> None:
        found: list[dict[str, Any]] = []
        for _ in self._growths(seconds):
            found = self.log(event, **fields)
            if len(found) >= count:
                return
        seen = [(e["event"], e.get("session")) for e in self.log()[-20:]]
        raise TimeoutError(
            f"{len(found)} of {count} entries {event} {fields} after {seen}"
        )

    def wait_until_none_is_open(self, seconds: float = _LAST_DELETE_SECONDS) -> None:
        """Wait until each session that began has ended."""
        for _ in self._growths(seconds):
            if not self.open_sessions():
                return
        raise TimeoutError(f"still open are {self.open_sessions()}")

    def _growths(self, seconds: float) -> Iterator[None]:
        """Yield at once, and then whenever the log has grown, for some seconds."""
        # Read again only what has grown: many tests wait at the same time.
        deadline = time.monotonic() + seconds
        size = -1
        while time.monotonic() <= deadline:
            if size != (size := self._log_path.stat().st_size):
                yield
            time.sleep(0.005)


def _read_line(stream: IO[bytes], seconds: float) -> bytes:
    """Read up to a line end, the end of the stream, or the deadline."""
    deadline = time.monotonic() + seconds
    line = b""
    with selectors.DefaultSelector() as selector:
        selector.register(stream, selectors.EVENT_READ)
        while not line.endswith(b"\n"):
            left = deadline - time.monotonic()
            if left <= 0 or not selector.select(left):
                break
            piece = os.read(stream.fileno(), 4096)
            if not piece:
                break
            line += piece
    return line


@contextlib.contextmanager
def start_server(
    name: str,
    *,
    keep_alive: int = 60,
    environments: Sequence[str] | None = None,
    setup_wait: float | None = None,
    linger: float | None = None,
) -> Iterator[RunningServer]:
    """Serve the contract environments with one SDK version.

    The child ends with the block, and with this process however that ends: it reads a
    pipe whose other end is held here. `setup_wait` stands in place of the 25 s of
    set-up after which openreward 0.1.167 answers ``starting``, `linger` in place of
    the 60 s for which a result is kept.
    """
    options = ["--keep-alive", str(keep_alive)]
    if environments is not None:
        options += ["--environments", ",".join(environments)]
    if setup_wait is not None:
        options += ["--setup-wait", str(setup_wait)]
    if linger is not None:
        options += ["--linger", str(linger)]
    server = RunningServer(SDKS[name], options)
    try:
        server.start()
        yield server
    finally:
        server.stop()
