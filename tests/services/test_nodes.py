"""Operators' actions: what they change, what they leave in audit log and history, and that refusals change nothing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import select, text
from sqlalchemy.exc import DBAPIError

from app.core.errors import Invalid, NotFound, NotPossible, TwinrootError
from app.core.nodes import Admission, Node, Operation
from app.services import nodes as service
from app.store import events, failed_versions, nodes, operations, schema
from app.store.database import Database
from tests import server_kit as kit
from tests.server_kit import NOW, OPERATOR, digest_of
from wire.messages import OperationKind, Order, Phase, Result

LATER = NOW + 60


def read_node(db: Database, node_id: str) -> Node:
    with db.read() as conn:
        found = nodes.get(conn, node_id)
    assert found is not None
    return found


def read_operation(db: Database, operation_id: str) -> Operation:
    with db.read() as conn:
        found = operations.get(conn, operation_id)
    assert found is not None
    return found


def audit_entries(db: Database) -> list[Any]:
    with db.read() as conn:
        return list(conn.execute(select(schema.audit).order_by(schema.audit.c.id)))


def kinds(db: Database, node_id: str) -> list[str]:
    """Of the node's events, oldest first."""
    with db.read() as conn:
        return [event.kind for event in reversed(events.recent(conn, node_id=node_id))]


def dump(db: Database) -> dict[str, list[tuple[Any, ...]]]:
    """Everything in the database but revisions of topics."""
    tables = [table for table in schema.metadata.sorted_tables if table is not schema.revisions]
    with db.read() as conn:
        return {table.name: sorted(map(repr, conn.execute(select(table)))) for table in tables}


@pytest.fixture
def node_id(database: Database) -> str:
    with database.write() as change:
        return kit.add_node(change.conn, "web-03", slots=kit.two_slots("1.0", "0.9", passive_good=True))


@pytest.fixture
def image_id(database: Database) -> str:
    with database.write() as change:
        return kit.add_image(change.conn, "2.0")


# --- update -------------------------------------------------------------------------------------------------


def test_update_makes_an_operation_the_nodes_desired_state(database: Database, node_id: str, image_id: str) -> None:
    before = kit.revisions(database).get(f"desired:{node_id}")
    operation_id = service.update(database, OPERATOR, node_id, image_id, "security fix", LATER)
    operation, node = read_operation(database, operation_id), read_node(database, node_id)
    assert operation.kind is OperationKind.ACTIVATE and operation.target_digest == digest_of("2.0")
    assert operation.old_digest == digest_of("1.0") and operation.old_boot_id == node.boot_id
    assert operation.policy["soak_s"] == 600.0
    assert node.operation is not None and node.operation.id == operation_id
    assert node.order == Order(epoch=1, generation=1) == operation.order
    assert kit.revisions(database)[f"desired:{node_id}"] != before
    (entry,) = audit_entries(database)
    assert (entry.action, entry.object, entry.reason) == ("node.update", f"node:{node_id}", "security fix")
    assert entry.actor_name == "mb" and entry.after["operation"] == operation_id and entry.before["version"] == "1.0"
    assert kinds(database, node_id) == ["operation-begun"]


def test_update_of_what_is_not_there(database: Database, node_id: str, image_id: str) -> None:
    with pytest.raises(NotFound):
        service.update(database, OPERATOR, "node_none", image_id, "", LATER)
    with pytest.raises(NotFound):
        service.update(database, OPERATOR, node_id, "image_none", "", LATER)


def test_override_needs_a_reason(database: Database, node_id: str, image_id: str) -> None:
    with database.write() as change:
        failed_versions.remember(change.conn, node_id, digest_of("2.0"), "2.0", "did not boot", None, NOW)
    with pytest.raises(NotPossible, match="failed on web-03 before: did not boot"):
        service.update(database, OPERATOR, node_id, image_id, "again", LATER)
    with pytest.raises(Invalid):
        service.update(database, OPERATOR, node_id, image_id, " ", LATER, override_failed=True)
    operation_id = service.update(database, OPERATOR, node_id, image_id, "bios fixed", LATER, override_failed=True)
    assert read_operation(database, operation_id).override_failed


def test_a_pin_to_a_channel_allows_what_the_channel_points_at(database: Database, node_id: str, image_id: str) -> None:
    with database.write() as change:
        other = kit.add_image(change.conn, "3.0")
        channel_id = kit.add_channel(change.conn, "stable", image_id)
    service.pin(database, OPERATOR, node_id, channel_id=channel_id, reason="fair", now=NOW)
    with pytest.raises(NotPossible, match="channel stable"):
        service.update(database, OPERATOR, node_id, other, "", LATER)
    service.update(database, OPERATOR, node_id, image_id, "", LATER)


def test_a_newer_update_supersedes_what_is_not_armed(database: Database, node_id: str, image_id: str) -> None:
    with database.write() as change:
        other = kit.add_image(change.conn, "3.0")
    first = service.update(database, OPERATOR, node_id, image_id, "", LATER)
    second = service.update(database, OPERATOR, node_id, other, "", LATER + 1)
    node, old = read_node(database, node_id), read_operation(database, first)
    assert node.operation is not None and node.operation.id == second
    assert node.order == Order(epoch=1, generation=2)
    assert old.open and old.cancel_asked_at == LATER + 1  # the node owes its word
    assert kinds(database, node_id) == ["operation-begun", "operation-superseded", "operation-begun"]


def test_what_an_absent_node_never_heard_of_ends_at_once(database: Database, image_id: str) -> None:
    with database.write() as change:
        other = kit.add_image(change.conn, "3.0")
        node_id = kit.add_node(change.conn, connection="offline", connected_at=NOW - 900, last_seen_at=NOW - 300)
    first = service.update(database, OPERATOR, node_id, image_id, "", LATER)
    service.update(database, OPERATOR, node_id, other, "", LATER + 1)
    assert read_operation(database, first).result is Result.CANCELLED


# --- roll back ----------------------------------------------------------------------------------------------


def test_roll_back_to_the_passive_slot_downloads_nothing(database: Database, node_id: str) -> None:
    operation = read_operation(database, service.roll_back(database, OPERATOR, node_id, "slow", LATER))
    assert operation.kind is OperationKind.ROLLBACK and operation.image_id is None
    assert (operation.target_version, operation.target_digest) == ("0.9", digest_of("0.9"))


def test_roll_back_to_an_overwritten_version_downloads_it(database: Database) -> None:
    with database.write() as change:
        old_image = kit.add_image(change.conn, "1.0")
        slots = [kit.slot("A", "3.0"), kit.slot("B", "2.0", booted=True, next_boot=True, good=True)]
        digest = digest_of("2.0")
        node_id = kit.add_node(change.conn, version="2.0", booted_slot="B", booted_digest=digest, slots=slots)
        kit.add_operation(change.conn, node_id, state="ended", result="succeeded", phase="soaking", ended_at=NOW)
    operation = read_operation(database, service.roll_back(database, OPERATOR, node_id, "", LATER))
    assert operation.kind is OperationKind.ACTIVATE
    assert (operation.image_id, operation.target_version) == (old_image, "1.0")


def test_roll_back_during_the_soak_of_a_pinned_node(database: Database, image_id: str) -> None:
    with database.write() as change:
        slots = [kit.slot("A", "1.0", good=True), kit.slot("B", "2.0", booted=True, next_boot=True)]
        digest = digest_of("2.0")
        given = {"version": "2.0", "booted_slot": "B", "booted_digest": digest, "slots": slots}
        pin = {"pin_image_id": image_id, "pinned_at": NOW, "pin_actor": "ana", "pin_reason": "fair"}
        node_id = kit.add_node(change.conn, **given, **pin, desired_operation_id="op_soaking")
        kit.add_operation(change.conn, node_id, id="op_soaking", phase="soaking")
    operation = read_operation(database, service.roll_back(database, OPERATOR, node_id, "", LATER))
    assert operation.kind is OperationKind.ROLLBACK and operation.target_version == "1.0"
    assert read_operation(database, "op_soaking").cancel_asked_at == LATER


# --- cancel -------------------------------------------------------------------------------------------------


def test_cancel_asks_the_node(database: Database, node_id: str, image_id: str) -> None:
    operation_id = service.update(database, OPERATOR, node_id, image_id, "", LATER)
    assert service.cancel(database, OPERATOR, node_id, "wrong node", LATER + 1) == operation_id
    node = read_node(database, node_id)
    assert node.order == Order(epoch=1, generation=2)
    assert node.desired_operation_id is None
    assert node.operation is not None and node.operation.cancel_asked_at == LATER + 1
    with pytest.raises(NotPossible, match="asked to stop already"):
        service.cancel(database, OPERATOR, node_id, "again", LATER + 2)


def test_cancel_of_what_an_absent_node_never_heard_of(database: Database, image_id: str) -> None:
    with database.write() as change:
        node_id = kit.add_node(change.conn, connection="offline", connected_at=NOW - 900, last_seen_at=NOW - 300)
    operation_id = service.update(database, OPERATOR, node_id, image_id, "", LATER)
    service.cancel(database, OPERATOR, node_id, "", LATER + 1)
    assert read_operation(database, operation_id).result is Result.CANCELLED
    assert read_node(database, node_id).operation is None


# --- membership ---------------------------------------------------------------------------------------------


def test_retire_ends_everything(database: Database, node_id: str, image_id: str) -> None:
    operation_id = service.update(database, OPERATOR, node_id, image_id, "", LATER)
    with database.write() as change:
        change.conn.execute(
            schema.leases.insert().values(
                id="lease_1",
                fleet_id=1,
                node_id=node_id,
                operation_id=operation_id,
                nonce="n",
                duration_s=120.0,
                old_boot_id="boot",
                granted_at=LATER,
            )
        )
    with pytest.raises(Invalid):
        service.retire(database, OPERATOR, node_id, "", LATER + 1)
    service.retire(database, OPERATOR, node_id, "scrapped", LATER + 1)
    node = read_node(database, node_id)
    assert node.admission is Admission.RETIRED and node.operation is None
    assert read_operation(database, operation_id).result is Result.CANCELLED
    with database.read() as conn:
        (lease,) = conn.execute(select(schema.leases)).all()
    assert lease.ended_at == LATER + 1


def test_approve_settle_rename_relabel(database: Database) -> None:
    with database.write() as change:
        node_id = kit.add_node(change.conn, "new", admission="pending", admitted_at=None, conflict={"since": NOW})
    service.approve(database, OPERATOR, node_id, "known machine", LATER)
    service.settle_conflict(database, OPERATOR, node_id, "clone switched off", LATER)
    service.rename(database, OPERATOR, node_id, "  web-04 ", "", LATER)
    service.relabel(database, OPERATOR, node_id, {"zone": "b"}, "", LATER)
    node = read_node(database, node_id)
    assert (node.admission, node.conflict, node.name, node.labels) == (
        Admission.ADMITTED,
        None,
        "web-04",
        {"zone": "b"},
    )
    assert node.order.generation == 1  # the gateway looks again
    actions = [entry.action for entry in audit_entries(database)]
    assert actions == ["node.approve", "node.settle-conflict", "node.rename", "node.relabel"]
    assert kinds(database, node_id) == ["approved", "conflict-settled", "renamed", "relabelled"]


def test_bad_names_and_labels(database: Database, node_id: str) -> None:
    for name in ("", "  ", "x" * 300, "a\nb"):
        with pytest.raises(Invalid):
            service.rename(database, OPERATOR, node_id, name, "", LATER)
    with pytest.raises(Invalid):
        service.relabel(database, OPERATOR, node_id, {"no key": "x"}, "", LATER)
    assert audit_entries(database) == []


# --- pins and failed versions -------------------------------------------------------------------------------


def test_pin_and_unpin(database: Database, node_id: str, image_id: str) -> None:
    service.pin(database, OPERATOR, node_id, image_id=image_id, until=LATER + 9, reason="fair", now=LATER)
    pin = read_node(database, node_id).pin
    assert pin is not None and (pin.version, pin.actor, pin.reason, pin.until) == ("2.0", "mb", "fair", LATER + 9)
    service.unpin(database, OPERATOR, node_id, "fair is over", LATER + 1)
    assert read_node(database, node_id).pin is None
    entry = audit_entries(database)[-1]
    assert entry.action == "node.unpin" and entry.before["to"] == "version 2.0" and entry.after is None


def test_bad_pins(database: Database, node_id: str, image_id: str) -> None:
    with database.write() as change:
        foreign = kit.add_image(change.conn, "2.0", arch="arm64")
    bad: list[tuple[dict[str, Any], type[TwinrootError]]] = [
        ({"reason": "x"}, Invalid),
        ({"reason": "", "image_id": image_id}, Invalid),
        ({"reason": "x", "image_id": image_id, "channel_id": "c"}, Invalid),
        ({"reason": "x", "image_id": image_id, "until": LATER}, Invalid),
        ({"reason": "x", "image_id": foreign}, NotPossible),
        ({"reason": "x", "channel_id": "c"}, NotFound),
    ]
    for given, error in bad:
        with pytest.raises(error):
            service.pin(database, OPERATOR, node_id, now=LATER, **given)
    assert read_node(database, node_id).pin is None


def test_follow(database: Database, node_id: str) -> None:
    with database.write() as change:
        channel_id = kit.add_channel(change.conn, "beta")
    service.follow(database, OPERATOR, node_id, channel_id, "", LATER)
    assert read_node(database, node_id).channel_name == "beta"
    service.follow(database, OPERATOR, node_id, None, "", LATER)
    assert read_node(database, node_id).channel_name is None


def test_a_cleared_version_may_be_tried_again(database: Database, node_id: str, image_id: str) -> None:
    with database.write() as change:
        failed_versions.remember(change.conn, node_id, digest_of("2.0"), "2.0", "did not boot", None, NOW)
    service.clear_failed_version(database, OPERATOR, node_id, digest_of("2.0"), "bios fixed", LATER)
    with pytest.raises(NotFound):
        service.clear_failed_version(database, OPERATOR, node_id, digest_of("2.0"), "again", LATER)
    assert read_node(database, node_id).order.generation == 1
    service.update(database, OPERATOR, node_id, image_id, "", LATER)


# --- one transaction ----------------------------------------------------------------------------------------


def break_audit(db: Database) -> None:
    """From now on the database refuses every audit entry."""
    with db.write() as change:
        if db.is_sqlite:
            change.conn.execute(
                text("CREATE TRIGGER no_audit BEFORE INSERT ON audit BEGIN SELECT RAISE(ABORT, 'no audit today'); END")
            )
        else:
            change.conn.execute(
                text(
                    "CREATE FUNCTION no_audit() RETURNS trigger LANGUAGE plpgsql AS"
                    " $$ BEGIN RAISE EXCEPTION 'no audit today'; END $$"
                )
            )
            change.conn.execute(
                text("CREATE TRIGGER no_audit BEFORE INSERT ON audit FOR EACH ROW EXECUTE FUNCTION no_audit()")
            )


@pytest.fixture
def ready(database: Database, image_id: str) -> dict[str, str]:
    """A node on which every action is possible, but for those that need a pending one or an operation."""
    with database.write() as change:
        pin = {"pin_image_id": image_id, "pinned_at": NOW, "pin_actor": "ana", "pin_reason": "fair"}
        slots = kit.two_slots("1.0", "0.9", passive_good=True)
        idle = kit.add_node(change.conn, slots=slots, **pin)
        failed_versions.remember(change.conn, idle, digest_of("9.0"), "9.0", "did not boot", None, NOW)
        pending = kit.add_node(change.conn, admission="pending")
        disputed = kit.add_node(change.conn, conflict={"since": NOW})
        busy = kit.add_node(change.conn, desired_operation_id="op_open")
        kit.add_operation(change.conn, busy, id="op_open", phase="staging")
    return {"idle": idle, "pending": pending, "disputed": disputed, "busy": busy, "image": image_id}


ACTIONS: dict[str, Callable[[Database, dict[str, str]], object]] = {
    "update": lambda db, on: service.update(db, OPERATOR, on["idle"], on["image"], "r", LATER),
    "reboot": lambda db, on: service.reboot(db, OPERATOR, on["idle"], "r", LATER),
    "roll back": lambda db, on: service.roll_back(db, OPERATOR, on["idle"], "r", LATER),
    "rescue": lambda db, on: service.rescue(db, OPERATOR, on["idle"], "r", LATER),
    "cancel": lambda db, on: service.cancel(db, OPERATOR, on["busy"], "r", LATER),
    "supersede": lambda db, on: service.reboot(db, OPERATOR, on["busy"], "r", LATER),
    "pin": lambda db, on: service.pin(db, OPERATOR, on["busy"], image_id=on["image"], reason="r", now=LATER),
    "unpin": lambda db, on: service.unpin(db, OPERATOR, on["idle"], "r", LATER),
    "follow": lambda db, on: service.follow(db, OPERATOR, on["idle"], None, "r", LATER),
    "approve": lambda db, on: service.approve(db, OPERATOR, on["pending"], "r", LATER),
    "retire": lambda db, on: service.retire(db, OPERATOR, on["busy"], "r", LATER),
    "settle": lambda db, on: service.settle_conflict(db, OPERATOR, on["disputed"], "r", LATER),
    "rename": lambda db, on: service.rename(db, OPERATOR, on["idle"], "other", "r", LATER),
    "relabel": lambda db, on: service.relabel(db, OPERATOR, on["idle"], {"a": "b"}, "r", LATER),
    "clear": lambda db, on: service.clear_failed_version(db, OPERATOR, on["idle"], digest_of("9.0"), "r", LATER),
}


@pytest.mark.parametrize("name", ACTIONS)
def test_without_its_audit_entry_nothing_is_changed(database: Database, ready: dict[str, str], name: str) -> None:
    break_audit(database)
    before = dump(database)
    with pytest.raises(DBAPIError, match="no audit today"):
        ACTIONS[name](database, ready)
    assert dump(database) == before


@pytest.mark.parametrize("name", ACTIONS)
def test_each_action_leaves_one_audit_entry(database: Database, ready: dict[str, str], name: str) -> None:
    ACTIONS[name](database, ready)
    (entry,) = audit_entries(database)
    assert entry.actor_kind == "person" and entry.reason == "r" and entry.at == LATER


@pytest.mark.parametrize("phase", [Phase.REBOOTING, Phase.CONFIRMING, Phase.ROLLING_BACK])
def test_a_refusal_changes_nothing(database: Database, image_id: str, phase: Phase) -> None:
    with database.write() as change:
        node_id = kit.add_node(change.conn, desired_operation_id="op_open")
        kit.add_operation(change.conn, node_id, id="op_open", phase=phase.value, target_version="3.0")
    before = dump(database)
    for act in (
        lambda: service.update(database, OPERATOR, node_id, image_id, "", LATER),
        lambda: service.reboot(database, OPERATOR, node_id, "", LATER),
        lambda: service.cancel(database, OPERATOR, node_id, "", LATER),
    ):
        with pytest.raises(NotPossible):
            act()
    assert dump(database) == before
