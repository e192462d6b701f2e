"""Writes what nodes said, set-based and a few times a second; the loop itself never waits for the database.

Per node only the newest state waits, and a bounded number of happenings: when the database is slow or away, memory
does not grow with the rate of messages.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence

from app.gateway.counts import Counts
from app.gateway.limits import Limits
from app.gateway.link import NodeLink
from app.gateway.threads import DatabaseThreads, keep_on
from app.services import connections, intake
from app.services.connections import Gone
from app.services.intake import Outcome, Report
from app.store.database import Database

_REST = 4.0
"""The pause after a batch is so many times as long as the batch took: writing leaves most of the time to others."""

Settle = Callable[[NodeLink, Report, Outcome], None]
"""Called on the loop after the commit of each report."""


class Writer:
    def __init__(self, db: Database, threads: DatabaseThreads, limits: Limits, counts: Counts, settle: Settle) -> None:
        self._db = db
        self._threads = threads
        self._limits = limits
        self._counts = counts
        self._settle = settle
        self._dirty: dict[NodeLink, None] = {}
        self._gone: list[Gone] = []
        self._wake = asyncio.Event()
        self._round = asyncio.Event()
        self._turn = asyncio.Lock()
        self.stopped = False

    @property
    def unwritten(self) -> int:
        return len(self._dirty)

    def note(self, link: NodeLink) -> None:
        """The link has something to store."""
        self._dirty[link] = None
        self._wake.set()

    def note_gone(self, gone: Gone) -> None:
        """The connection ended; written after what it said."""
        self._gone.append(gone)
        self._wake.set()

    async def round(self) -> None:
        """Wait until a round of writing has ended."""
        await self._round.wait()

    async def run(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            began = time.monotonic()
            await keep_on("writer", self.flush)
            took = time.monotonic() - began
            await asyncio.sleep(min(self._limits.write_every_s, max(self._limits.write_soon_s, _REST * took)))

    async def flush(self) -> None:
        """Write everything that waits now; patient while the database is away."""
        async with self._turn:
            links, self._dirty = list(self._dirty), {}
            gone, self._gone = self._gone, []
            while links:
                links = await self._write_some(links)
            for start in range(0, len(gone), self._limits.batch_nodes):
                some = gone[start : start + self._limits.batch_nodes]
                await self._threads.until_done(lambda some=some: connections.release(self._db, some))  # type: ignore[misc]
            self._round.set()
            self._round = asyncio.Event()

    async def _write_some(self, links: Sequence[NodeLink]) -> list[NodeLink]:
        """Write one batch; returns the links that are left."""
        batch: dict[str, tuple[NodeLink, Report]] = {}
        left: list[NodeLink] = []
        loop_now, now = asyncio.get_running_loop().time(), time.time()
        for link in links:
            # One report of a node in a batch: of a former and a new connection only one is heard anyway.
            if len(batch) >= self._limits.batch_nodes or link.node_id in batch:
                left.append(link)
            elif (report := link.take_report(now - (loop_now - link.heard_at))) is not None:
                batch[link.node_id] = link, report
        if batch:
            await self._store(list(batch.values()))
        return left

    async def _store(self, batch: Sequence[tuple[NodeLink, Report]]) -> None:
        reports = [report for _, report in batch]
        began = time.monotonic()
        outcomes = await self._threads.until_done(lambda: intake.apply(self._db, reports, time.time()))
        self._counts.batches += 1
        self._counts.reports += len(reports)
        self._counts.events += sum(len(report.happenings) for report in reports)
        self._counts.write_s += time.monotonic() - began
        for (link, report), outcome in zip(batch, outcomes, strict=True):
            self._settle(link, report, outcome)

    def stop(self) -> None:
        """Nobody waits for a further round."""
        self.stopped = True
        self._round.set()
