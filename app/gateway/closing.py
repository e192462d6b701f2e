"""Closing connections with a typed code, without waiting for the other end, and saying so once a minute a node."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Sequence
from typing import Any

import structlog
from websockets.asyncio.server import ServerConnection
from websockets.exceptions import ConnectionClosed

from app.gateway.counts import Counts
from app.gateway.link import NodeLink
from wire.close import CloseCode

log = structlog.get_logger(__name__)

_SAY_EVERY_S = 60.0
_REMEMBERED = 10_000
"""Nodes whose last log line is remembered; more are only said more often."""
_REASON_BYTES = 120
"""RFC 6455 §5.5: a close frame holds 123 bytes of reason."""


class Closer:
    """Runs small tasks to their end. Field: counts."""

    def __init__(self, counts: Counts) -> None:
        self._counts = counts
        self._tasks: set[asyncio.Task[Any]] = set()
        self._said: dict[str, float] = {}

    def start(self, work: Coroutine[Any, Any, None]) -> None:
        """Run `work` beside; what it raises is logged."""
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("gateway-task-failed", exc_info=error)

    def close(
        self, connection: ServerConnection, code: CloseCode, reason: str, *, who: str, last_words: Sequence[str] = ()
    ) -> None:
        """Say `last_words`, close with `code`; returns at once."""
        self.start(self.close_and_wait(connection, code, reason, who=who, last_words=last_words))

    def close_link(self, link: NodeLink, code: CloseCode, reason: str, last_words: Sequence[str] = ()) -> None:
        """Close a proved connection, once."""
        if not link.closing:
            link.closing = True
            self.close(link.connection, code, reason, who=link.node_id, last_words=last_words)

    async def close_and_wait(
        self, connection: ServerConnection, code: CloseCode, reason: str, *, who: str, last_words: Sequence[str] = ()
    ) -> None:
        self.count(code, reason, who)
        try:
            for frame in last_words:
                await connection.send(frame)
        except ConnectionClosed:
            return
        await connection.close(code, _short(reason))

    def count(self, code: int, reason: str, who: str) -> None:
        """Count a close, and log it unless `who` was logged within the last minute."""
        name = CloseCode(code).name if code in CloseCode.__members__.values() else str(code)
        self._counts.closes[name.lower().replace("_", "-")] += 1
        self.say(who, "connection-closed", code=name, reason=reason)

    def say(self, who: str, what: str, **more: str) -> None:
        """A log line, unless `who` was logged within the last minute."""
        now = asyncio.get_running_loop().time()
        if now - self._said.get(who, -_SAY_EVERY_S) >= _SAY_EVERY_S:
            if len(self._said) >= _REMEMBERED:
                self._said.clear()
            self._said[who] = now
            log.info(what, who=who, **more)

    async def finish(self) -> None:
        """Wait for everything that was started."""
        while self._tasks:
            await asyncio.wait(self._tasks)


def _short(reason: str) -> str:
    return reason.encode()[:_REASON_BYTES].decode(errors="ignore")
