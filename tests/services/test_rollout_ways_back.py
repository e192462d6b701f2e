"""Going back: rolling back, reverse rollouts of ended ones and of waves, floors that a bad image broke itself."""

from __future__ import annotations

from dataclasses import replace

import pytest
from sqlalchemy import update

from app.config import Settings
from app.core.errors import NotPossible
from app.core.group_policy import Amount
from app.core.rollouts import RolloutKind, RolloutNodeState, RolloutState
from app.services import nodes
from app.services import rollouts as service
from app.services.bad_versions import disarm_copies
from app.services.channels import promote
from app.services.freezes import freeze
from app.services.rollout_reverse import reverse, reverse_group
from app.services.withdrawal import nodes_still_on, withdraw
from app.store import bad_versions as bad_store
from app.store import channels, operations, schema
from app.store.bad_versions import BadVersion, Cause
from app.store.database import Database
from tests import server_kit as kit
from tests.server_kit import NOW, OPERATOR, digest_of
from tests.services.rollout_world import QUICK, Mood, World
from tests.services.test_rollouts import ON_SQLITE, begin
from wire.messages import Phase

WIDE = replace(QUICK, canaries=Amount(count=0), max_unavailable=Amount(count=3))


@ON_SQLITE
def test_rolling_back_brings_every_node_that_moved_back_and_leaves_the_others(
    database: Database, settings: Settings
) -> None:
    world = World(database, settings, 5, replace(QUICK, canaries=Amount(count=0)))
    rollout_id = begin(world)
    world.run_until(lambda: RolloutNodeState.DONE in world.states(rollout_id).values())
    service.roll_back(database, OPERATOR, rollout_id, "it is slow", world.now)
    world.run(rollout_id, until=RolloutState.ROLLED_BACK)
    assert set(world.versions().values()) == {"1.0"}
    downloads = [name for name, node in world.nodes.items() if node.passive.version == "2.0"]
    moved = [name for name, row in world.rows(rollout_id).items() if row.back_at is not None]
    assert set(moved) <= set(downloads)  # back into the slot that was still there: 2.0 lies in the other one
    assert moved and all(world.nodes[name].boots == 3 for name in moved)
    assert all(world.nodes[name].boots == 1 for name in set(world.nodes) - set(moved))


@ON_SQLITE
def test_a_node_that_nobody_hears_is_sent_back_when_it_is_seen_again(database: Database, settings: Settings) -> None:
    world = World(database, settings, 2, WIDE)
    world.nodes["n0"].mood = Mood.SILENT
    rollout_id = begin(world)
    world.run_until(lambda: world.nodes["n0"].silent)
    service.roll_back(database, OPERATOR, rollout_id, "one is lost", world.now)
    world.run_until(lambda: world.states(rollout_id)["n0"] is RolloutNodeState.FAILED)
    for _ in range(4):
        world.tick()
    assert world.nodes["n1"].version == "1.0"
    assert world.rollout(rollout_id).state is RolloutState.ROLLING_BACK  # what n0 runs, nobody knows
    world.wake("n0")
    world.run(rollout_id, until=RolloutState.ROLLED_BACK)
    assert world.versions() == {"n0": "1.0", "n1": "1.0"}


@ON_SQLITE
def test_the_end_says_how_many_do_not_run_it_any_more(database: Database, settings: Settings) -> None:
    world = World(database, settings, 3, replace(QUICK, max_unavailable=Amount(count=1)))
    rollout_id = begin(world)
    done = RolloutNodeState.DONE
    world.run_until(lambda: done in world.states(rollout_id).values())
    first = next(name for name, state in world.states(rollout_id).items() if state is done)
    nodes.roll_back(database, OPERATOR, world.nodes[first].id, "by hand", world.now)
    assert world.run(rollout_id, until=RolloutState.SUCCEEDED).state_text == (
        "Ended: 3 done (1 runs another version by now)"
    )
    assert sorted(world.versions().values()) == ["1.0", "2.0", "2.0"]


@ON_SQLITE
def test_a_finished_rollout_is_reversed_by_a_linked_one(database: Database, settings: Settings) -> None:
    world = World(database, settings, 3, WIDE)
    rollout_id = begin(world)
    world.run(rollout_id, until=RolloutState.SUCCEEDED)
    with pytest.raises(NotPossible):
        service.roll_back(database, OPERATOR, rollout_id, "late", world.now)
    reverse_id = reverse(database, OPERATOR, rollout_id, "late", world.now)
    made = world.rollout(reverse_id)
    assert (made.kind, made.source_id, made.state) == (RolloutKind.ROLLBACK, rollout_id, RolloutState.RUNNING)
    world.run(reverse_id, until=RolloutState.SUCCEEDED)
    assert set(world.versions().values()) == {"1.0"}
    assert world.rollout(rollout_id).state is RolloutState.SUCCEEDED
    with pytest.raises(NotPossible, match="runs what it led to"):
        reverse(database, OPERATOR, rollout_id, "again", world.now)


@ON_SQLITE
def test_one_wave_goes_back_and_the_rollout_is_paused(database: Database, settings: Settings) -> None:
    world = World(database, settings, 4)
    rollout_id = begin(world)
    world.run_until(lambda: world.rollout(rollout_id).canaries_soaked_at is not None)
    (canary,) = (name for name, row in world.rows(rollout_id).items() if row.canary)
    reverse_id = reverse(database, OPERATOR, rollout_id, "odd", world.now, wave=0)
    assert world.rollout(rollout_id).state is RolloutState.PAUSED
    world.run(reverse_id, until=RolloutState.SUCCEEDED)
    assert world.nodes[canary].version == "1.0" and list(world.rows(reverse_id)) == [canary]


@ON_SQLITE
def test_a_group_goes_back_each_node_to_its_own_version(database: Database, settings: Settings) -> None:
    world = World(database, settings, 3, WIDE)
    rollout_id = begin(world, left_out=(world.nodes["n2"].id,))
    world.run(rollout_id, until=RolloutState.SUCCEEDED)
    assert world.versions() == {"n0": "2.0", "n1": "2.0", "n2": "1.0"}
    reverse_id = reverse_group(database, OPERATOR, world.group_id, "bad week", world.now)
    world.run(reverse_id, until=RolloutState.SUCCEEDED)
    assert set(world.versions().values()) == {"1.0"} and world.nodes["n2"].boots == 1
    assert set(world.rows(reverse_id)) == {"n0", "n1"}  # no update moved n2


@ON_SQLITE
def test_a_way_back_that_is_downloaded_is_held_by_no_freeze(database: Database, settings: Settings) -> None:
    world = World(database, settings, 1, WIDE)
    rollout_id = begin(world)
    world.run(rollout_id, until=RolloutState.SUCCEEDED)
    world.overwrite("n0", "3.0")
    world.tick()
    freeze(database, OPERATOR, group_id=None, reason="fair", now=world.now)
    operation_id = nodes.roll_back(database, OPERATOR, world.nodes["n0"].id, "it is slow", world.now)
    with database.read() as conn:
        operation = operations.get(conn, operation_id)
    assert operation is not None and operation.rollout_id is not None and operation.image_id == world.images["1.0"]
    world.run(operation.rollout_id, until=RolloutState.SUCCEEDED)
    assert world.nodes["n0"].version == "1.0"


@ON_SQLITE
def test_the_floor_that_the_bad_image_broke_does_not_keep_it(database: Database, settings: Settings) -> None:
    """Three replicas, floor 2: on the new image the containers of two nodes are unhealthy, so one replica is left."""
    world = World(database, settings, 3, replace(QUICK, canaries=Amount(count=0)))
    with database.write() as change:
        for node in world.nodes.values():
            kit.add_container(change.conn, node.id, "db", scope="shop", replicas=3)
        change.touch("services")
    rollout_id = begin(world)
    world.run_until(lambda: sum(node.version == "2.0" for node in world.nodes.values()) == 2)
    world.run_until(lambda: all(node.phase not in (Phase.REBOOTING, Phase.CONFIRMING) for node in world.nodes.values()))
    moved = [node for node in world.nodes.values() if node.version == "2.0"]
    with database.write() as change:
        sick = schema.containers.c.node_id.in_([node.id for node in moved])
        change.conn.execute(update(schema.containers).where(sick).values(health="unhealthy"))
        change.touch(*(f"node:{node.id}" for node in moved))
    service.roll_back(database, OPERATOR, rollout_id, "broken", world.now)
    world.run(rollout_id, until=RolloutState.ROLLED_BACK)
    assert set(world.versions().values()) == {"1.0"}


@ON_SQLITE
def test_withdrawing_halts_steps_back_and_makes_staged_copies_unbootable(
    database: Database, settings: Settings
) -> None:
    world = World(database, settings, 3)
    with database.write() as change:
        channel_id = kit.add_channel(change.conn, "stable", world.images["1.0"])
    promote(
        database,
        OPERATOR,
        channel_id,
        world.images["2.0"],
        seen_image_id=world.images["1.0"],
        reason="new",
        now=world.now,
    )
    rollout_id = begin(world)
    world.run_until(lambda: world.rollout(rollout_id).canaries_soaked_at is not None)
    for name, row in world.rows(rollout_id).items():
        if not row.canary:
            world.nodes[name].mood = Mood.WELL
    (canary,) = (name for name, row in world.rows(rollout_id).items() if row.canary)
    withdraw(database, OPERATOR, world.images["2.0"], "it eats disks", world.now)
    halted = world.rollout(rollout_id)
    assert halted.state is RolloutState.HALTED and "withdrawn" in halted.state_text
    for _ in range(6):
        world.tick()
    with database.read() as conn:
        on = nodes_still_on(conn, world.images["2.0"])
        assert [move.version for move in channels.pointers(conn)] == ["1.0"]
    running = {name for name, node in world.nodes.items() if node.version == "2.0"}
    assert {one.name for one in on} == running and canary in running
    assert all(one.way_back is not None and one.way_back.local for one in on)
    copies = [node.passive for node in world.nodes.values() if node.version == "1.0"]
    assert copies and all(slot.good is False for slot in copies if slot.version == "2.0")
    assert all(world.nodes[name].passive.good is True for name in running)  # the way back is sacred
    with pytest.raises(NotPossible, match="withdrawn"):
        service.resume(database, OPERATOR, rollout_id, "please", world.now)


def test_only_staged_copies_of_a_bad_version_are_disarmed(database: Database) -> None:
    """Not the way back of a node that left it, not what is booted, not what is unbootable already."""
    digest = digest_of("2.0")
    left = {
        "version": "3.0",
        "booted_digest": digest_of("3.0"),
        "slots": kit.two_slots("3.0", "2.0", passive_good=True),
    }
    kept = {"phase": "idle", "way_back": {"slot": "B", "version": "2.0", "digest": digest}}
    with database.write() as change:
        conn = change.conn
        staged = kit.add_node(conn, "staged", slots=kit.two_slots("1.0", "2.0"))
        busy = kit.add_node(conn, "busy", slots=kit.two_slots("1.0", "2.0"))
        kit.add_operation(conn, busy, "stage", target_version="3.0")
        kit.add_node(conn, "left", activity=kept, **left)
        kit.add_node(conn, "booted", version="2.0")
        kit.add_node(conn, "dead", slots=kit.two_slots("1.0", "2.0", passive_good=False))
        bad_store.remember(conn, BadVersion(digest, "2.0", "it eats disks", Cause.FAILED, "conductor", NOW))
    assert disarm_copies(database, NOW) == 1
    with database.read() as conn:
        (told,) = conn.execute(schema.operations.select().where(schema.operations.c.kind == "disarm"))
    assert (told.node_id, told.target_digest) == (staged, digest)
    assert disarm_copies(database, NOW + 1) == 0  # told once
    with database.write() as change:
        end = {"state": "ended", "result": "cancelled", "ended_at": NOW + 2}
        change.conn.execute(update(schema.operations).where(schema.operations.c.id == told.id).values(**end))
    assert disarm_copies(database, NOW + 3) == 1  # another order came between
