"""The network between nodes and gateway: delays, lost connections, ends that notice late, messages that come twice."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from sim.dice import Dice
from sim.node import SimNode
from sim.simulated import SimFleet
from tests.simulation.gateway import Gateway, Line
from tests.simulation.judge import Judge
from wire.identity import new_private_key, public_key
from wire.messages import Desired, FromServer, LeaseGrant, LeaseRequest, LeaseWait

FLUSH_S, LOOK_S = 0.4, 0.6
HALF_OPEN_S = 90.0
"""A machine without power says nothing; three heartbeats later it is noticed."""
SERVER_KEY = public_key(new_private_key())


@dataclass(eq=False)
class Way:
    """A node's way to the gateway. `busy_until`: messages of one direction never overtake each other."""

    node: SimNode
    node_id: str
    line: Line | None = None
    trying: bool = False
    tries: int = 0
    up_until: float = 0.0
    down_until: float = 0.0


class Network:
    """Half of a world: what is between the nodes and whatever gateway there is."""

    now: float
    dice: Dice
    fleet: SimFleet
    judge: Judge
    gateway: Gateway | None
    ways: dict[int, Way]
    after: Callable[..., None]
    act: Callable[..., bool]
    _flush: Callable[[], None]
    _look: Callable[[], None]

    def serve(self, nodes: list[SimNode]) -> None:
        """Carry away what nodes say, and see who can connect or has gone."""
        for node in nodes:
            way = self.ways[node.spec.number]
            self._carry(way)
            if way.line is not None and not node.linked:
                self._gone(way, way.line)
            if way.line is None and node.can_connect and not node.linked:
                self._reach(way, 1.0)

    def _carry(self, way: Way) -> None:
        line = way.line
        while way.node.outbox:
            message = way.node.outbox.popleft()
            if line is None:
                continue
            if isinstance(message, LeaseRequest):
                self.judge.requests[message.nonce] = self.now
            way.up_until = max(way.up_until, self.now + self._delay_s())
            said_at = self.now

            def hear(line: Line = line, message: Any = message, said_at: float = said_at) -> None:
                if line.open and self.gateway is not None:
                    self.gateway.hear(line, message, said_at)
                    self.after(FLUSH_S, self._flush, "flush")

            self.after(way.up_until - self.now, hear)

    def _delay_s(self) -> float:
        return self.dice.between(0.01, 0.2) if self.dice.chance() < 0.97 else self.dice.between(1.0, 15.0)

    def _gone(self, way: Way, line: Line) -> None:
        """The node's end is gone; ours notices at once, or, when nobody could say so, much later."""
        way.line = None
        notice_s = self.dice.between(1.0, HALF_OPEN_S) if way.node.cut_off else way.up_until - self.now + 0.05
        self.after(max(notice_s, 0.01), lambda: self._notice(line))

    def _notice(self, line: Line) -> None:
        if self.gateway is not None and line.open:
            self.gateway.lose(line)
            self.after(FLUSH_S, self._flush, "flush")

    def cut(self, way: Way) -> None:
        """The connection is lost, and what was on its way."""
        if way.line is not None:
            line, way.line = way.line, None
            self.fleet.disconnect(way.node, self.now)
            self._notice(line)
            self._reach(way, 1.0)

    def _reach(self, way: Way, most_s: float) -> None:
        if not way.trying:
            way.trying = True
            self.after(self.dice.between(0.01, most_s), lambda: self._connect(way))

    def _connect(self, way: Way) -> None:
        way.trying = False
        gateway, node = self.gateway, way.node
        if gateway is None or way.line is not None or not node.can_connect:
            return
        found: list[Line | None] = []
        way.down_until = way.up_until = self.now
        self.act("gateway", lambda: found.append(gateway.connect(node, way.node_id, SERVER_KEY)))
        if not found or found[0] is None:
            way.tries += 1
            self._reach(way, min(2.0**way.tries, 60.0))
            return
        way.tries, way.line = 0, found[0]
        self._look()

    def post(self, line: Line, message: FromServer) -> None:
        """Bring a message to its node, now and then twice."""
        way = self.ways[line.node.spec.number]
        again = isinstance(message, Desired | LeaseGrant | LeaseWait) and self.dice.chance() < 0.05
        for _ in range(2 if again else 1):
            way.down_until = max(way.down_until, self.now + self._delay_s())
            self.after(way.down_until - self.now, lambda: self._deliver(way, line, message))

    def _deliver(self, way: Way, line: Line, message: FromServer) -> None:
        if way.line is not line or not line.open or not way.node.can_connect:
            return
        if isinstance(message, LeaseGrant):
            self.judge.delivered(way.node, message.nonce, message.duration_s)
        self.fleet.receive(way.node, message, self.now)
        self.serve([way.node])
