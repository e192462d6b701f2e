"""Success that is reported too early is watched on, whatever our own clock did meanwhile (rules 1 and 4)."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import select, update

from app.core.clocks import STEP_S
from app.core.nodes import Operation
from app.core.waiting import chain
from app.services import claims, deadlines, intake
from app.services import nodes as node_service
from app.services import operations as service
from app.store import events, failed_versions, nodes, operations, schema
from app.store.database import Database
from tests import server_kit as kit
from tests.server_kit import NOW, OPERATOR, digest_of
from wire.messages import (
    AgentFacts,
    Boot,
    Evidence,
    EvidenceClass,
    Facts,
    Health,
    HealthState,
    OperationReport,
    Order,
    OsFacts,
    Phase,
    Result,
)

OP = "op_open"
SOAK_S, HOUR_S = 600.0, 3600.0
EVIDENCE = {"old_boot_id": "boot-1", "boot_id": "boot-2"}


@pytest.fixture
def node_id(database: Database) -> str:
    """A connected node that runs its new version and soaks. Its lease was granted at NOW, a minute before it was seen
    there."""
    slots = [kit.slot("A", "1.0", good=True), kit.slot("B", "2.0", booted=True, next_boot=True, good=True)]
    with database.write() as change:
        node_id = kit.add_node(
            change.conn,
            "web-03",
            boot_id="boot-2",
            slots=slots,
            booted_slot="B",
            booted_digest=digest_of("2.0"),
            version="2.0",
            gateway_id=kit.add_gateway(change.conn, started_at=NOW - HOUR_S),
            desired_operation_id=OP,
            order_generation=1,
        )
        kit.add_operation(
            change.conn, node_id, id=OP, old_boot_id="boot-1", policy={"soak_s": SOAK_S}, phase="soaking", clock_at=NOW
        )
        lease = {"id": "lease_1", "fleet_id": 1, "node_id": node_id, "operation_id": OP, "nonce": "n1"}
        times = {"duration_s": 120.0, "granted_at": NOW, "counted_s": 60.0, "ended_at": NOW + 60}
        change.conn.execute(schema.leases.insert().values(lease | times | {"old_boot_id": "boot-1"}))
    return node_id


def claim(db: Database, node_id: str, now: float, result: Result = Result.SUCCEEDED) -> None:
    """The node says that it is through."""
    report = OperationReport(
        seq=7, operation_id=OP, order=Order(epoch=1, generation=1), result=result, at=NOW, evidence=Evidence(**EVIDENCE)
    )
    with db.write() as change:
        service.finish(change, report, node_id, now)


def watch(db: Database, start: float, seconds: float) -> None:
    """A live gateway, and a conductor that counts and judges, for so long."""
    now = start
    while now <= start + seconds:
        with db.write() as change:
            change.conn.execute(update(schema.gateways).values(heartbeat_at=now))
        deadlines.advance_clocks(db, now)
        claims.settle(db, now)
        now += STEP_S


def set_node(db: Database, **values: Any) -> None:
    with db.write() as change:
        change.conn.execute(update(schema.nodes).values(**values))


def read(db: Database) -> Operation:
    with db.read() as conn:
        found = operations.get(conn, OP)
    assert found is not None
    return found


def kinds(db: Database) -> list[str]:
    with db.read() as conn:
        return [event.kind for event in reversed(events.recent(conn))]


def test_success_that_comes_too_early_is_no_success_before_it_was_watched(database: Database, node_id: str) -> None:
    claim(database, node_id, NOW + 65)
    operation = read(database)
    assert operation.open and operation.phase is Phase.SOAKING
    with database.read() as conn:
        (event,) = events.recent(conn)
    assert event.kind == "claim-early" and "only 65 of 600 seconds of soak" in event.text
    watch(database, NOW + 65, SOAK_S - 60 - 50)
    assert read(database).open, "a minute of it was not seen yet"
    watch(database, NOW + SOAK_S, 50)
    operation = read(database)
    assert operation.result is Result.SUCCEEDED
    with database.read() as conn:
        stored = conn.execute(schema.operations.select().with_only_columns(schema.operations.c.evidence)).scalar_one()
    assert stored["boot_id"] == "boot-2"
    assert kinds(database) == ["claim-early", "operation-ended"]


@pytest.mark.parametrize("jump_s", [-HOUR_S, -SOAK_S / 2])
def test_a_node_that_soaked_while_our_clock_was_set_back_does_not_fail(
    database: Database, node_id: str, jump_s: float
) -> None:
    """And no conductor ran that could have counted."""
    now = NOW + 60 + SOAK_S + jump_s
    claim(database, node_id, now)
    assert read(database).open
    watch(database, now, SOAK_S)
    assert read(database).result is Result.SUCCEEDED


def test_what_was_counted_confirms_at_once(database: Database, node_id: str) -> None:
    watch(database, NOW, SOAK_S)
    claim(database, node_id, NOW - HOUR_S)
    assert read(database).result is Result.SUCCEEDED


def test_what_is_said_again_changes_nothing(database: Database, node_id: str) -> None:
    claim(database, node_id, NOW + 10)
    claim(database, node_id, NOW + 20)
    assert kinds(database) == ["claim-early"]


def test_a_soak_that_no_status_told_is_watched_from_then_on(database: Database, node_id: str) -> None:
    with database.write() as change:
        change.conn.execute(update(schema.operations).values(phase="rebooting", heard_s=100.0))
    claim(database, node_id, NOW - HOUR_S)
    operation = read(database)
    assert (operation.phase, operation.heard_s) == (Phase.SOAKING, 0.0)


def test_a_node_that_is_not_well_at_the_end_has_not_succeeded(database: Database, node_id: str) -> None:
    claim(database, node_id, NOW + 10)
    set_node(database, health_state="unhealthy")
    watch(database, NOW + 10, SOAK_S)
    operation = read(database)
    assert operation.result is Result.UNHEALTHY
    assert operation.result_text == "it was seen unhealthy before its soak was seen to be over"


def says(db: Database, node_id: str, now: float, *, boot_id: str = "boot-2", healthy: bool = True) -> None:
    """A status of the node comes in."""
    facts = Facts(
        agent=AgentFacts(version="0.1.0"),
        os=OsFacts(id="demo", arch="amd64"),
        boot=Boot(id=boot_id, at=NOW),
        evidence=EvidenceClass.AGENT_WITH_PLACEMENT,
    )
    health = Health(state=HealthState.HEALTHY if healthy else HealthState.UNHEALTHY)
    with db.read() as conn:
        connection_id = conn.execute(select(schema.nodes.c.connection_id)).scalar_one()
    report = intake.Report(node_id, connection_id, now, intake.Sections(facts=facts, health=health), [])
    (outcome,) = intake.apply(db, [report], now)
    assert outcome.fate is intake.Fate.STORED


def remembered(db: Database, node_id: str) -> list[str]:
    with db.read() as conn:
        return [failed.version for failed in failed_versions.of_node(conn, node_id)]


def test_a_node_that_was_unhealthy_meanwhile_has_failed(database: Database, node_id: str) -> None:
    """Also where it is well again in the end, and its version is remembered (rule 5)."""
    claim(database, node_id, NOW + 10)
    says(database, node_id, NOW + 20)
    assert read(database).open
    says(database, node_id, NOW + 30, healthy=False)
    assert read(database).result is Result.UNHEALTHY
    says(database, node_id, NOW + 40)
    watch(database, NOW + 40, SOAK_S)
    assert read(database).result is Result.UNHEALTHY
    assert remembered(database, node_id) == ["2.0"]


def test_of_a_node_that_booted_again_meanwhile_nobody_knows(database: Database, node_id: str) -> None:
    claim(database, node_id, NOW + 10)
    says(database, node_id, NOW + 20, boot_id="boot-3")
    operation = read(database)
    assert operation.result is Result.UNKNOWN and "booted again before its soak" in operation.result_text
    assert remembered(database, node_id) == []


def test_a_boot_that_only_the_row_shows_counts_at_the_end(database: Database, node_id: str) -> None:
    claim(database, node_id, NOW + 10)
    set_node(database, boot_id="boot-3")
    watch(database, NOW + 10, SOAK_S)
    assert read(database).result is Result.UNKNOWN


def test_a_node_that_is_not_there_at_the_end_has_to_come_back(database: Database, node_id: str) -> None:
    claim(database, node_id, NOW + 10)
    set_node(database, connection="offline")
    watch(database, NOW + 10, SOAK_S)
    assert read(database).open
    set_node(database, connection="online")
    watch(database, NOW + 10 + SOAK_S, STEP_S)
    assert read(database).result is Result.SUCCEEDED


def test_silence_after_it_ends_at_the_deadline(database: Database, node_id: str) -> None:
    claim(database, node_id, NOW + 10)
    set_node(database, connection="offline")
    with database.write() as change:
        change.conn.execute(update(schema.operations).values(heard_s=10 * HOUR_S))
    deadlines.end_overdue(database, NOW + 20)
    assert read(database).result is Result.TIMED_OUT


def test_another_order_ends_it_at_once(database: Database, node_id: str) -> None:
    """The node has ended it and will say nothing more of it, and nobody can watch what it leaves."""
    claim(database, node_id, NOW + 10)
    node_service.roll_back(database, OPERATOR, node_id, "not needed", NOW + 20)
    operation = read(database)
    assert operation.result is Result.CANCELLED
    assert operation.result_text == "superseded before its soak was seen to be over"


def test_who_was_asked_to_stop_and_comes_too_early_was_cancelled(database: Database, node_id: str) -> None:
    node_service.roll_back(database, OPERATOR, node_id, "not needed", NOW + 5)
    claim(database, node_id, NOW + 10)
    operation = read(database)
    assert (operation.result, operation.result_text) == (Result.CANCELLED, "a newer operation took its place")


def test_a_failure_is_taken_at_once(database: Database, node_id: str) -> None:
    claim(database, node_id, NOW + 10, Result.UNHEALTHY)
    assert read(database).result is Result.UNHEALTHY


def test_the_chain_of_the_node_says_so(database: Database, node_id: str) -> None:
    claim(database, node_id, NOW + 10)
    with database.read() as conn:
        node = nodes.get(conn, node_id)
    assert node is not None
    assert any("earlier than can be by the server's clock" in link.text for link in chain(node))
