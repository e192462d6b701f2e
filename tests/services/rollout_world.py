"""A small fleet whose nodes do what their orders say, tick by tick, through the same intake as real ones."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import Any

from sqlalchemy import select, update

from app.config import Settings
from app.core.group_policy import Amount, GroupPolicy
from app.core.policy import Policy
from app.core.policy_json import policy_to_builtins
from app.core.rollouts import RolloutNodeState, RolloutState
from app.services import deadlines, intake, leases, rollout_observe, rollout_steps
from app.services.admission import Admission
from app.services.desired import desired_for, lease_answer
from app.services.intake import Report, Sections
from app.store import rollout_nodes, rollouts, schema
from app.store.database import Change, Database, Priority
from app.store.rollouts import Rollout
from tests import server_kit as kit
from tests.rollout_kit import add_group
from tests.server_kit import NOW, digest_of
from wire.messages import (
    Activity,
    AgentFacts,
    Boot,
    Desired,
    Evidence,
    EvidenceClass,
    Facts,
    Health,
    HealthState,
    LeaseGrant,
    LeaseRequest,
    LeaseReturn,
    Operation,
    OperationKind,
    OperationReport,
    Order,
    OsFacts,
    Phase,
    Result,
    Slot,
    Trial,
    WayBack,
)

TIMING = Policy(soak_s=20.0, confirm_s=60.0, reboot_deadline_s=120.0, stage_deadline_s=600.0, lease_s=60.0)
TICK_S = 10.0

QUICK = GroupPolicy(
    timing=TIMING,
    canaries=Amount(count=1),
    canary_soak_s=0.0,
    max_unavailable=Amount(count=2),
    stage_jitter_s=0.0,
    health_gate=False,
)


class Mood(Enum):
    """What becomes of a node on the new version."""

    WELL = auto()
    FALLS_BACK = auto()
    SICK = auto()
    """Confirms, and turns unhealthy while it soaks."""
    SILENT = auto()
    """Is never heard of again after its reboot."""
    REFUSES = auto()
    UNREACHABLE = auto()
    """Goes back because it can reach nobody."""


@dataclass
class FakeNode:
    id: str
    name: str
    slots: list[Slot]
    mood: Mood = Mood.WELL
    boots: int = 1
    phase: Phase = Phase.IDLE
    operation: Operation | None = None
    asked: int = 0
    lease_id: str | None = None
    soak_until: float = 0.0
    seq: int = 0
    silent: bool = False
    healthy: bool = True
    ended: set[str] = field(default_factory=set)
    way_back: WayBack | None = None

    @property
    def boot_id(self) -> str:
        return f"boot-{self.name}-{self.boots}"

    @property
    def booted(self) -> Slot:
        return next(slot for slot in self.slots if slot.booted)

    @property
    def passive(self) -> Slot:
        return next(slot for slot in self.slots if not slot.booted)

    @property
    def version(self) -> str:
        return self.booted.version or ""


class Killed(Exception):
    """The process ended between two transactions."""


class Mortal(Database):
    """Lets so many transactions commit; at the next one the process is dead."""

    def __init__(self, db: Database, lives: int) -> None:
        super().__init__(db.engine, db.nudges)
        self._db = db
        self._lives = lives

    @contextmanager
    def write(self, priority: Priority = Priority.OPERATOR) -> Iterator[Change]:
        if self._lives == 0:
            raise Killed
        self._lives -= 1
        with self._db.write(priority) as change:
            yield change


class World:
    """Nodes named n0, n1, … in group web (role=web), all on 1.0; images 1.0 and 2.0."""

    def __init__(self, db: Database, settings: Settings, count: int, policy: GroupPolicy = QUICK) -> None:
        self.db, self.settings, self.now = db, settings, NOW
        self.admission = Admission()
        self.nodes: dict[str, FakeNode] = {}
        self.most_exposed = 0
        self.heard = True
        self.mortal: Callable[[], Database] | None = None
        """Another conductor that works before ours in each tick, and is killed by its database."""
        self._nonces = itertools.count(1)
        with db.write() as change:
            conn = change.conn
            self.gateway_id = kit.add_gateway(conn, started_at=NOW - 3600)
            self.images = {version: kit.add_image(conn, version) for version in ("1.0", "2.0")}
            self.group_id = add_group(conn, policy=policy_to_builtins(policy))
            change.touch("groups")
        for number in range(count):
            self.join(f"n{number}")

    def join(self, name: str, labels: dict[str, str] | None = None, **given: Any) -> FakeNode:
        with self.db.write() as change:
            node_id = kit.add_node(
                change.conn,
                name,
                labels=labels or {"role": "web"},
                gateway_id=self.gateway_id,
                connection_id=f"connection-{name}",
                boot_id=f"boot-{name}-1",
                **given,
            )
            change.touch("nodes", f"node:{node_id}")
        first = Slot(name="A", booted=True, next_boot=True, version="1.0", digest=digest_of("1.0"), good=True)
        self.nodes[name] = FakeNode(node_id, name, [first, Slot(name="B", booted=False, next_boot=False)])
        return self.nodes[name]

    def wake(self, name: str) -> None:
        """A silent node is heard again, over a new connection."""
        node = self.nodes[name]
        node.silent, node.mood = False, Mood.WELL
        with self.db.write() as change:
            back = {"connection": "online", "gateway_id": self.gateway_id, "connected_at": self.now}
            change.conn.execute(update(schema.nodes).where(schema.nodes.c.id == node.id).values(**back))
            change.touch(f"node:{node.id}")

    # --- time -----------------------------------------------------------------------------------------------

    def tick(self, seconds: float = TICK_S) -> None:
        """Nodes act, then the conductor does everything once."""
        self.act(seconds)
        if self.mortal is not None:
            with suppress(Killed):
                self.conduct(self.mortal())
        self.conduct()
        self.most_exposed = max(self.most_exposed, self.exposed())

    def act(self, seconds: float = TICK_S) -> None:
        self.now += seconds
        if self.heard:
            with self.db.write() as change:
                change.conn.execute(update(schema.gateways).values(heartbeat_at=self.now))
        for node in self.nodes.values():
            if not node.silent:
                self._act(node)

    def conduct(self, db: Database | None = None) -> None:
        db = db or self.db
        deadlines.advance_clocks(db, self.now)
        leases.count_time(db, self.now)
        deadlines.end_overdue(db, self.now)
        rollout_steps.run_all(db, self.now)
        self.admission.note({"*"})
        self.admission.tick(db, self.now)
        rollout_observe.observe(db, self.now)

    def run(self, rollout_id: str, *, until: RolloutState, ticks: int = 80) -> Rollout:
        for _ in range(ticks):
            if self.rollout(rollout_id).state is until:
                return self.rollout(rollout_id)
            self.tick()
        raise AssertionError(f"{self.rollout(rollout_id).state} after {ticks} ticks: {self.states(rollout_id)}")

    def run_until(self, condition: Any, ticks: int = 60) -> None:
        for _ in range(ticks):
            if condition():
                return
            self.tick()
        raise AssertionError("the condition never held")

    # --- what is to be seen ---------------------------------------------------------------------------------

    def rollout(self, rollout_id: str) -> Rollout:
        with self.db.read() as conn:
            found = rollouts.get(conn, rollout_id)
        assert found is not None
        return found

    def rows(self, rollout_id: str) -> dict[str, rollout_nodes.RolloutNode]:
        with self.db.read() as conn:
            return {row.name: row for row in rollout_nodes.all_of(conn, rollout_id)}

    def states(self, rollout_id: str) -> dict[str, RolloutNodeState]:
        return {name: row.state for name, row in sorted(self.rows(rollout_id).items())}

    def kinds(self, rollout_id: str) -> list[str]:
        """Of its history, oldest first."""
        with self.db.read() as conn:
            return [event.kind for event in reversed(rollouts.events(conn, rollout_id))]

    def versions(self) -> dict[str, str]:
        return {name: node.version for name, node in sorted(self.nodes.items())}

    def exposed(self) -> int:
        """Nodes that run 2.0 and have not proved it, seen from outside."""
        unproved = (Phase.REBOOTING, Phase.CONFIRMING, Phase.SOAKING)
        return sum(
            node.phase in unproved and node.operation is not None and node.operation.kind is OperationKind.ACTIVATE
            for node in self.nodes.values()
        )

    def open_operations(self, name: str) -> int:
        with self.db.read() as conn:
            query = select(schema.operations).where(
                schema.operations.c.node_id == self.nodes[name].id, schema.operations.c.state == "open"
            )
            return len(conn.execute(query).all())

    # --- nodes ----------------------------------------------------------------------------------------------

    def _act(self, node: FakeNode) -> None:
        with self.db.read() as conn:
            desired = desired_for(conn, node.id, self.settings, self.now)
            answer = lease_answer(conn, node.id, self.now)
        happenings: list[Any] = []
        self._follow(node, desired, happenings)
        if node.operation is not None:
            self._step(node, node.operation, answer, happenings)
        self._say(node, happenings)

    def _follow(self, node: FakeNode, desired: Desired, happenings: list[Any]) -> None:
        wanted, current = desired.operation, node.operation
        if current is not None and (wanted is None or wanted.id != current.id):
            unarmed = node.phase in (Phase.IDLE, Phase.STAGING, Phase.STAGED)
            at_once = wanted is not None and wanted.kind is OperationKind.ROLLBACK and node.phase is Phase.SOAKING
            if not unarmed and not at_once:
                return
            if node.lease_id is not None and unarmed:
                happenings.append(LeaseReturn(lease_id=node.lease_id, operation_id=current.id, reason="cancelled"))
            self._end(node, Result.CANCELLED, happenings)
        if node.operation is None and wanted is not None and wanted.id not in node.ended:
            node.operation, node.phase, node.lease_id = wanted, Phase.IDLE, None

    def _step(self, node: FakeNode, operation: Operation, answer: Any, happenings: list[Any]) -> None:
        image = operation.image
        match node.phase:
            case Phase.IDLE if operation.kind is OperationKind.DISARM:
                self._set(node, node.passive.name, good=False)
                self._end(node, Result.SUCCEEDED, happenings)
            case Phase.IDLE if node.mood is Mood.REFUSES:
                self._end(node, Result.REFUSED, happenings, "untrusted-image")
            case Phase.IDLE if operation.kind is OperationKind.ACTIVATE:
                node.phase = Phase.STAGING
            case Phase.IDLE:
                self._ask(node, operation, happenings)
            case Phase.STAGING:
                assert image is not None
                self._set(node, node.passive.name, version=image.version, digest=image.digest, good=None)
                node.way_back = None
                self._ask(node, operation, happenings)
            case Phase.STAGED:
                if isinstance(answer, LeaseGrant):
                    node.lease_id, node.phase = answer.lease_id, Phase.REBOOTING
                else:
                    self._ask(node, operation, happenings)
            case Phase.REBOOTING:
                self._reboot(node, operation)
            case Phase.CONFIRMING:
                self._judge(node, operation, happenings)
            case Phase.SOAKING:
                self._soak(node, operation, happenings)

    def _ask(self, node: FakeNode, operation: Operation, happenings: list[Any]) -> None:
        node.phase = Phase.STAGED
        happenings.append(LeaseRequest(operation_id=operation.id, nonce=f"nonce-{next(self._nonces)}"))

    def _reboot(self, node: FakeNode, operation: Operation) -> None:
        node.boots += 1
        node.phase = Phase.CONFIRMING
        if operation.kind is not OperationKind.REBOOT:
            self._switch(node)
        node.silent = node.mood is Mood.SILENT and operation.kind is OperationKind.ACTIVATE

    def _judge(self, node: FakeNode, operation: Operation, happenings: list[Any]) -> None:
        bad = operation.kind is OperationKind.ACTIVATE and node.mood in (Mood.FALLS_BACK, Mood.UNREACHABLE)
        if bad:
            self._switch(node)
            node.boots += 1
            result = Result.FELL_BACK if node.mood is Mood.FALLS_BACK else Result.UNREACHABLE
            self._say_state(node)
            self._end(node, result, happenings, "it did not come up")
            return
        self._set(node, node.booted.name, good=True)
        old = node.passive
        node.way_back = WayBack(slot=old.name, version=old.version, digest=old.digest)
        node.phase, node.soak_until = Phase.SOAKING, self.now + operation.soak_s + 1
        node.healthy = node.mood is not Mood.SICK or operation.kind is not OperationKind.ACTIVATE

    def _soak(self, node: FakeNode, operation: Operation, happenings: list[Any]) -> None:
        if self.now >= node.soak_until:
            well = Result.SUCCEEDED if node.healthy else Result.UNHEALTHY
            self._end(node, well, happenings, "" if node.healthy else "its check failed during the soak")

    def _end(self, node: FakeNode, result: Result, happenings: list[Any], reason: str = "") -> None:
        operation = node.operation
        assert operation is not None
        node.seq += 1
        happenings.append(
            OperationReport(
                seq=node.seq,
                operation_id=operation.id,
                order=Order(epoch=1, generation=1),
                result=result,
                at=self.now,
                reason=reason,
                evidence=Evidence(boot_id=node.boot_id),
            )
        )
        node.ended.add(operation.id)
        node.operation, node.phase, node.lease_id = None, Phase.IDLE, None

    def _switch(self, node: FakeNode) -> None:
        node.slots = [
            Slot(
                name=slot.name,
                booted=not slot.booted,
                next_boot=not slot.booted,
                version=slot.version,
                digest=slot.digest,
                good=slot.good,
            )
            for slot in node.slots
        ]

    def _set(self, node: FakeNode, name: str, **values: Any) -> None:
        changed = []
        for slot in node.slots:
            given = {key: getattr(slot, key) for key in ("name", "booted", "next_boot", "version", "digest", "good")}
            changed.append(Slot(**(given | values)) if slot.name == name else slot)
        node.slots = changed

    def _say_state(self, node: FakeNode) -> None:
        self._say(node, [])

    def _say(self, node: FakeNode, happenings: list[Any]) -> None:
        if node.silent:
            with self.db.write() as change:
                gone = {"connection": "offline", "last_seen_at": self.now, "gateway_id": None}
                change.conn.execute(update(schema.nodes).where(schema.nodes.c.id == node.id).values(**gone))
                change.touch(f"node:{node.id}")
            return
        on_trial = node.phase is Phase.CONFIRMING
        activity = Activity(
            phase=node.phase,
            operation_id=node.operation.id if node.operation is not None else None,
            trial=Trial(confirmed=not on_trial, left_s=10.0) if on_trial or node.phase is Phase.SOAKING else None,
            way_back=node.way_back,
        )
        facts = Facts(
            agent=AgentFacts(version="0.1.0"),
            os=OsFacts(id="demo", arch="amd64"),
            boot=Boot(id=node.boot_id, at=self.now),
            evidence=EvidenceClass.AGENT_WITH_PLACEMENT,
        )
        health = Health(state=HealthState.HEALTHY if node.healthy else HealthState.UNHEALTHY)
        sections = Sections(facts=facts, slots=list(node.slots), health=health, activity=activity)
        report = Report(node.id, f"connection-{node.name}", self.now, sections, happenings)
        (outcome,) = intake.apply(self.db, [report], self.now)
        assert outcome.fate is intake.Fate.STORED, outcome
