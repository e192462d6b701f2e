"""Tells nodes what is desired of them: at their welcome, after a nudge, and when a sweep finds a newer order."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable

import msgspec
import structlog

from app.config import Settings
from app.gateway.closing import Closer
from app.gateway.keyring import Keyring
from app.gateway.limits import Limits
from app.gateway.link import NodeLink
from app.gateway.registry import Registry
from app.gateway.threads import DatabaseThreads
from app.services import connections
from app.services.connections import Answer, Outlook, Verdict
from app.store.database import Database
from wire.close import CloseCode
from wire.messages import Desired, Refused, Welcome

REFUSALS = {
    Verdict.UNKNOWN: (CloseCode.UNKNOWN_NODE, "unknown-node", "This node is not known here. Join again."),
    Verdict.RETIRED: (CloseCode.RETIRED, "retired", "This node was retired by an operator. Join again to come back."),
    Verdict.REVOKED: (CloseCode.REVOKED, "revoked", "This machine has joined again as another node; this key ended."),
}

log = structlog.get_logger(__name__)

_AT_ONCE = 300


def welcome_for(node_id: str, answer: Answer, gateway: str, limits: Limits, *, conflict: bool, minor: int) -> Welcome:
    """What the node is told about itself."""
    return Welcome(
        node_id=node_id,
        name=answer.name,
        admission=answer.admission,
        gateway=gateway,
        heartbeat_s=limits.heartbeat_s,
        minor=minor,
        epoch=answer.epoch,
        conflict=conflict,
    )


class Dispatcher:
    def __init__(
        self,
        db: Database,
        settings: Settings,
        threads: DatabaseThreads,
        registry: Registry,
        closer: Closer,
        keyring: Keyring,
        limits: Limits,
        name: str,
    ) -> None:
        self._db = db
        self._settings = settings
        self._threads = threads
        self._registry = registry
        self._closer = closer
        self._keyring = keyring
        self._limits = limits
        self._name = name
        self._waiting: dict[str, None] = {}
        self._wake = asyncio.Event()

    def look(self, node_ids: Iterable[str]) -> None:
        """Look again at what these nodes should be told; those that are not connected here are left out."""
        for node_id in node_ids:
            if node_id in self._registry:
                self._waiting[node_id] = None
        if self._waiting:
            self._wake.set()

    async def run(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            while self._waiting:
                some = list(self._waiting)[:_AT_ONCE]
                for node_id in some:
                    del self._waiting[node_id]
                await self._look_at(some)

    async def _look_at(self, node_ids: list[str]) -> None:
        asked_at = asyncio.get_running_loop().time()
        try:
            found = await self._threads.until_done(
                lambda: connections.outlooks(self._db, node_ids, self._settings, time.time())
            )
        except Exception:
            if len(node_ids) == 1:
                log.error("outlook-failed", node=node_ids[0], exc_info=True)
                return
            for node_id in node_ids:  # one node's fault is not the others'
                await self._look_at([node_id])
            return
        for node_id in node_ids:
            for link in self._registry.links(node_id):
                self._tell(link, found.get(node_id), asked_at)

    def _tell(self, link: NodeLink, outlook: Outlook | None, asked_at: float) -> None:
        if link.closing:
            return
        refusal = connections.standing_of(outlook.identity if outlook else None)
        if refusal is not None or outlook is None:
            self.refuse(link, refusal or Verdict.UNKNOWN)
            return
        conflict = outlook.identity.conflict is not None
        if link.held_at is not None and not conflict:
            if link.held_at <= asked_at:  # else what we read is older than the conflict
                text = "the identity conflict was settled: come back"
                self._closer.close_link(link, CloseCode.RESTART, text)
            return
        if conflict:
            link.hold(asyncio.get_running_loop().time())
        self._tell_welcome(link, outlook)
        if not conflict:
            self._tell_desired(link, outlook.desired, asked_at)
            if outlook.lease is not None and outlook.lease != link.sent_lease:
                link.tell(outlook.lease)
            link.sent_lease = outlook.lease

    def refuse(self, link: NodeLink, verdict: Verdict) -> None:
        """Say why and close for good."""
        code, word, text = REFUSALS[verdict]
        if not link.closing:
            self._closer.close_link(link, code, text, link.end.refused(Refused(code=word, text=text)))

    def _tell_welcome(self, link: NodeLink, outlook: Outlook) -> None:
        """Again, when something that it said has changed."""
        answer = Answer(Verdict.CLAIMED, outlook.identity.name, outlook.identity.admission, outlook.epoch)
        conflict = outlook.identity.conflict is not None
        welcome = welcome_for(link.node_id, answer, self._name, self._limits, conflict=conflict, minor=link.end.minor)
        if welcome != link.sent_welcome or self._keyring.is_news(link):
            link.sent_welcome = welcome
            link.tell(msgspec.structs.replace(welcome, next_server_key=self._keyring.tell(link)))

    def _tell_desired(self, link: NodeLink, desired: Desired | None, now: float) -> None:
        if desired is None:
            return
        image = desired.operation.image if desired.operation else None
        has_url = image is not None and bool(image.url)
        mark = _mark(desired)
        if link.sent_desired is not None:
            order, sent_mark = link.sent_desired
            url_is_old = link.url_sent_at is not None and now - link.url_sent_at >= self._limits.url_refresh_s
            if desired.order < order or (mark == sent_mark and not (has_url and url_is_old)):
                return
        link.tell(desired)
        link.sent_desired = desired.order, mark
        link.url_sent_at = now if has_url else None


def _mark(desired: Desired) -> int:
    """Equal for equal content; the signature of an image URL changes with the time and does not count."""
    operation = desired.operation
    if operation is not None and operation.image is not None:
        image = msgspec.structs.replace(operation.image, url="")
        desired = msgspec.structs.replace(desired, operation=msgspec.structs.replace(operation, image=image))
    return hash(msgspec.msgpack.encode(desired))
