"""What nodes report: phases, ends by evidence, lease requests; late and repeated words change nothing."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import select, update

from app.core.nodes import Operation
from app.core.operations import Action, refusal
from app.services import operations as service
from app.store import events, failed_versions, leases, nodes, operation_clocks, operations, schema
from app.store.database import Database
from app.store.renewals import asking_again
from tests import server_kit as kit
from tests.server_kit import NOW, digest_of
from wire.limits import FAILED_VERSIONS
from wire.messages import (
    Activity,
    Check,
    CheckState,
    Evidence,
    FailedVersion,
    LeaseRequest,
    LeaseReturn,
    OperationReport,
    Order,
    Phase,
    Result,
)

LATER = NOW + 60
OP = "op_open"
NEW_SLOTS = [kit.slot("A", "1.0", good=True), kit.slot("B", "2.0", booted=True, next_boot=True, good=True)]


@pytest.fixture
def node_id(database: Database) -> str:
    """A node with an open update from 1.0 in slot A to 2.0, in boot `boot-1`."""
    with database.write() as change:
        node_id = kit.add_node(change.conn, "web-03", boot_id="boot-1", desired_operation_id=OP, order_generation=1)
        kit.add_operation(change.conn, node_id, id=OP, old_boot_id="boot-1", policy={"soak_s": 60.0})
    return node_id


def set_node(db: Database, node_id: str, **values: Any) -> None:
    """As intake does before it calls us."""
    with db.write() as change:
        change.conn.execute(update(schema.nodes).where(schema.nodes.c.id == node_id).values(**values))


def switch(db: Database, node_id: str, **values: Any) -> None:
    """The node was seen booted into 2.0 in slot B, in a new boot."""
    given = {"boot_id": "boot-2", "slots": NEW_SLOTS, "booted_slot": "B", "booted_digest": digest_of("2.0")}
    set_node(db, node_id, **(given | {"version": "2.0"} | values))


def grant(db: Database, node_id: str, nonce: str = "n1") -> str:
    """The lease of the node's operation, granted now in boot-1."""
    with db.write() as change:
        change.conn.execute(
            schema.leases.insert().values(
                id="lease_1",
                fleet_id=1,
                node_id=node_id,
                operation_id=OP,
                nonce=nonce,
                duration_s=120.0,
                old_boot_id="boot-1",
                granted_at=NOW,
            )
        )
    return "lease_1"


def lease_held(db: Database) -> bool:
    with db.read() as conn:
        return bool(leases.all_held(conn))


def read(db: Database, operation_id: str = OP) -> Operation:
    with db.read() as conn:
        found = operations.get(conn, operation_id)
    assert found is not None
    return found


def kinds(db: Database) -> list[str]:
    with db.read() as conn:
        return [event.kind for event in reversed(events.recent(conn))]


def observe(db: Database, node_id: str, phase: Phase, **given: Any) -> None:
    activity = Activity(phase=phase, **({"operation_id": OP} | given))
    with db.write() as change:
        service.observe(change, node_id, activity, LATER)


def report(db: Database, node_id: str, result: Result, **given: Any) -> None:
    values: dict[str, Any] = {
        "seq": 7,
        "operation_id": OP,
        "order": Order(epoch=1, generation=1),
        "result": result,
        "at": NOW,
        "evidence": Evidence(old_boot_id="boot-1", boot_id="boot-2"),
    }
    with db.write() as change:
        service.finish(change, OperationReport(**(values | given)), node_id, LATER)


# --- phases -------------------------------------------------------------------------------------------------


def test_a_phase_is_recorded_and_its_clock_begins_anew(database: Database, node_id: str) -> None:
    with database.write() as change:
        found = operations.get(change.conn, OP)
        assert found is not None
        operation_clocks.advance(change.conn, [(found, 99.0)], NOW + 5)
    observe(database, node_id, Phase.STAGING)
    operation = read(database)
    assert (operation.phase, operation.phase_at, operation.heard_s) == (Phase.STAGING, LATER, 0.0)


def test_a_phase_that_cannot_follow_changes_nothing(database: Database, node_id: str) -> None:
    observe(database, node_id, Phase.CONFIRMING)
    observe(database, node_id, Phase.STAGING)
    assert read(database).phase is Phase.CONFIRMING
    assert kinds(database) == ["unexpected-phase"]


def test_phases_of_foreign_and_ended_operations_are_not_taken(database: Database, node_id: str) -> None:
    with database.write() as change:
        other = kit.add_node(change.conn, "other")
    observe(database, other, Phase.STAGING)
    observe(database, node_id, Phase.STAGING, operation_id="op_unknown")
    observe(database, node_id, Phase.STAGING, operation_id=None)
    assert read(database).phase is Phase.IDLE
    report(database, node_id, Result.CANCELLED)
    observe(database, node_id, Phase.SOAKING)
    assert read(database).phase is Phase.IDLE


def test_what_the_node_remembers_as_failed_is_noted_once(database: Database, node_id: str) -> None:
    failed = FailedVersion(version="3.0", digest=digest_of("3.0"), reason="panics", at=NOW)
    observe(database, node_id, Phase.IDLE, failed_versions=[failed])
    with database.write() as change:
        failed_versions.clear(change.conn, node_id, digest_of("3.0"), "mb", "tried", LATER)
    observe(database, node_id, Phase.IDLE, failed_versions=[failed])
    with database.read() as conn:
        (known,) = failed_versions.of_node(conn, node_id)
    assert known.reason == "panics" and known.cleared_at == LATER


def test_what_a_node_lists_as_failed_is_bounded(database: Database, node_id: str) -> None:
    for number in range(4):
        some = [
            FailedVersion(version=f"{number}.{each}", digest=digest_of(f"{number}.{each}"), reason="", at=NOW)
            for each in range(FAILED_VERSIONS)
        ]
        observe(database, node_id, Phase.IDLE, failed_versions=some)
    assert kit.count_rows(database, schema.failed_versions) == service.FAILED_KEPT


# --- ends ---------------------------------------------------------------------------------------------------


def test_success_that_was_seen(database: Database, node_id: str) -> None:
    grant(database, node_id)
    switch(database, node_id)
    report(database, node_id, Result.SUCCEEDED)
    operation = read(database)
    assert (operation.result, operation.ended_at) == (Result.SUCCEEDED, LATER)
    assert not lease_held(database)
    assert kinds(database) == ["operation-ended", "lease-returned"]
    with database.read() as conn:
        row = conn.execute(select(schema.nodes.c.desired_operation_id, schema.nodes.c.order_generation)).one()
    assert tuple(row) == (None, 1)  # nothing is desired any more, under the same order


def test_success_that_was_not_seen_is_unknown_and_the_lease_stays(database: Database, node_id: str) -> None:
    grant(database, node_id)
    set_node(database, node_id, boot_id="boot-2")  # a new boot, but of the old version
    report(database, node_id, Result.SUCCEEDED)
    operation = read(database)
    assert operation.result is Result.UNKNOWN
    assert operation.result_text == "the node claimed “succeeded”, but slot A with 1.0 was seen booted"
    assert lease_held(database)
    observe(database, node_id, Phase.IDLE)  # seen settled and good on its new boot
    assert not lease_held(database)


def test_a_claim_that_comes_before_its_new_boot_returns_no_budget(database: Database, node_id: str) -> None:
    grant(database, node_id)
    report(database, node_id, Result.SUCCEEDED)  # its status, which would tell the new boot, is not here yet
    assert read(database).result is Result.UNKNOWN
    assert lease_held(database)
    switch(database, node_id, on_trial=True)
    observe(database, node_id, Phase.CONFIRMING)
    assert lease_held(database)
    set_node(database, node_id, on_trial=False, phase="soaking")
    observe(database, node_id, Phase.SOAKING)
    assert not lease_held(database)


def test_fallback_is_remembered_with_its_checks(database: Database, node_id: str) -> None:
    grant(database, node_id)
    set_node(database, node_id, boot_id="boot-3")
    check = Check(name="10-ingress", state=CheckState.FAILED, output="connection refused")
    report(database, node_id, Result.FELL_BACK, reason="10-ingress failed", failed_checks=[check])
    operation = read(database)
    assert operation.result is Result.FELL_BACK
    assert operation.failed_checks[0]["output"] == "connection refused"
    with database.read() as conn:
        (failed,) = failed_versions.of_node(conn, node_id)
        (ended,) = [event for event in events.recent(conn) if event.kind == "operation-ended"]
    assert (failed.digest, failed.reason) == (digest_of("2.0"), "10-ingress failed")
    assert ended.text == "Update to 2.0 fell back: 10-ingress failed" and ended.checks[0]["name"] == "10-ingress"
    assert not lease_held(database)


def test_success_clears_nothing_and_failing_again_forgets_the_clearing(database: Database, node_id: str) -> None:
    with database.write() as change:
        failed_versions.remember(change.conn, node_id, digest_of("2.0"), "2.0", "did not boot", None, NOW)
    switch(database, node_id)
    report(database, node_id, Result.SUCCEEDED)
    with database.write() as change:
        (failed,) = failed_versions.of_node(change.conn, node_id)
        assert failed.cleared_at is None, "that is for an operator with a reason (rule 5)"
        failed_versions.clear(change.conn, node_id, digest_of("2.0"), "mb", "tried", LATER)
        kit.add_operation(change.conn, node_id, id="op_again", old_boot_id="boot-2")
    report(database, node_id, Result.UNHEALTHY, operation_id="op_again", reason="leaks", seq=8)
    assert read(database, "op_again").result is Result.UNKNOWN  # the same boot: it cannot have switched
    switch(database, node_id, boot_id="boot-3")
    with database.write() as change:
        kit.add_operation(change.conn, node_id, id="op_third", old_boot_id="boot-2")
    report(database, node_id, Result.UNHEALTHY, operation_id="op_third", reason="leaks", seq=9)
    with database.read() as conn:
        (failed,) = failed_versions.of_node(conn, node_id)
    assert (failed.reason, failed.cleared_at) == ("leaks", None)


@pytest.mark.parametrize("result", [Result.UNREACHABLE, Result.NEVER_SWITCHED, Result.STAGE_FAILED, Result.CANCELLED])
def test_what_says_nothing_about_the_version(database: Database, node_id: str, result: Result) -> None:
    set_node(database, node_id, boot_id="boot-2" if result is Result.UNREACHABLE else "boot-1")
    report(database, node_id, result)
    assert read(database).result is result
    with database.read() as conn:
        assert failed_versions.of_node(conn, node_id) == []


def test_a_rescue_on_trial_ends_the_update_and_frees_its_lease(database: Database, node_id: str) -> None:
    """The node marks the slot good before it says so: with the report it is seen confirmed."""
    grant(database, node_id)
    switch(database, node_id, on_trial=True)
    observe(database, node_id, Phase.CONFIRMING)
    with database.write() as change:
        node = nodes.get(change.conn, node_id)
        assert node is not None and refusal(Action.RESCUE, node) is None
        assert refusal(Action.UPDATE, node) is not None
    assert lease_held(database)
    set_node(database, node_id, on_trial=False, phase=Phase.IDLE.value)
    report(database, node_id, Result.CANCELLED, reason="superseded by op_rescue")
    ended = read(database)
    assert (ended.result, ended.result_text) == (Result.CANCELLED, "superseded by op_rescue")
    assert not lease_held(database)
    with database.read() as conn:
        assert not failed_versions.of_node(conn, node_id)


def test_late_and_repeated_reports_change_nothing(database: Database, node_id: str) -> None:
    report(database, node_id, Result.CANCELLED, reason="superseded")
    first = read(database)
    report(database, node_id, Result.CANCELLED, reason="said again", seq=8)
    assert kinds(database) == ["operation-ended"]
    switch(database, node_id)
    report(database, node_id, Result.SUCCEEDED, seq=9)
    assert read(database) == first
    assert kinds(database) == ["operation-ended", "late-report"]


def test_reports_of_foreign_operations_change_nothing(database: Database, node_id: str) -> None:
    with database.write() as change:
        other = kit.add_node(change.conn, "other")
    report(database, other, Result.CANCELLED)
    report(database, node_id, Result.CANCELLED, operation_id="op_unknown")
    assert read(database).open and kinds(database) == []


# --- leases -------------------------------------------------------------------------------------------------


def ask(db: Database, node_id: str, nonce: str, now: float = LATER) -> None:
    with db.write() as change:
        service.ask_lease(change, node_id, LeaseRequest(operation_id=OP, nonce=nonce), now)


def test_asking_again_keeps_ones_place(database: Database, node_id: str) -> None:
    ask(database, node_id, "n1", NOW + 1)
    ask(database, node_id, "n2", NOW + 31)
    operation = read(database)
    assert (operation.lease_nonce, operation.lease_asked_at, operation.lease_nonce_at) == ("n2", NOW + 1, NOW + 31)


def test_a_holder_that_asks_again_is_answered_by_the_conductor(database: Database, node_id: str) -> None:
    grant(database, node_id)
    ask(database, node_id, "n2")
    with database.read() as conn:
        assert conn.execute(select(schema.leases.c.nonce)).scalar_one() == "n1"
        assert [found.nonce for found in asking_again(conn, LATER)] == ["n2"]


def test_the_holder_asks_again_on_another_boot(database: Database, node_id: str) -> None:
    grant(database, node_id)
    set_node(database, node_id, boot_id="boot-2")
    ask(database, node_id, "n2")
    with database.read() as conn:
        assert asking_again(conn, LATER) == []


def test_a_cancelled_operation_gets_no_fresh_lease(database: Database, node_id: str) -> None:
    grant(database, node_id)
    with database.write() as change:
        change.conn.execute(update(schema.operations).values(cancel_asked_at=NOW))
    ask(database, node_id, "n2")
    with database.read() as conn:
        assert asking_again(conn, LATER) == []


def test_requests_for_foreign_and_ended_operations(database: Database, node_id: str) -> None:
    with database.write() as change:
        other = kit.add_node(change.conn, "other")
    ask(database, other, "n1")
    assert read(database).lease_nonce is None
    report(database, node_id, Result.CANCELLED)
    ask(database, node_id, "n1")
    assert read(database).lease_nonce is None


def give_back(db: Database, node_id: str, lease_id: str = "lease_1") -> None:
    message = LeaseReturn(lease_id=lease_id, operation_id=OP, reason="inhibited")
    with db.write() as change:
        service.return_lease(change, node_id, message, LATER)


def test_a_lease_is_given_back(database: Database, node_id: str) -> None:
    grant(database, node_id)
    give_back(database, node_id)
    assert not lease_held(database)
    give_back(database, node_id)
    assert kinds(database) == ["lease-returned"]


def test_only_its_holder_gives_a_lease_back_and_only_before_the_reboot(database: Database, node_id: str) -> None:
    grant(database, node_id)
    with database.write() as change:
        other = kit.add_node(change.conn, "other")
    give_back(database, other)
    give_back(database, node_id, "lease_unknown")
    set_node(database, node_id, boot_id="boot-2")
    give_back(database, node_id)
    assert lease_held(database)


@pytest.mark.parametrize(
    ("phase", "boot", "returned"),
    [
        (Phase.REBOOTING, "boot-1", False),
        (Phase.CONFIRMING, "boot-2", False),
        (Phase.ROLLING_BACK, "boot-2", False),
        (Phase.SOAKING, "boot-2", True),
    ],
)
def test_the_phase_that_frees_the_lease(
    database: Database, node_id: str, phase: Phase, boot: str, returned: bool
) -> None:
    grant(database, node_id)
    on_trial = phase is Phase.CONFIRMING
    set_node(database, node_id, boot_id=boot, slots=NEW_SLOTS, phase=phase.value, on_trial=on_trial)
    observe(database, node_id, phase)
    assert lease_held(database) is not returned
