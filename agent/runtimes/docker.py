"""Any Docker-compatible engine over its unix socket: Docker, Podman, rootless Podman."""

from __future__ import annotations

import asyncio
import json
import random
import re
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from urllib.parse import quote

from agent.runtimes.docker_shapes import (
    Event,
    Inspected,
    Listed,
    ShapeError,
    changes_placement,
    error_message,
    parse_event,
    parse_inspect,
    parse_list,
    placed,
)
from agent.runtimes.engine_client import Answering, EngineError, asking
from agent.runtimes.http import Head, HttpError
from wire.messages import Placement

MAX_PING_BYTES = 4 * 1024
MAX_LIST_BYTES = 16 * 1024 * 1024
"""Some ten thousand containers with many labels."""
MAX_INSPECT_BYTES = 2 * 1024 * 1024
MAX_EVENT_BYTES = 1024 * 1024
"""One event carries all labels of its container."""

INSPECTIONS_AT_ONCE = 8
"""Enough to hide the round trips, few enough not to be noticed by the engine."""

FALLBACK_API = "1.41"
"""For engines that do not say theirs: the oldest that Docker and Podman of Debian 12 both speak."""

BURST_S = 0.2
"""Events within this time of the first one are one change: `compose up` sends dozens."""

FIRST_RETRY_S = 0.5
MAX_RETRY_S = 15.0
"""Longest pause before the event stream is tried again; placement reads go on meanwhile."""

_FILTERS = quote(json.dumps({"type": ["container"]}, separators=(",", ":")))
_VERSION = re.compile(r"[0-9]{1,3}\.[0-9]{1,3}")
_ID = re.compile(r"[A-Za-z0-9_.-]{1,128}")


class DockerRuntime:
    """One engine behind one socket. Implements agent.runtimes.base.Runtime."""

    def __init__(self, socket: Path, timeout_s: float = 5.0, now: Callable[[], float] = time.time) -> None:
        self.name = "docker"
        self._socket = socket
        self._timeout_s = timeout_s
        self._now = now
        self._engine = ""
        self._prefix: str | None = None
        # Descriptions stay valid only while the event stream is live and says nothing of their container.
        self._inspected: dict[str, Inspected] = {}
        self._live = False
        self._events_seen = 0

    async def placement(self) -> Placement:
        """Running containers, and those that should run; unknown with its reason after `timeout_s`."""
        reason = ""
        try:
            async with asyncio.timeout(self._timeout_s):
                return await self._read()
        except TimeoutError:
            reason = f"the engine at {self._socket} did not answer within {self._timeout_s:g} s"
        except EngineError as error:
            reason = error.text
        except ShapeError as error:
            reason = f"the engine at {self._socket} sent garbage: {error.text}"
        self._forget()
        return Placement(known=False, reason=reason[:400], engine=self._engine)

    async def changes(self) -> AsyncIterator[None]:
        """Yields after each burst of container events, and when the stream was gained or lost."""
        retry_s = FIRST_RETRY_S
        while True:
            try:
                prefix = await self._connect()
                async with asking(self._socket, f"{prefix}/events?filters={_FILTERS}") as answering:
                    _expect_ok(answering.head, b"")
                    self._stream_is(live=True)
                    retry_s = FIRST_RETRY_S
                    yield None
                    lines = _Lines(answering)
                    while await self._next_burst(lines):
                        yield None
            except (EngineError, ShapeError, TimeoutError):
                # Why is what placement() says; here only the pause before the next try matters.
                self._prefix = None
            if self._live:
                self._stream_is(live=False)
                yield None
            await asyncio.sleep(retry_s * random.uniform(0.5, 1.0))  # noqa: S311
            retry_s = min(retry_s * 2, MAX_RETRY_S)

    async def _next_burst(self, lines: _Lines) -> bool:
        """Waits for an event that matters, then for BURST_S more of them; False at the stream's end."""
        while not self._noted(line := await lines.next()):
            if line is None:
                return False
        try:
            async with asyncio.timeout(BURST_S):
                while (line := await lines.next()) is not None:
                    self._noted(line)
        except TimeoutError:
            return True
        return True  # the stream ended within the burst; the next call says so

    def _noted(self, line: bytes | None) -> bool:
        """Forget what the event outdates; whether it changes the placement."""
        if not line or not line.strip():
            return False
        event: Event = parse_event(line)
        if not changes_placement(event):
            return False
        self._events_seen += 1
        self._inspected.pop(event.container_id, None)
        return True

    def _stream_is(self, *, live: bool) -> None:
        self._live = live
        self._inspected.clear()

    def _forget(self) -> None:
        self._prefix = None
        self._inspected.clear()

    async def _read(self) -> Placement:
        prefix = await self._connect()
        listed = parse_list(await self._get(f"{prefix}/containers/json?all=1", MAX_LIST_BYTES))
        present = {item.id for item in listed}
        self._inspected = {key: value for key, value in self._inspected.items() if key in present}
        now = self._now()
        inspected = await self._inspect_all(prefix, listed)
        containers = [
            container
            for item in listed
            if (description := inspected.get(item.id)) is not None
            and (container := placed(item, description, now)) is not None
        ]
        containers.sort(key=lambda container: (container.scope, container.service, container.name))
        return Placement(known=True, engine=self._engine, containers=containers)

    async def _connect(self) -> str:
        """The path prefix of the engine's own API version: engines drop old ones (Docker 29 refuses 1.41)."""
        if self._prefix is not None:
            return self._prefix
        async with asyncio.timeout(self._timeout_s), asking(self._socket, "/_ping") as answering:
            _expect_ok(answering.head, await answering.read_all(MAX_PING_BYTES))
            fields = answering.head.fields
        version = fields.get("api-version", "")
        self._engine = _engine_name(fields.get("server", ""))
        self._prefix = f"/v{version if _VERSION.fullmatch(version) else FALLBACK_API}"
        return self._prefix

    async def _inspect_all(self, prefix: str, listed: list[Listed]) -> dict[str, Inspected]:
        """Descriptions of all listed containers by id; those that vanished meanwhile are left out."""
        limit = asyncio.Semaphore(INSPECTIONS_AT_ONCE)

        async def one(item: Listed) -> Inspected | None:
            cached = self._cached(item)
            if cached is not None:
                return cached
            async with limit:
                return await self._inspect(prefix, item.id)

        try:
            async with asyncio.TaskGroup() as group:
                tasks = {item.id: group.create_task(one(item)) for item in listed}
        except ExceptionGroup as failures:
            # Not `except*`: what is raised inside it is a group again, or not, depending on Python's patch release.
            ours, others = failures.split((EngineError, ShapeError))
            if ours is None or others is not None:
                raise
            raise ours.exceptions[0] from None
        return {key: result for key, task in tasks.items() if (result := task.result()) is not None}

    def _cached(self, item: Listed) -> Inspected | None:
        known = self._inspected.get(item.id)
        if known is None or known.state.status != item.state:
            return None
        # Without the health in the list (Podman) only a fresh description has it.
        return None if known.has_health_check and not item.health_word() else known

    async def _inspect(self, prefix: str, container_id: str) -> Inspected | None:
        if not _ID.fullmatch(container_id):
            raise ShapeError("a container's id is not one")
        events_before = self._events_seen
        async with asking(self._socket, f"{prefix}/containers/{container_id}/json") as answering:
            body = await answering.read_all(MAX_INSPECT_BYTES)
            if answering.head.status == 404:
                return None
            _expect_ok(answering.head, body)
        inspected = parse_inspect(body)
        # An event that came while we were asking may be about this container: then nothing is kept.
        if self._live and self._events_seen == events_before:
            self._inspected[container_id] = inspected
        return inspected

    async def _get(self, path: str, max_bytes: int) -> bytes:
        async with asking(self._socket, path) as answering:
            body = await answering.read_all(max_bytes)
            _expect_ok(answering.head, body)
        return body


class _Lines:
    """The lines of a body as they come. Cancelling `next` loses nothing."""

    def __init__(self, answering: Answering) -> None:
        self._answering = answering
        self._buffer = bytearray()

    async def next(self) -> bytes | None:
        """The next line without its end; None when the stream ended."""
        while (end := self._buffer.find(b"\n")) < 0:
            if len(self._buffer) > MAX_EVENT_BYTES:
                raise HttpError("an event is too long")
            piece = await self._answering.read()
            if not piece:
                return None
            self._buffer += piece
        line = bytes(self._buffer[:end])
        del self._buffer[: end + 1]
        return line


def _expect_ok(head: Head, body: bytes) -> None:
    if head.status != 200:
        message = error_message(body)
        raise EngineError(f"the engine answered {head.status}" + (f": {message}" if message else ""))


def _engine_name(server: str) -> str:
    """`Podman 4.3.1` of `Libpod/4.3.1 (linux)`, `Docker 28.2.2` of `Docker/28.2.2 (linux)`."""
    program, _, version = server.partition(" ")[0].partition("/")
    return f"{'Podman' if program == 'Libpod' else program} {version}".strip()[:80]
