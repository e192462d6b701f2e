"""A node that says itself why it does not begin waits; it does not fail, however long that takes (rules 4 and 10)."""

from __future__ import annotations

from dataclasses import replace

import pytest

from app.config import Settings
from app.core.group_policy import Amount
from app.core.rollouts import RolloutNodeState, RolloutState
from app.store.database import Database
from app.store.rollout_cells import held_groups
from tests.services.rollout_world import QUICK, TIMING, World
from tests.services.test_rollout_breaks import offline
from tests.services.test_rollouts import ON_SQLITE, begin
from wire.messages import Hold

pytestmark = ON_SQLITE

KEEPS = Hold(code="keeping-way-back", text="slot B (1.0) is kept as the way back until this version has proved itself")
WITHOUT_CANARIES = replace(QUICK, canaries=Amount(count=0))
LONG = 4 * int(TIMING.stage_deadline_s // 60)
"""Ticks of a minute."""


def held(world: World, *names: str) -> None:
    for name in names:
        world.nodes[name].own_hold = KEEPS
    world.step_s = 60.0


def test_a_node_that_says_why_it_does_not_begin_waits(database: Database, settings: Settings) -> None:
    world = World(database, settings, 2, WITHOUT_CANARIES)
    rollout_id = begin(world)
    held(world, "n0")
    for _ in range(LONG):
        world.tick()
    assert world.states(rollout_id) == {"n0": RolloutNodeState.ORDERED, "n1": RolloutNodeState.DONE}
    assert world.rollout(rollout_id).state is RolloutState.RUNNING
    with database.read() as conn:
        assert [(held.code, held.text) for held in held_groups(conn, rollout_id)] == [("not-ready", KEEPS.text)]
    world.nodes["n0"].own_hold = None
    world.tick()
    assert world.rows(rollout_id)["n0"].hold is None
    world.run(rollout_id, until=RolloutState.SUCCEEDED)
    assert world.versions() == {"n0": "2.0", "n1": "2.0"}


@pytest.mark.parametrize("code", ["lease", "gateway-away"])
def test_waiting_for_us_is_no_hold_of_its_own(database: Database, settings: Settings, code: str) -> None:
    world = World(database, settings, 1, WITHOUT_CANARIES)
    rollout_id = begin(world)
    held(world, "n0")
    world.nodes["n0"].own_hold = Hold(code=code, text="waits")
    world.run_until(lambda: world.states(rollout_id)["n0"] is RolloutNodeState.FAILED, ticks=LONG)


def test_one_that_said_why_and_went_silent_is_late(database: Database, settings: Settings) -> None:
    world = World(database, settings, 1, WITHOUT_CANARIES)
    rollout_id = begin(world)
    held(world, "n0")
    for _ in range(5):
        world.tick()
    world.nodes["n0"].silent = True
    offline(world, ["n0"])
    world.run_until(lambda: world.states(rollout_id)["n0"] is RolloutNodeState.FAILED, ticks=LONG)


def test_another_is_the_canary_while_it_waits(database: Database, settings: Settings) -> None:
    world = World(database, settings, 4)
    rollout_id = begin(world)
    (canary,) = (name for name, row in world.rows(rollout_id).items() if row.canary)
    held(world, canary)
    world.run_until(lambda: list(world.states(rollout_id).values()).count(RolloutNodeState.DONE) == 3)
    rows = world.rows(rollout_id)
    (other,) = (row for row in rows.values() if row.canary)
    assert other.name != canary and other.confirmed_at is not None
    assert rows[canary].state is RolloutNodeState.ORDERED
    others = [row.moving_at for row in rows.values() if row.name not in (canary, other.name)]
    assert all(at is not None and other.ended_at is not None and at >= other.ended_at for at in others)
    assert world.kinds(rollout_id).count("canary") == 1


def test_where_all_are_held_the_gate_stays_shut(database: Database, settings: Settings) -> None:
    world = World(database, settings, 3)
    rollout_id = begin(world)
    before = [name for name, row in world.rows(rollout_id).items() if row.canary]
    held(world, *world.nodes)
    for _ in range(LONG):
        world.tick()
    assert [name for name, row in world.rows(rollout_id).items() if row.canary] == before
    assert world.rollout(rollout_id).state is RolloutState.RUNNING
    assert "canary" not in world.kinds(rollout_id)
