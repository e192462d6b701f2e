"""A node whose lease is out asks again: what it takes is what runs on it now, held to the limits as they are now."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from sqlalchemy import delete, select, update

from app.core.holds import Hold, HoldCode
from app.services.admission import Admission, grant_leases
from app.store import bad_versions, failed_versions, leases, schema
from app.store import services as rows
from app.store.database import Database
from app.store.nudges import EVERYTHING
from tests import server_kit as kit
from tests.server_kit import NOW
from tests.services import admission_kit as fleet
from tests.services.admission_kit import answer, asks, change_node, group, holders, node, told
from wire.messages import LeaseGrant

DAY_S = 86_400


@pytest.fixture(autouse=True)
def world(database: Database) -> None:
    fleet.gateway(database)


def expects_three(db: Database) -> None:
    with db.write() as change:
        rows.raise_peaks(change.conn, int(NOW // DAY_S), {("shop", "db"): 3})


def moves(db: Database, to: str, of: str) -> None:
    with db.write() as change:
        here = schema.containers.c.node_id == of
        change.conn.execute(update(schema.containers).where(here).values(node_id=to))


def granted(db: Database, node_id: str, **given: object) -> None:
    asks(db, node_id, **given)
    grant_leases(db, NOW)
    assert isinstance(answer(db, node_id), LeaseGrant)


def renewed(db: Database, node_id: str) -> bool:
    asks(db, node_id, NOW + 5, "again")
    grant_leases(db, NOW + 5)
    found = answer(db, node_id)
    return isinstance(found, LeaseGrant) and found.nonce == "again"


def test_a_replica_that_moved_in_since_counts(database: Database) -> None:
    """a had none of the three when it got its lease; now it has one, and of the two others one died."""
    group(database)
    a = node(database, "a")
    _, c, d = (node(database, name, ["db"]) for name in "bcd")
    expects_three(database)
    granted(database, a)
    moves(database, a, d)
    change_node(database, c, connection="offline", last_seen_at=NOW + 1)
    assert not renewed(database, a)
    assert told(database, a) == "service-floor"
    assert holders(database) == {"a"}, "whether it uses it nobody knows"


def test_a_replica_that_moved_in_and_can_be_spared_is_taken_along(database: Database) -> None:
    group(database)
    a = node(database, "a")
    _, _, d = (node(database, name, ["db"]) for name in "bcd")
    expects_three(database)
    granted(database, a)
    moves(database, a, d)
    assert renewed(database, a)
    with database.read() as conn:
        lease = leases.of_node(conn, a)
    assert lease is not None and lease.costs == (("shop", "db", 1),)


def test_what_it_drained_since_is_not_taken_twice(database: Database) -> None:
    group(database)
    a, *_ = (node(database, name, ["db"]) for name in "abc")
    granted(database, a)
    with database.write() as change:
        change.conn.execute(delete(schema.containers).where(schema.containers.c.node_id == a))
    assert renewed(database, a)


def _placement_lost(db: Database, a: str, _b: str) -> None:
    change_node(db, a, placement_known=False)


def _back_and_not_told_yet(db: Database, a: str, _b: str) -> None:
    change_node(db, a, placement_told=False)


def _failed_here(db: Database, a: str, _b: str) -> None:
    with db.write() as change:
        failed_versions.remember(change.conn, a, kit.digest_of("2.0"), "2.0", "panicked", None, NOW)
        change.touch(f"node:{a}")


def _withdrawn(db: Database, _a: str, _b: str) -> None:
    with db.write() as change:
        bad = bad_versions.BadVersion(kit.digest_of("2.0"), "2.0", "eats data", bad_versions.Cause.WITHDRAWN, "mb", NOW)
        bad_versions.remember(change.conn, bad)


def _pinned_to_another(db: Database, a: str, _b: str) -> None:
    with db.write() as change:
        image_id = kit.add_image(change.conn, "1.0")
    change_node(db, a, pinned_at=NOW, pin_image_id=image_id)


def _its_zone_lost_another(db: Database, _a: str, b: str) -> None:
    change_node(db, b, connection="offline", last_seen_at=NOW + 1)


@pytest.mark.parametrize(
    ("happens", "code"),
    [
        (_placement_lost, "placement-unknown"),
        (_back_and_not_told_yet, "placement-unknown"),
        (_failed_here, "failed-here"),
        (_withdrawn, "bad-version"),
        (_pinned_to_another, "pinned"),
        (_its_zone_lost_another, "domain-budget"),
    ],
)
def test_what_became_of_it_since_the_grant_counts(
    database: Database, happens: Callable[[Database, str, str], None], code: str
) -> None:
    group(database, domain_label="zone", max_per_domain=1)
    a, b = (node(database, name, labels={"zone": "x"}) for name in "ab")
    granted(database, a)
    happens(database, a, b)
    assert not renewed(database, a)
    assert told(database, a) == code


def test_a_health_gate_that_shut_since_holds_it(database: Database) -> None:
    group(database, prometheus=[{"name": "errors", "url": "http://prometheus.example:9090", "query": "up"}])
    a = node(database, "a")
    shut: list[Hold] = []
    admission = Admission(gates=lambda asked: tuple(shut))
    asks(database, a)
    assert admission.tick(database, NOW)
    shut.append(Hold(HoldCode.HEALTH_GATE, "errors is shut", "errors"))
    asks(database, a, NOW + 5, "again")
    admission.note({EVERYTHING})
    admission.tick(database, NOW + 5)
    assert told(database, a) == "health-gate"
    shut.clear()
    asks(database, a, NOW + 10, "once more")
    admission.note({EVERYTHING})
    admission.tick(database, NOW + 10)
    found = answer(database, a)
    assert isinstance(found, LeaseGrant) and found.nonce == "once more"


def test_an_operator_who_let_it_below_the_floor_lets_it_still(database: Database) -> None:
    group(database)
    a, b = (node(database, name, ["db"]) for name in "ab")
    granted(database, a, override_floor=True)
    change_node(database, b, connection="offline", last_seen_at=NOW + 1)
    _placement_lost(database, a, b)
    assert renewed(database, a)


def test_a_node_that_is_unhealthy_itself_costs_its_group_nothing_more(database: Database) -> None:
    group(database, max_unavailable={"count": 1})
    a, _ = (node(database, name) for name in "ab")
    change_node(database, a, health_state="unhealthy")
    granted(database, a)
    node(database, "c", connection="offline")
    assert renewed(database, a)
    with database.read() as conn:
        assert len(conn.execute(select(schema.leases)).all()) == 1


@pytest.mark.parametrize("phase", ["draining", "rebooting"])
def test_a_node_that_is_on_its_way_by_now_asked_before_its_lease_reached_it(database: Database, phase: str) -> None:
    """It goes down under what it has. Renewed, that would be a lease given while another one is known to be away; and
    who is on its way is counted as missing, which must not pass for costing nothing."""
    group(database, max_unavailable={"count": 1})
    a, b = (node(database, name) for name in "ab")
    granted(database, a)
    asks(database, a, NOW + 4, "again")
    change_node(database, a, phase=phase)
    change_node(database, b, connection="offline", last_seen_at=NOW + 1)
    grant_leases(database, NOW + 5)
    assert answer(database, a) is None
    with database.read() as conn:
        lease = leases.of_node(conn, a)
    assert lease is not None and (lease.nonce, lease.granted_at) == ("n1", NOW)
    change_node(database, a, phase="staged")
    assert not renewed(database, a)
    assert told(database, a) == "group-budget"
