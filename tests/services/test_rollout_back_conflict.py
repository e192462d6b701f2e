"""A node that two machines claim to be is owed its way back: that is said, and no order runs out unheard meanwhile."""

from __future__ import annotations

from dataclasses import replace

from sqlalchemy import func, select, update

from app.config import Settings
from app.core.group_policy import Amount
from app.core.rollouts import RolloutNodeState, RolloutState
from app.services import rollouts as service
from app.store import schema
from app.store.database import Database
from app.store.rollout_cells import held_groups
from tests.server_kit import OPERATOR
from tests.services.rollout_world import World
from tests.services.test_rollout_breaks import WIDE
from tests.services.test_rollouts import ON_SQLITE, begin

pytestmark = ON_SQLITE


def conflict(world: World, name: str, *, on: bool) -> None:
    world.nodes[name].silent = on  # it is neither heard nor commanded
    with world.db.write() as change:
        found = {"conflict": {"since": world.now, "ends": []} if on else None}
        change.conn.execute(update(schema.nodes).where(schema.nodes.c.name == name).values(**found))
        change.touch(f"node:{world.nodes[name].id}")


def orders(world: World, name: str) -> int:
    with world.db.read() as conn:
        query = select(func.count()).where(schema.operations.c.node_id == world.nodes[name].id)
        return conn.execute(query).scalar_one()


def test_a_node_in_conflict_waits_for_its_way_back_by_name(database: Database, settings: Settings) -> None:
    world = World(database, settings, 4, replace(WIDE, max_unavailable=Amount(count=1)))
    rollout_id = begin(world)
    world.run_until(lambda: world.states(rollout_id)["n0"] is RolloutNodeState.DONE)
    conflict(world, "n0", on=True)
    service.roll_back(database, OPERATOR, rollout_id, "it is slow", world.now)
    world.step_s = 60.0
    for _ in range(60):
        world.tick()
    row = world.rows(rollout_id)["n0"]
    assert row.hold is not None and row.hold["code"] == "not-commandable" and "two machines" in row.hold["text"]
    assert orders(world, "n0") == 1, "no order to go back ran out"
    with database.read() as conn:
        assert [(held.code, held.nodes) for held in held_groups(conn, rollout_id)] == [("not-commandable", 1)]
    conflict(world, "n0", on=False)
    world.step_s = 10.0
    world.run(rollout_id, until=RolloutState.ROLLED_BACK)
    assert set(world.versions().values()) == {"1.0"}


def test_who_gets_into_conflict_with_an_order_to_go_back_waits_after_it(database: Database, settings: Settings) -> None:
    world = World(database, settings, 4, replace(WIDE, max_unavailable=Amount(count=1)))
    rollout_id = begin(world)
    world.run_until(lambda: world.states(rollout_id)["n0"] is RolloutNodeState.DONE)
    service.roll_back(database, OPERATOR, rollout_id, "it is slow", world.now)
    world.run_until(lambda: orders(world, "n0") == 2)
    conflict(world, "n0", on=True)
    world.step_s = 60.0
    for _ in range(60):
        world.tick()
    row = world.rows(rollout_id)["n0"]
    assert row.hold is not None and row.hold["code"] == "not-commandable"
    assert orders(world, "n0") == 2
