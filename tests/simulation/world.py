"""The run itself: one queue of moments, the nodes, a gateway, conductors and operators around one database."""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import structlog
from sqlalchemy import insert, select

from app.conductor.loop import Conductor
from app.config import Address, Settings
from app.core.errors import TwinrootError
from app.ids import repeatable
from app.services import groups
from app.store import schema
from app.store.nudges import EVERYTHING
from sim.dice import Dice
from sim.node import SimNode
from sim.simulated import SimFleet
from sim.watch import Watch
from tests.server_kit import OPERATOR, add_image
from tests.simulation.gate import Gate, Patience, Soaked
from tests.simulation.gateway import Gateway
from tests.simulation.judge import Judge, RuleBroken
from tests.simulation.ledger import Ledger, silently_waiting
from tests.simulation.network import LOOK_S, Network, Way
from tests.simulation.stage import START, Killed, fresh_stage
from tests.simulation.stops import Stops
from tests.simulation.story import BAD, OTHER, TARGET, Story
from tests.simulation.turns import Turns, exposed

BEAT_S, SWEEP_S = 5.0, 60.0
"""The gateway's own: beats are given before each round that is that late, sweeps when they are due."""
OFFLINE_GRACE_S = 45.0
IMAGE_BYTES = 100 * 1024 * 1024

SETTINGS = Settings(
    database_url="sqlite://",
    data_dir=Path("/nonexistent"),
    http=Address("127.0.0.1", 8080),
    gateway=Address("127.0.0.1", 8090),
    public_url="http://127.0.0.1:8080",
    agent_url="ws://127.0.0.1:8090/agent",
    live_url="ws://127.0.0.1:8090/live",
    secret_key="a secret of the simulation",
    allow_unencrypted=False,
)


W = TypeVar("W", bound="World")


class World(Network):
    """One run of a story. `trace` holds a line for everything that matters, with the run's seconds.

    `watch` sees the nodes in the judge's place: then nothing is judged.
    """

    def __init__(self, story: Story, watch: Watch | None = None) -> None:
        self.story = story
        self.dice = Dice("run", story.seed)
        self.now, self.offset = START, 0.0
        self.trace: list[str] = []
        self.errors: list[str] = []
        self._queue: list[tuple[float, int, Callable[[], None]]] = []
        self._counter = itertools.count()
        self._planned: set[str] = set()
        self.stage = fresh_stage()
        self.stage.step = self._at_step
        self.stage.nudges.subscribe(self._nudged)
        self.actor = ""
        self._depth = 0
        self.deaf = False
        self.kill_in: int | None = None
        self.gate, self.patience, self.stops = Gate(story), Patience(), Stops()
        self.judge = Judge(story, self.rollout_of, self.say, self._objection, self._keeps)
        self._judged = watch is None
        self.fleet = SimFleet(story.scenario, START, watch or self.judge)
        self.judge.nodes = self.fleet.nodes
        self.zones = {node.spec.number: node.spec.zone for node in self.fleet.nodes}
        self.turns = Turns(story, self.zones)
        self.ways = {node.spec.number: Way(node, f"node_{node.spec.number:026d}") for node in self.fleet.nodes}
        self.gateway: Gateway | None = None
        self.conductors: list[Conductor | None] = [None] * story.conductors
        self.ledger = Ledger()
        self._rollouts: dict[str, str] = {}
        self._beat_at = self._round_at = START

    # --- time -----------------------------------------------------------------------------------------------

    @property
    def seconds(self) -> float:
        """Since the start of the run."""
        return self.now - START

    def clock(self) -> float:
        """The server's wall time."""
        return self.now + self.offset

    def true(self) -> float:
        return self.now

    def after(self, seconds: float, act: Callable[[], None], name: str = "") -> None:
        """Do this later; of one name only one waits."""
        if name:
            if name in self._planned:
                return
            self._planned.add(name)
        heapq.heappush(self._queue, (self.now + seconds, next(self._counter), self._named(act, name)))

    def _named(self, act: Callable[[], None], name: str) -> Callable[[], None]:
        def run() -> None:
            self._planned.discard(name)
            act()

        return run if name else act

    def say(self, text: str) -> None:
        self.trace.append(f"{self.now - START:9.3f}  {text}")

    def run(self, until: float) -> None:
        """Let everything happen up to this moment of the run (seconds since its start)."""
        end = START + until
        while True:
            moment = min(self._queue[0][0] if self._queue else end, self.fleet.next_at)
            if moment > end:
                break
            self.now = max(self.now, moment)
            self.serve(self.fleet.advance(self.now))
            while self._queue and self._queue[0][0] <= self.now:
                _, _, act = heapq.heappop(self._queue)
                act()
            if self.errors:
                raise RuleBroken(self.errors[0])
        self.now = max(self.now, end)

    # --- making it ------------------------------------------------------------------------------------------

    def begin(self) -> None:
        """Rows of everybody, then the processes."""
        with self.stage.write() as change:
            change.conn.execute(insert(schema.nodes), [self._row(way) for way in self.ways.values()])
            for version in (TARGET, OTHER, BAD):
                digest, fleet = self.story.scenario.digest_of(version), self.story.scenario.fleet
                add_image(
                    change.conn,
                    version,
                    id=f"image_{version}",
                    os=fleet.os,
                    arch=fleet.arch,
                    digest=digest,
                    size=IMAGE_BYTES,
                    created_at=START - 86_400,
                )
        for plan in self.story.groups:
            wish = groups.Wish(name=plan.name, selector=plan.selector, policy=plan.policy)
            groups.create(self.stage, OPERATOR, wish, "simulation", self.clock())
        self.start_gateway()
        for place in range(len(self.conductors)):
            self.start_conductor(place)

    def _row(self, way: Way) -> dict[str, Any]:
        spec = way.node.spec
        return {
            "id": way.node_id,
            "name": spec.name,
            "public_key": f"key-{spec.number}",
            "machine_id": f"machine-{way.node_id}",
            "hardware": f"sha256:{spec.number:064x}",
            "admission": "admitted",
            "labels": spec.labels,
            "joined_at": START - 86_400,
            "admitted_at": START - 86_400,
            "slots": [],
            "health": {},
            "activity": {},
        }

    # --- processes ------------------------------------------------------------------------------------------

    def start_gateway(self) -> None:
        def start() -> None:
            self.gateway = Gateway(self.stage, SETTINGS, self.clock, self.true, self.post, self._known)
            for node in self.fleet.nodes:  # whoever was connected to the one before is not connected to this one
                self.judge.missed(node, self.now, self.now)

        self.act("gateway", start)
        self._beat_at = self.now
        self.after(SWEEP_S, self._sweep, "sweep")
        for way in self.ways.values():
            self._reach(way, 2.0)

    def start_conductor(self, place: int) -> None:
        self.conductors[place] = Conductor(self.stage, self.clock)
        self._wake(place)

    def act(self, actor: str, work: Callable[[], object]) -> bool:
        """Let a process work; False when it died over it, and then it starts again later."""
        before, self.actor = self.actor, actor
        try:
            work()
        except Killed:
            self.say(f"{actor} dies")
            self._died(actor)
            return False
        finally:
            self.actor = before
        return True

    def _died(self, actor: str) -> None:
        if actor == "gateway":
            self.end_gateway(in_order=False)
            self.after(self.dice.between(1.0, 30.0), self.start_again, "start gateway")
        elif actor.startswith("conductor"):
            place = int(actor.split()[1])
            self.conductors[place] = None
            self.after(self.dice.between(1.0, 20.0), lambda: self.start_conductor(place), f"start {place}")

    def start_again(self) -> None:
        if self.gateway is None:
            self.start_gateway()

    def end_gateway(self, *, in_order: bool) -> None:
        """All connections end; nodes come back when one is there again."""
        gateway, self.gateway = self.gateway, None
        if gateway is not None and in_order:
            self.act("old gateway", gateway.stop)
        if gateway is not None:
            gateway.die()
        for way in self.ways.values():
            if way.line is not None:
                way.line = None
                self.fleet.disconnect(way.node, self.now)

    # --- steps of processes ---------------------------------------------------------------------------------

    def _at_step(self, place: str) -> None:
        """At a transaction of somebody: he may die, or others may come between."""
        if self.kill_in is not None and self.actor not in ("", "old gateway"):
            self.kill_in -= 1
            if self.kill_in <= 0:
                self.kill_in = None
                raise Killed
        if place == "before" and self.actor.startswith("conductor") and self._depth == 0 and self.dice.chance() < 0.1:
            self._depth += 1
            try:
                self._come_between()
            finally:
                self._depth -= 1

    def _come_between(self) -> None:
        others = [place for place in range(len(self.conductors)) if f"conductor {place}" != self.actor]
        if others and self.dice.chance() < 0.5:
            self._round(others[0])
        elif self.gateway is not None:
            self.act("gateway", self.gateway.flush)

    def _nudged(self, topics: frozenset[str]) -> None:
        if self.deaf:
            return
        gateway = self.gateway
        if gateway is not None:
            wanted = [topic.partition(":")[2] for topic in sorted(topics) if topic.startswith("desired:")]
            if wanted:
                gateway.to_look |= dict.fromkeys(wanted)
                self.after(LOOK_S, self._look, "look")
        for place, conductor in enumerate(self.conductors):
            if conductor is not None:
                conductor._nudged(topics)
                if not topics.isdisjoint({"operations", EVERYTHING}):
                    self._wake(place)

    def _look(self) -> None:
        if self.gateway is not None and self.gateway.to_look:
            self.act("gateway", self.gateway.look)

    def _flush(self) -> None:
        if self.gateway is not None and self.act("gateway", self.gateway.flush) and self.gateway.to_look:
            self.after(LOOK_S, self._look, "look")

    def _sweep(self) -> None:
        gateway = self.gateway
        if gateway is not None and self.act("gateway", lambda: gateway.sweep(OFFLINE_GRACE_S)):
            self.after(SWEEP_S, self._sweep, "sweep")
            self._look()

    def _beat(self) -> None:
        """As often as anybody may look at it; not more often, for each is a transaction."""
        if self.gateway is not None and abs(self.now - self._beat_at) >= BEAT_S:
            self._beat_at = self.now
            self.act("gateway", self.gateway.beat)

    def _wake(self, place: int) -> None:
        self.after(self.story.wake_s, lambda: self._round(place), f"woken {place}")

    def _round(self, place: int) -> None:
        conductor = self.conductors[place]
        if conductor is None:
            return
        self._beat()
        lives = self.act(f"conductor {place}", conductor.round)
        self._look_at_rows(lives=lives)
        if lives:
            self.after(self.story.round_s, lambda: self._round(place), f"round {place}")

    def _look_at_rows(self, *, lives: bool) -> None:
        """Tell the judge of leases that were granted at this moment; see whether who waits knows why (`lives`: the
        conductor ended its round)."""
        if not self._judged:
            return
        with self.stage.read() as conn:
            granted = self.gate.look(conn, self.now)
            wrong = self.stops.look(conn, [lease.operation_id for lease in granted])
            wrong = wrong or self.turns.look(conn, exposed(self.fleet.nodes))
            self.ledger.look(conn)
            heard = lives and self.gateway is not None
            silent = self.patience.look(silently_waiting(conn, self.clock()), self.now) if heard else ""
        for lease in granted:
            self.say(f"lease for {lease.number}")
            self.judge.granted(lease.number, self.now)
        if wrong:
            raise RuleBroken(wrong)
        if silent:
            raise RuleBroken(f"{silent} waits without a reason")

    def _objection(self, number: int, operation_id: str, version: str, soaked: Soaked) -> str:
        with self.stage.read() as conn:
            return self.gate.objection(number, operation_id, version, soaked, conn)

    def _keeps(self, rollout_id: str, operation_id: str, version: str) -> str:
        with self.stage.read() as conn:
            return self.gate.keeps(rollout_id, operation_id, version, conn)

    def operate(self, work: Callable[[], object], words: str) -> bool:
        """An operator's action; what is not possible changes nothing."""
        try:
            done = self.act("operator", work)
        except TwinrootError as refusal:
            self.say(f"operator: {words}: {refusal}")
            return False
        finally:
            self._note_stops()
        self.say(f"operator: {words}")
        return done

    def _note_stops(self) -> None:
        if self._judged:
            with self.stage.read() as conn:
                self.stops.note(conn)

    def rollout_of(self, operation_id: str) -> str:
        """Id of its rollout; empty for none."""
        if operation_id not in self._rollouts:
            query = select(schema.operations.c.rollout_id).where(schema.operations.c.id == operation_id)
            with self.stage.read() as conn:
                self._rollouts[operation_id] = conn.execute(query).scalar() or ""
        return self._rollouts[operation_id]

    def _known(self, node: SimNode, said_at: float) -> None:
        self.judge.known(node, said_at, self.now)


@contextmanager
def world_of(story: Story, watch: Watch | None = None, kind: type[W] = World) -> Iterator[W]:  # type: ignore[assignment]
    """A world whose ids repeat, and in which a step that logs an error fails the run."""
    dice = Dice("ids", story.seed)
    count = itertools.count()
    made: list[W] = []

    def collect(_logger: Any, method: str, event: dict[str, Any]) -> dict[str, Any]:
        if method in ("error", "exception", "critical") and made:
            made[0].errors.append(f"{event.get('event')}: {event}")
            made[0].say(f"ERROR {event.get('event')}: {event.get('exception', '')}")
        raise structlog.DropEvent

    structlog.configure(processors=[structlog.processors.format_exc_info, collect])
    try:
        with repeatable(lambda: (next(count) << 64) | dice.bits()):
            made.append(kind(story, watch))
            yield made[0]
    finally:
        structlog.reset_defaults()
