"""Claims, releases, conflicts and outlooks, without sockets."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import Row

from app.config import Settings
from app.services import connections, desired
from app.services.connections import Claim, End, Gone, Verdict
from app.store import events, schema
from app.store.database import Database
from tests.server_kit import NOW, add_gateway, add_node, add_operation, digest_of


@pytest.fixture
def node_id(database: Database) -> str:
    with database.write() as change:
        return add_node(change.conn, connection="offline", machine_id="m", hardware="h")


def claim_of(node_id: str, connection_id: str = "conn_1", gateway_id: str = "gw_1", **end: str) -> Claim:
    values = {"remote": "10.0.0.1", "machine_id": "m", "hardware": "h", "boot_id": "b"} | end
    return Claim(node_id, gateway_id, connection_id, End(**values, at=NOW), "our key")


def row(db: Database, node_id: str) -> Row[Any]:
    with db.read() as conn:
        return conn.execute(schema.nodes.select().where(schema.nodes.c.id == node_id)).one()


def test_a_claim_names_the_connection_and_an_old_release_changes_nothing(database: Database, node_id: str) -> None:
    first, second = claim_of(node_id), claim_of(node_id, "conn_2")
    for each in (first, second):
        (answer,) = connections.claim(database, [each], NOW)
        assert answer.verdict is Verdict.CLAIMED
    connections.release(database, [Gone(node_id, "conn_1", NOW + 1)])
    assert row(database, node_id).connection_id == "conn_2"
    connections.release(database, [Gone(node_id, "conn_2", NOW + 2)])
    found = row(database, node_id)
    assert (found.connection_id, found.gateway_id, found.last_seen_at) == (None, None, NOW + 2)
    assert found.connection == "online", "the grace has begun"


def test_a_node_of_a_live_gateway_is_elsewhere_and_of_a_dead_one_is_free(database: Database, node_id: str) -> None:
    with database.write() as change:
        other = add_gateway(change.conn)
    connections.claim(database, [claim_of(node_id, "conn_1", other)], NOW)
    mine = claim_of(node_id, "conn_2")
    (answer,) = connections.claim(database, [mine], NOW)
    assert answer.verdict is Verdict.ELSEWHERE
    assert row(database, node_id).probe_at == NOW
    _, asked = connections.standings(database, other)
    assert asked == [node_id]
    (answer,) = connections.claim(database, [mine], NOW + 60)  # its heartbeat is old by now
    assert answer.verdict is Verdict.CLAIMED
    assert row(database, node_id).probe_at is None


def test_a_conflict_keeps_since_and_one_entry_an_end(database: Database, node_id: str) -> None:
    for number in range(20):
        clone = claim_of(node_id, f"conn_{number}", machine_id=f"clone-{number % 10}")
        (answer,) = connections.claim(database, [clone], NOW + number)
        assert answer.verdict is Verdict.HELD
    conflict = row(database, node_id).conflict
    assert conflict["since"] == NOW
    assert [end["machine_id"] for end in conflict["ends"]] == [f"clone-{number}" for number in range(2, 10)]
    (answer,) = connections.claim(database, [claim_of(node_id)], NOW + 30)
    assert answer.verdict is Verdict.HELD, "the rightful one too, until an operator has looked"


@pytest.mark.parametrize(
    ("given", "verdict"),
    [
        ({"admission": "retired"}, Verdict.RETIRED),
        ({"admission": "retired", "replaced_by_id": "node_x"}, Verdict.REVOKED),
    ],
)
def test_who_left_the_fleet_claims_nothing(database: Database, given: dict[str, str], verdict: Verdict) -> None:
    with database.write() as change:
        node_id = add_node(change.conn, **given)
    answers = connections.claim(database, [claim_of(node_id), claim_of("node_nobody")], NOW)
    assert [answer.verdict for answer in answers] == [verdict, Verdict.UNKNOWN]


def test_outlooks_say_what_desired_for_says(database: Database, settings: Settings) -> None:
    with database.write() as change:
        conn = change.conn
        idle = add_node(conn, order_generation=7)
        busy = add_node(conn, order_generation=3)
        operation = add_operation(conn, busy)
        conn.execute(schema.nodes.update().where(schema.nodes.c.id == busy).values(desired_operation_id=operation))
        cleared = add_node(conn)
        conn.execute(
            schema.failed_versions.insert().values(
                node_id=cleared, digest=digest_of("2.0"), version="2.0", reason="", at=NOW, cleared_at=NOW
            )
        )
        pending = add_node(conn, admission="pending")
    found = connections.outlooks(database, [idle, busy, cleared, pending, "node_nobody"], settings, NOW)
    assert found.keys() == {idle, busy, cleared, pending}
    with database.read() as conn:
        for node_id in (idle, busy, cleared):
            assert found[node_id].desired == desired.desired_for(conn, node_id, settings, NOW)
            assert found[node_id].lease == desired.lease_answer(conn, node_id)
    assert found[pending].desired is None


def test_only_whoever_is_gone_long_enough_turns_offline(database: Database) -> None:
    with database.write() as change:
        conn = change.conn
        long_gone = add_node(conn, last_seen_at=NOW - 100)
        just_gone = add_node(conn, last_seen_at=NOW - 10)
        connected = add_node(conn, last_seen_at=NOW - 1000, gateway_id="gw_1", connection_id="conn_1")
    assert connections.turn_offline(database, NOW - 45, NOW) == [long_gone]
    assert connections.turn_offline(database, NOW - 45, NOW) == []
    states = [row(database, node_id).connection for node_id in (long_gone, just_gone, connected)]
    assert states == ["offline", "online", "online"]


def test_a_retired_node_that_is_gone_did_not_fail_to_come_back(database: Database) -> None:
    with database.write() as change:
        retired = add_node(change.conn, admission="retired", last_seen_at=NOW - 100)
        lost = add_node(change.conn, last_seen_at=NOW - 100)
    connections.turn_offline(database, NOW - 45, NOW)
    with database.read() as conn:
        said = {event.node_id: event.text for event in events.recent(conn)}
    assert said == {retired: "Disconnected, as it is retired", lost: "Offline: it did not come back"}
