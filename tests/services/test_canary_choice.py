"""Canaries are nodes that can move: who is held until a person does something proves nothing to the others."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from sqlalchemy import update

from app.config import Settings
from app.core.rollouts import RolloutNodeState, RolloutState
from app.services.rollout_preview import preview
from app.store import failed_versions, schema
from app.store.database import Database
from tests.server_kit import digest_of
from tests.services.rollout_world import FakeNode, World
from tests.services.test_rollouts import ON_SQLITE, begin
from wire.messages import Phase

pytestmark = ON_SQLITE


def failed_before(world: World, node: FakeNode) -> None:
    with world.db.write() as change:
        found = (node.id, digest_of("2.0"), "2.0", "it fell back")
        failed_versions.remember(change.conn, *found, None, world.now)
        change.touch("nodes", f"node:{node.id}")


def runs(world: World, node: FakeNode, version: str) -> None:
    node.write(node.booted.name, version=version, digest=digest_of(version))
    world._say(node)


def must_not_come_from_its_version(world: World, node: FakeNode) -> None:
    runs(world, node, "0.9")
    with world.db.write() as change:
        here = schema.images.c.version == "2.0"
        change.conn.execute(update(schema.images).where(here).values(not_from=["0.9"]))
        change.touch("images")


def is_newer(world: World, node: FakeNode) -> None:
    runs(world, node, "3.0")


@pytest.mark.parametrize("held", [failed_before, must_not_come_from_its_version, is_newer])
def test_who_cannot_move_is_no_canary(
    database: Database, settings: Settings, held: Callable[[World, FakeNode], None]
) -> None:
    """n0 would be the first by name; the others go, and it waits with its reason."""
    world = World(database, settings, 4)
    held(world, world.nodes["n0"])
    rollout_id = begin(world)
    assert [name for name, row in world.rows(rollout_id).items() if row.canary] == ["n1"]
    assert not preview(database, rollout_id, world.now).impossible_nodes() - {world.nodes["n0"].id}
    done = {RolloutNodeState.DONE}
    world.run_until(lambda: {world.states(rollout_id)[name] for name in ("n1", "n2", "n3")} == done)
    assert world.nodes["n0"].boots == 1
    assert world.rollout(rollout_id).state is RolloutState.RUNNING


@pytest.mark.parametrize("held", [failed_before, is_newer])
def test_who_cannot_move_takes_no_canarys_place(
    database: Database, settings: Settings, held: Callable[[World, FakeNode], None]
) -> None:
    world = World(database, settings, 3)
    rollout_id = begin(world)
    assert [name for name, row in world.rows(rollout_id).items() if row.canary] == ["n0"]
    held(world, world.nodes["n1"])
    world.run_until(lambda: world.nodes["n0"].phase is Phase.STAGING)
    world.nodes["n0"].give_way()
    world.run_until(lambda: world.states(rollout_id)["n0"] is RolloutNodeState.LEFT)
    assert [name for name, row in world.rows(rollout_id).items() if row.canary] == ["n2"]
    world.run_until(lambda: world.states(rollout_id)["n2"] is RolloutNodeState.DONE)


def test_where_nobody_else_is_left_the_gate_stays_shut_all_the_same(database: Database, settings: Settings) -> None:
    world = World(database, settings, 2)
    rollout_id = begin(world)
    failed_before(world, world.nodes["n1"])
    world.run_until(lambda: world.nodes["n0"].phase is Phase.STAGING)
    world.nodes["n0"].give_way()
    world.run_until(lambda: world.states(rollout_id)["n0"] is RolloutNodeState.LEFT)
    assert [name for name, row in world.rows(rollout_id).items() if row.canary] == ["n1"]
