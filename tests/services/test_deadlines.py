"""What ends because time has passed, and that our own outages are nobody's time."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import select, update

from app.core.clocks import LONGEST_STEP_S
from app.core.nodes import Connection, Node, Operation
from app.core.policy import Policy
from app.services import deadlines
from app.store import events, leases, nodes, operation_clocks, operations, schema
from app.store.database import Database
from tests import server_kit as kit
from tests.server_kit import NOW
from wire.messages import Order, Phase, Result

POLICY = Policy()
OP = "op_open"


@pytest.fixture
def gateway_id(database: Database) -> str:
    with database.write() as change:
        return kit.add_gateway(change.conn)


@pytest.fixture
def node_id(database: Database, gateway_id: str) -> str:
    """A node with an open update that is rebooting since NOW."""
    with database.write() as change:
        node_id = kit.add_node(
            change.conn, "web-03", gateway_id=gateway_id, connection_id="c1", desired_operation_id=OP, boot_id="boot-1"
        )
        kit.add_operation(change.conn, node_id, id=OP, phase="rebooting", clock_at=NOW)
    return node_id


def set_operation(db: Database, **values: Any) -> None:
    with db.write() as change:
        change.conn.execute(update(schema.operations).values(**values))


def set_gateways(db: Database, **values: Any) -> None:
    with db.write() as change:
        change.conn.execute(update(schema.gateways).values(**values))


def operation(db: Database) -> Operation:
    with db.read() as conn:
        found = operations.get(conn, OP)
    assert found is not None
    return found


def node(db: Database, node_id: str) -> Node:
    with db.read() as conn:
        found = nodes.get(conn, node_id)
    assert found is not None
    return found


def audited(db: Database) -> list[tuple[str, str]]:
    with db.read() as conn:
        return [tuple(row) for row in conn.execute(select(schema.audit.c.action, schema.audit.c.actor_kind))]


# --- clocks -------------------------------------------------------------------------------------------------


def test_time_counts_while_the_node_could_be_heard(database: Database, node_id: str) -> None:
    for step in range(1, 5):
        set_gateways(database, heartbeat_at=NOW + 10 * step)
        assert deadlines.advance_clocks(database, NOW + 10 * step) == 1
    assert operation(database).heard_s == 40.0


def test_no_gateway_no_time(database: Database, node_id: str) -> None:
    for step in range(1, 10):
        deadlines.advance_clocks(database, NOW + 30 * step)
    found = operation(database)
    assert found.heard_s == 0.0 and found.clock_at == NOW + 270


def test_a_conductor_that_was_away_counts_little(database: Database, node_id: str) -> None:
    set_gateways(database, heartbeat_at=NOW + 36_000)
    deadlines.advance_clocks(database, NOW + 36_000)
    assert operation(database).heard_s == LONGEST_STEP_S


def test_two_conductors_do_not_count_twice(database: Database, node_id: str) -> None:
    found = operation(database)
    with database.write() as change:
        operation_clocks.advance(change.conn, [(found, 10.0)], NOW + 10)
        operation_clocks.advance(change.conn, [(found, 11.0)], NOW + 11)
    assert operation(database).heard_s == 10.0


def test_clocks_are_not_written_every_second(database: Database, node_id: str) -> None:
    assert deadlines.advance_clocks(database, NOW + 1) == 0


@pytest.mark.parametrize(("phase", "counted"), [("idle", False), ("staged", False), ("rebooting", True)])
def test_who_waits_for_a_lease_waits_for_us(database: Database, node_id: str, phase: str, counted: bool) -> None:
    set_operation(database, phase=phase, lease_nonce="n", lease_nonce_at=NOW, lease_asked_at=NOW)
    set_gateways(database, heartbeat_at=NOW + 10)
    deadlines.advance_clocks(database, NOW + 10)
    assert (operation(database).heard_s > 0) is counted


def test_the_loss_of_a_zone_stops_the_clocks_of_its_nodes_for_a_grace(
    database: Database, node_id: str, gateway_id: str
) -> None:
    """Half of the zone is gone within a minute: nobody's version fails for it."""
    with database.write() as change:
        zone = {"labels": {"zone": "a"}, "connection": "offline", "last_seen_at": NOW}
        change.conn.execute(update(schema.nodes).where(schema.nodes.c.id == node_id).values(**zone))
        for _ in range(2):
            kit.add_node(change.conn, **zone)
        for _ in range(3):
            kit.add_node(change.conn, labels={"zone": "a"}, gateway_id=gateway_id)
    for step in range(1, 30):
        set_gateways(database, heartbeat_at=NOW + 30 * step)
        deadlines.advance_clocks(database, NOW + 30 * step)
    assert operation(database).heard_s == 0.0
    for step in range(30, 33):
        set_gateways(database, heartbeat_at=NOW + 30 * step)
        deadlines.advance_clocks(database, NOW + 30 * step)
    assert operation(database).heard_s == 90.0, "after the grace of a quarter of an hour silence counts again"


# --- deadlines ----------------------------------------------------------------------------------------------


def test_an_overdue_operation_ends_and_its_lease_stays(database: Database, node_id: str) -> None:
    with database.write() as change:
        change.conn.execute(
            schema.leases.insert().values(
                id="lease_1",
                fleet_id=1,
                node_id=node_id,
                operation_id=OP,
                nonce="n",
                duration_s=120.0,
                old_boot_id="boot-1",
                granted_at=NOW,
            )
        )
    set_operation(database, heard_s=POLICY.reboot_deadline_s + 1)
    assert deadlines.end_overdue(database, NOW + 9000) == 1
    found = operation(database)
    assert found.result is Result.TIMED_OUT
    assert found.result_text == "the node did not come back from the reboot within 30 min"
    assert node(database, node_id).order == Order(epoch=1, generation=1)  # it is told to stop
    with database.read() as conn:
        assert leases.all_held(conn)
    assert audited(database) == [("operation.time-out", "conductor")]
    assert deadlines.end_overdue(database, NOW + 9001) == 0


def test_the_operations_own_policy_counts(database: Database, node_id: str) -> None:
    set_operation(database, heard_s=POLICY.reboot_deadline_s + 1, policy={"reboot_deadline_s": 7200.0})
    assert deadlines.end_overdue(database, NOW + 9000) == 0
    assert operation(database).open


def test_a_phase_that_moved_meanwhile_is_not_overdue(database: Database, node_id: str) -> None:
    set_operation(database, heard_s=POLICY.reboot_deadline_s + 1)
    with database.write() as change:
        found = operations.get(change.conn, OP)
        assert found is not None
        operations.move(change.conn, found, Phase.CONFIRMING, NOW + 9000)
    assert deadlines.end_overdue(database, NOW + 9000) == 0


# --- cancelled and never heard of ---------------------------------------------------------------------------


def test_a_cancelled_operation_that_the_node_does_not_know(database: Database, node_id: str) -> None:
    set_operation(database, phase="idle", cancel_asked_at=NOW)
    assert deadlines.end_unowned(database, NOW + 30) == 0
    assert deadlines.end_unowned(database, NOW + 90) == 1
    assert operation(database).result is Result.CANCELLED
    assert audited(database) == [("operation.cancel", "conductor")]


@pytest.mark.parametrize(
    "given",
    [
        {"connection": "offline"},
        {"gateway_id": None},
        {"connected_at": NOW + 80},
        {"activity": {"phase": "idle", "operation_id": OP}},
    ],
)
def test_a_node_that_may_know_it_owes_its_word(database: Database, node_id: str, given: dict[str, Any]) -> None:
    set_operation(database, phase="idle", cancel_asked_at=NOW)
    with database.write() as change:
        change.conn.execute(update(schema.nodes).values(**given))
    assert deadlines.end_unowned(database, NOW + 90) == 0


def test_what_has_begun_owes_its_word(database: Database, node_id: str) -> None:
    set_operation(database, phase="staging", cancel_asked_at=NOW)
    assert deadlines.end_unowned(database, NOW + 90) == 0


# --- presence -----------------------------------------------------------------------------------------------

PATIENCE_S = POLICY.reconnect_allowance_s + POLICY.offline_grace_s


def test_without_any_gateway_nodes_stay_as_they_were(database: Database, node_id: str) -> None:
    assert deadlines.mark_gone(database, NOW + 36_000) == 0
    assert node(database, node_id).connection is Connection.ONLINE


def test_nodes_that_do_not_come_to_another_gateway_are_offline(database: Database, node_id: str) -> None:
    with database.write() as change:
        kit.add_gateway(change.conn, started_at=NOW - 3600, heartbeat_at=NOW + PATIENCE_S)
    assert deadlines.mark_gone(database, NOW + PATIENCE_S - 1) == 0
    assert deadlines.mark_gone(database, NOW + PATIENCE_S + 1) == 1
    found = node(database, node_id)
    assert (found.connection, found.gateway_id, found.last_seen_at) == (Connection.OFFLINE, None, NOW)
    with database.read() as conn:
        assert [event.kind for event in events.recent(conn)] == ["offline"]


def test_after_a_restart_nobody_is_late_before_the_allowance(database: Database, node_id: str) -> None:
    restart = NOW + 7200
    with database.write() as change:
        kit.add_gateway(change.conn, started_at=restart, heartbeat_at=restart + 50)
    assert deadlines.mark_gone(database, restart + 50) == 0
    set_gateways(database, heartbeat_at=restart + 70)
    with database.write() as change:
        change.conn.execute(
            update(schema.gateways).where(schema.gateways.c.started_at < restart).values(heartbeat_at=NOW)
        )
    assert deadlines.mark_gone(database, restart + 70) == 1


def test_a_node_that_came_to_another_gateway_stays_online(database: Database, node_id: str, gateway_id: str) -> None:
    with database.write() as change:
        other = kit.add_gateway(change.conn, heartbeat_at=NOW + PATIENCE_S)
        change.conn.execute(update(schema.nodes).values(gateway_id=other))
        assert not nodes.turn_offline(change.conn, node_id, gateway_id, NOW)
    assert deadlines.mark_gone(database, NOW + PATIENCE_S + 1) == 0


# --- pins ---------------------------------------------------------------------------------------------------


def test_expired_pins_are_removed_once(database: Database) -> None:
    with database.write() as change:
        image_id = kit.add_image(change.conn)
        pin = {"pin_image_id": image_id, "pinned_at": NOW, "pin_actor": "ana", "pin_reason": "fair"}
        over = kit.add_node(change.conn, pin_until=NOW + 10, **pin)
        lasting = kit.add_node(change.conn, pin_until=NOW + 100, **pin)
        endless = kit.add_node(change.conn, **pin)
    assert deadlines.remove_expired_pins(database, NOW + 10) == 1
    assert deadlines.remove_expired_pins(database, NOW + 11) == 0
    assert node(database, over).pin is None
    assert node(database, lasting).pin is not None and node(database, endless).pin is not None
    assert audited(database) == [("node.unpin", "conductor")]
