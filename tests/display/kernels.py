"""A notebook kernel whose cells a test runs, and what they show."""

import contextlib
import os
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

from jupyter_client.manager import KernelManager


class Kernel:
    def __init__(self, client: Any) -> None:
        self._client = client

    def run(self, code: str) -> list[dict[str, Any]]:
        """Return what a cell showed, by media type or as ``{"stdout": text}``."""
        shown: list[dict[str, Any]] = []

        def keep(message: Any) -> None:
            content = message["content"]
            if message["msg_type"] in ("display_data", "execute_result"):
                shown.append(content["data"])
            elif message["msg_type"] == "stream":
                shown.append({content["name"]: content["text"]})

        reply = self._client.execute_interactive(code, timeout=60, output_hook=keep)
        if reply["content"]["status"] != "ok":
            raise RuntimeError("\n".join(reply["content"]["traceback"]))
        return shown

    def set_state(self, model_id: str, **state: Any) -> None:
        """Change a widget's state, with the message that a front end sends."""
        self._send(model_id, {"method": "update", "state": state, "buffer_paths": []})

    def click(self, model_id: str, times: int = 1) -> None:
        """Click on a button so many times at one moment, as a front end does."""
        data = {"method": "custom", "content": {"event": "click"}}
        date = datetime.now(UTC)
        for _ in range(times):
            self._send(model_id, data, date)

    def _send(
        self, model_id: str, data: dict[str, Any], date: datetime | None = None
    ) -> None:
        content = {"comm_id": model_id, "data": data}
        message = self._client.session.msg("comm_msg", content)
        message["header"]["date"] = date or message["header"]["date"]
        self._client.shell_channel.send(message)


@contextlib.contextmanager
def open_kernel() -> Iterator[Kernel]:
    """Start a kernel whose ORS server is the embedded one, and end it."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith("ORS_")}
    # Not over TCP: it would take ports that were free when they were chosen, and that
    # another test's connection may have by then.
    manager = KernelManager(transport="ipc")
    manager.start_kernel(env=environment)
    client = manager.client()
    try:
        client.start_channels()
        client.wait_for_ready(timeout=60)
        yield Kernel(client)
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)
