"""What is looked at regularly, for all connections together: nothing here has a timer of its own per node."""

from __future__ import annotations

import asyncio
import time

from app.core.policy import Policy
from app.gateway.accept import forget, replace
from app.gateway.link import NodeLink
from app.gateway.parts import Parts
from app.gateway.threads import keep_on
from app.services import connections, fleet
from app.services.connections import Gone
from app.store.connections import Standing
from wire.close import CloseCode


class Sweeps:
    """The way back to the truth when nudges were lost, and everything that time alone decides."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._suspects: set[str] = set()
        """Connection ids on which we and the database disagreed at the last sweep."""
        self._probing: set[str] = set()
        self._began = asyncio.get_running_loop().time()

    async def run(self) -> None:
        while True:
            await asyncio.sleep(self._parts.limits.sweep_s)
            await keep_on("keys", self._parts.keyring.refresh)
            await keep_on("compare", self._compare)
            await keep_on("offline", self._turn_offline)

    async def listen(self) -> None:
        """Close connections that say nothing; goes on while the database is away."""
        loop, every_s = asyncio.get_running_loop(), self._parts.limits.sweep_s
        while True:
            began = loop.time()
            await asyncio.sleep(every_s)
            if loop.time() - began < 2 * every_s:  # else it was us who did not listen (rule 4)
                self._close_silent()

    def _close_silent(self) -> None:
        limits = self._parts.limits
        too_old = asyncio.get_running_loop().time() - limits.missed_heartbeats * limits.heartbeat_s
        for link in self._parts.registry:
            if link.heard_at < too_old and not link.blocked:
                forget(self._parts, link)
                text = f"no heartbeat for {limits.missed_heartbeats} intervals"
                self._parts.closer.close_link(link, CloseCode.SILENT, text)

    # --- our connections against the database ------------------------------------------------------------

    async def _compare(self) -> None:
        parts = self._parts
        rows, probes = await parts.threads.until_done(lambda: connections.standings(parts.db, parts.gateway_id))
        standing = {row.id: row for row in rows}
        now = asyncio.get_running_loop().time()
        parts.dispatcher.look(
            [link.node_id for link in parts.registry if self._is_behind(link, standing.get(link.node_id), now)]
        )
        self._end_strangers(standing)
        for node_id in probes:
            self.probe(node_id)

    def _is_behind(self, link: NodeLink, row: Standing | None, now: float) -> bool:
        """Whether the node may have to be told something newer."""
        if row is None or row.conflict != (link.held_at is not None):
            return True
        sent = link.sent_welcome
        if sent is None or row.admission != sent.admission or self._parts.keyring.is_news(link):
            return True
        if link.url_sent_at is not None and now - link.url_sent_at >= self._parts.limits.url_refresh_s:
            return True
        if row.admission != "admitted" or row.conflict:
            return False
        return link.sent_desired is None or row.order > _pair(link)

    def _end_strangers(self, standing: dict[str, Standing]) -> None:
        """What disagrees twice in a row is no change under way: the database decides who speaks."""
        parts = self._parts
        suspects: set[str] = set()
        for row in standing.values():
            link = parts.registry.speaker(row.id)
            if row.connection_id is not None and (link is None or link.connection_id != row.connection_id):
                suspects.add(row.connection_id)
                if row.connection_id in self._suspects:
                    parts.writer.note_gone(Gone(row.id, row.connection_id, time.time()))
        for link in parts.registry:
            mine = standing.get(link.node_id)
            if link.held_at is None and (mine is None or mine.connection_id != link.connection_id):
                suspects.add(link.connection_id)
                if link.connection_id in self._suspects:
                    forget(parts, link)
                    parts.closer.close_link(link, CloseCode.REPLACED, "another connection speaks for this node")
        self._suspects = suspects

    # --- another gateway asks ----------------------------------------------------------------------------

    def probe(self, node_id: str) -> None:
        """Another gateway has a second connection of this node: is ours alive?"""
        link = self._parts.registry.speaker(node_id)
        if link is not None and link.held_at is None and node_id not in self._probing:
            self._probing.add(node_id)
            self._parts.closer.start(self._probe(link))

    async def _probe(self, link: NodeLink) -> None:
        parts = self._parts
        try:
            async with parts.registry.turn(link.node_id):
                if parts.registry.speaker(link.node_id) is not link:
                    return
                of = link.node_id, link.connection_id
                # A late nudge may be about the connection that this one took the place of.
                if not await parts.threads.until_done(lambda: connections.is_asked_about(parts.db, *of)):
                    return
                if not await link.answers(parts.limits.probe_s):
                    replace(parts, link)
                    return
                ends = [link.end_facts]
                await parts.threads.until_done(lambda: connections.hold(parts.db, link.node_id, ends, time.time()))
                link.hold(asyncio.get_running_loop().time())
                parts.dispatcher.look([link.node_id])
        finally:
            self._probing.discard(link.node_id)

    # --- offline after a grace ---------------------------------------------------------------------------

    async def _turn_offline(self) -> None:
        """Only silence that we could have heard counts (rule 4): not before we were up for the grace ourselves."""
        parts = self._parts
        policy = await parts.threads.until_done(lambda: _policy(parts))
        up_s = asyncio.get_running_loop().time() - self._began
        if up_s < max(policy.offline_grace_s, policy.reconnect_allowance_s):
            return
        now = time.time()
        seen_before = now - policy.offline_grace_s
        await parts.threads.until_done(lambda: connections.turn_offline(parts.db, seen_before, now))


def _policy(parts: Parts) -> Policy:
    with parts.db.read() as conn:
        return fleet.current_policy(conn)


def _pair(link: NodeLink) -> tuple[int, int]:
    assert link.sent_desired is not None
    order = link.sent_desired[0]
    return order.epoch, order.generation
