"""A fleet of simulated nodes on one clock from outside, real or virtual: 10 to 50,000 of them in one process."""

from __future__ import annotations

import heapq

from sim.dice import Dice
from sim.happenings import What, concerned, happenings
from sim.node import SimNode
from sim.population import place, specs_of
from sim.replicas import Replica
from sim.scenario import PowerCut, Scenario
from sim.watch import Watch
from wire.messages import FromServer


class SimFleet:
    """`start` is the clock (seconds) at which the run begins. Fields to read: scenario, nodes, watch.

    Whoever changes a node does it here, so that its next moment is known.
    """

    def __init__(self, scenario: Scenario, start: float, watch: Watch | None = None) -> None:
        self.scenario = scenario
        self.start = start
        self.watch = watch or Watch(len(scenario.services))
        specs = specs_of(scenario)
        replicas = place(scenario, specs)
        self.nodes = [SimNode(spec, held, self.watch, start) for spec, held in zip(specs, replicas, strict=True)]
        self._dice = Dice(scenario.seed, "fleet")
        self._heap = [(node.next_at, number) for number, node in enumerate(self.nodes)]
        heapq.heapify(self._heap)
        self._to_come = [(first, rest) for rest in happenings(scenario) if (first := next(rest, None)) is not None]
        self._to_come.sort(key=lambda each: each[0])
        self._moving: list[tuple[float, int, int, Replica, Replica]] = []
        self._touched: set[int] = set()

    @property
    def next_at(self) -> float:
        """When something happens by itself; infinite when nothing will."""
        moments = [self._heap[0][0]] if self._heap else []
        moments += [self.start + self._to_come[0][0].at_s] if self._to_come else []
        moments += [self._moving[0][0]] if self._moving else []
        return min(moments, default=float("inf"))

    def advance(self, now: float) -> list[SimNode]:
        """All that happens up to `now`, in order; the nodes to which something happened since the last call."""
        while (moment := self.next_at) <= now:
            while self._moving and self._moving[0][0] <= moment:
                self._end_move(moment)
            while self._to_come and self.start + self._to_come[0][0].at_s <= moment:
                self._happen(moment)
            while self._heap and self._heap[0][0] <= moment:
                planned, number = heapq.heappop(self._heap)
                node = self.nodes[number]
                if planned == node.next_at:  # else it was planned anew since
                    node.advance(moment)
                    self._plan(number)
        touched, self._touched = self._touched, set()
        return [self.nodes[number] for number in sorted(touched)]

    def receive(self, node: SimNode, message: FromServer, now: float) -> None:
        """The gateway says this to the node."""
        node.receive(message, now)
        self._plan(node.spec.number - 1)

    def disconnect(self, node: SimNode, now: float) -> None:
        """The node's connection has ended."""
        node.disconnect(now)
        self._plan(node.spec.number - 1)

    def kill_agent(self, node: SimNode, now: float) -> None:
        node.kill_agent(now)
        self._plan(node.spec.number - 1)

    def cut_power(self, node: SimNode, now: float, for_s: float) -> None:
        node.cut_power(now, for_s)
        self._plan(node.spec.number - 1)

    def chance(self) -> float:
        """A random share for whatever runs the fleet."""
        return self._dice.chance()

    def _plan(self, number: int) -> None:
        self._touched.add(number)
        heapq.heappush(self._heap, (self.nodes[number].next_at, number))

    # --- what happens to the fleet --------------------------------------------------------------------------

    def _happen(self, now: float) -> None:
        happening, rest = self._to_come[0]
        following = next(rest, None)
        self._to_come[0:1] = [] if following is None else [(following, rest)]
        self._to_come.sort(key=lambda each: each[0])
        places = concerned(self.scenario, happening.index, [node.spec.zone for node in self.nodes])
        match happening.what:
            case What.POWER_CUT:
                fault = self.scenario.faults[happening.index]
                assert isinstance(fault, PowerCut)
                for number in places:
                    self.cut_power(self.nodes[number], now, fault.for_s)
            case What.AGENT_DIES if places:
                self.kill_agent(self.nodes[self._pick(places)], now)
            case What.MOVE if places:
                self.move(self._pick(places), now)
            case _:
                pass

    def _pick(self, places: list[int]) -> int:
        return places[self._dice.below(len(places))]

    def move(self, origin: int, now: float) -> None:
        """One replica of the node at this place starts on another one; there it is healthy before the old one ends."""
        movable = [each for each in self.nodes[origin].engine.healthy if not self._bound(each)]
        goals = [place for place, node in enumerate(self.nodes) if place != origin and node.up]
        if not movable or not goals:
            return
        old = movable[self._dice.below(len(movable))]
        allowed = [place for place in goals if self._may_take(self.nodes[place], old.service)]
        if not allowed:
            return
        goal = self._pick(allowed)
        new = Replica(old.service, old.container)
        self.nodes[goal].take(new, now)
        self._plan(goal)
        heapq.heappush(self._moving, (new.ready_at, origin, goal, old, new))

    def _may_take(self, node: SimNode, number: int) -> bool:
        service = self.scenario.services[number]
        held = sum(replica.service == number for replica in node.engine.held)
        return service.zone in ("", node.spec.zone) and held < service.most_per_node

    def _bound(self, replica: Replica) -> bool:
        moving = any(replica in (old, new) for _, _, _, old, new in self._moving)
        return moving or self.scenario.services[replica.service].per_node

    def _end_move(self, now: float) -> None:
        """The old one ends if the new one is healthy, else the new one does: its node went down meanwhile."""
        _, origin, goal, old, new = heapq.heappop(self._moving)
        self.nodes[goal].advance(now)
        self._plan(goal)
        lost, at = (old, origin) if new.healthy else (new, goal)
        self.nodes[at].drop(lost, now)
        self._plan(at)
