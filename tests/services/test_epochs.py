"""A database older than its fleet: a new epoch, frozen until somebody has looked."""

from __future__ import annotations

from sqlalchemy import select

from app.services import epochs, freezes, intake
from app.services.admission import grant_leases
from app.services.intake import Report, Sections
from app.store import fleet, schema
from app.store.database import Database
from tests.server_kit import NOW, OPERATOR
from tests.services import admission_kit
from tests.services.admission_kit import asks, holders, node, told
from wire.messages import Activity, OperationReport, Order, Phase, Result


def reports(db: Database, node_id: str, order: Order | None, *happenings: OperationReport) -> None:
    activity = None if order is None else Activity(phase=Phase.IDLE, order=order)
    report = Report(node_id, "conn_1", NOW, Sections(activity=activity), happenings)
    intake.apply(db, [report], NOW)


def orders(db: Database) -> set[tuple[int, int]]:
    with db.read() as conn:
        rows = conn.execute(select(schema.nodes.c.order_epoch, schema.nodes.c.order_generation))
        return {(row[0], row[1]) for row in rows}


def one(db: Database, **given: object) -> str:
    admission_kit.gateway(db)
    return node(db, "a", connection_id="conn_1", order_generation=7, **given)


def test_a_node_that_knows_what_was_given_proves_nothing(database: Database) -> None:
    node_id = one(database)
    reports(database, node_id, Order(1, 7))
    assert not epochs.start_when_needed(database, NOW)
    reports(database, node_id, Order(2**40, 7))  # nobody restores that often
    assert not epochs.start_when_needed(database, NOW)
    assert orders(database) == {(1, 7)}


def test_a_newer_order_begins_an_epoch_and_freezes_the_fleet(database: Database) -> None:
    node_id = one(database)
    other = node(database, "b")
    reports(database, node_id, Order(1, 9))
    assert epochs.start_when_needed(database, NOW + 1)
    assert orders(database) == {(2, 8), (2, 1)}
    with database.read() as conn:
        assert fleet.epoch(conn) == 2
        found = epochs.frozen_by(conn, NOW + 1)
    assert found is not None and "a has carried out order 1.9, and this database gave it only 1.7" in found.reason
    assert not epochs.start_when_needed(database, NOW + 2), "once"

    asks(database, other, NOW + 3)
    grant_leases(database, NOW + 3)
    assert told(database, other) == "freeze"
    freezes.lift(database, OPERATOR, found.id, "looked: two updates are missing", NOW + 4)
    asks(database, other, NOW + 5, "n2")
    grant_leases(database, NOW + 5)
    assert holders(database) == {"b"}


def test_a_node_that_lies_costs_one_epoch_and_one_freeze_until_somebody_has_looked(database: Database) -> None:
    liar, honest = one(database), node(database, "b", connection_id="conn_2")
    for number in (3, 50, 900):
        reports(database, liar, Order(number, 1))
        epochs.start_when_needed(database, NOW + number)
    assert orders(database) == {(4, 8), (4, 1)}

    intake.apply(
        database,
        [Report(honest, "conn_2", NOW, Sections(activity=Activity(phase=Phase.IDLE, order=Order(7, 1))), ())],
        NOW,
    )
    reports(database, liar, Order(800_000, 1))
    assert epochs.start_when_needed(database, NOW + 901), "another node may know better"
    assert {order[0] for order in orders(database)} == {8}, "and nobody is led to numbers that are made up"
    with database.read() as conn:
        assert len(list(conn.execute(select(schema.freezes)))) == 1


def test_an_epoch_that_only_a_node_knows(database: Database) -> None:
    node_id = one(database)
    reports(database, node_id, Order(5, 1))
    assert epochs.start_when_needed(database, NOW)
    assert orders(database) == {(6, 8)}


def test_the_report_of_an_operation_that_was_lost(database: Database) -> None:
    node_id = one(database)
    lost = OperationReport(seq=1, operation_id="op_lost", order=Order(1, 8), result=Result.SUCCEEDED, at=NOW)
    reports(database, node_id, None, lost)
    assert epochs.start_when_needed(database, NOW)
    with database.read() as conn:
        audited = list(conn.execute(select(schema.audit.c.action, schema.audit.c.actor_name)))
    assert [tuple(row) for row in audited] == [("fleet.epoch", "conductor"), ("freeze.set", "conductor")]


def test_retired_nodes_prove_nothing(database: Database) -> None:
    node_id = one(database)
    reports(database, node_id, Order(1, 9))
    admission_kit.change_node(database, node_id, admission="retired")
    assert not epochs.start_when_needed(database, NOW)
