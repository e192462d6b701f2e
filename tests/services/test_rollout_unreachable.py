"""Nodes that go back because they can reach nobody stop a rollout, and are held against no version (rule 6)."""

from __future__ import annotations

from dataclasses import replace

import pytest
from sqlalchemy import select

from app.config import Settings
from app.core.group_policy import Amount, OnFailure
from app.core.rollouts import RolloutNodeState, RolloutState
from app.services import rollouts as service
from app.store import schema
from app.store.database import Database
from tests.server_kit import OPERATOR
from tests.services.rollout_world import QUICK, Mood, World
from tests.services.test_rollouts import ON_SQLITE, begin

pytestmark = ON_SQLITE

FAILED = RolloutNodeState.FAILED


def cut_off(world: World, *names: str) -> None:
    for name in names or world.nodes:
        world.nodes[name].mood = Mood.UNREACHABLE


def test_an_image_that_breaks_the_network_stops_at_the_canary(database: Database, settings: Settings) -> None:
    world = World(database, settings, 8, replace(QUICK, on_failure=OnFailure.ROLL_BACK))
    cut_off(world)
    rollout_id = begin(world)
    halted = world.run(rollout_id, until=RolloutState.HALTED)
    assert "went back because nothing could be reached" in halted.state_text
    for _ in range(10):
        world.tick()
    assert sum(node.boots > 1 for node in world.nodes.values()) == 1
    with database.read() as conn:
        assert not conn.execute(select(schema.failed_versions)).all()
        assert not conn.execute(select(schema.bad_versions)).all()


@pytest.mark.parametrize(("limit", "attempted"), [(1, 3), (2, 4)])
def test_past_the_limit_it_halts_and_sends_nobody_back(
    database: Database, settings: Settings, limit: int, attempted: int
) -> None:
    """One went well before; what the others met may be anybody's doing."""
    policy = replace(
        QUICK,
        max_unavailable=Amount(count=1),
        failure_limit=Amount(count=limit),
        on_failure=OnFailure.ROLL_BACK,
    )
    world = World(database, settings, 6, policy)
    rollout_id = begin(world)
    (canary,) = (name for name, row in world.rows(rollout_id).items() if row.canary)
    cut_off(world, *(name for name in world.nodes if name != canary))
    halted = world.run(rollout_id, until=RolloutState.HALTED)
    assert (
        f"{limit + 1} of {attempted} nodes failed ({limit + 1} because nothing could be reached)" in halted.state_text
    )
    assert world.versions()[canary] == "2.0"


def test_who_looked_and_goes_on_gets_another_canary(database: Database, settings: Settings) -> None:
    world = World(database, settings, 3)
    rollout_id = begin(world)
    first = next(name for name, row in world.rows(rollout_id).items() if row.canary)
    cut_off(world, first)
    world.run(rollout_id, until=RolloutState.HALTED)
    assert world.states(rollout_id)[first] is FAILED
    service.resume(database, OPERATOR, rollout_id, "a switch was down", world.now)
    (second,) = (name for name, row in world.rows(rollout_id).items() if row.canary)
    assert second != first
    world.run(rollout_id, until=RolloutState.SUCCEEDED)
    assert sorted(world.versions().values()) == ["1.0", "2.0", "2.0"]
