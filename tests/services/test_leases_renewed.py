"""A node whose lease is out asks again: what it takes is what runs on it now, held to the limits as they are now."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from sqlalchemy import delete, select, update

from app.services.admission import grant_leases
from app.store import leases, schema
from app.store import services as rows
from app.store.database import Database
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


def _its_zone_lost_another(db: Database, _a: str, b: str) -> None:
    change_node(db, b, connection="offline", last_seen_at=NOW + 1)


@pytest.mark.parametrize(
    ("happens", "code"),
    [
        (_placement_lost, "placement-unknown"),
        (_back_and_not_told_yet, "placement-unknown"),
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
