"""What follows a commit: acknowledgements, closes, and another look at who asked for a lease."""

from __future__ import annotations

from app.gateway.closing import Closer
from app.gateway.dispatch import Dispatcher
from app.gateway.link import NodeLink
from app.services.intake import Fate, Outcome, Report
from wire.close import CloseCode
from wire.messages import Ack, LeaseRequest


class Settling:
    def __init__(self, closer: Closer, dispatcher: Dispatcher) -> None:
        self._closer = closer
        self._dispatcher = dispatcher

    def settle(self, link: NodeLink, report: Report, outcome: Outcome) -> None:
        """The report was stored, or not: tell the node."""
        match outcome.fate:
            case Fate.STORED:
                if outcome.acked is not None:
                    link.tell(Ack(seq=outcome.acked))
                if any(isinstance(happening, LeaseRequest) for happening in report.happenings):
                    self._dispatcher.look([link.node_id])
            case Fate.SUPERSEDED:
                self._closer.close_link(link, CloseCode.REPLACED, "another connection speaks for this node")
            case Fate.REJECTED:
                self._closer.close_link(link, CloseCode.MALFORMED, "what this node reported cannot be stored")
            case Fate.HELD:
                self._dispatcher.look([link.node_id])
