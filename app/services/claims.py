"""Reports of success that came too early, judged when their soak is over by our own account (rules 1 and 4).

A node that says so too early may be wrong, or our clock was set back while it soaked: nobody can tell. So its operation
stays open, exposed as before, until as many seconds were counted in steps, which no clock's jump makes; then it is
judged by what the node shows at that moment, as any other report. What speaks against it meanwhile ends it at once: a
node that turns unhealthy has failed, and of one that boots again nobody knows what it was that soaked.
"""

from __future__ import annotations

from collections.abc import Collection

import msgspec
from sqlalchemy import Connection

from app.core.nodes import Connection as Standing
from app.core.nodes import Node, Operation
from app.core.verdict import Seen, Verdict, judge, too_early
from app.services.operations import conclude, counted_s
from app.store import nodes, operations
from app.store.database import Change, Database, Priority
from wire.messages import HealthState, OperationReport, Result


def watch(change: Change, node_ids: Collection[str], now: float) -> None:
    """Their newest state is stored and their rows are held: end whose kept claim that contradicts."""
    for found in operations.with_claims(change.conn, node_ids):
        node = nodes.get(change.conn, found.node_id)
        operation = operations.get(change.conn, found.id, lock=True)
        if node is not None and operation is not None and operation.open and operation.claim is not None:
            report = _report(operation)
            verdict = _contrary(node, report)
            if verdict is not None:
                conclude(change, node, operation, report, verdict, now)


def settle(db: Database, now: float) -> int:
    """End operations whose kept claims can be judged; how many. Whoever is not seen now has to come back first."""
    with db.read() as conn:
        due = [operation for operation in operations.with_claims(conn) if _is_due(conn, operation)]
    return sum(_settle(db, operation, now) for operation in due)


def _is_due(conn: Connection, operation: Operation) -> bool:
    return too_early(operation, counted_s(conn, operation)) is None


def _settle(db: Database, found: Operation, now: float) -> bool:
    with db.write(Priority.BACKGROUND) as change:
        node = nodes.get(change.conn, found.node_id, lock=True)
        operation = operations.get(change.conn, found.id, lock=True)
        if node is None or operation is None or not operation.open or operation.claim is None:
            return False
        if node.connection is not Standing.ONLINE or node.conflict is not None:
            return False
        report = _report(operation)
        seen = Seen(node.boot_id, node.slots, node.health_state, counted_s(change.conn, operation))
        verdict = _contrary(node, report) or judge(operation, report, seen)
        if verdict.result is None:
            return False  # its phase, and the count with it, began anew since it was looked at
        conclude(change, node, operation, report, verdict, now)
    return True


def _report(operation: Operation) -> OperationReport:
    return msgspec.convert(operation.claim, OperationReport)


def _contrary(node: Node, report: OperationReport) -> Verdict | None:
    """What speaks against the claim before it is due; of another boot than the claim's, health says nothing."""
    if report.evidence.boot_id and node.boot_id != report.evidence.boot_id:
        text = f"the node claimed “{report.result.value}”, but it booted again before its soak was seen to be over"
        return Verdict(Result.UNKNOWN, text)
    if node.health_state == HealthState.UNHEALTHY:
        return Verdict(Result.UNHEALTHY, "it was seen unhealthy before its soak was seen to be over")
    return None
