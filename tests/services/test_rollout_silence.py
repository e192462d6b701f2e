"""Silence before a lease: nothing was attempted with the node, so it waits, goes on when it is back, or is absent."""

from __future__ import annotations

from dataclasses import replace

from sqlalchemy import select, update

from app.config import Settings
from app.core.rollouts import RolloutNodeState, RolloutState
from app.core.waiting import Step
from app.services import rollouts as service
from app.services.freezes import freeze, lift
from app.services.rollout_reverse import reverse
from app.services.waiting import waiting
from app.store import nodes, schema
from app.store.database import Database
from app.store.rollout_cells import held_groups
from tests.server_kit import OPERATOR
from tests.services.rollout_world import QUICK, World
from tests.services.test_rollout_breaks import WIDE, offline
from tests.services.test_rollouts import ON_SQLITE, begin
from wire.messages import Phase

pytestmark = ON_SQLITE

HOUR_S = 3600.0


def silent_while_frozen(world: World, rollout_id: str) -> str:
    """The canary staged, asked, was told of the freeze and went away; its name."""
    canary = next(name for name, row in world.rows(rollout_id).items() if row.canary)
    world.run_until(lambda: world.nodes[canary].asked >= 2)
    world.nodes[canary].silent = True
    offline(world, [canary])
    world.run_until(lambda: not world.open_operations(canary), ticks=70)
    return canary


def frozen(world: World) -> str:
    return freeze(world.db, OPERATOR, group_id=world.group_id, reason="fair", now=world.now)


def results(world: World, name: str) -> list[tuple[str, str]]:
    with world.db.read() as conn:
        query = select(schema.operations.c.result, schema.operations.c.result_text)
        mine = query.where(schema.operations.c.node_id == world.nodes[name].id).order_by(schema.operations.c.id)
        return [(row[0], row[1]) for row in conn.execute(mine)]


def test_a_canary_that_goes_away_while_it_waits_for_a_freeze_is_ordered_anew(
    database: Database, settings: Settings
) -> None:
    world = World(database, settings, 3, QUICK)
    world.step_s = 60.0
    rollout_id = begin(world)
    freeze_id = frozen(world)
    canary = silent_while_frozen(world, rollout_id)
    moved_at = world.rollout(rollout_id).moved_at
    world.tick()
    row = world.rows(rollout_id)[canary]
    assert world.rollout(rollout_id).state is RolloutState.RUNNING
    assert (row.state, row.operation_id, row.canary) == (RolloutNodeState.WAITING, None, True)
    assert row.hold is not None and row.hold["code"] == "offline"
    assert world.rollout(rollout_id).moved_at == moved_at, "nobody got further"
    ((result, text),) = results(world, canary)
    assert result == "timed-out" and "nothing was armed" in text
    lift(database, OPERATOR, freeze_id, "over", world.now)
    world.wake(canary)
    world.step_s = 10.0
    world.run(rollout_id, until=RolloutState.SUCCEEDED)
    assert set(world.states(rollout_id).values()) == {RolloutNodeState.DONE}


def test_who_stays_away_leaves_as_absent_and_another_canary_takes_its_place(
    database: Database, settings: Settings
) -> None:
    world = World(database, settings, 3, replace(QUICK, absent_after_s=2 * HOUR_S))
    world.step_s = 60.0
    rollout_id = begin(world)
    freeze_id = frozen(world)
    canary = silent_while_frozen(world, rollout_id)
    lift(database, OPERATOR, freeze_id, "over", world.now)
    with database.write() as change:  # a day without any gateway is nobody's silence
        change.conn.execute(update(schema.gateways).values(stopped_at=world.now - 60.0))
    world.now += 24 * HOUR_S
    world.conduct()
    assert world.states(rollout_id)[canary] is RolloutNodeState.WAITING
    with database.write() as change:
        change.conn.execute(update(schema.gateways).values(stopped_at=None, started_at=world.now - 3 * HOUR_S))
        long_ago = {"last_seen_at": world.now - 2.5 * HOUR_S}
        change.conn.execute(update(schema.nodes).where(schema.nodes.c.name == canary).values(**long_ago))
    world.run_until(lambda: world.states(rollout_id)[canary] is RolloutNodeState.LEFT, ticks=3)
    row = world.rows(rollout_id)[canary]
    assert row.hold is not None and row.hold["code"] == "absent" and not row.canary
    others = {name: row.canary for name, row in world.rows(rollout_id).items() if name != canary}
    assert sorted(others.values()) == [False, True]
    world.step_s = 10.0
    world.wake(canary)
    world.run(rollout_id, until=RolloutState.SUCCEEDED)
    assert set(world.versions().values()) == {"2.0"}


def test_silence_while_staging_is_a_failure(database: Database, settings: Settings) -> None:
    world = World(database, settings, 2, QUICK)
    rollout_id = begin(world)
    canary = next(name for name, row in world.rows(rollout_id).items() if row.canary)
    world.run_until(lambda: world.nodes[canary].phase is Phase.STAGING)
    world.nodes[canary].silent = True
    offline(world, [canary])
    world.step_s = 60.0
    world.run(rollout_id, until=RolloutState.HALTED, ticks=30)
    assert world.states(rollout_id)[canary] is RolloutNodeState.FAILED


def test_an_aborted_rollout_has_no_failure_of_a_node_that_only_waited(database: Database, settings: Settings) -> None:
    world = World(database, settings, 2, WIDE)
    rollout_id = begin(world)
    frozen(world)
    world.run_until(lambda: world.nodes["n0"].asked >= 2)
    world.nodes["n0"].silent = True
    offline(world, ["n0"])
    service.abort(database, OPERATOR, rollout_id, "no", world.now)
    world.step_s = 60.0
    world.run_until(lambda: not world.open_operations("n0"), ticks=70)
    world.tick()
    row = world.rows(rollout_id)["n0"]
    assert row.state is RolloutNodeState.LEFT and "stopped before it moved" in row.text


def test_a_node_of_a_reverse_rollout_that_went_away_before_its_lease_is_sent_back_when_it_is_seen(
    database: Database, settings: Settings
) -> None:
    world = World(database, settings, 2, WIDE)
    rollout_id = begin(world)
    world.run(rollout_id, until=RolloutState.SUCCEEDED)
    back_id = reverse(database, OPERATOR, rollout_id, "it is slow", world.now)
    world.conduct()
    service.pause(database, OPERATOR, back_id, "", world.now)
    world.run_until(lambda: world.nodes["n0"].phase is Phase.STAGED)
    world.nodes["n0"].silent = True
    offline(world, ["n0"])
    world.step_s = 60.0
    world.run_until(lambda: not world.open_operations("n0"), ticks=70)
    assert world.states(back_id)["n0"] is RolloutNodeState.WAITING
    service.resume(database, OPERATOR, back_id, "", world.now)
    world.wake("n0")
    world.step_s = 10.0
    world.run(back_id, until=RolloutState.SUCCEEDED)
    assert set(world.versions().values()) == {"1.0"}


def test_rolling_back_sends_a_node_back_that_was_away_for_longer_than_any_deadline(
    database: Database, settings: Settings
) -> None:
    world = World(database, settings, 3, replace(QUICK, canary_soak_s=10 * HOUR_S))
    rollout_id = begin(world)
    (canary,) = (name for name, row in world.rows(rollout_id).items() if row.canary)
    world.run_until(lambda: world.states(rollout_id)[canary] is RolloutNodeState.DONE)
    world.nodes[canary].silent = True
    offline(world, [canary])
    service.roll_back(database, OPERATOR, rollout_id, "it is slow", world.now)
    world.step_s = 60.0
    for _ in range(30):
        world.tick()
    assert world.rollout(rollout_id).state is RolloutState.ROLLING_BACK
    with database.read() as conn:
        (held,) = held_groups(conn, rollout_id)
        node = nodes.get(conn, world.nodes[canary].id)
        assert node is not None
        links = waiting(conn, node, world.now)
    assert (held.code, held.nodes) == ("offline", 1), "the wait has its name"
    stops = [link.text for link in links if link.step is Step.STOPS]
    assert stops == ["Not connected; it goes on by itself when it is back"]
    world.step_s = 10.0
    world.wake(canary)
    world.run(rollout_id, until=RolloutState.ROLLED_BACK)
    assert world.nodes[canary].version == "1.0"


def test_rolling_back_sends_a_node_back_that_went_away_before_its_lease(database: Database, settings: Settings) -> None:
    world = World(database, settings, 3, replace(QUICK, canary_soak_s=10 * HOUR_S))
    rollout_id = begin(world)
    (canary,) = (name for name, row in world.rows(rollout_id).items() if row.canary)
    world.run_until(lambda: world.states(rollout_id)[canary] is RolloutNodeState.DONE)
    service.roll_back(database, OPERATOR, rollout_id, "it is slow", world.now)
    world.conduct()
    world.nodes[canary].silent = True
    offline(world, [canary])
    world.step_s = 60.0
    world.run_until(lambda: not world.open_operations(canary), ticks=40)
    world.tick()
    assert world.rows(rollout_id)[canary].back_operation_id is None
    world.step_s = 10.0
    world.wake(canary)
    world.run(rollout_id, until=RolloutState.ROLLED_BACK)
    assert world.nodes[canary].version == "1.0"


def test_pause_names_nodes_with_a_lease_that_cannot_be_told(database: Database, settings: Settings) -> None:
    world = World(database, settings, 2, WIDE)
    rollout_id = begin(world)
    moving = {RolloutNodeState.MOVING}
    world.run_until(lambda: moving <= set(world.states(rollout_id).values()))
    assert all(node.phase is Phase.STAGED for node in world.nodes.values())
    world.nodes["n0"].silent = True
    offline(world, ["n0"])
    finishing = service.pause(database, OPERATOR, rollout_id, "", world.now)
    assert [one.name for one in finishing] == ["n0"]
    assert "not connected and has its lease" in finishing[0].text


def test_aborting_a_way_back_names_nodes_that_are_on_it(database: Database, settings: Settings) -> None:
    world = World(database, settings, 3, replace(QUICK, canary_soak_s=10 * HOUR_S))
    rollout_id = begin(world)
    (canary,) = (name for name, row in world.rows(rollout_id).items() if row.canary)
    world.run_until(lambda: world.states(rollout_id)[canary] is RolloutNodeState.DONE)
    service.roll_back(database, OPERATOR, rollout_id, "it is slow", world.now)
    world.run_until(lambda: world.nodes[canary].phase is Phase.CONFIRMING)
    assert [one.name for one in service.abort(database, OPERATOR, rollout_id, "it is not", world.now)] == [canary]
