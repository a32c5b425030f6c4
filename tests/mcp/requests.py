"""Requests of MCP as they are on the wire, for what no client would send."""

import json
from typing import Any

import httpx

ACCEPT = {"Accept": "application/json, text/event-stream"}
_MODERN = "2026-07-28"
_PARAMS = {
    "initialize": {
        "protocolVersion": "2025-11-25",
        "capabilities": {},
        "clientInfo": {"name": "test", "version": "1"},
    }
}


def call_of(method: str, number: int = 1, **params: Any) -> dict[str, Any]:
    params = params or _PARAMS.get(method, {})
    return {"jsonrpc": "2.0", "id": number, "method": method, "params": params}


async def begin(http: httpx.AsyncClient, url: str) -> str:
    """Begin a session, and return its id."""
    reply = await http.post(url, json=call_of("initialize"), headers=ACCEPT)
    session: str = reply.headers["mcp-session-id"]
    return session


async def post(
    http: httpx.AsyncClient,
    url: str,
    session: str | None,
    number: int,
    tool: str,
    **given: Any,
) -> httpx.Response:
    """Call a tool, in a session or, without one, in the version that has none."""
    params: dict[str, Any] = {"name": tool, "arguments": given}
    headers = dict(ACCEPT)
    if session is not None:
        headers["Mcp-Session-Id"] = session
    else:
        prefix = "io.modelcontextprotocol/"
        params["_meta"] = {
            f"{prefix}protocolVersion": _MODERN,
            f"{prefix}clientCapabilities": {},
        }
        headers |= {"Mcp-Protocol-Version": _MODERN, "Mcp-Method": "tools/call"}
        headers["Mcp-Name"] = tool
    request = call_of("tools/call", number, **params)
    return await http.post(url, json=request, headers=headers, timeout=60)


def read_reply(reply: httpx.Response) -> dict[str, Any]:
    """Return the result of a reply, or its error."""
    text = reply.text
    if reply.headers["content-type"].startswith("text/event-stream"):
        lines = text.replace("\r", "").split("\n")
        text = [line[6:] for line in lines if line.startswith("data: {")][-1]
    value = json.loads(text)
    found: dict[str, Any] = value.get("result") or value["error"]
    return found
