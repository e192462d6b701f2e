"""What the conductor takes back or lets go stands in the audit log, once for each transaction, with the nodes."""

from __future__ import annotations

from typing import Any

from sqlalchemy import select, update

from app.config import Settings
from app.core.rollouts import RolloutNodeState
from app.services import freezes
from app.services import rollouts as service
from app.store import schema
from app.store.database import Database
from tests.server_kit import OPERATOR
from tests.services.rollout_world import World
from tests.services.test_rollout_breaks import WIDE
from tests.services.test_rollouts import ON_SQLITE, begin
from wire.messages import Phase

pytestmark = ON_SQLITE


def entries(world: World, action: str) -> list[tuple[str, str, Any]]:
    """(author, reason, after), oldest first."""
    columns = schema.audit.c
    with world.db.read() as conn:
        query = select(columns.actor_name, columns.reason, columns.after).where(columns.action == action)
        return [tuple(row) for row in conn.execute(query.order_by(columns.id))]  # type: ignore[misc]


def with_leases(database: Database, settings: Settings) -> tuple[World, str]:
    """Both nodes have their leases and have not heard of them."""
    world = World(database, settings, 2, WIDE)
    rollout_id = begin(world)
    world.run_until(lambda: set(world.states(rollout_id).values()) == {RolloutNodeState.MOVING})
    assert all(node.phase is Phase.STAGED for node in world.nodes.values())
    return world, rollout_id


def ids(world: World, *names: str) -> list[str]:
    return [world.nodes[name].id for name in names]


def test_leases_that_a_freeze_takes_back(database: Database, settings: Settings) -> None:
    world, _ = with_leases(database, settings)
    freezes.freeze(database, OPERATOR, group_id=None, reason="fair", now=world.now)
    world.conduct()
    why = "a freeze began before it was armed"
    expected = [("conductor", why, {"nodes": [node_id]}) for node_id in ids(world, "n0", "n1")]
    assert sorted(entries(world, "rollout.take-back"), key=lambda one: str(one[2])) == expected


def test_leases_that_a_pause_takes_back(database: Database, settings: Settings) -> None:
    world, rollout_id = with_leases(database, settings)
    service.pause(database, OPERATOR, rollout_id, "lunch", world.now)
    world.conduct()
    (entry,) = entries(world, "rollout.take-back")
    assert entry == ("conductor", "rollout 1 is paused", {"nodes": sorted(ids(world, "n0", "n1"))})


def test_nodes_that_an_abort_lets_go(database: Database, settings: Settings) -> None:
    world = World(database, settings, 3, WIDE)
    rollout_id = begin(world)
    service.abort(database, OPERATOR, rollout_id, "no", world.now)
    world.conduct()
    assert entries(world, "rollout.let-go") == [("conductor", "rollout 1 was stopped before they moved", {"count": 3})]


def test_nodes_that_left_the_group(database: Database, settings: Settings) -> None:
    world = World(database, settings, 3, WIDE)
    begin(world)
    with database.write() as change:
        gone = schema.nodes.c.id.in_(ids(world, "n0", "n2"))
        change.conn.execute(update(schema.nodes).where(gone).values(labels={"role": "lab"}))
        change.touch("nodes")
    world.conduct()
    why = "it left the group, or the fleet"
    ((author, reason, after),) = entries(world, "rollout.let-go")
    assert (author, reason) == ("conductor", "") and after == {"nodes": dict.fromkeys(ids(world, "n0", "n2"), why)}
