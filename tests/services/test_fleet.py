"""The fleet's policy and the samples of versions; what is too old goes."""

from __future__ import annotations

import pytest
from sqlalchemy import insert, select

from app.core.errors import Invalid
from app.core.policy import Policy
from app.services import fleet, retention
from app.store import fleet as store
from app.store import schema
from app.store.database import Database
from tests import server_kit as kit
from tests.server_kit import NOW, OPERATOR

DAY_S = 86_400.0


def test_the_policy_starts_with_its_defaults_and_is_changed_with_an_audit_entry(database: Database) -> None:
    with database.read() as conn:
        assert fleet.current_policy(conn) == Policy()
    fleet.set_policy(database, OPERATOR, fleet.parse_changes(["soak_s=5s", "confirm_s=0.5m"]), "demo", NOW)
    with database.read() as conn:
        assert fleet.current_policy(conn) == Policy(soak_s=5.0, confirm_s=30.0)
        entry = conn.execute(select(schema.audit)).one()
    assert (entry.action, entry.reason, entry.before) == ("fleet.policy", "demo", {})
    assert entry.after == {"soak_s": 5.0, "confirm_s": 30.0}


@pytest.mark.parametrize(
    "change", ["soak_s", "soak_s=", "soak_s=x", "nothing=1", "soak_s=-1", "soak_s=nan", "soak_s=1e12", "soak_s=400d"]
)
def test_bad_changes_change_nothing(database: Database, change: str) -> None:
    with pytest.raises(Invalid) as refused:
        fleet.set_policy(database, OPERATOR, fleet.parse_changes([change]), "x", NOW)
    assert "e+" not in refused.value.text, "a number that people read"
    with database.read() as conn:
        assert fleet.current_policy(conn) == Policy()


def test_the_fleets_row_is_made_once(database: Database) -> None:
    fleet.ensure_fleet(database, NOW + 1)
    assert kit.count_rows(database, schema.fleet) == 1


def test_samples_each_minute_while_young_and_each_hour_later(database: Database) -> None:
    assert not fleet.sample_versions(database, NOW)  # nobody there
    with database.write() as change:
        for version in ("1.0", "1.0", "2.0"):
            kit.add_node(change.conn, version=version)
        kit.add_node(change.conn, version="3.0", admission="pending")
    assert fleet.sample_versions(database, NOW)
    assert not fleet.sample_versions(database, NOW + 59)
    assert fleet.sample_versions(database, NOW + 60)
    assert fleet.sample_versions(database, NOW + 3 * 3600)
    assert not fleet.sample_versions(database, NOW + 3 * 3600 + 60)
    assert fleet.sample_versions(database, NOW + 4 * 3600)
    with database.read() as conn:
        first = [(one.version, one.nodes) for one in store.samples(conn, 0) if one.at == NOW]
    assert first == [("1.0", 2), ("2.0", 1)]


def test_what_is_too_old_goes_and_the_rest_stays(database: Database) -> None:
    with database.write() as change:
        node_id = kit.add_node(change.conn)
        for age_s in (401 * DAY_S, 10 * DAY_S):
            change.conn.execute(
                insert(schema.events).values(node_id=node_id, at=NOW - age_s, kind="boot", text="booted")
            )
            store.add_samples(change.conn, NOW - age_s, {"1.0": 1})
            change.conn.execute(
                insert(schema.sessions).values(
                    secret_hash=str(age_s), name="mb", created_at=0, seen_at=0, expires_at=NOW + 20 * DAY_S - 2 * age_s
                )
            )
        kept = kit.add_gateway(change.conn, heartbeat_at=NOW - 61 * DAY_S)
        kit.add_node(change.conn, gateway_id=kept)
        kit.add_gateway(change.conn, heartbeat_at=NOW - 61 * DAY_S)
        kit.add_gateway(change.conn)
    retention.remove_old(database, NOW)
    for table, rows in ((schema.events, 1), (schema.version_samples, 1), (schema.sessions, 1), (schema.gateways, 2)):
        assert kit.count_rows(database, table) == rows, table.name


def test_many_old_rows_go_in_pieces(database: Database) -> None:
    with database.write() as change:
        node_id = kit.add_node(change.conn)
        old = [{"node_id": node_id, "at": 1.0, "kind": "boot", "text": str(number)} for number in range(1200)]
        change.conn.execute(insert(schema.events), old)
    assert retention.remove_old(database, NOW) == 1200
    assert kit.count_rows(database, schema.events) == 0
