"""A small fleet whose nodes do what their orders say, tick by tick, through the same intake as real ones."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
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
from app.store import rollout_nodes, rollouts, schema
from app.store.database import Change, Database, Priority
from app.store.rollouts import Rollout
from tests import server_kit as kit
from tests.rollout_kit import add_group
from tests.server_kit import NOW, digest_of
from tests.services.fake_node import FakeNode, Mood
from wire.messages import OperationKind, Phase, Slot

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


__all__ = ["QUICK", "TICK_S", "FakeNode", "Killed", "Mood", "Mortal", "World"]


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
        self.step_s = TICK_S
        self.heard = True
        self.mortal: Callable[[], Database] | None = None
        """Another conductor that works before ours in each tick, and is killed by its database."""
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

    def overwrite(self, name: str, version: str) -> None:
        """Its passive slot holds this now, and the way back that was in it is gone."""
        node = self.nodes[name]
        node.write(node.passive.name, version=version, digest=digest_of(version), good=None)
        node.way_back = None

    # --- time -----------------------------------------------------------------------------------------------

    def tick(self, seconds: float | None = None) -> None:
        """Nodes act, then the conductor does everything once."""
        self.act(self.step_s if seconds is None else seconds)
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
            answer = lease_answer(conn, node.id)
        node.act(desired, answer, self.now)
        self._say(node)

    def _say(self, node: FakeNode) -> None:
        if node.silent:
            with self.db.write() as change:
                gone = {"connection": "offline", "last_seen_at": self.now, "gateway_id": None}
                change.conn.execute(update(schema.nodes).where(schema.nodes.c.id == node.id).values(**gone))
                change.touch(f"node:{node.id}")
            return
        (outcome,) = intake.apply(self.db, [node.report()], self.now)
        assert outcome.fate is intake.Fate.STORED, outcome
