"""What plans expect of nodes that came back moments ago: all that they served, until it is late for that."""

from __future__ import annotations

import pytest
from sqlalchemy import delete, insert

from app.services.admission import gathered
from app.services.fleet_snapshot import gather
from app.services.returning import STARTS_WITHIN_S
from app.services.service_watch import ServiceWatch
from app.store import schema
from app.store.database import Database
from tests import server_kit as kit
from tests.server_kit import NOW
from tests.services import admission_kit as fleet
from tests.services.admission_kit import asks, change_node, node
from tests.services.test_service_watch import boot_event, lease_row

LATE_S = STARTS_WITHIN_S + 1


@pytest.fixture
def watch(database: Database) -> ServiceWatch:
    fleet.gateway(database)
    node(database, "other", ["web", "db"])
    return ServiceWatch()


def look(db: Database, watch: ServiceWatch, node_id: str, at: float = NOW) -> None:
    watch.note([f"node:{node_id}"])
    watch.step(db, at)


def expected_back(db: Database, name: str, now: float = NOW) -> dict[str, int]:
    """Services that plans expect on the node beside what it serves."""
    fleet_heard(db, now)
    view = gather(db, now)
    [found] = [one for one in view.nodes if one.name == name]
    return {view.services[service].key[1]: replicas for service, replicas in found.returning}


def fleet_heard(db: Database, now: float) -> None:
    with db.write() as change:
        change.conn.execute(schema.gateways.update().values(heartbeat_at=now))


def stop(db: Database, node_id: str) -> None:
    with db.write() as change:
        change.conn.execute(delete(schema.containers).where(schema.containers.c.node_id == node_id))


def start(db: Database, node_id: str, *services: str) -> None:
    with db.write() as change:
        for service in services:
            kit.add_container(change.conn, node_id, service, scope="shop")


def updated(db: Database, watch: ServiceWatch, node_id: str) -> None:
    """Under its lease it went down and booted, the lease is returned, and nothing runs on it yet."""
    operation_id = asks(db, node_id)
    change_node(db, node_id, phase="rebooting", connection="offline")
    with db.write() as change:
        change.conn.execute(insert(schema.leases).values(lease_row(node_id, operation_id)))
    look(db, watch, node_id)
    stop(db, node_id)
    boot_event(db, node_id, "boot-2", "operation", operation_id)
    with db.write() as change:
        change.conn.execute(schema.leases.update().values(ended_at=NOW))
    change_node(db, node_id, phase="soaking", boot_id="boot-2", connection="online", connected_at=NOW - 20)
    look(db, watch, node_id)


def test_of_a_node_that_soaks_what_it_served_comes_back(database: Database, watch: ServiceWatch) -> None:
    a = node(database, "a", ["web", "web", "db"])
    watch.step(database, NOW)
    updated(database, watch, a)
    assert expected_back(database, "a") == {"web": 2, "db": 1}
    assert expected_back(database, "other") == {}
    start(database, a, "web")
    assert expected_back(database, "a") == {"web": 1, "db": 1}, "also before the time line is told"
    look(database, watch, a)
    assert expected_back(database, "a") == {"web": 1, "db": 1}
    start(database, a, "web", "db")
    assert expected_back(database, "a") == {}


def test_admission_expects_nothing(database: Database, watch: ServiceWatch) -> None:
    a = node(database, "a", ["web"])
    watch.step(database, NOW)
    updated(database, watch, a)
    with database.read() as conn:
        assert {one.returning for one in gathered(conn, NOW).snapshot().nodes} == {()}


def test_what_does_not_come_is_given_up_after_the_soak(database: Database, watch: ServiceWatch) -> None:
    a = node(database, "a", ["web"])
    watch.step(database, NOW)
    updated(database, watch, a)
    assert expected_back(database, "a", NOW + LATE_S) == {"web": 1}, "it still soaks"
    change_node(database, a, phase="idle")
    assert expected_back(database, "a", NOW + 100) == {"web": 1}
    assert expected_back(database, "a", NOW + LATE_S) == {}


def test_a_node_that_rebooted_without_us_brings_its_replicas_back(database: Database, watch: ServiceWatch) -> None:
    a = node(database, "a", ["web"])
    watch.step(database, NOW)
    change_node(database, a, connection="offline")
    look(database, watch, a)
    stop(database, a)
    change_node(database, a, connection="online", boot_id="boot-2", connected_at=NOW + 600)
    look(database, watch, a, NOW + 600)
    assert expected_back(database, "a", NOW + 610) == {"web": 1}
    assert expected_back(database, "a", NOW + 600 + LATE_S) == {}


def test_of_a_node_that_began_to_serve_moments_before_it_comes_back_too(
    database: Database, watch: ServiceWatch
) -> None:
    """As in a fleet that has just been joined: what came then and went under the lease is not even."""
    watch.step(database, NOW)
    a = node(database, "a")
    start(database, a, "web", "db")
    look(database, watch, a)
    updated(database, watch, a)
    assert expected_back(database, "a") == {"web": 1, "db": 1}
    start(database, a, "db")
    look(database, watch, a)
    assert expected_back(database, "a") == {"web": 1}


def test_a_container_that_was_stopped_is_not_expected(database: Database, watch: ServiceWatch) -> None:
    a = node(database, "a", ["web"], connected_at=NOW - 10)
    watch.step(database, NOW)
    stop(database, a)
    look(database, watch, a)
    assert expected_back(database, "a") == {}


def test_a_node_that_has_not_said_what_runs_runs_what_it_did(database: Database, watch: ServiceWatch) -> None:
    a = node(database, "a", ["web"])
    watch.step(database, NOW)
    change_node(database, a, placement_told=False, connected_at=NOW - 1)
    assert expected_back(database, "a") == {"web": 1}
