from __future__ import annotations

from sqlalchemy import select

from app.services.nodes import approve
from app.store import leases, schema
from app.store.database import Database
from tests.server_kit import NOW, OPERATOR, add_operation, count_rows
from tests.services.test_joining import attempt, join_with, node, token_for


def test_a_node_that_waits_replaces_the_old_one_when_it_is_approved(database: Database) -> None:
    _, strong = token_for(database)
    old = attempt(database, join_with(strong))
    _, weak = token_for(database, admit=False)
    new = attempt(database, join_with(weak))
    approve(database, OPERATOR, new.node_id, "reinstalled", NOW + 60)
    row = node(database, old.node_id)
    assert (row["admission"], row["replaced_by_id"], row["retired_at"]) == ("retired", new.node_id, NOW + 60)
    assert node(database, new.node_id)["admission"] == "admitted"


def test_what_the_old_node_was_doing_ends_and_its_order_moves_on(database: Database) -> None:
    _, token = token_for(database, max_uses=2)
    old = attempt(database, join_with(token))
    with database.write() as change:
        operation_id = add_operation(change.conn, old.node_id)
        change.conn.execute(
            schema.nodes.update().where(schema.nodes.c.id == old.node_id).values(desired_operation_id=operation_id)
        )
    before = node(database, old.node_id)["order_generation"]
    attempt(database, join_with(token))
    with database.read() as conn:
        ended = conn.execute(select(schema.operations).where(schema.operations.c.id == operation_id)).one()
        assert leases.of_node(conn, old.node_id) is None
    assert (ended.state, ended.result) == ("ended", "cancelled")
    assert "joined again" in ended.result_text
    row = node(database, old.node_id)
    assert row["order_generation"] > before
    assert row["desired_operation_id"] is None


def test_of_two_nodes_that_wait_for_one_machine_the_first_approved_replaces_it(database: Database) -> None:
    _, strong = token_for(database)
    old = attempt(database, join_with(strong))
    _, weak = token_for(database, admit=False, max_uses=2)
    first = attempt(database, join_with(weak))
    second = attempt(database, join_with(weak))
    assert (first.replaces, second.replaces) == (old.node_id, first.node_id)
    approve(database, OPERATOR, first.node_id, "x", NOW)
    approve(database, OPERATOR, second.node_id, "x", NOW)
    assert node(database, old.node_id)["replaced_by_id"] == first.node_id
    assert node(database, first.node_id)["replaced_by_id"] == second.node_id
    assert count_rows(database, schema.nodes) == 3
