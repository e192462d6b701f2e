"""An invented container engine: the few paths of the Docker Engine API (v1.41) that the agent reads, on a unix socket.

`python -m sim.engine FILE` serves one engine per node of a demo fleet, as FILE (JSON, see `serve_file`) says,
and restarts a node's containers when the node boots.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import sys
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

_BOOT_POLL_S = 0.5
"""How often a node's boot file is looked at; a reboot of a demo node takes about a second."""
_REQUEST_BYTES = 16 * 1024
_WORDS = {"starting": "health: starting", "healthy": "healthy", "unhealthy": "unhealthy"}
"""As Docker ends the status of a container that has a health check."""


@dataclass
class InventedContainer:
    """One container; `labels` as an orchestrator would set them."""

    name: str
    image: str
    labels: dict[str, str] = field(default_factory=dict)
    running: bool = True
    health: str = "healthy"
    """Of one that runs: starting, healthy or unhealthy."""
    started_at: float = field(default_factory=time.time)

    @property
    def id(self) -> str:
        return hashlib.sha256(self.name.encode()).hexdigest()

    def listed(self) -> dict[str, object]:
        """The item of `GET /containers/json`."""
        return {
            "Id": self.id,
            "Names": [f"/{self.name}"],
            "Image": self.image,
            "ImageID": "sha256:" + hashlib.sha256(self.image.encode()).hexdigest(),
            "Command": "/serve",
            "Created": int(self.started_at),
            "Ports": [],
            "Labels": self.labels,
            "State": "running" if self.running else "exited",
            "Status": f"Up ({_WORDS[self.health]})" if self.running else "Exited (0)",
            "HostConfig": {"NetworkMode": "none"},
            "NetworkSettings": {"Networks": {}},
            "Mounts": [],
        }

    def inspected(self) -> dict[str, object]:
        """The answer of `GET /containers/{id}/json`, as far as anybody looks."""
        return {
            "Id": self.id,
            "Name": f"/{self.name}",
            "Image": self.image,
            "State": {
                "Status": "running" if self.running else "exited",
                "Running": self.running,
                "StartedAt": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(self.started_at)),
                "Health": {"Status": self.health if self.running else "none"},
                "ExitCode": 0,
            },
            "RestartCount": 0,
            "HostConfig": {"RestartPolicy": {"Name": "always" if self.running else "no"}},
            "Config": {"Labels": self.labels, "Image": self.image},
        }


class InventedEngine:
    """One engine with its containers; change them by the methods, so that listeners hear of it."""

    def __init__(self, socket: Path, containers: list[InventedContainer]) -> None:
        self.socket = socket
        self.containers = {container.name: container for container in containers}
        self._listeners: set[asyncio.Queue[bytes]] = set()
        self._server: asyncio.Server | None = None

    async def start(self) -> None:
        self.socket.parent.mkdir(parents=True, exist_ok=True)
        with suppress(FileNotFoundError):
            self.socket.unlink()
        self._server = await asyncio.start_unix_server(self._serve, self.socket, limit=_REQUEST_BYTES)

    async def stop(self) -> None:
        if self._server:
            self._server.close()
            for queue in tuple(self._listeners):
                queue.put_nowait(b"")
            await self._server.wait_closed()

    def set_running(self, name: str, running: bool) -> None:
        """Start or stop a container and tell it."""
        container = self.containers[name]
        container.running = running
        container.started_at = time.time() if running else container.started_at
        self._tell(container, "start" if running else "die")

    def set_health(self, name: str, health: str) -> None:
        """What the health check of a container finds, and tell it."""
        self.containers[name].health = health
        self._tell(self.containers[name], f"health_status: {health}")

    def reboot(self) -> None:
        """All containers start anew, as after a boot of the node."""
        for name in self.containers:
            self.set_running(name, True)

    def _tell(self, container: InventedContainer, action: str) -> None:
        event = {
            "Type": "container",
            "Action": action,
            "Actor": {"ID": container.id, "Attributes": {"image": container.image, "name": container.name}},
            "scope": "local",
            "time": int(time.time()),
            "timeNano": time.time_ns(),
        }
        line = json.dumps(event).encode() + b"\n"
        for queue in self._listeners:
            queue.put_nowait(line)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            head = await reader.readuntil(b"\r\n\r\n")
            target = head.split(b" ", 2)[1].decode()
            path = urlsplit(target).path
            if path.endswith("/events"):
                await self._stream(writer)
            else:
                writer.write(self._answer(path, parse_qs(urlsplit(target).query)))
                await writer.drain()
        writer.close()

    async def _stream(self, writer: asyncio.StreamWriter) -> None:
        queue: asyncio.Queue[bytes] = asyncio.Queue()
        self._listeners.add(queue)
        try:
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n")
            await writer.drain()
            while line := await queue.get():
                writer.write(b"%x\r\n%s\r\n" % (len(line), line))
                await writer.drain()
        finally:
            self._listeners.discard(queue)

    def _answer(self, path: str, query: dict[str, list[str]]) -> bytes:
        parts = path.strip("/").split("/")
        if parts and parts[0].startswith("v1."):
            parts = parts[1:]
        if parts == ["_ping"]:
            return _response(200, b"OK", "text/plain")
        if parts in (["info"], ["version"]):
            return _json(200, {"Version": "0", "ApiVersion": "1.41", "Swarm": {"LocalNodeState": "inactive"}})
        if parts == ["containers", "json"]:
            every = query.get("all", ["0"])[0] in ("1", "true")
            return _json(200, [c.listed() for c in self.containers.values() if every or c.running])
        if len(parts) == 3 and parts[0] == "containers" and parts[2] == "json":
            for container in self.containers.values():
                if parts[1] in (container.id, container.name):
                    return _json(200, container.inspected())
        return _json(404, {"message": f"no such thing: {path}"})


def _json(status: int, value: object) -> bytes:
    return _response(status, json.dumps(value).encode(), "application/json")


def _response(status: int, body: bytes, kind: str) -> bytes:
    reason = {200: "OK", 404: "Not Found"}[status]
    head = f"HTTP/1.1 {status} {reason}\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n"
    return head.encode() + b"Connection: close\r\n\r\n" + body


async def serve_file(file: Path) -> None:
    """Serve until cancelled.

    FILE: `[{"socket": PATH, "boot_file": PATH, "containers": [{"name", "image", "labels"}]}]`.
    """
    nodes = json.loads(file.read_text())
    async with asyncio.TaskGroup() as group:
        for node in nodes:
            engine = InventedEngine(Path(node["socket"]), [InventedContainer(**c) for c in node["containers"]])
            await engine.start()
            group.create_task(_restart_at_boot(engine, Path(node["boot_file"])))


async def _restart_at_boot(engine: InventedEngine, boot_file: Path) -> None:
    known = ""
    while True:
        with suppress(FileNotFoundError):
            boot_id = json.loads(boot_file.read_text())["boot_id"]
            if known and boot_id != known:
                engine.reboot()
            known = boot_id
        await asyncio.sleep(_BOOT_POLL_S)


if __name__ == "__main__":
    asyncio.run(serve_file(Path(sys.argv[1])))
