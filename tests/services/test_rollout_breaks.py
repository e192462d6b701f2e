"""What went wrong once, or could: asked twice, turned round twice, stopped at the wrong moment, clocks set back."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace

import pytest
from sqlalchemy import Connection, update

from app.config import Settings
from app.core.errors import NotPossible
from app.core.group_policy import Amount
from app.core.rollouts import RolloutNodeState, RolloutState
from app.services import nodes, rollout_observe, rollout_orders
from app.services import rollouts as service
from app.services.rollout_acting import locked_rollout
from app.services.rollout_reverse import reverse, reverse_group
from app.services.withdrawal import withdraw
from app.store import rollout_nodes, schema
from app.store.database import Change, Database, Priority
from tests.server_kit import OPERATOR
from tests.services.rollout_world import QUICK, Mood, World
from tests.services.test_rollouts import ON_SQLITE, begin
from wire.messages import Phase


class Between(Database):
    """Something happens between its reads and the write that follows them."""

    def __init__(self, db: Database, happens: Callable[[], object]) -> None:
        super().__init__(db.engine, db.nudges)
        self._db, self._happens, self._looked = db, happens, False

    @contextmanager
    def read(self) -> Iterator[Connection]:
        with self._db.read() as conn:
            yield conn
        self._looked = True

    @contextmanager
    def write(self, priority: Priority = Priority.OPERATOR) -> Iterator[Change]:
        if self._looked:
            self._happens()
        with self._db.write(priority) as change:
            yield change


WIDE = replace(QUICK, canaries=Amount(count=0), max_unavailable=Amount(count=3))

pytestmark = ON_SQLITE


def test_a_group_that_is_sent_back_twice_goes_back_once(database: Database, settings: Settings) -> None:
    world = World(database, settings, 2, WIDE)
    world.run(begin(world), until=RolloutState.SUCCEEDED)
    first = reverse_group(database, OPERATOR, world.group_id, "bad week", world.now)
    with pytest.raises(NotPossible, match="already"):
        reverse_group(database, OPERATOR, world.group_id, "bad week", world.now)
    world.run(first, until=RolloutState.SUCCEEDED)
    assert set(world.versions().values()) == {"1.0"}


def test_a_rollout_is_reversed_once(database: Database, settings: Settings) -> None:
    world = World(database, settings, 2, WIDE)
    rollout_id = begin(world)
    world.run(rollout_id, until=RolloutState.SUCCEEDED)
    reverse(database, OPERATOR, rollout_id, "bad week", world.now)
    with pytest.raises(NotPossible, match="already"):
        reverse(database, OPERATOR, rollout_id, "bad week", world.now)


def test_no_way_back_leads_into_a_withdrawn_version(database: Database, settings: Settings) -> None:
    world = World(database, settings, 2, WIDE)
    rollout_id = begin(world)
    world.run(rollout_id, until=RolloutState.SUCCEEDED)
    back = reverse(database, OPERATOR, rollout_id, "it leaks", world.now)
    world.run(back, until=RolloutState.SUCCEEDED)
    withdraw(database, OPERATOR, world.images["2.0"], "it leaks", world.now)
    with pytest.raises(NotPossible, match="withdrawn"):
        nodes.roll_back(database, OPERATOR, world.nodes["n0"].id, "by mistake", world.now)


def test_the_gate_stays_shut_while_no_canary_can_be_found(database: Database, settings: Settings) -> None:
    world = World(database, settings, 4)
    rollout_id = begin(world)
    first = next(name for name, row in world.rows(rollout_id).items() if row.canary)
    others = [name for name in world.nodes if name != first]
    for name in others:
        world.nodes[name].silent = True
    offline(world, others)
    nodes.retire(database, OPERATOR, world.nodes[first].id, "burnt", world.now)
    del world.nodes[first]
    world.tick()
    for name in others:
        world.wake(name)
    world.run_until(lambda: any(node.boots == 2 for node in world.nodes.values()))
    for _ in range(2):
        world.tick()
    assert sum(node.boots == 2 for node in world.nodes.values()) == 1
    world.run(rollout_id, until=RolloutState.SUCCEEDED)


def offline(world: World, names: list[str]) -> None:
    ids = [world.nodes[name].id for name in names]
    with world.db.write() as change:
        gone = {"connection": "offline", "last_seen_at": world.now, "gateway_id": None}
        change.conn.execute(update(schema.nodes).where(schema.nodes.c.id.in_(ids)).values(**gone))
        change.touch(*(f"node:{id}" for id in ids))


def test_a_pause_in_the_moment_of_a_grant_loses_no_node(database: Database, settings: Settings) -> None:
    world = World(database, settings, 1, WIDE)
    rollout_id = begin(world)
    world.run_until(lambda: world.nodes["n0"].phase is Phase.STAGING)
    world.act()
    world.admission.note({"*"})
    assert world.admission.tick(database, world.now)
    assert world.states(rollout_id)["n0"] is RolloutNodeState.ORDERED
    between = Between(database, lambda: rollout_observe.observe(database, world.now))
    service.pause(between, OPERATOR, rollout_id, "", world.now)
    for _ in range(4):
        world.tick()
    assert world.states(rollout_id)["n0"] is RolloutNodeState.WAITING
    service.resume(database, OPERATOR, rollout_id, "", world.now)
    world.run(rollout_id, until=RolloutState.SUCCEEDED)
    assert world.nodes["n0"].version == "2.0"


def test_an_order_that_was_called_back_and_never_answered_is_no_failure(database: Database, settings: Settings) -> None:
    world = World(database, settings, 2, replace(QUICK, max_unavailable=Amount(count=1)))
    rollout_id = begin(world)
    canary = next(name for name, row in world.rows(rollout_id).items() if row.canary)
    (other,) = set(world.nodes) - {canary}
    world.run_until(lambda: world.nodes[other].phase is Phase.STAGED)
    world.nodes[other].silent = True
    offline(world, [other])
    with database.write() as change:  # as a halt does
        rollout = locked_rollout(change, rollout_id)
        row = rollout_nodes.get(change.conn, rollout_id, world.nodes[other].id)
        assert row is not None
        assert rollout_orders.take_order(change, rollout, row, "a freeze began", world.now)
    world.run_until(lambda: world.open_operations(other) == 0, ticks=90)
    world.tick()
    assert world.states(rollout_id)[other] is RolloutNodeState.WAITING


def test_a_node_whose_trial_ended_by_another_order_goes_back_too(database: Database, settings: Settings) -> None:
    world = World(database, settings, 2, replace(WIDE, max_unavailable=Amount(count=1)))
    rollout_id = begin(world)
    world.run_until(lambda: any(node.phase is Phase.SOAKING for node in world.nodes.values()))
    name = next(name for name, node in world.nodes.items() if node.phase is Phase.SOAKING)
    service.pause(database, OPERATOR, rollout_id, "", world.now)
    world.nodes[name].give_way()  # as agents do for a rescue
    world.run_until(lambda: world.states(rollout_id)[name] is RolloutNodeState.LEFT)
    assert world.nodes[name].version == "2.0"
    service.roll_back(database, OPERATOR, rollout_id, "it is slow", world.now)
    world.run(rollout_id, until=RolloutState.ROLLED_BACK)
    assert set(world.versions().values()) == {"1.0"}


def test_failures_after_a_halt_count_although_the_clock_was_set_back(database: Database, settings: Settings) -> None:
    world = World(database, settings, 3, replace(WIDE, failure_limit=Amount(count=0), max_unavailable=Amount(count=1)))
    rollout_id = begin(world)
    for node in world.nodes.values():
        node.mood = Mood.FALLS_BACK
    world.run(rollout_id, until=RolloutState.HALTED)
    service.resume(database, OPERATOR, rollout_id, "its disk was broken", world.now)
    world.now -= 3600.0
    world.run(rollout_id, until=RolloutState.HALTED)
    assert list(world.states(rollout_id).values()).count(RolloutNodeState.FAILED) == 2


def test_nobody_waits_for_the_clock_to_stage(database: Database, settings: Settings) -> None:
    world = World(database, settings, 2, replace(WIDE, stage_jitter_s=60.0))
    rollout_id = begin(world)
    world.now -= 86_400.0
    world.run(rollout_id, until=RolloutState.SUCCEEDED)


def test_an_aborted_way_back_leaves_no_order_behind(database: Database, settings: Settings) -> None:
    world = World(database, settings, 2, replace(WIDE, max_unavailable=Amount(count=1)))
    rollout_id = begin(world, left_out=(world.join("away").id,))
    world.run_until(lambda: RolloutNodeState.DONE in world.states(rollout_id).values())
    service.pause(database, OPERATOR, rollout_id, "", world.now)
    world.run_until(lambda: RolloutNodeState.MOVING not in world.states(rollout_id).values())
    moved = [name for name, node in world.nodes.items() if node.version == "2.0"]
    world.nodes["away"].silent = True  # and takes the budget
    offline(world, ["away"])
    service.roll_back(database, OPERATOR, rollout_id, "it is slow", world.now)
    world.run_until(lambda: all(world.nodes[name].phase is Phase.STAGED for name in moved))
    service.abort(database, OPERATOR, rollout_id, "it is not so slow", world.now)
    for _ in range(4):
        world.tick()
    assert moved and [world.open_operations(name) for name in moved] == [0] * len(moved)
    assert {world.nodes[name].version for name in moved} == {"2.0"}
    assert world.rollout(rollout_id).state is RolloutState.ABORTED
    assert all(world.rows(rollout_id)[name].back_ended_at is not None for name in moved)


def test_a_soak_counts_although_the_clock_was_set_back_in_it(database: Database, settings: Settings) -> None:
    world = World(database, settings, 1, replace(WIDE, timing=replace(WIDE.timing, soak_s=200.0)))
    rollout_id = begin(world)
    world.run_until(lambda: world.nodes["n0"].phase is Phase.SOAKING)
    for _ in range(10):
        world.tick()
    world.now -= 90.0
    world.nodes["n0"].soak_until -= 90.0  # its own clock goes on
    world.tick(1.0)
    world.run(rollout_id, until=RolloutState.SUCCEEDED)
    assert world.states(rollout_id)["n0"] is RolloutNodeState.DONE, world.rows(rollout_id)["n0"].text
