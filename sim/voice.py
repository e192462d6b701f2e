"""What a simulated node says: what its agent's link would, from the same picture, into an outbox."""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Sequence

import msgspec
from msgspec import UNSET

from agent.phases.model import State
from agent.picture import Picture, changed
from sim.scenario import Claim
from wire.messages import FromNode, LeaseRequest, LeaseReturn, NodeEvent, OperationReport, Result, Slot, Status


class Voice:
    """`out` holds what is to be sent, in order; it is the node's own for one connection."""

    __slots__ = ("_said", "_seq", "_urgent", "_whole", "claim", "out")

    def __init__(self, claim: Claim | None) -> None:
        self.claim = claim
        self.out: deque[FromNode] = deque()
        self._said: dict[str, object] = {}
        self._urgent: list[LeaseRequest | LeaseReturn] = []
        self._seq = 0
        self._whole = True

    def begin(self) -> None:
        """A new connection has heard nothing yet."""
        self.end()
        self._said, self._seq, self._whole = {}, 0, True

    def end(self) -> None:
        """The connection is over, and with it what was not sent."""
        self.out.clear()
        self._urgent.clear()
        self._said = {}

    def say_whole(self) -> None:
        self._whole = True

    def urgent(self, message: LeaseRequest | LeaseReturn) -> None:
        self._urgent.append(message)

    def speak(self, picture: Picture, state: State) -> None:
        """News since the last time, as agent.link orders it: what led to the status, the status, requests, the rest."""
        unsaid = [item for item in picture.outbox if item.seq > self._seq]
        led_here = list(itertools.takewhile(lambda item: isinstance(item, NodeEvent), unsaid))
        self._tell(led_here)
        status = changed(picture, self._said, whole=self._whole)
        if status is not None:
            self._whole = False
            self.out.append(self._shown(status, state))
        self.out.extend(self._urgent)
        self._urgent.clear()
        self._tell(unsaid[len(led_here) :])

    def _tell(self, items: Sequence[NodeEvent | OperationReport]) -> None:
        for item in items:
            self.out.append(self._reported(item) if isinstance(item, OperationReport) else item)
            self._seq = item.seq

    # --- lies -----------------------------------------------------------------------------------------------

    def _shown(self, status: Status, state: State) -> Status:
        image = state.operation.image if state.operation else None
        if self.claim is not Claim.DIGEST or status.slots is UNSET or image is None:
            return status
        return msgspec.structs.replace(
            status, slots=[_claimed(slot, image.version, image.digest) for slot in status.slots]
        )

    def _reported(self, report: OperationReport) -> OperationReport:
        if self.claim is None or report.result in (Result.SUCCEEDED, Result.REFUSED, Result.CANCELLED):
            return report
        return msgspec.structs.replace(report, result=Result.SUCCEEDED, reason="", failed_checks=[])


def _claimed(slot: Slot, version: str, digest: str) -> Slot:
    return msgspec.structs.replace(slot, version=version, digest=digest, good=True) if slot.booted else slot
