"""Canaries that went well are watched until the others may go: the gate opens on what is seen."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
from sqlalchemy import select, update

from app.config import Settings
from app.core.group_policy import OnFailure
from app.core.rollouts import RolloutNodeState, RolloutState
from app.services import rollouts as service
from app.services.nodes import roll_back
from app.store import schema
from app.store.database import Database
from tests.server_kit import OPERATOR, digest_of
from tests.services.rollout_world import QUICK, TIMING, FakeNode, World
from tests.services.test_rollouts import ON_SQLITE, begin

pytestmark = ON_SQLITE

SOAK_S = 150.0
POLICY = replace(QUICK, canary_soak_s=SOAK_S)


def soaked(world: World, rollout_id: str) -> str:
    """The only canary is through, and the others wait; its name."""
    world.run_until(lambda: world.rollout(rollout_id).canaries_soaked_at is not None)
    (canary,) = (name for name, row in world.rows(rollout_id).items() if row.canary)
    return canary


def turns_unhealthy(_world: World, node: FakeNode) -> None:
    node.healthy = False


def is_gone(world: World, node: FakeNode) -> None:
    node.silent = True
    world._say(node)


def falls_back_by_itself(_world: World, node: FakeNode) -> None:
    node._switch()
    node.boots += 1


@pytest.mark.parametrize(
    ("happens", "policy", "after"),
    [
        (turns_unhealthy, OnFailure.HALT, {RolloutState.HALTED}),
        (turns_unhealthy, OnFailure.ROLL_BACK, {RolloutState.ROLLING_BACK, RolloutState.ROLLED_BACK}),
        (is_gone, OnFailure.HALT, {RolloutState.HALTED}),
        (falls_back_by_itself, OnFailure.HALT, {RolloutState.HALTED}),
    ],
)
def test_a_canary_that_goes_bad_while_the_others_wait_shuts_the_gate(
    database: Database,
    settings: Settings,
    happens: Callable[[World, FakeNode], None],
    policy: OnFailure,
    after: set[RolloutState],
) -> None:
    world = World(database, settings, 4, replace(POLICY, on_failure=policy))
    rollout_id = begin(world)
    name = soaked(world, rollout_id)
    happens(world, world.nodes[name])
    world.run_until(lambda: world.rollout(rollout_id).state is not RolloutState.RUNNING)
    assert world.rollout(rollout_id).state in after
    assert world.rollout(rollout_id).state_text.endswith(f"Canary {name} failed")
    row = world.rows(rollout_id)[name]
    assert row.state is RolloutNodeState.FAILED and row.text
    for _ in range(24):
        world.tick()
    assert sum(node.boots > 1 for node in world.nodes.values()) == 1
    with database.read() as conn:
        failed = conn.execute(select(schema.failed_versions.c.node_id, schema.failed_versions.c.digest)).all()
        (entry,) = conn.execute(select(schema.audit).where(schema.audit.c.action == "rollout.canary"))
    assert [tuple(one) for one in failed] == [(world.nodes[name].id, digest_of("2.0"))]
    assert entry.actor_name == "conductor" and entry.reason.startswith(f"{name} ") and entry.before["state"] == "done"
    assert entry.after["state"] == "failed" and entry.after["node"] == world.nodes[name].id


def test_time_does_not_pass_while_a_canary_is_away(database: Database, settings: Settings) -> None:
    """As long as it may take to reboot; then it goes on from where it was."""
    world = World(database, settings, 3, POLICY)
    rollout_id = begin(world)
    name = soaked(world, rollout_id)
    is_gone(world, world.nodes[name])
    world.tick()
    waited_s = world.rollout(rollout_id).canaries_waited_s
    while world.now < world.rollout(rollout_id).canaries_soaked_at + TIMING.reboot_deadline_s - 20:  # type: ignore[operator]
        world.tick()
    assert world.rollout(rollout_id).canaries_waited_s == waited_s
    others = [other for other in world.nodes if other != name]
    world.tick()
    holds = [world.rows(rollout_id)[other].hold for other in others]
    assert any(hold and hold["text"] == f"waits for canary {name}, which is not connected" for hold in holds), holds
    back_at = world.now
    world.wake(name)
    world.run_until(lambda: any(world.nodes[other].boots == 2 for other in others))
    assert world.now - back_at >= SOAK_S - waited_s - 2 * world.step_s
    world.run(rollout_id, until=RolloutState.SUCCEEDED)


def test_a_canary_that_reboots_is_waited_for(database: Database, settings: Settings) -> None:
    world = World(database, settings, 3, POLICY)
    rollout_id = begin(world)
    node = world.nodes[soaked(world, rollout_id)]
    node.boots += 1
    for _ in range(3):
        world.tick()
    assert world.rollout(rollout_id).state is RolloutState.RUNNING
    world.run(rollout_id, until=RolloutState.SUCCEEDED)


def test_nobody_fails_because_nobody_listened(database: Database, settings: Settings) -> None:
    world = World(database, settings, 3, POLICY)
    rollout_id = begin(world)
    name = soaked(world, rollout_id)
    is_gone(world, world.nodes[name])
    world.heard = False
    with database.write() as change:
        change.conn.execute(update(schema.gateways).values(heartbeat_at=world.now))
    world.now += 10 * TIMING.reboot_deadline_s
    world.conduct()
    assert world.rollout(rollout_id).state is RolloutState.RUNNING
    assert world.states(rollout_id)[name] is RolloutNodeState.DONE


def test_a_canary_that_an_operator_takes_back_is_replaced(database: Database, settings: Settings) -> None:
    world = World(database, settings, 4, POLICY)
    rollout_id = begin(world)
    name = soaked(world, rollout_id)
    roll_back(database, OPERATOR, world.nodes[name].id, "slow", world.now)
    world.tick()
    (second,) = (other for other, row in world.rows(rollout_id).items() if row.canary)
    assert second != name and world.rollout(rollout_id).state is RolloutState.RUNNING
    with database.read() as conn:
        log = schema.audit.c
        rows = conn.execute(
            select(log.action, log.after).where(log.action.like("rollout.canar%")).order_by(log.id)
        ).all()
    left, chosen = [world.nodes[one].id for one in (name, second)]
    assert [(row.action, row.after) for row in rows] == [
        ("rollout.canary", {"node": left, "canary": False}),
        ("rollout.canaries", {"nodes": [chosen]}),
    ]
    world.run(rollout_id, until=RolloutState.SUCCEEDED, ticks=150)


def test_who_looked_and_goes_on_gets_another_canary(database: Database, settings: Settings) -> None:
    world = World(database, settings, 3, POLICY)
    rollout_id = begin(world)
    name = soaked(world, rollout_id)
    turns_unhealthy(world, world.nodes[name])
    world.run(rollout_id, until=RolloutState.HALTED)
    service.resume(database, OPERATOR, rollout_id, "a full disk", world.now)
    (second,) = (other for other, row in world.rows(rollout_id).items() if row.canary)
    assert second != name and world.rollout(rollout_id).canaries_soaked_at is None
    world.run(rollout_id, until=RolloutState.SUCCEEDED, ticks=120)
