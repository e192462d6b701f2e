"""A version after which nodes are never heard of again has failed there (rules 4, 5); silence before arming says
nothing of it."""

from __future__ import annotations

from dataclasses import replace

import pytest
from sqlalchemy import select, update

from app.config import Settings
from app.core.errors import NotPossible
from app.core.group_policy import Amount
from app.core.rollouts import RolloutNodeState, RolloutState
from app.services import deadlines, operations
from app.services.bad_versions import clear
from app.services.withdrawal import restore, withdraw
from app.store import bad_versions, failed_versions, schema
from app.store.bad_versions import BadVersion, Cause
from app.store.database import Database
from tests import server_kit as kit
from tests.server_kit import NOW, OPERATOR, digest_of
from tests.services.rollout_world import QUICK, Mood, World
from tests.services.test_rollouts import ON_SQLITE, begin
from wire.messages import Evidence, OperationReport, Order, Phase, Result

pytestmark = ON_SQLITE

THREE = replace(QUICK, canaries=Amount(count=3), max_unavailable=Amount(count=3))


def test_a_version_that_bricks_its_canaries_is_bad_everywhere(database: Database, settings: Settings) -> None:
    world = World(database, settings, 5, THREE)
    for number in range(4):  # so that the three are no loss of a whole domain, which would stop the clocks
        world.join(f"d{number}", {"role": "db"})
    rollout_id = begin(world)
    canaries = {name for name, row in world.rows(rollout_id).items() if row.canary}
    for name in canaries:
        world.nodes[name].mood = Mood.SILENT
    world.run(rollout_id, until=RolloutState.HALTED)
    with database.read() as conn:
        bad = bad_versions.get(conn, digest_of("2.0"))
        remembered = {row.node_id for row in conn.execute(select(schema.failed_versions))}
    assert bad is not None and bad.cause is Cause.FAILED and "3 nodes" in bad.reason
    assert remembered == {world.nodes[name].id for name in canaries}
    with pytest.raises(NotPossible, match="bad fleet-wide"):
        begin(world)


def test_failures_that_come_after_the_halt_count_as_well(database: Database, settings: Settings) -> None:
    """The first canary falls back at once and halts it; the silence of the other two is known minutes later."""
    world = World(database, settings, 5, THREE)
    for number in range(4):
        world.join(f"d{number}", {"role": "db"})
    rollout_id = begin(world)
    first, *others = [name for name, row in world.rows(rollout_id).items() if row.canary]
    world.nodes[first].mood = Mood.FALLS_BACK
    for name in others:
        world.nodes[name].mood = Mood.SILENT
    world.run(rollout_id, until=RolloutState.HALTED)
    with database.read() as conn:
        assert bad_versions.get(conn, digest_of("2.0")) is None
    world.run_until(lambda: world.states(rollout_id)[others[0]] is RolloutNodeState.FAILED)
    with database.read() as conn:
        bad = bad_versions.get(conn, digest_of("2.0"))
    assert bad is not None and "3 nodes" in bad.reason


def test_what_failed_stays_bad_when_its_withdrawal_is_taken_back(database: Database) -> None:
    """Until an operator clears it (rule 5)."""
    digest = digest_of("2.0")
    failed = BadVersion(digest, "2.0", "failed on 4 nodes", Cause.FAILED, "conductor", NOW)
    with database.write() as change:
        image_id = kit.add_image(change.conn, "2.0")
        assert bad_versions.remember(change.conn, failed)
    withdraw(database, OPERATOR, image_id, "wrong notes", NOW + 1)
    with database.write() as change:
        assert not bad_versions.remember(change.conn, failed)
        found = bad_versions.get(change.conn, digest)
    assert found is not None and found.reason == "withdrawn: wrong notes"
    with pytest.raises(NotPossible, match="take that back first"):
        clear(database, OPERATOR, digest, "please", NOW + 2)
    restore(database, OPERATOR, image_id, "the notes are right now", NOW + 3)
    with database.read() as conn:
        assert bad_versions.get(conn, digest) == failed
    clear(database, OPERATOR, digest, "it was the network", NOW + 4)
    with database.read() as conn:
        assert bad_versions.get(conn, digest) is None


def overdue(database: Database, phase: str, kind: str = "activate") -> tuple[str, str]:
    """Node and operation whose phase has just been ended as overdue."""
    with database.write() as change:
        node_id = kit.add_node(change.conn, "edge-1", last_seen_at=NOW)
        operation_id = kit.add_operation(change.conn, node_id, kind, phase=phase, heard_s=90_000.0)
    assert deadlines.end_overdue(database, NOW + 9000) == 1
    return node_id, operation_id


@pytest.mark.parametrize("phase", [Phase.REBOOTING, Phase.CONFIRMING, Phase.SOAKING, Phase.ROLLING_BACK])
def test_a_time_out_after_arming_is_remembered(database: Database, phase: Phase) -> None:
    node_id, _ = overdue(database, phase.value)
    with database.read() as conn:
        (failed,) = failed_versions.of_node(conn, node_id)
    assert failed.digest == digest_of("2.0") and failed.cleared_at is None and "within" in failed.reason


@pytest.mark.parametrize("phase", [Phase.IDLE, Phase.STAGING, Phase.STAGED, Phase.DRAINING])
def test_a_time_out_before_arming_says_nothing_of_the_version(database: Database, phase: Phase) -> None:
    node_id, _ = overdue(database, phase.value)
    with database.read() as conn:
        assert failed_versions.of_node(conn, node_id) == []


def test_a_reboot_that_is_not_heard_of_again_is_no_failed_version(database: Database) -> None:
    node_id, _ = overdue(database, "rebooting", "reboot")
    with database.read() as conn:
        assert failed_versions.of_node(conn, node_id) == []


def test_a_node_that_says_late_that_it_reached_nobody_takes_the_memory_back(database: Database) -> None:
    """It went back by itself: recorded as unreachable, never as a bad version (rule 6)."""
    node_id, operation_id = overdue(database, "confirming")

    def says_late(booted: str) -> float | None:
        with database.write() as change:
            booted_digest = schema.nodes.c.booted_digest
            change.conn.execute(update(schema.nodes).values({booted_digest: digest_of(booted)}))
            order = Order(epoch=1, generation=1)
            report = OperationReport(
                seq=1, operation_id=operation_id, order=order, result=Result.UNREACHABLE, at=NOW, evidence=Evidence()
            )
            operations.finish(change, report, node_id, NOW + 9100)
        with database.read() as conn:
            return failed_versions.of_node(conn, node_id)[0].cleared_at

    assert says_late("2.0") is None  # observed, not claimed
    lists(database, node_id, "2.0")
    assert says_late("1.0") is None  # it failed there besides, says the node itself
    lists(database, node_id)
    assert says_late("1.0") == NOW + 9100
    with database.read() as conn:
        (entry,) = conn.execute(select(schema.audit).where(schema.audit.c.action == "node.silence-explained"))
    assert (entry.actor_kind, entry.actor_id, entry.before["version"]) == ("node", node_id, "2.0")


def lists(database: Database, node_id: str, *versions: str) -> None:
    """The node's own memory of failures."""
    failed = [{"version": one, "digest": digest_of(one), "reason": "panics", "at": NOW} for one in versions]
    activity = {"phase": "idle", "failed_versions": failed}
    with database.write() as change:
        change.conn.execute(update(schema.nodes).where(schema.nodes.c.id == node_id).values(activity=activity))


def test_silence_does_not_take_the_place_of_a_failure(database: Database) -> None:
    """Or its explanation would clear what failed."""
    with database.write() as change:
        node_id = kit.add_node(change.conn, "edge-1", last_seen_at=NOW, booted_digest=digest_of("1.0"))
        operation_id = kit.add_operation(change.conn, node_id, phase="confirming", heard_s=90_000.0)
        failed_versions.remember(change.conn, node_id, digest_of("2.0"), "2.0", "panics", None, NOW)
    assert deadlines.end_overdue(database, NOW + 9000) == 1
    order = Order(epoch=1, generation=1)
    late = OperationReport(
        seq=1, operation_id=operation_id, order=order, result=Result.UNREACHABLE, at=NOW, evidence=Evidence()
    )
    with database.write() as change:
        operations.finish(change, late, node_id, NOW + 9100)
        (failed,) = failed_versions.of_node(change.conn, node_id)
    assert (failed.reason, failed.cleared_at) == ("panics", None)
