"""The other end of simulated nodes: welcomes, acknowledges, orders, and grants every lease at once."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field

from sim.node import SimNode
from sim.scenario import Scenario, parse_scenario
from sim.simulated import SimFleet
from sim.watch import Watch
from wire.messages import (
    Ack,
    Desired,
    FromNode,
    Image,
    LeaseGrant,
    LeaseRequest,
    LeaseReturn,
    NodeEvent,
    Operation,
    OperationKind,
    OperationReport,
    Order,
    Status,
    Welcome,
)

START = 1_000_000.0
SOAK_S = 60.0


@dataclass
class Desk:
    """`grants`: False answers no request. `open`: False lets nobody in. Everything said is kept by node."""

    fleet: SimFleet
    now: float = START
    grants: bool = True
    open: bool = True
    reports: dict[int, list[OperationReport]] = field(default_factory=lambda: defaultdict(list))
    events: dict[int, list[NodeEvent]] = field(default_factory=lambda: defaultdict(list))
    statuses: dict[int, list[Status]] = field(default_factory=lambda: defaultdict(list))
    returns: list[LeaseReturn] = field(default_factory=list)
    desired: dict[int, Desired] = field(default_factory=dict)
    transcript: list[tuple[float, int, str]] = field(default_factory=list)

    def run(self, seconds: float) -> None:
        """Let this time pass."""
        until = self.now + seconds
        while (moment := self.fleet.next_at) <= until:
            self.now = moment
            self._serve(self.fleet.advance(moment))
        self.now = until
        self._serve(self.fleet.advance(until))

    def _serve(self, nodes: list[SimNode]) -> None:
        for node in nodes:
            self._hear(node)
            if self.open and node.can_connect and not node.linked:
                self._welcome(node)
            self._hear(node)

    def _welcome(self, node: SimNode) -> None:
        welcome = Welcome(
            node_id=f"node-{node.spec.number}",
            name=node.spec.name,
            admission="admitted",
            gateway="desk",
            heartbeat_s=30,
            minor=1,
            epoch=1,
        )
        self.fleet.receive(node, welcome, self.now)
        if (desired := self.desired.get(node.spec.number)) is not None:
            self.fleet.receive(node, desired, self.now)

    def _hear(self, node: SimNode) -> None:
        while node.outbox:
            message = node.outbox.popleft()
            self.transcript.append((self.now, node.spec.number, repr(message)))
            self._answer(node, message)

    def _answer(self, node: SimNode, message: FromNode) -> None:
        number = node.spec.number
        match message:
            case Status():
                self.statuses[number].append(message)
            case NodeEvent():
                self.events[number].append(message)
                self.fleet.receive(node, Ack(seq=message.seq), self.now)
            case OperationReport():
                self.reports[number].append(message)
                self.fleet.receive(node, Ack(seq=message.seq), self.now)
            case LeaseRequest() if self.grants:
                grant = LeaseGrant(
                    lease_id=f"lease-{message.nonce}",
                    operation_id=message.operation_id,
                    nonce=message.nonce,
                    duration_s=120.0,
                )
                self.fleet.receive(node, grant, self.now)
            case LeaseReturn():
                self.returns.append(message)
            case _:
                pass

    def order(self, node: SimNode, kind: OperationKind, version: str = "", **more: object) -> None:
        """Tell the node to do this, now and at each welcome."""
        number = node.spec.number
        last = self.desired.get(number)
        order = Order(1, last.order.generation + 1 if last else 1)
        image = _image(self.fleet.scenario, version) if version else None
        wanted = Operation(
            id=f"operation-{number}-{order.generation}", kind=kind, image=image, soak_s=SOAK_S, confirm_s=120.0, **more
        )
        self.desired[number] = Desired(order=order, operation=wanted)
        if node.linked:
            self.fleet.receive(node, self.desired[number], self.now)
            self._hear(node)

    def update(self, node: SimNode, version: str) -> None:
        self.order(node, OperationKind.ACTIVATE, version)

    def result(self, node: SimNode) -> OperationReport:
        """The only report of the node."""
        (report,) = self.reports[node.spec.number]
        return report


def _image(scenario: Scenario, version: str) -> Image:
    fleet = scenario.fleet
    size = 100 * 1024 * 1024
    return Image(os=fleet.os, arch=fleet.arch, version=version, digest=scenario.digest_of(version), size=size)


def desk(content: str = "", watch: Watch | None = None) -> Desk:
    """A fleet of one node unless the scenario says more, up and welcomed."""
    content = content if "[fleet]" in content else content + "\n[fleet]\nnodes = 1\n"
    made = Desk(SimFleet(parse_scenario(content), START, watch))
    made.run(5.0)
    return made
