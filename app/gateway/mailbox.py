"""What a node is still to be told: the newest of each kind, whatever the reader's speed."""

from __future__ import annotations

from wire.messages import Ack, Desired, FromServer, LeaseGrant, LeaseWait, Welcome


class Mailbox:
    """One slot a kind: a slow node is told the newest, never a backlog. It exists only while something waits."""

    __slots__ = ("_ack", "_desired", "_lease", "_welcome")

    def __init__(self) -> None:
        self._welcome: Welcome | None = None
        self._ack: Ack | None = None
        self._desired: Desired | None = None
        self._lease: LeaseGrant | LeaseWait | None = None

    def put(self, message: Welcome | Ack | Desired | LeaseGrant | LeaseWait) -> None:
        match message:
            case Welcome():
                self._welcome = message
            case Ack():
                if self._ack is None or message.seq > self._ack.seq:
                    self._ack = message
            case Desired():
                if self._desired is None or message.order >= self._desired.order:
                    self._desired = message
            case LeaseGrant() | LeaseWait():
                self._lease = message

    def uncommand(self) -> None:
        """Take back what was not sent yet: the node is not to be commanded any more."""
        self._desired = self._lease = None

    def take(self) -> FromServer | None:
        """The next to send: who we are to each other, then what is safe, then what is to be done."""
        for slot in ("_welcome", "_ack", "_desired", "_lease"):
            message: FromServer | None = getattr(self, slot)
            if message is not None:
                setattr(self, slot, None)
                return message
        return None
