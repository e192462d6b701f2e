"""An engine that answers with what a test tells it, byte for byte, on a real unix socket."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

Reply = Callable[[asyncio.StreamWriter], Awaitable[None]]


def answer(body: bytes | str | list[Any] | dict[str, Any], status: int = 200, fields: str = "") -> bytes:
    """A whole answer with its length, as Go's server sends it."""
    raw = body if isinstance(body, bytes) else (body if isinstance(body, str) else json.dumps(body)).encode()
    head = f"HTTP/1.1 {status} Something\r\nContent-Type: application/json\r\n{fields}"
    return f"{head}Content-Length: {len(raw)}\r\n\r\n".encode() + raw


def chunked(body: bytes, size: int) -> bytes:
    """The same with chunked coding, in chunks of `size`."""
    pieces = [body[i : i + size] for i in range(0, len(body), size)]
    framed = b"".join(f"{len(piece):x}\r\n".encode() + piece + b"\r\n" for piece in pieces)
    return b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + framed + b"0\r\n\r\n"


PING = answer("OK", fields="Api-Version: 1.43\r\nServer: Docker/24.0.7 (linux)\r\n")


class FakeEngine:
    """Replies by the start of the path; `asked` keeps every path. Unanswered paths are 404."""

    def __init__(self) -> None:
        self.replies: dict[str, bytes | Reply] = {"/_ping": PING}
        self.asked: list[str] = []
        self.event_streams: list[asyncio.StreamWriter] = []

    def containers(self, *items: dict[str, Any], version: str = "1.43") -> None:
        """List these, each with the description under its key `inspect`."""
        listed = [{key: value for key, value in item.items() if key != "inspect"} for item in items]
        self.replies[f"/v{version}/containers/json"] = answer(listed)
        for item in items:
            self.replies[f"/v{version}/containers/{item['Id']}/json"] = answer(item["inspect"])

    def stream_events(self, version: str = "1.43") -> None:
        """Keep event streams open; `send_event` feeds them."""
        self.replies[f"/v{version}/events"] = self._open_stream

    async def _open_stream(self, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        self.event_streams.append(writer)
        await writer.wait_closed()

    def send_event(self, event: dict[str, Any]) -> None:
        self.send_raw_event(json.dumps(event).encode() + b"\n")

    def send_raw_event(self, line: bytes) -> None:
        for writer in self.event_streams:
            writer.write(f"{len(line):x}\r\n".encode() + line + b"\r\n")

    def drop_streams(self) -> None:
        for writer in self.event_streams:
            writer.close()
        self.event_streams.clear()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            request = await reader.readuntil(b"\r\n\r\n")
            path = request.split(b" ")[1].decode()
            self.asked.append(path)
            reply = next((r for start, r in self.replies.items() if path.startswith(start)), None)
            if callable(reply):
                await reply(writer)
            else:
                writer.write(reply if reply is not None else answer({"message": "no such path"}, 404))
                await writer.drain()
        except (ConnectionError, asyncio.IncompleteReadError):
            return  # the client gave up: that is what some tests are about
        finally:
            writer.close()

    @asynccontextmanager
    async def listening(self, socket: Path) -> AsyncIterator[FakeEngine]:
        server = await asyncio.start_unix_server(self._serve, socket)
        try:
            yield self
        finally:
            self.drop_streams()
            server.close()
            await server.wait_closed()


def container(
    container_id: str,
    name: str,
    *,
    state: str = "running",
    status: str = "Up 3 minutes",
    labels: dict[str, str] | None = None,
    policy: str = "no",
    **state_fields: Any,
) -> dict[str, Any]:
    """One item of the list as Docker sends it, with its description."""
    return {
        "Id": container_id,
        "Names": [f"/{name}"],
        "Image": "nginx:1.27",
        "ImageID": "sha256:" + "a" * 64,
        "Created": 1790000000,
        "Labels": labels or {},
        "State": state,
        "Status": status,
        "HostConfig": {"NetworkMode": "bridge"},
        "inspect": {
            "Id": container_id,
            "Name": f"/{name}",
            "RestartCount": state_fields.pop("RestartCount", 0),
            "State": {
                "Status": state,
                "ExitCode": 0,
                "Error": "",
                "OOMKilled": False,
                "StartedAt": "2026-09-21T14:13:20.123456789Z",
                "FinishedAt": "0001-01-01T00:00:00Z",
                **state_fields,
            },
            "HostConfig": {"RestartPolicy": {"Name": policy, "MaximumRetryCount": 0}},
            "Config": {"Healthcheck": None},
        },
    }
