"""One proved connection of a node: what it said that is not stored yet, and what it is still to be told."""

from __future__ import annotations

import asyncio

import msgspec
from msgspec import UNSET
from websockets.asyncio.server import ServerConnection
from websockets.exceptions import ConnectionClosed

from app.gateway.mailbox import Mailbox
from app.services.connections import End
from app.services.intake import Happening, Report, Sections
from wire.conversation import ServerEnd
from wire.messages import Ack, Desired, LeaseGrant, LeaseWait, Order, Status, Welcome

SECTIONS = ("facts", "slots", "health", "placement", "activity")

_encode = msgspec.msgpack.Encoder().encode
_NOTHING_STORED = (0,) * len(SECTIONS)


class NodeLink:
    """Slots only, and what most nodes never need is made when it is needed: there are thousands of these.

    Fields to read: node_id, connection_id, connection, end (its conversation), end_facts; heard_at (loop time of
    the last word); held_at (loop time at which it was held in an identity conflict, else None); blocked (not read
    at the moment, so its silence means nothing); closing (nothing more is said).
    server_key (ours, public, that the node pins).
    Fields of whoever sends: sent_welcome, sent_lease; told_key (our newest key when it was last welcomed);
    sent_desired (order and mark of the content); url_sent_at
    (loop time at which an image URL was sent, None when the last desired state had none).
    """

    __slots__ = (
        "__weakref__",
        "_box",
        "_happenings",
        "_sections",
        "_sender",
        "_stored",
        "blocked",
        "closing",
        "connection",
        "connection_id",
        "end",
        "end_facts",
        "heard_at",
        "held_at",
        "node_id",
        "sent_desired",
        "sent_lease",
        "sent_welcome",
        "server_key",
        "told_key",
        "url_sent_at",
    )

    def __init__(
        self,
        connection: ServerConnection,
        end: ServerEnd,
        node_id: str,
        connection_id: str,
        end_facts: End,
        server_key: str,
        now: float,
    ) -> None:
        self.connection = connection
        self.node_id = node_id
        self.connection_id = connection_id
        self.end_facts = end_facts
        self.server_key = server_key
        self.told_key = ""
        self.heard_at = now
        self.held_at: float | None = None
        self.blocked = False
        self.closing = False
        self.sent_welcome: Welcome | None = None
        self.sent_desired: tuple[Order, int] | None = None
        self.sent_lease: LeaseGrant | LeaseWait | None = None
        self.url_sent_at: float | None = None
        self.end = end
        self._stored: tuple[int, ...] = _NOTHING_STORED
        self._sections: Sections | None = None
        self._happenings: list[Happening] | None = None
        self._box: Mailbox | None = None
        self._sender: asyncio.Task[None] | None = None

    # --- heard -------------------------------------------------------------------------------------------

    def hear_status(self, status: Status) -> None:
        """Newest wins, section by section; a held link is not heard."""
        if self.held_at is not None:
            return
        if self._sections is None:
            self._sections = Sections()
        for name in SECTIONS:
            section = getattr(status, name)
            if section is not UNSET:
                setattr(self._sections, name, section)

    def hear(self, happening: Happening) -> None:
        if self.held_at is not None:
            return
        if self._happenings is None:
            self._happenings = []
        self._happenings.append(happening)

    @property
    def waiting_happenings(self) -> int:
        return len(self._happenings) if self._happenings else 0

    def take_report(self, seen_at: float) -> Report | None:
        """What is to be stored; None when everything said is what was stored before."""
        sections, happenings = self._sections, self._happenings
        self._sections = self._happenings = None
        if sections is not None and not self._keep_changed(sections):
            sections = None
        if sections is None and not happenings:
            return None
        return Report(self.node_id, self.connection_id, seen_at, sections or Sections(), happenings or ())

    def _keep_changed(self, sections: Sections) -> bool:
        """Drop the sections that are as stored; whether any is left."""
        stored = list(self._stored)
        changed = False
        for index, name in enumerate(SECTIONS):
            section = getattr(sections, name)
            if section is None:
                continue
            fingerprint = hash(_encode(section))
            if fingerprint == stored[index]:
                setattr(sections, name, None)
            else:
                stored[index] = fingerprint
                changed = True
        if changed:
            self._stored = tuple(stored)
        return changed

    def hold(self, now: float) -> None:
        """From now on it is neither heard nor commanded."""
        if self.held_at is None:
            self.held_at = now
        self._sections = self._happenings = None
        if self._box is not None:
            self._box.uncommand()

    # --- told --------------------------------------------------------------------------------------------

    def tell(self, message: Welcome | Ack | Desired | LeaseGrant | LeaseWait) -> None:
        """Put it into the mailbox; a task sends while anything waits."""
        if self.closing:
            return
        if self._box is None:
            self._box = Mailbox()
        self._box.put(message)
        if self._sender is None:
            self._sender = asyncio.create_task(self._send())

    async def _send(self) -> None:
        try:
            while self._box is not None and not self.closing:
                message = self._box.take()
                if message is None:
                    self._box = None
                    return
                for frame in self.end.send(message):
                    await self.connection.send(frame)
        except ConnectionClosed:
            self._box = None  # the node hears it after it came back
        finally:
            self._sender = None

    async def answers(self, within_s: float) -> bool:
        """Whether the other end is alive: it answers a ping."""
        try:
            async with asyncio.timeout(within_s):
                await (await self.connection.ping())
        except (TimeoutError, ConnectionClosed):
            return False
        return True
