"""The server's keys as this gateway knows them, and which of them a connection is to hear of."""

from __future__ import annotations

import time
from collections.abc import Sequence

from app.config import Settings
from app.gateway.link import NodeLink
from app.gateway.threads import DatabaseThreads, Gathering
from app.services.server_keys import ServerKey, ServerKeys, live_keys
from app.store.database import Database
from wire.messages import NextServerKey


class Keyring:
    """Field: keys, None until the database was there once."""

    def __init__(self, db: Database, settings: Settings, threads: DatabaseThreads, at_once: int) -> None:
        self._db = db
        self._settings = settings
        self._loads: Gathering[str | None, None] = Gathering(threads, self._load_for, at_once)
        self.keys: ServerKeys | None = None

    def load(self) -> None:
        """Read them, or make the first; on a thread. Misconfigured when the secret is another one."""
        self.keys = live_keys(self._db, self._settings, time.time())

    def _load_for(self, wanted: Sequence[str | None]) -> list[None]:
        self.load()
        return [None] * len(wanted)

    async def refresh(self) -> None:
        """Another process may have made one, or retired one."""
        await self._loads.get(None)

    async def pinned(self, fingerprint: str | None) -> ServerKey | None:
        """The key that a greeting names; one that we have not heard of may have been made a moment ago."""
        key = self.keys.pinned(fingerprint) if self.keys else None
        if key is None:
            await self.refresh()
            key = self.keys.pinned(fingerprint) if self.keys else None
        return key

    def is_news(self, link: NodeLink) -> bool:
        """Whether there is a newer key than the last one that this node was told of."""
        return self.keys is not None and link.told_key != self.keys.newest.public_key

    def tell(self, link: NodeLink) -> NextServerKey | None:
        """For the next welcome: the newest key, signed by the one that the node pins; None when it pins that."""
        assert self.keys is not None, "a connection was proved with one of them"
        newest, pinned = self.keys.newest, self.keys.of(link.server_key)
        link.told_key = newest.public_key
        if pinned is None or pinned == newest:  # None: retired by force, and its private half is gone
            return None
        return link.end.next_server_key(pinned.private_key, newest.public_key)
