"""Leases of a fleet without groups: one node at a time, however many ask and grant; what returns its budget."""

from __future__ import annotations

import threading
from datetime import UTC, datetime
from typing import Any

import pytest
from sqlalchemy import select, update

from app.core.leases import Held
from app.core.policy import Policy
from app.services.admission import grant_leases
from app.services.desired import lease_answer
from app.services.operations import ask_lease
from app.store import leases, schema
from app.store.database import Database
from tests import server_kit as kit
from tests.rollout_kit import add_group
from tests.server_kit import NOW
from wire.messages import LeaseGrant, LeaseRequest, LeaseWait

POLICY = Policy()


def asking_node(db: Database, name: str, asked_at: float = NOW, **given: Any) -> str:
    """A node whose staged update asks for a lease."""
    with db.write() as change:
        gateway_id = kit.add_gateway(change.conn, heartbeat_at=asked_at)
        op = f"op_{name}"
        node_id = kit.add_node(
            change.conn, name, desired_operation_id=op, boot_id=f"boot-{name}", gateway_id=gateway_id, **given
        )
        kit.add_operation(change.conn, node_id, id=op, phase="staged")
        ask_lease(change, node_id, LeaseRequest(operation_id=op, nonce=f"nonce-{name}"), asked_at)
    return node_id


def held(db: Database) -> Held | None:
    with db.read() as conn:
        (found,) = leases.all_held(conn) or (None,)
    return found


def answer(db: Database, node_id: str) -> LeaseGrant | LeaseWait | None:
    with db.read() as conn:
        return lease_answer(conn, node_id)


def test_the_first_to_ask_gets_it_and_the_next_hears_whom_it_waits_for(database: Database) -> None:
    second = asking_node(database, "second", NOW + 1)
    first = asking_node(database, "first", NOW)
    assert answer(database, first) is None
    assert grant_leases(database, NOW + 2)
    found = held(database)
    assert found is not None and found.node_name == "first"
    given = answer(database, first)
    assert isinstance(given, LeaseGrant)
    assert (given.nonce, given.duration_s, given.operation_id) == ("nonce-first", POLICY.lease_s, "op_first")
    told = answer(database, second)
    assert isinstance(told, LeaseWait)
    assert told.hold.code == "group-budget" and "1 node away, at most 1" in told.hold.text
    assert told.nonce == "nonce-second" and told.retry_s > 0


def test_an_unchanged_queue_writes_nothing(database: Database) -> None:
    asking_node(database, "a")
    asking_node(database, "b", NOW + 1)
    grant_leases(database, NOW + 2)
    before = kit.revisions(database)
    assert not grant_leases(database, NOW + 3)
    assert kit.revisions(database) == before


def test_what_the_node_was_when_it_got_the_lease_is_what_counts(database: Database) -> None:
    asking_node(database, "a")
    grant_leases(database, NOW + 1)
    with database.read() as conn:
        row = conn.execute(select(schema.operations.c.old_boot_id, schema.operations.c.old_slot)).one()
    assert tuple(row) == ("boot-a", "A")


@pytest.mark.parametrize(
    "given",
    [
        {"admission": "pending"},
        {"admission": "retired"},
        {"conflict": {"since": NOW}},
        {"connection": "offline"},
        {"desired_operation_id": None},
    ],
)
def test_who_gets_none(database: Database, given: dict[str, Any]) -> None:
    node_id = asking_node(database, "a")
    with database.write() as change:
        change.conn.execute(update(schema.nodes).where(schema.nodes.c.id == node_id).values(**given))
    assert not grant_leases(database, NOW + 1)
    assert held(database) is None


def test_a_cancelled_operation_gets_none(database: Database) -> None:
    node_id = asking_node(database, "a")
    with database.write() as change:
        change.conn.execute(update(schema.operations).values(cancel_asked_at=NOW))
    assert not grant_leases(database, NOW + 1)
    assert answer(database, node_id) is None


def test_fifty_at_once_and_several_conductors_grant_one_lease(database: Database) -> None:
    names = [f"n{number:02}" for number in range(50)]
    for name in names:
        asking_node(database, name)
    ready = threading.Barrier(10)
    granted: list[bool] = []

    def conduct() -> None:
        ready.wait()
        granted.append(grant_leases(database, NOW + 1))

    threads = [threading.Thread(target=conduct) for _ in range(10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(granted) == 10 and granted.count(True) == 1
    with database.read() as conn:
        assert len(conn.execute(select(schema.leases)).all()) == 1


def test_the_index_is_the_last_guard(database: Database) -> None:
    node_id = asking_node(database, "a")
    with database.read() as conn:
        request = leases.requests(conn, ["op_a"])["op_a"]
    assert grant_leases(database, NOW + 2)
    with database.write() as change:
        assert not leases.grant(
            change.conn, request, lease_id="lease_x", duration_s=1.0, old_boot_id="b", costs=(), now=NOW
        )
        change.touch("nodes")  # the transaction goes on
    found = held(database)
    assert found is not None and found.node_id == node_id


def test_expiry_alone_returns_nothing(database: Database) -> None:
    asking_node(database, "a")
    asking_node(database, "b", NOW + 1)
    grant_leases(database, NOW + 2)
    much_later = NOW + POLICY.lease_s + POLICY.reboot_deadline_s + 1000
    ask_again(database, "b", much_later)
    assert not grant_leases(database, much_later)
    found = held(database)
    assert found is not None and found.node_name == "a"


def test_seen_on_the_same_boot_after_the_shutdown_limit(database: Database) -> None:
    asking_node(database, "a")
    asking_node(database, "b", NOW + 1)
    grant_leases(database, NOW + 2)
    much_later = NOW + POLICY.lease_s + POLICY.reboot_deadline_s + 1000
    with database.write() as change:
        change.conn.execute(update(schema.gateways).values(heartbeat_at=much_later))
        change.conn.execute(update(schema.leases).values(counted_s=much_later - NOW))
    ask_again(database, "b", much_later)
    assert grant_leases(database, much_later)
    found = held(database)
    assert found is not None and found.node_name == "b"


def test_seen_confirmed_on_its_new_boot(database: Database) -> None:
    node_id = asking_node(database, "a")
    grant_leases(database, NOW + 1)
    with database.write() as change:
        seen = {"boot_id": "boot-new", "phase": "soaking"}
        change.conn.execute(update(schema.nodes).where(schema.nodes.c.id == node_id).values(**seen))
    grant_leases(database, NOW + 2)
    assert held(database) is None


def ask_again(db: Database, name: str, now: float) -> None:
    with db.write() as change:
        node_id = change.conn.execute(select(schema.nodes.c.id).where(schema.nodes.c.name == name)).scalar_one()
        ask_lease(change, node_id, LeaseRequest(operation_id=f"op_{name}", nonce=f"again-{name}"), now)


def test_a_request_is_served_once(database: Database) -> None:
    node_id = asking_node(database, "a")
    grant_leases(database, NOW + 1)
    with database.write() as change:
        seen = {"boot_id": "boot-new", "phase": "soaking"}
        change.conn.execute(update(schema.nodes).where(schema.nodes.c.id == node_id).values(**seen))
    grant_leases(database, NOW + 2)
    assert not grant_leases(database, NOW + 3)
    with database.read() as conn:
        assert len(conn.execute(select(schema.leases)).all()) == 1


# --- renewing -----------------------------------------------------------------------------------------------


def test_the_holder_that_asks_again_goes_on_under_the_new_nonce(database: Database) -> None:
    node_id = asking_node(database, "a")
    grant_leases(database, NOW + 1)
    ask_again(database, "a", NOW + 5)
    grant_leases(database, NOW + 6)
    found = held(database)
    assert found is not None and (found.granted_at, found.counted_s) == (NOW + 6, 0.0)
    given = answer(database, node_id)
    assert isinstance(given, LeaseGrant) and given.nonce == "again-a"


def test_the_holder_that_asks_again_after_its_window_has_closed_waits(database: Database) -> None:
    window = {"days": ["mon", "tue", "wed", "thu", "fri", "sat", "sun"], "zone": "UTC"}
    with database.write() as change:
        add_group(change.conn, selector="*", policy={"max_unavailable": {"count": 3}})
    node_id = asking_node(database, "a")
    assert grant_leases(database, NOW + 1)
    with database.write() as change:
        opens = datetime.fromtimestamp(NOW + 7200, UTC).strftime("%H:%M")
        closes = datetime.fromtimestamp(NOW + 10800, UTC).strftime("%H:%M")
        policy = {"max_unavailable": {"count": 3}, "windows": [window | {"opens": opens, "closes": closes}]}
        change.conn.execute(update(schema.groups).values(policy=policy))
        change.touch("groups")
    ask_again(database, "a", NOW + 5)
    grant_leases(database, NOW + 6)
    told = answer(database, node_id)
    assert isinstance(told, LeaseWait) and told.hold.code == "window"
    found = held(database)
    assert found is not None and found.granted_at == NOW + 1


def test_the_holder_that_asks_again_while_too_many_are_away_waits_and_keeps_its_reservation(database: Database) -> None:
    node_id = asking_node(database, "a")
    grant_leases(database, NOW + 1)
    with database.write() as change:
        kit.add_node(change.conn, "dead", connection="offline")
    ask_again(database, "a", NOW + 5)
    grant_leases(database, NOW + 6)
    told = answer(database, node_id)
    assert isinstance(told, LeaseWait) and told.hold.code == "group-budget"
    found = held(database)
    assert found is not None and found.granted_at == NOW + 1
