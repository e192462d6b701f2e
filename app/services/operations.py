"""What nodes say about operations, applied inside intake's transaction: phases, reports, lease requests.

Intake has locked the node's row and stored its newest sections before it calls these; a node's word is compared
with that (rule 1). Nothing here trusts the order of arrival: what has ended stays as it is.
"""

from __future__ import annotations

import msgspec
import structlog
from sqlalchemy import Connection

from app.core.actors import Actor, ActorKind
from app.core.events import EventKind
from app.core.leases import reason_to_return
from app.core.nodes import Node, Operation
from app.core.slots import ARMED, IllegalMove, move, switches
from app.core.verdict import Seen, Verdict, judge
from app.services import leases as lease_service
from app.services.endings import end_operation, ended_as, name_of
from app.store import audit, epochs, events, failed_versions, fleet, leases, nodes, operations
from app.store.database import Change
from wire.limits import FAILED_VERSIONS
from wire.messages import Activity, LeaseRequest, LeaseReturn, OperationReport, Phase, Result

log = structlog.get_logger(__name__)

FAILED_KEPT = 2 * FAILED_VERSIONS
"""Most failed versions that a node's own lists may add up to; what our operations saw fail is always kept."""


def observe(change: Change, node_id: str, activity: Activity, now: float) -> None:
    """A status told a phase: move the open operation along, give back what its phase frees, keep what failed."""
    conn = change.conn
    _remember_failed(change, node_id, activity, now)
    if activity.operation_id is None:
        return  # whatever lease is left, the conductor looks at within a second
    operation = operations.get(conn, activity.operation_id)
    if operation is not None and operation.node_id == node_id and operation.open:
        _move(change, operation, activity, now)
    held = leases.held(conn, node_id)
    if held is not None:
        reason = reason_to_return(held, now, fleet.policy(conn))
        if reason is not None:
            lease_service.give_back(change, held, reason, now)


def _move(change: Change, operation: Operation, activity: Activity, now: float) -> None:
    try:
        phase = move(operation.phase, activity.phase)
    except IllegalMove as odd:
        log.warning("unexpected-phase", node=operation.node_id, operation=operation.id, reported=odd.after.value)
        events.append(
            change.conn,
            node_id=operation.node_id,
            at=now,
            kind=EventKind.UNEXPECTED_PHASE,
            text=f"Says “{odd.after}” after “{odd.before}”, which cannot follow; taken as still “{odd.before}”",
            operation_id=operation.id,
        )
        return
    if phase is not operation.phase and operations.move(change.conn, operation, phase, now):
        change.touch("operations", "fleet", "nodes", f"node:{operation.node_id}")


def _remember_failed(change: Change, node_id: str, activity: Activity, now: float) -> None:
    """The node's own memory is the older one: what it lists and we do not know is noted (rule 5)."""
    if not activity.failed_versions:
        return
    failed_versions.listed(change.conn, node_id, [failed.digest for failed in activity.failed_versions])
    known = {failed.digest for failed in failed_versions.of_node(change.conn, node_id)}
    for failed in activity.failed_versions:
        if failed.digest not in known and len(known) < FAILED_KEPT:
            known.add(failed.digest)
            failed_versions.remember(change.conn, node_id, failed.digest, failed.version, failed.reason, None, now)
            change.touch(f"node:{node_id}", "images")


def finish(change: Change, report: OperationReport, node_id: str, now: float) -> None:
    """The node says that an operation ended: end it by what was seen; late and repeated reports change nothing."""
    conn = change.conn
    operation = operations.get(conn, report.operation_id, lock=True)
    node = nodes.get(conn, node_id)
    if node is None or operation is None or operation.node_id != node_id:
        log.warning("report-of-unknown-operation", node=node_id, operation=report.operation_id)
        epochs.note(conn, node_id, report.order)  # perhaps given before this database was
        return
    if not operation.open:
        _note_late(change, node, operation, report, now)
        return
    began_at = leases.granted_at(conn, operation.id) or operation.created_at
    since_s = max(now - began_at, counted_s(conn, operation))  # our clock may have been set back since
    verdict = judge(operation, report, Seen(node.boot_id, node.slots, node.health_state, since_s))
    if verdict.result is None and operation.cancel_asked_at is None:
        _watch_on(change, operation, report, verdict.text, now)
        return
    conclude(change, node, operation, report, verdict, now)


def counted_s(conn: Connection, operation: Operation) -> float:
    """Seconds since the operation's lease, counted in steps, which no clock's jump makes; more may have passed."""
    return leases.counted_s(conn, operation.id) + operation.heard_s


def _watch_on(change: Change, operation: Operation, report: OperationReport, early: str, now: float) -> None:
    """A success that comes too early is kept, and judged when the soak is over by our own account (`claims`)."""
    if not operations.keep_claim(change.conn, operation, msgspec.to_builtins(report), now):
        return
    events.append(
        change.conn,
        node_id=operation.node_id,
        at=now,
        kind=EventKind.CLAIM_EARLY,
        text=f"Says that its soak is over, but {early} here: it is watched until it is",
        operation_id=operation.id,
    )
    change.touch(f"node:{operation.node_id}", "events", "operations")


def conclude(
    change: Change, node: Node, operation: Operation, report: OperationReport, verdict: Verdict, now: float
) -> None:
    """End the operation by this verdict, with what follows from it. Whoever was asked to stop, and stops before its
    soak was seen to be over, was cancelled."""
    result = verdict.result or Result.CANCELLED
    asked_why = operation.result_text if result is Result.CANCELLED else ""  # the node was not told
    end_operation(
        change,
        node,
        operation,
        result,
        asked_why or verdict.text,
        now,
        evidence=msgspec.to_builtins(report.evidence),
        failed_checks=[msgspec.to_builtins(check) for check in report.failed_checks],
    )
    if switches(operation.kind):
        _learn(change, operation, result, verdict.text, now)
    _free_after(change, node, operation, result, now)


def _note_late(change: Change, node: Node, operation: Operation, report: OperationReport, now: float) -> None:
    if operation.result is report.result:
        return
    if report.result is Result.UNREACHABLE and operation.result is Result.TIMED_OUT:
        _was_unreachable(change, node, operation, now)
    was = ended_as(operation, operation.result) if operation.result is not None else f"{name_of(operation)} ended"
    events.append(
        change.conn,
        node_id=operation.node_id,
        at=now,
        kind=EventKind.LATE_REPORT,
        text=f"Says late: {ended_as(operation, report.result)}. It stays as it ended before: {was}",
        operation_id=operation.id,
    )
    change.touch(f"node:{operation.node_id}", "events")


def _learn(change: Change, operation: Operation, result: Result, reason: str, now: float) -> None:
    """What this end says about the version on this node (rule 5); going back unreached says nothing. Nor does a success
    say that it did not fail here before: whoever let it be tried again has cleared that, or nobody has."""
    digest, version = operation.target_digest, operation.target_version
    if digest and result in (Result.FELL_BACK, Result.UNHEALTHY):
        why = reason or "failed"
        failed_versions.remember(change.conn, operation.node_id, digest, version, why, operation.id, now)
        change.touch("images")


_BOOTS_IT = (ARMED - {Phase.DRAINING}) | {Phase.SOAKING}
"""Whose last word was one of these has armed, and boots or runs the target."""


def learn_of_silence(change: Change, operation: Operation, text: str, now: float) -> None:
    """Its deadline passed in the phase that the operation shows: who armed the version and was not heard of again,
    where it could have been (app.core.clocks), failed with it (rules 4, 5). Before arming, silence says nothing; and
    where the version is known to have failed, it says nothing new, unless that was a silence which was
    refuted since."""
    conn, node_id, digest = change.conn, operation.node_id, operation.target_digest
    if not digest or not switches(operation.kind) or operation.phase not in _BOOTS_IT:
        return
    known = [one for one in failed_versions.of_node(conn, node_id) if one.digest == digest and one.cleared_at is None]
    if known and not known[0].only_late:
        return
    failed_versions.remember(conn, node_id, digest, operation.target_version, text, operation.id, now)
    change.touch("images")


def _was_unreachable(change: Change, node: Node, operation: Operation, now: float) -> None:
    """The silence is explained: the node went back because it reached nobody, which is never the version's (rule 6).

    The one memory that goes without an operator, as there was no failure: only what the silence of this very operation
    taught, only where the node is seen to be back, and never what the node itself lists as failed.
    """
    digest = operation.target_digest
    back = operation.old_digest and node.booted_digest == operation.old_digest
    if not back or any(failed.digest == digest for failed in node.activity.failed_versions):
        return
    why = "it went back as it reached nobody"
    if not failed_versions.clear_silence(change.conn, node.id, operation.id, why, now):
        return
    author, before = Actor(ActorKind.NODE, node.id, node.name), {"version": operation.target_version, "digest": digest}
    audit.append(change.conn, author, "node.silence-explained", f"node:{node.id}", why, before, None, now)
    change.touch("images", f"node:{node.id}")


def _free_after(change: Change, node: Node, operation: Operation, result: Result, now: float) -> None:
    """An end that the evidence bears out returns the budget; after an unknown one the node must be seen confirmed,
    for what it claims may be true and its new boot not have been told yet."""
    lease = leases.of_operation(change.conn, operation.id)
    if lease is None or result is Result.UNKNOWN:
        return
    same_boot = node.boot_id == lease.old_boot_id
    if same_boot or not node.on_trial:
        lease_service.give_back(change, lease, ended_as(operation, result), now)


def ask_lease(change: Change, node_id: str, request: LeaseRequest, now: float) -> None:
    """Queue the node's request; the conductor answers it, also where the node holds a lease already."""
    conn = change.conn
    operation = operations.get(conn, request.operation_id)
    if operation is None or operation.node_id != node_id or not operation.open:
        log.warning("lease-request-without-operation", node=node_id, operation=request.operation_id)
        return
    operations.note_request(conn, operation, request.nonce, now)
    change.touch("operations", f"desired:{node_id}")


def return_lease(change: Change, node_id: str, message: LeaseReturn, now: float) -> None:
    """The node does not want its lease any more and has started nothing: true only on the boot it was granted in."""
    conn = change.conn
    lease = leases.of_node(conn, node_id)
    node = nodes.get(conn, node_id)
    if lease is None or node is None or lease.id != message.lease_id:
        return
    if node.boot_id != lease.old_boot_id:
        log.warning("lease-return-after-reboot", node=node_id, lease=lease.id)
        return
    lease_service.give_back(change, lease, message.reason or "given back by the node", now)
