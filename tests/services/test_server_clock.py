"""The server's own clock jumps: nothing stands still until it catches up, and no budget returns early (rules 3, 4)."""

from __future__ import annotations

import pytest
from sqlalchemy import select, update

from app.conductor.loop import Conductor
from app.core.clocks import LONGEST_STEP_S, STEP_S
from app.core.policy import Policy
from app.services import admission, connections, deadlines, leases
from app.services.connections import Claim, End, Verdict
from app.store import leases as stored
from app.store import schema
from app.store.database import Database
from tests import server_kit as kit
from tests.server_kit import NOW

HOUR_S = 3600.0
POLICY = Policy()
OVER_S = POLICY.lease_s + POLICY.reboot_deadline_s
OP = "op_open"


@pytest.fixture
def node_id(database: Database) -> str:
    """A connected node that got its lease at NOW, still in the boot that it got it in."""
    with database.write() as change:
        gateway_id = kit.add_gateway(change.conn)
        node_id = kit.add_node(
            change.conn, boot_id="boot-1", desired_operation_id=OP, gateway_id=gateway_id, connection_id="conn_1"
        )
        kit.add_operation(change.conn, node_id, id=OP, phase="staged", clock_at=NOW, lease_nonce="n1",
                          lease_nonce_at=NOW, lease_asked_at=NOW)  # fmt: skip
    assert admission.grant_leases(database, NOW)
    return node_id


def beat(db: Database, now: float) -> None:
    with db.write() as change:
        change.conn.execute(update(schema.gateways).values(heartbeat_at=now))


def held(db: Database) -> bool:
    with db.read() as conn:
        return bool(stored.all_held(conn))


def conduct(db: Database, start: float, seconds: float) -> None:
    """A live gateway and conductor for so long."""
    now = start
    while now <= start + seconds:
        beat(db, now)
        leases.count_time(db, now)
        admission.grant_leases(db, now)
        now += LONGEST_STEP_S


@pytest.mark.parametrize("jump_s", [-HOUR_S, 0.0, HOUR_S])
def test_a_lease_is_returned_after_its_own_time_whatever_the_clock_says(
    database: Database, node_id: str, jump_s: float
) -> None:
    conduct(database, NOW + jump_s + 1, OVER_S - 2 * LONGEST_STEP_S)
    assert held(database), "the node may still reboot under it"
    conduct(database, NOW + jump_s + OVER_S, 5 * LONGEST_STEP_S)
    assert not held(database)


def test_a_conductor_that_was_away_counts_little_of_a_lease(database: Database, node_id: str) -> None:
    beat(database, NOW + 10 * HOUR_S)
    leases.count_time(database, NOW + 10 * HOUR_S)
    admission.grant_leases(database, NOW + 10 * HOUR_S)
    assert held(database)


def test_a_renewed_lease_begins_anew(database: Database, node_id: str) -> None:
    leases.count_time(database, NOW + LONGEST_STEP_S)
    with database.write() as change:
        lease = stored.of_node(change.conn, node_id)
        assert lease is not None
        stored.renew(change.conn, lease, "n2", lease.costs, NOW + HOUR_S)
    with database.read() as conn:
        found = stored.held(conn, node_id)
    assert found is not None and found.counted_s == 0.0


def test_clocks_of_operations_go_on_after_a_jump_back(database: Database, node_id: str) -> None:
    with database.write() as change:
        change.conn.execute(update(schema.operations).values(phase="rebooting", clock_at=NOW + HOUR_S, heard_s=7.0))
    beat(database, NOW)
    deadlines.advance_clocks(database, NOW)
    deadlines.advance_clocks(database, NOW + STEP_S)
    with database.read() as conn:
        heard_s, clock_at = conn.execute(select(schema.operations.c.heard_s, schema.operations.c.clock_at)).one()
    assert (heard_s, clock_at) == (7.0 + STEP_S, NOW + STEP_S)


def test_the_conductor_goes_on_after_a_jump_back(database: Database, node_id: str) -> None:
    clock = [NOW + HOUR_S]
    conductor = Conductor(database, clock=lambda: clock[0])
    assert conductor.round()
    clock[0] = NOW
    with database.write() as change:
        image_id = kit.add_image(change.conn)
        pinned = kit.add_node(change.conn, pin_image_id=image_id, pinned_at=NOW, pin_until=NOW - 1, pin_actor="ana")
    assert conductor.round()
    with database.read() as conn:
        assert conn.execute(select(schema.nodes.c.pinned_at).where(schema.nodes.c.id == pinned)).scalar_one() is None


def test_a_dead_gateway_whose_last_word_lies_in_the_future_keeps_no_node(database: Database, node_id: str) -> None:
    beat(database, NOW + HOUR_S)  # then it died, and the clock was set right
    with database.write() as change:
        change.conn.execute(update(schema.nodes).values(machine_id="m", hardware="h"))
    end = End("10.0.0.1", "m", "h", "boot-1", NOW)
    (answer,) = connections.claim(database, [Claim(node_id, "gw_new", "conn_2", end, "key")], NOW)
    assert answer.verdict is Verdict.CLAIMED


def test_a_gateway_that_started_in_the_future_is_soon_one_that_could_hear(database: Database, node_id: str) -> None:
    with database.write() as change:
        change.conn.execute(update(schema.gateways).values(started_at=NOW + HOUR_S, heartbeat_at=NOW + HOUR_S))
        gateway_id = change.conn.execute(select(schema.gateways.c.id)).scalar_one()
    connections.beat(database, gateway_id, 1, NOW)
    with database.read() as conn:
        assert conn.execute(select(schema.gateways.c.started_at)).scalar_one() == NOW


@pytest.mark.parametrize("jump_s", [-HOUR_S, -90.0])
def test_what_was_cancelled_before_a_jump_back_does_not_wait_for_the_clock(
    database: Database, node_id: str, jump_s: float
) -> None:
    """The node never heard of it and is connected; both are written with times that lie in the future now."""
    with database.write() as change:
        change.conn.execute(update(schema.operations).values(phase="idle", cancel_asked_at=NOW + 30))
        change.conn.execute(update(schema.nodes).values(connected_at=NOW + 20))
    assert deadlines.end_unowned(database, NOW + 80) == 0, "it may still be on its way"
    assert deadlines.end_unowned(database, NOW + 100 + jump_s) == 1
