"""Database work off the event loop, and patience while the database is away."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Generic, TypeVar

import structlog

from app.store.outage import is_away

log = structlog.get_logger(__name__)

T = TypeVar("T")
K = TypeVar("K")
V = TypeVar("V")

_THREADS = 3
"""One writes batches, one decides about connections, one looks up; more would only wait for each other."""
_RETRY_S = 0.5
_SAY_EVERY_S = 60.0


class DatabaseThreads:
    """Runs functions that use the database.

    Fields: answered_at (loop time of its last answer, None before), away_at (of its last failure to answer).
    """

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(_THREADS, thread_name_prefix="gateway-database")
        self._said_at: float | None = None
        self.answered_at: float | None = None
        self.away_at: float | None = None

    async def once(self, work: Callable[[], T]) -> T:
        """The result of `work`, or what it raised."""
        loop = asyncio.get_running_loop()
        result = await loop.run_in_executor(self._pool, work)
        self.answered_at = loop.time()
        return result

    async def until_done(self, work: Callable[[], T]) -> T:
        """The result of `work`, tried again for as long as the database is away."""
        while True:
            try:
                return await self.once(work)
            except Exception as error:
                if not is_away(error):
                    raise
                self._say(error)
            await asyncio.sleep(_RETRY_S)

    def _say(self, error: Exception) -> None:
        now = self.away_at = asyncio.get_running_loop().time()
        if self._said_at is None or now - self._said_at >= _SAY_EVERY_S:
            self._said_at = now
            log.warning("database-away", error=str(error)[:200])

    def close(self) -> None:
        self._pool.shutdown(wait=True)


async def keep_on(name: str, work: Callable[[], Awaitable[None]]) -> None:
    """Do `work` once; an error in it is logged, and does not end the loop that calls this."""
    try:
        await work()
    except Exception:
        log.error("gateway-loop-failed", loop=name, exc_info=True)


class Gathering(Generic[K, V]):
    """Gathers single questions, asked while the last ones are being answered, into one call."""

    def __init__(self, threads: DatabaseThreads, ask: Callable[[Sequence[K]], Sequence[V]], at_once: int) -> None:
        self._threads = threads
        self._ask = ask
        self._at_once = at_once
        self._waiting: list[tuple[K, asyncio.Future[V]]] = []
        self._task: asyncio.Task[None] | None = None

    async def get(self, key: K) -> V:
        """The answer to `key`; waits while the database is away, so give it a time limit."""
        answer: asyncio.Future[V] = asyncio.get_running_loop().create_future()
        self._waiting.append((key, answer))
        if self._task is None:
            self._task = asyncio.create_task(self._run())
        return await answer

    async def _run(self) -> None:
        try:
            while self._waiting:
                # Who gave up in the meantime is not asked for.
                some = [(key, answer) for key, answer in self._waiting[: self._at_once] if not answer.done()]
                del self._waiting[: self._at_once]
                if some:
                    await self._answer(some)
        finally:
            self._task = None

    async def _answer(self, some: list[tuple[K, asyncio.Future[V]]]) -> None:
        keys = [key for key, _ in some]
        try:
            values = await self._threads.until_done(lambda: self._ask(keys))
        except Exception as error:
            if len(some) > 1:  # whoever asks what cannot be answered is to fail alone
                for one in some:
                    await self._answer([one])
            elif not some[0][1].done():
                some[0][1].set_exception(error)
            return
        for (_, answer), value in zip(some, values, strict=True):
            if not answer.done():
                answer.set_result(value)
