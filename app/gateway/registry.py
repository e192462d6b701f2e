"""Which connections this gateway has: at most one speaks for a node; held ones are heard by nobody."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

from app.gateway.link import NodeLink


class Registry:
    """All calls on the event loop."""

    def __init__(self) -> None:
        self._speakers: dict[str, NodeLink] = {}
        self._held: dict[str, list[NodeLink]] = {}
        self._turns: dict[str, tuple[asyncio.Lock, int]] = {}

    @asynccontextmanager
    async def turn(self, node_id: str) -> AsyncIterator[None]:
        """One decision about a node at a time."""
        lock, users = self._turns.get(node_id, (asyncio.Lock(), 0))
        self._turns[node_id] = lock, users + 1
        try:
            async with lock:
                yield
        finally:
            users = self._turns[node_id][1] - 1
            if users:
                self._turns[node_id] = lock, users
            else:
                del self._turns[node_id]

    def speaker(self, node_id: str) -> NodeLink | None:
        """The connection that speaks for the node, held or not."""
        return self._speakers.get(node_id)

    def add_speaker(self, link: NodeLink) -> None:
        self._speakers[link.node_id] = link

    def add_held(self, link: NodeLink) -> None:
        self._held.setdefault(link.node_id, []).append(link)

    def held(self, node_id: str) -> list[NodeLink]:
        """Further connections in a conflict, beside the speaker."""
        return list(self._held.get(node_id, ()))

    def links(self, node_id: str) -> list[NodeLink]:
        speaker = self._speakers.get(node_id)
        return [*([speaker] if speaker else []), *self._held.get(node_id, ())]

    def remove(self, link: NodeLink) -> bool:
        """Forget it; whether it was the speaker."""
        if self._speakers.get(link.node_id) is link:
            del self._speakers[link.node_id]
            return True
        others = self._held.get(link.node_id, [])
        if link in others:
            others.remove(link)
            if not others:
                del self._held[link.node_id]
        return False

    def __iter__(self) -> Iterator[NodeLink]:
        yield from list(self._speakers.values())
        for links in list(self._held.values()):
            yield from links

    def __contains__(self, node_id: str) -> bool:
        return node_id in self._speakers or node_id in self._held

    @property
    def speakers(self) -> int:
        return len(self._speakers)

    @property
    def held_count(self) -> int:
        return sum(map(len, self._held.values()))


class Doorway:
    """Counts connections that have not proved themselves yet, in all and from one address."""

    def __init__(self, most: int, most_per_remote: int) -> None:
        self._most = most
        self._most_per_remote = most_per_remote
        self._remotes: Counter[str] = Counter()
        self.opening = 0

    def enter(self, remote: str) -> bool:
        """Whether there is room; then `leave` must follow."""
        if self.opening >= self._most or self._remotes[remote] >= self._most_per_remote:
            return False
        self.opening += 1
        self._remotes[remote] += 1
        return True

    def leave(self, remote: str) -> None:
        self.opening -= 1
        self._remotes[remote] -= 1
        if not self._remotes[remote]:
            del self._remotes[remote]
