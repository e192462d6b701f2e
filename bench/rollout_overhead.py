"""How much longer a rollout takes than its policy demands, and what the conductor uses meanwhile.

Simulated nodes on a virtual clock around the real services, store (an SQLite file) and conductor: a rollout over all of
them, which begins when the first canary has staged and asks for its lease, for staging is no matter of the policy.

What the policy demands is what a control plane would need that answers at once. Canaries: from each one's first
request, its way, its soak and, after the last of them, their common soak. Then `max_unavailable` places, for the policy
lets so many be exposed at a time: each of the other nodes takes the place that is free first, for its own way and soak,
in the order in which they really went. A node's way is what it drew: from the lease in its hands to its confirmation,
so arming, reboot, checks and the return to the gateway, all of which no conductor can shorten. Nobody sets out while
the window of the group is closed, which it is for some minutes after the first places were taken. Every service has one
replica more than its floor, so that the nodes of its replicas set out one after another: no rollout ends before the
longest of these chains. Requests, waits, retries, rounds, the network on both ways, nodes that ask late, and places
that stay free because floors hold all who are left, are no demand: they are the overhead.

A round of the conductor begins a second after the one before (woken, a real one comes earlier), and where rounds take
long, as much later as a real one rests. Its processor time is measured, and given for a second of virtual time.
"""

from __future__ import annotations

import heapq
import math
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import select

from app.core.rollouts import RolloutState
from app.store import schema
from sim.machine import Deed
from sim.node import SimNode
from sim.scenario import parse_scenario
from sim.watch import Cause, Watch
from tests.simulation.director import BEGIN_S, Director
from tests.simulation.gateway import Line
from tests.simulation.network import SERVER_KEY, Way
from tests.simulation.stage import START, clean_up
from tests.simulation.story import START_MINUTE, TARGET, Gap, GroupPlan, Story
from tests.simulation.world import World, world_of
from wire.messages import FromServer, LeaseGrant

NODES, BUDGET, CANARIES = 10_000, 2_500, 10
SOAK_S, CANARY_SOAK_S = 120.0, 300.0
"""A fifth of what policies have by default: what is lost between two nodes weighs five times as much."""
NODES_PER_SERVICE, REPLICAS = 10, 5
"""So four nodes in ten have a replica; floors are what they are by default: all of them less one."""
CLOSED = Gap(START_MINUTE + 11, START_MINUTE + 16)
"""From when the first places are taken until their nodes have soaked, and a while longer."""
GOAL_PCT, GOAL_CPU = 5.0, 0.5
LONGEST_S, MOST_CPU_S = 20_000.0, 1_800.0
"""Virtual, and of this process: whoever needs more has not got it done."""
CONNECT_S = 0.1
"""Nodes that come within this are taken in one transaction, as a gateway does."""
ROUND_S, REST = 1.0, 1.5
"""Of app.conductor.loop."""

SCENARIO = """
[fleet]
nodes = {nodes}
zones = ["a", "b", "c", "d"]
[durations]
boot_s = [20, 40]
download_mib_s = [5, 20]
checks_s = 60
trial_checks_s = 5
"""
SERVICE = """
[[services]]
name = "service-{number}"
replicas = {replicas}
"""


class Stopwatch(Watch):
    """When each node was confirmed, by its number; and `homes`: the numbers of the nodes of each service."""

    def __init__(self, services: int) -> None:
        super().__init__(services)
        self.confirmed_at: dict[int, float] = {}
        self.homes: dict[int, set[int]] = defaultdict(set)

    def replicas(self, node: SimNode, services: Sequence[int], change: int, cause: Cause, now: float) -> None:
        super().replicas(node, services, change, cause, now)
        for service in services:
            self.homes[service].add(node.spec.number)

    def deed(self, node: SimNode, deed: Deed, slot: str, now: float) -> None:
        if deed is Deed.MARKED_GOOD:
            self.confirmed_at[node.spec.number] = now


class Undisturbed(World):
    """Nothing goes wrong, and what comes together is done together. `conductor_s`: its processor time."""

    def __init__(self, story: Story, watch: Watch) -> None:
        super().__init__(story, watch)
        self.conductor_s = 0.0
        self.granted_at: dict[int, float] = {}
        self._round_at, self._free_at = math.inf, 0.0
        self._callers: list[Way] = []

    def _at_step(self, place: str) -> None:
        """Nobody dies, and nobody comes between."""

    def _delay_s(self) -> float:
        return self.dice.between(0.01, 0.2)

    # --- nodes ----------------------------------------------------------------------------------------------

    def _connect(self, way: Way) -> None:
        self._callers.append(way)
        self.after(CONNECT_S, self._connect_all, "connect")

    def _connect_all(self) -> None:
        gateway, callers, self._callers = self.gateway, self._callers, []
        assert gateway is not None, "it never stops"
        able = [way for way in callers if way.line is None and way.node.can_connect]
        for way in callers:
            way.trying = False
            way.down_until = way.up_until = self.now
        lines = gateway.connect_all([(way.node, way.node_id) for way in able], SERVER_KEY)
        for way, line in zip(able, lines, strict=True):
            assert line is not None, "there is one gateway, and nobody else's node"
            way.line = line
        self._look()

    def _deliver(self, way: Way, line: Line, message: FromServer) -> None:
        if isinstance(message, LeaseGrant):
            self.granted_at.setdefault(way.node.spec.number, self.now)
        super()._deliver(way, line, message)

    # --- the conductor --------------------------------------------------------------------------------------

    def _wake(self, place: int) -> None:
        self._plan_round(max(self.now, self._free_at))

    def _plan_round(self, at: float) -> None:
        if at < self._round_at:
            self._round_at = at
            self.after(at - self.now, lambda: self._round_of(at))

    def _round_of(self, at: float) -> None:
        """Unless it was made earlier."""
        if at != self._round_at:
            return
        self._round_at = math.inf
        self._beat()
        (conductor,) = self.conductors
        assert conductor is not None, "it never stops"
        began = time.process_time()
        conductor.round()
        took_s = time.process_time() - began
        self.conductor_s += took_s
        self._free_at = self.now + max(ROUND_S, took_s * (1 + REST))
        self._round_at = math.inf
        self._plan_round(self._free_at)


@dataclass(frozen=True, slots=True)
class Course:
    """How it went; moments in seconds. `asked_at`, `way_s`: by number of the node; `order`: as they went; `chains`: who
    may set out only one after another."""

    order: Sequence[int]
    chains: Sequence[frozenset[int]]
    asked_at: Mapping[int, float]
    way_s: Mapping[int, float]
    ended_at: float
    conductor_share: float


def run() -> list[dict[str, object]]:
    return measured(NODES, BUDGET, CANARIES)


def measured(nodes: int, budget: int, canaries: int) -> list[dict[str, object]]:
    """Both figures, of a fleet of this size."""
    course = _course(nodes, budget, canaries)
    began_at = min(course.asked_at[number] for number in course.order[:canaries])
    demanded_s = _demanded_until(course, budget, canaries) - began_at
    overhead = 100.0 * ((course.ended_at - began_at) / demanded_s - 1.0)
    share = course.conductor_share
    return [
        _figure("rollout-overhead-pct", round(overhead, 2), "%", f"<= {GOAL_PCT:g}", overhead <= GOAL_PCT),
        _figure("rollout-conductor-cpu", round(share, 3), "cores", f"< {GOAL_CPU:g}", share < GOAL_CPU),
    ]


def _figure(name: str, value: float, unit: str, goal: str, met: bool) -> dict[str, object]:
    return {"name": name, "value": value, "unit": unit, "goal": goal, "met": met}


def _demanded_until(course: Course, budget: int, canaries: int) -> float:
    """When it would have ended at the earliest under the policy; see the module."""
    first, rest = course.order[:canaries], course.order[canaries:]
    open_at = max(course.asked_at[number] + course.way_s[number] for number in first) + SOAK_S + CANARY_SOAK_S
    places = [open_at] * budget
    for number in rest:
        heapq.heapreplace(places, _sets_out(places[0]) + course.way_s[number] + SOAK_S)
    chains = [_chain_until(course, open_at, chain.intersection(rest)) for chain in course.chains]
    return max(*places, *chains)


def _chain_until(course: Course, open_at: float, chain: frozenset[int]) -> float:
    """When the last of them has soaked, if each sets out as soon as the one before is confirmed."""
    at = open_at
    for way_s in sorted(course.way_s[number] for number in chain):
        at = _sets_out(at) + way_s
    return at + SOAK_S if chain else open_at


def _sets_out(at: float) -> float:
    """The first moment from then on at which the window is open."""
    closes, opens = (START + 60.0 * (minute - START_MINUTE) for minute in (CLOSED.first_minute, CLOSED.last_minute))
    return opens if closes <= at < opens else at


def _course(nodes: int, budget: int, canaries: int) -> Course:
    story = _story(nodes, budget, canaries)
    watch = Stopwatch(len(story.scenario.services))
    try:
        with world_of(story, watch, Undisturbed) as world:
            began_at, used_s = _start(world)
            ended_at = _until_done(world)
            share = (world.conductor_s - used_s) / (ended_at - began_at)
            return Course(
                sorted(world.granted_at, key=world.granted_at.__getitem__),
                [frozenset(homes) for homes in watch.homes.values()],
                _first_requests(world),
                {number: watch.confirmed_at[number] - at for number, at in world.granted_at.items()},
                ended_at,
                share,
            )
    finally:
        clean_up()


def _story(nodes: int, budget: int, canaries: int) -> Story:
    policy: dict[str, Any] = {
        "timing": {"soak_s": SOAK_S},
        "canaries": {"count": canaries},
        "canary_soak_s": CANARY_SOAK_S,
        "max_unavailable": {"count": budget},
        "stage_parallel": 2000,
        "stage_jitter_s": 60.0,
        "windows": CLOSED.windows,
    }
    services = [SERVICE.format(number=number, replicas=REPLICAS) for number in range(nodes // NODES_PER_SERVICE)]
    scenario = parse_scenario("".join([SCENARIO.format(nodes=nodes), *services]))
    group = GroupPlan("all", "zone", "", budget, 0, policy, CLOSED)
    return Story(1, scenario, TARGET, [group], [], [], conductors=1, round_s=ROUND_S, wake_s=ROUND_S)


def _start(world: Undisturbed) -> tuple[float, float]:
    """(moment, processor time of the conductor until then)."""
    world.begin()
    world.run(BEGIN_S)
    director = Director(world)
    director.begin(director.groups[0], TARGET)
    return world.now, world.conductor_s


def _until_done(world: Undisturbed) -> float:
    """Its end, as its row says it."""
    with world.stage.read() as conn:
        (rollout_id,) = conn.execute(select(schema.rollouts.c.id)).scalars()
    query = select(schema.rollouts.c.state, schema.rollouts.c.ended_at).where(schema.rollouts.c.id == rollout_id)
    state, ended_at = RolloutState.RUNNING.value, None
    most_s = time.process_time() + MOST_CPU_S
    while state == RolloutState.RUNNING.value and world.seconds < LONGEST_S and time.process_time() < most_s:
        world.run(world.seconds + 10.0)
        with world.stage.read() as conn:
            state, ended_at = conn.execute(query).one()
    if state != RolloutState.SUCCEEDED.value:
        raise RuntimeError(f"the rollout is {state} after {world.seconds:.0f} virtual seconds")
    return float(ended_at)


def _first_requests(world: World) -> dict[int, float]:
    number_of = {node.spec.name: node.spec.number for node in world.fleet.nodes}
    found: dict[int, float] = {}
    for nonce, at in world.judge.requests.items():
        found.setdefault(number_of[nonce.rpartition(".")[0]], at)
    return found
