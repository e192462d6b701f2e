"""What is noted of a node between a plan and what follows from it counts: pins, and versions that failed there."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from sqlalchemy import insert, update

from app.config import Settings
from app.core.rollouts import RolloutNodeState, RolloutState
from app.services import admission
from app.services import rollouts as service
from app.services.rollout_spec import RolloutSpec
from app.services.rollout_start import start
from app.store import schema
from app.store.database import Database
from tests.server_kit import OPERATOR, digest_of
from tests.services.rollout_world import QUICK, World
from tests.services.test_rollout_breaks import WIDE, Between
from tests.services.test_rollouts import ON_SQLITE, begin
from wire.messages import Phase

pytestmark = ON_SQLITE


def pin(world: World, name: str) -> None:
    values: dict[str, Any] = {
        "pin_image_id": world.images["1.0"],
        "pin_actor": "ana",
        "pin_reason": "its driver",
        "pinned_at": world.now,
    }
    with world.db.write() as change:
        change.conn.execute(update(schema.nodes).where(schema.nodes.c.name == name).values(**values))


def fails(world: World, name: str) -> None:
    values = {"node_id": world.nodes[name].id, "digest": digest_of("2.0"), "version": "2.0", "reason": "smoke"}
    with world.db.write() as change:
        change.conn.execute(insert(schema.failed_versions).values(at=world.now, **values))


@pytest.mark.parametrize("note", [pin, fails])
def test_no_lease_for_a_node_that_was_pinned_or_failed_since_the_plan(
    database: Database, settings: Settings, note: Callable[[World, str], None]
) -> None:
    world = World(database, settings, 2, WIDE)
    begin(world)
    world.run_until(lambda: world.nodes["n0"].phase is Phase.STAGING)
    world.act()
    noted: list[str] = []

    def once() -> None:
        if not noted:
            noted.append("n0")
            note(world, "n0")

    ticking = admission.Admission()
    assert ticking.tick(Between(database, once), world.now), "the other has its lease"
    with database.read() as conn:
        held = [row.node_id for row in conn.execute(schema.leases.select())]
    assert held == [world.nodes["n1"].id]


def test_a_node_that_is_pinned_in_the_moment_of_the_start_stays_out(database: Database, settings: Settings) -> None:
    world = World(database, settings, 3, QUICK)
    spec = RolloutSpec(group_id=world.group_id, version="2.0", reason="monthly")
    rollout_id = service.draft(database, OPERATOR, spec, world.now)
    start(Between(database, lambda: pin(world, "n0")), OPERATOR, rollout_id, "go", world.now)
    rows = world.rows(rollout_id)
    assert rows["n0"].state is RolloutNodeState.LEFT and "pinned" in rows["n0"].text
    assert not rows["n0"].canary and sum(row.canary for row in rows.values()) == 1, "another is the canary"
    world.run(rollout_id, until=RolloutState.SUCCEEDED)
    assert world.versions() == {"n0": "1.0", "n1": "2.0", "n2": "2.0"}


def test_a_way_back_is_stopped_by_no_pin(database: Database, settings: Settings) -> None:
    world = World(database, settings, 2, replace(QUICK, canary_soak_s=3600.0))
    rollout_id = begin(world)
    world.run_until(lambda: RolloutNodeState.DONE in world.states(rollout_id).values())
    (moved,) = (name for name, node in world.nodes.items() if node.version == "2.0")
    service.roll_back(database, OPERATOR, rollout_id, "slow", world.now)
    with database.write() as change:
        pinned = {"pin_image_id": world.images["2.0"], "pin_actor": "ana", "pinned_at": world.now}
        change.conn.execute(update(schema.nodes).where(schema.nodes.c.name == moved).values(**pinned))
    world.run(rollout_id, until=RolloutState.ROLLED_BACK)
    assert world.nodes[moved].version == "1.0"
