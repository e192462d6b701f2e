"""Reports of success that came too early, judged when their soak is over by our own account (rules 1 and 4).

A node that says so too early may be wrong, or our clock was set back while it soaked: nobody can tell. So its operation
stays open, exposed as before, until as many seconds were counted in steps, which no clock's jump makes; then it is
judged by what the node shows at that moment, as any other report.
"""

from __future__ import annotations

import msgspec
from sqlalchemy import Connection

from app.core.nodes import Connection as Standing
from app.core.nodes import Operation
from app.core.verdict import Seen, judge, too_early
from app.services.operations import conclude, counted_s
from app.store import nodes, operations
from app.store.database import Database, Priority
from wire.messages import OperationReport


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
        report = msgspec.convert(operation.claim, OperationReport)
        seen = Seen(node.boot_id, node.slots, node.health_state, counted_s(change.conn, operation))
        verdict = judge(operation, report, seen)
        if verdict.result is None:
            return False  # its phase, and the count with it, began anew since it was looked at
        conclude(change, node, operation, report, verdict, now)
    return True
