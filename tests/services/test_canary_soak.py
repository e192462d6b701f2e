"""How long the others wait after the canaries: counted by steps, whatever becomes of the server's clock."""

from __future__ import annotations

from dataclasses import replace

import pytest

from app.config import Settings
from app.core.group_policy import Amount
from app.core.rollouts import RolloutNodeState, RolloutState
from app.store.database import Database
from tests.services.rollout_world import QUICK, World
from tests.services.test_rollouts import ON_SQLITE, begin

pytestmark = ON_SQLITE

DAY_S = 86_400.0
SOAK_S = 120.0
POLICY = replace(QUICK, canaries=Amount(count=2), canary_soak_s=SOAK_S, max_unavailable=Amount(count=1))


def canaries_done(world: World, rollout_id: str) -> int:
    return sum(row.canary and row.state is RolloutNodeState.DONE for row in world.rows(rollout_id).values())


def set_clock(world: World, by_s: float) -> None:
    """The server's; nodes go by their own."""
    world.now += by_s
    for node in world.nodes.values():
        node.soak_until += by_s


@pytest.mark.parametrize("when", [1, 2])
def test_a_clock_that_is_set_back_keeps_nobody_for_the_day(database: Database, settings: Settings, when: int) -> None:
    """Before the last canary soaked, and after."""
    world = World(database, settings, 3, POLICY)
    rollout_id = begin(world)
    world.run_until(lambda: canaries_done(world, rollout_id) == when)
    set_clock(world, -DAY_S)
    world.run_until(lambda: canaries_done(world, rollout_id) == 2)
    before = world.now
    world.run(rollout_id, until=RolloutState.SUCCEEDED, ticks=40)
    assert world.now - before >= SOAK_S, "they waited all the same"


def test_a_clock_that_jumps_ahead_opens_no_gate(database: Database, settings: Settings) -> None:
    world = World(database, settings, 3, POLICY)
    rollout_id = begin(world)
    world.run_until(lambda: canaries_done(world, rollout_id) == 2)
    world.tick()
    set_clock(world, DAY_S)
    for _ in range(5):
        world.tick()
        assert sum(node.boots for node in world.nodes.values()) == 5, "the third waits"
    world.run(rollout_id, until=RolloutState.SUCCEEDED)
