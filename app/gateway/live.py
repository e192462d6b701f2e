"""`/live`: tells browser pages which of their topics changed, never what.

In: `{"topics": ["fleet", "node:…"]}`, the whole wish each time. Out: `{"topics": {"fleet": "<revision>", …}}`: at once
the revisions as they are, so that a page that missed something finds out, then those that change. Topics of a node or
of a rollout go out ten times a second at most, lists every two seconds at most, and not to all pages in the same
moment. One wheel turns for all pages; frames are encoded once for all pages that get the same.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Iterable

import msgspec
from websockets.asyncio.server import ServerConnection, broadcast
from websockets.exceptions import ConnectionClosed

from app.gateway.closing import Closer
from app.gateway.counts import Counts
from app.gateway.limits import Limits
from app.gateway.threads import DatabaseThreads, keep_on
from app.services.sign_in import Session, session_for
from app.store import revisions
from app.store.database import Database
from app.store.nudges import EVERYTHING

LISTS = frozenset(
    {
        "attention",
        "events",
        "fleet",
        "freezes",
        "groups",
        "images",
        "joining",
        "nodes",
        "operations",
        "rollouts",
        "services",
    }
)
_ONE_PREFIXES = ("node:", "rollout:")
"""Topics of one node or rollout."""
_TOPIC_CHARS = 160

SESSION_ENDED = 4401
"""Close code: sign in again. Other codes of /live are those of RFC 6455."""
_MALFORMED = 4400
_TRY_AGAIN = 1013


class Wish(msgspec.Struct, frozen=True):
    """What a page sends."""

    topics: list[str]


class Page:
    """One open page. Fields: topics (name -> revision that the page was told), phase (its place on the wheel)."""

    __slots__ = ("connection", "phase", "pong", "secret", "topics")

    def __init__(self, connection: ServerConnection, secret: str, phase: int) -> None:
        self.connection = connection
        self.secret = secret
        self.phase = phase
        self.topics: dict[str, int] = {}
        self.pong: asyncio.Future[float] | None = None


class Live:
    """All pages of one gateway; all calls on the loop."""

    def __init__(self, db: Database, threads: DatabaseThreads, closer: Closer, limits: Limits, counts: Counts) -> None:
        self._db = db
        self._threads = threads
        self._closer = closer
        self._limits = limits
        self._counts = counts
        self._pages: set[Page] = set()
        self._readers: dict[str, set[Page]] = {}
        self._revisions: dict[str, int] = {}
        """Newest known revision of each topic that a page wants."""
        self._unasked: set[str] = set()
        """Topics that changed since we asked for their revisions."""
        self._behind: set[Page] = set()
        """Pages that have not been told everything that we know."""
        self._wake = asyncio.Event()
        self._tick = 0
        self._ticks = max(1, round(limits.list_topics_every_s / limits.node_topics_every_s))

    @property
    def pages(self) -> int:
        return len(self._pages)

    # --- one page ----------------------------------------------------------------------------------------

    async def serve(self, connection: ServerConnection, secret: str) -> None:
        """From the opening to the end of a page's connection; the session was checked."""
        if len(self._pages) >= self._limits.pages:
            await connection.close(_TRY_AGAIN, "too many pages are open")
            return
        page = Page(connection, secret, random.randrange(self._ticks))  # noqa: S311 -- spreads load, hides nothing
        self._pages.add(page)
        try:
            while True:
                await self._subscribe(page, self._topics(await connection.recv(decode=False)))
        except ValueError as error:
            await connection.close(_MALFORMED, str(error))
        except ConnectionClosed:
            pass  # pages come and go
        finally:
            self._set_topics(page, {})
            self._pages.discard(page)

    def _topics(self, frame: bytes) -> list[str]:
        """The wished topics; ValueError when it is no wish or not for pages."""
        try:
            topics = set(msgspec.json.decode(frame, type=Wish).topics)
        except msgspec.DecodeError:
            raise ValueError('send {"topics": ["fleet", …]}') from None
        if len(topics) > self._limits.page_topics:
            raise ValueError(f"at most {self._limits.page_topics} topics")
        for topic in topics:
            of_one = topic.startswith(_ONE_PREFIXES) and len(topic) <= _TOPIC_CHARS
            if topic not in LISTS and not (of_one and topic.isascii() and topic.isprintable()):
                raise ValueError("there is no such topic")
        return sorted(topics)

    async def _subscribe(self, page: Page, topics: list[str]) -> None:
        # Registered first, so that what changes while we ask is told afterwards.
        self._set_topics(page, dict.fromkeys(topics, -1))
        await self._learn(topics)
        news = self._news(page, lists=True)
        await page.connection.send(_frame(news))
        self._counts.page_frames += 1

    def _set_topics(self, page: Page, topics: dict[str, int]) -> None:
        for topic in page.topics.keys() - topics.keys():
            readers = self._readers[topic]
            readers.discard(page)
            if not readers:
                del self._readers[topic]
                self._revisions.pop(topic, None)
        page.topics = topics
        for topic in topics:
            self._readers.setdefault(topic, set()).add(page)
        self._behind.discard(page)

    # --- all pages ---------------------------------------------------------------------------------------

    def changed(self, topics: Iterable[str]) -> None:
        """A nudge: these topics may have changed."""
        wanted = self._readers.keys()
        news = set(wanted) if EVERYTHING in topics else wanted & set(topics)
        if news:
            self._unasked |= news
            self._wake.set()

    async def run(self) -> None:
        """The wheel: it turns only while somebody has to be told something."""
        while True:
            await self._wake.wait()
            await keep_on("live", self._turn)
            if not self._unasked and not self._behind:
                self._wake.clear()
            await asyncio.sleep(self._limits.node_topics_every_s)

    async def _turn(self) -> None:
        asked, self._unasked = self._unasked & self._readers.keys(), set()
        if asked:
            await self._learn(asked)
        self._tick = (self._tick + 1) % self._ticks
        frames: dict[tuple[tuple[str, int], ...], list[ServerConnection]] = {}
        for page in list(self._behind):
            news = self._news(page, lists=page.phase == self._tick)
            if news:
                frames.setdefault(tuple(sorted(news.items())), []).append(page.connection)
        for news_key, connections in frames.items():
            self._send(dict(news_key), connections)

    async def _learn(self, topics: Iterable[str]) -> None:
        """Ask for the newest revisions, and note which pages are behind."""
        wanted = list(topics)

        def ask() -> dict[str, int]:
            with self._db.read() as conn:
                return revisions.of_topics(conn, wanted)

        for topic, revision in (await self._threads.until_done(ask)).items():
            if topic in self._readers and self._revisions.get(topic, -1) != revision:
                self._revisions[topic] = revision
                self._behind |= self._readers[topic]
        if self._behind:
            self._wake.set()

    def _news(self, page: Page, *, lists: bool) -> dict[str, int]:
        """What the page is to be told now, noted as told. Lists wait for the page's turn on the wheel."""
        news: dict[str, int] = {}
        behind = False
        for topic, told in page.topics.items():
            revision = self._revisions.get(topic, told)
            if revision != told:
                if lists or topic not in LISTS:
                    news[topic] = revision
                else:
                    behind = True
        page.topics.update(news)
        if not behind:
            self._behind.discard(page)
        return news

    def _send(self, news: dict[str, int], connections: list[ServerConnection]) -> None:
        fast = []
        for connection in connections:
            if connection.transport.get_write_buffer_size() > self._limits.page_buffer_bytes:
                self._closer.start(connection.close(_TRY_AGAIN, "this page reads too slowly; come back"))
            else:
                fast.append(connection)
        self._counts.page_frames += len(fast)
        broadcast(fast, _frame(news))

    # --- regularly ---------------------------------------------------------------------------------------

    async def sweep(self) -> None:
        """Look for lost nudges, ended sessions and dead browsers."""
        limits = self._limits
        loop = asyncio.get_running_loop()
        checked_at = pinged_at = loop.time()
        while True:
            await asyncio.sleep(limits.page_sweep_s)
            self.changed([EVERYTHING])
            now = loop.time()
            if now - checked_at >= limits.session_check_s:
                checked_at = now
                await keep_on("sessions", self._check_sessions)
            if now - pinged_at >= limits.page_ping_s:
                pinged_at = now
                self._ping()

    async def _check_sessions(self) -> None:
        secrets = {page.secret for page in self._pages}
        if not secrets:
            return
        live = await self._threads.until_done(lambda: _live_sessions(self._db, secrets))
        for page in list(self._pages):
            if page.secret in secrets - live:
                self._closer.start(page.connection.close(SESSION_ENDED, "sign in again"))

    def _ping(self) -> None:
        for page in list(self._pages):
            if page.pong is not None and not page.pong.done():
                page.connection.transport.abort()  # it did not answer the last one: nobody is there
            else:
                self._closer.start(_ping(page))

    async def session(self, secret: str) -> Session | None:
        """The live session of a cookie."""
        return await self._threads.until_done(lambda: _session(self._db, secret))


def _session(db: Database, secret: str) -> Session | None:
    with db.read() as conn:
        return session_for(conn, secret, time.time())


def _live_sessions(db: Database, secrets: Iterable[str]) -> set[str]:
    with db.read() as conn:
        return {secret for secret in secrets if session_for(conn, secret, time.time()) is not None}


async def _ping(page: Page) -> None:
    try:
        page.pong = asyncio.ensure_future(await page.connection.ping())
    except ConnectionClosed:
        return


def _frame(news: dict[str, int]) -> str:
    return msgspec.json.encode({"topics": {topic: str(revision) for topic, revision in news.items()}}).decode()
