"""A break-glass that was given before a new epoch passes nothing in it: nobody has looked yet (rule 8)."""

from __future__ import annotations

from dataclasses import replace

import pytest
from sqlalchemy import select, update

from app.config import Settings
from app.core.group_policy import Amount
from app.core.rollouts import RolloutState
from app.services import epochs
from app.services import rollouts as service
from app.services.rollout_spec import RolloutSpec
from app.store import schema
from app.store.database import Database
from tests.server_kit import OPERATOR
from tests.services.rollout_world import QUICK, World
from tests.services.test_rollouts import ON_SQLITE, begin

pytestmark = ON_SQLITE

ONE_BY_ONE = replace(QUICK, canaries=Amount(count=0), max_unavailable=Amount(count=1))


def restored(world: World) -> None:
    """A node has carried out newer orders than this database gave it."""
    with world.db.write() as change:
        told = {"told_epoch": 1, "told_generation": 999}
        change.conn.execute(update(schema.nodes).where(schema.nodes.c.name == "n3").values(**told))
        change.touch("nodes")
    assert epochs.start_when_needed(world.db, world.now)


def updated(world: World) -> int:
    return list(world.versions().values()).count("2.0")


def test_a_break_glass_of_before_does_not_pass_the_freeze_of_a_new_epoch(
    database: Database, settings: Settings
) -> None:
    world = World(database, settings, 4, ONE_BY_ONE)
    rollout_id = begin(world, break_glass=True)
    world.run_until(lambda: updated(world) >= 1)
    restored(world)
    for _ in range(6):
        world.tick()  # who had armed comes up and soaks
    before = updated(world)
    for _ in range(20):
        world.tick()
    assert updated(world) == before < 4
    assert not world.rollout(rollout_id).break_glass
    with database.read() as conn:
        columns = schema.audit.c
        query = select(columns.actor_name, columns.before, columns.after).where(columns.action == "rollout.break-glass")
        assert [tuple(row) for row in conn.execute(query)] == [
            ("conductor", {"break_glass": True}, {"break_glass": False})
        ]
    service.set_break_glass(database, OPERATOR, rollout_id, True, "looked: nothing is lost", world.now)
    world.run(rollout_id, until=RolloutState.SUCCEEDED)
    assert updated(world) == 4


@pytest.mark.parametrize("given", [True, False])
def test_drafts_too(database: Database, settings: Settings, given: bool) -> None:
    world = World(database, settings, 4, ONE_BY_ONE)
    spec = RolloutSpec(group_id=world.group_id, version="2.0", reason="monthly", break_glass=given)
    rollout_id = service.draft(database, OPERATOR, spec, world.now)
    restored(world)
    assert not world.rollout(rollout_id).break_glass
    assert world.kinds(rollout_id) == ["drafted", *(["changed"] if given else [])]
