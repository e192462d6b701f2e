"""Who asked a node to stop, and why, is how its operation ends: the node itself was only told to."""

from __future__ import annotations

import pytest

from app.core.actors import CONDUCTOR
from app.core.nodes import Operation
from app.services import operations as service
from app.services.orders import Wish, begin, locked_node, withdraw
from app.store import events, operations
from app.store.database import Database
from tests import server_kit as kit
from tests.server_kit import NOW, OPERATOR
from wire.messages import OperationKind, OperationReport, Order, Result

OP = "op_open"


@pytest.fixture
def node_id(database: Database) -> str:
    """A node with an open update to 2.0, of which it has heard."""
    with database.write() as change:
        node_id = kit.add_node(change.conn, "web-03", desired_operation_id=OP, order_generation=1)
        kit.add_operation(change.conn, node_id, id=OP, phase="staging")
    return node_id


def says(database: Database, node_id: str, result: Result, reason: str) -> Operation:
    report = OperationReport(
        seq=7, operation_id=OP, order=Order(epoch=1, generation=1), result=result, at=NOW, reason=reason
    )
    with database.write() as change:
        service.finish(change, report, node_id, NOW + 60)
        found = operations.get(change.conn, OP)
    assert found is not None and not found.open
    return found


def cancelled(database: Database, node_id: str) -> None:
    with database.write() as change:
        found = operations.get(change.conn, OP)
        assert found is not None
        withdraw(change, CONDUCTOR, locked_node(change, node_id), found, "rollout 2 was halted", NOW + 1)


def test_a_cancelled_operation_ends_with_the_reason_that_we_had(database: Database, node_id: str) -> None:
    cancelled(database, node_id)
    ended = says(database, node_id, Result.CANCELLED, "cancelled by the control plane")
    assert ended.result_text == "cancelled by conductor: “rollout 2 was halted”"
    with database.read() as conn:
        newest = events.recent(conn, node_id=node_id)[0]
    assert newest.text == "Update to 2.0 was cancelled: cancelled by conductor: “rollout 2 was halted”"


def test_one_that_ended_otherwise_ends_with_what_the_node_says(database: Database, node_id: str) -> None:
    cancelled(database, node_id)
    ended = says(database, node_id, Result.STAGE_FAILED, "the disk is full")
    assert ended.result_text == "the disk is full"


def test_one_that_gave_way_names_no_id(database: Database, node_id: str) -> None:
    with database.write() as change:
        begin(change, OPERATOR, locked_node(change, node_id), Wish(OperationKind.REBOOT), "kernel", NOW + 1)
    ended = says(database, node_id, Result.CANCELLED, "superseded by op_123")
    assert ended.result_text == "a newer operation took its place"
